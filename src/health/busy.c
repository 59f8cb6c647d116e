/*
 * From the answer of a probe to busy or not. JSON is read in libuv's thread pool: a service may tell a megabyte, and
 * the loop does not wait for that.
 */
#include "health/busy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "health/json_path.h"
#include "health/kind.h"

struct question {
	busy_handler handler;
	void *context;
	char *path; /* http */
	double above;
	struct judgement *judgement; /* under way in the thread pool */
};

/* What the thread works on. It owns all of it, so that the probe may end at any time. */
struct judgement {
	uv_work_t work;
	struct probe *probe; /* NULL: nobody asks any more */
	char *path;
	double above;
	char *body;
	size_t body_length;
	bool known, busy;
	char text[PROBE_TEXT_SIZE];
};

static struct judgement *judgement_free(struct judgement *judgement)
{
	if (judgement != NULL) {
		free(judgement->path);
		free(judgement->body);
		free(judgement);
	}
	return NULL;
}

struct question *question_free(struct question *question)
{
	if (question != NULL) {
		if (question->judgement != NULL) {
			question->judgement->probe = NULL;
			uv_cancel((uv_req_t *)&question->judgement->work);
		}
		free(question->path);
		free(question);
	}
	return NULL;
}

/* The answer; the probe is gone for the caller afterwards. */
static void tell(struct probe *probe, bool known, bool busy, const char *text)
{
	busy_handler handler = probe->question->handler;
	void *context = probe->question->context;
	if (text != probe->text)
		snprintf(probe->text, sizeof(probe->text), "%s", text);
	probe_clean_text(probe->text);
	probe_cancel(probe);
	handler(context, known, known && busy, probe->text);
}

/* A decimal number and nothing else: what strtod() takes beyond that (nan, 0x10) is a text. */
static bool read_number(const json_t *value, double *ret_number)
{
	const char *text = json_string_value(value);
	char *end;
	if (text[0] == '\0' || strlen(text) != json_string_length(value) ||
		text[strspn(text, "0123456789+-.eE")] != '\0')
		return false;
	*ret_number = strtod(text, &end);
	return *end == '\0';
}

/* False: it cannot be counted. */
static bool count(const json_t *value, double *ret_number)
{
	switch (json_typeof(value)) {
	case JSON_INTEGER:
	case JSON_REAL:
		*ret_number = json_number_value(value);
		return true;
	case JSON_TRUE:
	case JSON_FALSE:
	case JSON_NULL:
		*ret_number = json_is_true(value) ? 1 : 0;
		return true;
	case JSON_ARRAY:
		*ret_number = (double)json_array_size(value);
		return true;
	case JSON_OBJECT:
		*ret_number = (double)json_object_size(value);
		return true;
	case JSON_STRING:
		return read_number(value, ret_number);
	}
	return false;
}

static void describe(const json_t *value, const char *path, double number, char *text, size_t size)
{
	if (json_is_array(value))
		snprintf(text, size, "%.200s has %.0f element%s", path, number, number == 1 ? "" : "s");
	else if (json_is_object(value))
		snprintf(text, size, "%.200s has %.0f member%s", path, number, number == 1 ? "" : "s");
	else if (json_is_boolean(value) || json_is_null(value))
		snprintf(text, size, "%.200s is %s", path, json_kind(value));
	else
		snprintf(text, size, "%.200s is %.15g", path, number);
}

static void judge_value(struct judgement *judgement, const json_t *value)
{
	double number = 0;
	if (!count(value, &number)) {
		snprintf(judgement->text, sizeof(judgement->text),
			"%.100s is the text \"%.60s\"; it must be a number, true, false, a list or an object",
			judgement->path, json_string_value(value));
		return;
	}
	judgement->known = true;
	judgement->busy = number > judgement->above;
	describe(value, judgement->path, number, judgement->text, sizeof(judgement->text));
}

/* In the thread pool. */
static void handle_work(uv_work_t *work)
{
	struct judgement *judgement = work->data;
	json_error_t error;
	/* As reals: a number beyond 64 bits is large, not wrong. */
	size_t flags = JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL;
	json_t *root = json_loadb(judgement->body, judgement->body_length, flags, &error);
	if (root == NULL) {
		snprintf(judgement->text, sizeof(judgement->text), "the answer is not JSON: line %d: %s", error.line,
			error.text);
		return;
	}
	const json_t *value = json_path_follow(root, judgement->path, judgement->text, sizeof(judgement->text));
	if (value != NULL)
		judge_value(judgement, value);
	json_decref(root);
}

static void handle_judged(uv_work_t *work, int status)
{
	struct judgement *judgement = work->data;
	struct probe *probe = judgement->probe;
	if (probe != NULL) {
		probe->question->judgement = NULL;
		tell(probe, status == 0 && judgement->known, judgement->busy,
			status == 0 ? judgement->text : uv_strerror(status));
	}
	judgement_free(judgement);
}

/* 0, or a negative errno: there is no memory. */
static int begin_judgement(struct probe *probe)
{
	struct question *question = probe->question;
	struct judgement *judgement = calloc(1, sizeof(*judgement));
	if (judgement == NULL)
		return -ENOMEM;
	judgement->work.data = judgement;
	judgement->probe = probe;
	judgement->above = question->above;
	judgement->path = strdup(question->path);
	judgement->body = TAKE_PTR(probe->body);
	judgement->body_length = probe->body_length;
	int r = judgement->path == NULL
		? -ENOMEM
		: uv_queue_work(probe->prober->loop, &judgement->work, handle_work, handle_judged);
	if (r < 0)
		judgement_free(judgement);
	else
		question->judgement = judgement;
	return r;
}

static void answer_command(struct probe *probe, const char *text)
{
	bool known = probe->exit_status == 0 || probe->exit_status == 1;
	if (probe->exit_status == 0)
		text = "exit status 0";
	tell(probe, known, probe->exit_status == 0, text);
}

void question_answer(struct probe *probe, bool passed, const char *text)
{
	if (probe->question->path == NULL)
		answer_command(probe, text);
	else if (!passed)
		tell(probe, false, false, text);
	else if (probe->is_body_cut)
		tell(probe, false, false,
			"the answer is longer than 1 MiB; ask an address that tells less (with ComfyUI /prompt, not "
			"/queue)");
	else if (probe->body_length == 0)
		tell(probe, false, false, "the answer is empty");
	else if (begin_judgement(probe) < 0)
		tell(probe, false, false, "there is no memory to read the answer");
}

static int question_create(
	const struct probe_config *config, busy_handler handler, void *context, struct question **ret_question)
{
	bool is_http = config->kind == PROBE_HTTP;
	if (!(is_http && config->json != NULL) && config->kind != PROBE_COMMAND)
		return -EINVAL;
	struct question *question = calloc(1, sizeof(*question));
	if (question == NULL)
		return -ENOMEM;
	question->handler = handler;
	question->context = context;
	question->above = config->above;
	question->path = is_http ? strdup(config->json) : NULL;
	if (is_http && question->path == NULL) {
		question_free(question);
		return -ENOMEM;
	}
	*ret_question = question;
	return 0;
}

int busy_start(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, busy_handler handler, void *context, struct probe **ret_probe)
{
	struct question *question = NULL;
	struct probe *probe = NULL;
	int r = question_create(config, handler, context, &question);
	if (r == 0)
		r = probe_begin(prober, config, runner, timeout_ms, question, &probe);
	if (r == 0 && ret_probe != NULL)
		*ret_probe = probe;
	return r;
}
