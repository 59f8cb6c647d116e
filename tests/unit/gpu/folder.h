/* A folder of a test's own, with simulated GPUs in it. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "config/config.h"

struct folder {
	char path[256];
	uint32_t sizes[4];
	struct gpu_config config; /* backend sim, in this folder */
};

/* Makes it, with two GPUs of 24576 and 8192 MiB. Fails the test when it cannot. */
void folder_make(struct folder *folder);

/* Removes it with all that is in it. */
void folder_remove(struct folder *folder);

/* Writes `text` into PATH/<gpu>/<name> at once, by rename. */
void folder_put(const struct folder *folder, unsigned gpu, const char *name, const char *text);

/* The same for a process. */
void folder_take(const struct folder *folder, unsigned gpu, pid_t pid, unsigned mib);

/* PATH/<gpu>/<name>, in a buffer that the caller gives. */
const char *folder_path(const struct folder *folder, unsigned gpu, const char *name, char buffer[512]);
