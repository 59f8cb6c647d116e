/*
 * The files of the store. Never opens the database itself while SQLite may have it open: closing any descriptor of it
 * would end SQLite's locks (fcntl(2), POSIX record locks). The log has no such locks.
 */
#include "state/place.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "state/layout.h"

#define MODE 0600
#define FENCE_TEXT_SIZE 22 /* 20 digits, newline, 0 */
#define NAMES_TRIED 100
#define JOURNAL_SUFFIX ".recent" /* SQLite has a file of its own that ends in -journal */

/*
 * SQLite's journal is only there until its log is, on a first start, and ours is made before the first lease: beside an
 * empty file they say nothing of a database.
 */
static const struct {
	const char *suffix;
	bool was_used;
} companions[] = {
	{ "-wal", true },
	{ "-shm", true },
	{ "-journal", false },
	{ JOURNAL_SUFFIX, false },
};

static int set_file_error(struct error *err, int error, const char *action, const char *path)
{
	const char *remedy = error == EACCES || error == EPERM || error == EROFS
		? "; make its folder writable for gpumgrd, or name another one (state_dir)"
		: error == ENOSPC || error == EDQUOT ? "; make room on that file system"
						     : "";
	return error_set(err, -error, "state: cannot %s %s: %s%s", action, path, strerror(error), remedy);
}

static uint64_t read_fence(int fd)
{
	char text[FENCE_TEXT_SIZE + 1] = "", *end;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	if (n <= 0 || text[0] < '0' || text[0] > '9')
		return 0;
	errno = 0;
	unsigned long long fence = strtoull(text, &end, 10);
	return errno == 0 && *end == '\n' && fence <= FENCE_BELIEVED_MAX ? fence : 0;
}

int place_lock(const char *path, int *ret_fd, uint64_t *ret_fence, struct error *err)
{
	CLEANUP_FREE char *name = NULL;
	if (asprintf(&name, "%s.lock", path) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	CLEANUP_CLOSE int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, MODE);
	if (fd < 0)
		return set_file_error(err, errno, "open", name);
	int r = file_lock_take(fd);
	if (r == -EWOULDBLOCK)
		return error_set(err, -EAGAIN,
			"state: another process uses %s; end that gpumgrd, or name another folder (state_dir)", path);
	if (r < 0)
		return set_file_error(err, -r, "lock", name);
	*ret_fence = read_fence(fd);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void place_note_fence(int lock_fd, uint64_t fence)
{
	char text[FENCE_TEXT_SIZE + 1];
	int length = snprintf(text, sizeof(text), "%020llu\n", (unsigned long long)fence);
	ssize_t ignored = pwrite(lock_fd, text, (size_t)length, 0);
	(void)ignored;
}

/* A new name lasts only when the folder has reached the disk, too. */
static void sync_folder(const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (copy == NULL)
		return;
	CLEANUP_CLOSE int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		fsync(fd);
}

static int create_file(const char *path, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, MODE);
	if (fd < 0)
		return set_file_error(err, errno, "make", path);
	sync_folder(path);
	return 0;
}

/* Size of a file beside the database, 0 when there is none; what may be read by others is closed to them. */
static int close_to_others(const char *path, const char *suffix, off_t *ret_size, struct error *err)
{
	CLEANUP_FREE char *name = NULL;
	struct stat status;
	if (asprintf(&name, "%s%s", path, suffix) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	*ret_size = 0;
	if (lstat(name, &status) < 0)
		return errno == ENOENT ? 0 : set_file_error(err, errno, "look at", name);
	if (!S_ISREG(status.st_mode))
		return error_set(err, -EINVAL, "state: %s is not a regular file; move it away", name);
	*ret_size = status.st_size;
	if ((status.st_mode & 07777) != MODE && chmod(name, MODE) < 0)
		return set_file_error(err, errno, "set the permissions of", name);
	return 0;
}

int place_prepare(const char *path, bool was_used, bool *ret_is_lost, struct error *err)
{
	off_t size, beside = 0, beside_used = 0;
	struct stat status;
	int r = close_to_others(path, "", &size, err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(companions); i++) {
		off_t one = 0;
		r = close_to_others(path, companions[i].suffix, &one, err);
		beside += one;
		beside_used += companions[i].was_used ? one : 0;
	}
	if (r < 0)
		return r;
	bool is_missing = lstat(path, &status) < 0;
	if (is_missing)
		r = create_file(path, err);
	/* Who wants everything forgotten removes all of it but the lock file. */
	bool was_removed = is_missing && beside == 0;
	/* SQLite takes a file of one byte for an empty one (sqlite.org, ticket 3260). */
	*ret_is_lost = size <= 1 && (beside_used > 0 || (was_used && !was_removed));
	return r;
}

/* "PATH.damaged-20250102T030405Z", with a number behind it when that is taken. */
static int find_free_name(const char *path, char **ret_name, struct error *err)
{
	time_t now = time(NULL);
	struct tm parts;
	char when[32];
	struct stat status;
	gmtime_r(&now, &parts);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &parts);
	for (int i = 1; i <= NAMES_TRIED; i++) {
		CLEANUP_FREE char *name = NULL;
		int length = i == 1 ? asprintf(&name, "%s.damaged-%s", path, when)
				    : asprintf(&name, "%s.damaged-%s-%d", path, when, i);
		if (length < 0) {
			name = NULL;
			return -ENOMEM;
		}
		if (lstat(name, &status) < 0 && errno == ENOENT) {
			*ret_name = TAKE_PTR(name);
			return 0;
		}
	}
	return error_set(
		err, -EEXIST, "state: %s.damaged-%s and others of its kind are there already; remove them", path, when);
}

/* The database first: SQLite drops a log that it finds beside an empty file, should we be killed in between. */
int place_move_aside(const char *path, char **ret_moved, struct error *err)
{
	CLEANUP_FREE char *moved = NULL;
	int r = find_free_name(path, &moved, err);
	if (r < 0)
		return r;
	if (rename(path, moved) < 0)
		return set_file_error(err, errno, "move aside", path);
	/* At once: whatever becomes of this start, the next one finds nothing that it could tell of. */
	log_error("state: %s was damaged and is kept as %s; leases of before are lost", path, moved);
	for (size_t i = 0; i < ARRAY_SIZE(companions); i++) {
		CLEANUP_FREE char *from = NULL, *to = NULL;
		if (asprintf(&from, "%s%s", path, companions[i].suffix) < 0)
			from = NULL;
		if (asprintf(&to, "%s%s", moved, companions[i].suffix) < 0)
			to = NULL;
		if (from == NULL || to == NULL)
			return -ENOMEM;
		if (rename(from, to) < 0 && errno != ENOENT)
			return set_file_error(err, errno, "move aside", from);
	}
	sync_folder(path);
	*ret_moved = TAKE_PTR(moved);
	return 0;
}

static bool is_allocated(const struct stat *status, off_t size)
{
	return status->st_size >= size && status->st_blocks * 512 >= size;
}

int place_open_journal(const char *path, size_t size, int *ret_fd, struct error *err)
{
	CLEANUP_FREE char *name = NULL;
	struct stat status;
	if (asprintf(&name, "%s" JOURNAL_SUFFIX, path) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	CLEANUP_CLOSE int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, MODE);
	if (fd < 0 || fstat(fd, &status) < 0)
		return set_file_error(err, errno, "open", name);
	if (!S_ISREG(status.st_mode))
		return error_set(err, -EINVAL, "state: %s is not a regular file; move it away", name);
	if (!is_allocated(&status, (off_t)size)) {
		int error = posix_fallocate(fd, 0, (off_t)size);
		if (error != 0)
			return set_file_error(err, error, "take the room for", name);
		sync_folder(path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void place_remove_shared_memory(const char *path)
{
	CLEANUP_FREE char *name = NULL;
	if (asprintf(&name, "%s-shm", path) < 0) {
		name = NULL;
		return;
	}
	unlink(name);
}
