/*
 * What all probes have in common: their list, their deadline, and that each is answered once. Knows no kind but by
 * the table.
 */
#include "health/probe.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "health/kind.h"

static const struct probe_ops *const kinds[] = {
	[PROBE_HTTP] = &http_probe_ops,
	[PROBE_TCP] = &tcp_probe_ops,
	[PROBE_COMMAND] = &command_probe_ops,
};

int prober_create(uv_loop_t *loop, struct prober **ret_prober)
{
	CLEANUP_FREE struct prober *prober = calloc(1, sizeof(*prober));
	if (prober == NULL)
		return -ENOMEM;
	prober->loop = loop;
	int r = curl_loop_create(loop, &prober->curl);
	if (r < 0)
		return r;
	*ret_prober = TAKE_PTR(prober);
	return 0;
}

struct prober *prober_destroy(struct prober *prober)
{
	if (prober == NULL)
		return NULL;
	while (prober->probes != NULL)
		probe_cancel(prober->probes);
	command_probe_end(prober);
	curl_loop_destroy(prober->curl);
	free(prober);
	return NULL;
}

static void link_probe(struct prober *prober, struct probe *probe)
{
	probe->next = prober->probes;
	if (probe->next != NULL)
		probe->next->previous = probe;
	prober->probes = probe;
}

static void unlink_probe(struct probe *probe)
{
	if (probe->next != NULL)
		probe->next->previous = probe->previous;
	if (probe->previous != NULL)
		probe->previous->next = probe->next;
	else
		probe->prober->probes = probe->next;
}

static void probe_free(struct probe *probe)
{
	question_free(probe->question);
	free(probe->body);
	free(probe);
}

static void handle_deadline_closed(uv_handle_t *handle)
{
	probe_free(handle->data);
}

void probe_cancel(struct probe *probe)
{
	unlink_probe(probe);
	probe->ops->release(probe);
	probe->question = question_free(probe->question);
	uv_close((uv_handle_t *)&probe->deadline, handle_deadline_closed);
}

void probe_finish(struct probe *probe, bool passed, const char *text)
{
	if (probe->question != NULL) {
		question_answer(probe, passed, text);
		return;
	}
	/* The memory lives until the timer's close callback, a turn of the loop later at the earliest. */
	probe_cancel(probe);
	probe->handler(probe->context, passed, text);
}

int probe_fail_early(struct probe *probe, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(probe->text, sizeof(probe->text), format, args);
	va_end(args);
	probe_clean_text(probe->text);
	probe->failed_early = true;
	return 0;
}

static void handle_deadline(uv_timer_t *timer)
{
	struct probe *probe = timer->data;
	char timeout[64];
	if (!probe->failed_early) {
		format_duration(probe->timeout_ms, timeout, sizeof(timeout));
		probe->ops->describe_timeout(probe, timeout, probe->text, sizeof(probe->text));
	}
	probe_finish(probe, false, probe->text);
}

/* Not begun yet; takes the question in any case. */
static int probe_create(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms,
	struct question *question, struct probe **ret_probe)
{
	const struct probe_ops *ops = (size_t)config->kind < ARRAY_SIZE(kinds) ? kinds[config->kind] : NULL;
	struct probe *probe = ops == NULL ? NULL : calloc(1, ops->size);
	if (probe == NULL) {
		question_free(question);
		return ops == NULL ? -EINVAL : -ENOMEM;
	}
	probe->ops = ops;
	probe->prober = prober;
	probe->timeout_ms = timeout_ms;
	probe->question = question;
	probe->exit_status = -1;
	*ret_probe = probe;
	return 0;
}

int probe_begin(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, struct question *question, struct probe **ret_probe)
{
	struct probe *probe = NULL;
	int r = probe_create(prober, config, timeout_ms, question, &probe);
	if (r < 0)
		return r;
	r = probe->ops->begin(probe, config, runner);
	if (r < 0) {
		probe->ops->release(probe);
		probe_free(probe);
		return r;
	}
	/* The loop's clock may be as old as the callback that runs; a timeout counts from now. */
	uv_update_time(prober->loop);
	uv_timer_init(prober->loop, &probe->deadline);
	probe->deadline.data = probe;
	uv_timer_start(&probe->deadline, handle_deadline, probe->failed_early ? 0 : timeout_ms, 0);
	link_probe(prober, probe);
	*ret_probe = probe;
	return 0;
}

int probe_start(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, probe_handler handler, void *context, struct probe **ret_probe)
{
	struct probe *probe = NULL;
	int r = probe_begin(prober, config, runner, timeout_ms, NULL, &probe);
	if (r < 0)
		return r;
	probe->handler = handler;
	probe->context = context;
	if (ret_probe != NULL)
		*ret_probe = probe;
	return 0;
}

char *probe_clean_text(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return text;
}
