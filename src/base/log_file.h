/*
 * The log of one service: DIR/NAME.log, rotated to NAME.log.1 when it exceeds its size, so that about twice that is
 * kept. What a service writes goes straight into the file (O_APPEND), so nothing is lost when gpumgrd dies; the
 * service keeps its descriptor, so rotation cannot rename the file:
 *
 * - where the file system can cut a piece off the front of a file (ext4, XFS), that is done in one step, and nothing
 *   that is written meanwhile is lost;
 * - elsewhere the file is copied and truncated, and what is written between the last copied byte and the truncation
 *   (microseconds) is lost. There is no way around that without standing between the service and its log.
 *
 * Either way NAME.log.1 and NAME.log, one after the other, are the text in its order, without a gap or a repetition.
 * While nobody writes, it is simply renamed.
 *
 * Never follows a symbolic link in the last component, and never opens anything but a regular file.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* "DIR/NAME.log"; the caller frees it. NULL: no memory. */
char *log_file_path(const char *dir, const char *service);

/* Opens for appending, creates with mode 0640, and its folder with 0750. An fd, or a negative errno. */
int log_file_open(const char *path, struct error *err);

/*
 * Rotates when the file is larger than `limit` bytes. `ret_removed` (may be NULL): how many bytes left the front of the
 * file, 0 when it was not rotated. 0, or a negative errno: then the log is as it was.
 */
int log_file_rotate(const char *path, uint64_t limit, uint64_t *ret_removed);

/*
 * The same when nobody writes: then the file is just renamed. May be called in the loop, where log_file_rotate(), which
 * copies and waits for the disk, belongs into a thread.
 */
int log_file_rotate_idle(const char *path, uint64_t limit);

/* Size of the current file; 0 when there is none. */
uint64_t log_file_size(const char *path);

/*
 * The last `n_lines` lines (of at most the last 1 MiB), reaching back into NAME.log.1 where needed, as one string with
 * newlines; the caller frees it. "" when there is no file yet. `ret_offset` (may be NULL): where the current file
 * ended, to follow from.
 */
int log_file_tail(const char *path, size_t n_lines, char **ret_text, uint64_t *ret_offset);

/*
 * The last `n_lines` lines of the current file from `offset` on (of at most the last 64 KiB), each cut to 300 bytes,
 * what is not printable replaced, for messages; the caller frees it. "" when nothing was written. NULL: no memory.
 */
char *log_file_last_words(const char *path, uint64_t offset, size_t n_lines);

/*
 * What was appended since `*offset` (at most 64 KiB a call), for following; notices truncation by rotation and goes
 * on at the new start. `*ret_text` is NULL when there is nothing new. Advances `*offset`.
 */
int log_file_since(const char *path, uint64_t *offset, char **ret_text, size_t *ret_length);
