/*
 * What the sampler child is told on its command line, where everybody may read it: no secrets.
 *
 *   gpumgrd --sampler-child PARENT_PID INTERVAL_MS REOPEN_MS BACKEND [SIM_DIR SIZE...]
 *
 * REOPEN_MS is 0, or of a child that starts itself anew what it would wait for after the next failure.
 */
#pragma once

#include <sys/types.h>

#include "config/config.h"

#define SAMPLER_ARGUMENT_INTERVAL 3 /* its place in argv */
#define SAMPLER_ARGUMENT_REOPEN 4
#define SAMPLER_SOCKET 3 /* the child's end of the stream */
#define SAMPLER_INTERVAL_MOST_MS (24u * 3600 * 1000)

struct sampler_arguments {
	pid_t parent;
	uint32_t interval_ms;
	uint32_t reopen_ms;
	struct gpu_config config; /* only what backends need; its strings are argv's */
	uint32_t sim_gpus_mib[64];
};

/* A NULL-terminated argv in one block that the caller frees. NULL: no memory, or more GPUs than there can be. */
char **sampler_arguments_make(pid_t parent, uint32_t interval_ms, const struct gpu_config *config);

/* 0 or -EINVAL. `ret_arguments` points into itself and must not be moved. */
int sampler_arguments_parse(int argc, char **argv, struct sampler_arguments *ret_arguments);
