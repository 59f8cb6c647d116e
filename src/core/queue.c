/*
 * The one queue: who waits, in which order, for how long, and who is told what in the end. Must not look at GPUs;
 * whether somebody's turn has come is turn.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

/* ---- requests and their lists ---- */

struct request *queue_free_request(struct request *request)
{
	if (request == NULL)
		return NULL;
	free(request->waits);
	free((struct lease_terms *)request->record.spec.lease);
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
	struct queue_slot *slots = realloc(engine->slots, capacity * sizeof(slots[0]));
	if (slots == NULL)
		return -ENOMEM;
	engine->slots = slots;
	struct request **worklist = realloc(engine->worklist, capacity * sizeof(worklist[0]));
	if (worklist == NULL)
		return -ENOMEM;
	engine->worklist = worklist;
	engine->requests_capacity = capacity;
	return 0;
}

void queue_remove(struct engine *engine, const struct request *request)
{
	for (size_t i = 0; i < engine->n_queue; i++) {
		if (engine->queue[i] != request)
			continue;
		engine->n_queue--;
		memmove(&engine->queue[i], &engine->queue[i + 1], (engine->n_queue - i) * sizeof(engine->queue[0]));
		memmove(&engine->slots[i], &engine->slots[i + 1], (engine->n_queue - i) * sizeof(engine->slots[0]));
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

bool queue_is_waiting(const struct request *request)
{
	return request->record.state == TRANSITION_QUEUED || request->record.state == TRANSITION_PARKED;
}

void queue_publish(struct engine *engine, const struct request *request)
{
	char name[96];
	const struct transition *record = &request->record;
	bool is_waiting = queue_is_waiting(request);
	if (record->spec.kind == REQUEST_LEASE && record->n_steps == 0 && !is_waiting &&
		record->outcome == OUTCOME_DONE)
		return; /* nothing was to be done: the lease itself is the news */
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

void queue_finish(struct engine *engine, struct request *request, enum transition_state state, enum outcome outcome)
{
	struct transition *record = &request->record;
	record->state = state;
	record->outcome = outcome;
	record->ended_ms = engine->now_ms;
	lease_drop_claim(engine, request);
	engine->archive[engine->n_archive++] = request;
	engine->knowledge += record->n_steps > 0;
	engine->version++;
	queue_publish(engine, request);
	ticket_answer(engine, request, outcome);
}

/* ---- submission ---- */

static bool is_same_target(const struct request_spec *a, const struct request_spec *b)
{
	return a->kind == b->kind && a->force == b->force && (a->kind == REQUEST_RELEASE_ALL || a->target == b->target);
}

static struct request *find_request_id(struct request *const *list, size_t n, const char *request_id)
{
	for (size_t i = 0; i < n; i++) {
		const struct request_spec *spec = &list[i]->record.spec;
		if (spec->kind == REQUEST_LEASE && strcmp(spec->lease->request_id, request_id) == 0)
			return list[i];
	}
	return NULL;
}

/* Leases are joined only by who asks for the very same one again. */
static struct request *find_same_lease(const struct engine *engine, const struct lease_terms *terms)
{
	if (terms->request_id[0] == '\0')
		return NULL;
	struct request *request = find_request_id(engine->queue, engine->n_queue, terms->request_id);
	return request != NULL ? request : find_request_id(engine->running, engine->n_running, terms->request_id);
}

/* What waits can be joined by all equals; what runs only by those that ask for a state, not for an act. */
static struct request *find_equal(const struct engine *engine, const struct request_spec *spec)
{
	if (spec->kind == REQUEST_LEASE)
		return find_same_lease(engine, spec->lease);
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

static int highest_priority(const struct engine *engine, const size_t *services, size_t n_services, int otherwise)
{
	int highest = otherwise;
	for (size_t i = 0; i < n_services; i++) {
		int priority = engine->services[services[i]].definition.priority;
		if (i == 0 || priority > highest)
			highest = priority;
	}
	return highest;
}

int queue_priority(const struct engine *engine, const struct request_spec *spec)
{
	const struct lease_terms *terms = spec->lease;
	const struct phase_definition *phase;
	switch (spec->kind) {
	case REQUEST_RELEASE_ALL:
		return 0;
	case REQUEST_PHASE:
		phase = &engine->phases[spec->target];
		return highest_priority(engine, phase->services, phase->n_services, 0);
	case REQUEST_LEASE:
		return terms->has_priority
			? terms->priority
			: highest_priority(engine, terms->services, terms->n_services, PRIORITY_DEFAULT);
	default:
		return engine->services[spec->target].definition.priority;
	}
}

static void append(struct engine *engine, struct request *request)
{
	const struct lease_terms *terms = request->record.spec.lease;
	engine->slots[engine->n_queue] =
		(struct queue_slot){ .arrival = request->arrival, .holds = terms != NULL && terms->n_holding > 0 };
	engine->queue[engine->n_queue++] = request;
	engine->queue_is_unsorted = true;
}

static struct request *create_request(struct engine *engine, const struct request_spec *spec)
{
	struct lease_terms *terms = spec->kind == REQUEST_LEASE ? lease_terms_copy(spec->lease) : NULL;
	struct request *request = calloc(1, sizeof(*request));
	if (request == NULL || (spec->kind == REQUEST_LEASE && terms == NULL)) {
		free(request);
		free(terms);
		return NULL;
	}
	request->arrival = ++engine->arrivals;
	request->record.id = ++engine->last_id;
	request->record.spec = *spec;
	request->record.spec.lease = terms;
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
		if (!is_meant)
			continue;
		transition_force_out(engine, service);
		lease_end_on_service(engine, service, LEASE_FORCED, "its service was stopped by force");
		lifecycle_stop(engine, service, true, true);
	}
}

/* Answered at once, without ever having been in the queue. */
static void answer_now(struct engine *engine, struct request *request, uint64_t ticket, enum outcome outcome)
{
	ticket_add(engine, ticket, 0, request);
	queue_finish(engine, request, outcome == OUTCOME_DONE ? TRANSITION_DONE : TRANSITION_FAILED, outcome);
}

/* Why it may not even wait; OUTCOME_DONE: nothing is against it. */
static enum outcome find_objection(const struct engine *engine, const struct request_spec *spec, char *why, size_t size)
{
	if (reconfigure_forbids(engine, spec, why, size))
		return OUTCOME_RETIRED;
	if (engine->n_tickets >= engine->queue_max) {
		snprintf(why, size, "%zu requests wait already; try again later", engine->n_tickets);
		return OUTCOME_TOO_MANY;
	}
	if (spec->kind == REQUEST_LEASE && engine->n_leases + engine->n_claims >= engine->leases_max) {
		snprintf(why, size, "%zu leases are held already; release some, or try again later", engine->n_leases);
		return OUTCOME_TOO_MANY;
	}
	return OUTCOME_DONE;
}

static const struct lease *find_granted(const struct engine *engine, const struct request_spec *spec)
{
	if (spec->kind != REQUEST_LEASE || spec->lease->request_id[0] == '\0')
		return NULL;
	for (size_t i = 0; i < engine->n_leases; i++)
		if (strcmp(engine->leases[i]->request_id, spec->lease->request_id) == 0)
			return engine->leases[i];
	return NULL;
}

/* The same request_id, come again: it must mean the same lease. */
static bool is_repetition(const struct lease *lease, const struct lease_terms *terms)
{
	const struct lease_terms held = {
		.mode = lease->mode,
		.n_services = lease->n_services,
		.services = lease->services,
		.room_mib = lease->room_mib,
		.attached = lease->attached,
	};
	return lease_terms_are_equal(&held, terms);
}

static const char reused[] = "this request_id stands for another lease; choose a new one for each request";

static void answer_repetition(
	struct engine *engine, struct request *request, uint64_t ticket, const struct lease *lease)
{
	bool is_same = is_repetition(lease, request->record.spec.lease);
	request->is_repetition = is_same;
	if (is_same)
		request->granted = lease;
	else
		snprintf(request->record.detail, sizeof(request->record.detail), "%s", reused);
	answer_now(engine, request, ticket, is_same ? OUTCOME_DONE : OUTCOME_REQUEST_ID_REUSED);
}

/* The request that the client is part of from now on; what is answered at once is not. */
static int submit_new(struct engine *engine, const struct event *event, const struct request *rival, bool *ret_accepted)
{
	const struct request_spec *spec = &event->submit.spec;
	struct request *request = create_request(engine, spec);
	if (request == NULL)
		return -ENOMEM;
	struct transition *record = &request->record;
	enum outcome objection = find_objection(engine, spec, record->detail, sizeof(record->detail));
	const struct lease *granted = find_granted(engine, spec);
	*ret_accepted = granted == NULL && rival == NULL && objection == OUTCOME_DONE;
	if (granted != NULL) {
		answer_repetition(engine, request, event->submit.ticket, granted);
	} else if (rival != NULL) {
		snprintf(record->detail, sizeof(record->detail), "%s", reused);
		answer_now(engine, request, event->submit.ticket, OUTCOME_REQUEST_ID_REUSED);
	} else if (objection != OUTCOME_DONE) {
		answer_now(engine, request, event->submit.ticket, objection);
	} else {
		append(engine, request);
		ticket_add(engine, event->submit.ticket, spec->wait_ms, request);
	}
	return 0;
}

int queue_submit(struct engine *engine, const struct event *event)
{
	const struct request_spec *spec = &event->submit.spec;
	if (grow_lists(engine) < 0 || ticket_reserve(engine) < 0)
		return -ENOMEM;
	bool is_accepted = true;
	bool is_full = engine->n_tickets >= engine->queue_max;
	struct request *equal = is_full ? NULL : find_equal(engine, spec);
	bool is_lease = spec->kind == REQUEST_LEASE;
	if (equal != NULL && (!is_lease || lease_terms_are_equal(equal->record.spec.lease, spec->lease)))
		ticket_add(engine, event->submit.ticket, spec->wait_ms, equal);
	else if (submit_new(engine, event, equal, &is_accepted) < 0)
		return -ENOMEM;
	engine->version++;
	if (is_accepted && spec->force && request_is_stop(spec))
		force_stop_now(engine, spec);
	return 0;
}

void queue_make_room(struct engine *engine, const struct service *service)
{
	const struct request_spec spec = { .kind = REQUEST_MAKE_ROOM, .target = service->index };
	if (grow_lists(engine) < 0)
		return; /* it will be missed: its commitment keeps others from starting */
	struct request *request = create_request(engine, &spec);
	if (request != NULL)
		append(engine, request);
}

static void drop_request(struct engine *engine, struct request *request, enum outcome outcome)
{
	queue_remove(engine, request);
	queue_finish(engine, request, TRANSITION_FAILED, outcome);
}

void queue_withdraw(struct engine *engine, uint64_t id)
{
	struct request *request = ticket_remove(engine, id);
	if (request != NULL && request->n_tickets == 0 && queue_is_waiting(request))
		drop_request(engine, request, OUTCOME_WITHDRAWN);
}

/* ---- waiting ---- */

/* Their last client has given up; what gpumgr asks for itself has none and waits on. */
static void drop_abandoned(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_queue;) {
		struct request *request = engine->queue[i];
		if (request->n_tickets > 0 || request->record.spec.kind == REQUEST_MAKE_ROOM)
			i++;
		else
			drop_request(engine, request, locking_timeout_outcome(engine, request));
	}
}

bool queue_tick(struct engine *engine)
{
	size_t n_before = engine->n_queue;
	if (engine->now_ms < engine->ticket_deadline_ms && !engine->has_overdue_tickets)
		return false;
	if (ticket_expire(engine))
		drop_abandoned(engine);
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

/* Insertion sort: it changes by one request at a time. */
void queue_sort(struct engine *engine)
{
	for (size_t i = 1; engine->queue_is_unsorted && i < engine->n_queue; i++) {
		struct request *request = engine->queue[i];
		struct queue_slot slot = engine->slots[i];
		size_t j = i;
		for (; j > 0 && comes_before(request, engine->queue[j - 1]); j--) {
			engine->queue[j] = engine->queue[j - 1];
			engine->slots[j] = engine->slots[j - 1];
		}
		engine->queue[j] = request;
		engine->slots[j] = slot;
	}
	engine->queue_is_unsorted = false;
}

bool queue_want_same_service(const struct request *a, const struct request *b)
{
	if (a->record.spec.kind != REQUEST_LEASE || b->record.spec.kind != REQUEST_LEASE)
		return false;
	const struct lease_terms *left = a->record.spec.lease, *right = b->record.spec.lease;
	for (size_t i = 0; i < left->n_services; i++)
		for (size_t j = 0; j < right->n_services; j++)
			if (left->services[i] == right->services[j])
				return true;
	return false;
}

/*
 * To be overtaken is to see somebody who came later get the GPUs that one waits for. Who changes nothing there, or
 * only ends what is ended by force anyway, overtakes nobody.
 */
void queue_note_overtaking(struct engine *engine, const struct request *begun)
{
	bool is_lease = begun->record.spec.kind == REQUEST_LEASE;
	if ((begun->record.n_steps == 0 && !is_lease) || begun->record.spec.force)
		return;
	for (size_t i = 0; i < engine->n_queue; i++) {
		if (engine->slots[i].arrival >= begun->arrival)
			continue;
		struct request *waiting = engine->queue[i];
		gpu_set wanted = waiting->looked_at ? waiting->gates : GPU_SET_ALL;
		bool is_rival = (wanted & begun->record.gpus) != 0 || queue_want_same_service(waiting, begun);
		if (waiting->record.state != TRANSITION_QUEUED || !is_rival)
			continue;
		waiting->record.overtaken++;
		engine->queue_is_unsorted |= is_aged(waiting);
	}
}

/* Idle services become evictable by the clock alone. */
static uint64_t next_yield(const struct engine *engine)
{
	uint64_t earliest = DEADLINE_NONE;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		int64_t after = service_yield_after(service);
		if (after == NEVER_MS || service_is_in_use(service))
			continue;
		uint64_t at = service->idle_since_ms + (uint64_t)after;
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
