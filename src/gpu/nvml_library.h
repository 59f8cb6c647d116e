/*
 * libnvidia-ml.so.1, loaded at run time: which of its functions this one has. Functions that came in several versions
 * stand newest first; what a library does not have is NULL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "gpu/nvml_abi.h"

/* The kinds of processes that the driver lists one by one. */
enum nvml_list { NVML_LIST_COMPUTE, NVML_LIST_GRAPHICS, NVML_LIST_MPS, NVML_LISTS };

#define NVML_LIST_VERSIONS 3 /* _v3, _v2, none */

typedef int (*nvml_list_function)(nvml_device device, unsigned *count, void *entries);

struct nvml_library {
	void *handle; /* NULL: not loaded */
	int (*init)(void);
	int (*shutdown)(void);
	const char *(*error_string)(int code); /* may be NULL, as all below where it says so */
	int (*device_count)(unsigned *ret_count);
	int (*device_by_index)(unsigned index, nvml_device *ret_device);
	int (*device_uuid)(nvml_device device, char *uuid, unsigned size);
	int (*device_name)(nvml_device device, char *name, unsigned size);
	int (*memory_v2)(nvml_device device, struct nvml_memory_v2 *memory); /* NULL before R510 */
	int (*memory_v1)(nvml_device device, struct nvml_memory_v1 *memory);
	int (*temperature_v)(nvml_device device, struct nvml_temperature_v1 *temperature); /* NULL before R560 */
	int (*temperature)(nvml_device device, unsigned sensor, unsigned *ret_celsius); /* or NULL */
	int (*utilization)(nvml_device device, struct nvml_utilization *utilization); /* or NULL */
	nvml_list_function lists[NVML_LISTS][NVML_LIST_VERSIONS];
	int (*mig_mode)(nvml_device device, unsigned *ret_current, unsigned *ret_pending); /* these three: NULL */
	int (*mig_count_max)(nvml_device device, unsigned *ret_count); /* before R450 */
	int (*mig_by_index)(nvml_device device, unsigned index, nvml_device *ret_device);
	int (*process_name)(unsigned pid, char *name, unsigned size); /* or NULL */
};

/*
 * Loads the first of `paths` (NULL at the end) that is there. -ENOENT: there is none; -ENOTSUP: there is one, and it is
 * not what it should be. Both with a message.
 */
int nvml_library_open(const char *const *paths, struct nvml_library *ret_library, struct error *err);
void nvml_library_close(struct nvml_library *library);

/* Whether one of `paths` is loaded in this process. */
bool nvml_library_is_loaded(const char *const *paths);

/* By the loader's own ways first, then where WSL2, containers and some distributions put it. */
extern const char *const nvml_library_paths[];
