/*
 * A log file that others write to: opening, rotating, reading its end. It knows neither services nor the daemon, keeps
 * nothing open between calls, and must not follow links, symbolic or hard: the folder may be shared with people who are
 * not root.
 */
#include "base/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/owned.h"

#define TAIL_MAX (1024 * 1024)
#define FOLLOW_MAX (64 * 1024)
#define WORDS_MAX (64 * 1024)
#define WORDS_LINE_MAX 300
#define COPY_CHUNK (64 * 1024)
#define COPY_PASSES 16 /* a writer faster than the copy must not keep the rotation for ever */

char *log_file_path(const char *dir, const char *service)
{
	char *path = NULL;
	if (asprintf(&path, "%s/%s.log", dir, service) < 0)
		return NULL;
	return path;
}

static char *older_path(const char *path, const char *suffix)
{
	char *older = NULL;
	if (asprintf(&older, "%s%s", path, suffix) < 0)
		return NULL;
	return older;
}

/*
 * A second name of a file that is elsewhere: whoever may write the folder could have put it there, to have that file
 * written, cut or read. In a folder of our own it is somebody's way of making copies.
 */
static bool is_planted(const char *path, const struct stat *status)
{
	struct stat folder_status;
	if (status->st_nlink < 2)
		return false;
	CLEANUP_FREE char *folder = strdup(path);
	char *slash = folder != NULL ? strrchr(folder, '/') : NULL;
	if (slash == NULL)
		return true;
	slash[slash == folder] = '\0';
	return stat(folder, &folder_status) < 0 || !owned_is_closed(&folder_status);
}

/* A regular file or nothing: a FIFO or a device in its place would block or worse. */
static int open_regular(const char *path, int flags, struct stat *ret_status)
{
	CLEANUP_CLOSE int fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
	if (fd < 0)
		return -errno;
	if (fstat(fd, ret_status) < 0)
		return -errno;
	if (!S_ISREG(ret_status->st_mode))
		return -EBADF;
	if (is_planted(path, ret_status))
		return -EMLINK;
	return TAKE_FD(fd);
}

static bool make_folder_of(const char *path)
{
	CLEANUP_FREE char *folder = strdup(path);
	char *slash = folder != NULL ? strrchr(folder, '/') : NULL;
	if (slash == NULL || slash == folder)
		return false;
	*slash = '\0';
	return mkdir(folder, 0750) == 0;
}

int log_file_open(const char *path, struct error *err)
{
	struct stat status;
	CLEANUP_CLOSE int fd = open_regular(path, O_WRONLY | O_APPEND | O_CREAT, &status);
	/* Somebody who tidied up may have taken the folder along. */
	if (fd == -ENOENT && make_folder_of(path))
		fd = open_regular(path, O_WRONLY | O_APPEND | O_CREAT, &status);
	if (fd == -ELOOP)
		return error_set(err, fd, "log file %s is a symbolic link, which is not followed; remove it", path);
	if (fd == -EBADF || fd == -ENXIO)
		return error_set(err, -EBADF, "log file %s is not a regular file; remove it", path);
	if (fd == -EMLINK)
		return error_set(err, fd,
			"log file %s is a hard link to a file elsewhere, in a folder that others may write; remove it",
			path);
	if (fd < 0)
		return error_set(err, fd, "cannot open log file %s: %s; check log_dir", path, strerror(-fd));
	/* Its service writes to it and must block rather than get EAGAIN. */
	if (fcntl(fd, F_SETFL, O_APPEND) < 0)
		return error_set(err, -errno, "cannot open log file %s: %s", path, strerror(errno));
	return TAKE_FD(fd);
}

static int write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, data, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

/* Copies [*offset, end) of `from` to the end of `to`; stops at the end of the file. */
static int copy_range(int from, int to, uint64_t *offset, uint64_t end)
{
	CLEANUP_FREE char *chunk = malloc(COPY_CHUNK);
	if (chunk == NULL)
		return -ENOMEM;
	while (*offset < end) {
		size_t wanted = end - *offset < COPY_CHUNK ? (size_t)(end - *offset) : COPY_CHUNK;
		ssize_t n = pread(from, chunk, wanted, (off_t)*offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		int r = write_all(to, chunk, (size_t)n);
		if (r < 0)
			return r;
		*offset += (uint64_t)n;
	}
	return 0;
}

static int file_size(int fd, uint64_t *ret_size)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return -errno;
	*ret_size = (uint64_t)status.st_size;
	return 0;
}

/* The older file takes the place of the previous one only when it is whole. */
static int publish(const char *temporary, const char *older)
{
	return rename(temporary, older) < 0 ? -errno : 0;
}

/*
 * Cuts the copied front off in one step; only whole blocks can go, and never the whole file.
 * -EOPNOTSUPP and the like where the file system cannot: then nothing has changed.
 */
static int rotate_by_cutting(
	int fd, int copy, const struct stat *status, const char *temporary, const char *older, uint64_t *ret_removed)
{
	uint64_t block = status->st_blksize > 0 ? (uint64_t)status->st_blksize : 4096;
	uint64_t size = (uint64_t)status->st_size;
	uint64_t front = (size - 1) / block * block;
	if (front == 0)
		return -EOPNOTSUPP;
	uint64_t copied = 0;
	int r = copy_range(fd, copy, &copied, front);
	if (r < 0)
		return r;
	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, (off_t)front) < 0)
		return -EOPNOTSUPP;
	*ret_removed = front;
	return publish(temporary, older);
}

static int rotate_by_copying(int fd, int copy, const char *temporary, const char *older, uint64_t *ret_removed)
{
	uint64_t copied = 0, size = 0;
	if (ftruncate(copy, 0) < 0 || lseek(copy, 0, SEEK_SET) < 0)
		return -errno;
	for (unsigned pass = 0; pass < COPY_PASSES; pass++) {
		int r = file_size(fd, &size);
		if (r < 0)
			return r;
		if (pass > 0 && size == copied)
			break;
		r = copy_range(fd, copy, &copied, size);
		if (r < 0)
			return r;
	}
	/* At once: what is written from here to there is lost. */
	if (ftruncate(fd, 0) < 0)
		return -errno;
	*ret_removed = copied;
	return publish(temporary, older);
}

int log_file_rotate(const char *path, uint64_t limit, uint64_t *ret_removed)
{
	uint64_t removed = 0;
	if (ret_removed != NULL)
		*ret_removed = 0;
	struct stat status;
	CLEANUP_CLOSE int fd = open_regular(path, O_RDWR, &status);
	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	if ((uint64_t)status.st_size <= limit)
		return 0;
	CLEANUP_FREE char *temporary = older_path(path, ".1.new");
	CLEANUP_FREE char *older = older_path(path, ".1");
	if (temporary == NULL || older == NULL)
		return -ENOMEM;
	if (unlink(temporary) < 0 && errno != ENOENT)
		return -errno;
	CLEANUP_CLOSE int copy = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (copy < 0)
		return -errno;
	int r = rotate_by_cutting(fd, copy, &status, temporary, older, &removed);
	if (r == -EOPNOTSUPP)
		r = rotate_by_copying(fd, copy, temporary, older, &removed);
	if (r < 0) {
		/* Once the front is cut off, the copy is all there is of it. */
		if (removed == 0)
			unlink(temporary);
		return r;
	}
	if (ret_removed != NULL)
		*ret_removed = removed;
	return 0;
}

int log_file_rotate_idle(const char *path, uint64_t limit)
{
	if (log_file_size(path) <= limit)
		return 0;
	CLEANUP_FREE char *older = older_path(path, ".1");
	if (older == NULL)
		return -ENOMEM;
	return rename(path, older) < 0 ? -errno : 0;
}

uint64_t log_file_size(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0 && S_ISREG(status.st_mode) ? (uint64_t)status.st_size : 0;
}

/* Reads at most `length` bytes at `offset` into a fresh string. */
static int read_piece(const char *path, uint64_t offset, size_t length, char **ret_text, size_t *ret_length)
{
	struct stat status;
	CLEANUP_CLOSE int fd = open_regular(path, O_RDONLY, &status);
	if (fd < 0)
		return fd;
	CLEANUP_FREE char *text = malloc(length + 1);
	if (text == NULL)
		return -ENOMEM;
	size_t have = 0;
	while (have < length) {
		ssize_t n = pread(fd, text + have, length - have, (off_t)(offset + have));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	text[have] = '\0';
	*ret_length = have;
	*ret_text = TAKE_PTR(text);
	return 0;
}

/* The last at most `most` bytes of the file; *ret_size is where it ended. A missing file is an empty one. */
static int read_end(const char *path, size_t most, char **ret_text, size_t *ret_length, uint64_t *ret_size)
{
	uint64_t size = log_file_size(path);
	uint64_t offset = size > most ? size - most : 0;
	int r = read_piece(path, offset, (size_t)(size - offset), ret_text, ret_length);
	if (r == -ENOENT) {
		*ret_text = calloc(1, 1);
		*ret_length = 0;
		*ret_size = 0;
		return *ret_text != NULL ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	*ret_size = offset + *ret_length;
	return 0;
}

/* Where the last `n_lines` lines begin; *ret_missing: how many more there should be before `text`. */
static size_t last_lines(const char *text, size_t length, size_t n_lines, size_t *ret_missing)
{
	size_t at = length, lines = 0;
	*ret_missing = 0;
	if (n_lines == 0)
		return length;
	while (at > 0) {
		if (text[at - 1] == '\n' && at < length && ++lines == n_lines)
			return at;
		at--;
	}
	/* The first line may have begun in the older file: one is missing even when the count is right. */
	*ret_missing = n_lines - lines;
	return 0;
}

int log_file_tail(const char *path, size_t n_lines, char **ret_text, uint64_t *ret_offset)
{
	CLEANUP_FREE char *current = NULL, *before = NULL, *whole = NULL;
	size_t current_length = 0, before_length = 0, missing = 0;
	uint64_t size = 0, before_size = 0;
	int r = read_end(path, TAIL_MAX, &current, &current_length, &size);
	if (r < 0)
		return r;
	size_t start = last_lines(current, current_length, n_lines, &missing);
	if (missing > 0 && current_length < TAIL_MAX && size == current_length) {
		CLEANUP_FREE char *older = older_path(path, ".1");
		if (older == NULL)
			return -ENOMEM;
		if (read_end(older, TAIL_MAX - current_length, &before, &before_length, &before_size) < 0)
			before_length = 0;
	}
	whole = malloc(before_length + current_length + 1);
	if (whole == NULL)
		return -ENOMEM;
	if (before_length > 0)
		memcpy(whole, before, before_length);
	memcpy(whole + before_length, current, current_length);
	size_t length = before_length + current_length;
	whole[length] = '\0';
	start = before_length > 0 ? last_lines(whole, length, n_lines, &missing) : start;
	memmove(whole, whole + start, length - start + 1);
	/* A log may hold anything; what is returned is a string. */
	for (size_t i = 0; i < length - start; i++)
		if (whole[i] == '\0')
			whole[i] = '?';
	if (ret_offset != NULL)
		*ret_offset = size;
	*ret_text = TAKE_PTR(whole);
	return 0;
}

static bool is_plain(unsigned char c)
{
	return c == '\n' || c == '\t' || (c >= ' ' && c != 0x7f);
}

char *log_file_last_words(const char *path, uint64_t offset, size_t n_lines)
{
	CLEANUP_FREE char *text = NULL;
	size_t length = 0, missing;
	uint64_t size = log_file_size(path);
	if (size > WORDS_MAX && offset < size - WORDS_MAX)
		offset = size - WORDS_MAX;
	if (offset >= size || read_piece(path, offset, (size_t)(size - offset), &text, &length) < 0)
		return calloc(1, 1);
	while (length > 0 && text[length - 1] == '\n')
		length--;
	size_t start = last_lines(text, length, n_lines, &missing), column = 0;
	char *words = malloc(length - start + 1);
	if (words == NULL)
		return NULL;
	size_t n = 0;
	for (size_t i = start; i < length; i++) {
		column = text[i] == '\n' ? 0 : column + 1;
		if (column <= WORDS_LINE_MAX)
			words[n++] = is_plain((unsigned char)text[i]) ? text[i] : '?';
	}
	words[n] = '\0';
	return words;
}

/* The file is shorter than it was: what the reader has not seen yet may be at the end of the older file. */
static int read_rotated(const char *path, uint64_t *offset, char **ret_text, size_t *ret_length)
{
	CLEANUP_FREE char *older = older_path(path, ".1");
	if (older == NULL)
		return -ENOMEM;
	uint64_t removed = log_file_size(older);
	if (*offset >= removed) {
		*offset -= removed;
		return 0;
	}
	uint64_t rest = removed - *offset;
	int r = read_piece(older, *offset, rest < FOLLOW_MAX ? (size_t)rest : FOLLOW_MAX, ret_text, ret_length);
	*offset = 0;
	return r;
}

int log_file_since(const char *path, uint64_t *offset, char **ret_text, size_t *ret_length)
{
	*ret_text = NULL;
	*ret_length = 0;
	uint64_t size = log_file_size(path);
	if (size < *offset) {
		int r = read_rotated(path, offset, ret_text, ret_length);
		if (r < 0 || *ret_text != NULL)
			return r;
		if (size < *offset)
			*offset = 0;
	}
	if (size == *offset)
		return 0;
	uint64_t rest = size - *offset;
	int r = read_piece(path, *offset, rest < FOLLOW_MAX ? (size_t)rest : FOLLOW_MAX, ret_text, ret_length);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	*offset += *ret_length;
	return 0;
}
