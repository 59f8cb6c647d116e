/* The names by which requests, their states and outcomes are known on the wire and in the log. */
#include "core/request.h"

#include <stdlib.h>
#include <string.h>

struct lease_terms *lease_terms_copy(const struct lease_terms *terms)
{
	size_t owner_size = strlen(terms->owner) + 1, id_size = strlen(terms->request_id) + 1;
	size_t services_size = terms->n_services * sizeof(size_t), holding_size = terms->n_holding * sizeof(uint64_t);
	struct lease_terms *copy = malloc(sizeof(*copy) + services_size + holding_size + owner_size + id_size);
	if (copy == NULL)
		return NULL;
	*copy = *terms;
	uint64_t *holding = (uint64_t *)(copy + 1);
	size_t *services = (size_t *)(holding + terms->n_holding);
	char *owner = (char *)(services + terms->n_services);
	if (holding_size > 0)
		memcpy(holding, terms->holding, holding_size);
	if (services_size > 0)
		memcpy(services, terms->services, services_size);
	memcpy(owner, terms->owner, owner_size);
	copy->holding = holding;
	copy->services = services;
	copy->owner = owner;
	copy->request_id = memcpy(owner + owner_size, terms->request_id, id_size);
	return copy;
}

bool lease_terms_are_equal(const struct lease_terms *a, const struct lease_terms *b)
{
	return a->mode == b->mode && a->room_mib == b->room_mib && a->attached == b->attached &&
		a->n_services == b->n_services &&
		(a->n_services == 0 || memcmp(a->services, b->services, a->n_services * sizeof(a->services[0])) == 0);
}

bool request_is_stop(const struct request_spec *spec)
{
	return spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL;
}

bool request_promises_services(const struct request_spec *spec)
{
	return !request_is_stop(spec) && spec->kind != REQUEST_MAKE_ROOM;
}

enum outcome request_timeout_outcome(const struct request_spec *spec)
{
	return spec->kind == REQUEST_LEASE ? OUTCOME_LEASE_TIMEOUT : OUTCOME_WAIT_TIMEOUT;
}

const char *request_kind_name(enum request_kind kind)
{
	static const char *const names[] = {
		[REQUEST_PHASE] = "phase",
		[REQUEST_START] = "start",
		[REQUEST_STOP] = "stop",
		[REQUEST_RESTART] = "restart",
		[REQUEST_RELEASE_ALL] = "release_all",
		[REQUEST_LEASE] = "lease",
		[REQUEST_MAKE_ROOM] = "make_room",
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
		[OUTCOME_CONTAINER_NOT_FOUND] = "container_not_found",
		[OUTCOME_LEASE_TIMEOUT] = "lease_timeout",
		[OUTCOME_WOULD_DEADLOCK] = "would_deadlock",
		[OUTCOME_LOCK_UNAVAILABLE] = "lock_unavailable",
		[OUTCOME_RETIRED] = "unknown_service",
		[OUTCOME_REQUEST_ID_REUSED] = "request_id_reused",
	};
	return codes[outcome];
}
