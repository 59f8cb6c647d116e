/*
 * The engine: all state that decisions rest on, and the rules. Events go in, effects come out; it does no I/O,
 * reads no clock, knows no thread. Whoever drives it (the daemon, a test) carries out the effects in their
 * order and reports what came of them as further events.
 *
 * Time is milliseconds of one monotonic clock, handed in with each event; it may stand still but not go back.
 *
 * Each start of a service is a *run* with a number that only grows. Effects carry it and events about it bring
 * it back, so news of an earlier run changes nothing.
 */
#pragma once

#include "core/notice.h"
#include "core/request.h"
#include "core/status.h"

struct engine;

struct engine_config {
	size_t n_services;
	const struct service_definition *services; /* borrowed for the life of the engine */
	size_t n_phases;
	const struct phase_definition *phases; /* borrowed */
	struct size_value reserve; /* per GPU */
	size_t n_gpus; /* sizes declared in the configuration; 0: only readings tell */
	const uint32_t *gpu_totals_mib; /* borrowed */
	uint64_t wait_ms; /* for requests that name no wait */
	size_t queue_max; /* clients waiting at a time; 0: 10000 */
};

enum event_kind {
	EVENT_TICK, /* time passed */
	EVENT_READINGS,
	EVENT_ALLOWED, /* which GPUs a service may use is known now (UUIDs resolved) */
	EVENT_SUBMIT,
	EVENT_WITHDRAW, /* the client of a ticket went away */
	EVENT_FOUND, /* the answer to EFFECT_FIND */
	EVENT_STARTED,
	EVENT_START_FAILED, /* nothing of it is left */
	EVENT_LEADER_ENDED, /* the main process ended, others of its group live on */
	EVENT_GONE, /* the whole group is gone */
	EVENT_STOP_REFUSED, /* the driver cannot stop it and says why; nothing was signalled */
	EVENT_HEALTH, /* the answer to EFFECT_PROBE */
};

struct event {
	enum event_kind kind;
	size_t service; /* FOUND to HEALTH, ALLOWED */
	uint64_t run; /* STARTED to HEALTH */
	union {
		struct {
			uint64_t taken_ms; /* when the reading began, same clock */
			size_t n_gpus;
			const struct gpu_facts *gpus;
		} readings;
		gpu_set allowed;
		struct {
			uint64_t ticket; /* chosen by the caller, unique, never 0 */
			struct request_spec spec;
		} submit;
		uint64_t withdraw_ticket;
		struct {
			bool alive;
			bool healthy;
			pid_t pid; /* 0: unknown */
		} found;
		pid_t started_pid;
		bool healthy;
	};
	const char *text; /* START_FAILED, LEADER_ENDED, GONE, STOP_REFUSED, HEALTH: in words; may be NULL */
};

enum effect_kind {
	EFFECT_FIND, /* does the service run already? -> EVENT_FOUND */
	EFFECT_ADOPT, /* what was found is `run` from now on: watch it -> EVENT_GONE */
	EFFECT_START, /* -> EVENT_STARTED or EVENT_START_FAILED */
	EFFECT_STOP, /* stop it (`force`: kill the whole group now) -> EVENT_GONE or EVENT_STOP_REFUSED */
	EFFECT_PROBE, /* one health check -> EVENT_HEALTH */
	EFFECT_SAMPLING, /* how often to read: `fast` in transitions, else the configured interval */
	EFFECT_SAMPLE, /* read now */
	EFFECT_ACCEPT, /* the ticket is part of transition `id` from now on */
	EFFECT_REPLY, /* the ticket is answered: `transition` says how (good until the next event) */
	EFFECT_PUBLISH,
};

struct effect {
	enum effect_kind kind;
	size_t service;
	uint64_t run;
	union {
		gpu_set gpus; /* START: where */
		pid_t pid; /* ADOPT: as it was found, 0 when unknown */
		bool force; /* STOP */
		uint64_t probe_timeout_ms;
		bool fast;
		struct {
			uint64_t ticket;
			uint64_t id;
			const struct transition *transition; /* NULL in ACCEPT */
			enum outcome outcome; /* REPLY: of this ticket; another than the transition's when its own wait
						 ran out */
		} answer;
		struct notice *notice; /* PUBLISH: owned by the list */
	};
};

/* A list of effects that the caller owns and reuses: effects_clear() between events, effects_finish() at the end. */
struct effects {
	size_t n;
	size_t capacity;
	struct effect *items;
};

void effects_clear(struct effects *effects);
void effects_finish(struct effects *effects);

/* 0 or -ENOMEM. The first event must come after it; its effects (look for every service) come from the first tick. */
int engine_create(const struct engine_config *config, struct engine **ret_engine);
struct engine *engine_destroy(struct engine *engine);

/*
 * The one door in. Appends to `effects`. 0, or -ENOMEM with nothing changed: the caller may bring the event again.
 * Memory that runs out later, while it is decided what may begin, delays that by 100 ms at most: the next deadline says
 * when it is tried again.
 */
int engine_handle(struct engine *engine, const struct event *event, uint64_t now_ms, struct effects *effects);

/* When time alone matters next: bring EVENT_TICK then. UINT64_MAX: never. */
uint64_t engine_next_deadline(const struct engine *engine);

/* Everything known, borrowed until the next event. */
const struct status *engine_status(struct engine *engine, uint64_t now_ms);

/*
 * What the request would do if its turn were now: PLAN_OK, PLAN_REFUSED or -ENOMEM. Changes nothing.
 * Phase and start only (-EINVAL).
 */
int engine_plan(struct engine *engine, const struct request_spec *spec, uint64_t now_ms, struct plan *ret_plan);

/* The record of a transition, running, queued or lately finished; NULL: unknown. */
const struct transition *engine_transition(const struct engine *engine, uint64_t id);

/* Grows with everything that a status page would show; equal numbers mean an equal page, times aside. */
uint64_t engine_version(const struct engine *engine);
