/*
 * What clients ask for, and the record of what became of it.
 *
 * A request waits in the one queue, then becomes a transition: its plan carried out step by step. Both are one
 * record with one id, from acceptance to the end; equal requests join the same record. Finished records are
 * kept for a while so that clients can read the outcome.
 */
#pragma once

#include "core/plan.h"

enum request_kind {
	REQUEST_PHASE,
	REQUEST_START,
	REQUEST_STOP,
	REQUEST_RESTART,
	REQUEST_RELEASE_ALL,
};

#define WAIT_DEFAULT_MS (-1)

struct request_spec {
	enum request_kind kind;
	size_t target; /* index of the service, or of the phase */
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

const char *request_kind_name(enum request_kind kind);
const char *transition_state_name(enum transition_state state);
const char *step_state_name(enum step_state state);

/* The stable code of problem documents: "insufficient_vram", "start_timeout", ... */
const char *outcome_code(enum outcome outcome);
