/*
 * Admission and victim choice: (snapshot, request) -> plan, or refusal.
 *
 * Feasibility comes first: if evicting all that may be evicted does not make room, nothing is evicted and
 * every blocker is named. Else the victims are chosen (broken ones first, then by priority, then least
 * recently used), and each one that proves unnecessary is dropped again, the most important first.
 *
 * Pure: nothing here changes the snapshot, allocates beyond the result, or knows time.
 */
#pragma once

#include "core/gpu.h"
#include "core/service.h"

/* One GPU as the planner sees it. */
struct plan_gpu {
	bool has_total; /* false: nothing fits here, and `which key would help` is the refusal */
	uint32_t total_mib;
	uint32_t reserve_mib;
	uint64_t foreign_mib;
	uint64_t lasting_foreign_mib; /* what stays of it once all that ends has ended */
	uint64_t unreclaimed_mib;
	uint64_t room_mib; /* leased for what is no service */
	uint64_t own_room_mib; /* the part of it that who asks holds himself */
};

/* One service as the planner sees it. */
struct plan_service {
	const struct service_definition *definition;
	const uint32_t *committed_mib; /* [n_gpus], all 0 when it is not live */
	enum service_state state;
	gpu_set gpus; /* where it is committed */
	gpu_set barred; /* where others' leases keep its own from standing */
	bool live; /* holds commitments */
	bool reserved; /* it holds them for its leases, though nothing of it runs */
	bool leaving; /* already on its way out: its commitments end by themselves */
	bool engaged; /* part of a running transition: nobody else's to evict before that has ended */
	bool in_use; /* leased, or its busy probe says so */
	bool leased; /* its commitment outlives its processes */
	bool breakable; /* in use, but its leases may be broken for this request by preempt_after */
	bool hindered; /* somebody keeps it from working; it is not started anew for that */
	bool own; /* leased by who asks: it will not end as long as he waits */
	uint64_t idle_ms; /* since when it is ready and not in use; 0 when it is in use */
	int64_t yield_after_ms; /* in force now; NEVER_MS */
	bool would_yield; /* sooner or later, once it is idle */
	uint64_t last_used_ms; /* when it was last started, leased or released; smaller is longer ago */
};

struct plan_snapshot {
	size_t n_gpus;
	const struct plan_gpu *gpus;
	size_t n_services;
	const struct plan_service *services;
};

struct plan_request {
	const size_t *needs; /* indexes of services, without repetition */
	size_t n_needs;
	uint32_t room_mib; /* besides: room on one GPU for what is no service; 0: none */
	int priority;
	bool is_phase; /* may evict whatever is not needed; else only lower priorities and what yields */
	bool restart; /* what is needed is started anew even where it is well */
	bool relieve; /* what is needed runs already, and has to fit beside what else runs */
	bool later; /* as if every running transition had ended */
	bool assume_yielded; /* as if whatever is idle had been so for its yield_after */
	bool assume_unused; /* as if nobody used any service, but for who asks: would it fit then? */
	bool assume_vacated; /* as if nobody leased any room, but for who asks */
	bool assume_own_ended; /* as if who asks had let go, too */
	gpu_set usable; /* GPUs that it may touch now; neither places nor victims elsewhere */
};

enum plan_action {
	PLAN_STOP, /* evict by stopping */
	PLAN_SLEEP, /* evict by sleeping */
	PLAN_START,
};

enum plan_reason {
	PLAN_NEEDED, /* start: it is what was asked for */
	PLAN_MAKES_ROOM, /* stop: lower priority, or the phase does not need it */
	PLAN_BROKEN, /* stop: in error, and it holds memory that is needed */
	PLAN_YIELDS, /* stop: idle past its yield_after */
	PLAN_RESTART, /* stop: needed, but broken; it is started again */
	PLAN_ASKED, /* stop: asked for by name, or release-all */
};

struct plan_step {
	enum plan_action action;
	enum plan_reason reason;
	size_t service;
	gpu_set gpus;
	uint32_t mib; /* per GPU: what a start commits (the largest), what a stop gives back (the largest) */
};

enum plan_blocker_reason {
	BLOCKED_BY_PRIORITY,
	BLOCKED_BY_PIN,
	BLOCKED_BY_USE,
	BLOCKED_BY_ROOM, /* leased for what is no service; `service` is PLAN_NO_SERVICE */
	BLOCKED_BY_NEED, /* needed by the same request */
	BLOCKED_BY_HINDRANCE, /* it is needed, and somebody keeps it from working */
	BLOCKED_BY_TRANSITION, /* it stands partly on a GPU that another transition holds */
	BLOCKED_BY_FOREIGN, /* processes of no managed service; `service` is PLAN_NO_SERVICE */
	BLOCKED_BY_UNRECLAIMED, /* memory of services that ended and that is not back yet */
	BLOCKED_BY_RESERVE,
	BLOCKED_BY_SIZE, /* no allowed GPU is large enough even when empty; mib is the largest there is */
	BLOCKED_BY_NO_TOTAL, /* the size of the GPU is not known: gpu.gpus must say it */
	BLOCKED_BY_NO_GPU, /* none of the allowed GPUs is present */
};

#define PLAN_NO_SERVICE SIZE_MAX

struct plan_blocker {
	enum plan_blocker_reason reason;
	size_t service; /* or PLAN_NO_SERVICE */
	int gpu; /* index, or -1 */
	uint32_t mib;
	int priority;
};

enum plan_outcome {
	PLAN_OK = 0,
	PLAN_REFUSED = 1, /* `blockers` says why */
};

struct plan {
	size_t n_steps;
	struct plan_step *steps; /* stops first, then starts in the order of the request */
	size_t n_blockers;
	struct plan_blocker *blockers; /* only when refused */
	gpu_set gpus; /* everything it touches or relies on */
	gpu_set room_gpu; /* where the room is */
	size_t needed_service; /* refused: the first service that found no place; PLAN_NO_SERVICE: the room */
	uint32_t needed_mib; /* refused: what that one needs on a GPU */
	int64_t best_mib; /* refused: the most that could be made free for it on one GPU */
};

/* PLAN_OK, PLAN_REFUSED or -ENOMEM. The result is the caller's: plan_finish(). */
int plan_make(const struct plan_snapshot *snapshot, const struct plan_request *request, struct plan *ret_plan);
void plan_finish(struct plan *plan);

/* Whether `request` may evict the service at all, room aside; the reason why not in `ret_why` (may be NULL). */
bool plan_may_evict(const struct plan_snapshot *snapshot, const struct plan_request *request, size_t service,
	enum plan_blocker_reason *ret_why);

/* What the service commits on that GPU when it is started: its declaration, on that card. */
uint32_t plan_need_mib(const struct service_definition *definition, const struct plan_gpu *gpu);

const char *plan_action_name(enum plan_action action);
const char *plan_reason_name(enum plan_reason reason);
