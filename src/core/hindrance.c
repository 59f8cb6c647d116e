/*
 * Services that live and cannot work, as their drivers know for certain: a container that somebody paused. Such a
 * service is in `error` without a health check having to fail, keeps its memory, and is not touched for it: whoever
 * paused it had a reason. Must not know what a hindrance is.
 */
#include "core/engine_state.h"

bool service_is_hindered(const struct service *service)
{
	return service->alive && service->state == SERVICE_ERROR && service->hindrance != HINDRANCE_NONE;
}

static void begin(struct engine *engine, struct service *service, const char *text)
{
	service->hindrance = HINDRANCE_THERE;
	if (service->state == SERVICE_STOPPING)
		return; /* and how that ends is all that counts */
	service->start_deadline_ms = DEADLINE_NONE;
	service->probe_due_ms = DEADLINE_NONE;
	service_set_error(service, "%s", text);
	lifecycle_apply(engine, service, SERVICE_UNHEALTHY);
}

static void end(struct engine *engine, struct service *service, const char *text)
{
	bool was_there = service->hindrance == HINDRANCE_THERE;
	service->hindrance = HINDRANCE_NONE;
	if (!was_there || service->state != SERVICE_ERROR || service->stop_failed)
		return;
	service->hindrance = HINDRANCE_OVER;
	service_set_error(service, "%s", text);
	lifecycle_probe_soon(engine, service);
	engine->version++;
}

void hindrance_take(struct engine *engine, struct service *service, bool is_over, const char *text)
{
	if (!service->alive)
		return;
	if (is_over)
		end(engine, service, text != NULL ? text : "it has not answered since");
	else
		begin(engine, service, text != NULL ? text : "something keeps it from working");
}

/* What is started anew in any case is stopped first, whatever keeps it. */
const struct service *hindrance_find(const struct engine *engine, const struct request *request)
{
	const struct request_spec *spec = &request->record.spec;
	struct plan_request needs;
	if (spec->kind == REQUEST_RESTART || spec->kind == REQUEST_MAKE_ROOM || request_is_stop(spec))
		return NULL;
	snapshot_request(engine, request, &needs);
	for (size_t i = 0; i < needs.n_needs; i++)
		if (service_is_hindered(&engine->services[needs.needs[i]]))
			return &engine->services[needs.needs[i]];
	return NULL;
}
