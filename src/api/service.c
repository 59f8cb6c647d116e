/* POST /gpu/service/{name}/start, stop, restart, and /gpu/release-all. */
#include "api/action.h"
#include "api/request.h"
#include "api/resources.h"

static void submit(struct request *request, enum request_kind kind)
{
	size_t service = action_find_service(request, request->name);
	if (service == SIZE_MAX)
		return;
	const struct request_spec spec = {
		.kind = kind,
		.target = service,
		.force = request->parameters.force,
		.wait_ms = request->parameters.wait_ms,
	};
	action_submit(request, &spec);
}

void service_start(struct request *request)
{
	submit(request, REQUEST_START);
}

void service_stop(struct request *request)
{
	submit(request, REQUEST_STOP);
}

void service_restart(struct request *request)
{
	submit(request, REQUEST_RESTART);
}

void service_release_all(struct request *request)
{
	const struct request_spec spec = { .kind = REQUEST_RELEASE_ALL, .wait_ms = request->parameters.wait_ms };
	action_submit(request, &spec);
}
