/*
 * Leases: a client's right to use services, or room on a GPU, without being evicted.
 *
 * A lease request waits in the one queue. When its turn comes its plan is carried out (evictions, starts, health), and
 * from that moment on the lease exists as a *claim*: nobody else gets what it names. Then it gets its fence and is
 * *held*. It ends by release, by the end of its connection (attached), by its time (not attached), because it was
 * broken for somebody entitled (preempt_after) or by force. Whatever way it ends, its services go on running.
 *
 * The fence of a grant is larger than that of every grant before it, also before a restart; it is the lease's id, too.
 *
 * Who excludes whom, where two leases meet:
 *
 *   on the same service   exclusive excludes everybody; shared leases go together, `max_leases` of them
 *   on the same GPU       gpu excludes everybody, on every GPU that its services stand on; the others go together
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gpu.h"

enum lease_mode {
	LEASE_EXCLUSIVE, /* sole user of its services; others may use what fits beside */
	LEASE_SHARED, /* one of several users of its services */
	LEASE_GPU, /* sole holder of the GPUs that its services stand on; residents without a lease stay */
};

#define LEASE_OWNER_MAX 200 /* bytes */
#define LEASE_REQUEST_ID_MAX 128 /* bytes */
#define LEASE_HOLDING_MAX 256
#define LEASE_GONE_MAX 127 /* bytes */
#define LEASE_TTL_MAX_MS (7ull * 24 * 3600 * 1000)
#define LEASE_WAIT_MAX_MS LEASE_TTL_MAX_MS /* for its turn: what may be asked for */
#define LEASE_NO_PHASE SIZE_MAX

/* What a client asks for. Everything is borrowed for the call that hands it in. */
struct lease_terms {
	enum lease_mode mode;
	size_t n_services;
	const size_t *services; /* indexes, without repetition */
	size_t phase; /* whose set `services` is, for words only; or LEASE_NO_PHASE */
	uint32_t room_mib; /* instead of services: for the client's own process, on one GPU; else 0 */
	bool attached; /* lives as long as its connection */
	uint64_t ttl_ms; /* not attached: 1 to LEASE_TTL_MAX_MS */
	bool has_priority; /* else the highest of its services, PRIORITY_DEFAULT for room */
	int priority;
	const char *owner; /* printable UTF-8, at most LEASE_OWNER_MAX bytes */
	const char *request_id; /* "": none. The same again means the same lease */
	size_t n_holding;
	const uint64_t *holding; /* fences of the leases that its client holds */
};

enum lease_end {
	LEASE_RELEASED,
	LEASE_DETACHED, /* its connection closed */
	LEASE_EXPIRED,
	LEASE_BROKEN, /* for somebody entitled, after preempt_after */
	LEASE_FORCED, /* a forced stop, or all leases were ended by force */
	LEASE_ABANDONED, /* attached before a restart of the daemon, and its holder did not come back */
	LEASE_LOCK_LOST, /* the lock across hosts was lost: somebody else may be granted the same */
	LEASE_UNCLAIMED, /* everybody who had asked for it went away before it was granted */
	LEASE_UNCONFIGURED, /* after a restart none of its services was configured any more */
};

/* A lease that is held; borrowed from the engine until its next event. */
struct lease {
	uint64_t fence; /* its id, too; 0 as long as it is a claim */
	enum lease_mode mode;
	size_t n_services;
	size_t *services;
	size_t phase; /* or LEASE_NO_PHASE */
	gpu_set gpus; /* where its services, or its room, stand */
	uint32_t room_mib;
	uint32_t room_base_mib; /* what was foreign there before it was leased; GPU_MIB_UNKNOWN: nobody could tell */
	int priority;
	bool attached;
	uint64_t ttl_ms;
	uint64_t granted_ms;
	uint64_t expires_ms; /* UINT64_MAX: not by time */
	bool awaits_holder; /* attached before a restart; `expires_ms` is until when its holder may come back */
	char gone[LEASE_GONE_MAX + 1]; /* restored: what of it is not configured any more, for words; "": nothing */
	/* Somebody waits for it. */
	bool is_wanted;
	uint64_t wanted_ms; /* since when */
	uint64_t breaks_ms; /* when it may be broken for them; UINT64_MAX: never */
	char wanted_by[96]; /* "phase 4 (video)" */
	enum lease_end end; /* in LEASE_NEWS_ENDED */
	char owner[LEASE_OWNER_MAX + 1];
	char request_id[LEASE_REQUEST_ID_MAX + 1];
};

/* What became of a lease, in an effect. */
enum lease_news {
	LEASE_NEWS_GRANTED, /* comes before the answer to whoever asked: store it first */
	LEASE_NEWS_RENEWED, /* its time begins anew, or its holder came back after a restart */
	/* For who keeps it, and nobody else: it has other GPUs now, or what was foreign on its own has become known. */
	LEASE_NEWS_MOVED,
	LEASE_NEWS_WANTED, /* its holder is to be warned, once for each time that somebody begins to wait */
	LEASE_NEWS_SERVICE_FAILED, /* a service of it ended or is unhealthy; the lease goes on */
	LEASE_NEWS_SERVICES_GONE, /* its holder came back, and some of it is not configured any more; the text names it
				   */
	LEASE_NEWS_ENDED, /* see `end` */
};

const char *lease_mode_name(enum lease_mode mode);
/* "released", "expired", ... */
const char *lease_end_name(enum lease_end end);
