/* POST /gpu/lock/release: every lease ends by force; where another host has the lock, it is taken from that one. */
#include <errno.h>
#include <string.h>

#include "api/action.h"
#include "api/lease_json.h"
#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"

static void begin(struct writer *writer, bool is_released)
{
	writer_open(writer, NULL, '{');
	writer_bool(writer, "success", true);
	writer_bool(writer, "released", is_released);
}

static void break_leases(struct request *request, const struct status *status)
{
	const struct api_host *host = request->api->host;
	CLEANUP_WRITER struct writer writer = { 0 };
	begin(&writer, status->n_leases > 0);
	json_leases(&writer, "broken", host, status);
	writer_null(&writer, "taken_from");
	writer_close(&writer, '}');
	host->unlock(host->context);
	reply_json(request, 200, &writer);
}

static void take_from_another(struct request *request)
{
	const struct api_host *host = request->api->host;
	uint64_t ticket = action_wait(request);
	int r = ticket != 0 ? host->force_lock(host->context, ticket) : 0;
	if (r == 0)
		return;
	action_stop_waiting(request);
	reply_problem(request, "internal", "the lock cannot be taken: %s", strerror(-r));
}

void lock_release(struct request *request)
{
	const struct api_host *host = request->api->host;
	const struct status *status = host->status(host->context);
	struct lock_status lock;
	host->lock_status(host->context, &lock);
	/* Where it is not known whether somebody has it, that is no reason to say that nobody had. */
	bool may_be_foreign = lock.state == LOCK_STATE_FOREIGN || lock.state == LOCK_STATE_UNAVAILABLE;
	if (status->n_leases > 0 || !may_be_foreign)
		break_leases(request, status);
	else
		take_from_another(request);
}

void api_lock_forced(struct api *api, uint64_t ticket, bool is_released, const char *holder, const char *problem)
{
	CLEANUP_WRITER struct writer writer = { 0 };
	unsigned status = problem[0] != '\0' ? problem_status("lock_unavailable") : 200;
	if (status != 200) {
		problem_begin(&writer, status, "lock_unavailable", problem);
	} else {
		begin(&writer, is_released);
		writer_open(&writer, "broken", '[');
		writer_close(&writer, ']');
		writer_text_or_null(&writer, "taken_from", is_released ? holder : NULL);
	}
	writer_close(&writer, '}');
	action_answer(api, ticket, status, &writer);
}
