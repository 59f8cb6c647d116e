/*
 * The cgroup v2 folder of one service: below the daemon's own cgroup, gpumgr-INSTANCE/SERVICE. Who is in it belongs to
 * the service, whatever it did to its session or its parents, and that outlives the daemon.
 *
 * Works on a pure and on a hybrid hierarchy; needs no controller. Where there is no cgroup v2, or its folder may not be
 * written, the caller does without. Source: the kernel's cgroup-v2.rst.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "driver/proc.h"

struct cgroup;

/*
 * Finds where the folder would be; creates nothing. -ENOTSUP: there is no cgroup v2 to be seen. `use_kill_file` is
 * false in tests, to do without cgroup.kill (Linux 5.14).
 */
int cgroup_create(const char *instance, const char *service, bool use_kill_file, struct cgroup **ret_cgroup);

/* The same for a folder found in /proc/PID/cgroup, if its path ends as ours would; -ENOENT: it does not. */
int cgroup_create_of_process(
	const char *instance, const char *service, bool use_kill_file, pid_t pid, struct cgroup **ret_cgroup);

/* Lets go of it; the folder stays. */
struct cgroup *cgroup_destroy(struct cgroup *cgroup);

/* Makes the folder. 0 or a negative errno: not writable, no room, ... */
int cgroup_make(struct cgroup *cgroup);

/* Removes the folder and what is below it, and that of the instance if this was the last one in it. */
void cgroup_remove(struct cgroup *cgroup);

/* Descriptors for clone3(CLONE_INTO_CGROUP), and for a child that puts itself in by writing "0". Or a negative errno.
 */
int cgroup_open_folder(const struct cgroup *cgroup);
int cgroup_open_procs(const struct cgroup *cgroup);

/* Signals UV_PRIORITIZED when what cgroup_populated() tells may have changed; it must be read with
 * cgroup_read_populated() each time. */
int cgroup_open_events(const struct cgroup *cgroup);

/* 1: processes live in it, 0: none (or no folder). Negative: it cannot be read. */
int cgroup_read_populated(int events_fd);
int cgroup_populated(const struct cgroup *cgroup);

/* All living processes in it and below it; the caller finishes the list. */
int cgroup_list(const struct cgroup *cgroup, struct pid_list *ret_list);

bool cgroup_has(const struct cgroup *cgroup, pid_t pid);

/* Signals everybody in it. Negative: it could not be looked into, and some were not signalled. */
int cgroup_signal(const struct cgroup *cgroup, int signal);

/* Kills everybody in it, those included who are being born. */
void cgroup_kill(const struct cgroup *cgroup);
