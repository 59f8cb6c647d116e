/* The names by which requests, their states and outcomes are known on the wire and in the log. */
#include "core/request.h"

const char *request_kind_name(enum request_kind kind)
{
	static const char *const names[] = {
		[REQUEST_PHASE] = "phase",
		[REQUEST_START] = "start",
		[REQUEST_STOP] = "stop",
		[REQUEST_RESTART] = "restart",
		[REQUEST_RELEASE_ALL] = "release_all",
	};
	return names[kind];
}

const char *transition_state_name(enum transition_state state)
{
	static const char *const names[] = {
		[TRANSITION_QUEUED] = "queued",
		[TRANSITION_PARKED] = "parked",
		[TRANSITION_RUNNING] = "running",
		[TRANSITION_DONE] = "done",
		[TRANSITION_FAILED] = "failed",
	};
	return names[state];
}

const char *step_state_name(enum step_state state)
{
	static const char *const names[] = {
		[STEP_PENDING] = "pending",
		[STEP_RUNNING] = "running",
		[STEP_DONE] = "done",
		[STEP_FAILED] = "failed",
		[STEP_SKIPPED] = "skipped",
	};
	return names[state];
}

const char *outcome_code(enum outcome outcome)
{
	static const char *const codes[] = {
		[OUTCOME_DONE] = "done",
		[OUTCOME_INSUFFICIENT_VRAM] = "insufficient_vram",
		[OUTCOME_START_FAILED] = "start_failed",
		[OUTCOME_START_TIMEOUT] = "start_timeout",
		[OUTCOME_STOP_FAILED] = "stop_failed",
		[OUTCOME_WAIT_TIMEOUT] = "wait_timeout",
		[OUTCOME_WITHDRAWN] = "withdrawn",
		[OUTCOME_STOPPED] = "stopped",
		[OUTCOME_TOO_MANY] = "too_many_requests",
		[OUTCOME_SHUTDOWN] = "shutting_down",
	};
	return codes[outcome];
}
