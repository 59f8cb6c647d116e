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

/* What is in its way, as the outside may see it; the plan has none any more. */
static void take_blockers(struct transition *record, struct plan *plan)
{
	free(record->blockers);
	record->blockers = plan->blockers;
	record->n_blockers = plan->n_blockers;
	plan->blockers = NULL;
	plan->n_blockers = 0;
}

static enum turn refuse(struct engine *engine, struct request *request, struct plan *plan)
{
	struct transition *record = &request->record;
	explain_refusal(&engine->names, &record->spec, plan, record->detail, sizeof(record->detail));
	take_blockers(record, plan);
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

static const char behind_words[] = "waits for requests before it";

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
	snprintf(buffer, size, "%s", behind_words);
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
		gpus[gpu].foreign_mib = gpus[gpu].lasting_foreign_mib;
	}
	later.gpus = gpus;
	return plan_make(&later, needs, ret_plan);
}

/* ---- waiting ---- */

/* Nobody behind it may be granted what it asks for, or what has to end for it. */
static void mark_services(struct engine *engine, struct request *request, const struct plan *plan)
{
	const struct request_spec *spec = &request->record.spec;
	for (size_t i = 0; plan != NULL && i < plan->n_steps; i++)
		if (plan->steps[i].action != PLAN_START && engine->marked[plan->steps[i].service] == NULL)
			engine->marked[plan->steps[i].service] = request;
	for (size_t i = 0; spec->kind == REQUEST_LEASE && i < spec->lease->n_services; i++)
		if (engine->marked[spec->lease->services[i]] == NULL)
			engine->marked[spec->lease->services[i]] = request;
}

/* Who waits before it for a service that it wants to lease, or for that service to go; NULL: nobody. */
static const struct request *find_before(const struct engine *engine, const struct request *request)
{
	const struct request_spec *spec = &request->record.spec;
	for (size_t i = 0; spec->kind == REQUEST_LEASE && i < spec->lease->n_services; i++) {
		const struct request *before = engine->marked[spec->lease->services[i]];
		if (before != NULL && before != request)
			return before;
	}
	return NULL;
}

static enum turn refuse_circle(struct engine *engine, struct request *request)
{
	snprintf(request->record.detail, sizeof(request->record.detail),
		"it would wait for a lease that its own client holds, directly or over others who wait for that; "
		"release that one first, or ask for everything in one lease");
	queue_remove(engine, request);
	queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_WOULD_DEADLOCK);
	return TURN_BEGUN;
}

static uint32_t most_committed(const struct engine *engine, const struct service *service)
{
	uint64_t most = 0;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		uint64_t commitment = ledger_commitment(engine, service, gpu);
		if (commitment > most)
			most = commitment;
	}
	return (uint32_t)most;
}

static struct plan_blocker describe_lease(const struct engine *engine, const struct lease *lease)
{
	if (lease->n_services == 0)
		return (struct plan_blocker){ .reason = BLOCKED_BY_ROOM,
			.service = PLAN_NO_SERVICE,
			.gpu = lease->gpus != 0 ? __builtin_ctzll(lease->gpus) : -1,
			.mib = lease->room_mib };
	const struct service *service = &engine->services[lease->services[0]];
	return (struct plan_blocker){ .reason = BLOCKED_BY_USE,
		.service = service->index,
		.gpu = lease->gpus != 0 ? __builtin_ctzll(lease->gpus) : -1,
		.mib = most_committed(engine, service),
		.priority = service->definition.priority };
}

/* The leases that it waits for, as what is in its way. Memory that runs out costs the list, nothing else. */
static void list_leases(const struct engine *engine, struct request *request)
{
	struct plan list = { .blockers = calloc(request->n_waits + 1, sizeof(struct plan_blocker)) };
	for (size_t i = 0; list.blockers != NULL && i < request->n_waits; i++) {
		const struct lease *lease = lease_find(engine, request->waits[i]);
		if (lease != NULL)
			list.blockers[list.n_blockers++] = describe_lease(engine, lease);
	}
	take_blockers(&request->record, &list);
}

/* A lease on services that are ready needs no turn of their GPUs, only that they are free. */
static bool needs_turn(const struct request *request, const struct plan *plan)
{
	const struct request_spec *spec = &request->record.spec;
	return spec->kind != REQUEST_LEASE || spec->lease->mode == LEASE_GPU || spec->lease->room_mib > 0 ||
		plan->n_steps > 0;
}

static bool follows(const struct request *request, const struct request *before)
{
	return before != NULL && before->record.spec.kind == REQUEST_LEASE &&
		request->record.spec.kind == REQUEST_LEASE && request->record.spec.lease->n_services == 1;
}

/* It has to wait for this plan: for leases that are in its way, for its turn, or for both. Ends the plan. */
static enum turn wait_for(struct engine *engine, struct request *request, struct plan *plan, gpu_set gated,
	bool needs_rooms, const char *otherwise)
{
	char why[256] = "";
	const struct request *before = find_before(engine, request);
	bool is_behind = before != NULL;
	request->follows = follows(request, before);
	request->waits_turn = (needs_turn(request, plan) && (plan->gpus & gated) != 0) || is_behind;
	request->gates = plan->gpus;
	contention_collect(engine, request, plan, needs_rooms);
	if (contention_is_circular(engine, request)) {
		plan_finish(plan);
		return refuse_circle(engine, request);
	}
	if (is_behind) /* nobody is warned for who would not be next */
		snprintf(why, sizeof(why), "%s", behind_words);
	else if (request->n_waits > 0)
		contention_warn(engine, request, plan, needs_rooms, why, sizeof(why));
	else if (otherwise != NULL)
		snprintf(why, sizeof(why), "%s", otherwise);
	else
		explain_turn(engine, plan->gpus, why, sizeof(why));
	/* What it would stop is not known as long as it stays behind another lease; see stay_behind(). */
	mark_services(engine, request, is_behind && before->record.spec.kind == REQUEST_LEASE ? NULL : plan);
	list_leases(engine, request);
	set_waiting(engine, request, TRANSITION_QUEUED, plan->gpus, why);
	plan_finish(plan);
	return TURN_WAITS;
}

/* What it has to wait for when it is parked, as what is in its way: who works there, and who may stay for a while yet.
 */
static void list_parked(const struct engine *engine, struct request *request, const struct plan *plan)
{
	struct plan list = { .blockers = calloc(plan->n_steps + request->n_waits + 1, sizeof(struct plan_blocker)) };
	for (size_t i = 0; list.blockers != NULL && i < plan->n_steps; i++) {
		const struct plan_step *step = &plan->steps[i];
		const struct service *service = &engine->services[step->service];
		if (step->action == PLAN_START)
			continue;
		list.blockers[list.n_blockers++] =
			(struct plan_blocker){ .reason = service_is_in_use(service) ? BLOCKED_BY_USE
										    : BLOCKED_BY_PRIORITY,
				.service = step->service,
				.gpu = step->gpus != 0 ? __builtin_ctzll(step->gpus) : -1,
				.mib = step->mib,
				.priority = service->definition.priority };
	}
	for (size_t i = 0; list.blockers != NULL && i < request->n_waits; i++) {
		const struct lease *lease = lease_find(engine, request->waits[i]);
		if (lease != NULL && lease->room_mib > 0)
			list.blockers[list.n_blockers++] = describe_lease(engine, lease);
	}
	take_blockers(&request->record, &list);
}

static void explain_parking(const struct engine *engine, const struct transition *record, char *why, size_t size)
{
	snprintf(why, size, "waits until something that is idle may be evicted");
	for (size_t i = 0; i < record->n_blockers; i++) {
		const struct plan_blocker *blocker = &record->blockers[i];
		if (blocker->reason == BLOCKED_BY_ROOM)
			snprintf(why, size, "waits for room that is leased to a client's own process");
		if (blocker->reason != BLOCKED_BY_USE)
			continue;
		snprintf(why, size, "waits for %s, which is in use and not to be evicted for it",
			engine->services[blocker->service].definition.name);
		return;
	}
}

/* It keeps nobody from anything, but it waits for leases like everybody else. Ends the plan. */
static enum turn park(struct engine *engine, struct request *request, struct plan *plan, bool needs_rooms)
{
	char why[160];
	request->waits_turn = false;
	contention_collect(engine, request, plan, needs_rooms);
	if (contention_is_circular(engine, request)) {
		plan_finish(plan);
		return refuse_circle(engine, request);
	}
	list_parked(engine, request, plan);
	plan_finish(plan);
	explain_parking(engine, &request->record, why, sizeof(why));
	set_waiting(engine, request, TRANSITION_PARKED, 0, why);
	return TURN_WAITS;
}

/* What may come about by itself so that it fits, the nearest first. */
enum prospect {
	PROSPECT_MEMORY, /* memory of what ended is back */
	PROSPECT_USE, /* and what is in use is so no more */
	PROSPECT_ROOM, /* and rooms are given back */
	PROSPECT_IDLE, /* what is idle gives way in the end */
	PROSPECT_YIELD, /* and so does what is in use now */
	PROSPECT_OWN, /* and its own client lets go */
	PROSPECT_NONE,
};

static bool is_owed(const struct plan_gpu *gpu)
{
	return gpu->unreclaimed_mib > 0 || gpu->lasting_foreign_mib < gpu->foreign_mib;
}

static bool is_any_memory_owed(const struct plan_snapshot *snapshot)
{
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++)
		if (is_owed(&snapshot->gpus[gpu]))
			return true;
	return false;
}

static bool is_any_service_used(const struct plan_snapshot *snapshot, bool by_itself)
{
	for (size_t i = 0; i < snapshot->n_services; i++)
		if (snapshot->services[i].in_use && snapshot->services[i].own == by_itself)
			return true;
	return false;
}

static bool is_any_room_leased(const struct plan_snapshot *snapshot, bool by_itself)
{
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++) {
		const struct plan_gpu *there = &snapshot->gpus[gpu];
		if ((by_itself ? there->own_room_mib : there->room_mib - there->own_room_mib) > 0)
			return true;
	}
	return false;
}

/* Whether the plan may turn out otherwise by it. */
static bool may_help(const struct plan_snapshot *snapshot, const struct request *request, enum prospect prospect)
{
	bool others_use = is_any_service_used(snapshot, false) || is_any_room_leased(snapshot, false);
	bool uses_itself = is_any_service_used(snapshot, true) || is_any_room_leased(snapshot, true);
	switch (prospect) {
	case PROSPECT_MEMORY:
		return is_any_memory_owed(snapshot);
	case PROSPECT_USE:
		return is_any_service_used(snapshot, false);
	case PROSPECT_ROOM:
		return is_any_room_leased(snapshot, false);
	case PROSPECT_IDLE: /* else it is asked only to tell whether more than that is needed */
		return others_use || uses_itself || request->record.state == TRANSITION_PARKED;
	case PROSPECT_YIELD:
		return others_use;
	default:
		return uses_itself;
	}
}

/*
 * The first prospect that holds, and the plan as it would be then. 0 or -ENOMEM; with PROSPECT_NONE there is no plan.
 * Only who was parked for what was in use waits for what is idle, too.
 */
static int find_prospect(const struct plan_snapshot *snapshot, const struct plan_request *needs,
	const struct request *request, enum prospect *ret_prospect, struct plan *ret_plan)
{
	struct plan_request hope = *needs;
	bool is_idle_enough = false;
	for (*ret_prospect = PROSPECT_MEMORY; *ret_prospect < PROSPECT_NONE; ++*ret_prospect) {
		enum prospect prospect = *ret_prospect;
		if (!may_help(snapshot, request, prospect) || (prospect == PROSPECT_YIELD && is_idle_enough))
			continue;
		hope.assume_unused = prospect >= PROSPECT_USE && prospect != PROSPECT_IDLE;
		hope.assume_vacated = prospect >= PROSPECT_ROOM && prospect != PROSPECT_IDLE;
		hope.assume_yielded = prospect >= PROSPECT_IDLE && !is_idle_enough;
		hope.assume_own_ended = prospect == PROSPECT_OWN;
		int result = plan_without_unreclaimed(snapshot, &hope, ret_plan);
		if (result < 0)
			return result;
		bool holds = result == PLAN_OK;
		if (holds && (prospect != PROSPECT_IDLE || request->record.state == TRANSITION_PARKED))
			return 0;
		is_idle_enough |= holds;
		plan_finish(ret_plan);
	}
	return 0;
}

/* Does not fit even with every GPU free to touch: is there anything to wait for? Ends the plan of the prospect. */
static enum turn wait_in_hope(
	struct engine *engine, struct request *request, enum prospect prospect, struct plan *plan, gpu_set gated)
{
	switch (prospect) {
	case PROSPECT_MEMORY:
		return wait_for(engine, request, plan, gated, false, "waits for memory of services that ended");
	case PROSPECT_USE:
	case PROSPECT_ROOM:
		return wait_for(engine, request, plan, gated, prospect == PROSPECT_ROOM,
			"waits until what works there is idle");
	case PROSPECT_OWN:
		plan_finish(plan);
		return refuse_circle(engine, request);
	default:
		return park(engine, request, plan, prospect == PROSPECT_YIELD);
	}
}

/* Takes `refusal`. */
static enum turn wait_or_refuse(struct engine *engine, struct request *request, const struct plan_snapshot *snapshot,
	const struct plan_request *needs, struct plan *refusal, gpu_set gated)
{
	struct plan plan;
	enum prospect prospect;
	int result = find_prospect(snapshot, needs, request, &prospect, &plan);
	if (result == 0 && prospect == PROSPECT_NONE)
		return refuse(engine, request, refusal);
	plan_finish(refusal);
	return result < 0 ? TURN_NO_MEMORY : wait_in_hope(engine, request, prospect, &plan, gated);
}

/* ---- one request ---- */

/* Whether a transition is at work on something that it needs; where that stands then is about to change. */
static bool is_engaged(const struct engine *engine, const struct plan_request *needs)
{
	for (size_t i = 0; i < needs->n_needs; i++)
		if (engine->services[needs->needs[i]].transition != 0)
			return true;
	return false;
}

/* Whether somebody whom it would evict has to be asked first whether it works. */
static bool must_ask(struct engine *engine, const struct plan *plan)
{
	bool any = false;
	for (size_t i = 0; i < plan->n_steps; i++)
		if (plan->steps[i].action != PLAN_START)
			any |= busy_must_ask(engine, &engine->services[plan->steps[i].service]);
	return any;
}

/* It gates nothing: what needs no lock goes on while another host has it. Only leases on the same stay behind it. */
static enum turn wait_for_lock(struct engine *engine, struct request *request)
{
	char why[400];
	struct plan none = { 0 };
	locking_await(engine, request, why, sizeof(why));
	request->waits_turn = false;
	request->n_waits = 0;
	if (!locking_is_yielding(engine)) /* who may go on then must not wait behind who waits for him to end */
		mark_services(engine, request, NULL);
	take_blockers(&request->record, &none);
	set_waiting(engine, request, TRANSITION_QUEUED, 0, why);
	return TURN_WAITS;
}

static enum turn begin_when_asked(struct engine *engine, struct request *request, struct plan *plan, gpu_set gated)
{
	if (!locking_permits(engine, request)) {
		plan_finish(plan);
		return wait_for_lock(engine, request);
	}
	if (request->record.spec.force || !must_ask(engine, plan))
		return begin(engine, request, plan);
	locking_keep(engine, request);
	return wait_for(engine, request, plan, gated, false, "asks whether what it would evict works");
}

static enum turn try_placing(struct engine *engine, struct request *request, gpu_set running, gpu_set gated)
{
	struct plan_snapshot snapshot;
	struct plan_request needs;
	struct plan plan;
	int result = PLAN_REFUSED;
	snapshot_build(engine, &snapshot);
	snapshot_request(engine, request, &needs);
	contention_describe(engine, request);
	gpu_set locked = running | gated | contention_gpus(engine, request);
	bool must_wait = is_engaged(engine, &needs) || contention_blocks(engine, request) ||
		find_before(engine, request) != NULL;
	bool is_restricted = locked != 0 || engine->n_running > 0;
	if (!must_wait) {
		needs.usable = ~locked;
		result = plan_make(&snapshot, &needs, &plan);
		if (result == PLAN_OK)
			return begin_when_asked(engine, request, &plan, gated);
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
		return wait_or_refuse(engine, request, &snapshot, &needs, &plan, gated);
	return wait_for(engine, request, &plan, gated, false, NULL);
}

/* ---- leases ---- */

/*
 * A lease on what is well and free changes nothing on any GPU: it waits for nobody who waits for something else. Its
 * plan has no steps, only the GPUs where its services stand.
 */
static bool is_warm(const struct engine *engine, const struct request *request, gpu_set *ret_gpus)
{
	gpu_set gpus = 0;
	const struct lease_terms *terms = request->record.spec.lease;
	gpu_set excluded = contention_gpus(engine, request);
	if (terms->n_services == 0 || terms->mode == LEASE_GPU)
		return false;
	for (size_t i = 0; i < terms->n_services; i++) {
		const struct service *service = &engine->services[terms->services[i]];
		bool is_well = service->state == SERVICE_READY || service->state == SERVICE_BUSY;
		if (!is_well || service->transition != 0 || engine->marked[service->index] != NULL)
			return false;
		gpus |= ledger_gpus(engine, service);
	}
	*ret_gpus = gpus;
	return (gpus & excluded) == 0 && !contention_blocks(engine, request);
}

/* Somebody before it waits for the same service, and it was found feasible before: there is nothing to think about. */
static bool stays_behind(const struct engine *engine, const struct request *request)
{
	if (!request->looked_at || request->gates == 0 || request->record.state != TRANSITION_QUEUED)
		return false; /* without gates: it waited for the lock until now */
	/* What else somebody wants may have another place by now. */
	return follows(request, find_before(engine, request));
}

static enum turn stay_behind(struct engine *engine, struct request *request)
{
	request->follows = true;
	request->waits_turn = true;
	request->n_waits = 0;
	if (contention_is_circular(engine, request))
		return refuse_circle(engine, request);
	mark_services(engine, request, NULL);
	if (request->is_behind)
		return TURN_WAITS;
	request->is_behind = true;
	set_waiting(engine, request, TRANSITION_QUEUED, request->gates, behind_words);
	return TURN_WAITS;
}

/* As long as nobody knows where a service of it stands, nobody can say whom a lease of mode gpu excludes. */
static bool are_gpus_known(const struct engine *engine, const struct lease_terms *terms)
{
	gpu_set known = engine->n_cards < GPU_MAX ? GPU_BIT(engine->n_cards) - 1 : GPU_SET_ALL;
	for (size_t i = 0; i < terms->n_services; i++) {
		const struct service *service = &engine->services[terms->services[i]];
		if (service->alive && (ledger_gpus(engine, service) & known) == 0)
			return false;
	}
	return true;
}

/* It keeps nobody from anything, and waits for no lease in particular. */
static enum turn set_aside(struct engine *engine, struct request *request, const char *why)
{
	request->n_waits = 0;
	request->waits_turn = false;
	set_waiting(engine, request, TRANSITION_PARKED, 0, why);
	return TURN_WAITS;
}

static enum turn try_leasing(struct engine *engine, struct request *request, gpu_set running, gpu_set gated)
{
	struct plan warm = { .needed_service = PLAN_NO_SERVICE };
	request->awaits_lock = false;
	if (stays_behind(engine, request))
		return stay_behind(engine, request);
	request->is_behind = request->follows = false;
	if (engine->n_leases + engine->n_claims >= engine->leases_max)
		return set_aside(engine, request, "waits until fewer leases are held");
	if (request->record.spec.lease->mode == LEASE_GPU && !are_gpus_known(engine, request->record.spec.lease))
		return set_aside(engine, request,
			"waits until it is known on which GPUs its services stand; readings tell, or gpu.gpus");
	if (is_warm(engine, request, &warm.gpus))
		return locking_permits(engine, request) ? begin(engine, request, &warm)
							: wait_for_lock(engine, request);
	return try_placing(engine, request, running, gated);
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
		gpu_set gpus = ledger_gpus(engine, service);
		plan.steps[plan.n_steps++] = (struct plan_step){ .action = PLAN_STOP,
			.reason = PLAN_ASKED,
			.service = i,
			.gpus = gpus,
			.mib = most_committed(engine, service) };
		plan.gpus |= gpus;
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
	if (service->state == SERVICE_ERROR && !service_is_live(service) && !service_is_out_of_sight(service)) {
		service->error[0] = '\0';
		lifecycle_apply(engine, service, SERVICE_ENDED);
	}
}

static enum turn try_stopping(struct engine *engine, struct request *request, gpu_set running, gpu_set gated)
{
	struct plan plan;
	bool is_used, is_engaged_elsewhere;
	if (plan_stops(engine, request, &plan, &is_used, &is_engaged_elsewhere) < 0)
		return TURN_NO_MEMORY;
	acknowledge_error(engine, request);
	if ((plan.gpus & (running | gated)) == 0 && !is_used && !is_engaged_elsewhere)
		return begin_when_asked(engine, request, &plan, gated);
	return wait_for(
		engine, request, &plan, gated, false, is_used ? "waits until what is to be stopped is idle" : NULL);
}

/* Nothing is decided before everything was looked for; what cannot be seen keeps nobody waiting. */
static bool is_settled(const struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (service_is_unseen(&engine->services[i]))
			return false;
	return ledger_is_settled(engine);
}

static bool needs_service(const struct engine *engine, const struct request *request, size_t service)
{
	struct plan_request needs;
	if (request_is_stop(&request->record.spec))
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

/* Room is made around what runs; when that has ended by itself there is nothing to make room for. */
static bool has_lost_its_reason(const struct engine *engine, const struct request *request)
{
	const struct request_spec *spec = &request->record.spec;
	if (spec->kind != REQUEST_MAKE_ROOM)
		return false;
	const struct service *service = &engine->services[spec->target];
	return !service->alive || service->state == SERVICE_STOPPING || service->state == SERVICE_ERROR;
}

/* What somebody keeps from working is left to that somebody, who is told what helps. */
static enum turn refuse_hindered(struct engine *engine, struct request *request, const struct service *service)
{
	snprintf(request->record.detail, sizeof(request->record.detail), "%s: %s", service->definition.name,
		service->error);
	queue_remove(engine, request);
	queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_START_FAILED);
	return TURN_BEGUN;
}

/* It may work again: its next health check tells, which is on its way. */
static enum turn wait_for_answer(struct engine *engine, struct request *request, const struct service *service)
{
	char why[128];
	snprintf(why, sizeof(why), "waits for an answer of %s", service->definition.name);
	request->n_waits = 0;
	request->waits_turn = false;
	mark_services(engine, request, NULL);
	set_waiting(engine, request, TRANSITION_QUEUED, 0, why);
	return TURN_WAITS;
}

static enum turn try_request(struct engine *engine, size_t place, gpu_set running, gpu_set gated)
{
	struct request *request = engine->queue[place];
	if (has_lost_its_reason(engine, request)) {
		queue_remove(engine, request);
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_WITHDRAWN);
		return TURN_BEGUN;
	}
	const struct service *hindered = hindrance_find(engine, request);
	if (hindered != NULL)
		return hindered->hindrance == HINDRANCE_THERE ? refuse_hindered(engine, request, hindered)
							      : wait_for_answer(engine, request, hindered);
	if (request->record.spec.kind == REQUEST_LEASE)
		return try_leasing(engine, request, running, gated);
	if (!request_is_stop(&request->record.spec))
		return try_placing(engine, request, running, gated);
	if (request->record.spec.force)
		return try_stopping(engine, request, running, 0); /* what it ends is ended already */
	if (comes_after_start(engine, place)) {
		set_waiting(
			engine, request, TRANSITION_QUEUED, 0, "waits for a request before it about the same service");
		return TURN_WAITS;
	}
	return try_stopping(engine, request, running, gated);
}

static bool is_still_behind(const struct engine *engine, size_t place)
{
	const struct queue_slot *slot = &engine->slots[place];
	const struct request *before = slot->behind != 0 ? engine->marked[slot->behind - 1] : NULL;
	if (before == NULL || before->record.spec.kind != REQUEST_LEASE)
		return false;
	return !slot->holds || !contention_is_awaited(engine, engine->queue[place]);
}

/*
 * Who wants one service only needs no second thought as long as somebody before it waits for that, and nobody for what
 * it holds. Where it would have stood when it was looked at may be another place by now: it gates nothing.
 */
static void note_behind(const struct request *request, struct queue_slot *slot)
{
	const struct lease_terms *terms = request->record.spec.lease;
	slot->behind = request->is_behind ? (uint32_t)terms->services[0] + 1 : 0;
	slot->gates = request->follows ? 0 : request->gates;
}

/* One look in the order of the queue. TURN_BEGUN: the rest must be looked at anew. */
static enum turn look_down(struct engine *engine)
{
	gpu_set running = transition_locked(engine);
	gpu_set gated = 0;
	locking_begin_look(engine);
	memset(engine->marked, 0, engine->n_services * sizeof(engine->marked[0]));
	for (size_t i = 0; i < engine->n_queue; i++) {
		struct queue_slot *slot = &engine->slots[i];
		if (!is_still_behind(engine, i)) {
			enum turn turn = try_request(engine, i, running, gated);
			if (turn != TURN_WAITS)
				return turn;
			note_behind(engine->queue[i], slot);
		}
		gated |= slot->gates;
	}
	return TURN_WAITS;
}

/*
 * Who finds a lease that may be broken without grace does so in another look, since in the first one it was found that
 * he may. Only what the last look found of who waits is told.
 */
static bool run_once(struct engine *engine)
{
	enum turn turn;
	do {
		contention_begin_pass(engine);
		engine->break_at_once = false;
		turn = look_down(engine);
	} while (turn == TURN_WAITS && engine->break_at_once);
	if (turn == TURN_NO_MEMORY) {
		engine->retry_ms = engine->now_ms + RETRY_MS;
		locking_recall(engine);
	}
	if (turn == TURN_WAITS)
		contention_end_pass(engine);
	return turn == TURN_BEGUN;
}

bool turn_run(struct engine *engine)
{
	engine->retry_ms = DEADLINE_NONE;
	engine->break_deadline_ms = DEADLINE_NONE; /* known again at the end of a look down the queue */
	queue_sort(engine);
	if (engine->n_queue == 0 && (engine->n_wanted > 0 || engine->is_look_over)) {
		contention_begin_pass(engine);
		contention_end_pass(engine);
	}
	if (engine->n_queue > 0 && is_settled(engine))
		return run_once(engine);
	locking_recall(engine);
	return false;
}
