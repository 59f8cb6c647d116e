/*
 * A request that changes something, from its POST to its summary: with live progress, without waiting (--async), or as
 * JSON. Leaving it with ^C closes the connection, which is how the daemon learns of it.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "cli/leases.h"
#include "cli/progress.h"

#define TICK_MS 80

/* For the signal handler, which has no other way to know. */
static struct gpumgr *interruptible;

static void handle_interrupt(int signal)
{
	(void)signal;
	gpumgr_interrupt(interruptible);
}

static void watch_interrupt(struct cli *cli)
{
	struct sigaction action;
	interruptible = cli->g;
	/* One that is ignored stays so: a shell's background jobs are not meant by ^C. */
	if (sigaction(SIGINT, NULL, &action) < 0 || action.sa_handler == SIG_IGN)
		return;
	action = (struct sigaction){ .sa_handler = handle_interrupt };
	sigaction(SIGINT, &action, NULL);
}

struct live {
	struct cli *cli;
	struct progress progress;
	bool draws; /* in place, on a terminal */
	size_t n_lines; /* of the picture that stands there now */
};

int cli_wait_query(struct cli *cli, const char **ret_query)
{
	uint64_t ms;
	const char *text = cli->arguments.values[OPTION_WAIT];
	*ret_query = NULL;
	if (text == NULL)
		return CLI_DONE;
	if (parse_duration(text, &ms) < 0)
		return cli_usage(cli, "--wait takes a duration (30s, 5m, or a number of seconds)");
	*ret_query = cli_format(cli, "wait_s=%" PRIu64 ".%03u", ms / 1000, (unsigned)(ms % 1000));
	return CLI_DONE;
}

/* The picture as one write, over the one before. */
static void draw(struct live *live)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return;
	if (live->n_lines > 0)
		fprintf(out, "\x1b[%zuA", live->n_lines);
	fputs("\r\x1b[J", out);
	live->n_lines = progress_draw(&live->progress, out, clock_now_ms(), &live->cli->terminal);
	if (fclose(out) == 0)
		cli_write(live->cli, text, size);
	free(text);
}

static void show(struct live *live)
{
	if (live->cli->quiet)
		return;
	if (live->draws) {
		draw(live);
		return;
	}
	progress_print_ended(&live->progress, stdout);
	cli_flush(live->cli);
}

/* "phase 4 (video)": the daemon's answer knows the name as well as the number. */
static const char *full_name(struct cli *cli, const json_t *body, const char *name)
{
	const char *phase = json_words(cli, body, "name");
	const char *number = json_amount(cli, body, "phase");
	if (strcmp(number, "-") == 0)
		return name;
	if (phase == NULL)
		return cli_format(cli, "phase %s", number);
	return cli_format(cli, "phase %s (%s)", number, phase);
}

static const char *list_words(struct cli *cli, const json_t *array)
{
	const char *text = "";
	size_t i;
	const json_t *value;
	json_array_foreach(array, i, value)
	{
		json_t *object = json_pack("{s:O}", "x", value);
		const char *word = json_words(cli, object, "x");
		json_decref(object);
		text = cli_format(cli, "%s%s%s", text, i > 0 ? ", " : "", word != NULL ? word : "?");
	}
	return text;
}

/* How it ended, in one line. */
static void summarise(struct cli *cli, const json_t *body, const char *name)
{
	uint64_t ms = 0;
	char duration[64];
	json_milliseconds(body, "duration_ms", &ms);
	format_duration(ms, duration, sizeof(duration));
	const json_t *stopped = json_object_get(body, "stopped");
	const char *command = cli->arguments.words[0];
	const char *service = json_words(cli, body, "service");
	if (json_is_array(stopped) && json_array_size(stopped) == 0)
		cli_say(cli, "nothing was running\n");
	else if (json_is_array(stopped))
		cli_say(cli, "stopped %s in %s\n", list_words(cli, stopped), duration);
	else if (service == NULL)
		cli_say(cli, "%s ready in %s\n", full_name(cli, body, name), duration);
	else
		cli_say(cli, "%s %s in %s\n", service,
			strcmp(command, "stop") == 0              ? "stopped"
				: strcmp(command, "restart") == 0 ? "restarted, ready"
								  : "ready",
			duration);
}

/* After ^C: what becomes of the request. */
static void say_interrupted(const struct progress *progress)
{
	if (progress->has_begun)
		cli_fail(0, "interrupted: %s had begun and goes on; `gpumgr status' shows it", progress->name);
	else
		cli_fail(0, "interrupted: %s had not begun and is withdrawn", progress->name);
}

static int conclude(struct live *live)
{
	struct progress *progress = &live->progress;
	if (!progress->has_result)
		return cli_fail(CLI_FAILED,
			"the connection ended before %s did; `gpumgr status' shows what became of it", progress->name);
	show(live);
	say_broken(live->cli, json_object_get(progress->body, "broken"));
	if (progress->status >= 400)
		return cli_problem_json(live->cli, progress->status, progress->body);
	summarise(live->cli, progress->body, progress->name);
	return CLI_DONE;
}

/* How it went on, until the end of the stream. CLI_DONE: it ended properly. */
static int follow(struct live *live, struct gpumgr_stream *stream)
{
	const struct gpumgr_part *part;
	for (;;) {
		int r = gpumgr_stream_next(stream, TICK_MS, &part);
		if (r < 0)
			return r;
		if (r == 0 && live->draws && !live->cli->quiet)
			draw(live);
		if (r == 0 || part->kind == GPUMGR_PART_OPEN)
			continue;
		if (part->kind != GPUMGR_PART_EVENT)
			return part->kind == GPUMGR_PART_END ? CLI_DONE : cli_problem_part(live->cli, part);
		progress_feed(&live->progress, part->type, part->data, clock_now_ms());
		show(live);
	}
}

static int act_live(struct cli *cli, const char *path, const char *name)
{
	struct live live = { .cli = cli, .draws = cli->terminal.is_tty };
	struct gpumgr_stream *stream;
	int status = CLI_FAILED;
	watch_interrupt(cli);
	progress_begin(&live.progress, cli, name, clock_now_ms());
	int r = gpumgr_stream_open(cli->g, "POST", path, NULL, NULL, &stream);
	if (r == GPUMGR_OK)
		r = follow(&live, stream);
	bool is_interrupted = r == GPUMGR_ERROR_INTERRUPTED && !live.progress.has_result;
	if (is_interrupted)
		say_interrupted(&live.progress);
	else if (live.progress.has_result || r == CLI_DONE)
		status = conclude(&live);
	else
		status = r < 0 ? cli_explain(cli) : r;
	progress_end(&live.progress);
	gpumgr_stream_free(stream);
	/* The end that shells expect of an interrupted program. */
	return is_interrupted ? signal_die(SIGINT) : status;
}

static int act_async(struct cli *cli, const char *path, const char *name)
{
	struct answer answer;
	int status = cli_ask(cli, "POST", path, &answer);
	if (status != CLI_DONE)
		return status;
	const char *state = json_words(cli, answer.json, "state");
	if (cli->json)
		cli_print_json(cli, &answer);
	else
		say_broken(cli, json_object_get(answer.json, "broken"));
	if (!cli->json)
		cli_say(cli, "%s is transition %s (%s); `gpumgr status' shows it\n", name,
			json_amount(cli, answer.json, "id"), state != NULL ? state : "accepted");
	answer_finish(&answer);
	return CLI_DONE;
}

static int act_json(struct cli *cli, const char *path)
{
	struct answer answer;
	int status = cli_ask(cli, "POST", path, &answer);
	if (status != CLI_DONE)
		return status;
	cli_print_json(cli, &answer);
	answer_finish(&answer);
	return CLI_DONE;
}

int cli_act(struct cli *cli, const char *path, const char *query, const char *name)
{
	const char *wait;
	bool is_async = is_given(&cli->arguments, OPTION_ASYNC);
	int status = cli_wait_query(cli, &wait);
	if (status == CLI_DONE)
		status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	const char *const parts[] = { query, wait, is_async ? "async=1" : NULL };
	const char *separator = "?";
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i] == NULL)
			continue;
		path = cli_format(cli, "%s%s%s", path, separator, parts[i]);
		separator = "&";
	}
	if (is_async)
		return act_async(cli, path, name);
	return cli->json ? act_json(cli, path) : act_live(cli, path, name);
}
