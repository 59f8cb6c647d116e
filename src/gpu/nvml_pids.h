/*
 * Whether the PIDs that NVML tells are PIDs as gpumgrd sees them.
 *
 * In the host's PID namespace they are. In another one (a container without --pid=host) it depends on the driver: older
 * ones tell the host's numbers, which here are nobody's or, worse, somebody else's; newer ones translate, and leave out
 * who is not in the namespace. So there a PID is believed only if the process with that number has the GPU open; a list
 * in which one is not to be believed is of no use at all. Somebody who knows better says so with
 * GPUMGR_NVML_PIDS=own in gpumgrd's environment.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NVML_PIDS_SEEN 256

struct nvml_pids {
	bool is_nested; /* not in the host's namespace, and nobody said that it does not matter */
	const char *device_prefix; /* "/dev/nvidia" */
	size_t n_seen; /* those that were believed, so that each is looked at once */
	struct {
		pid_t pid;
		uint64_t start;
	} seen[NVML_PIDS_SEEN];
};

void nvml_pids_init(struct nvml_pids *pids);
bool nvml_pids_believe(struct nvml_pids *pids, pid_t pid);
