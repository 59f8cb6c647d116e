/*
 * What a daemon leaves behind of a running service, so that the next one knows it again without a cgroup and without
 * a pid_file: STATE_DIR/SERVICE.run with PID, start time and boot of the main process, and its session.
 */
#pragma once

#include "driver/proc.h"

/* "STATE_DIR/SERVICE.run"; the caller frees it. */
char *record_path(const char *state_dir, const char *service);

/* Replaces the record in one step. */
int record_write(const char *path, pid_t pid, pid_t session);
void record_remove(const char *path);

/*
 * The recorded process if it lives, else the oldest of its session that carries `mark` in its environment.
 * `ret_session`: the session that it was started in, 0 if none. -ESRCH: nothing of it runs.
 */
int record_find(const char *path, const char *mark, struct proc_stat *ret_stat, pid_t *ret_session);
