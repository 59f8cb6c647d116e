/*
 * The lock that several hosts share, as plain facts: what becomes of it, and what is known of it. Leases begin only
 * while it is held (locking.c); lock/ takes it and gives it back.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * What becomes of the lock that several hosts share, once it is wanted (EFFECT_LOCK). The first word, HELD, FOREIGN or
 * UNAVAILABLE, comes within seconds whatever its server does; from then on comes what changes. Nothing is said while it
 * is not wanted.
 */
enum lock_news {
	LOCK_HELD, /* leases may be granted, until something else is said */
	LOCK_YIELDING, /* still held, but another host waits for its turn: no new leases, so that it can be given back
			*/
	LOCK_LOST, /* it was held, or it was before a restart: every lease is void; it is tried for anew */
	LOCK_FOREIGN, /* somebody else has it */
	LOCK_UNAVAILABLE, /* its server cannot be asked */
};

/* For people and for the status page. */
enum lock_state {
	LOCK_STATE_LOCAL, /* this host alone: nothing else is set */
	LOCK_STATE_UNKNOWN, /* not asked yet */
	LOCK_STATE_FREE,
	LOCK_STATE_OURS,
	LOCK_STATE_FOREIGN,
	LOCK_STATE_UNAVAILABLE,
};

#define LOCK_HOLDER_MAX 200

struct lock_status {
	enum lock_state state;
	const char *key; /* borrowed; NULL when local */
	char holder[LOCK_HOLDER_MAX + 1]; /* FOREIGN: the key's value, made printable. OURS: our own */
	int64_t holder_ttl_ms; /* FOREIGN, as of now; -1: it has none */
	size_t n_waiting; /* other daemons that wait for it, as last seen */
	char problem[256]; /* UNAVAILABLE: why, and the remedy */
};

/* "free", "foreign", ... */
const char *lock_state_name(enum lock_state state);
