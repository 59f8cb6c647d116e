/* The table of GPU backends and the choice among them. It must not know what any of them does. */
#include "gpu/backend.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"

static const struct {
	enum gpu_backend_choice choice;
	const struct gpu_backend_ops *ops;
	bool is_automatic; /* tried by `auto`, in this order */
} backends[] = {
	{ GPU_BACKEND_NVML, &nvml_backend, true },
	{ GPU_BACKEND_SIM, &sim_backend, false },
	{ GPU_BACKEND_NONE, &none_backend, true },
};

static int open_first(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	int r = -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(backends) && r == -ENOENT; i++)
		if (backends[i].is_automatic)
			r = backends[i].ops->open(config, ret_backend, err);
	return r;
}

int gpu_backend_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	if (config->backend == GPU_BACKEND_AUTO)
		return open_first(config, ret_backend, err);
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (backends[i].choice == config->backend)
			return backends[i].ops->open(config, ret_backend, err);
	return error_set(err, -ENOTSUP,
		"gpu: this gpumgrd was built without the backend that gpu.backend names; set gpu.backend: auto, and "
		"gpu.gpus to the sizes of the cards");
}

bool gpu_backend_is_fallback(const struct gpu_config *config, const struct gpu_backend *backend)
{
	return config->backend == GPU_BACKEND_AUTO && backend->ops == &none_backend;
}

bool gpu_backend_is_left_behind(const struct gpu_config *config)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		bool is_meant = config->backend == GPU_BACKEND_AUTO ? backends[i].is_automatic
								    : config->backend == backends[i].choice;
		if (is_meant && backends[i].ops->is_left_behind != NULL && backends[i].ops->is_left_behind())
			return true;
	}
	return false;
}

void gpu_sample_finish(struct gpu_sample *sample)
{
	for (unsigned i = 0; i < GPU_MAX; i++) {
		free(sample->gpus[i].processes);
		free(sample->gpus[i].migs);
		sample->gpus[i].processes = NULL;
		sample->gpus[i].n_processes = 0;
		sample->gpus[i].migs = NULL;
		sample->gpus[i].n_migs = 0;
	}
	sample->n_gpus = 0;
}
