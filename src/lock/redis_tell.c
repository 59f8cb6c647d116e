/*
 * What is told to the listener and written to the file lock.redis, and giving up what was held. The listener may come
 * back with another wish from inside each of these calls. Asks nobody anything.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "lock/redis_lock.h"

static const enum lock_news news_of[] = {
	[TOLD_HELD] = LOCK_HELD,
	[TOLD_YIELDING] = LOCK_YIELDING,
	[TOLD_LOST] = LOCK_LOST,
	[TOLD_FOREIGN] = LOCK_FOREIGN,
	[TOLD_UNAVAILABLE] = LOCK_UNAVAILABLE,
};

void redis_lock_tell(struct redis_lock *lock, enum redis_told told, const char *text)
{
	if (!lock->wanted || (lock->told == told && strcmp(lock->told_text, text) == 0))
		return;
	lock->told = told;
	lock->wish_until = told == TOLD_LOST ? clock_boot_ms() + REDIS_WISH_MS : 0; /* it is tried for anew */
	snprintf(lock->told_text, sizeof(lock->told_text), "%s", text);
	lock->listener.handle_news(lock->listener.context, news_of[told], lock->told_text);
}

/* The listener may give the lock back while it is told of a fence. */
void redis_lock_answer_wishes(struct redis_lock *lock, size_t n, uint64_t first_fence)
{
	for (size_t i = 0; i < n && lock->wishes.n > 0 && lock->hold == HOLD_OURS; i++) {
		uint64_t request = redis_wishes_take(&lock->wishes).request;
		lock->listener.handle_fence(lock->listener.context, request, first_fence + i);
	}
}

void redis_lock_refuse_wishes(struct redis_lock *lock, size_t n, const char *text)
{
	for (size_t i = 0; i < n && lock->wishes.n > 0; i++) {
		uint64_t request = redis_wishes_take(&lock->wishes).request;
		lock->listener.handle_no_fence(lock->listener.context, request, text);
	}
}

bool redis_lock_is_held(const struct redis_lock *lock)
{
	return lock->hold == HOLD_OURS && lock->is_confirmed;
}

/* ---- the file ---- */

bool redis_lock_write(struct redis_lock *lock, struct error *err)
{
	int r = redis_record_write(&lock->record, err);
	if (r < 0)
		error_prefix(err, r, "lock: ");
	return r == 0;
}

void redis_lock_note_belief(struct redis_lock *lock)
{
	struct error err;
	bool is_other_server = strcmp(lock->record.server, lock->met_server) != 0;
	if (!is_other_server && lock->record.believed_until + lock->ttl_ms / 4 >= lock->believed_until)
		return;
	lock->record.believed_until = lock->believed_until;
	snprintf(lock->record.server, sizeof(lock->record.server), "%s", lock->met_server);
	if (!redis_lock_write(lock, &err)) /* after a restart the leases would end sooner than they need to: no harm */
		log_warning("%s", err.message);
}

bool redis_lock_note_fence(struct redis_lock *lock, uint64_t fence, struct error *err)
{
	int r = redis_record_note_fence(&lock->record, fence, err);
	if (r < 0)
		error_prefix(err, r, "lock: ");
	return r == 0;
}

void redis_lock_doom(struct redis_lock *lock)
{
	struct error err;
	lock->hold = HOLD_DOOMED;
	lock->spare_fence = 0;
	lock->must_restore = false;
	if (lock->record.believed_until == 0)
		return;
	lock->record.believed_until = 0;
	if (redis_lock_write(lock, &err))
		return;
	log_warning("%s", err.message);
	redis_record_remove(&lock->record); /* there is room for that even on a full disk */
}

void redis_lock_lose(struct redis_lock *lock, enum redis_hold hold, const char *text)
{
	bool was_ours = lock->hold == HOLD_OURS;
	redis_lock_doom(lock);
	if (hold == HOLD_NONE) {
		lock->hold = HOLD_NONE;
		lock->record.value[0] = '\0';
	}
	lock->n_sent = 0;
	lock->acquire_at = 0;
	lock->wanted_since = clock_boot_ms();
	if (was_ours && lock->wanted) {
		redis_lock_tell(lock, TOLD_LOST, text);
		redis_lock_refuse_wishes(lock, lock->wishes.n, text);
	}
}
