/*
 * Whose turn it is: looks down the queue, plans each request on what is free for it, begins it, lets it wait or refuses
 * it. Must not carry out plans; transitions do.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

enum turn {
	TURN_BEGUN, /* it left the queue */
	TURN_WAITS,
	TURN_NO_MEMORY,
};

static enum turn begin(struct engine *engine, struct request *request, struct plan *plan)
{
	int result = transition_adopt(engine, request, plan);
	plan_finish(plan);
	if (result < 0)
		return TURN_NO_MEMORY;
	queue_remove(engine, request);
	queue_note_overtaking(engine, request);
	return TURN_BEGUN;
}

static enum turn refuse(struct engine *engine, struct request *request, struct plan *plan)
{
	struct transition *record = &request->record;
	explain_refusal(&engine->names, &record->spec, plan, record->detail, sizeof(record->detail));
	record->n_blockers = plan->n_blockers;
	free(record->blockers);
	record->blockers = plan->blockers;
	plan->blockers = NULL;
	plan_finish(plan);
	queue_remove(engine, request);
	queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_INSUFFICIENT_VRAM);
	return TURN_BEGUN;
}

static void set_waiting(
	struct engine *engine, struct request *request, enum transition_state state, gpu_set gates, const char *why)
{
	struct transition *record = &request->record;
	bool is_news = record->state != state || strcmp(record->detail, why) != 0;
	record->state = state;
	request->gates = gates;
	request->looked_at = true;
	if (!is_news)
		return;
	snprintf(record->detail, sizeof(record->detail), "%s", why);
	engine->version++;
	queue_publish(engine, request);
}

/* "waits for transition 7 (phase 4 (video))": the first that holds one of these GPUs. */
static void explain_turn(const struct engine *engine, gpu_set gpus, char *buffer, size_t size)
{
	char name[96];
	for (size_t i = 0; i < engine->n_running; i++) {
		const struct transition *record = &engine->running[i]->record;
		if ((record->gpus & gpus) == 0)
			continue;
		explain_request(&engine->names, &record->spec, name, sizeof(name));
		snprintf(buffer, size, "waits for transition %" PRIu64 ": %s", record->id, name);
		return;
	}
	snprintf(buffer, size, "waits for requests before it");
}

/* Memory that is still on its way back must not make anybody give up. */
static int plan_without_unreclaimed(
	const struct plan_snapshot *snapshot, const struct plan_request *needs, struct plan *ret_plan)
{
	struct plan_gpu gpus[GPU_MAX];
	struct plan_snapshot later = *snapshot;
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++) {
		gpus[gpu] = snapshot->gpus[gpu];
		gpus[gpu].unreclaimed_mib = 0;
	}
	later.gpus = gpus;
	return plan_make(&later, needs, ret_plan);
}

static void list_users(struct engine *engine, const struct plan *plan, char *buffer, size_t size)
{
	size_t used = (size_t)snprintf(buffer, size, "waits for the leases on");
	for (size_t i = 0; i < plan->n_steps && used < size; i++)
		if (plan->steps[i].action != PLAN_START && service_is_in_use(&engine->services[plan->steps[i].service]))
			used += (size_t)snprintf(buffer + used, size - used, " %s",
				engine->services[plan->steps[i].service].definition.name);
}

static bool is_blocked_by_use(const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_blockers; i++)
		if (plan->blockers[i].reason == BLOCKED_BY_USE)
			return true;
	return false;
}

/* The plan as it would be when what is in the way has ended by itself. */
static int plan_later(
	const struct plan_snapshot *snapshot, const struct plan_request *needs, bool is_used, struct plan *ret_plan)
{
	struct plan_request unused = *needs;
	unused.assume_unused = true;
	return is_used ? plan_make(snapshot, &unused, ret_plan) : plan_without_unreclaimed(snapshot, needs, ret_plan);
}

/* It does not fit even with every GPU free to touch: is there anything to wait for? Takes `refusal`. */
static enum turn wait_or_refuse(struct engine *engine, struct request *request, const struct plan_snapshot *snapshot,
	const struct plan_request *needs, struct plan *refusal)
{
	char why[256] = "waits for memory of services that ended";
	struct plan later;
	bool is_used = is_blocked_by_use(refusal);
	int result = plan_later(snapshot, needs, is_used, &later);
	if (result < 0) {
		plan_finish(refusal);
		return TURN_NO_MEMORY;
	}
	if (result == PLAN_REFUSED && !is_used) {
		plan_finish(&later);
		return refuse(engine, request, refusal);
	}
	if (result == PLAN_REFUSED) {
		set_waiting(engine, request, TRANSITION_PARKED, 0, "waits for a service in use that it may not evict");
	} else {
		if (is_used)
			list_users(engine, &later, why, sizeof(why));
		set_waiting(engine, request, TRANSITION_QUEUED, later.gpus, why);
	}
	plan_finish(&later);
	plan_finish(refusal);
	return TURN_WAITS;
}

/* Whether a transition is at work on something that it needs; where that stands then is about to change. */
static bool is_engaged(const struct engine *engine, const struct plan_request *needs)
{
	for (size_t i = 0; i < needs->n_needs; i++)
		if (engine->services[needs->needs[i]].transition != 0)
			return true;
	return false;
}

static enum turn try_placing(struct engine *engine, struct request *request, gpu_set locked)
{
	char why[256];
	struct plan_snapshot snapshot;
	struct plan_request needs;
	struct plan plan;
	int result = PLAN_REFUSED;
	snapshot_build(engine, &snapshot);
	snapshot_request(engine, request, &needs);
	bool must_wait = is_engaged(engine, &needs);
	bool is_restricted = locked != 0 || engine->n_running > 0;
	if (!must_wait) {
		needs.usable = ~locked;
		result = plan_make(&snapshot, &needs, &plan);
		if (result == PLAN_OK)
			return begin(engine, request, &plan);
		if (result == PLAN_REFUSED && is_restricted)
			plan_finish(&plan);
	}
	if (must_wait || (result == PLAN_REFUSED && is_restricted)) {
		needs.usable = GPU_SET_ALL;
		needs.later = true;
		result = plan_make(&snapshot, &needs, &plan);
	}
	if (result < 0)
		return TURN_NO_MEMORY;
	if (result == PLAN_REFUSED)
		return wait_or_refuse(engine, request, &snapshot, &needs, &plan);
	explain_turn(engine, plan.gpus, why, sizeof(why));
	set_waiting(engine, request, TRANSITION_QUEUED, plan.gpus, why);
	plan_finish(&plan);
	return TURN_WAITS;
}

/* Stops by name and release-all: the plan needs no planner. */
static bool is_to_stop(const struct engine *engine, const struct request *request, size_t index)
{
	const struct service *service = &engine->services[index];
	if (request->record.spec.kind == REQUEST_STOP)
		return index == request->record.spec.target && service_is_live(service);
	return service_is_live(service) && !service->definition.pinned;
}

static int plan_stops(const struct engine *engine, const struct request *request, struct plan *ret_plan, bool *ret_used,
	bool *ret_engaged)
{
	struct plan plan = { .steps = calloc(engine->n_services + 1, sizeof(struct plan_step)) };
	*ret_used = false;
	*ret_engaged = false;
	if (plan.steps == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		if (!is_to_stop(engine, request, i))
			continue;
		uint64_t most = 0;
		for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
			if (ledger_commitment(engine, service, gpu) > most)
				most = ledger_commitment(engine, service, gpu);
		plan.steps[plan.n_steps++] = (struct plan_step){ .action = PLAN_STOP,
			.reason = PLAN_ASKED,
			.service = i,
			.gpus = ledger_gpus(engine, service),
			.mib = (uint32_t)most };
		plan.gpus |= ledger_gpus(engine, service);
		*ret_engaged |= service->transition != 0;
		*ret_used |= service_is_in_use(service) && !request->record.spec.force;
	}
	*ret_plan = plan;
	return 0;
}

/* Asking for a stop of what has failed and is gone means: it is seen, and no error any more. */
static void acknowledge_error(struct engine *engine, const struct request *request)
{
	if (request->record.spec.kind != REQUEST_STOP)
		return;
	struct service *service = &engine->services[request->record.spec.target];
	if (service->state == SERVICE_ERROR && !service_is_live(service)) {
		service->error[0] = '\0';
		lifecycle_apply(engine, service, SERVICE_ENDED);
	}
}

static enum turn try_stopping(struct engine *engine, struct request *request, gpu_set locked)
{
	char why[256];
	struct plan plan;
	bool is_used, is_engaged_elsewhere;
	if (plan_stops(engine, request, &plan, &is_used, &is_engaged_elsewhere) < 0)
		return TURN_NO_MEMORY;
	acknowledge_error(engine, request);
	if ((plan.gpus & locked) == 0 && !is_used && !is_engaged_elsewhere)
		return begin(engine, request, &plan);
	if (is_used)
		snprintf(why, sizeof(why), "waits for the leases on what is to be stopped");
	else
		explain_turn(engine, plan.gpus, why, sizeof(why));
	set_waiting(engine, request, TRANSITION_QUEUED, plan.gpus, why);
	plan_finish(&plan);
	return TURN_WAITS;
}

static bool is_stop(const struct request *request)
{
	return request->record.spec.kind == REQUEST_STOP || request->record.spec.kind == REQUEST_RELEASE_ALL;
}

/* Nothing is decided before it is known what runs already. */
static bool is_settled(const struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (engine->services[i].state == SERVICE_UNKNOWN)
			return false;
	return ledger_is_settled(engine);
}

static bool needs_service(const struct engine *engine, const struct request *request, size_t service)
{
	struct plan_request needs;
	if (is_stop(request))
		return false;
	snapshot_request(engine, request, &needs);
	for (size_t i = 0; i < needs.n_needs; i++)
		if (needs.needs[i] == service)
			return true;
	return false;
}

/* Who asks for a stop after somebody asked for a start wants it stopped in the end. */
static bool comes_after_start(const struct engine *engine, size_t place)
{
	const struct request_spec *spec = &engine->queue[place]->record.spec;
	for (size_t i = 0; spec->kind == REQUEST_STOP && i < place; i++)
		if (needs_service(engine, engine->queue[i], spec->target))
			return true;
	return false;
}

static enum turn try_request(struct engine *engine, size_t place, gpu_set running, gpu_set gated)
{
	struct request *request = engine->queue[place];
	if (!is_stop(request))
		return try_placing(engine, request, running | gated);
	if (request->record.spec.force)
		return try_stopping(engine, request, running); /* what it ends is ended already */
	if (comes_after_start(engine, place)) {
		set_waiting(
			engine, request, TRANSITION_QUEUED, 0, "waits for a request before it about the same service");
		return TURN_WAITS;
	}
	return try_stopping(engine, request, running | gated);
}

/* One pass in the order of the queue; true when something began, for then the rest must be looked at anew. */
static bool run_once(struct engine *engine)
{
	gpu_set running = transition_locked(engine);
	gpu_set gated = 0;
	for (size_t i = 0; i < engine->n_queue; i++) {
		struct request *request = engine->queue[i];
		switch (try_request(engine, i, running, gated)) {
		case TURN_BEGUN:
			return true;
		case TURN_NO_MEMORY:
			engine->retry_ms = engine->now_ms + RETRY_MS;
			return false;
		case TURN_WAITS:
			gated |= request->gates;
			break;
		}
	}
	return false;
}

bool turn_run(struct engine *engine)
{
	engine->retry_ms = DEADLINE_NONE;
	queue_sort(engine);
	if (engine->n_queue == 0 || !is_settled(engine))
		return false;
	return run_once(engine);
}
