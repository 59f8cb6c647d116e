/*
 * Plans, refusals and outcomes in words: the one place where numbers become sentences, for the JSON's `text`
 * and `detail`, the log and the terminal alike. Every function writes at most `size` bytes with the ending 0,
 * cuts what does not fit, and returns `buffer`.
 */
#pragma once

#include "core/request.h"

struct explain_names {
	size_t n_services;
	const struct service_definition *services;
	size_t n_phases;
	const struct phase_definition *phases;
};

/* "phase 4 (video)", "start comfyui", "release-all". */
const char *explain_request(
	const struct explain_names *names, const struct request_spec *spec, char *buffer, size_t size);

/* A step as one line: "stop cosyvoice: frees 4000 MiB on gpu0 (priority 50, not needed)". */
const char *explain_step(const struct explain_names *names, const struct plan_step *step, char *buffer, size_t size);

/* A whole plan, a line a step, or "nothing to do". */
const char *explain_plan(const struct explain_names *names, const struct request_spec *spec, const struct plan *plan,
	char *buffer, size_t size);

/* Why one blocker blocks: "leased or busy", "priority 100 is not below 10", ... */
const char *explain_blocker(const struct explain_names *names, const struct request_spec *spec,
	const struct plan_blocker *blocker, char *buffer, size_t size);

/* A refusal: what was needed, what could be made free, who blocks, what would help. */
const char *explain_refusal(const struct explain_names *names, const struct request_spec *spec, const struct plan *plan,
	char *buffer, size_t size);

/* "gpu0", "gpu0+gpu1". */
const char *explain_gpus(gpu_set gpus, char *buffer, size_t size);
