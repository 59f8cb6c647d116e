/*
 * The log of one service: DIR/NAME.log, rotated to NAME.log.1 when it exceeds its size, so that at most twice
 * that is kept. What a service writes goes straight into the file (O_APPEND), so nothing is lost when gpumgrd
 * dies; rotation copies and truncates, since the service keeps its descriptor.
 *
 * Never follows a symbolic link in the last component.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* "DIR/NAME.log"; the caller frees it. NULL: no memory. */
char *log_file_path(const char *dir, const char *service);

/* Opens for appending, creates with mode 0640. An fd, or a negative errno. */
int log_file_open(const char *path, struct error *err);

/* Rotates when the file is larger than `limit` bytes. 0, or a negative errno (nothing lost). */
int log_file_rotate(const char *path, uint64_t limit);

/*
 * The last `n_lines` lines (of at most the last 1 MiB), reaching back into NAME.log.1 where needed, as one string with
 * newlines; the caller frees it. "" when there is no file yet. `ret_offset` (may be NULL): where the current file
 * ended, to follow from.
 */
int log_file_tail(const char *path, size_t n_lines, char **ret_text, uint64_t *ret_offset);

/*
 * What was appended since `*offset` (at most 64 KiB a call), for following; notices truncation by rotation and goes
 * on at the new start. `*ret_text` is NULL when there is nothing new. Advances `*offset`.
 */
int log_file_since(const char *path, uint64_t *offset, char **ret_text, size_t *ret_length);
