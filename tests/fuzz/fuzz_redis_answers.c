/*
 * The lock behind Redis, and the server or the Sentinel that it asks. Input: a byte of options, what is asked of the
 * lock and what time passes (ACTIONS bytes), then the answers, see redis_server.c. Whatever is answered, the lock keeps
 * to what it promises its listener: news only while it is wanted, fences that only grow, and nothing left behind.
 *
 * Time is of this file's making, but for libFuzzer, which reads another clock.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "lock/lock.h"
#include "redis_server.h"
#include "scratch.h"

#define ACTIONS 12
#define TURNS 40 /* for each action */
#define TTL_MS 3000
#define REQUESTS_MAX 16
#define FENCE_MAX (UINT64_C(1) << 53)

struct promises {
	bool is_inside; /* of a call: nothing but a fence may come from there */
	bool is_destroyed, wanted, was_wanted, is_held;
	uint64_t next_request, last_fence;
	uint64_t requests[REQUESTS_MAX]; /* that were not answered yet; 0: none */
	unsigned n_forces;
};

static uv_loop_t loop;
static uv_async_t keeper; /* what else a daemon has on its loop: the lock alone does not keep it running */
static struct redis_server server;
static struct promises promises;
static uint64_t passed_ms = 1000000;

/* ---- the world ---- */

/* For the lock and for libuv. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE && clock != CLOCK_BOOTTIME)
		return (int)syscall(SYS_clock_gettime, clock, now);
	now->tv_sec = (time_t)(passed_ms / 1000);
	now->tv_nsec = (long)(passed_ms % 1000) * 1000000;
	return 0;
}

int __wrap_state_reserve_fences(struct state *state, uint64_t n, uint64_t *ret_first, struct error *err);
uint64_t __wrap_state_next_fence(const struct state *state);

/* A store that gave none yet. */
uint64_t __wrap_state_next_fence(const struct state *state)
{
	(void)state;
	return 1;
}

int __wrap_state_reserve_fences(struct state *state, uint64_t n, uint64_t *ret_first, struct error *err)
{
	(void)state;
	(void)err;
	FUZZ_CHECK(n > 0 && n < FENCE_MAX);
	*ret_first = 1;
	return 0;
}

int __real_uv_tcp_connect(
	uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb handle_connected);
int __wrap_uv_tcp_connect(
	uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb handle_connected);

/* Whatever address a Sentinel names, nobody but the server here is called. */
int __wrap_uv_tcp_connect(
	uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb handle_connected)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)address;
	if (address->sa_family != AF_INET || in->sin_addr.s_addr != htonl(INADDR_LOOPBACK) ||
		in->sin_port != htons(server.port))
		return UV_ENETUNREACH;
	return __real_uv_tcp_connect(request, handle, address, handle_connected);
}

int __wrap_uv_getaddrinfo(uv_loop_t *of, uv_getaddrinfo_t *request, uv_getaddrinfo_cb handle_resolved, const char *host,
	const char *service, const struct addrinfo *hints);

int __wrap_uv_getaddrinfo(uv_loop_t *of, uv_getaddrinfo_t *request, uv_getaddrinfo_cb handle_resolved, const char *host,
	const char *service, const struct addrinfo *hints)
{
	(void)of;
	(void)request;
	(void)handle_resolved;
	(void)host;
	(void)service;
	(void)hints;
	return UV_ENOMEM;
}

/* ---- the listener ---- */

/* With FUZZ_PRINT, so that somebody can see what an input does. */
static void print(const char *what, uint64_t number, const char *text)
{
	static int wanted = -1;
	if (wanted < 0)
		wanted = getenv("FUZZ_PRINT") != NULL;
	if (wanted)
		fprintf(stderr, "%s %llu %s\n", what, (unsigned long long)number, text);
}

static void end_request(uint64_t request)
{
	for (size_t i = 0; i < REQUESTS_MAX; i++)
		if (promises.requests[i] == request) {
			promises.requests[i] = 0;
			return;
		}
	FUZZ_CHECK(!"asked for");
}

static void handle_fence(void *context, uint64_t request, uint64_t fence)
{
	(void)context;
	print("fence", fence, "");
	FUZZ_CHECK(!promises.is_destroyed && promises.wanted && promises.is_held);
	FUZZ_CHECK(fence > promises.last_fence && fence < FENCE_MAX);
	promises.last_fence = fence;
	end_request(request);
}

static void handle_no_fence(void *context, uint64_t request, const char *text)
{
	(void)context;
	print("no fence", request, text);
	FUZZ_CHECK(!promises.is_destroyed && promises.wanted && text[0] != '\0' && fuzz_is_printable(text));
	end_request(request);
}

static void handle_news(void *context, enum lock_news news, const char *text)
{
	(void)context;
	print("news", news, text);
	FUZZ_CHECK(!promises.is_inside && !promises.is_destroyed && promises.wanted && fuzz_is_printable(text));
	FUZZ_CHECK(news == LOCK_HELD || text[0] != '\0');
	FUZZ_CHECK(news != LOCK_YIELDING || promises.is_held);
	FUZZ_CHECK(news != LOCK_LOST || promises.is_held || !promises.was_wanted);
	promises.is_held = news == LOCK_HELD || news == LOCK_YIELDING;
	promises.was_wanted = true;
}

static void handle_forced(void *context, bool is_released, const char *holder, const char *problem)
{
	(void)context;
	print("forced", is_released, is_released ? holder : problem);
	FUZZ_CHECK(!promises.is_inside && !promises.is_destroyed && promises.n_forces > 0);
	FUZZ_CHECK(fuzz_is_printable(holder) && fuzz_is_printable(problem));
	FUZZ_CHECK(is_released || holder[0] == '\0');
	promises.n_forces--;
}

static const struct lock_listener listener = {
	.handle_fence = handle_fence,
	.handle_no_fence = handle_no_fence,
	.handle_news = handle_news,
};

/* ---- the daemon's part ---- */

static void want(struct lock *lock, bool wanted)
{
	if (!wanted)
		memset(promises.requests, 0, sizeof(promises.requests));
	if (wanted != promises.wanted)
		promises.is_held = false;
	promises.wanted = wanted;
	lock->ops->want(lock, wanted, "comfyui");
}

static void want_fence(struct lock *lock)
{
	for (size_t i = 0; promises.is_held && i < REQUESTS_MAX; i++)
		if (promises.requests[i] == 0) {
			uint64_t request = promises.requests[i] = ++promises.next_request;
			lock->ops->want_fence(lock, request);
			return;
		}
}

static void act(struct lock *lock, uint8_t action)
{
	static const unsigned steps_ms[] = { 1, 25, 60, 450, 1100, 2100, 6000, 30000 };
	promises.is_inside = true;
	if (action % 8 < 2) {
		want(lock, true);
	} else if (action % 8 == 2) {
		want(lock, false);
	} else if (action % 8 == 3) {
		for (unsigned i = 0; i <= (action >> 3) % 4u; i++)
			want_fence(lock);
	} else if (action % 8 == 4) {
		promises.n_forces++;
		FUZZ_CHECK(lock->ops->force(lock, handle_forced, NULL) == 0);
	} else {
		passed_ms += steps_ms[(action >> 3) % 8];
	}
	promises.is_inside = false;
}

static void describe(const struct lock *lock)
{
	struct lock_status status;
	lock_describe(lock, &status);
	FUZZ_CHECK(status.state <= LOCK_STATE_UNAVAILABLE && status.state != LOCK_STATE_LOCAL);
	FUZZ_CHECK(fuzz_is_printable(status.holder) && fuzz_is_printable(status.problem));
	FUZZ_CHECK(status.holder_ttl_ms >= -1);
}

static void run_for_a_while(void)
{
	for (unsigned i = 0, quiet = 0; i < TURNS && quiet < 4; i++) {
		passed_ms++;
		uv_run(&loop, UV_RUN_NOWAIT);
		quiet = redis_server_turn(&server) ? 0 : quiet + 1;
	}
}

static void end(struct lock *lock)
{
	char path[256];
	promises.is_inside = promises.is_destroyed = true;
	lock_destroy(lock);
	redis_server_end(&server);
	uv_close((uv_handle_t *)&keeper, NULL);
	for (unsigned i = 0; i < 16 && uv_loop_alive(&loop); i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	FUZZ_CHECK(!uv_loop_alive(&loop));
	snprintf(path, sizeof(path), "%s/lock.redis", scratch_folder());
	remove(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup(LOG_LEVEL_ERROR, false);
	signal(SIGPIPE, SIG_IGN);
	FUZZ_CHECK(uv_loop_init(&loop) == 0);
	redis_server_open(&server);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t options = fuzz_u8(&input), actions[ACTIONS];
	char url[256];
	static char key[] = "gpu_mutex_v2";
	struct lock_config config = { .backend = LOCK_BACKEND_REDIS, .url = url, .key = key, .ttl_ms = TTL_MS };
	struct lock *lock = NULL;
	struct error err = { 0 };
	const char *password = options & 2 ? "me:s3cr3t-pass@" : "";
	if (options & 1)
		snprintf(url, sizeof(url), "redis+sentinel://%s127.0.0.1:%u,127.0.0.1:%u/" REDIS_SERVER_MASTER,
			password, server.port, server.port);
	else
		snprintf(url, sizeof(url), "unix://%s%s", server.path, options & 2 ? "?db=3&password=s3cr3t-pass" : "");
	fuzz_take(&input, actions, sizeof(actions));
	promises = (struct promises){ 0 };
	redis_server_begin(&server, &input);
	FUZZ_CHECK(uv_async_init(&loop, &keeper, NULL) == 0);
	FUZZ_CHECK(lock_create(&loop, &config, scratch_folder(), NULL, &listener, &lock, &err) == 0);
	run_for_a_while();
	for (size_t i = 0; i < ACTIONS; i++) {
		act(lock, actions[i]);
		run_for_a_while();
		describe(lock);
	}
	end(lock);
	return 0;
}
