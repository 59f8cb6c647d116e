/* What is put is what is read, also by the next process; fences only grow. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

static void test_every_field_comes_back(void **state)
{
	struct bench *bench = *state;
	uint64_t fences[8];
	bench_open(bench, 0);
	for (unsigned i = 0; i < 7; i++)
		put(bench, 100 - i, i);
	for (int turn = 0; turn < 2; turn++) {
		assert_int_equal(read_fences(bench, fences, 8), 7);
		for (unsigned i = 0; i < 7; i++) {
			assert_int_equal(fences[i], 94 + i);
			assert_int_equal(read_variant(bench, 100 - i), i);
		}
		bench_close(bench);
		bench_open(bench, 0);
		assert_null(bench->moved);
	}
}

static void test_put_again_and_forget(void **state)
{
	struct bench *bench = *state;
	uint64_t fences[4];
	bench_open(bench, 0);
	put(bench, 1, 0);
	put(bench, 2, 3);
	put(bench, 1, 5);
	assert_int_equal(read_fences(bench, fences, 4), 2);
	assert_int_equal(read_variant(bench, 1), 5);
	assert_int_equal(state_forget_lease(bench->state, 1, NULL), 0);
	assert_int_equal(state_forget_lease(bench->state, 1, NULL), 0);
	assert_int_equal(state_forget_lease(bench->state, UINT64_MAX, NULL), 0);
	assert_int_equal(read_fences(bench, fences, 4), 1);
	assert_int_equal(fences[0], 2);
}

static void take_first_name(void *context, const struct state_lease *lease)
{
	size_t *n = context;
	char name[32];
	*n = lease->n_services;
	for (size_t i = 0; i < lease->n_services; i++) {
		snprintf(name, sizeof(name), "service-%zu", i);
		assert_string_equal(lease->services[i], name);
	}
}

static void test_many_services_in_one_lease(void **state)
{
	enum { N = 2000 };
	struct bench *bench = *state;
	struct state_lease lease;
	static char names[N][16];
	static const char *services[N];
	size_t n = 0;
	for (size_t i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "service-%zu", i);
		services[i] = names[i];
	}
	fill_lease(&lease, 7, 0);
	lease.services = services;
	lease.n_services = N;
	bench_open(bench, 0);
	assert_int_equal(state_put_lease(bench->state, &lease, NULL), 0);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(state_each_lease(bench->state, take_first_name, &n, NULL), 0);
	assert_int_equal(n, N);
}

static void test_what_cannot_be_kept_is_refused(void **state)
{
	struct bench *bench = *state;
	static const char *const bad_names[] = { "", "a b", " " };
	struct error error;
	struct state_lease lease;
	bench_open(bench, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++) {
		fill_lease(&lease, 3, 0);
		lease.n_services = 1;
		lease.services = &bad_names[i];
		assert_int_equal(state_put_lease(bench->state, &lease, &error), -EINVAL);
	}
	static const uint64_t bad_fences[] = { 0, UINT64_C(1) << 53, UINT64_MAX };
	for (size_t i = 0; i < ARRAY_SIZE(bad_fences); i++) {
		fill_lease(&lease, bad_fences[i], 0);
		assert_int_equal(state_put_lease(bench->state, &lease, &error), -EINVAL);
		assert_non_null(strstr(error.message, bench->path));
	}
	fill_lease(&lease, 3, 0);
	lease.mode = (enum lease_mode)17;
	assert_int_equal(state_put_lease(bench->state, &lease, &error), -EINVAL);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

static void test_fences_grow_over_restarts(void **state)
{
	struct bench *bench = *state;
	uint64_t expected = 1;
	for (int turn = 0; turn < 5; turn++) {
		bench_open(bench, 0);
		assert_int_equal(reserve(bench, 1000), expected);
		assert_int_equal(reserve(bench, 1), expected + 1000);
		expected += 1001;
		bench_close(bench);
	}
}

static void test_the_floor_is_for_new_databases(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 1700000000000000);
	assert_int_equal(reserve(bench, 10), 1700000000000001);
	bench_close(bench);
	bench_open(bench, 1800000000000000);
	assert_int_equal(reserve(bench, 10), 1700000000000011);
}

static void test_fences_run_out(void **state)
{
	struct bench *bench = *state;
	struct error error;
	uint64_t first, last = UINT64_C(1) << 53;
	assert_int_equal(bench_try_open(bench, UINT64_C(1) << 52, &error), -ERANGE);
	assert_non_null(strstr(error.message, "clock"));
	bench_open(bench, 0);
	assert_int_equal(state_reserve_fences(bench->state, 0, &first, &error), -EINVAL);
	assert_int_equal(state_reserve_fences(bench->state, UINT64_MAX, &first, &error), -EOVERFLOW);
	assert_int_equal(state_reserve_fences(bench->state, last, &first, &error), -EOVERFLOW);
	assert_int_equal(reserve(bench, last - 1), 1);
	assert_int_equal(state_reserve_fences(bench->state, 1, &first, &error), -EOVERFLOW);
	assert_non_null(strstr(error.message, bench->path));
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(state_reserve_fences(bench->state, 1, &first, &error), -EOVERFLOW);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static uint64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t show(const char *what, uint64_t *times, size_t n)
{
	qsort(times, n, sizeof(*times), compare);
	print_message("%s: median %.1f us, 99 in 100 within %.1f us\n", what, (double)times[n / 2] / 1000,
		(double)times[n * 99 / 100] / 1000);
	return times[n / 2];
}

/* The whole way, checkpoints included; generous, since other tests run beside. */
static void test_speed(void **state)
{
	enum { N = 3000, BLOCKS = 50 };
	struct bench *bench = *state;
	static uint64_t puts[N], forgets[N], blocks[BLOCKS];
	bench_open(bench, 0);
	for (size_t i = 0; i < N; i++) {
		uint64_t begin = nanoseconds();
		put(bench, i + 1, (unsigned)i);
		puts[i] = nanoseconds() - begin;
		begin = nanoseconds();
		state_forget_lease(bench->state, i + 1, NULL);
		forgets[i] = nanoseconds() - begin;
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	}
	for (size_t i = 0; i < BLOCKS; i++) {
		uint64_t begin = nanoseconds();
		reserve(bench, 1000);
		blocks[i] = nanoseconds() - begin;
	}
	uint64_t put_ns = show("a put", puts, N);
	show("a forget", forgets, N);
	show("a block of fences", blocks, BLOCKS);
	assert_true(put_ns < 1000000);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_every_field_comes_back),
		WITH_BENCH(test_put_again_and_forget),
		WITH_BENCH(test_many_services_in_one_lease),
		WITH_BENCH(test_what_cannot_be_kept_is_refused),
		WITH_BENCH(test_fences_grow_over_restarts),
		WITH_BENCH(test_the_floor_is_for_new_databases),
		WITH_BENCH(test_fences_run_out),
		WITH_BENCH(test_speed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
