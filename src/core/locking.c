/*
 * The lock that several hosts share: leases begin only while it is held, it is wanted only for them, and with it they
 * are lost. Must not speak to anybody; lock/ does.
 */
#include <stdio.h>
#include <string.h>

#include "core/engine_state.h"

const char *lock_state_name(enum lock_state state)
{
	static const char *const names[] = {
		[LOCK_STATE_LOCAL] = "local",
		[LOCK_STATE_UNKNOWN] = "unknown",
		[LOCK_STATE_FREE] = "free",
		[LOCK_STATE_OURS] = "ours",
		[LOCK_STATE_FOREIGN] = "foreign",
		[LOCK_STATE_UNAVAILABLE] = "unavailable",
	};
	return names[state];
}

static bool holds_a_lease(const struct engine *engine, const struct request *request)
{
	const struct lease_terms *terms = request->record.spec.lease;
	for (size_t i = 0; i < terms->n_holding; i++)
		if (lease_find(engine, terms->holding[i]) != NULL)
			return true;
	return false;
}

/* While it is to be given back, only who keeps it from that may go on: it would wait for itself. */
bool locking_permits(const struct engine *engine, const struct request *request)
{
	if (!engine->uses_lock || request->record.spec.kind != REQUEST_LEASE)
		return true;
	if (!engine->has_lock_news)
		return false;
	return engine->lock_news == LOCK_HELD || (locking_is_yielding(engine) && holds_a_lease(engine, request));
}

bool locking_is_yielding(const struct engine *engine)
{
	return engine->has_lock_news && engine->lock_news == LOCK_YIELDING;
}

void locking_begin_look(struct engine *engine)
{
	engine->lock_is_needed = false;
}

void locking_recall(struct engine *engine)
{
	bool is_needed = false;
	for (size_t i = 0; engine->uses_lock && !is_needed && i < engine->n_queue; i++)
		is_needed = engine->queue[i]->awaits_lock;
	engine->lock_is_needed = is_needed;
}

void locking_keep(struct engine *engine, struct request *request)
{
	const struct lease_terms *terms = request->record.spec.lease;
	if (!engine->uses_lock || request->record.spec.kind != REQUEST_LEASE)
		return;
	if (!engine->lock_is_needed)
		engine->lock_service = terms->n_services > 0 ? terms->services[0] : SIZE_MAX;
	engine->lock_is_needed = true;
	request->awaits_lock = true;
}

void locking_await(struct engine *engine, struct request *request, char *why, size_t size)
{
	locking_keep(engine, request);
	if (!engine->has_lock_news)
		snprintf(why, size, "takes the lock");
	else if (engine->lock_news == LOCK_YIELDING)
		snprintf(why, size, "waits for the lock: another host has its turn first");
	else
		snprintf(why, size, "waits for the lock%s%s", engine->lock_text[0] != '\0' ? ": " : "",
			engine->lock_text);
}

bool locking_is_undecided(const struct engine *engine, const struct request *request)
{
	return request->awaits_lock && !engine->has_lock_news;
}

enum outcome locking_timeout_outcome(const struct engine *engine, const struct request *request)
{
	if (request->awaits_lock && engine->has_lock_news && engine->lock_news == LOCK_UNAVAILABLE)
		return OUTCOME_LOCK_UNAVAILABLE;
	return request_timeout_outcome(&request->record.spec);
}

static void publish(struct engine *engine, const char *state, bool is_problem, const char *words)
{
	struct notice *notice = notice_begin(engine, "lock", state);
	if (notice == NULL)
		return;
	notice->is_problem = is_problem;
	notice->is_routine = !is_problem;
	notice_add_text(notice, "state", state);
	snprintf(notice->text, sizeof(notice->text), "lock: %s%s%s", words, engine->lock_text[0] != '\0' ? ": " : "",
		engine->lock_text);
}

static void publish_news(struct engine *engine)
{
	switch (engine->lock_news) {
	case LOCK_HELD:
		publish(engine, "held", false, "held");
		break;
	case LOCK_YIELDING:
		publish(engine, "yielding", false, "another host waits for it: no new leases until it had its turn");
		break;
	case LOCK_LOST:
		publish(engine, "lost", true, "lost, and all leases with it");
		break;
	case LOCK_FOREIGN:
		publish(engine, "foreign", false, "somebody else has it");
		break;
	case LOCK_UNAVAILABLE:
		publish(engine, "unavailable", true, "unavailable");
		break;
	}
}

void locking_handle(struct engine *engine, const struct event *event)
{
	if (!engine->lock_is_wanted)
		return; /* it was given back meanwhile */
	snprintf(engine->lock_text, sizeof(engine->lock_text), "%s", event->text != NULL ? event->text : "");
	engine->lock_news = event->lock;
	engine->has_lock_news = event->lock != LOCK_LOST; /* what comes after that is awaited */
	engine->version++;
	publish_news(engine);
	if (event->lock != LOCK_LOST)
		return;
	transition_lose_lock(engine);
	lease_end_all(engine, LEASE_LOCK_LOST, engine->lock_text);
}

static void tell(struct engine *engine, bool wanted)
{
	struct effect *effect = effect_add(engine, EFFECT_LOCK);
	effect->lock_wanted = wanted;
	effect->service = engine->lock_service;
	engine->lock_is_wanted = wanted;
	engine->lock_was_told = true;
	engine->has_lock_news = false;
	engine->version++;
}

bool locking_settle(struct engine *engine)
{
	bool is_used = engine->n_leases + engine->n_claims > 0;
	if (!engine->uses_lock)
		return false;
	bool is_given_back = locking_is_yielding(engine) && !is_used;
	if (is_given_back)
		tell(engine, false);
	bool wanted = is_used || engine->lock_is_needed;
	if (wanted != engine->lock_is_wanted || !engine->lock_was_told)
		tell(engine, wanted);
	return is_given_back;
}
