/* What is made up; the two hosts of the tests differ in what they do about it. */
#include "api_world.h"

#include <stdio.h>
#include <stdlib.h>

const struct service_definition world_services[WORLD_SERVICES] = {
	{ .name = "comfyui", .vram = { .mib = 20000 }, .priority = 100, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "cosyvoice", .vram = { .mib = 4000 }, .priority = 50, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "vidi", .vram = { .mib = 4000 }, .priority = 40, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "share",
		.vram = { .percent = 50 },
		.priority = 10,
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.pinned = true },
};

static const size_t analysis[] = { 2 }, video[] = { 0 };

const struct phase_definition world_phases[WORLD_PHASES] = {
	{ .number = 1, .name = "crawl" },
	{ .number = 2, .name = "analysis", .services = analysis, .n_services = 1 },
	{ .number = 4, .name = "video", .services = video, .n_services = 1 },
	{ .number = 5 },
};

static void make_gpus(struct api_world *world)
{
	world->gpus[0] = (struct gpu_status){
		.account = { .mode = ACCOUNTING_PROCESS,
			.has_total = true,
			.total_mib = 24576,
			.reserve_mib = 1024,
			.committed_mib = 4000,
			.foreign_mib = 100,
			.admissible_mib = 19452 },
		.has_used = true,
		.used_mib = 4100,
		.sampled_ms = 1000,
	};
	world->gpus[1] =
		(struct gpu_status){ .account = { .mode = ACCOUNTING_LEDGER, .reserve_mib = 1024 }, .stale = true };
}

static void make_services(struct api_world *world)
{
	for (size_t i = 0; i < WORLD_SERVICES; i++)
		world->services[i] = (struct service_status){
			.definition = &world_services[i], .state = SERVICE_STOPPED, .since_ms = 500
		};
	struct service_status *ready = &world->services[1];
	ready->state = SERVICE_READY;
	ready->live = true;
	ready->gpus = GPU_BIT(0);
	ready->pid = 4242;
	ready->has_measured = true;
	ready->measured_mib = 4000;
	ready->committed_mib = 4000;
	ready->external_starts = 2;
	world->services[2].state = SERVICE_ERROR;
	world->services[2].error = "it ended with status 1: \xff bad bytes \"quoted\"";
}

static void make_sample(struct api_world *world)
{
	world->processes[0] = (struct gpu_process){ .pid = 4242, .mib = 4000, .name = "cosy\xffvoice" };
	world->processes[1] = (struct gpu_process){ .pid = 1, .mib = GPU_MIB_UNKNOWN, .name = "Xorg" };
	world->sample.n_gpus = 1;
	world->sample.gpus[0] = (struct gpu_reading){
		.valid =
			GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_TEMPERATURE | GPU_VALID_PROCESSES,
		.total_mib = 24576,
		.used_mib = 4100,
		.free_mib = 20476,
		.temperature_c = 41,
		.uuid = "GPU-0",
		.name = "A card",
		.n_processes = 2,
		.processes = world->processes,
	};
}

void world_init(struct api_world *world)
{
	*world = (struct api_world){ 0 };
	make_gpus(world);
	make_services(world);
	make_sample(world);
}

struct status world_status(struct api_world *world, uint64_t now_ms)
{
	return (struct status){
		.now_ms = now_ms,
		.n_gpus = WORLD_GPUS,
		.gpus = world->gpus,
		.n_services = WORLD_SERVICES,
		.services = world->services,
		.phase = { .any = true, .phase = 2, .at_ms = 700 },
	};
}

const char *world_service_of_process(void *context, pid_t pid)
{
	(void)context;
	return pid == 4242 ? "cosyvoice" : NULL;
}

double world_wall_time(void *context, uint64_t ms)
{
	(void)context;
	return 1.8e9 + (double)ms / 1000;
}

void world_begin_record(struct world_record *record, const struct request_spec *spec, uint64_t id, uint64_t now_ms)
{
	bool is_service = spec->kind == REQUEST_START || spec->kind == REQUEST_STOP || spec->kind == REQUEST_RESTART;
	bool is_stop = spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL;
	record->step = (struct step){
		.plan = { .action = is_stop ? PLAN_STOP : PLAN_START,
			.reason = is_stop ? PLAN_ASKED : PLAN_NEEDED,
			.service = is_service ? spec->target : 0,
			.gpus = GPU_BIT(0),
			.mib = 4000 },
	};
	record->transition = (struct transition){
		.id = id,
		.spec = *spec,
		.priority = 100,
		.state = TRANSITION_QUEUED,
		.queued_ms = now_ms,
		.gpus = GPU_BIT(0),
		.n_steps = 1,
		.steps = &record->step,
		.detail = "its turn",
	};
}

void world_end_record(struct world_record *record, enum outcome outcome, const char *why)
{
	struct transition *transition = &record->transition;
	bool is_done = outcome == OUTCOME_DONE;
	transition->state = is_done ? TRANSITION_DONE : TRANSITION_FAILED;
	transition->outcome = outcome;
	transition->started_ms = transition->queued_ms + 1;
	transition->ended_ms = transition->queued_ms + 813;
	record->step.state = is_done ? STEP_DONE : STEP_FAILED;
	record->step.started_ms = transition->started_ms;
	record->step.ended_ms = transition->ended_ms;
	snprintf(transition->detail, sizeof(transition->detail), "%s", is_done ? "" : why);
	if (!is_done)
		snprintf(record->step.detail, sizeof(record->step.detail), "exit status 1");
	if (outcome != OUTCOME_INSUFFICIENT_VRAM)
		return;
	record->blocker = (struct plan_blocker){
		.reason = BLOCKED_BY_FOREIGN, .service = PLAN_NO_SERVICE, .gpu = 0, .mib = 9000
	};
	transition->blockers = &record->blocker;
	transition->n_blockers = 1;
}

int world_plan(const struct request_spec *spec, bool is_refused, struct plan *ret_plan)
{
	*ret_plan = (struct plan){ .gpus = GPU_BIT(0) };
	if (is_refused) {
		ret_plan->blockers = calloc(1, sizeof(*ret_plan->blockers));
		ret_plan->n_blockers = 1;
		ret_plan->blockers[0] = (struct plan_blocker){
			.reason = BLOCKED_BY_PRIORITY, .service = 1, .gpu = 0, .mib = 4000, .priority = 50
		};
		ret_plan->needed_mib = 20000;
		ret_plan->best_mib = 100;
		return PLAN_REFUSED;
	}
	ret_plan->steps = calloc(1, sizeof(*ret_plan->steps));
	ret_plan->n_steps = 1;
	ret_plan->steps[0] = (struct plan_step){
		.action = PLAN_START, .service = spec->kind == REQUEST_START ? spec->target : 0, .gpus = 1, .mib = 20000
	};
	return PLAN_OK;
}

void world_fill_lease(struct lease *lease, size_t *services, const struct lease_terms *terms, uint64_t now_ms)
{
	lease->mode = terms->mode;
	lease->n_services = terms->n_services;
	lease->services = services;
	for (size_t i = 0; i < terms->n_services; i++)
		services[i] = terms->services[i];
	lease->phase = terms->phase;
	lease->gpus = GPU_BIT(0) | (terms->n_services > 1 ? GPU_BIT(1) : 0);
	lease->room_mib = terms->room_mib;
	lease->priority = terms->has_priority ? terms->priority : 100;
	lease->attached = terms->attached;
	lease->ttl_ms = terms->ttl_ms;
	lease->granted_ms = now_ms;
	lease->expires_ms = terms->attached ? UINT64_MAX : now_ms + terms->ttl_ms;
	lease->breaks_ms = UINT64_MAX;
	snprintf(lease->owner, sizeof(lease->owner), "%s", terms->owner);
	snprintf(lease->request_id, sizeof(lease->request_id), "%s", terms->request_id);
}
