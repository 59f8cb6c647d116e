/*
 * Services: what is declared of one, its states, and which event leads from which state to which.
 *
 * A service begins `unknown`: nobody has looked yet. Looking makes it `stopped`, `ready` (it answers: it is
 * adopted) or `starting` (its processes exist, it does not answer yet). Who looks and cannot see (a container's
 * engine is away) leaves it, or makes what was `stopped`, `unknown`; that keeps nobody from anything, and a
 * start may be tried. A start makes it `starting`, the first good health check `ready`, a lease or its busy
 * probe `busy`. `asleep` is alive with its memory given back. Any way out that we take goes through `stopping`,
 * which ends when the whole process group is gone: in `stopped` when that was wanted, in `error` when it was
 * not. What ends by itself is in `error`, what somebody else ended on purpose is `stopped`. A service in `error`
 * may still be alive (unhealthy, paused by somebody, deaf to signals, or found running and never answering: what
 * we did not start we do not kill for that) and then still holds memory; it is ready again when a health check
 * passes.
 *
 * Whether a service is *live* is not its state: it is live while any process of it exists or its memory is not
 * back yet.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/units.h"
#include "core/gpu.h"

enum service_state {
	SERVICE_UNKNOWN,
	SERVICE_STOPPED,
	SERVICE_STARTING,
	SERVICE_READY,
	SERVICE_BUSY,
	SERVICE_ASLEEP,
	SERVICE_STOPPING,
	SERVICE_ERROR,
	SERVICE_STATE_COUNT,
};

enum service_event {
	SERVICE_FOUND_ABSENT, /* looked: no process of it */
	SERVICE_FOUND_ALIVE, /* looked: processes, but it does not answer */
	SERVICE_FOUND_HEALTHY, /* looked: it answers */
	SERVICE_LOOKED_IN_VAIN, /* looked: nobody can tell */
	SERVICE_START, /* we start it */
	SERVICE_HEALTHY, /* a health check passed */
	SERVICE_UNHEALTHY, /* as many in a row failed as are allowed to */
	SERVICE_STOP, /* we stop it, for whatever reason */
	SERVICE_STOP_REFUSED, /* the driver cannot stop it: nothing was signalled */
	SERVICE_STOP_FAILED, /* it outlived the kill */
	SERVICE_ENDED, /* the whole group is gone, as wanted, by us or by somebody else */
	SERVICE_DIED, /* the whole group is gone, and nobody wanted that */
	SERVICE_USE, /* first lease, or its busy probe says so */
	SERVICE_UNUSE, /* last lease gone, and not busy */
	SERVICE_SLEPT, /* gave its memory back, stays alive */
	SERVICE_WAKE, /* takes its memory again */
	SERVICE_EVENT_COUNT,
};

/* The state that follows, or -1 where the event means nothing in that state (the caller drops it). */
int service_next_state(enum service_state state, enum service_event event);

const char *service_state_name(enum service_state state);
const char *service_event_name(enum service_event event);

#define NEVER_MS INT64_MAX

#define PRIORITY_DEFAULT 50 /* of a service that names none, and of leased room */

/* Declared once, by the configuration; borrowed by core. */
struct service_definition {
	const char *name;
	struct size_value vram; /* on each of its GPUs */
	int priority; /* higher is more important */
	gpu_set allowed; /* GPU_SET_ALL is `any` */
	unsigned gpu_count;
	bool pinned;
	bool yield_set; /* yield_after was written; else: 60 s once it was leased, never before */
	int64_t yield_after_ms; /* NEVER_MS: never */
	int64_t preempt_after_ms; /* NEVER_MS: never */
	unsigned max_leases;
	uint64_t start_timeout_ms; /* from the start to the first good health check */
	uint64_t stop_timeout_ms; /* from the stop signal to the kill */
	uint64_t health_interval_ms;
	unsigned health_retries;
	bool has_busy_probe;
	bool stop_external; /* what somebody else started is stopped, not adopted */
	bool stop_on_exit; /* stopped when the daemon is told to end */
	bool is_retired; /* not configured any more: nobody gets it, and it is stopped once it is idle */
	bool is_changed; /* in engine_reconfigure(): how it is run is another than before */
};

struct phase_definition {
	int number; /* positive */
	const char *name; /* may be NULL */
	const size_t *services;
	size_t n_services;
	bool is_retired; /* not configured any more */
};
