/*
 * Health checks: one question, one answer, never twice. The caller decides when to ask again.
 *
 * http passes on a 2xx status (a redirect does not), tcp on an accepted connection, command on exit status 0.
 * Every check uses a fresh connection, reads at most 64 KiB of an answer, and ends within its timeout.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config/config.h"
#include "driver/command.h"

struct prober; /* shares one libcurl multi handle among all checks of a loop */
struct probe; /* one check under way */

int prober_create(uv_loop_t *loop, struct prober **ret_prober);
/*
 * Cancels what is under way; the loop must still run (uv_run in UV_RUN_DEFAULT) to close the handles, and until a
 * thread that reads a large answer has ended.
 */
struct prober *prober_destroy(struct prober *prober);

/* How a probe of the kind `command` is executed. Borrowed for the length of the call that begins it. */
struct probe_runner {
	const struct command *command; /* made of the probe's, for its service */
	const struct rlimit *open_files; /* what it may open; NULL: what the caller may */
};

/* `text` says in words what was wrong ("connection refused", "status 503"), or "" when it passed. */
typedef void (*probe_handler)(void *context, bool passed, const char *text);

/*
 * Begins a check. 0: `handler` is called exactly once, from the loop, never from inside this call; `*ret_probe` (may be
 * NULL) stays valid until then, for probe_cancel(). Other kinds than `command` need no runner. -EINVAL for kinds that
 * have no probe of their own (PROBE_CONTAINER); -ENOMEM.
 */
int probe_start(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, probe_handler handler, void *context, struct probe **ret_probe);

/* The handler is not called any more. */
void probe_cancel(struct probe *probe);
