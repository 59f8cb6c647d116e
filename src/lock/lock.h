/*
 * The lock behind the leases: where fences come from and, across hosts, whether this daemon may hold leases at all.
 * One file a backend, each with one `const struct lock_ops`, all listed in lock.c.
 *
 * `local`: this host only; fences from blocks that the state store reserves. There is nothing to hold: `want` is NULL.
 * `redis`: a key in a Redis server, which the daemon holds as long as it holds any lease.
 *
 * All of it runs on the loop's thread and never blocks it, but for `local` when it reserves a block of fences: that
 * waits for the disk. The listener is called from the loop, or from inside want_fence(); never from create() or
 * destroy().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "config/config.h"
#include "core/lock.h"
#include "state/state.h"

struct lock_listener {
	void *context;
	/* A fence for that request, larger than every one before. May come from inside the call. */
	void (*handle_fence)(void *context, uint64_t request, uint64_t fence);
	/* There is none to be had; `text` names the part that is down and the remedy. */
	void (*handle_no_fence)(void *context, uint64_t request, const char *text);
	/*
	 * Every want(true) is followed, within a few seconds whatever the server does, by HELD, FOREIGN or UNAVAILABLE,
	 * and from then on by what changes; nothing follows want(false). FOREIGN: `text` says who; UNAVAILABLE: why,
	 * with the remedy; both are told again when that changes. `text` is good for the call; "": nothing to say.
	 */
	void (*handle_news)(void *context, enum lock_news news, const char *text);
};

struct lock {
	const struct lock_ops *ops;
};

/* The lock was taken from whoever held it (`holder`), or it was not (`holder` is "": nobody else had it; or `problem`
 * is not ""). */
typedef void lock_forced_fn(void *context, bool is_released, const char *holder, const char *problem);

struct lock_ops {
	const char *name;
	/* `state_dir`: for what a backend keeps over a restart. Borrowed for the call, as `config` is. */
	int (*create)(uv_loop_t *loop, const struct lock_config *config, const char *state_dir, struct state *state,
		const struct lock_listener *listener, struct lock **ret_lock, struct error *err);
	/* What is held stays held: the same daemon takes it up again after a restart. Handles close in the loop. */
	void (*destroy)(struct lock *lock);
	/*
	 * From now on the lock is wanted, or not. `service`: for whom, for people; NULL: nobody in particular. Also
	 * said once after a start, when leases of before may depend on what was held then. NULL: leases need no lock.
	 */
	void (*want)(struct lock *lock, bool wanted, const char *service);
	/* Only while it is held. */
	void (*want_fence)(struct lock *lock, uint64_t request);
	/* Takes it away from a holder that is not us. `handle` is called once, from the loop, unless destroy() comes
	 * first or -ENOMEM is returned. NULL: there is none. */
	int (*force)(struct lock *lock, lock_forced_fn *handle, void *context);
	/* NULL: local. */
	void (*describe)(const struct lock *lock, struct lock_status *ret_status);
};

extern const struct lock_ops local_lock;
extern const struct lock_ops redis_lock;

/* Picks the ops by config->backend. -ENOTSUP with a message for those that are not built in. */
int lock_create(uv_loop_t *loop, const struct lock_config *config, const char *state_dir, struct state *state,
	const struct lock_listener *listener, struct lock **ret_lock, struct error *err);
struct lock *lock_destroy(struct lock *lock);
void lock_describe(const struct lock *lock, struct lock_status *ret_status);
