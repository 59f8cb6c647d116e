/*
 * Who belongs to a running service, and when nobody is left.
 *
 * With a cgroup: who is in it. Without: the processes that were added, their descendants, who shares the session that
 * they were started in, and those orphans that came to this daemon (it is the subreaper of all services) and carry the
 * service's mark in their environment. What can get away from the second way: a process that left the session, lost
 * its parent before anybody looked, and has cleared its environment.
 *
 * A zombie belongs to nobody any more; those that fall to this daemon are reaped here, each by its PID.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "driver/cgroup.h"

/* How a process ended. */
struct exit_status {
	enum { EXIT_UNKNOWN, EXIT_CODE, EXIT_SIGNAL } kind; /* unknown: it was not our child */
	int value;
};

/* "exited with status 3", "killed by signal 9 (SIGKILL)", "ended (...)". Returns `buffer`. */
const char *exit_status_text(struct exit_status status, char *buffer, size_t size);

struct group_listener {
	void *context;
	/* A process that was handed to group_add() ended. */
	void (*handle_ended)(void *context, pid_t pid, struct exit_status status);
	/* Nobody is left, all are reaped. Once, and the last call: the listener may destroy the group in it. */
	void (*handle_empty)(void *context);
};

struct group_options {
	uv_loop_t *loop;
	struct cgroup *cgroup; /* borrowed; NULL: do without */
	const char
		*mark; /* borrowed; NAME=VALUE in the environment of who was started by this daemon; NULL: nobody was */
	pid_t session; /* 0: none of its own */
	struct group_listener listener;
};

struct group;

/* The listener is only called from the loop. At least one process is added or in the cgroup, or it is empty soon. */
int group_create(const struct group_options *options, struct group **ret_group);

/* Touches no process. The loop must run once more to free the memory. */
struct group *group_destroy(struct group *group);

/* Takes `pidfd` in any case. Its end will be told, also when it was a member already. */
int group_add(struct group *group, pid_t pid, int pidfd);

/* Whether anybody lives, or may live since there is no telling; looks now. */
bool group_is_alive(struct group *group);

/* Who started first among those who live; 0: nobody. */
pid_t group_first(struct group *group);

/* Signals everybody, and wakes those who were stopped so that they can heed it. */
void group_signal(struct group *group, int signal);

/* Kills everybody, and goes on killing whoever turns up. */
void group_kill(struct group *group);

bool group_owns(struct group *group, pid_t pid);

/* Looks around: for orphans to reap, for members that were not seen yet. May end in handle_empty. */
void group_check(struct group *group);
