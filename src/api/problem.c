/* The table of problems: code -> status and title. Renders the document, sends nothing. */
#include "api/problem.h"

#include <string.h>

#include "base/cleanup.h"

static const struct problem {
	const char *code;
	unsigned status;
	const char *title;
} problems[] = {
	{ "bad_request", 400, "The request is not well formed" },
	{ "unknown_phase", 400, "There is no such phase" },
	{ "unauthorized", 401, "A token is needed" },
	{ "wrong_host", 403, "The Host is not one of this machine's" },
	{ "wrong_secret", 403, "This is not the secret of the lease" },
	{ "wrong_origin", 403, "Web pages of other hosts may not call" },
	{ "not_found", 404, "There is no such resource" },
	{ "unknown_lease", 404, "There is no such lease" },
	{ "unknown_service", 404, "There is no such service" },
	{ "unknown_transition", 404, "There is no such transition" },
	{ "method_not_allowed", 405, "The resource does not know this method" },
	{ "bad_configuration", 409, "The configuration file is wrong" },
	{ "would_deadlock", 409, "It would wait for itself" },
	{ "request_id_reused", 409, "The request_id stands for another request" },
	{ "stale_fence", 409, "The fence is another grant's" },
	{ "insufficient_vram", 409, "It does not fit" },
	{ "stopped", 409, "A forced stop came in between" },
	{ "withdrawn", 409, "The request was withdrawn before it began" },
	{ "too_large", 413, "The body is too large" },
	{ "unsupported_media_type", 415, "The body must be JSON" },
	{ "too_many_attempts", 429, "Too many wrong tokens were shown" },
	{ "internal", 500, "gpumgrd failed" },
	{ "container_not_found", 500, "The container of a service does not exist" },
	{ "start_failed", 500, "A service did not start" },
	{ "stop_failed", 500, "A service did not stop" },
	{ "shutting_down", 503, "gpumgrd is shutting down" },
	{ "too_many_requests", 503, "Too many requests are waiting" },
	{ "lock_unavailable", 503, "No fence can be had" },
	{ "lease_timeout", 504, "The lease was not granted in time" },
	{ "start_timeout", 504, "A service was not healthy in time" },
	{ "wait_timeout", 504, "The turn did not come in time" },
};

static const struct problem *find(const char *code)
{
	for (size_t i = 0; i < ARRAY_SIZE(problems); i++)
		if (strcmp(problems[i].code, code) == 0)
			return &problems[i];
	return NULL;
}

unsigned problem_status(const char *code)
{
	const struct problem *problem = find(code);
	return problem != NULL ? problem->status : 500;
}

void problem_begin(struct writer *writer, unsigned status, const char *code, const char *detail)
{
	const struct problem *problem = find(code);
	writer_open(writer, NULL, '{');
	writer_text(writer, "type", "about:blank");
	writer_text(writer, "title", problem != NULL ? problem->title : "The request failed");
	writer_integer(writer, "status", status);
	writer_text(writer, "detail", detail);
	writer_text(writer, "code", code);
	writer_bool(writer, "success", false);
}

const char *problem_code(size_t index)
{
	return index < ARRAY_SIZE(problems) ? problems[index].code : NULL;
}
