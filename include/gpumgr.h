/*
 * libgpumgr: the C client of gpumgrd, the daemon that shares GPUs among services.
 *
 *	struct gpumgr *g = gpumgr_new();
 *	struct gpumgr_terms terms = GPUMGR_TERMS;
 *	struct gpumgr_lease *lease;
 *	terms.service = "comfyui";
 *	if (gpumgr_acquire(g, &terms, -1, &lease) != GPUMGR_OK)
 *		errx(1, "%s", gpumgr_last_error(g)->message);
 *	... comfyui is healthy, and nobody evicts it ...
 *	gpumgr_lease_release(lease, 5000);
 *	gpumgr_lease_free(lease);
 *	gpumgr_free(g);
 *
 * libgpumgr(3) tells the same story with more words; docs/c-library.md has a complete program.
 *
 * RULES THAT HOLD FOR EVERYTHING HERE
 *
 * Errors. A function that returns `int` returns GPUMGR_OK (0) or a negative value of enum gpumgr_code, unless it says
 * otherwise. gpumgr_last_error() of the handle then tells what, which and what would help. `ret_` parameters are set on
 * success; on failure those that return a pointer are set to NULL.
 *
 * Time. `timeout_ms` is how long the call may take, in milliseconds: -1 for ever, 0 not at all (only useful where the
 * function says so). It is counted on CLOCK_MONOTONIC. `wait_ms` is something else: how long the *daemon* lets the
 * request wait for its turn and for leases; -1 is the daemon's own default (lease.wait, 600 s unless configured).
 *
 * Numbers that the daemon does not know are GPUMGR_UNKNOWN, texts NULL, flags -1. Unknown is not zero. `_mb` is MiB.
 *
 * Lists are arrays of pointers that end with NULL (never NULL themselves), lists of numbers a struct gpumgr_numbers.
 * Structs that the library hands out may grow at their end in later versions; do not copy them by value.
 *
 * Ownership. What a `ret_` parameter returns is the caller's, and is given back with the function named there. `const`
 * pointers are borrowed; how long they are good is said there. Every *_free() accepts NULL.
 *
 * Threads. A handle, and every lease, stream and event stream made from it, belongs to one thread at a time. Handles
 * are independent of each other: one for each thread. The library starts no threads and has no mutable globals; libcurl
 * is initialised once, safely, by the first gpumgr_new() (libcurl may resolve host names of a URL in a thread of its
 * own).
 *
 * Signals. No call installs a handler or raises SIGPIPE. A call that blocks goes on when a signal handler ran; to make
 * it return, call gpumgr_interrupt() in the handler.
 *
 * fork(). In the child, a handle and what was made from it must not be used: every call returns GPUMGR_ERROR_FORKED.
 * Freeing them there is allowed and does not disturb the parent. An attached lease lives as long as *any* process holds
 * its connection: a child that does not exec() keeps it until it frees its copy or ends. All descriptors are
 * close-on-exec.
 */
#ifndef GPUMGR_H
#define GPUMGR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GPUMGR_API __attribute__((visibility("default")))
#else
#define GPUMGR_API
#endif

/* A number that is not known. */
#define GPUMGR_UNKNOWN INT64_MIN

enum gpumgr_code {
	GPUMGR_OK = 0,
	GPUMGR_ERROR_ARGUMENT = -1, /* an argument, or the environment, is wrong; nothing was asked */
	GPUMGR_ERROR_NO_MEMORY = -2,
	GPUMGR_ERROR_SYSTEM = -3, /* no descriptors left, and the like */
	GPUMGR_ERROR_FORKED = -4, /* the handle was made by another process */
	GPUMGR_ERROR_NO_DAEMON = -5, /* no socket, or nobody answers there */
	GPUMGR_ERROR_FORBIDDEN = -6, /* the socket may not be opened */
	GPUMGR_ERROR_BROKEN = -7, /* the connection broke off before the answer was complete */
	GPUMGR_ERROR_BAD_ANSWER = -8, /* not HTTP, not JSON, or too long: probably not gpumgrd */
	GPUMGR_ERROR_TIMED_OUT = -9, /* timeout_ms passed */
	GPUMGR_ERROR_INTERRUPTED = -10, /* gpumgr_interrupt() */
	GPUMGR_ERROR_REFUSED = -11, /* the daemon said no; the error's `name` and `http_status` say which no */
	GPUMGR_ERROR_NO_FIT = -12, /* ... because it does not fit: `blocking` lists what is in the way */
	GPUMGR_ERROR_WAIT_TIMEOUT = -13, /* ... because wait_ms passed before it was its turn */
	GPUMGR_ERROR_UNKNOWN = -14, /* ... because there is no such service, phase or lease */
	GPUMGR_ERROR_ENDED = -15 /* the lease or the stream is over */
};

/* Something that is in the way. */
struct gpumgr_blocker {
	const char *service; /* NULL: no service of ours */
	int64_t gpu; /* index */
	int64_t mb;
	int64_t priority;
	const char *why;
};

struct gpumgr_error {
	int code; /* enum gpumgr_code */
	int http_status; /* 0: there was no answer */
	const char *name; /* the daemon's stable code, "insufficient_vram", ...; "" without one */
	const char *message; /* a sentence: what failed, which, and what would help; never NULL */
	const struct gpumgr_blocker *const *blocking; /* ends with NULL */
	const char *json; /* the daemon's problem document (RFC 9457), NULL without one */
};

struct gpumgr_numbers {
	size_t n;
	const int64_t *values;
};

/* ---- the handle ---------------------------------------------------------------------------------------------- */

struct gpumgr;

/* Connects to nothing yet. NULL: no memory, no descriptors, or libcurl cannot be initialised. */
GPUMGR_API struct gpumgr *gpumgr_new(void);

/* What was made from the handle may be freed before or after it. */
GPUMGR_API void gpumgr_free(struct gpumgr *g);

/*
 * Where the daemon is: a Unix socket, or a URL ("http://host:port"). At most one of them; texts are copied. Without
 * any, the first that applies: GPUMGR_SOCKET, GPUMGR_URL, the socket of a daemon of the user's own
 * ($XDG_RUNTIME_DIR/gpumgr/gpumgr.sock, or /tmp/gpumgr-UID/gpumgr.sock) if it is there, /run/gpumgr/gpumgr.sock.
 *
 * NULL takes a setting back. The bearer token is only ever sent to a URL. Without one set, it is GPUMGR_TOKEN, else the
 * first line of the file that GPUMGR_TOKEN_FILE names.
 *
 * To be called before the first request. GPUMGR_ERROR_ARGUMENT, GPUMGR_ERROR_NO_MEMORY, GPUMGR_ERROR_SYSTEM (the token
 * file cannot be read).
 */
GPUMGR_API int gpumgr_set_socket(struct gpumgr *g, const char *path);
GPUMGR_API int gpumgr_set_url(struct gpumgr *g, const char *url);
GPUMGR_API int gpumgr_set_token(struct gpumgr *g, const char *token);
GPUMGR_API int gpumgr_set_token_file(struct gpumgr *g, const char *path);

/*
 * For how long an attached lease whose connection broke off (gpumgrd restarts) is tried to be had back, and a waiting
 * one to be queued again: 60000 ms unless this says otherwise. Concerns leases that are acquired afterwards.
 */
GPUMGR_API int gpumgr_set_patience(struct gpumgr *g, int64_t patience_ms);

/* Finds the daemon and asks for its version. Optional: every other call finds it by itself. */
GPUMGR_API int gpumgr_connect(struct gpumgr *g, int64_t timeout_ms);

/* The path of the socket, or the URL, that is used; the other is NULL. Good until the handle is freed. */
GPUMGR_API const char *gpumgr_socket(struct gpumgr *g);
GPUMGR_API const char *gpumgr_url(struct gpumgr *g);

/*
 * Makes the blocking call under way on this handle (or on a lease or stream of it), or else the next one, return
 * GPUMGR_ERROR_INTERRUPTED. Async-signal-safe, and the one function that may be called from any thread.
 */
GPUMGR_API void gpumgr_interrupt(struct gpumgr *g);

/* Of the last call that failed, on the handle or on what was made from it. Never NULL; good until the next call. */
GPUMGR_API const struct gpumgr_error *gpumgr_last_error(const struct gpumgr *g);

/* The version of this library, "0.1.0". */
GPUMGR_API const char *gpumgr_library_version(void);
/* The version of the daemon; free() it. */
GPUMGR_API int gpumgr_version(struct gpumgr *g, int64_t timeout_ms, char **ret_version);

/* ---- status -------------------------------------------------------------------------------------------------- */

struct gpumgr_process {
	int64_t pid;
	const char *name;
	int64_t memory_mb;
	const char *service; /* NULL: it belongs to none that gpumgr manages */
};

struct gpumgr_gpu {
	int64_t index;
	const char *uuid;
	const char *name;
	int64_t total_mb;
	int64_t used_mb;
	int64_t free_mb;
	int64_t available_mb; /* free less the reserve */
	int64_t admissible_mb; /* what may still be admitted */
	int64_t committed_mb;
	int64_t foreign_mb; /* held by processes that are no service's */
	int64_t unreclaimed_mb;
	int64_t reserve_mb;
	int64_t temperature_c;
	int64_t utilization_percent;
	const char *accounting; /* "process", "total" or "ledger" */
	const char *problem; /* NULL: none */
	int stale; /* 1: the reading is too old to decide on */
	const struct gpumgr_process *const *processes;
};

struct gpumgr_service {
	const char *name;
	const char *state; /* "unknown" "stopped" "starting" "ready" "busy" "asleep" "stopping" "error" */
	int64_t vram_mb;
	int64_t priority;
	struct gpumgr_numbers phases;
	struct gpumgr_numbers gpus;
	int64_t pid;
	int64_t measured_mb;
	int64_t committed_mb;
	const char *since; /* RFC 3339, UTC */
	const char *error; /* why it is in error, or was; NULL */
	int64_t transition; /* that it is part of */
	int64_t leases; /* how many are held on it */
	int live;
	int pinned;
	int busy; /* what its busy probe says; -1: it has none, or it is not known */
};

struct gpumgr_step {
	const char *action; /* "stop" "sleep" "start" */
	const char *service;
	const char *state; /* "pending" "running" "done" "failed" "skipped" */
	const char *reason;
	const char *text; /* a sentence */
	const char *error;
	int64_t mb;
	int64_t duration_ms;
	struct gpumgr_numbers gpus;
};

/* A request that waits or is carried out. */
struct gpumgr_transition {
	int64_t id;
	const char *kind; /* "phase" "start" "stop" "restart" "release_all" "lease" ... */
	const char *target;
	int64_t phase;
	const char *state; /* "queued" "parked" "running" "done" "failed" */
	const char *outcome;
	int64_t priority;
	int64_t place; /* in the queue, from 1 */
	const char *waits_for; /* a sentence */
	const char *queued_at;
	const char *started_at;
	const char *ended_at;
	int64_t duration_ms;
	const char *detail;
	const struct gpumgr_step *const *steps;
	const struct gpumgr_blocker *const *blocking;
};

/* A lease as everybody sees it. */
struct gpumgr_lease_info {
	const char *id;
	int64_t fence;
	const char *mode; /* "exclusive" "shared" "gpu" */
	const char *const *services;
	int64_t phase;
	struct gpumgr_numbers gpus;
	int64_t vram_mb; /* of room for the holder's own process */
	const char *owner;
	int64_t priority;
	int attached;
	const char *state; /* "held" "awaits_holder" */
	const char *since;
	int64_t age_ms;
	int64_t ttl_ms;
	int64_t expires_in_ms;
	const char *wanted_by; /* NULL: nobody waits for it */
	const char *wanted_since;
	int64_t breaks_in_ms;
};

struct gpumgr_status {
	const struct gpumgr_gpu *const *gpus;
	const struct gpumgr_service *const *services;
	const struct gpumgr_lease_info *const *leases;
	const struct gpumgr_transition *const *queue; /* what waits, the next first */
	const struct gpumgr_transition *const *transitions; /* what is under way */
	int64_t phase; /* the last one that was prepared */
	const char *phase_name;
	int phase_satisfied;
	const char *lock_holder;
	int64_t lock_ttl_s; /* -1: the holder has no time limit, -2: there is no holder */
};

GPUMGR_API int gpumgr_get_status(struct gpumgr *g, int64_t timeout_ms, struct gpumgr_status **ret_status);
GPUMGR_API void gpumgr_status_free(struct gpumgr_status *status);
/* The daemon's own JSON; free() it. */
GPUMGR_API int gpumgr_get_status_json(struct gpumgr *g, int64_t timeout_ms, char **ret_json);

/* ---- requests that change something ----------------------------------------------------------------------------- */

/*
 * What became of a request. Members that a kind of request does not have are unknown.
 */
struct gpumgr_result {
	int64_t transition;
	int64_t duration_ms;
	int64_t phase;
	const char *service;
	const char *const *stopped; /* release-all */
	const struct gpumgr_step *const *steps;
	int feasible; /* plan */
	const char *text; /* plan: the daemon's explanation */
	const struct gpumgr_blocker *const *blocking; /* plan that is not feasible */
	const char *json; /* the whole answer */
};

GPUMGR_API void gpumgr_result_free(struct gpumgr_result *result);

/*
 * Each returns when the daemon is done (services healthy), or has refused. `ret_result` may be NULL. A call that ends
 * early (timeout_ms, gpumgr_interrupt()) withdraws the request if it has not begun; what has begun completes.
 *
 * A phase is named by its number ("4") or its name ("video").
 */
GPUMGR_API int gpumgr_phase(
	struct gpumgr *g, const char *phase, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result);
GPUMGR_API int gpumgr_phase_number(
	struct gpumgr *g, unsigned phase, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result);
GPUMGR_API int gpumgr_start(
	struct gpumgr *g, const char *service, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result);
/* `force`: kills at once and breaks leases; `json` of the result lists them as `broken`. */
GPUMGR_API int gpumgr_stop(struct gpumgr *g, const char *service, int force, int64_t wait_ms, int64_t timeout_ms,
	struct gpumgr_result **ret_result);
GPUMGR_API int gpumgr_restart(
	struct gpumgr *g, const char *service, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result);
/* Stops everything that is not in use. */
GPUMGR_API int gpumgr_release_all(
	struct gpumgr *g, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result);

/* What a request would do; changes nothing. GPUMGR_OK also when it is not feasible: see the result. */
GPUMGR_API int gpumgr_plan_phase(
	struct gpumgr *g, const char *phase, int64_t timeout_ms, struct gpumgr_result **ret_result);
GPUMGR_API int gpumgr_plan_start(
	struct gpumgr *g, const char *service, int64_t timeout_ms, struct gpumgr_result **ret_result);

/*
 * Waits until a service is ready (or busy); starts nothing. GPUMGR_ERROR_REFUSED with the name "service_failed" when it
 * is in error and nothing is about to start it; GPUMGR_ERROR_UNKNOWN when there is no such service.
 */
GPUMGR_API int gpumgr_wait_ready(struct gpumgr *g, const char *service, int64_t timeout_ms);

/* The last `n_lines` lines that a service printed, as it printed them; free() it. */
GPUMGR_API int gpumgr_logs(
	struct gpumgr *g, const char *service, unsigned n_lines, int64_t timeout_ms, char **ret_text);

/* ---- leases ---------------------------------------------------------------------------------------------------- */

enum gpumgr_mode {
	GPUMGR_EXCLUSIVE = 0, /* sole user of the services */
	GPUMGR_SHARED = 1, /* one of several */
	GPUMGR_GPU = 2 /* sole holder of the GPUs that they stand on */
};

/*
 * What is asked for. Begin with GPUMGR_TERMS, then set exactly one of service, services, phase and vram. Everything is
 * borrowed for the call.
 */
struct gpumgr_terms {
	size_t size; /* of this struct, set by GPUMGR_TERMS: how later versions know this one */
	const char *service;
	const char *const *services; /* ends with NULL */
	const char *phase; /* number or name */
	const char *vram; /* room for the client's own process: "2GiB", "2000" (MiB) */
	enum gpumgr_mode mode;
	/*
	 * 0: attached. The lease lives as long as this process and its connection, and comes back by itself after a
	 * restart of the daemon. 1: detached. It lives for ttl_ms, and needs renewing.
	 */
	int detached;
	int64_t ttl_ms; /* detached; -1: the daemon's default (lease.ttl) */
	int64_t wait_ms; /* -1: the daemon's default */
	const char *owner; /* shown to others, at most 200 bytes; NULL: the daemon says what it knows of the client */
	int has_priority; /* 0: the priority of the services */
	int priority;
	const char *request_id; /* the same again means the same lease; NULL: the library makes one */
	const char *const *holding; /* ids of the leases that this client holds already, ends with NULL; or NULL */
};

#define GPUMGR_TERMS                                                                                                   \
	{                                                                                                              \
		sizeof(struct gpumgr_terms), NULL, NULL, NULL, NULL, GPUMGR_EXCLUSIVE, 0, -1, -1, NULL, 0, 0, NULL,    \
			NULL                                                                                           \
	}

struct gpumgr_lease;

enum gpumgr_lease_state {
	GPUMGR_LEASE_WAITING = 1, /* not granted yet */
	GPUMGR_LEASE_HELD = 2,
	GPUMGR_LEASE_UNSURE = 3, /* attached, and its connection broke off: tried to be had back just now */
	GPUMGR_LEASE_OVER = 4 /* refused, released or lost */
};

enum gpumgr_lease_event_kind {
	GPUMGR_LEASE_QUEUED = 1, /* `place`, `text`: what it waits for; again whenever that changes */
	GPUMGR_LEASE_GRANTED = 2,
	GPUMGR_LEASE_REFUSED = 3, /* why is in gpumgr_last_error(); `text` has its words */
	/* `reason`: "wanted" (`by`, `breaks_in_ms`), "service_failed", "service_removed"; `text` */
	GPUMGR_LEASE_WARNING = 4,
	GPUMGR_LEASE_BROKE_OFF = 5, /* the connection ended, the lease is unsure; it is tried to be had back */
	GPUMGR_LEASE_REGAINED = 6, /* it was had back, nothing was lost */
	/* `reason`: "broken" "forced" "expired" "abandoned" "lock_lost" "unconfigured" "unreachable" ...; `text` */
	GPUMGR_LEASE_LOST = 7
};

struct gpumgr_lease_event {
	enum gpumgr_lease_event_kind kind;
	int64_t place; /* in the queue, from 1 */
	const char *text; /* a sentence, never NULL */
	const char *reason; /* NULL */
	const char *by; /* NULL */
	int64_t breaks_in_ms; /* GPUMGR_UNKNOWN: it will not be broken */
	const char *json; /* the daemon's own, NULL */
};

/*
 * Acquires a lease: waits in the daemon's queue, evicts and starts what is needed, and returns when it is granted.
 * GPUMGR_ERROR_WAIT_TIMEOUT (wait_ms passed), GPUMGR_ERROR_TIMED_OUT (timeout_ms passed: it has left the queue),
 * GPUMGR_ERROR_NO_FIT, GPUMGR_ERROR_REFUSED (by name: "would_deadlock", "start_failed", "lock_unavailable", ...).
 */
GPUMGR_API int gpumgr_acquire(
	struct gpumgr *g, const struct gpumgr_terms *terms, int64_t timeout_ms, struct gpumgr_lease **ret_lease);

/* The same without waiting: then gpumgr_lease_fd() and gpumgr_lease_next() until GRANTED or REFUSED. */
GPUMGR_API int gpumgr_acquire_begin(
	struct gpumgr *g, const struct gpumgr_terms *terms, struct gpumgr_lease **ret_lease);

/*
 * A descriptor that is readable (POLLIN, EPOLLIN) when gpumgr_lease_next(lease, 0, ...) has something to do. It stays
 * the same for the life of the lease, whatever becomes of its connection, and is the library's: only to be polled,
 * never read or closed. It may be readable without an event to come. Level-triggered.
 */
GPUMGR_API int gpumgr_lease_fd(const struct gpumgr_lease *lease);

/*
 * The next thing that happened. 1: `*ret_event` is it, good until the next call on the lease. 0: nothing within
 * timeout_ms (0: does not wait). GPUMGR_ERROR_ENDED: the lease is over. An attached lease wants this called when its
 * descriptor says so: that is how it is kept over a restart of the daemon.
 */
GPUMGR_API int gpumgr_lease_next(
	struct gpumgr_lease *lease, int64_t timeout_ms, const struct gpumgr_lease_event **ret_event);

/* Of a lease that was granted; good until it is freed. Before that: NULL, 0 or unknown. */
GPUMGR_API enum gpumgr_lease_state gpumgr_lease_state(const struct gpumgr_lease *lease);
GPUMGR_API const char *gpumgr_lease_id(const struct gpumgr_lease *lease);
/* The fencing number: grows with every grant, also over restarts of the daemon. */
GPUMGR_API uint64_t gpumgr_lease_fence(const struct gpumgr_lease *lease);
GPUMGR_API const char *const *gpumgr_lease_services(const struct gpumgr_lease *lease);
GPUMGR_API struct gpumgr_numbers gpumgr_lease_gpus(const struct gpumgr_lease *lease);
/* As many as there are GPUs, an unknown one is "". */
GPUMGR_API const char *const *gpumgr_lease_gpu_uuids(const struct gpumgr_lease *lease);
/*
 * For CUDA_VISIBLE_DEVICES: the UUIDs of its GPUs, or their indexes if one of them is not known; "" without GPUs.
 */
GPUMGR_API const char *gpumgr_lease_cuda_devices(const struct gpumgr_lease *lease);
/* How long a detached lease has left by our clock; GPUMGR_UNKNOWN for an attached one. */
GPUMGR_API int64_t gpumgr_lease_expires_in_ms(const struct gpumgr_lease *lease);
/* The daemon's answer to the acquisition. */
GPUMGR_API const char *gpumgr_lease_json(const struct gpumgr_lease *lease);

/*
 * The connection that an attached lease hangs on, -1: there is none just now. The lease lives as long as any process
 * has it open, so a child process that is to keep the lease should this process be killed may inherit it: clear
 * FD_CLOEXEC between fork() and exec(), in the child. Never to be read, written or closed. After a restart of the
 * daemon the lease has a new connection.
 */
GPUMGR_API int gpumgr_lease_connection(const struct gpumgr_lease *lease);

/* A detached lease: from now on for ttl_ms, -1: as long as at first. GPUMGR_ERROR_UNKNOWN: it is over. */
GPUMGR_API int gpumgr_lease_renew(struct gpumgr_lease *lease, int64_t ttl_ms, int64_t timeout_ms);

/*
 * Ends it, and returns when the daemon has confirmed that. The services go on running. GPUMGR_OK also when it was over
 * already. Whatever it returns, the lease is over for this process; it is still to be freed.
 */
GPUMGR_API int gpumgr_lease_release(struct gpumgr_lease *lease, int64_t timeout_ms);

/* Leaves the queue; ends an attached lease by closing its connection. A detached one goes on until its time is over. */
GPUMGR_API void gpumgr_lease_free(struct gpumgr_lease *lease);

/* All leases of the daemon; the list ends with NULL. */
GPUMGR_API int gpumgr_list_leases(
	struct gpumgr *g, int64_t timeout_ms, const struct gpumgr_lease_info *const **ret_leases);
GPUMGR_API void gpumgr_lease_list_free(const struct gpumgr_lease_info *const *leases);

/* Any lease by its id, whoever holds it. `fence` other than 0: only if it has this one. */
GPUMGR_API int gpumgr_renew(struct gpumgr *g, const char *id, uint64_t fence, int64_t ttl_ms, int64_t timeout_ms);
GPUMGR_API int gpumgr_release(struct gpumgr *g, const char *id, uint64_t fence, int64_t timeout_ms);
/* Ends all leases by force; without one, takes the lock that hosts share from another host. `ret_broken` (may be NULL):
 * what they were; gpumgr_lease_list_free(). */
GPUMGR_API int gpumgr_unlock(struct gpumgr *g, int64_t timeout_ms, const struct gpumgr_lease_info *const **ret_broken);

/* ---- events ---------------------------------------------------------------------------------------------------- */

struct gpumgr_events;

struct gpumgr_event {
	int64_t id; /* only grows, also over restarts */
	const char *time; /* RFC 3339, UTC */
	const char *type; /* "service.state", "lease", ...; "reset": events were missed, ask for the status */
	const char *subject;
	const char *text; /* a sentence */
	int64_t transition;
	const char *json; /* the whole event */
};

/*
 * `after` is the id of the last event seen, 0 for all that are kept, -1 for what happens from now on. Returns when the
 * daemon has begun to tell: nothing that happens later is missed.
 */
GPUMGR_API int gpumgr_events_open(
	struct gpumgr *g, int64_t after, int64_t timeout_ms, struct gpumgr_events **ret_events);
/* As gpumgr_lease_fd(). */
GPUMGR_API int gpumgr_events_fd(const struct gpumgr_events *events);
/* As gpumgr_lease_next(). GPUMGR_ERROR_ENDED, _BROKEN: the daemon went away; open again after the last id. */
GPUMGR_API int gpumgr_events_next(
	struct gpumgr_events *events, int64_t timeout_ms, const struct gpumgr_event **ret_event);
GPUMGR_API void gpumgr_events_free(struct gpumgr_events *events);

/* ---- any route --------------------------------------------------------------------------------------------------- */

/*
 * The HTTP API itself (docs/http-api.md), for what has no function here. `body` is JSON or NULL. GPUMGR_OK is any
 * answer, whatever its status.
 */
struct gpumgr_answer {
	int status;
	const char *type; /* the Content-Type without parameters, "" without one */
	const char *body; /* with a 0 behind its end */
	size_t length;
};

GPUMGR_API int gpumgr_ask(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct gpumgr_answer **ret_answer);
GPUMGR_API void gpumgr_answer_free(struct gpumgr_answer *answer);

/*
 * An answer that comes bit by bit: server-sent events, or text (logs). `last_event_id` may be NULL. Returns at once;
 * nothing was connected to yet.
 */
struct gpumgr_stream;

enum gpumgr_part_kind {
	GPUMGR_PART_OPEN = 1, /* the daemon has begun to answer, with a stream; always the first */
	GPUMGR_PART_EVENT = 2, /* `type`, `id` and `data` of an event */
	GPUMGR_PART_BYTES = 3, /* `data`: a piece of text, cut anywhere */
	GPUMGR_PART_ANSWER = 4, /* it was no stream: `answer` is the whole, of any status; then it is over */
	GPUMGR_PART_END = 5 /* it ended properly */
};

struct gpumgr_part {
	enum gpumgr_part_kind kind;
	const char *type;
	const char *id;
	const char *data; /* with a 0 behind its end */
	size_t length;
	const struct gpumgr_answer *answer;
};

GPUMGR_API int gpumgr_stream_open(struct gpumgr *g, const char *method, const char *path, const char *body,
	const char *last_event_id, struct gpumgr_stream **ret_stream);
GPUMGR_API int gpumgr_stream_fd(const struct gpumgr_stream *stream);
/* 1: `*ret_part`, good until the next call. 0: nothing within timeout_ms. GPUMGR_ERROR_ENDED after END or ANSWER. */
GPUMGR_API int gpumgr_stream_next(
	struct gpumgr_stream *stream, int64_t timeout_ms, const struct gpumgr_part **ret_part);
/* Closing a stream withdraws what it asked for, if that had not begun. */
GPUMGR_API void gpumgr_stream_free(struct gpumgr_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
