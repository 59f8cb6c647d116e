/*
 * Busy probes: does a service work although nobody holds a lease on it? One question, one answer, as with health
 * checks.
 *
 * http: the answer is JSON of at most 1 MiB with a 2xx status, and what `json` leads to is counted: a number as it is
 * (also one in a string, "3"), true as 1, false and null as 0, a list by its elements, an object by its members. More
 * than `above` is busy.
 *
 * command: exit status 0 is busy, 1 is not (as with test(1) and grep(1)).
 *
 * Everything else is not known: no answer, another status, no such place in the JSON, a text where a number should be.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "health/probe.h"

/* `text` says what was seen ("queue_running has 2 elements"), or why it is not known; `busy` is false then. */
typedef void (*busy_handler)(void *context, bool known, bool busy, const char *text);

/* As probe_start(); probe_cancel() ends it, too. -EINVAL: neither http with `json` nor command. */
int busy_start(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, busy_handler handler, void *context, struct probe **ret_probe);
