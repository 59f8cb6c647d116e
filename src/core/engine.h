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

#include "core/lock.h"
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
	size_t leases_max; /* held at a time; 0: 10000 */
	bool uses_lock; /* leases are granted only while a lock is held, see EFFECT_LOCK */
};

/* Why a start failed, where that matters to whoever asked. */
enum start_failure {
	START_FAILURE_OTHER,
	START_FAILURE_NOT_FOUND, /* what was to be started does not exist: a container that nobody made */
	START_FAILURE_UNTOLD, /* nobody can tell what became of it, nor whether it runs */
};

enum event_kind {
	EVENT_TICK, /* time passed */
	EVENT_READINGS,
	EVENT_ALLOWED, /* which GPUs a service may use is known now (UUIDs resolved) */
	EVENT_SUBMIT,
	EVENT_WITHDRAW, /* the client of a ticket went away */
	EVENT_FENCE, /* the answer to EFFECT_FENCE; without a fence `text` says why there is none */
	EVENT_RELEASE, /* the holder ends its lease */
	EVENT_RENEW, /* its time begins anew */
	EVENT_DETACH, /* the connection of an attached lease closed */
	EVENT_ATTACH, /* its holder came back after a restart of the daemon */
	EVENT_UNLOCK, /* every lease ends by force */
	EVENT_LOCK, /* what became of the lock that is wanted; `text` says more, for people */
	EVENT_EXIT, /* the daemon is about to end: see engine_may_exit() */
	EVENT_FOUND, /* the answer to EFFECT_FIND */
	EVENT_LOOK, /* something about it changed that nobody asked for: it is worth an EFFECT_FIND */
	EVENT_STARTED,
	EVENT_START_FAILED, /* nothing of it is left */
	EVENT_LEADER_ENDED, /* the main process ended, others of its group live on */
	EVENT_GONE, /* the whole group is gone */
	EVENT_HINDERED, /* something outside keeps it from working for certain, though it lives; or does no more */
	EVENT_STOP_REFUSED, /* the driver cannot stop it and says why; nothing was signalled */
	EVENT_HEALTH, /* the answer to EFFECT_PROBE */
	EVENT_BUSY, /* the answer to EFFECT_ASK_BUSY */
};

struct event {
	enum event_kind kind;
	size_t service; /* FOUND to HEALTH, ALLOWED */
	uint64_t run; /* STARTED to HEALTH */
	enum start_failure failure; /* START_FAILED */
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
			uint64_t id; /* the transition that asked for it */
			uint64_t fence; /* larger than any before; 0: there is none */
		} fence;
		struct {
			uint64_t fence; /* RELEASE to ATTACH; of a lease that is gone: nothing happens */
			uint64_t ttl_ms; /* RENEW; 0: as before */
		} lease;
		enum lock_news lock;
		struct {
			bool known; /* false: it could not be asked */
			bool busy;
		} busy;
		struct {
			bool alive;
			bool healthy;
			bool external; /* it was seen absent before: somebody else started it */
			bool stopping; /* an earlier daemon had begun to stop it: that is brought to its end */
			bool untold; /* nobody can tell, `text` says why; all else is false */
			pid_t pid; /* 0: unknown */
		} found;
		bool by_others; /* GONE: somebody else ended it on purpose, past us */
		bool is_over; /* HINDERED */
		pid_t started_pid;
		bool healthy;
	};
	const char *text; /* LOCK, FOUND, START_FAILED to HEALTH: in words; may be NULL */
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
	EFFECT_FENCE, /* transition `answer.id` needs a fence -> EVENT_FENCE */
	EFFECT_LOCK, /* the lock is wanted (`lock_wanted`) or not any more -> EVENT_LOCK; said once at the start, too */
	EFFECT_LEASE, /* something became of a lease; both pointers are good until the next event */
	EFFECT_ASK_BUSY, /* does it work although nobody holds a lease on it? -> EVENT_BUSY */
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
		bool lock_wanted; /* LOCK; `service`: for the sake of which, SIZE_MAX: none in particular */
		struct {
			uint64_t ticket;
			uint64_t id;
			const struct transition
				*transition; /* NULL in ACCEPT, and when what was asked for was granted before */
			const struct lease *lease; /* REPLY to a lease request that was granted, else NULL */
			enum outcome outcome; /* REPLY: of this ticket; another than the transition's when its own wait
						 ran out */
		} answer;
		struct {
			const struct lease *lease;
			enum lease_news news;
			const char *text; /* for people */
		} lease;
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
 * A lease from before a restart, brought before the first event. Its services are reserved from the start; one that was
 * attached waits `grace_ms` for its holder. `lease` is copied; its times are the engine's. What of it is not configured
 * any more is left out and named in `gone`; an attached one of which nothing is left ends when its holder comes back
 * and can hear of it. 0, -ENOMEM, or -EINVAL when nothing of it fits today's configuration, or it is there already.
 */
int engine_restore_lease(struct engine *engine, const struct lease *lease, uint64_t now_ms, uint64_t grace_ms);

/*
 * What an earlier daemon knew, brought before the first event: how long the last good start of a service took and the
 * most that it ever held (NULL: not known), and the last phase. Decisions do not rest on it.
 */
void engine_restore_service(struct engine *engine, size_t service, const uint64_t *boot_ms, const uint32_t *peak_mib);
void engine_restore_phase(struct engine *engine, size_t phase, uint64_t at_ms);

/*
 * Another configuration in the place of the present one, between two events. Its first services and phases are those of
 * before, in their order and by their names, retired where they are configured no more; others follow. Everything
 * counts at once but how a service is run, which counts from its next start on. Requests that wait for what is retired
 * are answered. Borrows as engine_create() does; what was borrowed before is not used any more. `uses_lock`,
 * `queue_max` and `leases_max` stay. Appends to `effects`; the next event (a tick will do) begins what follows from it.
 * 0, or -ENOMEM with nothing changed.
 */
int engine_reconfigure(
	struct engine *engine, const struct engine_config *config, uint64_t now_ms, struct effects *effects);

/* NULL: there is none. Borrowed until the next event. */
const struct lease *engine_lease(const struct engine *engine, uint64_t fence);

/*
 * The one door in. Appends to `effects`. 0, or -ENOMEM with nothing changed: the caller may bring the event again.
 * Memory that runs out later, while it is decided what may begin, delays that by 100 ms at most: the next deadline says
 * when it is tried again.
 */
int engine_handle(struct engine *engine, const struct event *event, uint64_t now_ms, struct effects *effects);

/*
 * After EVENT_EXIT: whether all that is to be stopped before the daemon ends is stopped, or cannot be. Until then that
 * is all that the engine does: nothing that waits or is under way goes on.
 */
bool engine_may_exit(const struct engine *engine);

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

/*
 * Grows with everything that is worth knowing after a restart, leases aside: a phase was prepared, a start went well, a
 * service holds more than ever, a transition with steps began or ended. It has grown when engine_handle() returns, and
 * so before the effects are carried out.
 */
uint64_t engine_knowledge(const struct engine *engine);

/* Grows with everything that a status page would show; equal numbers mean an equal page, times aside. */
uint64_t engine_version(const struct engine *engine);
