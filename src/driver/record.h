/*
 * What a daemon leaves behind of a running service: STATE_DIR/SERVICE.run. Of a process, PID, start time, session and
 * boot, so that the next daemon knows it again without a cgroup and without a pid_file; of a container, its id and the
 * start of this life, or that its engine was asked to start it. And of both, whether it was being stopped.
 *
 * A file a service, and not a row of the database: a database that is damaged and set aside must not take with it which
 * processes are ours, or they would be started twice.
 */
#pragma once

#include "driver/proc.h"

/* "STATE_DIR/SERVICE.run"; the caller frees it. */
char *record_path(const char *state_dir, const char *service);

/* Replaces the record in one step. */
int record_write(const char *path, pid_t pid, pid_t session);
/* The same of one life of a container; `started_at` as the engine tells it. */
int record_write_container(const char *path, const char *id, const char *started_at, bool is_stopping);
/* Its engine is about to be asked for a start; `started_at` is that of the life before. */
int record_write_start(const char *path, const char *id, const char *started_at);
/* It is about to be stopped. Without a record nothing happens. */
void record_note_stop(const char *path);
void record_remove(const char *path);

/*
 * The recorded process if it lives, else the oldest of its session that carries `mark` in its environment.
 * `session`: that it was started in, 0 if none. -ESRCH: nothing of it runs.
 */
struct record_trace {
	struct proc_stat stat;
	pid_t session;
	bool stopping;
};
int record_find(const char *path, const char *mark, struct record_trace *ret_trace);

enum record_match {
	RECORD_OF_OTHERS, /* or there is none */
	RECORD_OF_LIFE, /* of that life of that container */
	RECORD_OF_START, /* of a start that was asked for at most `within_ms` ago: that life came of it */
};

/* `*ret_stopping`: it was about to be stopped. */
enum record_match record_match_container(
	const char *path, const char *id, const char *started_at, uint64_t within_ms, bool *ret_stopping);
