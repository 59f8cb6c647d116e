/*
 * Disks that fail at the n-th write, memory that runs out at the n-th allocation, file systems that are full.
 *
 * After each fault: what had been acknowledged is there, no fence comes twice, nothing was moved aside, and the store
 * works again as soon as the fault is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "state/sql.h"
#include "support.h"

/* What fails next. A test has one file system and one heap, so this is one, too. */
static struct {
	atomic_int io_left; /* the io_left-th operation fails; 0: none */
	atomic_int memory_left;
	bool goes_on; /* and all after it */
	int code;
	atomic_int n_failed;
} faults;

static bool is_due(atomic_int *left)
{
	if (atomic_load(left) == 0)
		return false;
	if (atomic_load(left) == 1) {
		if (!faults.goes_on)
			atomic_store(left, 0);
		atomic_fetch_add(&faults.n_failed, 1);
		return true;
	}
	atomic_fetch_sub(left, 1);
	return false;
}

/* A file system between SQLite and the real one. */

struct file {
	sqlite3_file base;
	sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;

static sqlite3_file *real_of(sqlite3_file *file)
{
	return ((struct file *)file)->real;
}

static int file_close(sqlite3_file *file)
{
	return real_of(file)->pMethods->xClose(real_of(file));
}

static int file_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
	return real_of(file)->pMethods->xRead(real_of(file), data, size, offset);
}

/* A write that fails has done half of its work, as writes do. */
static int file_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
	if (!is_due(&faults.io_left))
		return real_of(file)->pMethods->xWrite(real_of(file), data, size, offset);
	real_of(file)->pMethods->xWrite(real_of(file), data, size / 2, offset);
	return faults.code;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return is_due(&faults.io_left) ? SQLITE_IOERR_TRUNCATE
				       : real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int file_sync(sqlite3_file *file, int flags)
{
	return is_due(&faults.io_left) ? SQLITE_IOERR_FSYNC : real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), ret_size);
}

static int file_lock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int file_unlock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int file_check_lock(sqlite3_file *file, int *ret_held)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), ret_held);
}

static int file_control(sqlite3_file *file, int op, void *argument)
{
	return real_of(file)->pMethods->xFileControl(real_of(file), op, argument);
}

static int file_sector(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int file_device(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int file_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret_memory)
{
	if (extend && is_due(&faults.io_left))
		return SQLITE_IOERR_SHMSIZE;
	return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, ret_memory);
}

static int file_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int file_shm_unmap(sqlite3_file *file, int remove)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

static const sqlite3_io_methods file_methods = {
	.iVersion = 2,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_lock,
	.xFileControl = file_control,
	.xSectorSize = file_sector,
	.xDeviceCharacteristics = file_device,
	.xShmMap = file_shm_map,
	.xShmLock = file_shm_lock,
	.xShmBarrier = file_shm_barrier,
	.xShmUnmap = file_shm_unmap,
};

static int faulty_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *ret_flags)
{
	(void)vfs;
	struct file *file = (struct file *)base;
	file->base.pMethods = NULL;
	file->real = (sqlite3_file *)(file + 1);
	if (is_due(&faults.io_left))
		return SQLITE_CANTOPEN;
	int code = real_vfs->xOpen(real_vfs, name, file->real, flags, ret_flags);
	if (code == SQLITE_OK)
		file->base.pMethods = &file_methods;
	return code;
}

static void register_faulty_vfs(void)
{
	static sqlite3_vfs faulty;
	real_vfs = sqlite3_vfs_find(NULL);
	faulty = *real_vfs;
	faulty.zName = "faulty";
	faulty.pNext = NULL;
	faulty.szOsFile = (int)sizeof(struct file) + real_vfs->szOsFile;
	faulty.xOpen = faulty_open;
	assert_int_equal(sqlite3_vfs_register(&faulty, 1), SQLITE_OK);
}

/* A heap that runs out. */

static sqlite3_mem_methods real_memory;

static void *faulty_malloc(int size)
{
	return is_due(&faults.memory_left) ? NULL : real_memory.xMalloc(size);
}

static void *faulty_realloc(void *memory, int size)
{
	return is_due(&faults.memory_left) ? NULL : real_memory.xRealloc(memory, size);
}

/* Before SQLite is used for anything. */
static void install_faulty_memory(void)
{
	sqlite3_mem_methods methods;
	assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory), SQLITE_OK);
	methods = real_memory;
	methods.xMalloc = faulty_malloc;
	methods.xRealloc = faulty_realloc;
	assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods), SQLITE_OK);
}

static void clear_faults(void)
{
	atomic_store(&faults.io_left, 0);
	atomic_store(&faults.memory_left, 0);
	atomic_store(&faults.n_failed, 0);
	faults.goes_on = false;
}

/* What is known of the store while it is worked with. */

#define FENCES_MAX 512

/* FORGOTTEN: not told any more while it is open, but maybe by the next process. */
enum certainty { ABSENT, PRESENT, EITHER, FORGOTTEN };

struct ledger {
	uint64_t last_fence;
	bool was_opened;
	enum certainty certainty[FENCES_MAX];
};

/* Something was written, or it was closed: what was forgotten before is gone, or may be. */
static void settle_forgotten(struct ledger *ledger, enum certainty certainty)
{
	for (size_t i = 0; i < FENCES_MAX; i++)
		if (ledger->certainty[i] == FORGOTTEN)
			ledger->certainty[i] = certainty;
}

static uint64_t take_fences(struct bench *bench, struct ledger *ledger, uint64_t count)
{
	struct error error = { 0 };
	uint64_t first = 0;
	if (state_reserve_fences(bench->state, count, &first, &error) < 0) {
		assert_true(error.message[0] != '\0');
		return 0;
	}
	assert_true(first > ledger->last_fence);
	ledger->last_fence = first + count - 1;
	settle_forgotten(ledger, ABSENT);
	return first;
}

static void put_noted(struct bench *bench, struct ledger *ledger, uint64_t fence)
{
	struct error error = { 0 };
	struct state_lease lease;
	assert_true(fence < FENCES_MAX);
	fill_lease(&lease, fence, (unsigned)fence);
	int r = state_put_lease(bench->state, &lease, &error);
	if (r < 0)
		assert_non_null(strstr(error.message, bench->path));
	if (r == 0) {
		settle_forgotten(ledger, ABSENT);
		ledger->certainty[fence] = PRESENT;
	} else if (ledger->certainty[fence] == ABSENT)
		ledger->certainty[fence] = EITHER;
}

static void forget_noted(struct bench *bench, struct ledger *ledger, uint64_t fence)
{
	struct error error = { 0 };
	if (state_forget_lease(bench->state, fence, &error) < 0)
		assert_non_null(strstr(error.message, bench->path));
	ledger->certainty[fence] = FORGOTTEN;
}

struct comparison {
	struct ledger *ledger;
	bool seen[FENCES_MAX];
};

static void note_lease(void *context, const struct state_lease *lease)
{
	struct comparison *comparison = context;
	assert_true(lease->fence < FENCES_MAX);
	enum certainty certainty = comparison->ledger->certainty[lease->fence];
	if (certainty == ABSENT || certainty == FORGOTTEN)
		fail_msg("lease %d is back", (int)lease->fence);
	comparison->seen[lease->fence] = true;
}

static void compare_all(struct bench *bench, struct ledger *ledger)
{
	struct comparison comparison = { .ledger = ledger };
	struct error error = { 0 };
	int failed_before = atomic_load(&faults.n_failed);
	if (state_each_lease(bench->state, note_lease, &comparison, &error) < 0) {
		if (atomic_load(&faults.n_failed) == failed_before)
			fail_msg("%s", error.message);
		return;
	}
	for (size_t i = 0; i < FENCES_MAX; i++)
		if (ledger->certainty[i] == PRESENT && !comparison.seen[i])
			fail_msg("lease %zu is lost", i);
}

static void work(struct bench *bench, struct ledger *ledger)
{
	struct error error = { 0 };
	if (bench_try_open(bench, 0, &error) < 0) {
		assert_true(error.message[0] != '\0');
		assert_null(bench->moved);
		return;
	}
	assert_null(bench->moved);
	ledger->was_opened = true;
	for (int turn = 0; turn < 3; turn++) {
		uint64_t first = take_fences(bench, ledger, 10);
		for (uint64_t i = 0; first != 0 && i < 10; i++)
			put_noted(bench, ledger, first + i);
		for (uint64_t i = 0; first != 0 && i < 10; i += 3)
			forget_noted(bench, ledger, first + i);
		if (atomic_load(&faults.n_failed) == 0)
			compare_all(bench, ledger);
	}
	bench_close(bench);
	settle_forgotten(ledger, atomic_load(&faults.n_failed) == 0 ? ABSENT : EITHER);
}

/* One fault at each place in turn, until the work goes through without meeting it. */
static void try_each_place(struct bench *bench, atomic_int *left, int code, bool goes_on)
{
	char folder[80];
	int place = 1, n_places = 0;
	for (bool was_met = true; was_met; place += 1 + place / 40, n_places++) {
		struct ledger ledger = { 0 };
		snprintf(folder, sizeof(folder), "%s/%d", bench->folder, place);
		assert_int_equal(mkdir(folder, 0700), 0);
		snprintf(bench->path, sizeof(bench->path), "%s/state.db", folder);
		for (int round = 0; round < 2; round++) {
			clear_faults();
			faults.code = code;
			faults.goes_on = goes_on;
			atomic_store(left, place);
			work(bench, &ledger);
			was_met = atomic_load(&faults.n_failed) > 0;
			clear_faults();
			/* Afterwards everything works, with what had been acknowledged. */
			struct error error = { 0 };
			if (bench_try_open(bench, 0, &error) < 0)
				fail_msg("place %d: %s", place, error.message);
			if (bench->moved != NULL)
				fail_msg("place %d: moved aside", place);
			compare_all(bench, &ledger);
			put_noted(bench, &ledger, take_fences(bench, &ledger, 1));
			assert_true(ledger.last_fence > 0);
			compare_all(bench, &ledger);
			bench_close(bench);
		}
		remove_folder(folder);
	}
	print_message("%d places\n", n_places);
	assert_true(n_places > 10);
}

static int begin_in_memory(void **state)
{
	clear_faults();
	return bench_begin_in_memory(state);
}

static int end_in_memory(void **state)
{
	clear_faults();
	return bench_end(state);
}

static void test_one_write_fails(void **state)
{
	struct bench *bench = *state;
	try_each_place(bench, &faults.io_left, SQLITE_IOERR_WRITE, false);
}

static void test_the_disk_fails_from_then_on(void **state)
{
	struct bench *bench = *state;
	try_each_place(bench, &faults.io_left, SQLITE_IOERR_WRITE, true);
}

static void test_the_disk_is_full_from_then_on(void **state)
{
	struct bench *bench = *state;
	try_each_place(bench, &faults.io_left, SQLITE_FULL, true);
}

static void test_one_allocation_fails(void **state)
{
	struct bench *bench = *state;
	try_each_place(bench, &faults.memory_left, 0, false);
}

static void test_memory_is_gone_from_then_on(void **state)
{
	struct bench *bench = *state;
	try_each_place(bench, &faults.memory_left, 0, true);
}

/*
 * A transaction that failed and that the next process finds in the log nevertheless, since only the sync after it
 * failed: what was written into the journal before it and after it counts.
 */

static int *fault_result; /* of the child's block of fences; shared */

static void fail_and_go_on(struct bench *bench)
{
	struct error error;
	uint64_t first;
	for (uint64_t fence = 1; fence <= 3; fence++)
		put(bench, fence, 3);
	state_forget_lease(bench->state, 1, NULL);
	faults.code = SQLITE_IOERR_WRITE;
	atomic_store(&faults.io_left, *fault_result);
	*fault_result = state_reserve_fences(bench->state, 10, &first, &error);
	clear_faults();
	put(bench, 4, 4);
	put(bench, 3, 5);
	state_forget_lease(bench->state, 2, NULL);
}

static bool database_has_some(struct bench *bench)
{
	CLEANUP(sql_close) sqlite3 *db = NULL;
	sqlite3_int64 n = 0;
	assert_int_equal(sql_open(bench->path, &db, NULL), 0);
	assert_int_equal(sql_number(db, "SELECT count(*) FROM leases", &n), SQLITE_OK);
	return n > 0;
}

static void test_killed_after_a_failed_transaction(void **state)
{
	struct bench *bench = *state;
	int n_failed = 0, n_found = 0;
	char folder[80];
	fault_result = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(fault_result, MAP_FAILED);
	for (int place = 1, was_met = true; was_met; place++) {
		uint64_t fences[4];
		snprintf(folder, sizeof(folder), "%s/%d", bench->folder, place);
		assert_int_equal(mkdir(folder, 0700), 0);
		snprintf(bench->path, sizeof(bench->path), "%s/state.db", folder);
		*fault_result = place;
		run_and_kill(bench, fail_and_go_on);
		was_met = *fault_result < 0;
		n_failed += was_met;
		n_found += was_met && database_has_some(bench);
		for (int turn = 0; turn < 2; turn++) {
			bench_open(bench, 0);
			assert_int_equal(read_fences(bench, fences, 4), 2);
			assert_int_equal(fences[0], 3);
			assert_int_equal(read_variant(bench, 3), 5);
			assert_int_equal(read_variant(bench, 4), 4);
			bench_close(bench);
		}
		remove_folder(folder);
	}
	munmap(fault_result, sizeof(int));
	print_message("%d failed, %d of them found in the log\n", n_failed, n_found);
	assert_true(n_found > 0 && n_failed > n_found);
}

/* A real full file system, in a mount namespace that ends with the child. */

static void fill_up(const char *folder)
{
	char name[128], block[4096] = { 1 };
	snprintf(name, sizeof(name), "%s/ballast", folder);
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	for (size_t size = sizeof(block); size > 0; size = size / 2)
		while (write(fd, block, size) == (ssize_t)size)
			;
	close(fd);
}

static void make_room(const char *folder)
{
	char name[128];
	snprintf(name, sizeof(name), "%s/ballast", folder);
	assert_int_equal(unlink(name), 0);
}

static void work_on_a_full_disk(struct bench *bench)
{
	struct error error = { 0 };
	struct ledger ledger = { 0 };
	struct state_lease lease;
	fill_up(bench->folder);
	assert_int_equal(bench_try_open(bench, 0, &error), -ENOSPC);
	assert_non_null(strstr(error.message, "room"));
	make_room(bench->folder);
	bench_open(bench, 0);
	uint64_t first = take_fences(bench, &ledger, 100);
	for (uint64_t i = 0; i < 50; i++)
		put_noted(bench, &ledger, first + i);
	fill_up(bench->folder);
	int r = 0;
	for (uint64_t i = 50; r == 0 && i < 10000; i++) {
		fill_lease(&lease, first + i % 50, 3);
		r = state_put_lease(bench->state, &lease, &error);
	}
	assert_int_equal(r, -ENOSPC);
	assert_non_null(strstr(error.message, "the disk is full"));
	assert_non_null(strstr(error.message, bench->path));
	compare_all(bench, &ledger);
	while (take_fences(bench, &ledger, 10) != 0)
		;
	make_room(bench->folder);
	assert_true(take_fences(bench, &ledger, 10) > 0);
	put_noted(bench, &ledger, first + 99);
	assert_int_equal(ledger.certainty[first + 99], PRESENT);
	bench_close(bench);
	bench_open(bench, 0);
	assert_null(bench->moved);
	compare_all(bench, &ledger);
	assert_true(take_fences(bench, &ledger, 10) > 0);
	bench_close(bench);
	/* There is no room for the log when it is opened. */
	fill_up(bench->folder);
	r = bench_try_open(bench, 0, &error);
	if (r < 0)
		assert_non_null(strstr(error.message, bench->path));
	bench_close(bench);
	make_room(bench->folder);
	bench_open(bench, 0);
	assert_null(bench->moved);
	compare_all(bench, &ledger);
	bench_close(bench);
}

static bool mount_small_disk(const char *folder)
{
	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return false;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		mount("tmpfs", folder, "tmpfs", 0, "size=2m,mode=0700") == 0;
}

#define CANNOT_MOUNT 77

static void test_a_full_file_system(void **state)
{
	struct bench *bench = *state;
	int status;
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (!mount_small_disk(bench->folder))
			_exit(CANNOT_MOUNT);
		work_on_a_full_disk(bench);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_MOUNT)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* As `ulimit -f` does; where no namespace may be made this is all there is. */
static void test_files_may_not_grow(void **state)
{
	struct bench *bench = *state;
	struct error error = { 0 };
	struct state_lease lease;
	struct rlimit limit, before;
	int r = 0;
	bench_open(bench, 0);
	put(bench, 1, 1);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 64 * 1024;
	for (uint64_t i = 2; r == 0 && i < 10000; i++) {
		fill_lease(&lease, i, 3);
		setrlimit(RLIMIT_FSIZE, &limit);
		r = state_put_lease(bench->state, &lease, &error);
		setrlimit(RLIMIT_FSIZE, &before);
	}
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(error.message, "File too large"));
	size_t n = read_fences(bench, NULL, 0);
	assert_true(n > 10);
	put(bench, 20000, 4);
	bench_close(bench);
	bench_open(bench, 0);
	assert_null(bench->moved);
	assert_int_equal(read_fences(bench, NULL, 0), n + 1);
}

#define IN_MEMORY(f) cmocka_unit_test_setup_teardown(f, begin_in_memory, end_in_memory)
#define WITH_BENCH(f) cmocka_unit_test_setup_teardown(f, bench_begin, bench_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_BENCH(test_a_full_file_system),
		WITH_BENCH(test_files_may_not_grow),
		IN_MEMORY(test_one_write_fails),
		IN_MEMORY(test_the_disk_fails_from_then_on),
		IN_MEMORY(test_the_disk_is_full_from_then_on),
		IN_MEMORY(test_killed_after_a_failed_transaction),
		IN_MEMORY(test_one_allocation_fails),
		IN_MEMORY(test_memory_is_gone_from_then_on),
	};
	install_faulty_memory();
	register_faulty_vfs();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
