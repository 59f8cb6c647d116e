/* What stands where the database should be: damaged, cut, foreign, private or not, held by another process. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

#define CLOCK UINT64_C(1700000000000000) /* what a daemon would hand in */

/* Three leases and a block of fences (1 to 100), in the database itself. */
static void fill(struct bench *bench)
{
	bench_open(bench, 0);
	assert_int_equal(reserve(bench, 100), 1);
	for (unsigned i = 1; i <= 3; i++)
		put(bench, i, i);
	bench_close(bench);
}

static void act_as_fill(struct bench *bench)
{
	uint64_t first;
	struct state_lease lease;
	state_reserve_fences(bench->state, 100, &first, NULL);
	for (unsigned i = 1; i <= 3; i++) {
		fill_lease(&lease, i, i);
		state_put_lease(bench->state, &lease, NULL);
	}
}

static void remove_lock_file(struct bench *bench)
{
	char name[128];
	unlink(beside(bench, ".lock", name, sizeof(name)));
}

static void test_a_text_file_is_moved_aside(void **state)
{
	static const char text[] = "This is not a database at all, but somebody put it there.\n";
	struct bench *bench = *state;
	size_t size;
	write_file(bench->path, text, sizeof(text) - 1);
	bench_open(bench, CLOCK);
	assert_non_null(bench->moved);
	assert_int_equal(strncmp(bench->moved, bench->path, strlen(bench->path)), 0);
	CLEANUP_FREE char *kept = read_file(bench->moved, &size);
	assert_int_equal(size, sizeof(text) - 1);
	assert_string_equal(kept, text);
	assert_int_equal(reserve(bench, 1), CLOCK + 1);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
	put(bench, CLOCK + 1, 3);
	bench_close(bench);
	bench_open(bench, CLOCK);
	assert_null(bench->moved);
	assert_int_equal(read_variant(bench, CLOCK + 1), 3);
}

/* No file may grow, but a name may change. */
static void open_without_room(struct bench *bench)
{
	struct rlimit limit, before;
	struct error error = { 0 };
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 0;
	setrlimit(RLIMIT_FSIZE, &limit);
	int r = bench_try_open(bench, CLOCK, &error);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_true(r < 0);
	assert_null(bench->moved);
}

static void test_what_was_moved_aside_is_told_when_the_rest_fails(void **state)
{
	struct bench *bench = *state;
	char expected[256];
	write_file(bench->path, "damaged", 7);
	CLEANUP_FREE char *text = run_and_listen(bench, open_without_room);
	snprintf(expected, sizeof(expected), "%s was damaged and is kept as %s.damaged-", bench->path, bench->path);
	assert_non_null(strstr(text, expected));
	bench_open(bench, CLOCK);
	assert_null(bench->moved);
}

static void test_several_damaged_files_get_names_of_their_own(void **state)
{
	struct bench *bench = *state;
	char *names[5];
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char text[16];
		snprintf(text, sizeof(text), "damaged %zu", i);
		write_file(bench->path, text, strlen(text));
		bench_open(bench, 0);
		names[i] = TAKE_PTR(bench->moved);
		assert_non_null(names[i]);
		bench_close(bench);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t size;
		CLEANUP_FREE char *kept = read_file(names[i], &size);
		assert_int_equal(kept[8], '0' + (int)i);
		free(names[i]);
	}
}

static void test_an_empty_file(void **state)
{
	struct bench *bench = *state;
	write_file(bench->path, "", 0);
	bench_open(bench, CLOCK);
	assert_null(bench->moved); /* as a first start that was killed leaves it */
	assert_int_equal(reserve(bench, 1), CLOCK + 1);
	bench_close(bench);
	write_file(bench->path, "", 0);
	bench_open(bench, 0);
	assert_non_null(bench->moved); /* there was a database */
	assert_int_equal(reserve(bench, 1), CLOCK + 2);
}

static void test_a_removed_database(void **state)
{
	struct bench *bench = *state;
	fill(bench);
	unlink(bench->path);
	bench_open(bench, 0);
	assert_true(reserve(bench, 1) > 100);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

static size_t count_damaged(struct bench *bench)
{
	DIR *dir = opendir(bench->folder);
	struct dirent *entry;
	size_t n = 0;
	while ((entry = readdir(dir)) != NULL)
		n += strstr(entry->d_name, "damaged") != NULL;
	closedir(dir);
	return n;
}

/* So that everything is forgotten, and the fences go on. */
static void test_all_but_the_lock_file_is_removed(void **state)
{
	struct bench *bench = *state;
	char name[128];
	fill(bench);
	assert_int_equal(unlink(bench->path), 0);
	assert_int_equal(unlink(beside(bench, ".recent", name, sizeof(name))), 0);
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(count_damaged(bench), 0);
	assert_int_equal(reserve(bench, 1), 101);
	assert_int_equal(read_fences(bench, NULL, 0), 0);
}

/* A copy that somebody brings back knows nothing of the fences that were given since. */
static void test_an_older_copy(void **state)
{
	struct bench *bench = *state;
	size_t size;
	fill(bench);
	CLEANUP_FREE char *copy = read_file(bench->path, &size);
	bench_open(bench, 0);
	uint64_t last = reserve(bench, 5000) + 4999;
	bench_close(bench);
	write_file(bench->path, copy, size);
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_true(reserve(bench, 1) > last);
}

/* Whatever was done to the files: it opens, every lease that it tells is one that was put, fences grow. How many. */
static size_t check_after_damage(struct bench *bench, uint64_t last_fence)
{
	uint64_t fences[8];
	bench_open(bench, CLOCK);
	size_t n = read_fences(bench, fences, 8);
	assert_true(n <= (bench->moved == NULL ? 3 : 0));
	assert_true(reserve(bench, 1) > last_fence);
	put(bench, 4, 4);
	bench_close(bench);
	bench_open(bench, CLOCK);
	assert_null(bench->moved);
	assert_int_equal(read_variant(bench, 4), 4);
	bench_close(bench);
	return n;
}

static void clear_folder(struct bench *bench)
{
	DIR *dir = opendir(bench->folder);
	struct dirent *entry;
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

static void test_cut_at_any_length(void **state)
{
	struct bench *bench = *state;
	size_t size, n_whole = 0, n = 0;
	fill(bench);
	CLEANUP_FREE char *whole = read_file(bench->path, &size);
	assert_true(size > 1024);
	for (size_t cut = 2; cut < size; cut += cut < 256 ? 51 : 201) {
		clear_folder(bench);
		write_file(bench->path, whole, cut);
		size_t n_leases = check_after_damage(bench, 100);
		assert_true(n_leases == 0 || n_leases == 3);
		n_whole += n_leases == 3;
		n++;
	}
	/* The last page is that of a table without rows: nothing but its first bytes is used. */
	assert_true(n_whole <= 1 + 1024 / 201);
	print_message("%zu lengths, %zu of them harmless\n", n, n_whole);
}

static uint32_t random_number(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* Some hits are harmless (unused room in a page); a newer layout and another program are refused, too. */
static void test_random_damage(void **state)
{
	struct bench *bench = *state;
	size_t size, n_whole = 0, n_refused = 0;
	uint64_t seed = 20240229;
	fill(bench);
	CLEANUP_FREE char *whole = read_file(bench->path, &size);
	CLEANUP_FREE char *broken = malloc(size);
	for (int turn = 0; turn < 400; turn++) {
		struct error error = { 0 };
		clear_folder(bench);
		memcpy(broken, whole, size);
		unsigned n_hits = 1 + random_number(&seed) % 8;
		/* The header takes 100 bytes: hit more often than chance would. */
		for (unsigned i = 0; i < n_hits; i++)
			broken[random_number(&seed) % (turn % 4 == 0 ? 100 : size)] = (char)random_number(&seed);
		write_file(bench->path, broken, size);
		int r = bench_try_open(bench, CLOCK, &error);
		if (r < 0) {
			if (r != -EPROTO && r != -EINVAL)
				fail_msg("turn %d: %d %s", turn, r, error.message);
			assert_non_null(strstr(error.message, bench->path));
			n_refused++;
			continue;
		}
		bool was_moved = bench->moved != NULL;
		uint64_t fence = reserve(bench, 1);
		assert_true(was_moved ? fence > CLOCK : fence > 0);
		if (was_moved)
			assert_int_equal(read_fences(bench, NULL, 0), 0);
		n_whole += !was_moved;
		bench_close(bench);
	}
	print_message("of 400: %zu harmless, %zu refused\n", n_whole, n_refused);
	assert_true(n_whole < 300);
	assert_true(n_refused < 60);
}

/* The log as kill -9 leaves it, then cut or hit: what it loses is lost, but no fence comes twice. */
static void test_damaged_log(void **state)
{
	struct bench *bench = *state;
	char name[128];
	size_t size;
	uint64_t seed = 7;
	for (int turn = 0; turn < 60; turn++) {
		clear_folder(bench);
		run_and_kill(bench, act_as_fill);
		CLEANUP_FREE char *log = read_file(beside(bench, "-wal", name, sizeof(name)), &size);
		assert_true(size > 1000);
		if (turn % 2 == 0)
			size = random_number(&seed) % size;
		else
			log[random_number(&seed) % size] ^= 0x10;
		write_file(name, log, size);
		check_after_damage(bench, 100);
	}
}

/* Without the lock file and with a clock that stands at 1970, the damaged file itself is asked. */
static void test_fences_are_salvaged(void **state)
{
	struct bench *bench = *state;
	sqlite3 *db;
	fill(bench);
	sqlite3_open(bench->path, &db);
	assert_int_equal(sqlite3_exec(db, "DROP TABLE leases", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	remove_lock_file(bench);
	bench_open(bench, 5);
	assert_non_null(bench->moved);
	assert_true(reserve(bench, 1) > 100);
}

/* A number that cannot be is not believed: it would use up all fences. */
static void test_absurd_fences_are_not_salvaged(void **state)
{
	struct bench *bench = *state;
	sqlite3 *db;
	char name[128];
	fill(bench);
	sqlite3_open(bench->path, &db);
	assert_int_equal(
		sqlite3_exec(db, "PRAGMA ignore_check_constraints=ON; UPDATE fences SET next = 9223372036854775807;",
			NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	write_file(beside(bench, ".lock", name, sizeof(name)), "18446744073709551615\n", 21);
	bench_open(bench, CLOCK);
	assert_non_null(bench->moved);
	assert_int_equal(reserve(bench, 1), CLOCK + 1);
}

static void test_rubbish_in_the_lock_file(void **state)
{
	static const char *const texts[] = { "-1\n", "", "abc", "99999999999999999999999999999\n", "12", " 7\n", "\n",
		"0x10\n", "12 34\n" };
	struct bench *bench = *state;
	char name[128];
	fill(bench);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		write_file(beside(bench, ".lock", name, sizeof(name)), texts[i], strlen(texts[i]));
		bench_open(bench, 0);
		assert_null(bench->moved);
		assert_int_equal(reserve(bench, 1), 101 + i);
		bench_close(bench);
	}
}

static void make_foreign(struct bench *bench, const char *statements)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(bench->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, statements, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_what_is_not_ours_stays(void **state)
{
	static const struct {
		const char *statements;
		int error;
		const char *text;
	} cases[] = {
		{ "CREATE TABLE photos (name)", -EINVAL, "another program" },
		{ "PRAGMA application_id=5; CREATE TABLE photos (name)", -EINVAL, "another program" },
		{ "PRAGMA application_id=0x67706d67; PRAGMA user_version=99; CREATE TABLE fences (x)", -EPROTO,
			"newer gpumgrd (layout 99" },
		{ "PRAGMA application_id=0x67706d67; PRAGMA user_version=-1; CREATE TABLE fences (x)", -EPROTO,
			"newer" },
	};
	struct bench *bench = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error error = { 0 };
		size_t before, after;
		clear_folder(bench);
		make_foreign(bench, cases[i].statements);
		CLEANUP_FREE char *was = read_file(bench->path, &before);
		assert_int_equal(bench_try_open(bench, 0, &error), cases[i].error);
		if (strstr(error.message, cases[i].text) == NULL || strstr(error.message, bench->path) == NULL)
			fail_msg("\"%s\"", error.message);
		CLEANUP_FREE char *is = read_file(bench->path, &after);
		assert_int_equal(after, before);
		assert_memory_equal(is, was, before);
		assert_null(bench->moved);
	}
}

static void test_not_a_regular_file(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	char name[128];
	assert_int_equal(mkdir(bench->path, 0700), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	assert_non_null(strstr(error.message, "not a regular file"));
	rmdir(bench->path);
	assert_int_equal(mkfifo(bench->path, 0600), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	unlink(bench->path);
	assert_int_equal(symlink("/dev/null", bench->path), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -EINVAL);
	unlink(bench->path);
	beside(bench, ".lock", name, sizeof(name));
	unlink(name);
	assert_int_equal(symlink("/dev/null", name), 0);
	assert_int_equal(bench_try_open(bench, 0, &error), -ELOOP);
	assert_non_null(strstr(error.message, name));
}

static void test_a_missing_folder(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	remove_folder(bench->folder);
	assert_int_equal(bench_try_open(bench, 0, &error), -ENOENT);
	assert_non_null(strstr(error.message, bench->path));
}

static void check_private(const struct bench *bench)
{
	static const char *const suffixes[] = { "", "-wal", ".lock" };
	char name[128];
	struct stat status;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		assert_int_equal(lstat(beside(bench, suffixes[i], name, sizeof(name)), &status), 0);
		if ((status.st_mode & 07777) != 0600)
			fail_msg("%s: %o", name, status.st_mode & 07777);
	}
}

static void test_files_are_private(void **state)
{
	struct bench *bench = *state;
	mode_t before = umask(0);
	bench_open(bench, 0);
	put(bench, 1, 1);
	check_private(bench);
	bench_close(bench);
	chmod(bench->path, 0644);
	bench_open(bench, 0);
	put(bench, 1, 1);
	check_private(bench);
	umask(before);
}

static void test_descriptors_are_not_inherited(void **state)
{
	struct bench *bench = *state;
	bench_open(bench, 0);
	put(bench, 1, 1);
	for (int fd = 3; fd < 256; fd++) {
		int flags = fcntl(fd, F_GETFD);
		char link[64], target[256] = "";
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (flags < 0 || readlink(link, target, sizeof(target) - 1) < 0)
			continue;
		if (strstr(target, bench->folder) != NULL && !(flags & FD_CLOEXEC))
			fail_msg("%s is inherited", target);
	}
}

static void test_one_process_at_a_time(void **state)
{
	struct bench *bench = *state;
	struct state *second = NULL;
	struct error error = { 0 };
	char *moved = NULL;
	bench_open(bench, 0);
	assert_int_equal(state_open(&bench->loop, bench->path, 0, &second, &moved, &error), -EAGAIN);
	assert_non_null(strstr(error.message, "another process"));
	assert_non_null(strstr(error.message, bench->path));
	assert_null(second);
	put(bench, 1, 1);
	bench_close(bench);
	bench_open(bench, 0);
}

/* Somebody with the sqlite3 shell: nobody can come in between, not even to read. */
static void test_another_program_is_kept_out(void **state)
{
	struct bench *bench = *state;
	sqlite3 *shell;
	bench_open(bench, 0);
	put(bench, 1, 1);
	sqlite3_open(bench->path, &shell);
	assert_int_equal(sqlite3_exec(shell, "SELECT * FROM leases", NULL, NULL, NULL), SQLITE_BUSY);
	assert_int_equal(sqlite3_exec(shell, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
	put(bench, 2, 2);
	assert_int_equal(sqlite3_close(shell), SQLITE_OK);
	put(bench, 3, 3);
	assert_int_equal(read_fences(bench, NULL, 0), 3);
}

/* It came first: the start waits a moment and says so; then it works again. */
static void test_another_program_has_the_file(void **state)
{
	static const char *const statements[] = { "SELECT * FROM leases", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE" };
	struct bench *bench = *state;
	fill(bench);
	for (size_t i = 0; i < ARRAY_SIZE(statements); i++) {
		struct error error = { 0 };
		sqlite3 *shell;
		char name[128];
		sqlite3_open(bench->path, &shell);
		assert_int_equal(sqlite3_exec(shell, statements[i], NULL, NULL, NULL), SQLITE_OK);
		uint64_t begin = now_us();
		assert_int_equal(bench_try_open(bench, 0, &error), -EAGAIN);
		assert_true(now_us() - begin < 2000000);
		assert_non_null(strstr(error.message, "another program holds the file locked; end it"));
		assert_non_null(strstr(error.message, bench->path));
		assert_int_equal(sqlite3_exec(shell, "SELECT * FROM leases", NULL, NULL, NULL), SQLITE_OK);
		assert_true(file_exists(beside(bench, "-shm", name, sizeof(name))));
		sqlite3_close(shell);
		bench_open(bench, 0);
		assert_null(bench->moved);
		assert_int_equal(read_fences(bench, NULL, 0), 3);
		bench_close(bench);
	}
}

/* What a gpumgrd left that shared memory and was killed. */
static void test_shared_memory_of_before_is_removed(void **state)
{
	struct bench *bench = *state;
	char name[128];
	sqlite3 *shell;
	fill(bench);
	/* A log and shared memory that no process has open any more. */
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		sqlite3_open(bench->path, &shell);
		sqlite3_exec(shell, "UPDATE leases SET priority = 20, phase = 0 WHERE fence = 2", NULL, NULL, NULL);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(file_exists(beside(bench, "-wal", name, sizeof(name))));
	assert_true(file_exists(beside(bench, "-shm", name, sizeof(name))));
	bench_open(bench, 0);
	assert_false(file_exists(name));
	assert_int_equal(read_fences(bench, NULL, 0), 3);
}

/* As a user who may not write there; root would be asked nothing. */
static int try_as_nobody(struct bench *bench, mode_t folder, mode_t file)
{
	int status;
	chmod(bench->folder, folder);
	if (file != 0)
		chmod(bench->path, file);
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct error error = { 0 };
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(99);
		int r = bench_try_open(bench, 0, &error);
		if (strstr(error.message, bench->path) == NULL || strstr(error.message, "writable") == NULL) {
			fprintf(stderr, "\"%s\"\n", error.message);
			_exit(98);
		}
		_exit(-r & 0x7f);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_a_folder_that_may_not_be_written(void **state)
{
	struct bench *bench = *state;
	assert_int_equal(try_as_nobody(bench, 0555, 0), EACCES);
	chmod(bench->folder, 0700);
	fill(bench);
	assert_int_equal(try_as_nobody(bench, 0555, 0444), EACCES);
	chmod(bench->folder, 0700);
	bench_open(bench, 0);
	assert_int_equal(read_fences(bench, NULL, 0), 3);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin_in_memory, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_a_text_file_is_moved_aside),
		WITH_BENCH(test_what_was_moved_aside_is_told_when_the_rest_fails),
		WITH_BENCH(test_several_damaged_files_get_names_of_their_own),
		WITH_BENCH(test_an_empty_file),
		WITH_BENCH(test_a_removed_database),
		WITH_BENCH(test_all_but_the_lock_file_is_removed),
		WITH_BENCH(test_an_older_copy),
		WITH_BENCH(test_cut_at_any_length),
		WITH_BENCH(test_random_damage),
		WITH_BENCH(test_damaged_log),
		WITH_BENCH(test_fences_are_salvaged),
		WITH_BENCH(test_absurd_fences_are_not_salvaged),
		WITH_BENCH(test_rubbish_in_the_lock_file),
		WITH_BENCH(test_what_is_not_ours_stays),
		WITH_BENCH(test_not_a_regular_file),
		WITH_BENCH(test_a_missing_folder),
		WITH_BENCH(test_files_are_private),
		WITH_BENCH(test_descriptors_are_not_inherited),
		WITH_BENCH(test_one_process_at_a_time),
		WITH_BENCH(test_another_program_is_kept_out),
		WITH_BENCH(test_another_program_has_the_file),
		WITH_BENCH(test_shared_memory_of_before_is_removed),
		WITH_BENCH(test_a_folder_that_may_not_be_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
