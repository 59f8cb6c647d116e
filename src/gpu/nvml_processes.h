/*
 * The processes of a GPU, from the lists that NVML keeps apart: compute, graphics and MPS clients. One that stands in
 * several lists is one process, with one amount; one that holds memory in several MIG instances has their sum.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/gpu.h"
#include "gpu/nvml_library.h"

struct nvml_process {
	pid_t pid;
	uint32_t gpu_instance; /* NVML_INSTANCE_NONE outside MIG */
	uint32_t compute_instance;
	uint64_t bytes; /* NVML_AMOUNT_UNKNOWN where the driver does not tell */
};

/* All zero is an empty one. What it has allocated is used again. */
struct nvml_processes {
	struct nvml_process *items;
	size_t n, size;
	bool has_nonsense; /* entries that name no process were left out */
	uint8_t *buffer; /* what the library writes into */
	unsigned capacity; /* entries of the largest kind that fit there */
};

/*
 * Adds the processes of all lists of `device` (a GPU or a MIG device). `bytes_most` is what the GPU has at all: who
 * holds more holds an unknown amount. Returns NVML's code: NVML_SUCCESS, or the first that failed with, in
 * `ret_call`, the name of the call. A kind of process that the GPU or driver does not know is no failure; that there is
 * no list of compute processes is.
 */
int nvml_processes_read(struct nvml_processes *processes, const struct nvml_library *library, nvml_device device,
	uint64_t bytes_most, const char **ret_call);

/* One entry a PID, without names; malloc'ed, `ret_all_known` says whether all have amounts. 0 or -ENOMEM. */
int nvml_processes_total(
	const struct nvml_processes *processes, struct gpu_process **ret_list, size_t *ret_n, bool *ret_all_known);

void nvml_processes_clear(struct nvml_processes *processes);
void nvml_processes_finish(struct nvml_processes *processes);
