/* The journal on its own, cut, hit and used up; and how the store lives with one. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "state/journal.h"
#include "state/record.h"
#include "support.h"

#define HEADER 24 /* bytes before the content of a record */

/* ---- the file alone ---- */

static struct journal *open_journal(struct bench *bench)
{
	struct journal *journal = NULL;
	struct error error = { 0 };
	if (journal_open(bench->path, &journal, &error) != 0)
		fail_msg("%s", error.message);
	return journal;
}

static void append(struct journal *journal, uint64_t fence, size_t size)
{
	char content[JOURNAL_RECORD_MAX];
	memset(content, (int)fence, size);
	assert_int_equal(journal_append(journal, JOURNAL_PUT, fence, content, size, NULL), 0);
}

struct reader {
	uint64_t fences[64];
	size_t n, most;
};

/* Every record is one of append()'s. */
static int take(void *context, const struct journal_record *record)
{
	struct reader *reader = context;
	assert_int_equal((uintptr_t)record->content % 8, 0);
	for (size_t i = 0; i < record->size; i++)
		assert_int_equal(((const unsigned char *)record->content)[i], (unsigned char)record->fence);
	if (reader->n == reader->most)
		return 1;
	reader->fences[reader->n++] = record->fence;
	return 0;
}

/* How many, in a journal that is opened for it. */
static size_t replay(struct bench *bench, uint64_t generation, size_t taken, struct reader *reader)
{
	struct journal *journal = open_journal(bench);
	*reader = (struct reader){ .most = ARRAY_SIZE(reader->fences) };
	int64_t n = journal_replay(journal, generation, taken, take, reader, NULL);
	journal_close(journal);
	assert_int_equal(n, reader->n);
	return reader->n;
}

static void write_ten(struct bench *bench, uint64_t generation)
{
	struct journal *journal = open_journal(bench);
	journal_begin(journal, generation);
	for (uint64_t i = 0; i < 10; i++)
		append(journal, 1 + i, i * 13);
	journal_close(journal);
}

static void test_records_come_back(void **state)
{
	struct bench *bench = *state;
	struct reader reader;
	write_ten(bench, 77);
	assert_int_equal(replay(bench, 77, 0, &reader), 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(reader.fences[i], 1 + i);
	assert_int_equal(replay(bench, 78, 0, &reader), 0);
	assert_int_equal(replay(bench, 0, 0, &reader), 0);
}

static void test_what_was_taken_is_left_out(void **state)
{
	struct bench *bench = *state;
	struct reader reader;
	struct journal *journal = open_journal(bench);
	journal_begin(journal, 5);
	append(journal, 1, 100);
	append(journal, 2, 0);
	size_t taken = journal_used(journal);
	append(journal, 3, 50);
	journal_close(journal);
	assert_int_equal(replay(bench, 5, taken, &reader), 1);
	assert_int_equal(reader.fences[0], 3);
	assert_int_equal(replay(bench, 5, JOURNAL_SIZE, &reader), 0);
}

static void test_it_goes_on_after_what_it_read(void **state)
{
	struct bench *bench = *state;
	struct reader reader = { .most = 4 };
	write_ten(bench, 9);
	struct journal *journal = open_journal(bench);
	assert_int_equal(journal_replay(journal, 9, 0, take, &reader, NULL), 4);
	append(journal, 50, 20);
	journal_close(journal);
	assert_int_equal(replay(bench, 9, 0, &reader), 5); /* the other six are of another history */
	assert_int_equal(reader.fences[3], 4);
	assert_int_equal(reader.fences[4], 50);
}

/* Records of equal size, so that those of the generation before begin where the new ones end. */
static void test_older_records_behind_are_not_read(void **state)
{
	struct bench *bench = *state;
	struct reader reader;
	struct journal *journal = open_journal(bench);
	for (uint64_t generation = 1; generation <= 2; generation++) {
		journal_begin(journal, generation);
		for (uint64_t i = 0; i < 10 / generation; i++)
			append(journal, generation * 10 + i, 40);
	}
	/* And the same generation once more, which random numbers do not do. */
	journal_begin(journal, 1);
	append(journal, 99, 40);
	journal_close(journal);
	assert_int_equal(replay(bench, 1, 0, &reader), 1);
	assert_int_equal(replay(bench, 2, 0, &reader), 0);
}

static size_t end_of(size_t record)
{
	size_t end = 0;
	for (size_t i = 0; i <= record; i++)
		end += HEADER + (i * 13 + 7) / 8 * 8;
	return end;
}

/* Zeros from there on, as a power failure leaves it. */
static void test_cut_at_any_byte(void **state)
{
	struct bench *bench = *state;
	struct reader reader;
	char name[128];
	size_t size;
	write_ten(bench, 3);
	CLEANUP_FREE char *whole = read_file(beside(bench, ".recent", name, sizeof(name)), &size);
	assert_int_equal(size, JOURNAL_SIZE);
	CLEANUP_FREE char *cut = malloc(size);
	for (size_t at = 0; at <= end_of(9); at++) {
		memcpy(cut, whole, size);
		memset(cut + at, 0, size - at);
		write_file(name, cut, end_of(9) + 64);
		size_t n = replay(bench, 3, 0, &reader), sure = 0;
		while (sure < 10 && end_of(sure) <= at)
			sure++;
		/* A record may end in zeros of its own. */
		assert_true(n == sure || (n == sure + 1 && memcmp(cut, whole, end_of(sure)) == 0));
		for (size_t i = 0; i < n; i++)
			assert_int_equal(reader.fences[i], 1 + i);
	}
}

static void test_hit_at_any_bit(void **state)
{
	struct bench *bench = *state;
	struct reader reader;
	char name[128];
	size_t size;
	write_ten(bench, 3);
	CLEANUP_FREE char *bytes = read_file(beside(bench, ".recent", name, sizeof(name)), &size);
	for (size_t bit = 0; bit < end_of(9) * 8; bit += 3) {
		size_t hit = 0;
		bytes[bit / 8] ^= (char)(1 << bit % 8);
		write_file(name, bytes, end_of(9) + 64);
		while (end_of(hit) <= bit / 8)
			hit++;
		assert_int_equal(replay(bench, 3, 0, &reader), hit);
		bytes[bit / 8] ^= (char)(1 << bit % 8);
	}
}

static void test_it_is_used_up(void **state)
{
	struct bench *bench = *state;
	struct journal *journal = open_journal(bench);
	char content[JOURNAL_RECORD_MAX + 1] = "";
	size_t n = 0;
	journal_begin(journal, 1);
	assert_int_equal(journal_append(journal, JOURNAL_PUT, 1, content, sizeof(content), NULL), -EFBIG);
	while (journal_append(journal, JOURNAL_PUT, 1, content, JOURNAL_RECORD_MAX, NULL) == 0)
		n++;
	assert_int_equal(n, JOURNAL_SIZE / (JOURNAL_RECORD_MAX + HEADER));
	while (journal_append(journal, JOURNAL_FORGET, 1, NULL, 0, NULL) == 0)
		;
	assert_in_range(journal_used(journal), JOURNAL_SIZE - HEADER + 1, JOURNAL_SIZE);
	assert_int_equal(journal_append(journal, JOURNAL_FORGET, 1, NULL, 0, NULL), -ENOSPC);
	journal_begin(journal, 2);
	append(journal, 1, 8);
	journal_close(journal);
}

static void test_rows_as_bytes(void **state)
{
	(void)state;
	union {
		char bytes[1024];
		uint64_t aligned;
	} room;
	struct row_buffer names = { 0 };
	for (unsigned variant = 0; variant < 7; variant++) {
		struct state_lease lease;
		struct row row, back;
		fill_lease(&lease, 40 + variant, variant);
		assert_int_equal(row_make(&names, &lease, "x", &row, NULL), 0);
		size_t size = record_encode(&row, room.bytes, sizeof(room.bytes));
		assert_true(size > 0);
		for (size_t less = 0; less < size; less++) {
			bool is_of_before = less == size - sizeof(lease.room_base_mib);
			assert_int_equal(record_decode(room.bytes, less, &back), is_of_before);
			assert_true(!is_of_before || back.lease.room_base_mib == GPU_MIB_UNKNOWN);
			char small[1024];
			assert_int_equal(record_encode(&row, small, less), 0);
		}
		assert_true(record_decode(room.bytes, size, &back));
		assert_string_equal(back.names, row.names);
		assert_string_equal(back.lease.owner, lease.owner);
		assert_int_equal(back.lease.fence, lease.fence);
		assert_int_equal(back.lease.room_base_mib, lease.room_base_mib);
		/* What the tables do not take would keep everything else out of them, too. */
		row.lease.ttl_ms = (uint64_t)INT64_MAX + 1;
		size = record_encode(&row, room.bytes, sizeof(room.bytes));
		assert_false(record_decode(room.bytes, size, &back));
	}
	row_buffer_finish(&names);
}

/* ---- the store with it ---- */

static void put_some(struct bench *bench)
{
	for (unsigned i = 1; i <= 6; i++)
		put(bench, i, i);
	put(bench, 2, 5);
	state_forget_lease(bench->state, 4, NULL);
}

static void check_some(struct bench *bench)
{
	uint64_t fences[8];
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(read_fences(bench, fences, 8), 5);
	assert_int_equal(fences[3], 5);
	assert_int_equal(read_variant(bench, 2), 5);
}

static void test_killed_and_opened_several_times(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, put_some);
	for (int turn = 0; turn < 3; turn++) {
		check_some(bench);
		bench_close(bench);
	}
	check_some(bench);
}

static void do_nothing(struct bench *bench)
{
	(void)bench;
}

static void put_seven(struct bench *bench)
{
	put(bench, 7, 1);
}

static void test_killed_again_before_anything_was_moved(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, put_some);
	run_and_kill(bench, do_nothing);
	run_and_kill(bench, put_seven);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 6);
	assert_int_equal(read_variant(bench, 7), 1);
	assert_int_equal(read_variant(bench, 2), 5);
}

/* A restart with a full disk: what is needed was taken before. */
static void test_files_cannot_grow_when_it_opens(void **state)
{
	struct bench *bench = *state;
	struct rlimit limit, before;
	run_and_kill(bench, put_some);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 0;
	setrlimit(RLIMIT_FSIZE, &limit);
	struct error error = { 0 };
	int r = bench_try_open(bench, 0, &error);
	size_t n = r == 0 ? read_fences(bench, NULL, 0) : 0;
	setrlimit(RLIMIT_FSIZE, &before);
	if (r < 0)
		fail_msg("%s", error.message);
	assert_int_equal(n, 5);
	bench_close(bench);
	check_some(bench);
}

/* It was copied while it was closed, has everything, and knows nothing of what came after. */
static void put_high(struct bench *bench)
{
	put(bench, 5000, 1);
	state_forget_lease(bench->state, 7000, NULL);
}

static void test_fences_begin_above_every_lease_of_it(void **state)
{
	struct bench *bench = *state;
	char name[128];
	run_and_kill(bench, put_high);
	unlink(beside(bench, ".lock", name, sizeof(name)));
	bench_open(bench, 0);
	assert_int_equal(reserve(bench, 1), 5001);
	bench_close(bench);
}

static void test_an_older_copy_of_the_database(void **state)
{
	struct bench *bench = *state;
	size_t size;
	run_and_kill(bench, put_some);
	check_some(bench);
	bench_close(bench);
	CLEANUP_FREE char *copy = read_file(bench->path, &size);
	run_and_kill(bench, put_seven);
	char name[128];
	unlink(beside(bench, "-wal", name, sizeof(name)));
	bench_open(bench, 0);
	reserve(bench, 1);
	bench_close(bench);
	run_and_kill(bench, put_seven);
	unlink(name);
	write_file(bench->path, copy, size);
	check_some(bench);
}

static void test_a_new_database_does_not_read_an_old_journal(void **state)
{
	struct bench *bench = *state;
	char name[128];
	run_and_kill(bench, put_some);
	unlink(bench->path);
	unlink(beside(bench, "-wal", name, sizeof(name)));
	unlink(beside(bench, ".lock", name, sizeof(name)));
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

static void test_it_goes_where_a_damaged_database_goes(void **state)
{
	struct bench *bench = *state;
	char name[160];
	run_and_kill(bench, put_some);
	unlink(beside(bench, "-wal", name, sizeof(name))); /* it holds all pages */
	write_file(bench->path, "rubbish", 7);
	bench_open(bench, 0);
	assert_non_null(bench->moved);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
	snprintf(name, sizeof(name), "%s.recent", bench->moved);
	assert_true(file_exists(name));
}

static void test_it_is_private(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	char name[128];
	beside(bench, ".recent", name, sizeof(name));
	for (int turn = 0; turn < 2; turn++) {
		bench_open(bench, 0);
		assert_int_equal(stat(name, &status), 0);
		assert_int_equal(status.st_mode & 07777, 0600);
		assert_true(status.st_blocks * 512 >= JOURNAL_SIZE);
		bench_close(bench);
		assert_int_equal(chmod(name, 0644), 0);
	}
}

static void test_something_else_in_its_place(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	char name[128];
	beside(bench, ".recent", name, sizeof(name));
	assert_int_equal(mkdir(name, 0700), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	assert_non_null(strstr(error.message, name));
	assert_int_equal(rmdir(name), 0);
	assert_int_equal(mkfifo(name, 0600), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	unlink(name);
	assert_int_equal(symlink("/dev/null", name), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	unlink(name);
	bench_open(bench, 0);
}

/* Rubbish, too short, too long: there is nothing in it, and it is used. */
static void test_rubbish_in_its_place(void **state)
{
	struct bench *bench = *state;
	static char rubbish[2 * JOURNAL_SIZE];
	static const size_t sizes[] = { 0, 1, 23, 24, 1000, JOURNAL_SIZE, sizeof(rubbish) };
	char name[128];
	memset(rubbish, 0xa5, sizeof(rubbish));
	bench_open(bench, 0);
	put(bench, 1, 1);
	bench_close(bench);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		write_file(beside(bench, ".recent", name, sizeof(name)), rubbish, sizes[i]);
		run_and_kill(bench, put_seven);
		bench_open(bench, 0);
		assert_null(bench->moved);
		assert_int_equal(read_variant(bench, 1), 1);
		assert_int_equal(read_variant(bench, 7), 1);
		assert_int_equal(state_forget_lease(bench->state, 7, NULL), 0);
		bench_close(bench);
	}
}

/* Several times what it holds, without a turn of the loop; every tenth lease stays. */
static void fill_it_up(struct bench *bench)
{
	for (uint64_t fence = 1; fence <= 30000; fence++) {
		put(bench, fence, (unsigned)fence);
		if (fence % 10 != 0)
			state_forget_lease(bench->state, fence, NULL);
	}
}

static void test_it_is_emptied_when_it_is_full(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, fill_it_up);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 3000);
	assert_int_equal(read_variant(bench, 30000), 30000 % 7);
	bench_close(bench);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 3000);
}

static int64_t count_in_database(struct bench *bench)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *count = NULL;
	assert_int_equal(sqlite3_open_v2(bench->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM leases", -1, &count, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(count), SQLITE_ROW);
	int64_t n = sqlite3_column_int64(count, 0);
	sqlite3_finalize(count);
	sqlite3_close(db);
	return n;
}

static void fill_by_more_than_half(struct bench *bench)
{
	for (uint64_t i = 0; i < 5000; i++)
		put(bench, 1 + i % 100, 3);
}

static void fill_and_wait(struct bench *bench)
{
	fill_by_more_than_half(bench);
	run_for(bench, 100);
}

static void test_it_is_emptied_in_a_quiet_moment(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, fill_by_more_than_half);
	assert_int_equal(count_in_database(bench), 0);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 100);
	for (uint64_t fence = 1; fence <= 100; fence++)
		assert_int_equal(state_forget_lease(bench->state, fence, NULL), 0);
	bench_close(bench);
	run_and_kill(bench, fill_and_wait);
	assert_int_equal(count_in_database(bench), 100);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 100);
}

/* More than a record may hold goes into the database, and what is older in the journal does not come back. */
static void put_a_large_one(struct bench *bench)
{
	static char owner[JOURNAL_RECORD_MAX + 100];
	struct state_lease lease;
	put(bench, 5, 1);
	fill_lease(&lease, 5, 0);
	memset(owner, 'x', sizeof(owner) - 1);
	lease.owner = owner;
	assert_int_equal(state_put_lease(bench->state, &lease, NULL), 0);
}

static void take_owner_length(void *context, const struct state_lease *lease)
{
	*(size_t *)context = strlen(lease->owner);
}

static void test_a_large_lease(void **state)
{
	struct bench *bench = *state;
	run_and_kill(bench, put_a_large_one);
	bench_open(bench, 0);
	size_t length = 0;
	assert_int_equal(state_each_lease(bench->state, take_owner_length, &length, NULL), 0);
	assert_int_equal(length, JOURNAL_RECORD_MAX + 99);
	put(bench, 5, 2);
	assert_int_equal(read_variant(bench, 5), 2);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin_in_memory, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_records_come_back),
		WITH_BENCH(test_what_was_taken_is_left_out),
		WITH_BENCH(test_it_goes_on_after_what_it_read),
		WITH_BENCH(test_older_records_behind_are_not_read),
		WITH_BENCH(test_cut_at_any_byte),
		WITH_BENCH(test_hit_at_any_bit),
		WITH_BENCH(test_it_is_used_up),
		cmocka_unit_test(test_rows_as_bytes),
		WITH_BENCH(test_killed_and_opened_several_times),
		WITH_BENCH(test_killed_again_before_anything_was_moved),
		WITH_BENCH(test_files_cannot_grow_when_it_opens),
		WITH_BENCH(test_fences_begin_above_every_lease_of_it),
		WITH_BENCH(test_an_older_copy_of_the_database),
		WITH_BENCH(test_a_new_database_does_not_read_an_old_journal),
		WITH_BENCH(test_it_goes_where_a_damaged_database_goes),
		WITH_BENCH(test_it_is_private),
		WITH_BENCH(test_something_else_in_its_place),
		WITH_BENCH(test_rubbish_in_its_place),
		WITH_BENCH(test_it_is_emptied_when_it_is_full),
		WITH_BENCH(test_it_is_emptied_in_a_quiet_moment),
		WITH_BENCH(test_a_large_lease),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
