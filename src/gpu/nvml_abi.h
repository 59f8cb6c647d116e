/*
 * The part of NVIDIA's management library (libnvidia-ml.so.1) that readings need, declared here so that gpumgr builds
 * where there is no NVIDIA software. Names, numbers and layouts are those of the NVML API reference
 * (https://docs.nvidia.com/deploy/nvml-api/), with the version that brought them; the library promises that a symbol
 * with its suffix keeps its meaning for good. Where drivers broke that promise, it is said here.
 */
#pragma once

#include <stdint.h>

typedef struct nvml_device_handle *nvml_device; /* nvmlDevice_t; also a MIG device */

/* nvmlReturn_t, "Device Enums". 999 is "unknown"; others may be added at any time. */
enum nvml_return {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_LIBRARY_NOT_FOUND = 12,
	NVML_ERROR_FUNCTION_NOT_FOUND = 13,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_RESET_REQUIRED = 16,
	NVML_ERROR_OPERATING_SYSTEM = 17,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_IN_USE = 19,
	NVML_ERROR_MEMORY = 20,
	NVML_ERROR_NO_DATA = 21,
	NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_DEPRECATED = 26,
	NVML_ERROR_NOT_READY = 27,
	NVML_ERROR_GPU_NOT_FOUND = 28,
	NVML_ERROR_UNKNOWN = 999,
};

#define NVML_UUID_SIZE 96 /* NVML_DEVICE_UUID_V2_BUFFER_SIZE; the older 80 is less */
#define NVML_NAME_SIZE 96 /* NVML_DEVICE_NAME_V2_BUFFER_SIZE */
#define NVML_TEMPERATURE_GPU 0 /* nvmlTemperatureSensors_t */
#define NVML_MIG_ENABLED 1 /* NVML_DEVICE_MIG_ENABLE */
#define NVML_AMOUNT_UNKNOWN UINT64_MAX /* NVML_VALUE_NOT_AVAILABLE, -1, in an amount of bytes */
#define NVML_INSTANCE_NONE UINT32_MAX /* gpuInstanceId and computeInstanceId outside MIG */

/* NVML_STRUCT_VERSION: size in the low 24 bits, version above. */
#define NVML_VERSION_OF(type, version) ((uint32_t)sizeof(type) | (uint32_t)(version) << 24)

/* nvmlMemory_t, for nvmlDeviceGetMemoryInfo. `used` holds what the driver reserves: used + free = total. */
struct nvml_memory_v1 {
	uint64_t total;
	uint64_t free;
	uint64_t used;
};

/* nvmlMemory_v2_t, R510, for nvmlDeviceGetMemoryInfo_v2. `used` is without `reserved`: the three add up to total. */
struct nvml_memory_v2 {
	uint32_t version;
	uint64_t total;
	uint64_t reserved;
	uint64_t free;
	uint64_t used;
};

/* nvmlUtilization_t: percent. */
struct nvml_utilization {
	uint32_t gpu;
	uint32_t memory;
};

/* nvmlTemperature_v1_t, R560, for nvmlDeviceGetTemperatureV. */
struct nvml_temperature_v1 {
	uint32_t version;
	uint32_t sensor;
	int32_t temperature;
};

/* nvmlProcessInfo_v1_t: nvmlDeviceGet{Compute,Graphics,MPSCompute}RunningProcesses. */
struct nvml_process_v1 {
	uint32_t pid;
	uint64_t bytes;
};

/*
 * nvmlProcessInfo_v2_t: ..._v2 (R470) and ..._v3 (R510). The same in both, but for drivers R535 before 535.98: their
 * ..._v3 appends a uint64 (usedGpuCcProtectedMemory) to each entry, without a new suffix (CUDA 12.2's headers agree
 * with them). So what an entry takes is found out from what the library wrote; see nvml_processes.c.
 */
struct nvml_process_v2 {
	uint32_t pid;
	uint64_t bytes;
	uint32_t gpu_instance;
	uint32_t compute_instance;
};

#define NVML_PROCESS_LARGEST 32

_Static_assert(sizeof(struct nvml_memory_v1) == 24, "nvmlMemory_t");
_Static_assert(sizeof(struct nvml_memory_v2) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(struct nvml_process_v1) == 16, "nvmlProcessInfo_v1_t");
_Static_assert(sizeof(struct nvml_process_v2) == 24, "nvmlProcessInfo_v2_t");
_Static_assert(sizeof(struct nvml_temperature_v1) == 12, "nvmlTemperature_v1_t");
