/*
 * The one queue: who waits, in which order, what that keeps from whom, and who is told what in the end. Must not carry
 * out plans; it adopts them into transitions.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

/* ---- requests and their lists ---- */

struct request *queue_free_request(struct request *request)
{
	if (request == NULL)
		return NULL;
	free(request->record.steps);
	free(request->record.blockers);
	free(request);
	return NULL;
}

static int grow_lists(struct engine *engine)
{
	size_t wanted = engine->n_queue + engine->n_running + engine->n_archive + 1;
	if (wanted <= engine->requests_capacity)
		return 0;
	size_t capacity = 2 * wanted + ARCHIVE_MAX;
	struct request ***lists[] = { &engine->queue, &engine->running, &engine->archive };
	for (size_t i = 0; i < 3; i++) {
		struct request **grown = realloc(*lists[i], capacity * sizeof(grown[0]));
		if (grown == NULL)
			return -ENOMEM;
		*lists[i] = grown;
	}
	engine->requests_capacity = capacity;
	return 0;
}

static void remove_from_queue(struct engine *engine, const struct request *request)
{
	for (size_t i = 0; i < engine->n_queue; i++) {
		if (engine->queue[i] != request)
			continue;
		memmove(&engine->queue[i], &engine->queue[i + 1], (engine->n_queue - i - 1) * sizeof(engine->queue[0]));
		engine->n_queue--;
		return;
	}
}

void queue_trim_archive(struct engine *engine)
{
	if (engine->n_archive <= ARCHIVE_MAX)
		return;
	size_t n = engine->n_archive - ARCHIVE_MAX;
	for (size_t i = 0; i < n; i++)
		queue_free_request(engine->archive[i]);
	memmove(engine->archive, engine->archive + n, ARCHIVE_MAX * sizeof(engine->archive[0]));
	engine->n_archive = ARCHIVE_MAX;
}

static bool is_waiting(const struct request *request)
{
	return request->record.state == TRANSITION_QUEUED || request->record.state == TRANSITION_PARKED;
}

void queue_publish(struct engine *engine, const struct request *request)
{
	char name[96];
	const struct transition *record = &request->record;
	explain_request(&engine->names, &record->spec, name, sizeof(name));
	struct notice *notice = notice_begin(engine, "transition", name);
	if (notice == NULL)
		return;
	notice->transition = record->id;
	notice->is_problem = record->state == TRANSITION_FAILED && record->outcome != OUTCOME_WITHDRAWN;
	notice_add_text(notice, "kind", request_kind_name(record->spec.kind));
	notice_add_text(notice, "state", transition_state_name(record->state));
	if (record->state >= TRANSITION_DONE) {
		notice_add_text(notice, "outcome", outcome_code(record->outcome));
		notice_add_number(notice, "duration_ms", (int64_t)(record->ended_ms - record->queued_ms));
	}
	snprintf(notice->text, sizeof(notice->text), "%s: %s%s%.380s", name, transition_state_name(record->state),
		record->detail[0] != '\0' ? ": " : "", record->detail);
}

/* ---- tickets: one for each client that asked ---- */

static size_t find_ticket(const struct engine *engine, uint64_t id)
{
	size_t low = 0, high = engine->n_tickets;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (engine->tickets[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int grow_tickets(struct engine *engine)
{
	if (engine->n_tickets < engine->tickets_capacity)
		return 0;
	size_t capacity = 2 * engine->tickets_capacity + 16;
	struct ticket *grown = realloc(engine->tickets, capacity * sizeof(grown[0]));
	if (grown == NULL)
		return -ENOMEM;
	engine->tickets = grown;
	engine->tickets_capacity = capacity;
	return 0;
}

/* Room was made by grow_tickets(). */
static void add_ticket(struct engine *engine, uint64_t id, int64_t wait_ms, struct request *request)
{
	uint64_t wait = wait_ms < 0 ? engine->wait_ms : (uint64_t)wait_ms;
	uint64_t deadline = wait > DEADLINE_NONE - 1 - engine->now_ms ? DEADLINE_NONE - 1 : engine->now_ms + wait;
	size_t place = find_ticket(engine, id);
	memmove(&engine->tickets[place + 1], &engine->tickets[place],
		(engine->n_tickets - place) * sizeof(engine->tickets[0]));
	engine->tickets[place] = (struct ticket){ .id = id, .deadline_ms = deadline, .request = request };
	engine->n_tickets++;
	request->n_tickets++;
	if (deadline < engine->ticket_deadline_ms)
		engine->ticket_deadline_ms = deadline;
	struct effect *effect = effect_add(engine, EFFECT_ACCEPT);
	effect->answer.ticket = id;
	effect->answer.id = request->record.id;
}

static void reply(struct engine *engine, uint64_t ticket, const struct request *request, enum outcome outcome)
{
	struct effect *effect = effect_add(engine, EFFECT_REPLY);
	effect->answer.ticket = ticket;
	effect->answer.id = request->record.id;
	effect->answer.transition = &request->record;
	effect->answer.outcome = outcome;
}

/* Removes the tickets for which `is_due` holds, answering each with `outcome`; keeps the order of the rest. */
static void answer_tickets(struct engine *engine, struct request *request, uint64_t due_ms, enum outcome outcome)
{
	size_t kept = 0;
	uint64_t deadline = DEADLINE_NONE;
	for (size_t i = 0; i < engine->n_tickets; i++) {
		struct ticket ticket = engine->tickets[i];
		if (ticket.request == request && ticket.deadline_ms <= due_ms) {
			request->n_tickets--;
			reply(engine, ticket.id, request, outcome);
			continue;
		}
		if (is_waiting(ticket.request) && ticket.deadline_ms < deadline)
			deadline = ticket.deadline_ms;
		engine->tickets[kept++] = ticket;
	}
	engine->n_tickets = kept;
	engine->ticket_deadline_ms = deadline;
}

void queue_finish(struct engine *engine, struct request *request, enum transition_state state, enum outcome outcome)
{
	struct transition *record = &request->record;
	record->state = state;
	record->outcome = outcome;
	record->ended_ms = engine->now_ms;
	engine->archive[engine->n_archive++] = request;
	engine->version++;
	queue_publish(engine, request);
	answer_tickets(engine, request, DEADLINE_NONE, outcome);
}

/* ---- submission ---- */

static bool is_same_target(const struct request_spec *a, const struct request_spec *b)
{
	return a->kind == b->kind && a->force == b->force && (a->kind == REQUEST_RELEASE_ALL || a->target == b->target);
}

/* What waits can be joined by all equals; what runs only by those that ask for a state, not for an act. */
static struct request *find_equal(const struct engine *engine, const struct request_spec *spec)
{
	for (size_t i = 0; i < engine->n_queue; i++)
		if (is_same_target(&engine->queue[i]->record.spec, spec))
			return engine->queue[i];
	if (spec->kind != REQUEST_PHASE && spec->kind != REQUEST_START)
		return NULL;
	for (size_t i = 0; i < engine->n_running; i++)
		if (is_same_target(&engine->running[i]->record.spec, spec))
			return engine->running[i];
	return NULL;
}

int queue_priority(const struct engine *engine, const struct request_spec *spec)
{
	if (spec->kind == REQUEST_RELEASE_ALL)
		return 0;
	if (spec->kind != REQUEST_PHASE)
		return engine->services[spec->target].definition.priority;
	const struct phase_definition *phase = &engine->phases[spec->target];
	int highest = 0;
	for (size_t i = 0; i < phase->n_services; i++) {
		int priority = engine->services[phase->services[i]].definition.priority;
		if (i == 0 || priority > highest)
			highest = priority;
	}
	return highest;
}

static struct request *create_request(struct engine *engine, const struct request_spec *spec)
{
	struct request *request = calloc(1, sizeof(*request));
	if (request == NULL)
		return NULL;
	request->arrival = ++engine->arrivals;
	request->record.id = ++engine->last_id;
	request->record.spec = *spec;
	request->record.priority = queue_priority(engine, spec);
	request->record.state = TRANSITION_QUEUED;
	request->record.queued_ms = engine->now_ms;
	return request;
}

/* A forced stop does not wait for its turn: whatever is under way with the service ends with it. */
static void force_stop_now(struct engine *engine, const struct request_spec *spec)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		bool is_meant = spec->kind == REQUEST_STOP ? i == spec->target : !service->definition.pinned;
		if (is_meant)
			lifecycle_stop(engine, service, true, true);
	}
}

static void refuse_too_many(struct engine *engine, struct request *request, uint64_t ticket)
{
	snprintf(request->record.detail, sizeof(request->record.detail), "%zu requests wait already; try again later",
		engine->n_tickets);
	add_ticket(engine, ticket, 0, request);
	queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_TOO_MANY);
}

int queue_submit(struct engine *engine, const struct event *event)
{
	const struct request_spec *spec = &event->submit.spec;
	if (grow_lists(engine) < 0 || grow_tickets(engine) < 0)
		return -ENOMEM;
	bool is_full = engine->n_tickets >= engine->queue_max;
	struct request *request = is_full ? NULL : find_equal(engine, spec);
	if (request == NULL) {
		request = create_request(engine, spec);
		if (request == NULL)
			return -ENOMEM;
		if (is_full) {
			refuse_too_many(engine, request, event->submit.ticket);
			return 0;
		}
		engine->queue[engine->n_queue++] = request;
	}
	engine->version++;
	add_ticket(engine, event->submit.ticket, spec->wait_ms, request);
	if (spec->force && (spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL))
		force_stop_now(engine, spec);
	return 0;
}

static void drop_request(struct engine *engine, struct request *request, enum outcome outcome)
{
	remove_from_queue(engine, request);
	queue_finish(engine, request, TRANSITION_FAILED, outcome);
}

void queue_withdraw(struct engine *engine, uint64_t id)
{
	size_t place = find_ticket(engine, id);
	if (place == engine->n_tickets || engine->tickets[place].id != id)
		return;
	struct request *request = engine->tickets[place].request;
	memmove(&engine->tickets[place], &engine->tickets[place + 1],
		(engine->n_tickets - place - 1) * sizeof(engine->tickets[0]));
	engine->n_tickets--;
	if (--request->n_tickets == 0 && is_waiting(request))
		drop_request(engine, request, OUTCOME_WITHDRAWN);
}

/* ---- waiting ---- */

static void expire(struct engine *engine, struct request *request)
{
	answer_tickets(engine, request, engine->now_ms, OUTCOME_WAIT_TIMEOUT);
	if (request->n_tickets == 0)
		drop_request(engine, request, OUTCOME_WAIT_TIMEOUT);
}

bool queue_tick(struct engine *engine)
{
	size_t n_before = engine->n_queue;
	if (engine->now_ms < engine->ticket_deadline_ms)
		return false;
	for (size_t i = 0; i < engine->n_queue;) {
		struct request *request = engine->queue[i];
		size_t before = engine->n_queue;
		expire(engine, request);
		if (engine->n_queue == before)
			i++;
	}
	if (engine->n_queue == 0)
		engine->ticket_deadline_ms = DEADLINE_NONE;
	return engine->n_queue < n_before;
}

static bool is_aged(const struct request *request)
{
	return request->record.overtaken >= OVERTAKEN_MAX;
}

static bool comes_before(const struct request *a, const struct request *b)
{
	if (is_aged(a) != is_aged(b))
		return is_aged(a);
	if (!is_aged(a) && a->record.priority != b->record.priority)
		return a->record.priority > b->record.priority;
	return a->arrival < b->arrival;
}

/* Insertion sort: nearly always sorted already. */
static void sort_queue(struct engine *engine)
{
	for (size_t i = 1; i < engine->n_queue; i++) {
		struct request *request = engine->queue[i];
		size_t j = i;
		for (; j > 0 && comes_before(request, engine->queue[j - 1]); j--)
			engine->queue[j] = engine->queue[j - 1];
		engine->queue[j] = request;
	}
}

/*
 * To be overtaken is to see somebody who came later get the GPUs that one waits for. Who changes nothing there, or
 * only ends what is ended by force anyway, overtakes nobody.
 */
static void note_overtaking(struct engine *engine, const struct request *begun)
{
	if (begun->record.n_steps == 0 || begun->record.spec.force)
		return;
	for (size_t i = 0; i < engine->n_queue; i++) {
		struct request *waiting = engine->queue[i];
		gpu_set wanted = waiting->looked_at ? waiting->gates : GPU_SET_ALL;
		bool is_rival = (wanted & begun->record.gpus) != 0;
		if (waiting->arrival < begun->arrival && waiting->record.state == TRANSITION_QUEUED && is_rival)
			waiting->record.overtaken++;
	}
}

/* ---- whose turn it is ---- */

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
	remove_from_queue(engine, request);
	note_overtaking(engine, request);
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
	remove_from_queue(engine, request);
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
static bool fits_without_unreclaimed(
	const struct plan_snapshot *snapshot, const struct plan_request *needs, struct plan *ret_plan)
{
	struct plan_gpu gpus[GPU_MAX];
	struct plan_snapshot later = *snapshot;
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++) {
		gpus[gpu] = snapshot->gpus[gpu];
		gpus[gpu].unreclaimed_mib = 0;
	}
	later.gpus = gpus;
	return plan_make(&later, needs, ret_plan) == PLAN_OK;
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

/* It does not fit even with every GPU free to touch: is there anything to wait for? Takes `refusal`. */
static enum turn wait_or_refuse(struct engine *engine, struct request *request, const struct plan_snapshot *snapshot,
	const struct plan_request *needs, struct plan *refusal)
{
	char why[256];
	struct plan plan = { 0 };
	struct plan_request unused = *needs;
	unused.assume_unused = true;
	if (is_blocked_by_use(refusal) && plan_make(snapshot, &unused, &plan) == PLAN_OK) {
		list_users(engine, &plan, why, sizeof(why));
		set_waiting(engine, request, TRANSITION_QUEUED, plan.gpus, why);
	} else if (is_blocked_by_use(refusal)) {
		set_waiting(engine, request, TRANSITION_PARKED, 0, "waits for a service in use that it may not evict");
	} else if (fits_without_unreclaimed(snapshot, needs, &plan)) {
		set_waiting(engine, request, TRANSITION_QUEUED, plan.gpus, "waits for memory of services that ended");
	} else {
		plan_finish(&plan);
		return refuse(engine, request, refusal);
	}
	plan_finish(&plan);
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
	if (!must_wait) {
		needs.usable = ~locked;
		result = plan_make(&snapshot, &needs, &plan);
		if (result == PLAN_OK)
			return begin(engine, request, &plan);
		if (result == PLAN_REFUSED && locked != 0)
			plan_finish(&plan);
	}
	if (must_wait || (result == PLAN_REFUSED && locked != 0)) {
		needs.usable = GPU_SET_ALL;
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

bool queue_run(struct engine *engine)
{
	engine->retry_ms = DEADLINE_NONE;
	sort_queue(engine);
	if (engine->n_queue == 0 || !is_settled(engine))
		return false;
	return run_once(engine);
}

/* Idle services become evictable by the clock alone. */
static uint64_t next_yield(const struct engine *engine)
{
	uint64_t earliest = DEADLINE_NONE;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		if (service->state != SERVICE_READY || service->leases > 0 || !service->was_leased)
			continue;
		int64_t after = service->definition.yield_set ? service->definition.yield_after_ms : 60000;
		uint64_t at = after == NEVER_MS ? DEADLINE_NONE : service->idle_since_ms + (uint64_t)after;
		if (at > engine->now_ms && at < earliest)
			earliest = at;
	}
	return earliest;
}

uint64_t queue_deadline(const struct engine *engine)
{
	if (engine->n_queue == 0)
		return DEADLINE_NONE;
	uint64_t deadline = next_yield(engine);
	if (engine->ticket_deadline_ms < deadline)
		deadline = engine->ticket_deadline_ms;
	return engine->retry_ms < deadline ? engine->retry_ms : deadline;
}
