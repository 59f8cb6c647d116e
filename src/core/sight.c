/*
 * Services that cannot be seen: their container's engine is away. What is not known is not said: such a service is
 * `unknown`, it is in nobody's way, and no stop of it succeeds. Must not look itself.
 */
#include "core/engine_state.h"

bool service_is_unseen(const struct service *service)
{
	return service->state == SERVICE_UNKNOWN && !service->was_looked_for;
}

/* Who was asked to start it in vain may have started it. */
bool service_is_out_of_sight(const struct service *service)
{
	if (service->state == SERVICE_ERROR)
		return !service->alive && service->start_failure == START_FAILURE_UNTOLD;
	return service->state == SERVICE_UNKNOWN && service->was_looked_for;
}

/* Nobody can tell whether it runs. Of what failed that remains the last thing known. */
void sight_lose(struct engine *engine, struct service *service, const char *text)
{
	bool is_blank = service->state == SERVICE_UNKNOWN || service->state == SERVICE_STOPPED;
	if (service->alive || service->transition != 0 || !is_blank)
		return;
	service_set_error(service, "it is not known whether it runs: %s", text != NULL ? text : "no answer");
	lifecycle_apply(engine, service, SERVICE_LOOKED_IN_VAIN);
}

/* That nobody could tell was all that was wrong. */
void sight_take_absence(struct engine *engine, struct service *service)
{
	bool was_lost = service_is_out_of_sight(service);
	if (was_lost)
		service->error[0] = '\0';
	service->start_failure = START_FAILURE_OTHER;
	lifecycle_apply(
		engine, service, service->state == SERVICE_ERROR && was_lost ? SERVICE_ENDED : SERVICE_FOUND_ABSENT);
}

/* What was to be stopped, and may run for all that is known. */
const struct service *sight_find_lost(const struct engine *engine, const struct request *request)
{
	const struct request_spec *spec = &request->record.spec;
	if (spec->kind == REQUEST_STOP)
		return service_is_out_of_sight(&engine->services[spec->target]) ? &engine->services[spec->target]
										: NULL;
	for (size_t i = 0; spec->kind == REQUEST_RELEASE_ALL && i < engine->n_services; i++)
		if (service_is_out_of_sight(&engine->services[i]) && !engine->services[i].definition.pinned)
			return &engine->services[i];
	return NULL;
}
