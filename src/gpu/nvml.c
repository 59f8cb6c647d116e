/*
 * The NVML backend: loads the library, finds the GPUs, in NVML's own order, which is that of the PCI bus, and does both
 * anew when GPUs come, go or fail. It must not read anything of a GPU by itself (nvml_gpu.c). Calls may block: the
 * sampler's parent deals with that.
 */
#include "gpu/nvml.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "gpu/nvml_error.h"
#include "gpu/nvml_gpu.h"

#define RENEW_LEAST_MS 10000
#define RENEW_MOST_MS 160000

struct nvml {
	struct gpu_backend base;
	struct nvml_reader reader;
	bool is_initialised;
	unsigned n_gpus;
	struct nvml_gpu gpus[GPU_MAX];
	char gpus_folder[128];
	int n_folders; /* entries there when the GPUs were counted, -1: no such folder */
	uint64_t renew_first_ms, renew_ms; /* how long a failing GPU waits for the next try */
	uint64_t renew_due_ms; /* 0: none fails */
};

static struct nvml *nvml_free(struct nvml *nvml)
{
	if (nvml == NULL)
		return NULL;
	if (nvml->is_initialised)
		nvml->reader.library.shutdown();
	nvml_processes_finish(&nvml->reader.processes);
	nvml_library_close(&nvml->reader.library);
	free(nvml);
	return NULL;
}

static void cleanup_nvml(struct nvml **nvml)
{
	nvml_free(*nvml);
}

static void nvml_close(struct gpu_backend *backend)
{
	nvml_free((struct nvml *)backend);
}

/* ---- which GPUs there are ---- */

static int count_folders(const char *path)
{
	int n = 0;
	CLEANUP_CLOSEDIR DIR *dir = opendir(path);
	if (dir == NULL)
		return -1;
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		n += entry->d_name[0] != '.';
	return n;
}

static int refuse(const struct nvml *nvml, int code, const char *call, struct error *err)
{
	char text[256];
	nvml_error_text(&nvml->reader.library, code, call, text, sizeof(text));
	return error_set(err, -ENODEV, "nvml: %s", text);
}

static int find_gpus(struct nvml *nvml, struct error *err)
{
	unsigned n = 0;
	nvml->n_folders = count_folders(nvml->gpus_folder);
	int code = nvml->reader.library.device_count(&n);
	if (code != NVML_SUCCESS)
		return refuse(nvml, code, "nvmlDeviceGetCount", err);
	nvml->n_gpus = n < GPU_MAX ? n : GPU_MAX;
	for (unsigned i = 0; i < nvml->n_gpus; i++)
		nvml_gpu_find(&nvml->reader.library, i, &nvml->gpus[i]);
	return 0;
}

static int initialise(struct nvml *nvml, struct error *err)
{
	int code = nvml->reader.library.init();
	if (code != NVML_SUCCESS)
		return refuse(nvml, code, "nvmlInit", err);
	nvml->is_initialised = true;
	return find_gpus(nvml, err);
}

/* The library keeps the list of GPUs that it found when it was initialised. */
static int renew(struct nvml *nvml, struct error *err)
{
	nvml->reader.library.shutdown();
	nvml->is_initialised = false;
	return initialise(nvml, err);
}

/* Whether GPUs came or went. */
static bool has_changed(const struct nvml *nvml)
{
	unsigned n = 0;
	if (nvml->reader.library.device_count(&n) == NVML_SUCCESS && n != nvml->n_gpus && n <= GPU_MAX)
		return true;
	return count_folders(nvml->gpus_folder) != nvml->n_folders;
}

/* ---- readings ---- */

static int read_all(struct nvml *nvml, struct gpu_sample *sample, bool *ret_any_failed, struct error *err)
{
	uint64_t now = clock_now_ms();
	sample->n_gpus = nvml->n_gpus;
	if (nvml->n_gpus == 0)
		snprintf(sample->problem, sizeof(sample->problem),
			"nvml: the driver lists no GPU; look with nvidia-smi -L and lspci whether there is one");
	for (unsigned i = 0; i < nvml->n_gpus; i++) {
		struct gpu_reading *reading = &sample->gpus[i];
		int code = nvml_gpu_read(&nvml->reader, &nvml->gpus[i], reading, now);
		enum nvml_trouble trouble = nvml_error_trouble(code);
		if (trouble == NVML_TROUBLE_DRIVER)
			return error_set(err, -ENODEV, "nvml: %s", reading->problem);
		*ret_any_failed |= (reading->valid & GPU_VALID_USED) == 0 && trouble != NVML_TROUBLE_FIELD;
	}
	return 0;
}

/* What fails may work after the library was initialised anew. That takes its time and disturbs others, so it is tried
 * less and less often. */
static void plan_renewal(struct nvml *nvml, bool any_failed)
{
	if (!any_failed) {
		nvml->renew_ms = nvml->renew_first_ms;
		nvml->renew_due_ms = 0;
	} else if (nvml->renew_due_ms == 0) {
		nvml->renew_due_ms = clock_now_ms() + nvml->renew_ms;
	}
}

static int renew_if_due(struct nvml *nvml, struct error *err)
{
	bool is_due = nvml->renew_due_ms != 0 && clock_now_ms() >= nvml->renew_due_ms;
	if (is_due) {
		nvml->renew_ms = nvml->renew_ms * 2 < RENEW_MOST_MS ? nvml->renew_ms * 2 : RENEW_MOST_MS;
		nvml->renew_due_ms = 0;
	}
	return is_due || has_changed(nvml) ? renew(nvml, err) : 0;
}

static int nvml_read(struct gpu_backend *backend, struct gpu_sample *sample, struct error *err)
{
	struct nvml *nvml = (struct nvml *)backend;
	bool any_failed = false;
	int r = renew_if_due(nvml, err);
	if (r == 0)
		r = read_all(nvml, sample, &any_failed, err);
	if (r < 0) {
		gpu_sample_finish(sample);
		return r;
	}
	plan_renewal(nvml, any_failed || nvml->n_gpus == 0);
	return 0;
}

int nvml_open_with(const struct nvml_options *options, struct gpu_backend **ret_backend, struct error *err)
{
	CLEANUP(cleanup_nvml) struct nvml *nvml = calloc(1, sizeof(*nvml));
	if (nvml == NULL)
		return error_set(err, -ENOMEM, "gpu: out of memory");
	nvml->base.ops = &nvml_backend;
	nvml->renew_first_ms = nvml->renew_ms = options->renew_ms;
	snprintf(nvml->gpus_folder, sizeof(nvml->gpus_folder), "%s", options->gpus_folder);
	nvml_pids_init(&nvml->reader.pids);
	nvml->reader.pids.is_nested |= options->is_nested;
	nvml->reader.pids.device_prefix = options->device_prefix;
	int r = nvml_library_open(options->paths, &nvml->reader.library, err);
	if (r == 0)
		r = initialise(nvml, err);
	if (r < 0)
		return r;
	*ret_backend = &TAKE_PTR(nvml)->base;
	return 0;
}

static int nvml_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	(void)config;
	static const struct nvml_options options = {
		.paths = nvml_library_paths,
		.gpus_folder = "/proc/driver/nvidia/gpus",
		.device_prefix = "/dev/nvidia",
		.renew_ms = RENEW_LEAST_MS,
	};
	return nvml_open_with(&options, ret_backend, err);
}

static bool nvml_is_left_behind(void)
{
	return nvml_library_is_loaded(nvml_library_paths);
}

const struct gpu_backend_ops nvml_backend = {
	.name = "nvml",
	.open = nvml_open,
	.read = nvml_read,
	.close = nvml_close,
	.is_left_behind = nvml_is_left_behind,
};
