/*
 * What survives a restart of the daemon: one SQLite database in the state folder, in WAL mode, and a journal beside it.
 * While it is open no other program can read it.
 *
 * A put or a forget that has returned survives a killed process (kill -9), and some seconds later a power failure; a
 * block of fences survives both when the call returns.
 *
 * Calls come from the loop's thread and take a microsecond or two, but for state_reserve_fences(), which waits for the
 * disk. So does the loop when half of the journal's 1 MiB is used, some 2000 leases, and no block of fences came along:
 * it is moved into the database as soon as nothing was written for 20 ms, or when three quarters are used. And once
 * more when the database's own log has grown by 4 MiB.
 *
 * Services are named, not numbered: the configuration may be another one after the restart.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "core/lease.h"

#define STATE_SECRET_SIZE 33 /* 32 hexadecimal digits and the ending 0 */

struct state;

/* A lease as it is kept. Everything is borrowed: by the call, or from it. */
struct state_lease {
	uint64_t fence;
	enum lease_mode mode;
	size_t n_services;
	const char *const *services;
	int phase; /* its number, 0: none */
	gpu_set gpus;
	uint32_t room_mib;
	uint32_t room_base_mib; /* GPU_MIB_UNKNOWN: not known, as of all that an older gpumgrd wrote */
	int priority;
	bool attached;
	uint64_t ttl_ms;
	uint64_t boot; /* whose times the next two are: CLOCK_BOOTTIME's of that boot; 0: the time of day */
	int64_t granted_ms;
	int64_t expires_ms; /* INT64_MAX: not by time */
	const char *owner;
	const char *request_id;
	const char *secret; /* "" when it is not attached */
};

/*
 * Opens or makes `path`. A file that is no database, or a damaged one, is moved aside, which the log tells even when
 * the rest fails, and a new one is begun. `*ret_moved`: its new name, which the caller frees, else NULL; where nobody
 * wants to know, `ret_moved` is NULL.
 *
 * The fences of a new database begin above `fence_floor`, and above all that its lock file or the damaged file still
 * tell. Hand in microseconds since the epoch: fences grow slower than that, so they grow even when everything was
 * lost, and stay below 2^53 until 2255. -ERANGE: not below 2^52, a clock that is wrong.
 *
 * -EAGAIN: another process has it, be it a sqlite3 shell that only reads. -EPROTO: a newer layout than this program
 * knows; older ones are brought up to date. -EINVAL: a database of another program, or not a regular file. Else what
 * the system said. What is only unreadable now (a full disk, a read-only folder) is never moved aside.
 */
int state_open(uv_loop_t *loop, const char *path, uint64_t fence_floor, struct state **ret_state, char **ret_moved,
	struct error *err);
/* Writes what is left and waits for the disk. The loop must still run once to close the handles, also after a failure.
 */
struct state *state_close(struct state *state);

/* `*ret_first` to `*ret_first + count - 1` have never been given and never will be again. Durable (synchronous=FULL).
 */
int state_reserve_fences(struct state *state, uint64_t count, uint64_t *ret_first, struct error *err);
/* The first one of the next block: above all that were given. */
uint64_t state_next_fence(const struct state *state);

/*
 * Makes it, or brings it up to date (the same fence). -ENOSPC and others name the file and the remedy; the next call
 * may work again. -EINVAL: values that no lease has (a fence beyond 2^53, a service without a name).
 */
int state_put_lease(struct state *state, const struct state_lease *lease, struct error *err);
/*
 * From now on state_each_lease() does not tell it, whatever comes back. There is always memory for that.
 *
 * When that can be written neither into the journal nor into the database, a line in the log says so, it is tried again
 * twice a second, and until it works each call returns what went wrong: a kill -9 before that brings the lease back.
 */
int state_forget_lease(struct state *state, uint64_t fence, struct error *err);
/* In the order of their fences. `handle` must not call into the state. */
int state_each_lease(struct state *state, void (*handle)(void *context, const struct state_lease *lease), void *context,
	struct error *err);
