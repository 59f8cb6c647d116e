/* What the daemon knows as JSON. Each writes one value; `key` is NULL in lists and for the outermost. */
#pragma once

#include "api/api.h"
#include "api/writer.h"

struct request;

/* Engine time; null for 0. */
void json_engine_time(struct writer *writer, const char *key, const struct api_host *host, uint64_t ms);
/* Indexes as numbers; GPUs from `n_gpus` on are left out. */
void json_gpu_set(struct writer *writer, const char *key, gpu_set gpus, size_t n_gpus);
void json_service_names(
	struct writer *writer, const char *key, const struct api_host *host, const size_t *services, size_t n);
void json_steps(
	struct writer *writer, const char *key, const struct api_host *host, const struct transition *transition);

/* Its place in the queue, counted from 1; 0: it is not there. */
size_t json_place(const struct api_host *host, const struct transition *transition);
/* Without the closing bracket, for whoever has more to say. */
void json_transition_begin(struct writer *writer, const char *key, const struct api_host *host,
	const struct transition *transition, size_t place);
void json_transition(struct writer *writer, const char *key, const struct api_host *host,
	const struct transition *transition, size_t place);
/* The record, or as much as is known without it; without the closing bracket. */
void json_transition_by_id_begin(struct writer *writer, const struct api_host *host, uint64_t id);

/* What is configured no more is shown as long as anything of it is left. */
bool json_shows_service(const struct service_status *service);
void json_status(struct writer *writer, const struct api_host *host);
void json_plan(struct writer *writer, const struct api_host *host, const struct request_spec *spec,
	const struct plan *plan, bool is_feasible);

/*
 * What a request that ended is answered with: its success, or a problem document. `transition` may be NULL for one
 * that failed before it became one. Returns the status.
 */
unsigned json_result(struct writer *writer, const struct api_host *host, const struct request *request,
	const struct transition *transition, enum outcome outcome);
