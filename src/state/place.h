/*
 * The files of the store: PATH (the database), PATH-wal (SQLite's own), PATH.recent (the journal), PATH.lock. All 0600:
 * they hold secrets. Only for this room.
 *
 * PATH.lock keeps other processes out. It also repeats the first fence that is not reserved yet: when the database is
 * lost, or replaced by an older copy, the fences still grow.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* -EAGAIN: another process has it. `*ret_fence`: what the lock file repeats, 0 when it says nothing. */
int place_lock(const char *path, int *ret_fd, uint64_t *ret_fence, struct error *err);

/* Not waited for, and not reported: it only repeats what the database holds. */
void place_note_fence(int lock_fd, uint64_t fence);

/*
 * Makes the file when it is not there, and all files of the store private. `*ret_is_lost`: there was a database, and
 * what is there now has no content; not when nothing at all is there any more. -EINVAL: not a regular file.
 */
int place_prepare(const char *path, bool was_used, bool *ret_is_lost, struct error *err);

/*
 * Renames the database and what SQLite keeps beside it, and says so in the log; `*ret_moved` is the new name, which the
 * caller frees.
 */
int place_move_aside(const char *path, char **ret_moved, struct error *err);

/*
 * The journal, of `size` bytes for which the file system has room. Made where there is none, and after
 * place_prepare().
 */
int place_open_journal(const char *path, size_t size, int *ret_fd, struct error *err);

/* Another program, or a gpumgrd of before, has shared memory there. Only while nobody else may open the database. */
void place_remove_shared_memory(const char *path);
