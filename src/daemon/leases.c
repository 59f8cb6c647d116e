/*
 * What the daemon does for leases: keeps them, and the secrets of their holders, across restarts; has fences made;
 * tells the API what became of them. Must not decide who gets what; that is the engine's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/daemon.h"

#define GRACE_MS 10000 /* holders of attached leases come back within this after a restart */
#define GRACE_LEAST_MS 2000 /* and within this after each of several that follow one another */
#define RETRY_MS 5000 /* leases that could not be written are tried again */

/* ---- secrets, by fence ---- */

static size_t find_place(const struct daemon *daemon, uint64_t fence)
{
	size_t low = 0, high = daemon->n_secrets;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (daemon->secrets[middle].fence < fence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const char *leases_secret(const struct daemon *daemon, uint64_t fence)
{
	size_t place = find_place(daemon, fence);
	bool is_there = place < daemon->n_secrets && daemon->secrets[place].fence == fence;
	return is_there ? daemon->secrets[place].text : NULL;
}

static struct lease_secret *add_secret(struct daemon *daemon, uint64_t fence)
{
	size_t place = find_place(daemon, fence);
	if (daemon->n_secrets == daemon->secrets_capacity) {
		size_t capacity = 2 * daemon->secrets_capacity + 16;
		struct lease_secret *grown = realloc(daemon->secrets, capacity * sizeof(grown[0]));
		if (grown == NULL)
			return NULL;
		daemon->secrets = grown;
		daemon->secrets_capacity = capacity;
	}
	memmove(&daemon->secrets[place + 1], &daemon->secrets[place],
		(daemon->n_secrets - place) * sizeof(daemon->secrets[0]));
	daemon->n_secrets++;
	daemon->secrets[place].fence = fence;
	return &daemon->secrets[place];
}

static void make_secret(struct daemon *daemon, uint64_t fence)
{
	uint8_t bytes[(STATE_SECRET_SIZE - 1) / 2];
	struct lease_secret *secret = add_secret(daemon, fence);
	if (secret == NULL)
		return; /* its holder will not come back after a restart */
	while (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(secret->text + 2 * i, 3, "%02x", bytes[i]);
}

static void forget_secret(struct daemon *daemon, uint64_t fence)
{
	size_t place = find_place(daemon, fence);
	if (place == daemon->n_secrets || daemon->secrets[place].fence != fence)
		return;
	daemon->n_secrets--;
	memmove(&daemon->secrets[place], &daemon->secrets[place + 1],
		(daemon->n_secrets - place) * sizeof(daemon->secrets[0]));
}

/* ---- the store ---- */

static void handle_retry(uv_timer_t *timer);

/* A full disk ends nothing: leases go on, only a restart would forget what could not be written. */
static void complain(struct daemon *daemon, const struct error *err)
{
	if (!daemon->has_unsaved)
		log_error("leases would not survive a restart: %s", err->message);
	daemon->has_unsaved = true;
	uv_timer_start(&daemon->save_again, handle_retry, RETRY_MS, 0);
}

/*
 * Nobody sets the clock of the boot, so no step of the time of day ends or prolongs a lease. Only where the kernel does
 * not name the boot, the time of day has to do.
 */
static int64_t kept_now_ms(uint64_t boot)
{
	return boot != 0 ? (int64_t)clock_boot_ms() : clock_wall_ms();
}

static int64_t kept_time(const struct daemon *daemon, uint64_t ms)
{
	return kept_now_ms(daemon->boot) + (int64_t)(ms - clock_now_ms());
}

static bool store(struct daemon *daemon, const struct lease *lease)
{
	struct error err = { "" };
	const char *secret = leases_secret(daemon, lease->fence);
	for (size_t i = 0; i < lease->n_services; i++)
		daemon->lease_services[i] = daemon->config->services[lease->services[i]].name;
	const struct state_lease kept = {
		.fence = lease->fence,
		.mode = lease->mode,
		.n_services = lease->n_services,
		.services = daemon->lease_services,
		.phase = lease->phase != LEASE_NO_PHASE ? daemon->config->phases[lease->phase].number : 0,
		.gpus = lease->gpus,
		.room_mib = lease->room_mib,
		.room_base_mib = lease->room_base_mib,
		.priority = lease->priority,
		.attached = lease->attached,
		.ttl_ms = lease->ttl_ms,
		.boot = daemon->boot,
		.granted_ms = kept_time(daemon, lease->granted_ms),
		.expires_ms = lease->expires_ms == UINT64_MAX ? INT64_MAX : kept_time(daemon, lease->expires_ms),
		.owner = lease->owner,
		.request_id = lease->request_id,
		.secret = secret != NULL ? secret : "",
	};
	if (state_put_lease(daemon->state, &kept, &err) == 0)
		return true;
	complain(daemon, &err);
	return false;
}

/*
 * How many were stored; -1: one could not be. One of which nothing is left is kept as it was, so that its holder hears
 * why, be it after another restart.
 */
static int store_all(struct daemon *daemon)
{
	int n = 0;
	const struct status *status = engine_status(daemon->engine, clock_now_ms());
	for (size_t i = 0; i < status->n_leases; i++) {
		const struct lease *lease = status->leases[i];
		bool is_void = lease->n_services == 0 && lease->room_mib == 0;
		if (is_void)
			continue;
		if (!store(daemon, lease))
			return -1;
		n++;
	}
	return n;
}

static void handle_retry(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	int n = store_all(daemon);
	if (n < 0)
		return; /* and once more */
	daemon->has_unsaved = false;
	log_info(n > 0 ? "leases are kept again: the state file can be written"
		       : "no lease is left that would not survive a restart");
}

static void forget(struct daemon *daemon, const struct lease *lease)
{
	struct error told = { "" }; /* in the log, by the store, which also tries it again */
	forget_secret(daemon, lease->fence);
	state_forget_lease(daemon->state, lease->fence, &told);
}

void leases_note(struct daemon *daemon, const struct lease *lease, enum lease_news news, const char *text)
{
	if (news == LEASE_NEWS_GRANTED && lease->attached)
		make_secret(daemon, lease->fence);
	if (news == LEASE_NEWS_GRANTED || news == LEASE_NEWS_RENEWED || news == LEASE_NEWS_MOVED)
		store(daemon, lease);
	if (daemon->api != NULL)
		api_lease_news(daemon->api, lease, news, text);
	if (news == LEASE_NEWS_ENDED)
		forget(daemon, lease);
}

/* ---- fences ---- */

static void handle_fence(void *context, uint64_t request, uint64_t fence)
{
	const struct event event = { .kind = EVENT_FENCE, .fence = { .id = request, .fence = fence } };
	daemon_bring(context, &event);
}

static void handle_no_fence(void *context, uint64_t request, const char *text)
{
	const struct event event = { .kind = EVENT_FENCE, .fence = { .id = request }, .text = text };
	log_warning("no fence, so no lease: %s", text);
	daemon_bring(context, &event);
}

static void handle_lock_news(void *context, enum lock_news news, const char *text)
{
	const struct event event = { .kind = EVENT_LOCK, .lock = news, .text = text };
	daemon_bring(context, &event);
}

/* ---- after a restart ---- */

struct restoration {
	struct daemon *daemon;
	size_t n_restored;
	size_t n_unknown, capacity;
	uint64_t *unknown; /* forgotten afterwards: the store must not be changed while it is read */
};

/* Never more than it ever had: the time of day may have been set. */
static uint64_t remaining_ms(const struct state_lease *kept)
{
	int64_t left = kept->expires_ms - kept_now_ms(kept->boot);
	if (left < 0)
		return 0;
	return (uint64_t)left < kept->ttl_ms ? (uint64_t)left : kept->ttl_ms;
}

/* Restarts that follow one another share one grace: who is gone must not be waited for anew after each of them. */
static uint64_t grace_ms(const struct state_lease *kept)
{
	if (kept->expires_ms == INT64_MAX)
		return GRACE_MS;
	int64_t left = kept->expires_ms - kept_now_ms(kept->boot);
	return left < GRACE_LEAST_MS ? GRACE_LEAST_MS : left < GRACE_MS ? (uint64_t)left : GRACE_MS;
}

static uint64_t age_ms(const struct state_lease *kept, uint64_t now)
{
	int64_t age = kept_now_ms(kept->boot) - kept->granted_ms;
	if (age < 0)
		return 0;
	return (uint64_t)age < now ? (uint64_t)age : now;
}

static void name_gone(struct lease *lease, const char *service)
{
	size_t used = strlen(lease->gone);
	snprintf(lease->gone + used, sizeof(lease->gone) - used, "%s%s", used > 0 ? ", " : "", service);
}

static bool is_named(const struct lease *lease, size_t service)
{
	for (size_t i = 0; i < lease->n_services; i++)
		if (lease->services[i] == service)
			return true;
	return false;
}

/* What of its services is still configured; `services` has room for all. */
static void find_services(const struct config *config, const struct state_lease *kept, struct lease *lease)
{
	for (size_t i = 0; i < kept->n_services; i++) {
		size_t service = config_find_service(config, kept->services[i]);
		if (service == SIZE_MAX)
			name_gone(lease, kept->services[i]);
		else if (!is_named(lease, service))
			lease->services[lease->n_services++] = service;
	}
	if (lease->n_services == 0 && lease->room_mib == 0)
		lease->gpus = 0;
}

static void say_gone(const struct lease *lease, int result)
{
	unsigned long long fence = lease->fence;
	if (result == -ENOMEM)
		log_error("lease %llu of %s is dropped: out of memory", fence, lease->owner);
	else if (result < 0 || (lease->n_services == 0 && lease->gone[0] != '\0'))
		log_warning("lease %llu of %s ends: none of its services is configured any more (%s)", fence,
			lease->owner, lease->gone);
	else if (lease->gone[0] != '\0')
		log_warning("lease %llu of %s goes on without what is not configured any more (%s)", fence,
			lease->owner, lease->gone);
}

static int restore(struct restoration *restoration, const struct state_lease *kept)
{
	struct daemon *daemon = restoration->daemon;
	const struct config *config = daemon->config;
	uint64_t now = clock_now_ms();
	CLEANUP_FREE size_t *services = calloc(kept->n_services + 1, sizeof(services[0]));
	if (services == NULL)
		return -ENOMEM;
	struct lease lease = {
		.fence = kept->fence,
		.mode = kept->mode,
		.services = services,
		.phase = LEASE_NO_PHASE,
		.gpus = kept->gpus,
		.room_mib = kept->room_mib,
		.room_base_mib = kept->room_base_mib,
		.priority = kept->priority,
		.attached = kept->attached,
		.ttl_ms = kept->ttl_ms,
		.granted_ms = now - age_ms(kept, now),
		.expires_ms = now + remaining_ms(kept),
	};
	find_services(config, kept, &lease);
	for (size_t i = 0; i < config->n_phases; i++)
		if (config->phases[i].number == kept->phase)
			lease.phase = i;
	snprintf(lease.owner, sizeof(lease.owner), "%s", kept->owner);
	snprintf(lease.request_id, sizeof(lease.request_id), "%s", kept->request_id);
	int result = engine_restore_lease(daemon->engine, &lease, now, grace_ms(kept));
	say_gone(&lease, result);
	/* There was no memory for one when it was granted: an empty one would let anybody in. */
	bool has_secret = kept->attached && kept->secret[0] != '\0';
	struct lease_secret *secret = result == 0 && has_secret ? add_secret(daemon, kept->fence) : NULL;
	if (secret != NULL)
		snprintf(secret->text, sizeof(secret->text), "%s", kept->secret);
	return result;
}

/* Without memory it is dropped again after the next restart. */
static void note_unknown(struct restoration *restoration, uint64_t fence)
{
	if (restoration->n_unknown == restoration->capacity) {
		size_t capacity = 2 * restoration->capacity + 16;
		uint64_t *grown = realloc(restoration->unknown, capacity * sizeof(grown[0]));
		if (grown == NULL)
			return;
		restoration->unknown = grown;
		restoration->capacity = capacity;
	}
	restoration->unknown[restoration->n_unknown++] = fence;
}

static void handle_kept(void *context, const struct state_lease *kept)
{
	struct restoration *restoration = context;
	size_t n_before = restoration->n_restored;
	/* Nothing that it was about has survived, and nothing tells how long ago it was. */
	bool is_stale = kept->boot != 0 && kept->boot != restoration->daemon->boot;
	if (is_stale)
		log_warning("lease %llu of %s is dropped: it is of before the machine was booted",
			(unsigned long long)kept->fence, kept->owner);
	else if (restore(restoration, kept) == 0)
		restoration->n_restored++;
	if (is_stale || restoration->n_restored == n_before)
		note_unknown(restoration, kept->fence);
}

static int restore_all(struct daemon *daemon, struct error *err)
{
	struct restoration restoration = { .daemon = daemon };
	struct error told = { "" };
	int result = state_each_lease(daemon->state, handle_kept, &restoration, err);
	for (size_t i = 0; i < restoration.n_unknown; i++)
		state_forget_lease(daemon->state, restoration.unknown[i], &told);
	free(restoration.unknown);
	store_all(daemon); /* until when those who were attached may come back */
	if (restoration.n_restored > 0)
		log_info("%zu leases go on; who was attached has %d s to come back", restoration.n_restored,
			GRACE_MS / 1000);
	return result;
}

/* ---- life ---- */

static int open_state(struct daemon *daemon, struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	if (asprintf(&path, "%s/state.db", daemon->paths->state_dir) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	/* Above whatever a lost file may have given: no daemon makes a million grants a second. */
	uint64_t floor = (uint64_t)clock_wall_ms() * 1000;
	return state_open(&daemon->loop, path, floor, &daemon->state, NULL, err);
}

int leases_create(struct daemon *daemon, struct error *err)
{
	const struct lock_listener listener = {
		.context = daemon,
		.handle_fence = handle_fence,
		.handle_no_fence = handle_no_fence,
		.handle_news = handle_lock_news,
	};
	daemon->boot = clock_boot_number();
	uv_timer_init(&daemon->loop, &daemon->save_again);
	daemon->save_again.data = daemon;
	daemon->lease_services = calloc(daemon->config->n_services + 1, sizeof(daemon->lease_services[0]));
	if (daemon->lease_services == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	int result = open_state(daemon, err);
	if (result == 0)
		result = lock_create(&daemon->loop, &daemon->config->lock, daemon->paths->state_dir, daemon->state,
			&listener, &daemon->lock, err);
	if (result == 0)
		result = restore_all(daemon, err);
	if (result == 0)
		result = keeper_create(daemon, err);
	return result;
}

void leases_destroy(struct daemon *daemon)
{
	if (daemon->save_again.data != NULL)
		uv_close((uv_handle_t *)&daemon->save_again, NULL);
	daemon->lock = lock_destroy(daemon->lock);
	if (daemon->state != NULL)
		keeper_destroy(daemon);
	daemon->state = state_close(daemon->state);
	free(daemon->secrets);
	free(daemon->lease_services);
	daemon->secrets = NULL;
	daemon->n_secrets = daemon->secrets_capacity = 0;
	daemon->lease_services = NULL;
}
