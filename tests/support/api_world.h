/*
 * What hosts of the API have in common that are no engine: made-up services, phases, GPUs and readings, and what
 * becomes of a request when somebody says so. Nothing in it decides.
 */
#pragma once

#include "api/api.h"

#define WORLD_SERVICES 4
#define WORLD_PHASES 4
#define WORLD_GPUS 2

extern const struct service_definition world_services[WORLD_SERVICES];
extern const struct phase_definition world_phases[WORLD_PHASES];

/* How things are: cosyvoice is ready on the first GPU, vidi is broken, and nobody can read the second GPU. */
struct api_world {
	struct gpu_status gpus[WORLD_GPUS];
	struct service_status services[WORLD_SERVICES];
	struct gpu_sample sample; /* of the first GPU: cosyvoice, and a process of a stranger */
	struct gpu_process processes[2];
};

void world_init(struct api_world *world);
/* Both are the world's; the queue, the running and the leases are the caller's. */
struct status world_status(struct api_world *world, uint64_t now_ms);
const char *world_service_of_process(void *context, pid_t pid);
double world_wall_time(void *context, uint64_t ms);

/* A request on its way, with one step. */
struct world_record {
	struct transition transition; /* its arrays are below */
	struct step step;
	struct plan_blocker blocker;
};

void world_begin_record(struct world_record *record, const struct request_spec *spec, uint64_t id, uint64_t now_ms);
void world_end_record(struct world_record *record, enum outcome outcome, const char *why);

/* One start, or a refusal for priority's sake; PLAN_OK or PLAN_REFUSED, and plan_finish() frees it. */
int world_plan(const struct request_spec *spec, bool is_refused, struct plan *ret_plan);
/* `fence` and the services' array are the caller's. */
void world_fill_lease(struct lease *lease, size_t *services, const struct lease_terms *terms, uint64_t now_ms);
