/*
 * The lock behind `backend: redis`: what its parts share. redis.c decides what is asked next;
 * redis_answers.c takes what the script answered; redis_tell.c tells the listener and keeps the record.
 *
 * All times are clock_boot_ms(): a machine that slept does not hold what it held.
 */
#pragma once

#include "lock/lock.h"
#include "lock/redis_record.h"
#include "lock/redis_session.h"
#include "lock/redis_wishes.h"

/*
 * What may stand in the key by our hand. The value is fixed from before it is tried to be set until it is known to be
 * gone, so when the key holds it, nobody else held the lock in between.
 */
enum redis_hold {
	HOLD_NONE,
	HOLD_TRIED, /* it may have been set */
	HOLD_OURS, /* ours until believed_until */
	HOLD_DOOMED, /* given up: it must be deleted before anything else */
};

enum redis_task {
	TASK_NONE,
	TASK_FORCE,
	TASK_RELEASE, /* also: leave the line of those who wait */
	TASK_RENEW,
	TASK_RESTORE,
	TASK_ACQUIRE,
	TASK_LOOK,
};

/* What was told since the lock is wanted. */
enum redis_told { TOLD_NOTHING, TOLD_HELD, TOLD_YIELDING, TOLD_LOST, TOLD_FOREIGN, TOLD_UNAVAILABLE };

struct redis_force {
	struct redis_force *next;
	lock_forced_fn *handle;
	void *context;
	uint64_t until;
};

struct redis_lock {
	struct lock base;
	uv_loop_t *loop;
	struct lock_listener listener;
	struct state *state;
	struct redis_session *session;
	struct redis_record record;
	uv_timer_t timer; /* what comes next, see plan_next() */
	char *key;
	char host[65];
	char me[REDIS_VALUE_MAX + 1]; /* among those who wait */
	bool is_host_in_key, has_warned;
	uint64_t ttl_ms;

	/* What is wanted of us. */
	bool wanted;
	bool is_new; /* want() was not called yet */
	bool must_tell_lost; /* leases of before the restart rely on what is not known to be ours */
	char service[64];
	uint64_t wish_until; /* by then something must have been told; 0: it was */
	uint64_t wanted_since;
	enum redis_told told;
	char told_text[REDIS_TEXT_MAX + 1];
	struct redis_wishes wishes; /* for fences */
	size_t n_sent; /* so many of them are on their way */
	struct redis_force *forces;

	/* What we have. */
	enum redis_hold hold;
	bool is_confirmed; /* HOLD_OURS: by an answer to this process */
	bool must_restore; /* the server lost the key together with its memory */
	uint64_t believed_until;
	uint64_t held_since; /* begin of the tenure */
	uint64_t highest_fence; /* that is known, whoever was given it */
	uint64_t spare_fence; /* came along with the lock; 0: none */
	bool is_in_line;
	char last_value[REDIS_VALUE_MAX + 1]; /* given back; an attempt to set it may still lie in a hung server */

	/* What comes when. */
	enum redis_task task; /* runs now */
	uint64_t sent_at; /* it */
	bool has_heard; /* a word came while the job was under way, whose answer may be of before it */
	uint64_t renew_at, acquire_at, look_at;
	uint64_t retry_at; /* nothing before that: the server refused something */
	uint64_t quiet_until; /* nobody takes the lock before that: see meet_server() */
	const char *quiet_reason;
	bool is_new_server; /* and it was not seen yet what became of our key there */
	char met_server[REDIS_SERVER_MAX + 1];

	/* What was seen last. */
	enum lock_state seen;
	uint64_t seen_at;
	char holder[LOCK_HOLDER_MAX + 1];
	char digest[41];
	int64_t holder_ttl_ms;
	size_t n_waiting;
	char problem[REDIS_TEXT_MAX + 1];
	bool was_unavailable; /* and the log says so */
};

#define REDIS_WISH_MS 2000 /* every wish is answered by then */

/* ---- redis_tell.c ---- */

/* It is ours, and this process knows it from the server; not only from what it found on record. */
bool redis_lock_is_held(const struct redis_lock *lock);
void redis_lock_tell(struct redis_lock *lock, enum redis_told told, const char *text);
/* It is given up: after a restart it must not be taken for ours. */
void redis_lock_doom(struct redis_lock *lock);
/* It was believed to be ours, and is not, or not any more: everything is void. */
void redis_lock_lose(struct redis_lock *lock, enum redis_hold hold, const char *text);
/* False: the text says why. */
bool redis_lock_write(struct redis_lock *lock, struct error *err);
/* Brings the file up to date when it lags behind by so much that it matters. */
void redis_lock_note_belief(struct redis_lock *lock);
/* Notes that a fence was given. False: that could not be written; the text says why. */
bool redis_lock_note_fence(struct redis_lock *lock, uint64_t fence, struct error *err);
void redis_lock_answer_wishes(struct redis_lock *lock, size_t n, uint64_t first_fence);
void redis_lock_refuse_wishes(struct redis_lock *lock, size_t n, const char *text);

/* ---- redis_answers.c ---- */

/* False: it makes no sense. */
bool redis_lock_take_answer(struct redis_lock *lock, enum redis_task task, const redisReply *reply);
