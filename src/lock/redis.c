/*
 * The backend `redis`: a key in a Redis server that this daemon holds as long as it holds leases. Decides what the
 * server is asked next, and tells the listener. One job is under way at a time; what is asked for meanwhile goes along
 * with the next one. See docs/locking.md for what is promised.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "lock/redis_lock.h"

#define LIMIT_MIN_MS 200 /* for one answer of the server */
#define LIMIT_MAX_MS 2000
#define RETRY_MS 500 /* after a refusal */
#define HEARD_MS 100 /* what others say is looked at so much later when nobody here waits */
#define TICK_MS 1000 /* while it is held: a machine that slept notices so soon that it holds nothing any more */
#define FLAP_FAILURES 2

static void plan_next(struct redis_lock *lock);

/* At once, but from the loop. */
static void advance_soon(struct redis_lock *lock);

/* ---- the next job ---- */

static void make_value(struct redis_lock *lock)
{
	char nonce[REDIS_NONCE_SIZE];
	uint64_t number;
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = uv_hrtime() ^ ((uint64_t)getpid() << 40);
	snprintf(nonce, sizeof(nonce), "%016" PRIx64, number);
	redis_value_make(lock->record.value, sizeof(lock->record.value), lock->service, lock->host, nonce);
}

/* The value must be on record before it can be set. */
static bool prepare_to_take(struct redis_lock *lock, uint64_t now)
{
	struct error err;
	if (lock->hold == HOLD_TRIED)
		return true;
	make_value(lock);
	lock->record.believed_until = now + lock->ttl_ms - lock->ttl_ms / 10;
	if (redis_lock_write(lock, &err)) {
		lock->hold = HOLD_TRIED;
		return true;
	}
	lock->record.value[0] = '\0';
	lock->retry_at = now + RETRY_MS;
	redis_lock_tell(lock, TOLD_UNAVAILABLE, err.message);
	return false;
}

static enum redis_task choose_task(const struct redis_lock *lock, uint64_t now)
{
	if (now < lock->retry_at)
		return TASK_NONE;
	if (lock->forces != NULL)
		return TASK_FORCE;
	if (lock->hold == HOLD_DOOMED)
		return TASK_RELEASE;
	if (lock->hold == HOLD_OURS && lock->must_restore)
		return TASK_RESTORE;
	if (lock->hold == HOLD_OURS)
		return !lock->is_new && (lock->wishes.n > 0 || now >= lock->renew_at) ? TASK_RENEW : TASK_NONE;
	if (lock->wanted)
		return now >= lock->acquire_at ? TASK_ACQUIRE : TASK_NONE;
	if (lock->is_in_line)
		return TASK_RELEASE;
	return now >= lock->look_at ? TASK_LOOK : TASK_NONE;
}

static const char *const job_names[] = {
	[TASK_FORCE] = "force",
	[TASK_RELEASE] = "release",
	[TASK_RENEW] = "renew",
	[TASK_RESTORE] = "restore",
	[TASK_ACQUIRE] = "acquire",
	[TASK_LOOK] = "look",
};

static void start_task(struct redis_lock *lock, enum redis_task task, uint64_t now)
{
	bool may_take = task == TASK_ACQUIRE && now >= lock->quiet_until;
	if (may_take && !prepare_to_take(lock, now))
		return;
	if (task == TASK_RENEW || task == TASK_RESTORE)
		lock->n_sent = lock->wishes.n;
	const struct redis_job job = {
		.name = job_names[task],
		.mine = lock->record.value,
		.old = lock->last_value,
		.me = task == TASK_ACQUIRE || lock->is_in_line ? lock->me : NULL,
		.digest = lock->seen == LOCK_STATE_FOREIGN ? lock->digest : NULL,
		.ttl_ms = lock->ttl_ms,
		.floor = lock->highest_fence,
		.n_fences = lock->n_sent,
		.may_take = may_take,
	};
	lock->is_in_line |= task == TASK_ACQUIRE;
	lock->task = task;
	lock->sent_at = clock_boot_ms();
	redis_session_run(lock->session, &job);
}

/* ---- what time alone brings ---- */

static const char *problem_of(const struct redis_lock *lock)
{
	if (lock->problem[0] != '\0')
		return lock->problem;
	return redis_session_problem(lock->session);
}

static const char *problem_or_silence(const struct redis_lock *lock, char *buffer, size_t size)
{
	if (problem_of(lock)[0] != '\0')
		return problem_of(lock);
	snprintf(buffer, size, "%s does not answer; see whether it runs and can be reached from here",
		redis_session_name(lock->session));
	return buffer;
}

static void end_belief(struct redis_lock *lock, uint64_t now)
{
	char text[REDIS_TEXT_MAX + 1], silence[REDIS_TEXT_MAX + 1];
	if (lock->hold != HOLD_OURS || now < lock->believed_until)
		return;
	snprintf(text, sizeof(text), "it could not be renewed in time: %.200s",
		problem_or_silence(lock, silence, sizeof(silence)));
	redis_lock_lose(lock, HOLD_DOOMED, text);
}

static void refuse_late_wishes(struct redis_lock *lock, uint64_t now)
{
	char silence[REDIS_TEXT_MAX + 1];
	size_t n = redis_wishes_late(&lock->wishes, now);
	if (n == 0)
		return;
	lock->n_sent = lock->n_sent > n ? lock->n_sent - n : 0;
	redis_lock_refuse_wishes(lock, n, problem_or_silence(lock, silence, sizeof(silence)));
}

static void end_forces(struct redis_lock *lock, uint64_t now)
{
	char silence[REDIS_TEXT_MAX + 1];
	while (lock->forces != NULL && lock->task != TASK_FORCE && lock->forces->until <= now) {
		struct redis_force *force = lock->forces;
		lock->forces = force->next;
		force->handle(force->context, false, "", problem_or_silence(lock, silence, sizeof(silence)));
		free(force);
	}
}

/* A wish that nobody answered yet; or a server that was there and is gone for longer than a moment. */
static void tell_unavailable(struct redis_lock *lock, uint64_t now)
{
	char silence[REDIS_TEXT_MAX + 1];
	bool is_up = redis_session_is_up(lock->session);
	unsigned n_failures = redis_session_failures(lock->session);
	bool is_overdue = lock->wish_until != 0 && now >= lock->wish_until;
	bool is_waited_for = lock->told == TOLD_NOTHING || lock->told == TOLD_LOST || lock->told == TOLD_UNAVAILABLE;
	bool is_down = !is_up && n_failures >= (is_waited_for ? 1 : FLAP_FAILURES);
	if (!lock->wanted || redis_lock_is_held(lock) || (!is_overdue && !is_down))
		return;
	redis_lock_tell(lock, TOLD_UNAVAILABLE, problem_or_silence(lock, silence, sizeof(silence)));
}

/* The data set that we relied on is the one that we talk to as soon as nobody else can rely on an older one. */
static void settle_server(struct redis_lock *lock, uint64_t now)
{
	struct error err;
	if (lock->met_server[0] == '\0' || now < lock->quiet_until || lock->is_new_server || lock->hold == HOLD_OURS ||
		strcmp(lock->record.server, lock->met_server) == 0)
		return;
	snprintf(lock->record.server, sizeof(lock->record.server), "%s", lock->met_server);
	if (!redis_lock_write(lock, &err))
		log_warning("%s", err.message);
}

/* Leases of before the restart cannot rely on a lock that nobody knows to have been ours all the time. */
static void tell_lost_at_first(struct redis_lock *lock)
{
	if (!lock->must_tell_lost)
		return;
	lock->must_tell_lost = false;
	redis_lock_tell(lock, TOLD_LOST, "it is not known to have been held over the restart of gpumgrd");
}

static void advance(struct redis_lock *lock)
{
	uint64_t now = clock_boot_ms();
	tell_lost_at_first(lock);
	end_belief(lock, now);
	if (lock->hold != HOLD_OURS)
		redis_lock_refuse_wishes(lock, lock->wishes.n, "the lock that hosts share is not held");
	refuse_late_wishes(lock, now);
	end_forces(lock, now);
	settle_server(lock, now);
	if (lock->task == TASK_NONE && redis_session_is_up(lock->session)) {
		enum redis_task task = choose_task(lock, now);
		if (task != TASK_NONE)
			start_task(lock, task, now);
	}
	tell_unavailable(lock, now);
	plan_next(lock);
}

static void handle_timer(uv_timer_t *timer)
{
	advance(timer->data);
}

static void sooner(uint64_t *next, uint64_t at)
{
	if (at < *next)
		*next = at;
}

static uint64_t next_task_at(const struct redis_lock *lock)
{
	if (lock->task != TASK_NONE || !redis_session_is_up(lock->session))
		return UINT64_MAX; /* something happens by itself */
	uint64_t at = lock->forces != NULL || lock->hold == HOLD_DOOMED ? 0
		: lock->hold == HOLD_OURS                               ? (lock->is_new ? UINT64_MAX : lock->renew_at)
		: lock->wanted                                          ? lock->acquire_at
		: lock->is_in_line                                      ? 0
									: lock->look_at;
	return at < lock->retry_at ? lock->retry_at : at;
}

static void plan_next(struct redis_lock *lock)
{
	uint64_t now = clock_boot_ms();
	uint64_t next = next_task_at(lock);
	if (lock->hold == HOLD_OURS) {
		sooner(&next, lock->believed_until);
		sooner(&next, now + TICK_MS);
	}
	if (lock->wanted && lock->wish_until != 0)
		sooner(&next, lock->wish_until);
	sooner(&next, redis_wishes_deadline(&lock->wishes));
	if (lock->forces != NULL && lock->task != TASK_FORCE)
		sooner(&next, lock->forces->until);
	uv_update_time(lock->loop);
	if (next == UINT64_MAX)
		uv_timer_stop(&lock->timer);
	else
		uv_timer_start(&lock->timer, handle_timer, next > now ? next - now : 0, 0);
}

static void advance_soon(struct redis_lock *lock)
{
	uv_timer_start(&lock->timer, handle_timer, 0, 0);
}

/* ---- what the session says ---- */

static void be_quiet(struct redis_lock *lock, uint64_t ms, const char *reason)
{
	lock->quiet_until = clock_boot_ms() + ms;
	lock->quiet_reason = reason;
}

/*
 * Another data set than before: whoever held the lock in the old one may still rely on it, for as long as the time
 * limit. So nobody takes the lock in the new one before that has passed; who holds it puts it back meanwhile.
 */
static void meet_server(struct redis_lock *lock)
{
	const char *server = redis_session_server(lock->session);
	uint64_t uptime_ms = redis_session_uptime_ms(lock->session);
	bool is_known = strcmp(server, lock->record.server) == 0;
	if (strcmp(server, lock->met_server) == 0)
		return;
	snprintf(lock->met_server, sizeof(lock->met_server), "%s", server);
	lock->is_new_server = !is_known && lock->hold == HOLD_OURS;
	if (is_known)
		return;
	if (lock->record.server[0] != '\0')
		be_quiet(lock, lock->ttl_ms, "was restarted, or another server has taken its place");
	else if (redis_session_is_elected(lock->session))
		be_quiet(lock, lock->ttl_ms, "was found through Sentinel for the first time");
	else if (uptime_ms < lock->ttl_ms)
		be_quiet(lock, lock->ttl_ms - uptime_ms, "was started a moment ago");
}

static void handle_up(void *context)
{
	struct redis_lock *lock = context;
	lock->problem[0] = '\0';
	lock->renew_at = lock->acquire_at = lock->look_at = lock->retry_at = 0;
	meet_server(lock);
	advance(lock);
}

static void handle_down(void *context)
{
	struct redis_lock *lock = context;
	lock->task = TASK_NONE;
	lock->n_sent = 0;
	lock->problem[0] = '\0';
	/* Whoever wants the lock is told, and tells; else it is the log that must say it. */
	if (!lock->was_unavailable && !lock->wanted && redis_session_failures(lock->session) >= FLAP_FAILURES) {
		lock->was_unavailable = true;
		log_warning("lock: %s", redis_session_problem(lock->session));
	}
	advance(lock);
}

/* Only an answer says that it works: a server may well greet everybody and then refuse every job. */
static void note_available(struct redis_lock *lock)
{
	if (lock->was_unavailable)
		log_info("lock: %s is reachable again", redis_session_name(lock->session));
	lock->was_unavailable = false;
}

/* Something changed for whoever listens: the server is asked again. */
static void ask_again(struct redis_lock *lock)
{
	if (lock->hold == HOLD_OURS && lock->wanted)
		lock->renew_at = 0;
	else if (lock->wanted)
		lock->acquire_at = 0;
	else
		sooner(&lock->look_at, clock_boot_ms() + HEARD_MS);
}

static bool handle_answer(void *context, const redisReply *reply)
{
	struct redis_lock *lock = context;
	enum redis_task task = lock->task;
	bool has_heard = lock->has_heard;
	lock->task = TASK_NONE;
	lock->has_heard = false;
	lock->problem[0] = '\0';
	if (!redis_lock_take_answer(lock, task, reply))
		return false;
	note_available(lock);
	if (has_heard)
		ask_again(lock);
	advance(lock);
	return true;
}

static void refuse_force(struct redis_lock *lock, const char *text)
{
	struct redis_force *force = lock->forces;
	lock->forces = force->next;
	force->handle(force->context, false, "", text);
	free(force);
}

/* `text` "": the same job again. */
static void handle_refusal(void *context, const char *text)
{
	struct redis_lock *lock = context;
	enum redis_task task = lock->task;
	size_t n = lock->n_sent;
	lock->task = TASK_NONE;
	lock->n_sent = 0;
	if (text[0] != '\0') {
		snprintf(lock->problem, sizeof(lock->problem), "%s", text);
		lock->seen = LOCK_STATE_UNAVAILABLE;
		lock->retry_at = clock_boot_ms() + RETRY_MS;
		redis_lock_refuse_wishes(lock, n, text);
		if (task == TASK_FORCE)
			refuse_force(lock, text);
		else if (!redis_lock_is_held(lock))
			redis_lock_tell(lock, TOLD_UNAVAILABLE, text);
	}
	advance(lock);
}

static void handle_word(void *context, const char *word)
{
	struct redis_lock *lock = context;
	const char *idle_word = !lock->wanted ? NULL : lock->hold == HOLD_OURS ? "released" : "waiting";
	if (idle_word != NULL && strcmp(word, idle_word) == 0)
		return; /* that is what its own doings bring about, or no news for it */
	ask_again(lock);
	lock->has_heard = lock->task != TASK_NONE;
	if (lock->task == TASK_NONE)
		advance(lock);
}

/* ---- ops ---- */

static void redis_want(struct lock *base, bool wanted, const char *service)
{
	struct redis_lock *lock = (struct redis_lock *)base;
	bool was_new = lock->is_new;
	bool is_change = was_new || wanted != lock->wanted;
	snprintf(lock->service, sizeof(lock->service), "%s", service == NULL ? "" : service);
	if (!is_change)
		return;
	lock->is_new = false;
	lock->wanted = wanted;
	lock->told = TOLD_NOTHING;
	lock->told_text[0] = '\0';
	redis_wishes_clear(&lock->wishes);
	lock->n_sent = 0;
	lock->wish_until = 0;
	if (wanted) {
		lock->wanted_since = clock_boot_ms();
		lock->wish_until = lock->wanted_since + REDIS_WISH_MS;
		lock->acquire_at = lock->renew_at = 0;
		lock->must_tell_lost = was_new && lock->hold != HOLD_OURS;
	} else if (lock->hold != HOLD_NONE) {
		redis_lock_doom(lock);
	}
	advance_soon(lock);
}

static void redis_want_fence(struct lock *base, uint64_t request)
{
	struct redis_lock *lock = (struct redis_lock *)base;
	uint64_t now = clock_boot_ms();
	uint64_t spare = lock->spare_fence;
	if (spare != 0 && lock->hold == HOLD_OURS && now < lock->believed_until) {
		lock->spare_fence = 0;
		lock->listener.handle_fence(lock->listener.context, request, spare);
		return;
	}
	if (redis_wishes_add(&lock->wishes, (struct redis_wish){ .request = request, .until = now + REDIS_WISH_MS }))
		advance_soon(lock);
	else
		lock->listener.handle_no_fence(lock->listener.context, request, "lock: there is no memory");
}

static int redis_force(struct lock *base, lock_forced_fn *handle, void *context)
{
	struct redis_lock *lock = (struct redis_lock *)base;
	struct redis_force *force = calloc(1, sizeof(*force));
	if (force == NULL)
		return -ENOMEM;
	force->handle = handle;
	force->context = context;
	force->until = clock_boot_ms() + REDIS_WISH_MS;
	struct redis_force **end = &lock->forces;
	while (*end != NULL)
		end = &(*end)->next;
	*end = force;
	advance_soon(lock);
	return 0;
}

static enum lock_state state_of(const struct redis_lock *lock)
{
	if (redis_lock_is_held(lock))
		return LOCK_STATE_OURS;
	if (!redis_session_is_up(lock->session) && redis_session_problem(lock->session)[0] != '\0')
		return LOCK_STATE_UNAVAILABLE;
	return lock->seen == LOCK_STATE_OURS ? LOCK_STATE_UNKNOWN : lock->seen;
}

static void redis_describe(const struct lock *base, struct lock_status *ret_status)
{
	const struct redis_lock *lock = (const struct redis_lock *)base;
	uint64_t passed = clock_boot_ms() - lock->seen_at;
	struct lock_status status = { .state = state_of(lock), .key = lock->key, .n_waiting = lock->n_waiting };
	if (status.state == LOCK_STATE_OURS)
		snprintf(status.holder, sizeof(status.holder), "%s", lock->record.value);
	if (status.state == LOCK_STATE_FOREIGN) {
		memcpy(status.holder, lock->holder, sizeof(status.holder));
		status.holder_ttl_ms = lock->holder_ttl_ms < 0   ? -1
			: (uint64_t)lock->holder_ttl_ms < passed ? 0
								 : lock->holder_ttl_ms - (int64_t)passed;
	}
	if (status.state == LOCK_STATE_UNAVAILABLE)
		snprintf(status.problem, sizeof(status.problem), "%s", problem_of(lock));
	*ret_status = status;
}

/* ---- beginning and end ---- */

static void read_host(char *buffer, size_t size)
{
	char name[256] = "";
	gethostname(name, sizeof(name) - 1);
	for (char *c = name; *c != '\0'; c++)
		if (*c <= ' ' || *c >= 0x7f || *c == ':')
			*c = '-';
	snprintf(buffer, size, "%s", name[0] == '\0' ? "localhost" : name);
}

/* What the local store gave, and what this one gave before, stay below all that it gives from now on. */
static void take_up_fences(struct redis_lock *lock)
{
	uint64_t next = state_next_fence(lock->state);
	lock->highest_fence = next > lock->record.fence ? next - 1 : lock->record.fence;
}

/* The other way round, should somebody return to `backend: local`. No reason not to start, on a full disk for instance:
 * leases of before depend on this lock. */
static void raise_local_fences(struct redis_lock *lock)
{
	struct error err;
	uint64_t first, next = state_next_fence(lock->state);
	if (next > lock->highest_fence)
		return;
	if (state_reserve_fences(lock->state, lock->highest_fence - next + 1, &first, &err) < 0)
		log_warning("%s", err.message);
}

static void take_up_record(struct redis_lock *lock)
{
	bool is_believed = lock->record.value[0] != '\0' && lock->record.believed_until > clock_boot_ms();
	/* More than can be true: not of this boot, whatever the file says. */
	if (lock->record.believed_until > clock_boot_ms() + 2 * lock->ttl_ms)
		is_believed = false;
	if (is_believed) {
		lock->hold = HOLD_OURS;
		lock->believed_until = lock->record.believed_until;
	} else if (lock->record.value[0] != '\0') {
		redis_lock_doom(lock);
	}
}

static void handle_closed(uv_handle_t *handle)
{
	struct redis_lock *lock = handle->data;
	redis_record_close(&lock->record);
	free(lock->key);
	redis_wishes_finish(&lock->wishes);
	free(lock);
}

static void redis_destroy(struct lock *base)
{
	struct redis_lock *lock = (struct redis_lock *)base;
	while (lock->forces != NULL) {
		struct redis_force *force = lock->forces;
		lock->forces = force->next;
		free(force);
	}
	if (lock->session != NULL && lock->record.path != NULL && lock->state != NULL)
		raise_local_fences(lock);
	lock->session = redis_session_destroy(lock->session);
	uv_close((uv_handle_t *)&lock->timer, handle_closed);
}

static uint64_t limit_ms(uint64_t ttl_ms)
{
	uint64_t limit = ttl_ms / 4;
	return limit < LIMIT_MIN_MS ? LIMIT_MIN_MS : limit > LIMIT_MAX_MS ? LIMIT_MAX_MS : limit;
}

static int set_up(struct redis_lock *lock, const struct lock_config *config, const char *state_dir, struct error *err)
{
	struct redis_url url;
	struct error problem;
	const struct redis_session_listener listener = {
		.context = lock,
		.handle_up = handle_up,
		.handle_down = handle_down,
		.handle_answer = handle_answer,
		.handle_refusal = handle_refusal,
		.handle_word = handle_word,
	};
	read_host(lock->host, sizeof(lock->host));
	lock->is_host_in_key = strstr(config->key, "${HOST}") != NULL;
	lock->ttl_ms = config->ttl_ms;
	lock->key = redis_key_expand(config->key, lock->host);
	int r = lock->key == NULL ? error_set(err, -ENOMEM, "lock: there is no memory")
				  : redis_url_parse(config->url, &url, err);
	if (r == 0) {
		r = redis_record_open(state_dir, lock->key, &lock->record, &problem);
		if (r < 0)
			return error_set(err, r, "%s", problem.message);
		if (problem.message[0] != '\0')
			log_warning("%s", problem.message);
	}
	if (r < 0)
		return r;
	take_up_fences(lock);
	raise_local_fences(lock);
	take_up_record(lock);
	/* The line is of daemons, not of values: a new one each time. */
	char nonce[REDIS_NONCE_SIZE];
	snprintf(nonce, sizeof(nonce), "%016" PRIx64, uv_hrtime() ^ ((uint64_t)getpid() << 40));
	redis_value_make(lock->me, sizeof(lock->me), NULL, lock->host, nonce);
	return redis_session_create(
		lock->loop, &url, lock->key, limit_ms(lock->ttl_ms), &listener, &lock->session, err);
}

static int redis_create(uv_loop_t *loop, const struct lock_config *config, const char *state_dir, struct state *state,
	const struct lock_listener *listener, struct lock **ret_lock, struct error *err)
{
	struct redis_lock *lock = calloc(1, sizeof(*lock));
	if (lock == NULL)
		return error_set(err, -ENOMEM, "lock: there is no memory");
	lock->base.ops = &redis_lock;
	lock->loop = loop;
	lock->state = state;
	lock->listener = *listener;
	lock->is_new = true;
	lock->seen = LOCK_STATE_UNKNOWN;
	uv_timer_init(loop, &lock->timer);
	uv_unref((uv_handle_t *)&lock->timer);
	lock->timer.data = lock;
	int r = set_up(lock, config, state_dir, err);
	if (r < 0) {
		redis_destroy(&lock->base);
		return r;
	}
	*ret_lock = &lock->base;
	return 0;
}

const struct lock_ops redis_lock = {
	.name = "redis",
	.create = redis_create,
	.destroy = redis_destroy,
	.want = redis_want,
	.want_fence = redis_want_fence,
	.force = redis_force,
	.describe = redis_describe,
};
