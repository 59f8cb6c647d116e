/* Fences from the local lock: each one once, always larger, and what happens while the disk is full. */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "lock/lock.h"

struct bench {
	char folder[64];
	char path[96];
	uv_loop_t loop;
	uv_timer_t alive; /* as long as nothing else keeps a loop alive it runs no timers */
	struct state *state;
	struct lock *lock;
	uint64_t last_fence, last_request;
	size_t n_fences, n_refused;
	char text[sizeof(((struct error *)0)->message)];
	struct bench *again; /* ask for one more from inside the answer */
};

static void handle_fence(void *context, uint64_t request, uint64_t fence)
{
	struct bench *bench = context;
	if (fence <= bench->last_fence)
		fail_msg("fence %llu after %llu", (unsigned long long)fence, (unsigned long long)bench->last_fence);
	bench->last_fence = fence;
	bench->last_request = request;
	bench->n_fences++;
	if (bench->again != NULL) {
		bench->again = NULL;
		bench->lock->ops->want_fence(bench->lock, request + 1);
	}
}

static void handle_no_fence(void *context, uint64_t request, const char *text)
{
	struct bench *bench = context;
	bench->last_request = request;
	bench->n_refused++;
	snprintf(bench->text, sizeof(bench->text), "%s", text);
}

static void open_lock(struct bench *bench)
{
	struct lock_config config = { .backend = LOCK_BACKEND_LOCAL };
	struct lock_listener listener = {
		.context = bench, .handle_fence = handle_fence, .handle_no_fence = handle_no_fence
	};
	struct error error = { 0 };
	char *moved = NULL;
	if (state_open(&bench->loop, bench->path, 0, &bench->state, &moved, &error) != 0)
		fail_msg("%s", error.message);
	assert_null(moved);
	assert_int_equal(lock_create(&bench->loop, &config, ".", bench->state, &listener, &bench->lock, &error), 0);
}

static void close_lock(struct bench *bench)
{
	bench->lock = lock_destroy(bench->lock);
	bench->state = state_close(bench->state);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
}

static void handle_alive(uv_timer_t *timer)
{
	(void)timer;
}

static int set_up(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	snprintf(bench->folder, sizeof(bench->folder), "/tmp/gpumgr-lock-XXXXXX");
	if (mkdtemp(bench->folder) == NULL)
		return -1;
	snprintf(bench->path, sizeof(bench->path), "%s/state.db", bench->folder);
	*state = bench;
	if (uv_loop_init(&bench->loop) < 0)
		return -1;
	uv_timer_init(&bench->loop, &bench->alive);
	return uv_timer_start(&bench->alive, handle_alive, 5, 5);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)type;
	(void)place;
	remove(path);
	return 0;
}

static int tear_down(void **state)
{
	struct bench *bench = *state;
	close_lock(bench);
	uv_close((uv_handle_t *)&bench->alive, NULL);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&bench->loop);
	nftw(bench->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(bench);
	return r;
}

static void ask(struct bench *bench, uint64_t request)
{
	size_t before = bench->n_fences + bench->n_refused;
	bench->lock->ops->want_fence(bench->lock, request);
	assert_int_equal(bench->n_fences + bench->n_refused, before + 1);
	assert_int_equal(bench->last_request, request);
}

static void test_fences_grow_over_blocks(void **state)
{
	struct bench *bench = *state;
	open_lock(bench);
	for (uint64_t i = 1; i <= 10000; i++) {
		ask(bench, i);
		assert_int_equal(bench->last_fence, i);
		if (i % 100 == 0)
			uv_run(&bench->loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(bench->n_refused, 0);
}

/* A burst that never lets the loop come round has to wait for the disk, but gets its fences. */
static void test_a_burst_within_one_turn_of_the_loop(void **state)
{
	struct bench *bench = *state;
	open_lock(bench);
	for (uint64_t i = 1; i <= 20000; i++)
		ask(bench, i);
	assert_int_equal(bench->last_fence, 20000);
}

static void test_fences_grow_over_restarts(void **state)
{
	struct bench *bench = *state;
	for (int turn = 0; turn < 20; turn++) {
		uint64_t before = bench->last_fence;
		open_lock(bench);
		for (uint64_t i = 0; i < 700; i++)
			ask(bench, i);
		/* What a restart skips is bounded: the rest of a block and the one after it. */
		assert_true(bench->last_fence <= before + 700 + 2000);
		close_lock(bench);
	}
	assert_int_equal(bench->n_fences, 20 * 700);
}

static void test_asking_from_inside_the_answer(void **state)
{
	struct bench *bench = *state;
	open_lock(bench);
	bench->again = bench;
	bench->lock->ops->want_fence(bench->lock, 1);
	assert_int_equal(bench->n_fences, 2);
	assert_int_equal(bench->last_request, 2);
}

/* What the lock file repeats: the first fence that is not reserved yet. */
static uint64_t reserved_until(const struct bench *bench)
{
	char name[128], text[32] = "";
	snprintf(name, sizeof(name), "%s.lock", bench->path);
	CLEANUP_FCLOSE FILE *file = fopen(name, "re");
	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	return strtoull(text, NULL, 10);
}

static void ask_steadily(struct bench *bench, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		ask(bench, i);
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	}
}

/* The disk is waited for while nobody asks; and when there is no such moment, in good time. */
static void test_a_block_is_reserved_in_a_pause(void **state)
{
	struct bench *bench = *state;
	open_lock(bench);
	uv_update_time(&bench->loop);
	uint64_t begin = uv_hrtime();
	ask_steadily(bench, 600);
	/* On a machine that is busy with other things a pause may have come by itself. */
	if (uv_hrtime() - begin < 20000000)
		assert_int_equal(reserved_until(bench), 1001);
	for (int i = 0; i < 400 && reserved_until(bench) == 1001; i++)
		uv_run(&bench->loop, UV_RUN_ONCE);
	assert_int_equal(bench->n_fences, 600);
	assert_in_range(reserved_until(bench), 2001, 3001);
	uint64_t before = reserved_until(bench);
	/* Another whole block and three quarters of the next. */
	ask_steadily(bench, 400 + (before - 1001) * 3 / 4 + 1);
	assert_true(reserved_until(bench) > before);
	assert_int_equal(bench->last_fence, bench->n_fences);
}

/* Nothing that this process writes into files arrives any more, not even what a test would say: only for a moment. */
static void set_disk_full(bool is_full)
{
	struct rlimit limit;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = is_full ? 0 : limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
}

static void ask_with_full_disk(struct bench *bench, uint64_t request)
{
	set_disk_full(true);
	bench->lock->ops->want_fence(bench->lock, request);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
	set_disk_full(false);
}

/* Whether a fence came within five seconds. */
static bool ask_until_there_is_one(struct bench *bench)
{
	uv_timer_t ticks;
	size_t before = bench->n_fences;
	uv_timer_init(&bench->loop, &ticks);
	uv_update_time(&bench->loop);
	uint64_t end = uv_now(&bench->loop) + 5000;
	uv_timer_start(&ticks, (uv_timer_cb)uv_update_time, 20, 20);
	while (bench->n_fences == before && uv_now(&bench->loop) < end) {
		uv_run(&bench->loop, UV_RUN_ONCE);
		ask(bench, 77);
	}
	uv_close((uv_handle_t *)&ticks, NULL);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
	return bench->n_fences > before;
}

static void test_no_fence_while_nothing_can_be_written(void **state)
{
	struct bench *bench = *state;
	open_lock(bench);
	for (uint64_t i = 0; bench->n_refused == 0 && i < 100000; i++)
		ask_with_full_disk(bench, i);
	assert_int_equal(bench->n_fences, 1000);
	if (strstr(bench->text, bench->path) == NULL || strstr(bench->text, "File too large") == NULL)
		fail_msg("\"%s\"", bench->text);
	for (uint64_t i = 0; i < 1000; i++)
		ask_with_full_disk(bench, i);
	assert_int_equal(bench->n_fences, 1000);
	assert_int_equal(bench->n_refused, 1001);
	assert_true(ask_until_there_is_one(bench));
	assert_true(bench->last_fence >= 1001);
	for (uint64_t i = 0; i < 3000; i++)
		ask(bench, i);
}

static void test_beginning_while_nothing_can_be_written(void **state)
{
	struct bench *bench = *state;
	struct lock_config config = { .backend = LOCK_BACKEND_LOCAL };
	struct lock_listener listener = {
		.context = bench, .handle_fence = handle_fence, .handle_no_fence = handle_no_fence
	};
	struct error error = { 0 };
	open_lock(bench);
	bench->lock = lock_destroy(bench->lock);
	set_disk_full(true);
	int r = lock_create(&bench->loop, &config, ".", bench->state, &listener, &bench->lock, &error);
	set_disk_full(false);
	assert_int_equal(r, 0);
	ask(bench, 5);
	assert_int_equal(bench->n_refused, 1);
	assert_true(ask_until_there_is_one(bench));
}

static void test_what_is_not_built_in_is_refused(void **state)
{
	struct bench *bench = *state;
	struct lock_config config = { .backend = (enum lock_backend_choice)99 };
	struct lock_listener listener = { 0 };
	struct error error;
	assert_int_equal(lock_create(&bench->loop, &config, ".", NULL, &listener, &bench->lock, &error), -ENOTSUP);
	assert_non_null(strstr(error.message, "lock.backend"));
	assert_non_null(strstr(error.message, "local"));
	assert_null(lock_destroy(NULL));
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_fences_grow_over_blocks),
		WITH_BENCH(test_a_burst_within_one_turn_of_the_loop),
		WITH_BENCH(test_fences_grow_over_restarts),
		WITH_BENCH(test_asking_from_inside_the_answer),
		WITH_BENCH(test_a_block_is_reserved_in_a_pause),
		WITH_BENCH(test_no_fence_while_nothing_can_be_written),
		WITH_BENCH(test_beginning_while_nothing_can_be_written),
		WITH_BENCH(test_what_is_not_built_in_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
