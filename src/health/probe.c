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
	probe->prober = prober;
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

static void handle_deadline_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void probe_cancel(struct probe *probe)
{
	unlink_probe(probe);
	probe->ops->release(probe);
	uv_close((uv_handle_t *)&probe->deadline, handle_deadline_closed);
}

void probe_finish(struct probe *probe, bool passed, const char *text)
{
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

int probe_start(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms, probe_handler handler,
	void *context, struct probe **ret_probe)
{
	if ((size_t)config->kind >= ARRAY_SIZE(kinds) || kinds[config->kind] == NULL)
		return -EINVAL;
	const struct probe_ops *ops = kinds[config->kind];
	CLEANUP_FREE struct probe *probe = calloc(1, ops->size);
	if (probe == NULL)
		return -ENOMEM;
	probe->ops = ops;
	probe->handler = handler;
	probe->context = context;
	probe->timeout_ms = timeout_ms;
	probe->prober = prober;
	int r = ops->begin(probe, config);
	if (r < 0) {
		ops->release(probe);
		return r;
	}
	/* The loop's clock may be as old as the callback that runs; a timeout counts from now. */
	uv_update_time(prober->loop);
	uv_timer_init(prober->loop, &probe->deadline);
	probe->deadline.data = probe;
	uv_timer_start(&probe->deadline, handle_deadline, probe->failed_early ? 0 : timeout_ms, 0);
	link_probe(prober, probe);
	if (ret_probe != NULL)
		*ret_probe = probe;
	probe = NULL;
	return 0;
}

char *probe_clean_text(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return text;
}
