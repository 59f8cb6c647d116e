/* GET /gpu/transitions/{id}. */
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"

void transition_get(struct request *request)
{
	const struct api_host *host = request->api->host;
	size_t digits = strspn(request->name, "0123456789");
	bool is_id = digits > 0 && digits <= 18 && request->name[digits] == 0;
	const struct transition *transition =
		is_id ? host->transition(host->context, strtoull(request->name, NULL, 10)) : NULL;
	if (transition == NULL) {
		reply_problem(request, "unknown_transition",
			"there is no transition `%.64s`, or it ended too long ago; GET /gpu/status lists those under "
			"way",
			request->name);
		return;
	}
	CLEANUP_WRITER struct writer writer = { 0 };
	json_transition(&writer, NULL, host, transition, json_place(host, transition));
	reply_json(request, 200, &writer);
}
