/* A file that one process has for itself until it ends, however it ends. */
#pragma once

/*
 * Takes the lock (flock(2)) of an open file. When it is held, that is waited for, FILE_LOCK_PATIENCE_MS at most: a
 * process that is killed just after a fork leaves a child that holds its locks until it gets to run and closes them.
 * 0, -EWOULDBLOCK when another process holds it, or another negative errno.
 */
#define FILE_LOCK_PATIENCE_MS 2000

int file_lock_take(int fd);
