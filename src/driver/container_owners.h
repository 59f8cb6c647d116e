/*
 * Which container a process belongs to, by its cgroup: the id of the container stands in the path, whatever the cgroup
 * version, the driver (/docker/ID, docker-ID.scope, libpod-ID.scope) and the parent. One small table for all container
 * services of a daemon, since each of them is asked for each GPU process of each sample.
 *
 * Source: proc(5) on /proc/PID/cgroup; an answer is kept for a second at most, as a PID is not given out again so soon.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "driver/driver.h"

#define CONTAINER_IDS_MAX 4 /* containers in containers */

struct container_owners;

/* The table of the environment: made with the first acquire, gone with the last release. 0 or -ENOMEM. */
int container_owners_acquire(struct driver_shared *shared);
void container_owners_release(struct driver_shared *shared);

/* Whether the process is in that container, or in one inside it. */
bool container_owners_has(struct container_owners *owners, pid_t pid, const char *id, uint64_t now_ms);

/* The same, without the table. */
bool container_has_process(const char *id, pid_t pid);

/*
 * The ids of containers in the text of a /proc/PID/cgroup, each once, at most CONTAINER_IDS_MAX; not those of helpers
 * (libpod-conmon-ID). Returns how many.
 */
size_t container_parse_cgroup(const char *text, char ids[CONTAINER_IDS_MAX][65]);
