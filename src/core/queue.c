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

void queue_remove(struct engine *engine, const struct request *request)
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

bool queue_is_waiting(const struct request *request)
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

void queue_finish(struct engine *engine, struct request *request, enum transition_state state, enum outcome outcome)
{
	struct transition *record = &request->record;
	record->state = state;
	record->outcome = outcome;
	record->ended_ms = engine->now_ms;
	engine->archive[engine->n_archive++] = request;
	engine->version++;
	queue_publish(engine, request);
	ticket_answer(engine, request, DEADLINE_NONE, outcome);
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
	ticket_add(engine, ticket, 0, request);
	queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_TOO_MANY);
}

int queue_submit(struct engine *engine, const struct event *event)
{
	const struct request_spec *spec = &event->submit.spec;
	if (grow_lists(engine) < 0 || ticket_reserve(engine) < 0)
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
	ticket_add(engine, event->submit.ticket, spec->wait_ms, request);
	if (spec->force && (spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL))
		force_stop_now(engine, spec);
	return 0;
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

static void expire(struct engine *engine, struct request *request)
{
	ticket_answer(engine, request, engine->now_ms, OUTCOME_WAIT_TIMEOUT);
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
void queue_sort(struct engine *engine)
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
void queue_note_overtaking(struct engine *engine, const struct request *begun)
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
