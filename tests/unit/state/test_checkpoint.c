/* The log stays bounded, whatever the load, and no put ever waits for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

#define MIB (1024.0 * 1024)

static double log_mib(const struct bench *bench)
{
	char name[128];
	struct stat status;
	return stat(beside(bench, "-wal", name, sizeof(name)), &status) == 0 ? (double)status.st_size / MIB : 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/*
 * Writes without any pause for as long and at least as often; the largest size of the log. Blocks of fences, since what
 * else is written goes into the journal first.
 */
static double write_for(struct bench *bench, uint64_t us, size_t at_least, uint64_t *times, size_t *n, size_t max)
{
	double largest = 0;
	uint64_t end = now_us() + us;
	for (uint64_t fence = 1; now_us() < end || *n < at_least; fence++) {
		uint64_t begin = now_us();
		put(bench, fence, (unsigned)fence);
		reserve(bench, 1);
		assert_int_equal(state_forget_lease(bench->state, fence, NULL), 0);
		if (*n < max)
			times[(*n)++] = now_us() - begin;
		uv_run(&bench->loop, UV_RUN_NOWAIT);
		if (fence % 256 == 0 && log_mib(bench) > largest)
			largest = log_mib(bench);
	}
	if (log_mib(bench) > largest)
		largest = log_mib(bench);
	return largest;
}

static void test_without_a_pause(void **state)
{
	enum { MAX = 200000, ENOUGH = 2000 /* on however slow a machine */ };
	struct bench *bench = *state;
	CLEANUP_FREE uint64_t *times = calloc(MAX, sizeof(*times));
	size_t n = 0;
	bench_open(bench, 0);
	double largest = write_for(bench, 2000000, ENOUGH, times, &n, MAX);
	qsort(times, n, sizeof(*times), compare);
	print_message(
		"%zu pairs, log at most %.1f MiB; a pair: median %llu us, 99.9 %% within %llu us, longest %llu us\n", n,
		largest, (unsigned long long)times[n / 2], (unsigned long long)times[n * 999 / 1000],
		(unsigned long long)times[n - 1]);
	/* 16 MiB is when the next turn of the loop begins it anew. */
	assert_true(largest > 4);
	assert_true(largest < 20);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

/* With pauses, as leases come in life, it begins anew in one of them, as soon as it has grown by 4 MiB. */
static void test_with_pauses(void **state)
{
	struct bench *bench = *state;
	uint64_t ignored[1];
	size_t n = 0;
	double largest = 0;
	bench_open(bench, 0);
	for (int burst = 0; burst < 40; burst++) {
		double size = write_for(bench, 15000, 0, ignored, &n, 0);
		largest = size > largest ? size : largest;
		run_for(bench, 60);
	}
	print_message("log at most %.1f MiB\n", largest);
	assert_true(largest > 0);
	assert_true(largest < 10);
}

static void test_closed_while_a_checkpoint_is_due(void **state)
{
	struct bench *bench = *state;
	uint64_t ignored[1];
	size_t n = 0;
	for (int turn = 0; turn < 12; turn++) {
		bench_open(bench, 0);
		assert_null(bench->moved);
		write_for(bench, 20000 + (uint64_t)turn * 3000, 0, ignored, &n, 0);
		put(bench, 1000000 + (uint64_t)turn, 4);
		bench_close(bench);
	}
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 12);
}

static void test_a_closed_store_is_one_file(void **state)
{
	struct bench *bench = *state;
	char name[128];
	bench_open(bench, 0);
	put(bench, 1, 1);
	assert_true(log_mib(bench) > 0);
	bench_close(bench);
	assert_false(file_exists(beside(bench, "-wal", name, sizeof(name))));
	assert_false(file_exists(beside(bench, "-shm", name, sizeof(name))));
	assert_true(file_exists(bench->path));
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_without_a_pause, bench_begin_in_memory, bench_end),
		WITH_BENCH(test_with_pauses),
		WITH_BENCH(test_closed_while_a_checkpoint_is_due),
		WITH_BENCH(test_a_closed_store_is_one_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
