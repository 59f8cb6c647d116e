/* What is kept besides leases, through the public calls of state/knowledge.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "state/knowledge.h"
#include "state/sql.h"
#include "state/transact.h"
#include "support.h"

#define ALL_MAX 512

struct told {
	size_t n;
	char text[ALL_MAX];
};

static void tell(struct told *told, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct told *told, const char *format, ...)
{
	va_list args;
	size_t used = strlen(told->text);
	va_start(args, format);
	vsnprintf(told->text + used, sizeof(told->text) - used, format, args);
	va_end(args);
	told->n++;
}

static void handle_service(void *context, const struct known_service *service)
{
	tell(context, "%s:%lld:%lld ", service->name, (long long)service->boot_ms, (long long)service->peak_mib);
}

static void handle_transition(void *context, const struct known_transition *transition)
{
	tell(context, "%s [%s] ", transition->what, transition->services);
}

static void expect_services(struct bench *bench, const char *text)
{
	struct told told = { 0 };
	struct error err;
	assert_int_equal(knowledge_each_service(bench->state, handle_service, &told, &err), 0);
	assert_string_equal(told.text, text);
}

static void expect_transitions(struct bench *bench, const char *text)
{
	struct told told = { 0 };
	struct error err;
	assert_int_equal(knowledge_each_transition(bench->state, handle_transition, &told, &err), 0);
	assert_string_equal(told.text, text);
}

static void expect_phase(struct bench *bench, int number)
{
	struct known_phase phase;
	struct error err;
	assert_int_equal(knowledge_read_phase(bench->state, &phase, &err), 0);
	assert_int_equal(phase.number, number);
	assert_true(number == 0 || phase.at_wall_ms == 1700000000000);
}

static void write_some(struct bench *bench)
{
	const struct known_service services[] = {
		{ .name = "comfyui", .boot_ms = 31000, .peak_mib = 19876 },
		{ .name = "vidi", .boot_ms = KNOWLEDGE_UNKNOWN, .peak_mib = 0 },
		{ .name = "zoo", .boot_ms = 0, .peak_mib = KNOWLEDGE_UNKNOWN },
	};
	const struct known_phase phase = { .number = 4, .at_wall_ms = 1700000000000 };
	const struct known_transition transitions[] = {
		{ .what = "phase 4 (video)", .services = "vidi comfyui" },
		{ .what = "stop zoo", .services = "zoo" },
	};
	struct error err;
	assert_int_equal(knowledge_write(bench->state, ARRAY_SIZE(services), services, &phase, &err), 0);
	assert_int_equal(knowledge_write_transitions(bench->state, ARRAY_SIZE(transitions), transitions, &err), 0);
}

static void expect_some(struct bench *bench)
{
	expect_services(bench, "comfyui:31000:19876 vidi:-1:0 zoo:0:-1 ");
	expect_transitions(bench, "phase 4 (video) [vidi comfyui] stop zoo [zoo] ");
	expect_phase(bench, 4);
}

static void test_nothing_at_first(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	expect_services(bench, "");
	expect_transitions(bench, "");
	expect_phase(bench, 0);
}

static void test_it_survives_an_end_and_a_kill(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	write_some(bench);
	expect_some(bench);
	bench_close(bench);
	bench_open(bench, 0);
	expect_some(bench);
	bench_close(bench);
	remove_folder(bench->folder);
	assert_int_equal(mkdir(bench->folder, 0700), 0);
	run_and_kill(bench, write_some);
	bench_open(bench, 0);
	assert_null(bench->moved);
	expect_some(bench);
}

static void test_a_write_replaces_all(void **state)
{
	struct bench *bench = *state;
	const struct known_service other = { .name = "other", .boot_ms = 1, .peak_mib = 2 };
	const struct known_phase none = { 0 };
	struct error err;
	bench_open(bench, 0);
	write_some(bench);
	assert_int_equal(knowledge_write(bench->state, 1, &other, &none, &err), 0);
	expect_services(bench, "other:1:2 ");
	expect_phase(bench, 0);
	expect_transitions(bench, "phase 4 (video) [vidi comfyui] stop zoo [zoo] ");
	assert_int_equal(knowledge_write_transitions(bench->state, 0, NULL, &err), 0);
	expect_transitions(bench, "");
}

/* What cannot be: nothing of it is written, and what was there stays. */
static void test_all_or_nothing(void **state)
{
	struct bench *bench = *state;
	const struct known_service twice[] = { { .name = "a" }, { .name = "b" }, { .name = "a" } };
	const struct known_phase impossible = { .number = -1 };
	struct error err = { "" };
	bench_open(bench, 0);
	write_some(bench);
	assert_true(knowledge_write(bench->state, ARRAY_SIZE(twice), twice, &(struct known_phase){ 0 }, &err) < 0);
	assert_non_null(strstr(err.message, bench->path));
	assert_true(knowledge_write(bench->state, 0, NULL, &impossible, &err) < 0);
	expect_some(bench);
}

static sqlite3_int64 synchronous(struct bench *bench)
{
	sqlite3_int64 level = -1;
	assert_int_equal(sql_number(state_database(bench->state), "PRAGMA synchronous", &level), SQLITE_OK);
	return level;
}

/* That these do not wait for the disk must not keep fences from doing so. */
static void test_fences_still_wait_for_the_disk(void **state)
{
	struct bench *bench = *state;
	struct error err;
	const struct known_phase impossible = { .number = -1 };
	bench_open(bench, 0);
	assert_int_equal(synchronous(bench), 2);
	write_some(bench);
	assert_int_equal(synchronous(bench), 2);
	assert_true(knowledge_write(bench->state, 0, NULL, &impossible, &err) < 0);
	assert_int_equal(synchronous(bench), 2);
	reserve(bench, 10);
	put(bench, 4, 3);
	write_some(bench);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_variant(bench, 4), 3);
	expect_some(bench);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_nothing_at_first),
		WITH_BENCH(test_it_survives_an_end_and_a_kill),
		WITH_BENCH(test_a_write_replaces_all),
		WITH_BENCH(test_all_or_nothing),
		WITH_BENCH(test_fences_still_wait_for_the_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
