/* The table of lock backends. Knows none but by it. */
#include "lock/lock.h"

#include <errno.h>

#include "base/cleanup.h"

static const struct lock_ops *const backends[] = {
	[LOCK_BACKEND_LOCAL] = &local_lock,
	[LOCK_BACKEND_REDIS] = &redis_lock,
};

/* How the configuration writes them. */
static const char *const names[] = {
	[LOCK_BACKEND_LOCAL] = "local",
	[LOCK_BACKEND_REDIS] = "redis",
};

int lock_create(uv_loop_t *loop, const struct lock_config *config, const char *state_dir, struct state *state,
	const struct lock_listener *listener, struct lock **ret_lock, struct error *err)
{
	size_t backend = (size_t)config->backend;
	if (backend >= ARRAY_SIZE(backends) || backends[backend] == NULL)
		return error_set(err, -ENOTSUP,
			"lock.backend: %s is not part of this version of gpumgr yet; leave lock out, or write backend: "
			"local, which guards this host alone",
			backend < ARRAY_SIZE(names) ? names[backend] : "this backend");
	return backends[backend]->create(loop, config, state_dir, state, listener, ret_lock, err);
}

struct lock *lock_destroy(struct lock *lock)
{
	if (lock != NULL)
		lock->ops->destroy(lock);
	return NULL;
}

void lock_describe(const struct lock *lock, struct lock_status *ret_status)
{
	*ret_status = (struct lock_status){ .state = LOCK_STATE_LOCAL };
	if (lock->ops->describe != NULL)
		lock->ops->describe(lock, ret_status);
}
