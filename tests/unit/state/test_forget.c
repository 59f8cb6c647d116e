/* A lease that was forgotten stays forgotten, whenever the process is killed; what it means when nothing can be
 * written. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

#define MANY 1000

/* Whether the store finds memory for its lists; of this program (see meson.build). */
static bool is_memory_gone;

void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void *__wrap_realloc(void *memory, size_t size)
{
	return is_memory_gone ? NULL : __real_realloc(memory, size);
}

static int begin(void **state)
{
	is_memory_gone = false;
	return bench_begin_in_memory(state);
}

static void forget(struct bench *bench, uint64_t fence)
{
	struct error error = { 0 };
	if (state_forget_lease(bench->state, fence, &error) != 0)
		fail_msg("%s", error.message);
}

static void put_many(struct bench *bench)
{
	for (uint64_t fence = 1; fence <= MANY; fence++)
		put(bench, fence, 3);
}

static void put_forget(struct bench *bench)
{
	for (uint64_t fence = 1; fence <= 3; fence++)
		put(bench, fence, 3);
	forget(bench, 1);
}

static void put_forget_reserve(struct bench *bench)
{
	put_forget(bench);
	reserve(bench, 10);
}

static void put_reserve_forget(struct bench *bench)
{
	for (uint64_t fence = 1; fence <= 3; fence++)
		put(bench, fence, 3);
	reserve(bench, 10);
	forget(bench, 1);
}

static void put_forget_twice(struct bench *bench)
{
	put_reserve_forget(bench);
	put(bench, 1, 2);
	forget(bench, 1);
}

static void test_killed_afterwards(void **state)
{
	struct bench *bench = *state;
	void (*const acts[])(struct bench *) = { put_forget, put_forget_reserve, put_reserve_forget, put_forget_twice };
	for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
		uint64_t fences[3];
		run_and_kill(bench, acts[i]);
		for (int turn = 0; turn < 2; turn++) {
			bench_open(bench, 0);
			assert_int_equal(read_fences(bench, fences, 3), 2);
			assert_int_equal(fences[0], 2);
			assert_int_equal(fences[1], 3);
			bench_close(bench);
		}
		bench_open(bench, 0);
		forget(bench, 2);
		forget(bench, 3);
		bench_close(bench);
	}
}

static void test_what_is_put_again_stays(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	for (int turn = 0; turn < 2; turn++) {
		put(bench, 1, 1);
		forget(bench, 1);
		put(bench, 1, 2);
		assert_int_equal(read_variant(bench, 1), 2);
		reserve(bench, 1);
		assert_int_equal(read_variant(bench, 1), 2);
	}
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_variant(bench, 1), 2);
}

static void test_nobody_knows_it(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	put(bench, 5, 5);
	reserve(bench, 1);
	forget(bench, 3);
	forget(bench, 7);
	forget(bench, UINT64_MAX);
	forget(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
}

static void test_many_at_once(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	put_many(bench);
	for (uint64_t fence = MANY; fence >= 1; fence--) {
		forget(bench, fence);
		if (fence == MANY / 2)
			reserve(bench, 1);
		assert_true(fence % 50 != 0 || read_fences(bench, NULL, 0) == fence - 1);
	}
	assert_int_equal(read_fences(bench, NULL, 0), 0);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

static uint64_t put_until_memory_is_gone(struct bench *bench, uint64_t fence)
{
	struct error error = { 0 };
	struct state_lease lease;
	is_memory_gone = true;
	do
		fill_lease(&lease, ++fence, 3);
	while (state_put_lease(bench->state, &lease, &error) == 0);
	assert_non_null(strstr(error.message, "no memory"));
	return fence - 1;
}

/* Neither of those that were put without memory, nor of those that only the database holds. */
static void test_an_end_needs_no_memory(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	put_many(bench);
	bench_close(bench);
	bench_open(bench, 0);
	for (int turn = 0; turn < 2; turn++) {
		uint64_t last = put_until_memory_is_gone(bench, MANY);
		for (uint64_t fence = MANY / 2 + 1; fence <= last; fence++)
			forget(bench, fence);
		is_memory_gone = false;
		assert_int_equal(read_fences(bench, NULL, 0), MANY / 2);
		for (uint64_t fence = MANY / 2 + 1; turn == 0 && fence <= MANY; fence++)
			put(bench, fence, 3);
		reserve(bench, 1);
	}
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), MANY / 2);
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

static int forget_with_full_disk(struct bench *bench, uint64_t fence, struct error *err)
{
	set_disk_full(true);
	int r = state_forget_lease(bench->state, fence, err);
	set_disk_full(false);
	return r;
}

static void put_five(struct bench *bench)
{
	for (uint64_t fence = 1; fence <= 5; fence++)
		put(bench, fence, 3);
}

static void test_a_full_disk_is_told_and_tried_again(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	struct state_lease lease;
	bench_open(bench, 0);
	put_five(bench);
	assert_int_equal(forget_with_full_disk(bench, 1, &error), -EFBIG);
	assert_non_null(strstr(error.message, bench->path));
	assert_non_null(strstr(error.message, "File too large"));
	assert_int_equal(forget_with_full_disk(bench, 2, &error), -EFBIG);
	assert_int_equal(read_fences(bench, NULL, 0), 3);
	fill_lease(&lease, 6, 3);
	set_disk_full(true);
	int r = state_put_lease(bench->state, &lease, &error);
	set_disk_full(false);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(read_fences(bench, NULL, 0), 3);
	/* There is room again, and nobody writes: it is tried for twice a second. */
	assert_int_equal(state_forget_lease(bench->state, 3, &error), -EFBIG);
	run_for(bench, 700);
	assert_int_equal(state_forget_lease(bench->state, 4, &error), 0);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
}

static void forget_unwritten(struct bench *bench)
{
	put_five(bench);
	forget_with_full_disk(bench, 1, NULL);
	forget_with_full_disk(bench, 2, NULL);
	put(bench, 6, 4);
}

static void forget_unwritten_and_wait(struct bench *bench)
{
	forget_unwritten(bench);
	run_for(bench, 700);
	put(bench, 7, 4);
}

static void forget_unwritten_and_reserve(struct bench *bench)
{
	forget_unwritten(bench);
	reserve(bench, 1);
}

/* The price of a disk that cannot be written: a kill brings ended leases back. Never is a grant lost. */
static void test_killed_with_a_full_disk(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, forget_unwritten);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 6);
	for (uint64_t fence = 1; fence <= 6; fence++)
		forget(bench, fence);
	bench_close(bench);
	run_and_kill(bench, forget_unwritten_and_wait);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 5);
	for (uint64_t fence = 3; fence <= 7; fence++)
		forget(bench, fence);
	bench_close(bench);
	run_and_kill(bench, forget_unwritten_and_reserve);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 4);
}

/* One of those that wait when there is room again was granted anew meanwhile. */
static void test_many_on_a_full_disk(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	bench_open(bench, 0);
	put_many(bench);
	reserve(bench, 1);
	set_disk_full(true);
	int r = 0;
	for (uint64_t fence = 1; fence <= MANY; fence++)
		r = state_forget_lease(bench->state, fence, &error);
	set_disk_full(false);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
	put(bench, MANY, 5);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
	assert_int_equal(read_variant(bench, MANY), 5);
}

/* What cannot be kept takes nothing along, and stands in nobody's way. */
static void test_a_refused_put_loses_nothing(void **state)
{
	struct bench *bench = *state;
	struct state_lease lease;
	bench_open(bench, 0);
	put(bench, 1, 1);
	forget(bench, 1);
	fill_lease(&lease, 0, 1);
	assert_int_equal(state_put_lease(bench->state, &lease, NULL), -EINVAL);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
	put(bench, 2, 2);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 1);
	assert_int_equal(read_variant(bench, 2), 2);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_killed_afterwards),
		WITH_BENCH(test_what_is_put_again_stays),
		WITH_BENCH(test_nobody_knows_it),
		WITH_BENCH(test_many_at_once),
		WITH_BENCH(test_an_end_needs_no_memory),
		WITH_BENCH(test_a_full_disk_is_told_and_tried_again),
		WITH_BENCH(test_killed_with_a_full_disk),
		WITH_BENCH(test_many_on_a_full_disk),
		WITH_BENCH(test_a_refused_put_loses_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
