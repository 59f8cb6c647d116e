/* The NVML backend, opened with other things than those of the machine: for tests. */
#pragma once

#include "gpu/backend.h"

struct nvml_options {
	const char *const *paths; /* of the library, NULL at the end */
	const char *gpus_folder; /* "/proc/driver/nvidia/gpus": an entry a GPU, of the driver itself */
	const char *device_prefix; /* "/dev/nvidia" */
	bool is_nested; /* take the PID namespace for a container's */
	uint64_t renew_ms; /* after which a failing GPU is tried anew, at first */
};

int nvml_open_with(const struct nvml_options *options, struct gpu_backend **ret_backend, struct error *err);
