/* One NVIDIA GPU: what NVML tells of it, as a reading. */
#pragma once

#include "core/gpu.h"
#include "gpu/nvml_library.h"
#include "gpu/nvml_pids.h"
#include "gpu/nvml_processes.h"

/* What the readings of all GPUs share. */
struct nvml_reader {
	struct nvml_library library;
	struct nvml_pids pids;
	struct nvml_processes processes;
};

/* A GPU, and what changes slowly about it. */
struct nvml_gpu {
	nvml_device handle;
	int handle_code; /* why there is no handle */
	char uuid[sizeof(((struct gpu_reading *)0)->uuid)];
	char name[sizeof(((struct gpu_reading *)0)->name)];
	uint64_t slow_ms; /* when that below is due */
	unsigned valid;
	int temperature_c;
	unsigned utilization_percent;
	bool is_mig;
	size_t n_migs;
	nvml_device migs[GPU_MIG_MAX];
	struct gpu_mig mig_texts[GPU_MIG_MAX]; /* names; the amounts are read each time */
};

/* The GPU with that number, its UUID and name. Where the library refuses it, `handle_code` says why. */
void nvml_gpu_find(const struct nvml_library *library, unsigned index, struct nvml_gpu *gpu);

/*
 * Fills `reading`, which is zeroed. Returns the code of the call that matters most. Where its trouble is
 * NVML_TROUBLE_DRIVER the reading is worth nothing and its `problem` says why; any other the reading has dealt with.
 */
int nvml_gpu_read(struct nvml_reader *reader, struct nvml_gpu *gpu, struct gpu_reading *reading, uint64_t now_ms);
