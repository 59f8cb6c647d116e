/*
 * Fences for this host alone, out of blocks that the state store reserves. Waits for the disk only when a block is
 * reserved, which happens from the loop, when nobody asks where there is such a moment.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "lock/lock.h"

#define BLOCK 1000 /* so many are skipped by a restart at most, and ids of leases stay short */
#define BLOCK_MAX 64000
#define FAST_MS 10000 /* a block that was used up faster than this is followed by one of twice its size */
#define QUIET_MS 20 /* without a wish for a fence: whoever asks next has some time before it */
#define RETRY_MS 500

struct local_lock {
	struct lock base;
	struct state *state;
	struct lock_listener listener;
	uv_timer_t timer; /* reserves soon, or again after a failure */
	uint64_t next, end; /* of the block in use */
	uint64_t spare_first, spare_end; /* the one after it; empty: not reserved yet */
	uint64_t block; /* size of the next one */
	uint64_t reserved_ms; /* when the last one was */
	bool has_failed; /* until it works again nobody waits for a disk that fails */
	struct error why;
};

static int reserve(struct local_lock *lock)
{
	uint64_t first, now_ms = uv_now(lock->timer.loop);
	int r = state_reserve_fences(lock->state, lock->block, &first, &lock->why);
	lock->has_failed = r < 0;
	if (r < 0)
		return r;
	lock->spare_first = first;
	lock->spare_end = first + lock->block;
	if (now_ms - lock->reserved_ms < FAST_MS && lock->reserved_ms != 0 && lock->block < BLOCK_MAX)
		lock->block *= 2;
	else if (now_ms - lock->reserved_ms >= FAST_MS)
		lock->block = BLOCK;
	lock->reserved_ms = now_ms;
	return 0;
}

static bool has_spare(const struct local_lock *lock)
{
	return lock->spare_first != lock->spare_end;
}

static void handle_timer(uv_timer_t *timer)
{
	struct local_lock *lock = timer->data;
	if (!has_spare(lock) && reserve(lock) < 0)
		uv_timer_start(timer, handle_timer, RETRY_MS, 0);
}

/* The block in use is the spare one from now on. */
static void begin_spare(struct local_lock *lock)
{
	lock->next = lock->spare_first;
	lock->end = lock->spare_end;
	lock->spare_first = lock->spare_end = 0;
}

/*
 * The rest of a block is enough for whoever asks until a quiet moment has come, or for a while with a full disk. When
 * there is none, the next turn of the loop has to do.
 */
static void plan_next_block(struct local_lock *lock)
{
	uint64_t left = lock->end - lock->next;
	if (has_spare(lock) || left > BLOCK / 2)
		return;
	if (!lock->has_failed)
		uv_timer_start(&lock->timer, handle_timer, left > BLOCK / 4 ? QUIET_MS : 0, 0);
	else if (!uv_is_active((uv_handle_t *)&lock->timer))
		uv_timer_start(&lock->timer, handle_timer, RETRY_MS, 0);
}

static void local_want_fence(struct lock *base, uint64_t request)
{
	struct local_lock *lock = (struct local_lock *)base;
	if (lock->next == lock->end && !has_spare(lock) && !lock->has_failed)
		reserve(lock);
	if (lock->next == lock->end && has_spare(lock))
		begin_spare(lock);
	plan_next_block(lock);
	if (lock->next == lock->end)
		lock->listener.handle_no_fence(lock->listener.context, request, lock->why.message);
	else
		lock->listener.handle_fence(lock->listener.context, request, lock->next++);
}

static int local_create(uv_loop_t *loop, const struct lock_config *config, const char *state_dir, struct state *state,
	const struct lock_listener *listener, struct lock **ret_lock, struct error *err)
{
	(void)config;
	(void)state_dir;
	CLEANUP_FREE struct local_lock *lock = calloc(1, sizeof(*lock));
	if (lock == NULL)
		return error_set(err, -ENOMEM, "lock: there is no memory");
	lock->base.ops = &local_lock;
	lock->state = state;
	lock->listener = *listener;
	lock->block = BLOCK;
	uv_timer_init(loop, &lock->timer);
	uv_unref((uv_handle_t *)&lock->timer);
	lock->timer.data = lock;
	/* A disk that is full now may have room when the first lease is asked for: then the timer has tried again. */
	if (reserve(lock) < 0)
		uv_timer_start(&lock->timer, handle_timer, RETRY_MS, 0);
	*ret_lock = &lock->base;
	lock = NULL;
	return 0;
}

static void handle_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void local_destroy(struct lock *base)
{
	struct local_lock *lock = (struct local_lock *)base;
	uv_close((uv_handle_t *)&lock->timer, handle_closed);
}

const struct lock_ops local_lock = {
	.name = "local",
	.create = local_create,
	.destroy = local_destroy,
	.want_fence = local_want_fence,
};
