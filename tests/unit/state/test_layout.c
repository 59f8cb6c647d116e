/* Older layouts become today's in one step that happens or does not, and what is there stays. */
#include <errno.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "state/layout.h"
#include "state/sql.h"
#include "support.h"

static sqlite3 *open_file(struct bench *bench)
{
	sqlite3 *db = NULL;
	struct error error = { 0 };
	if (!file_exists(bench->path))
		write_file(bench->path, "", 0);
	if (sql_open(bench->path, &db, &error) != 0)
		fail_msg("%s", error.message);
	return db;
}

static int prepare(struct bench *bench, const struct layout *layout, uint64_t *ret_next, struct error *err)
{
	CLEANUP(sql_close) sqlite3 *db = open_file(bench);
	return layout_prepare(db, bench->path, layout, 5, ret_next, err);
}

static int64_t ask(struct bench *bench, const char *statement)
{
	CLEANUP(sql_close) sqlite3 *db = open_file(bench);
	sqlite3_int64 number = -1;
	int code = sql_number(db, statement, &number);
	if (code != SQLITE_OK)
		fail_msg("%s: %s", statement, sqlite3_errmsg(db));
	return number;
}

/* Today's layout and two imagined ones after it. */
static struct layout later(const char **steps, size_t n)
{
	static const char *const imagined[] = {
		"ALTER TABLE leases ADD COLUMN weight INTEGER NOT NULL DEFAULT 3;",
		"CREATE TABLE hosts (name TEXT); INSERT INTO hosts VALUES ('here');",
	};
	for (size_t i = 0; i < layout_today.n; i++)
		steps[i] = layout_today.steps[i];
	for (size_t i = 0; i < n; i++)
		steps[layout_today.n + i] = imagined[i];
	return (struct layout){ .n = layout_today.n + n, .steps = steps };
}

static void test_a_new_file(void **state)
{
	struct bench *bench = *state;
	uint64_t next = 0;
	assert_int_equal(prepare(bench, &layout_today, &next, NULL), 0);
	assert_int_equal(next, 5);
	assert_int_equal(ask(bench, "PRAGMA user_version"), layout_today.n);
	assert_int_equal(ask(bench, "PRAGMA application_id"), 0x67706d67);
	assert_int_equal(ask(bench, "PRAGMA page_size"), 1024);
	assert_int_equal(ask(bench, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
	next = 0;
	assert_int_equal(prepare(bench, &layout_today, &next, NULL), 0);
	assert_int_equal(next, 5);
}

static void test_older_ones_are_brought_up_to_date(void **state)
{
	struct bench *bench = *state;
	const char *steps[8];
	uint64_t next = 0;
	bench_open(bench, 0);
	reserve(bench, 100);
	put(bench, 3, 3);
	bench_close(bench);
	for (size_t n = 1; n <= 2; n++) {
		struct layout layout = later(steps, n);
		assert_int_equal(prepare(bench, &layout, &next, NULL), 0);
		assert_int_equal(next, 101);
		assert_int_equal(ask(bench, "PRAGMA user_version"), layout_today.n + n);
	}
	assert_int_equal(ask(bench, "SELECT weight FROM leases WHERE fence = 3"), 3);
	assert_int_equal(ask(bench, "SELECT count(*) FROM hosts"), 1);
	/* And now this program is the older one. */
	struct error error = { 0 };
	assert_int_equal(bench_try_open(bench, 0, &error), -EPROTO);
	assert_non_null(strstr(error.message, "newer gpumgrd"));
	assert_null(bench->moved);
}

static void note_base(void *context, const struct state_lease *lease)
{
	*(uint32_t *)context = lease->room_base_mib;
}

/* What a gpumgrd of before wrote says nothing of what was there before the room. */
static void test_a_lease_of_before(void **state)
{
	struct bench *bench = *state;
	struct layout third = { .n = 3, .steps = layout_today.steps };
	uint64_t next = 0;
	uint32_t base_mib = 0;
	assert_int_equal(prepare(bench, &third, &next, NULL), 0);
	{
		CLEANUP(sql_close) sqlite3 *db = open_file(bench);
		assert_int_equal(sql_run(db,
					 "INSERT INTO leases VALUES (3, 'exclusive', '', 0, 1, 8000, 50, 0, "
					 "1000, 1, 1, 'me', '', '', 0)"),
			SQLITE_OK);
	}
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(state_each_lease(bench->state, note_base, &base_mib, NULL), 0);
	assert_int_equal(base_mib, GPU_MIB_UNKNOWN);
}

static void test_two_steps_at_once(void **state)
{
	struct bench *bench = *state;
	const char *steps[8];
	uint64_t next = 0;
	assert_int_equal(prepare(bench, &layout_today, &next, NULL), 0);
	struct layout layout = later(steps, 2);
	assert_int_equal(prepare(bench, &layout, &next, NULL), 0);
	assert_int_equal(ask(bench, "SELECT count(*) FROM hosts"), 1);
}

static void test_a_step_that_fails_changes_nothing(void **state)
{
	struct bench *bench = *state;
	const char *steps[8];
	uint64_t next = 0;
	struct error error = { 0 };
	bench_open(bench, 0);
	put(bench, 3, 3);
	bench_close(bench);
	struct layout layout = later(steps, 2);
	steps[layout.n - 1] = "CREATE TABLE hosts (name TEXT); INSERT INTO nowhere VALUES (1);";
	assert_true(prepare(bench, &layout, &next, &error) < 0);
	assert_non_null(strstr(error.message, bench->path));
	assert_int_equal(ask(bench, "PRAGMA user_version"), layout_today.n);
	assert_int_equal(ask(bench, "SELECT count(*) FROM sqlite_master WHERE name = 'hosts'"), 0);
	assert_int_equal(ask(bench, "SELECT count(*) FROM pragma_table_info('leases') WHERE name = 'weight'"), 0);
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(read_variant(bench, 3), 3);
}

/* What a check of the database has to find: values that nobody can have written. */
static void test_impossible_values_are_damage(void **state)
{
	static const char *const changes[] = {
		"UPDATE leases SET mode = 'sole'",
		"UPDATE leases SET mode = NULL",
		"UPDATE leases SET services = NULL",
		"UPDATE leases SET services = x'00ff'",
		"UPDATE leases SET phase = -1",
		"UPDATE leases SET phase = 'four'",
		"UPDATE leases SET gpus = 1.5",
		"UPDATE leases SET room_mib = 4294967296",
		"UPDATE leases SET room_base_mib = -1",
		"UPDATE leases SET priority = 2147483649",
		"UPDATE leases SET attached = 2",
		"UPDATE leases SET ttl_ms = -1",
		"UPDATE leases SET expires_ms = 'soon'",
		"UPDATE leases SET owner = NULL",
		"UPDATE leases SET boot = 'this one'",
		"UPDATE leases SET secret = x'37'",
		"UPDATE leases SET fence = 9007199254740992",
		"UPDATE leases SET fence = -1",
		"UPDATE fences SET next = 0",
		"UPDATE fences SET next = 'x'",
		"UPDATE fences SET next = 9007199254740993",
		"UPDATE fences SET only = 2",
		"DELETE FROM fences",
		"DROP TABLE fences",
		"DROP TABLE leases",
		"ALTER TABLE leases DROP COLUMN secret",
		"PRAGMA user_version = 0",
		"PRAGMA application_id = 0",
	};
	struct bench *bench = *state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		bench_open(bench, 0);
		uint64_t first = reserve(bench, 10);
		put(bench, first, 3);
		bench_close(bench);
		sqlite3 *db = open_file(bench);
		/* Constraints are kept even now; the schema is what has to be written around. */
		sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
		int code = sql_run(db, "PRAGMA ignore_check_constraints = ON");
		if (strstr(changes[i], "NULL") != NULL)
			code = sql_run(db,
				"PRAGMA writable_schema = ON;"
				"UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '/*    */');"
				"PRAGMA writable_schema = RESET;");
		if (code == SQLITE_OK)
			code = sql_run(db, changes[i]);
		if (strstr(changes[i], "NULL") != NULL)
			code = sql_run(db,
				"PRAGMA writable_schema = ON;"
				"UPDATE sqlite_master SET sql = replace(sql, '/*    */', 'NOT NULL');"
				"PRAGMA writable_schema = RESET;");
		if (code != SQLITE_OK)
			fail_msg("%s: %s", changes[i], sqlite3_errmsg(db));
		sql_close(&db);
		bench_open(bench, 0);
		if (bench->moved == NULL)
			fail_msg("%s: not noticed", changes[i]);
		assert_true(reserve(bench, 10) >= first + 10);
		bench_close(bench);
	}
}

/* A backup of one table, or somebody's own hand. */
static void test_fences_begin_above_every_lease(void **state)
{
	struct bench *bench = *state;
	char lock[sizeof(bench->path) + 8];
	bench_open(bench, 0);
	uint64_t first = reserve(bench, 10);
	put(bench, first + 5000, 3);
	bench_close(bench);
	snprintf(lock, sizeof(lock), "%s.lock", bench->path);
	assert_int_equal(unlink(lock), 0);
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(reserve(bench, 10), first + 5001);
	bench_close(bench);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin_in_memory, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_a_new_file),
		WITH_BENCH(test_older_ones_are_brought_up_to_date),
		WITH_BENCH(test_a_lease_of_before),
		WITH_BENCH(test_two_steps_at_once),
		WITH_BENCH(test_a_step_that_fails_changes_nothing),
		WITH_BENCH(test_impossible_values_are_damage),
		WITH_BENCH(test_fences_begin_above_every_lease),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
