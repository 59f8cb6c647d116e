/* GET /gpu/plan?phase=N or ?start=SERVICE: what a request would do, and why. */
#include "api/action.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"

void plan_get(struct request *request)
{
	const struct parameters *parameters = &request->parameters;
	struct request_spec spec = { .wait_ms = WAIT_DEFAULT_MS };
	if ((parameters->phase == NULL) == (parameters->start == NULL)) {
		reply_problem(request, "bad_request", "say either ?phase=NUMBER or NAME, or ?start=SERVICE");
		return;
	}
	if (parameters->phase != NULL) {
		spec.kind = REQUEST_PHASE;
		spec.target = action_find_phase(request, parameters->phase);
	} else {
		spec.kind = REQUEST_START;
		spec.target = action_find_service(request, parameters->start);
	}
	if (spec.target != SIZE_MAX)
		action_plan(request, &spec);
}
