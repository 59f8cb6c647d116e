/*
 * The stream of events of a container engine. However it is cut into pieces it means the same; it never grows beyond
 * its bounds, and only an event that names a container concerns anybody.
 */
#include "driver/docker_events.c" /* for what it gives to libcurl */

#include "fuzz.h"

struct watcher {
	struct docker_user user;
	unsigned n_meant;
	uint64_t hash;
};

static bool is_meant(struct docker_user *user, const struct docker_event *event)
{
	struct watcher *watcher = (struct watcher *)user;
	FUZZ_CHECK(event->id != NULL && event->name != NULL && event->action != NULL);
	watcher->n_meant++;
	for (const char *c = event->id; *c != '\0'; c++)
		watcher->hash = (watcher->hash ^ (unsigned char)*c) * 1099511628211u;
	return strcmp(event->name, "mcn_ollama") == 0;
}

struct outcome {
	bool goes_on, is_due;
	unsigned n_odd, n_meant;
	uint64_t hash;
};

static struct outcome feed(uv_loop_t *loop, const uint8_t *data, size_t size, size_t piece)
{
	static struct docker docker; /* 64 KiB of line */
	struct watcher watcher = { .user.is_meant = is_meant };
	struct outcome outcome = { .goes_on = true };
	memset(&docker, 0, offsetof(struct docker, line));
	docker.line_length = docker.n_odd_lines = 0;
	docker.line_is_cut = false;
	docker.users = &watcher.user;
	uv_idle_init(loop, &docker.idle);
	for (size_t at = 0; at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		outcome.goes_on = handle_data(&docker, (const char *)data + at, n);
		FUZZ_CHECK(docker.line_length <= EVENT_LINE_MAX);
		FUZZ_CHECK(docker.n_odd_lines <= ODD_LINES_MAX);
		FUZZ_CHECK(outcome.goes_on == (docker.n_odd_lines < ODD_LINES_MAX));
	}
	FUZZ_CHECK(uv_is_active((uv_handle_t *)&docker.idle) == (docker.n_odd_lines > 0 || watcher.user.is_due));
	uv_close((uv_handle_t *)&docker.idle, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	outcome.is_due = watcher.user.is_due;
	outcome.n_odd = docker.n_odd_lines;
	outcome.n_meant = watcher.n_meant;
	outcome.hash = watcher.hash;
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uv_loop_t loop;
	static bool is_ready;
	if (!is_ready)
		is_ready = uv_loop_init(&loop) == 0;
	struct outcome whole = feed(&loop, data, size, size > 0 ? size : 1);
	struct outcome pieces = feed(&loop, data, size, 7);
	FUZZ_CHECK(whole.n_odd == pieces.n_odd && whole.is_due == pieces.is_due);
	FUZZ_CHECK(whole.n_meant == pieces.n_meant && whole.hash == pieces.hash);
	return 0;
}
