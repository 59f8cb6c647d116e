/* The table of problems: code -> status and title. Renders the document, sends nothing. */
#include "api/problem.h"

#include <string.h>

#include "api/json.h"
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
	{ "wrong_origin", 403, "Web pages of other hosts may not call" },
	{ "not_found", 404, "There is no such resource" },
	{ "unknown_service", 404, "There is no such service" },
	{ "unknown_transition", 404, "There is no such transition" },
	{ "method_not_allowed", 405, "The resource does not know this method" },
	{ "insufficient_vram", 409, "It does not fit" },
	{ "stopped", 409, "A forced stop came in between" },
	{ "withdrawn", 409, "The request was withdrawn before it began" },
	{ "too_large", 413, "The body is too large" },
	{ "unsupported_media_type", 415, "The body must be JSON" },
	{ "internal", 500, "gpumgrd failed" },
	{ "start_failed", 500, "A service did not start" },
	{ "stop_failed", 500, "A service did not stop" },
	{ "not_implemented", 501, "Not built yet" },
	{ "shutting_down", 503, "gpumgrd is shutting down" },
	{ "too_many_requests", 503, "Too many requests are waiting" },
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

json_t *problem_document(const char *code, const char *detail)
{
	const struct problem *problem = find(code);
	return json_pack("{s:s, s:s, s:i, s:o, s:s, s:b}", "type", "about:blank", "title",
		problem != NULL ? problem->title : "The request failed", "status",
		problem != NULL ? (int)problem->status : 500, "detail", json_text(detail), "code", code, "success", 0);
}

const char *problem_code(size_t index)
{
	return index < ARRAY_SIZE(problems) ? problems[index].code : NULL;
}
