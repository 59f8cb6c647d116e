/* What is written reaches the disk soon, and not on the thread that wrote it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "state/sync.h"
#include "support.h"

/* The disk of this program. */
static struct {
	pthread_t loop;
	atomic_int n_there; /* on the loop's thread */
	atomic_int n_elsewhere;
	atomic_int error;
	ino_t last_inode;
} disk;

/* Instead of the C library's. */
int fdatasync(int fd)
{
	struct stat status;
	if (pthread_equal(pthread_self(), disk.loop)) {
		atomic_fetch_add(&disk.n_there, 1);
		return (int)syscall(SYS_fdatasync, fd);
	}
	fstat(fd, &status);
	disk.last_inode = status.st_ino;
	atomic_fetch_add(&disk.n_elsewhere, 1);
	errno = atomic_load(&disk.error);
	return errno == 0 ? (int)syscall(SYS_fdatasync, fd) : -1;
}

/* What the syncer of a test asks for, and gets. */
static struct {
	int n;
	int result;
} rescues;

static int handle_lost(void *context)
{
	(void)context;
	rescues.n++;
	return rescues.result;
}

static int begin(void **state)
{
	rescues.n = rescues.result = 0;
	disk.loop = pthread_self();
	atomic_store(&disk.n_there, 0);
	atomic_store(&disk.n_elsewhere, 0);
	atomic_store(&disk.error, 0);
	return bench_begin(state);
}

static struct syncer *create(struct bench *bench, uint64_t delay_ms)
{
	const struct syncer_rescue rescue = { .handle_lost = handle_lost };
	struct syncer *syncer = NULL;
	write_file(bench->path, "x", 1);
	int fd = open(bench->path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(syncer_create(&bench->loop, fd, bench->path, delay_ms, &rescue, &syncer), 0);
	return syncer;
}

/* Five seconds at most. */
static void wait_for(struct bench *bench, int n)
{
	for (int i = 0; i < 500 && atomic_load(&disk.n_elsewhere) < n; i++)
		run_for(bench, 10);
	assert_true(atomic_load(&disk.n_elsewhere) >= n);
	run_for(bench, 10);
}

static void test_once_for_many_writes(void **state)
{
	struct bench *bench = *state;
	struct syncer *syncer = create(bench, 50);
	run_for(bench, 100);
	assert_int_equal(disk.n_elsewhere, 0);
	for (int i = 0; i < 1000; i++)
		syncer_note(syncer);
	wait_for(bench, 1);
	run_for(bench, 100);
	assert_int_equal(disk.n_elsewhere, 1);
	syncer_note(syncer);
	wait_for(bench, 2);
	run_for(bench, 100);
	assert_int_equal(disk.n_elsewhere, 2);
	syncer_destroy(syncer);
}

static void test_thousands_are_not_let_wait(void **state)
{
	struct bench *bench = *state;
	struct syncer *syncer = create(bench, 3600000);
	for (int i = 0; i < 10000; i++)
		syncer_note(syncer);
	wait_for(bench, 1);
	syncer_destroy(syncer);
}

static void test_a_failure_is_tried_again(void **state)
{
	struct bench *bench = *state;
	struct syncer *syncer = create(bench, 20);
	atomic_store(&disk.error, EIO);
	syncer_note(syncer);
	wait_for(bench, 3);
	atomic_store(&disk.error, 0);
	wait_for(bench, disk.n_elsewhere + 1);
	int n = disk.n_elsewhere;
	run_for(bench, 100);
	assert_int_equal(disk.n_elsewhere, n);
	syncer_destroy(syncer);
}

static void fail_once(struct bench *bench)
{
	struct syncer *syncer = create(bench, 20);
	rescues.result = -EIO;
	atomic_store(&disk.error, EIO);
	syncer_note(syncer);
	wait_for(bench, 1);
	atomic_store(&disk.error, 0);
	wait_for(bench, disk.n_elsewhere + 3);
	syncer_destroy(syncer);
}

static void fail_and_be_rescued(struct bench *bench)
{
	struct syncer *syncer = create(bench, 20);
	atomic_store(&disk.error, EIO);
	syncer_note(syncer);
	wait_for(bench, disk.n_elsewhere + 1);
	atomic_store(&disk.error, 0);
	wait_for(bench, disk.n_elsewhere + 1);
	run_for(bench, 100);
	syncer_destroy(syncer);
}

/* A sync that succeeds after one that failed has not written what the first one should have. */
static void test_what_was_lost_is_brought_there_otherwise(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *failed = run_and_listen(bench, fail_once);
	assert_non_null(strstr(failed, "does not reach the disk"));
	assert_null(strstr(failed, "reaches the disk again"));
	assert_true(rescues.n >= 4);
	rescues.n = rescues.result = 0;
	CLEANUP_FREE char *rescued = run_and_listen(bench, fail_and_be_rescued);
	assert_non_null(strstr(rescued, "does not reach the disk"));
	assert_non_null(strstr(rescued, "reaches the disk again"));
	assert_true(rescues.n >= 1);
}

static void test_closed_at_any_moment(void **state)
{
	struct bench *bench = *state;
	for (uint64_t i = 0; i < 50; i++) {
		struct syncer *syncer = create(bench, i % 3);
		syncer_note(syncer);
		if (i % 5 != 0)
			run_for(bench, i % 4);
		syncer_destroy(syncer);
	}
}

/* The store's own: the journal it is, and a put does not wait for it. */
static void test_a_lease_reaches_the_disk(void **state)
{
	struct bench *bench = *state;
	struct stat status;
	char name[128];
	bench_open(bench, 0);
	put(bench, 1, 1);
	atomic_store(&disk.n_there, 0);
	uint64_t begin = now_us();
	put(bench, 2, 2);
	assert_int_equal(state_forget_lease(bench->state, 1, NULL), 0);
	for (int i = 0; i < 150 && atomic_load(&disk.n_elsewhere) == 0; i++)
		run_for(bench, 50);
	assert_int_equal(disk.n_elsewhere, 1);
	assert_true(now_us() - begin > 3000000);
	assert_int_equal(stat(beside(bench, ".recent", name, sizeof(name)), &status), 0);
	assert_int_equal(disk.last_inode, status.st_ino);
	assert_int_equal(disk.n_there, 0);
}

static void copy_file(const char *from, const char *to)
{
	size_t size;
	CLEANUP_FREE char *data = read_file(from, &size);
	write_file(to, data, size);
}

/* The store's own: it has the database take over what the journal may have lost. */
static void test_a_lease_that_does_not_reach_the_disk(void **state)
{
	struct bench *bench = *state;
	char from[128], to[128];
	bench_open(bench, 0);
	put(bench, 1, 1);
	atomic_store(&disk.error, EIO);
	for (int i = 0; i < 150 && atomic_load(&disk.n_elsewhere) == 0; i++)
		run_for(bench, 50);
	run_for(bench, 50);
	/* The database and its log, without a journal. */
	snprintf(to, sizeof(to), "%s-copy", bench->path);
	copy_file(bench->path, to);
	snprintf(to, sizeof(to), "%s-copy-wal", bench->path);
	copy_file(beside(bench, "-wal", from, sizeof(from)), to);
	bench_close(bench);
	strcat(bench->path, "-copy");
	bench_open(bench, 0);
	assert_int_equal(read_variant(bench, 1), 1);
}

#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_once_for_many_writes),
		WITH_BENCH(test_thousands_are_not_let_wait),
		WITH_BENCH(test_a_failure_is_tried_again),
		WITH_BENCH(test_what_was_lost_is_brought_there_otherwise),
		WITH_BENCH(test_closed_at_any_moment),
		WITH_BENCH(test_a_lease_reaches_the_disk),
		WITH_BENCH(test_a_lease_that_does_not_reach_the_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
