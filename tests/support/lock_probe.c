/*
 * A daemon's side of the lock without the daemon: wishes come as lines on stdin, news go as lines to stdout.
 *
 *   lock-probe STATE_DIR URL KEY TTL_MS
 *
 * want [SERVICE]   unwant   fence NUMBER   force   describe   work MS (blocks the loop)   quit (so does the end of
 * stdin)
 *
 * Each line that is printed begins with CLOCK_MONOTONIC in microseconds:
 *   news held|yielding|lost|foreign|unavailable TEXT     fence NUMBER FENCE     no_fence NUMBER TEXT
 *   forced 0|1 HOLDER|PROBLEM     state WORD WAITING TTL_MS HOLDER|PROBLEM
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "lock/lock.h"

struct probe {
	uv_loop_t loop;
	uv_pipe_t input;
	struct state *state;
	struct lock *lock;
	char line[4096];
	size_t n;
	char buffer[4096];
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld ", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
	va_list args;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static void handle_fence(void *context, uint64_t request, uint64_t fence)
{
	(void)context;
	say("fence %llu %llu", (unsigned long long)request, (unsigned long long)fence);
}

static void handle_no_fence(void *context, uint64_t request, const char *text)
{
	(void)context;
	say("no_fence %llu %s", (unsigned long long)request, text);
}

static void handle_news(void *context, enum lock_news news, const char *text)
{
	static const char *const names[] = {
		[LOCK_HELD] = "held",
		[LOCK_YIELDING] = "yielding",
		[LOCK_LOST] = "lost",
		[LOCK_FOREIGN] = "foreign",
		[LOCK_UNAVAILABLE] = "unavailable",
	};
	(void)context;
	say("news %s %s", names[news], text);
}

static void handle_forced(void *context, bool is_released, const char *holder, const char *problem)
{
	(void)context;
	say("forced %d %s", is_released, is_released ? holder : problem);
}

static void describe(struct probe *probe)
{
	static const char *const names[] = {
		[LOCK_STATE_LOCAL] = "local",
		[LOCK_STATE_UNKNOWN] = "unknown",
		[LOCK_STATE_FREE] = "free",
		[LOCK_STATE_OURS] = "ours",
		[LOCK_STATE_FOREIGN] = "foreign",
		[LOCK_STATE_UNAVAILABLE] = "unavailable",
	};
	struct lock_status status;
	lock_describe(probe->lock, &status);
	say("state %s %zu %lld %s", names[status.state], status.n_waiting, (long long)status.holder_ttl_ms,
		status.state == LOCK_STATE_UNAVAILABLE ? status.problem : status.holder);
}

static void work(const char *text)
{
	struct timespec time = { .tv_sec = atol(text) / 1000, .tv_nsec = atol(text) % 1000 * 1000000 };
	nanosleep(&time, NULL);
}

static bool obey(struct probe *probe, char *line)
{
	char *rest = line;
	const char *word = strsep(&rest, " ");
	struct lock *lock = probe->lock;
	if (strcmp(word, "want") == 0)
		lock->ops->want(lock, true, rest);
	else if (strcmp(word, "unwant") == 0)
		lock->ops->want(lock, false, NULL);
	else if (strcmp(word, "fence") == 0 && rest != NULL)
		lock->ops->want_fence(lock, strtoull(rest, NULL, 10));
	else if (strcmp(word, "force") == 0)
		lock->ops->force(lock, handle_forced, probe);
	else if (strcmp(word, "describe") == 0)
		describe(probe);
	else if (strcmp(word, "work") == 0 && rest != NULL)
		work(rest);
	else
		return false;
	return true;
}

static void handle_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct probe *probe = handle->data;
	(void)suggested;
	*buffer = uv_buf_init(probe->buffer, sizeof(probe->buffer));
}

static void handle_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct probe *probe = stream->data;
	bool goes_on = n >= 0;
	for (ssize_t i = 0; i < n && goes_on; i++) {
		char c = buffer->base[i];
		if (c != '\n' && probe->n < sizeof(probe->line) - 1) {
			probe->line[probe->n++] = c;
			continue;
		}
		probe->line[probe->n] = '\0';
		probe->n = 0;
		goes_on = obey(probe, probe->line);
	}
	if (!goes_on)
		uv_stop(&probe->loop);
}

static int begin(struct probe *probe, char **argv)
{
	struct error err;
	char path[4096];
	struct timespec now;
	const struct lock_config config = {
		.backend = LOCK_BACKEND_REDIS, .url = argv[2], .key = argv[3], .ttl_ms = strtoull(argv[4], NULL, 10)
	};
	const struct lock_listener listener = { .context = probe,
		.handle_fence = handle_fence,
		.handle_no_fence = handle_no_fence,
		.handle_news = handle_news };
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(path, sizeof(path), "%s/state.db", argv[1]);
	int r = state_open(&probe->loop, path, (uint64_t)now.tv_sec * 1000000, &probe->state, NULL, &err);
	if (r == 0)
		r = lock_create(&probe->loop, &config, argv[1], probe->state, &listener, &probe->lock, &err);
	if (r < 0)
		say("failed %s", err.message);
	return r;
}

int main(int argc, char **argv)
{
	struct probe probe = { 0 };
	if (argc != 5) {
		fprintf(stderr, "usage: lock-probe STATE_DIR URL KEY TTL_MS\n");
		return 2;
	}
	log_setup(LOG_LEVEL_INFO, false);
	uv_loop_init(&probe.loop);
	uv_pipe_init(&probe.loop, &probe.input, 0);
	probe.input.data = &probe;
	uv_pipe_open(&probe.input, 0);
	int r = begin(&probe, argv);
	if (r == 0) {
		uv_read_start((uv_stream_t *)&probe.input, handle_room, handle_input);
		uv_run(&probe.loop, UV_RUN_DEFAULT);
	}
	probe.lock = lock_destroy(probe.lock);
	probe.state = state_close(probe.state);
	uv_close((uv_handle_t *)&probe.input, NULL);
	uv_run(&probe.loop, UV_RUN_DEFAULT);
	uv_loop_close(&probe.loop);
	return r < 0;
}
