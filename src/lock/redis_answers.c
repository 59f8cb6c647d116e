/* What the script answered, and what follows from it. Sends nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "lock/redis_lock.h"

#define TENURE_MAX_MS 10000
#define POLL_MIN_MS 20
#define POLL_MAX_MS 500
#define POLL_SHARE 16
#define LOOK_MS 5000
#define FAR_FENCE (UINT64_C(1) << 52) /* no clock is there before 2112 */
#define FENCE_END (UINT64_C(1) << 53)

enum word { WORD_HELD, WORD_FREE, WORD_FOREIGN, WORD_GONE, WORD_DONE, WORD_FORCED, WORD_KEPT, WORD_CHANGED };

static const char *const words[] = {
	[WORD_HELD] = "held",
	[WORD_FREE] = "free",
	[WORD_FOREIGN] = "foreign",
	[WORD_GONE] = "gone",
	[WORD_DONE] = "done",
	[WORD_FORCED] = "forced",
	[WORD_KEPT] = "kept",
	[WORD_CHANGED] = "changed",
};

struct answer {
	enum word word;
	bool has_value;
	char value[LOCK_HOLDER_MAX + 1]; /* printable */
	int64_t ttl_ms; /* -1: none, -2: no key */
	size_t n_waiting;
	uint64_t fence; /* 0: none */
	char digest[41];
	uint64_t last_fence; /* that anybody was given */
};

/* ---- reading ---- */

static bool find_word(const char *text, enum word *ret_word)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(words[i], text) == 0) {
			*ret_word = (enum word)i;
			return true;
		}
	return false;
}

static bool is_string(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING;
}

static bool is_number(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_INTEGER;
}

static bool read_fence(const char *text, uint64_t *ret_fence)
{
	char *end;
	if (text[0] == '\0') {
		*ret_fence = 0;
		return true;
	}
	*ret_fence = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && *ret_fence < FENCE_END;
}

static bool read_answer(const redisReply *reply, struct answer *answer)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 7)
		return false;
	redisReply *const *part = reply->element;
	if (!is_string(part[0]) || !is_string(part[1]) || !is_number(part[2]) || !is_number(part[3]) ||
		!is_string(part[4]) || !is_string(part[5]) || !is_string(part[6]))
		return false;
	if (!find_word(part[0]->str, &answer->word) || !read_fence(part[4]->str, &answer->fence) ||
		!read_fence(part[6]->str, &answer->last_fence))
		return false;
	redis_value_print(answer->value, sizeof(answer->value), part[1]->str, (size_t)part[1]->len);
	snprintf(answer->digest, sizeof(answer->digest), "%s", part[5]->str);
	answer->ttl_ms = part[2]->integer;
	answer->has_value = answer->ttl_ms != -2;
	answer->n_waiting = part[3]->integer < 0 ? 0 : (size_t)part[3]->integer;
	return true;
}

static bool is_word_of(enum redis_task task, enum word word)
{
	switch (task) {
	case TASK_RENEW:
		return word == WORD_HELD || word == WORD_FOREIGN || word == WORD_GONE;
	case TASK_RESTORE:
		return word == WORD_HELD || word == WORD_FOREIGN;
	case TASK_ACQUIRE:
		return word == WORD_HELD || word == WORD_FOREIGN || word == WORD_FREE;
	case TASK_FORCE:
		return word == WORD_FORCED || word == WORD_KEPT || word == WORD_CHANGED;
	case TASK_RELEASE:
	case TASK_LOOK:
	case TASK_NONE:
		break;
	}
	return word == WORD_DONE;
}

/* The last of the fences that it gives; 0: it gives none. */
static uint64_t last_given(const struct redis_lock *lock, enum redis_task task, const struct answer *answer)
{
	size_t n = task == TASK_ACQUIRE ? 1 : lock->n_sent;
	return n > 0 && answer->fence != 0 ? answer->fence + n - 1 : 0;
}

/*
 * The answer to that job, and not to another one or to somebody else, as a proxy that lost count would hand out: what
 * is held is held under our value, and a fence is above all that this host knows of.
 */
static bool is_answer_to(const struct redis_lock *lock, enum redis_task task, const struct answer *answer)
{
	bool must_have_fence = task == TASK_ACQUIRE;
	if (!is_word_of(task, answer->word))
		return false;
	if (answer->word != WORD_HELD)
		return true;
	if (answer->value[0] == '\0' || strcmp(answer->value, lock->record.value) != 0)
		return false;
	if (answer->fence == 0)
		return !must_have_fence;
	return answer->fence > lock->highest_fence && last_given(lock, task, answer) < FENCE_END;
}

/* ---- what was seen ---- */

static void warn_of_other_hosts(struct redis_lock *lock, const char *value)
{
	char host[65];
	if (lock->has_warned || lock->is_host_in_key || !redis_value_is_gpumgr(value, host, sizeof(host)) ||
		strcmp(host, lock->host) == 0)
		return;
	lock->has_warned = true;
	log_warning(
		"lock: the gpumgr of the host %s uses the lock %s as well, so only one of the two hosts works at a "
		"time. "
		"That is right when they share a GPU; when each has its own, set on each of them lock.key: %s:${HOST}",
		host, lock->record.key, lock->record.key);
}

static void note_seen(struct redis_lock *lock, const struct answer *answer)
{
	lock->seen = !answer->has_value   ? LOCK_STATE_FREE
		: lock->hold == HOLD_OURS ? LOCK_STATE_OURS
					  : LOCK_STATE_FOREIGN;
	lock->seen_at = clock_boot_ms();
	lock->n_waiting = answer->n_waiting;
	lock->holder_ttl_ms = answer->ttl_ms;
	memcpy(lock->holder, answer->value, sizeof(lock->holder));
	memcpy(lock->digest, answer->digest, sizeof(lock->digest));
	if (lock->seen == LOCK_STATE_FOREIGN)
		warn_of_other_hosts(lock, answer->value);
}

/* ---- held ---- */

static uint64_t tenure_ms(const struct redis_lock *lock)
{
	return lock->ttl_ms < TENURE_MAX_MS ? lock->ttl_ms : TENURE_MAX_MS;
}

/* Others get their turn. When they have gone away there is nobody to make way for. */
static void take_turns(struct redis_lock *lock, uint64_t now)
{
	uint64_t end = lock->held_since + tenure_ms(lock);
	if (lock->n_waiting == 0 && lock->told == TOLD_YIELDING) {
		lock->held_since = now;
		redis_lock_tell(lock, TOLD_HELD, "");
	} else if (lock->n_waiting > 0 && lock->told == TOLD_HELD && now >= end) {
		redis_lock_tell(lock, TOLD_YIELDING, "another host waits for the lock");
	} else if (lock->n_waiting > 0 && now < end && lock->renew_at > end) {
		lock->renew_at = end;
	}
}

/* A third of the way to the end; the margin is for clocks that do not run at the same speed. */
static void believe(struct redis_lock *lock)
{
	uint64_t until = lock->sent_at + lock->ttl_ms - lock->ttl_ms / 10;
	if (until > lock->believed_until)
		lock->believed_until = until;
	lock->renew_at = lock->sent_at + lock->ttl_ms / 3;
}

static void take_held(struct redis_lock *lock, const struct answer *answer)
{
	uint64_t now = clock_boot_ms();
	bool was_held = redis_lock_is_held(lock);
	if (lock->hold != HOLD_OURS)
		lock->believed_until = 0;
	believe(lock);
	if (now >= lock->believed_until) { /* we were stopped meanwhile */
		redis_lock_lose(lock, HOLD_DOOMED, "the answer of Redis came too late");
		return;
	}
	lock->hold = HOLD_OURS;
	lock->is_confirmed = true;
	lock->must_restore = false;
	lock->is_new_server = false;
	lock->is_in_line = false;
	lock->quiet_until = 0; /* who held it all the time knows that nobody else did */
	if (!was_held)
		lock->held_since = now;
	note_seen(lock, answer);
	redis_lock_note_belief(lock);
	if (lock->told != TOLD_YIELDING)
		redis_lock_tell(lock, TOLD_HELD, "");
	take_turns(lock, now);
}

/* It is held, and leases of before go on: only new ones need a fence. */
static void refuse_without_fences(struct redis_lock *lock, size_t n)
{
	char text[REDIS_TEXT_MAX + 1];
	const struct redis_subject subject = {
		.server = redis_session_name(lock->session), .key = lock->record.key, .user = "", .password = ""
	};
	redis_explain(&subject, "NOFENCES", text, sizeof(text));
	redis_lock_refuse_wishes(lock, n, text);
}

static void take_renewed(struct redis_lock *lock, const struct answer *answer)
{
	struct error err;
	size_t n = lock->n_sent;
	char text[REDIS_TEXT_MAX + 1];
	lock->n_sent = 0;
	if (answer->word == WORD_HELD) {
		take_held(lock, answer);
		if (lock->hold != HOLD_OURS || n == 0)
			return;
		if (answer->fence == 0)
			refuse_without_fences(lock, n);
		else if (!redis_lock_note_fence(lock, answer->fence + n - 1, &err))
			redis_lock_refuse_wishes(lock, n, err.message);
		else
			redis_lock_answer_wishes(lock, n, answer->fence);
	} else if (answer->word == WORD_GONE && lock->is_new_server) {
		lock->must_restore = true;
	} else if (answer->word == WORD_GONE) {
		redis_lock_lose(lock, HOLD_NONE, "somebody deleted the lock in Redis by force, or its time was over");
	} else {
		snprintf(text, sizeof(text), "%.120s has taken the lock", answer->value);
		redis_lock_lose(lock, HOLD_NONE, text);
		note_seen(lock, answer);
	}
}

/* ---- not held ---- */

static uint64_t poll_ms(const struct redis_lock *lock, const struct answer *answer, uint64_t now)
{
	char host[2];
	uint64_t waited = now - lock->wanted_since;
	uint64_t interval = waited / POLL_SHARE;
	interval = interval < POLL_MIN_MS ? POLL_MIN_MS : interval > POLL_MAX_MS ? POLL_MAX_MS : interval;
	/* gpumgr says when it lets go; others do not. */
	if (answer->has_value && redis_value_is_gpumgr(answer->value, host, sizeof(host)) &&
		redis_session_hears(lock->session))
		interval = POLL_MAX_MS;
	if (answer->ttl_ms >= 0 && (uint64_t)answer->ttl_ms + 1 < interval)
		interval = (uint64_t)answer->ttl_ms + 1;
	return interval;
}

static void tell_who_has_it(struct redis_lock *lock, const struct answer *answer, uint64_t now)
{
	char text[REDIS_TEXT_MAX + 1];
	const char *server = redis_session_name(lock->session);
	if (answer->has_value && answer->ttl_ms == -1)
		snprintf(text, sizeof(text),
			"%.60s has the lock %.40s (%.50s), without a time limit; if it is gone for good, gpumgr unlock "
			"takes it away",
			answer->value, lock->record.key, server);
	else if (answer->has_value)
		snprintf(text, sizeof(text), "%.80s has the lock %.60s (%.80s)", answer->value, lock->record.key,
			server);
	else if (now < lock->quiet_until)
		snprintf(text, sizeof(text),
			"%.80s %s; whoever held the lock %.40s before may still rely on it, so it is not taken before "
			"lock.ttl "
			"(%.1f s) has passed",
			server, lock->quiet_reason, lock->record.key, (double)lock->ttl_ms / 1000);
	else
		snprintf(text, sizeof(text),
			"the lock %.60s (%.80s) is free, and another gpumgr, which waits for longer, is about "
			"to take it",
			lock->record.key, server);
	redis_lock_tell(lock, !answer->has_value && now < lock->quiet_until ? TOLD_UNAVAILABLE : TOLD_FOREIGN, text);
}

static void take_acquired(struct redis_lock *lock, const struct answer *answer)
{
	uint64_t now = clock_boot_ms();
	struct error err;
	if (answer->word == WORD_HELD) {
		if (!redis_lock_note_fence(lock, answer->fence, &err)) {
			redis_lock_lose(lock, HOLD_DOOMED, err.message);
			redis_lock_tell(lock, TOLD_UNAVAILABLE, err.message);
			return;
		}
		lock->spare_fence = answer->fence;
		take_held(lock, answer);
		return;
	}
	lock->is_new_server = false;
	note_seen(lock, answer);
	lock->acquire_at = now + poll_ms(lock, answer, now);
	if (lock->quiet_until > now && lock->quiet_until < lock->acquire_at)
		lock->acquire_at = lock->quiet_until;
	tell_who_has_it(lock, answer, now);
}

static void take_released(struct redis_lock *lock, const struct answer *answer)
{
	if (lock->hold == HOLD_DOOMED) {
		lock->hold = HOLD_NONE;
		memcpy(lock->last_value, lock->record.value, sizeof(lock->last_value));
		lock->record.value[0] = '\0';
	}
	lock->is_in_line = false;
	note_seen(lock, answer);
}

static void take_forced(struct redis_lock *lock, const struct answer *answer)
{
	struct redis_force *force = lock->forces;
	char problem[REDIS_TEXT_MAX + 1] = "";
	lock->forces = force->next;
	if (answer->word == WORD_CHANGED)
		snprintf(problem, sizeof(problem),
			"the lock changed hands meanwhile: now %.100s has it; ask again to take it from there",
			answer->value);
	note_seen(lock, answer);
	if (answer->word == WORD_FORCED) {
		lock->seen = LOCK_STATE_FREE;
		lock->acquire_at = 0;
	}
	force->handle(
		force->context, answer->word == WORD_FORCED, answer->word == WORD_FORCED ? answer->value : "", problem);
	free(force);
}

/*
 * Should the server lose its counter, what this host saw of it is not lost. But what nobody can have been given yet is
 * kept only of fences that were given here: one wrong number would be the end of all fences, on this host for good.
 */
static void note_counter(struct redis_lock *lock, enum redis_task task, const struct answer *answer)
{
	uint64_t given = last_given(lock, task, answer);
	if (given > lock->highest_fence)
		lock->highest_fence = given;
	bool is_plausible = answer->last_fence < FAR_FENCE || answer->fence != 0;
	if (is_plausible && answer->last_fence > lock->highest_fence)
		lock->highest_fence = answer->last_fence;
}

bool redis_lock_take_answer(struct redis_lock *lock, enum redis_task task, const redisReply *reply)
{
	struct answer answer;
	if (!read_answer(reply, &answer) || !is_answer_to(lock, task, &answer))
		return false;
	lock->look_at = clock_boot_ms() + LOOK_MS;
	note_counter(lock, task, &answer);
	if (lock->hold == HOLD_DOOMED && (task == TASK_ACQUIRE || task == TASK_RENEW || task == TASK_RESTORE))
		return true; /* given up while it was under way; it is deleted next */
	switch (task) {
	case TASK_RENEW:
	case TASK_RESTORE:
		take_renewed(lock, &answer);
		break;
	case TASK_ACQUIRE:
		take_acquired(lock, &answer);
		break;
	case TASK_RELEASE:
		take_released(lock, &answer);
		break;
	case TASK_FORCE:
		take_forced(lock, &answer);
		break;
	case TASK_LOOK:
	case TASK_NONE:
		note_seen(lock, &answer);
		break;
	}
	return true;
}
