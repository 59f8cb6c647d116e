/*
 * What clients ask for, and the record of what became of it.
 *
 * A request waits in the one queue, then becomes a transition: its plan carried out step by step. Both are one
 * record with one id, from acceptance to the end; equal requests join the same record. Finished records are
 * kept for a while so that clients can read the outcome.
 */
#pragma once

#include "core/lease.h"
#include "core/plan.h"

enum request_kind {
	REQUEST_PHASE,
	REQUEST_START,
	REQUEST_STOP,
	REQUEST_RESTART,
	REQUEST_RELEASE_ALL,
	REQUEST_LEASE,
	REQUEST_MAKE_ROOM, /* gpumgr's own: around a service that somebody else started */
};

#define WAIT_DEFAULT_MS (-1)

struct request_spec {
	enum request_kind kind;
	size_t target; /* index of the service, or of the phase */
	const struct lease_terms *lease; /* of a lease: what it is to be; the record has its own copy */
	bool force; /* stop: kill at once, break leases */
	int64_t wait_ms; /* for its turn and for leases; WAIT_DEFAULT_MS: the configured default */
};

enum transition_state {
	TRANSITION_QUEUED, /* waits for its turn; it gates later requests */
	TRANSITION_PARKED, /* cannot be now, but may be when something ends; gates nothing */
	TRANSITION_RUNNING,
	TRANSITION_DONE,
	TRANSITION_FAILED,
};

enum outcome {
	OUTCOME_DONE,
	OUTCOME_INSUFFICIENT_VRAM,
	OUTCOME_START_FAILED,
	OUTCOME_START_TIMEOUT,
	OUTCOME_STOP_FAILED,
	OUTCOME_WAIT_TIMEOUT,
	OUTCOME_WITHDRAWN, /* everybody who asked went away before it began */
	OUTCOME_STOPPED, /* a forced stop came in between */
	OUTCOME_TOO_MANY, /* the queue is full */
	OUTCOME_SHUTDOWN,
	OUTCOME_CONTAINER_NOT_FOUND, /* nobody made the container that was to be started */
	OUTCOME_LEASE_TIMEOUT, /* a lease was not granted within its wait */
	OUTCOME_WOULD_DEADLOCK, /* it waits for what its own client holds, or in a circle with others */
	OUTCOME_LOCK_UNAVAILABLE, /* no fence can be had: the part that gives them is down */
	OUTCOME_RETIRED, /* what it asks for is not configured any more */
	OUTCOME_REQUEST_ID_REUSED, /* the same request_id asked for something else before */
};

enum step_state {
	STEP_PENDING,
	STEP_RUNNING,
	STEP_DONE,
	STEP_FAILED,
	STEP_SKIPPED, /* what it depended on failed */
};

struct step {
	struct plan_step plan;
	enum step_state state;
	enum outcome outcome; /* of a failed step */
	uint64_t started_ms; /* engine time; 0 before */
	uint64_t ended_ms;
	char detail[384]; /* a failed step: why; a done one: what a reader should know, or "" */
};

struct transition {
	uint64_t id;
	struct request_spec spec;
	int priority;
	enum transition_state state;
	enum outcome outcome; /* once done or failed */
	uint64_t queued_ms;
	uint64_t started_ms;
	uint64_t ended_ms;
	unsigned overtaken;
	gpu_set gpus;
	size_t n_steps;
	struct step *steps;
	size_t n_blockers; /* a refusal, or what it waits for while it is queued or parked */
	struct plan_blocker *blockers;
	char detail[512]; /* in words: the outcome, or what it waits for; "" when there is nothing to say */
};

/* The terms in memory of their own, in one block that the caller frees. NULL: no memory. */
struct lease_terms *lease_terms_copy(const struct lease_terms *terms);
/* Whether both ask for the same lease, whoever asks and for how long he may wait. */
bool lease_terms_are_equal(const struct lease_terms *a, const struct lease_terms *b);

/* A stop by name, or release-all: it needs no service, and no planner. */
bool request_is_stop(const struct request_spec *spec);
/* Whether it ends well only when what it needs is ready: phase, start, restart. */
bool request_promises_services(const struct request_spec *spec);

/* What is told to who waited in vain. */
enum outcome request_timeout_outcome(const struct request_spec *spec);

const char *request_kind_name(enum request_kind kind);
const char *transition_state_name(enum transition_state state);
const char *step_state_name(enum step_state state);

/* The stable code of problem documents: "insufficient_vram", "start_timeout", ... */
const char *outcome_code(enum outcome outcome);
