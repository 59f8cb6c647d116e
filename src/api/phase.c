/* POST /gpu/prepare-phase/{phase}. */
#include "api/action.h"
#include "api/request.h"
#include "api/resources.h"

void phase_prepare(struct request *request)
{
	size_t phase = action_find_phase(request, request->name);
	if (phase == SIZE_MAX)
		return;
	const struct request_spec spec = {
		.kind = REQUEST_PHASE,
		.target = phase,
		.wait_ms = request->parameters.wait_ms,
	};
	action_submit(request, &spec);
}
