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
	{ GPU_BACKEND_SIM, &sim_backend, false },
	{ GPU_BACKEND_NONE, &none_backend, true },
};

static int open_first(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	int r = -ENOTSUP;
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		if (!backends[i].is_automatic)
			continue;
		r = backends[i].ops->open(config, ret_backend, err);
		if (r == 0)
			break;
	}
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

void gpu_sample_finish(struct gpu_sample *sample)
{
	for (unsigned i = 0; i < GPU_MAX; i++) {
		free(sample->gpus[i].processes);
		sample->gpus[i].processes = NULL;
		sample->gpus[i].n_processes = 0;
	}
	sample->n_gpus = 0;
}
