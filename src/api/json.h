/* Rendering of what the daemon knows as JSON. Every function returns a new reference, NULL when memory runs out. */
#pragma once

#include <jansson.h>

#include "api/api.h"

/* A string that may hold bytes from outside (names of processes, output of services): what is not UTF-8 becomes U+FFFD.
 */
json_t *json_text(const char *text);
/* The same, null for NULL and "". */
json_t *json_text_or_null(const char *text);

/* RFC 3339 in UTC with milliseconds. */
json_t *json_wall_time(double seconds);
/* Engine time; null for 0. */
json_t *json_engine_time(const struct api_host *host, uint64_t ms);

json_t *json_status(const struct api_host *host);
json_t *json_transition(const struct api_host *host, const struct transition *transition);
/* The record, or as much as is known without it. */
json_t *json_transition_by_id(const struct api_host *host, uint64_t id);
json_t *json_plan(
	const struct api_host *host, const struct request_spec *spec, const struct plan *plan, bool is_feasible);

/*
 * What a request that ended is answered with, and the status: its success, or a problem document. `transition` may be
 * NULL for one that failed before it became one.
 */
json_t *json_result(const struct api_host *host, const struct request_spec *spec, const struct transition *transition,
	enum outcome outcome, unsigned *ret_status);
