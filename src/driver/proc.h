/*
 * What /proc tells about processes, and signals that reach exactly the process that was meant.
 *
 * A process is named by its PID and the time it started: a PID alone may have been given to another one meanwhile.
 * Whatever is read here was written by strangers (a process chooses its name and its arguments) and may vanish between
 * two calls; all functions say -ESRCH then. Source: proc(5), pidfd_open(2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_stat {
	pid_t pid;
	pid_t ppid;
	pid_t pgrp;
	pid_t session;
	char state; /* 'Z' zombie, 'X' dead, ... */
	uint64_t start_ticks; /* since boot, in clock ticks */
};

struct proc_list {
	size_t n;
	struct proc_stat *items;
};

struct pid_list {
	size_t n;
	size_t capacity;
	pid_t *items;
};

/* One line of /proc/PID/stat. -EINVAL: it is none. */
int proc_parse_stat(const char *line, struct proc_stat *ret_stat);
int proc_read_stat(pid_t pid, struct proc_stat *ret_stat);

/* Zombies and the dead are not. */
bool proc_is_alive(const struct proc_stat *stat);

/* Whether `a` began before `b`. Within one clock tick the smaller PID counts as the earlier one. */
bool proc_is_older(const struct proc_stat *a, const struct proc_stat *b);

/* 0: the process still is the one that started then, and is alive. -ESRCH: it is not. Else there is no telling. */
int proc_check_still(pid_t pid, uint64_t start_ticks);

/*
 * Every process of the host that can be seen, in the order of /proc. The caller frees `items`. A negative errno when
 * descriptors or memory were missing for one of them: a list that seems whole and is not hides who lives.
 */
int proc_list_all(struct proc_list *ret_list);

/* The children of this process. The caller frees `items`. */
int proc_list_own_children(struct pid_list *ret_list);

int pid_list_add(struct pid_list *list, pid_t pid);
void pid_list_finish(struct pid_list *list);

/* Real and effective user. */
int proc_read_users(pid_t pid, uid_t *ret_real, uid_t *ret_effective);

/* Where the executable was, for messages; " (deleted)" is left on. Returns `buffer`, "?" when it cannot be seen. */
const char *proc_read_exe(pid_t pid, char *buffer, size_t size);

/* The arguments, each ended by a zero byte, at most 64 KiB of them and ended in any case. The caller frees it. */
int proc_read_arguments(pid_t pid, char **ret_text, size_t *ret_length);

/* Path in the cgroup v2 hierarchy, without a " (deleted)" at its end. -ENOENT: the process is in none. */
int proc_read_cgroup(pid_t pid, char *buffer, size_t size);

/* Finds the v2 line in the text of a /proc/PID/cgroup. */
int proc_parse_cgroup(const char *text, char *buffer, size_t size);

/* Whether the process was started with exactly this NAME=VALUE in its environment, as far as that may be read. */
bool proc_has_environment(pid_t pid, const char *entry);

/* When it started: seconds since the epoch by the present clock. */
double proc_started_at(const struct proc_stat *stat);

/* Reads at most `size - 1` bytes of a small file and ends them with a zero byte. The length, or a negative errno. */
ssize_t proc_read_file(const char *path, char *buffer, size_t size);

/* A CLOEXEC pidfd, or a negative errno. */
int process_open(pid_t pid);
int process_signal(int pidfd, int signal);

/*
 * Signals the process only if it is the one that started then: the descriptor is opened first and the identity
 * checked after, so a reused PID is never hit. -ESRCH: it is gone.
 */
int process_signal_exactly(pid_t pid, uint64_t start_ticks, int signal);
