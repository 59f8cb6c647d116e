/* Finds libnvidia-ml.so.1 and its functions. It must not call any of them. */
#include "gpu/nvml_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SONAME "libnvidia-ml.so.1"

const char *const nvml_library_paths[] = {
	SONAME,
	"/usr/lib/wsl/lib/" SONAME, /* WSL2: outside the loader's cache in many distributions */
	"/usr/local/nvidia/lib64/" SONAME, /* Kubernetes nodes mount the driver there */
	"/usr/local/nvidia/lib/" SONAME,
	"/run/nvidia/driver/usr/lib/x86_64-linux-gnu/" SONAME, /* the driver as a container (GPU operator) */
	"/run/nvidia/driver/usr/lib64/" SONAME,
	"/run/opengl-driver/lib/" SONAME, /* NixOS */
	"/usr/lib/x86_64-linux-gnu/nvidia/current/" SONAME, /* Debian, without its alternatives */
	"/usr/lib/x86_64-linux-gnu/" SONAME,
	"/usr/lib/aarch64-linux-gnu/" SONAME,
	"/usr/lib64/" SONAME,
	NULL,
};

#define AT(member) offsetof(struct nvml_library, member)
#define LIST(kind, name)                                                                                               \
	{ name "_v3", AT(lists[kind][0]), false }, { name "_v2", AT(lists[kind][1]), false },                          \
	{                                                                                                              \
		name, AT(lists[kind][2]), false                                                                        \
	}

static const struct {
	const char *name;
	size_t offset;
	bool required;
} symbols[] = {
	{ "nvmlInit_v2", AT(init), true },
	{ "nvmlShutdown", AT(shutdown), true },
	{ "nvmlErrorString", AT(error_string), false },
	{ "nvmlDeviceGetCount_v2", AT(device_count), true },
	{ "nvmlDeviceGetHandleByIndex_v2", AT(device_by_index), true },
	{ "nvmlDeviceGetUUID", AT(device_uuid), true },
	{ "nvmlDeviceGetName", AT(device_name), true },
	{ "nvmlDeviceGetMemoryInfo_v2", AT(memory_v2), false },
	{ "nvmlDeviceGetMemoryInfo", AT(memory_v1), true },
	{ "nvmlDeviceGetTemperatureV", AT(temperature_v), false },
	{ "nvmlDeviceGetTemperature", AT(temperature), false },
	{ "nvmlDeviceGetUtilizationRates", AT(utilization), false },
	LIST(NVML_LIST_COMPUTE, "nvmlDeviceGetComputeRunningProcesses"),
	LIST(NVML_LIST_GRAPHICS, "nvmlDeviceGetGraphicsRunningProcesses"),
	LIST(NVML_LIST_MPS, "nvmlDeviceGetMPSComputeRunningProcesses"),
	{ "nvmlDeviceGetMigMode", AT(mig_mode), false },
	{ "nvmlDeviceGetMaxMigDeviceCount", AT(mig_count_max), false },
	{ "nvmlDeviceGetMigDeviceHandleByIndex", AT(mig_by_index), false },
	{ "nvmlSystemGetProcessName", AT(process_name), false },
};

/*
 * Whether it is there and the loader refused it. Of what is not there, or may not be read, it says "NAME: cannot open
 * shared object file"; of anything else that is wrong it names the file that it found, or what that one lacks.
 */
static bool is_refused(const char *path, const char *error)
{
	static const char absent[] = SONAME ": cannot open shared object file";
	return path[0] == '/' ? access(path, F_OK) == 0 : strncmp(error, absent, sizeof(absent) - 1) != 0;
}

/* NULL, and why the first that is there could not be loaded. */
static void *load_first(const char *const *paths, const char **ret_path, char *why, size_t why_size)
{
	why[0] = '\0';
	for (; *paths != NULL; paths++) {
		void *handle = dlopen(*paths, RTLD_NOW | RTLD_LOCAL);
		*ret_path = *paths;
		if (handle != NULL)
			return handle;
		const char *error = dlerror();
		if (why[0] == '\0' && error != NULL && is_refused(*paths, error))
			snprintf(why, why_size, "%s", error);
	}
	return NULL;
}

static int find_symbols(struct nvml_library *library, const char *path, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *symbol = dlsym(library->handle, symbols[i].name);
		if (symbol == NULL && symbols[i].required)
			return error_set(err, -ENOTSUP,
				"nvml: %s has no %s; install the library that belongs to the NVIDIA driver", path,
				symbols[i].name);
		memcpy((char *)library + symbols[i].offset, &symbol, sizeof(symbol)); /* as POSIX has it, no cast */
	}
	return 0;
}

int nvml_library_open(const char *const *paths, struct nvml_library *ret_library, struct error *err)
{
	char why[256];
	const char *path = NULL;
	struct nvml_library library = { .handle = load_first(paths, &path, why, sizeof(why)) };
	if (library.handle == NULL && why[0] != '\0')
		return error_set(err, -ENOTSUP, "nvml: cannot load " SONAME ": %s", why);
	if (library.handle == NULL)
		return error_set(err, -ENOENT,
			"nvml: there is no " SONAME "; install the NVIDIA driver with its libraries, or give the "
			"container the GPU (docker run --gpus all)");
	int r = find_symbols(&library, path, err);
	if (r < 0)
		nvml_library_close(&library);
	else
		*ret_library = library;
	return r;
}

void nvml_library_close(struct nvml_library *library)
{
	if (library->handle != NULL)
		dlclose(library->handle);
	*library = (struct nvml_library){ 0 };
}

bool nvml_library_is_loaded(const char *const *paths)
{
	for (; *paths != NULL; paths++) {
		void *handle = dlopen(*paths, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
		if (handle == NULL)
			continue;
		dlclose(handle);
		return true;
	}
	return false;
}
