/* Tickets: one for each client that asked, in the order of their numbers. Must not decide who is told what, or when. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

static size_t find_place(const struct engine *engine, uint64_t id)
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

int ticket_reserve(struct engine *engine)
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

void ticket_add(struct engine *engine, uint64_t id, int64_t wait_ms, struct request *request)
{
	uint64_t wait = wait_ms < 0 ? engine->wait_ms : (uint64_t)wait_ms;
	uint64_t deadline = wait > DEADLINE_NONE - 1 - engine->now_ms ? DEADLINE_NONE - 1 : engine->now_ms + wait;
	size_t place = find_place(engine, id);
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
	effect->answer.transition = request->is_repetition ? NULL : &request->record;
	effect->answer.lease = outcome == OUTCOME_DONE ? request->granted : NULL;
	effect->answer.outcome = outcome;
}

void ticket_answer(struct engine *engine, struct request *request, enum outcome outcome)
{
	size_t kept = 0;
	if (request->n_tickets == 0)
		return;
	for (size_t i = 0; i < engine->n_tickets; i++) {
		struct ticket ticket = engine->tickets[i];
		if (ticket.request == request)
			reply(engine, ticket.id, request, outcome);
		else
			engine->tickets[kept++] = ticket;
	}
	engine->n_tickets = kept;
	request->n_tickets = 0;
}

bool ticket_expire(struct engine *engine)
{
	size_t kept = 0, before = engine->n_tickets;
	engine->ticket_deadline_ms = DEADLINE_NONE;
	engine->has_overdue_tickets = false;
	for (size_t i = 0; i < before; i++) {
		struct ticket ticket = engine->tickets[i];
		struct request *request = ticket.request;
		bool is_waiting = queue_is_waiting(request);
		bool is_over = is_waiting && ticket.deadline_ms <= engine->now_ms;
		if (is_over && !locking_is_undecided(engine, request)) {
			request->n_tickets--;
			reply(engine, ticket.id, request, locking_timeout_outcome(engine, request));
			continue;
		}
		engine->has_overdue_tickets |= is_over;
		if (is_waiting && !is_over && ticket.deadline_ms < engine->ticket_deadline_ms)
			engine->ticket_deadline_ms = ticket.deadline_ms;
		engine->tickets[kept++] = ticket;
	}
	engine->n_tickets = kept;
	return kept < before;
}

struct request *ticket_remove(struct engine *engine, uint64_t id)
{
	size_t place = find_place(engine, id);
	if (place == engine->n_tickets || engine->tickets[place].id != id)
		return NULL;
	struct request *request = engine->tickets[place].request;
	engine->n_tickets--;
	request->n_tickets--;
	memmove(&engine->tickets[place], &engine->tickets[place + 1],
		(engine->n_tickets - place) * sizeof(engine->tickets[0]));
	return request;
}
