/*
 * Busy probes: whether a service works although nobody holds a lease on it. Asked now and then, and again right before
 * it may be evicted, since an answer of a while ago protects nobody. Must not decide what follows from it.
 */
#include "core/engine_state.h"

#define BUSY_FRESH_MS 1000 /* an older answer does not let a service be evicted */
#define BUSY_TIMEOUT_MS 2000
#define BUSY_LOST_MS 4000 /* a question that is not answered by then has failed */

static bool is_watched(const struct service *service)
{
	return service->definition.has_busy_probe && service->alive && service->leases == 0 &&
		(service->state == SERVICE_READY || service->state == SERVICE_BUSY);
}

static void ask(struct engine *engine, struct service *service)
{
	struct effect *effect = effect_add(engine, EFFECT_ASK_BUSY);
	effect->service = service->index;
	effect->run = service->run;
	effect->probe_timeout_ms = BUSY_TIMEOUT_MS;
	service->busy_due_ms = DEADLINE_NONE;
	service->busy_lost_ms = engine->now_ms + BUSY_LOST_MS;
}

void busy_watch(struct engine *engine, struct service *service)
{
	if (!is_watched(service))
		service->busy_due_ms = DEADLINE_NONE;
	else if (service->busy_due_ms == DEADLINE_NONE && service->busy_lost_ms == DEADLINE_NONE)
		service->busy_due_ms = engine->now_ms;
}

void busy_forget(struct service *service)
{
	service->says_busy = false;
	service->has_said_busy = false;
	service->busy_failures = 0;
	service->busy_due_ms = DEADLINE_NONE;
	service->busy_lost_ms = DEADLINE_NONE;
}

void busy_take(struct engine *engine, struct service *service, bool known, bool busy)
{
	if (service->busy_lost_ms == DEADLINE_NONE)
		return;
	service->busy_lost_ms = DEADLINE_NONE;
	service->busy_answered_ms = engine->now_ms;
	service->has_said_busy = true;
	service->busy_failures = known ? 0 : service->busy_failures + 1;
	/* Who does not answer may well be at work, but not for ever. */
	if (known)
		service->says_busy = busy;
	else if (service->busy_failures >= service->definition.health_retries)
		service->says_busy = false;
	lifecycle_settle_use(engine, service);
	if (is_watched(service))
		service->busy_due_ms = engine->now_ms + service->definition.health_interval_ms;
}

bool busy_must_ask(struct engine *engine, struct service *service)
{
	if (!is_watched(service))
		return false;
	if (service->has_said_busy && engine->now_ms - service->busy_answered_ms <= BUSY_FRESH_MS)
		return false;
	if (service->busy_lost_ms == DEADLINE_NONE)
		ask(engine, service);
	return true;
}

void busy_tick(struct engine *engine, struct service *service)
{
	if (service->busy_lost_ms <= engine->now_ms)
		busy_take(engine, service, false, false);
	if (service->busy_due_ms > engine->now_ms)
		return;
	service->busy_due_ms = DEADLINE_NONE;
	if (is_watched(service))
		ask(engine, service);
}
