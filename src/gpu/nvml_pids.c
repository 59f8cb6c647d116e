/* Looks into /proc for what a PID is worth. It must never take a process for one that it cannot prove to be it. */
#include "gpu/nvml_pids.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HOST_PID_NAMESPACE 0xeffffffcu /* PROC_PID_INIT_INO of linux/proc_ns.h: the same on every kernel */

void nvml_pids_init(struct nvml_pids *pids)
{
	struct stat st;
	const char *said = getenv("GPUMGR_NVML_PIDS");
	bool is_own = said != NULL && strcmp(said, "own") == 0;
	bool is_host = stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == HOST_PID_NAMESPACE;
	*pids = (struct nvml_pids){ .is_nested = !is_own && !is_host, .device_prefix = "/dev/nvidia" };
}

/* Clock ticks from boot to the start of the process (field 22 of /proc/PID/stat, proc(5)); 0: there is none. */
static uint64_t start_of(pid_t pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	const char *at = strrchr(text, ')'); /* the name before it may hold anything */
	for (int field = 2; at != NULL && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static bool has_device_open(const struct nvml_pids *pids, pid_t pid)
{
	char path[64], target[256];
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	CLEANUP_CLOSEDIR DIR *dir = opendir(path);
	if (dir == NULL)
		return false;
	size_t length = strlen(pids->device_prefix);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target));
		if (n >= (ssize_t)length && memcmp(target, pids->device_prefix, length) == 0)
			return true;
	}
	return false;
}

bool nvml_pids_believe(struct nvml_pids *pids, pid_t pid)
{
	if (!pids->is_nested)
		return true;
	uint64_t start = start_of(pid);
	size_t i = 0;
	while (i < pids->n_seen && pids->seen[i].pid != pid)
		i++;
	/* Believed before, and gone since: the driver is a moment behind. */
	if (i < pids->n_seen && (start == 0 || pids->seen[i].start == start))
		return true;
	if (start == 0 || !has_device_open(pids, pid))
		return false;
	if (i == NVML_PIDS_SEEN) /* full: the oldest goes */
		memmove(&pids->seen[0], &pids->seen[1], --i * sizeof(pids->seen[0]));
	pids->seen[i].pid = pid;
	pids->seen[i].start = start;
	if (i >= pids->n_seen)
		pids->n_seen = i + 1;
	return true;
}
