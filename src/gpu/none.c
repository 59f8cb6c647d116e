/* The backend of a machine without readings: opens always, sees no GPU. It must not guess one. */
#include <errno.h>
#include <stdlib.h>

#include "gpu/backend.h"

static void none_close(struct gpu_backend *backend)
{
	free(backend);
}

static int none_read(struct gpu_backend *backend, struct gpu_sample *sample, struct error *err)
{
	(void)backend;
	(void)err;
	sample->n_gpus = 0;
	return 0;
}

static int none_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	(void)config;
	struct gpu_backend *backend = calloc(1, sizeof(*backend));
	if (backend == NULL)
		return error_set(err, -ENOMEM, "gpu: out of memory");
	backend->ops = &none_backend;
	*ret_backend = backend;
	return 0;
}

const struct gpu_backend_ops none_backend = {
	.name = "none",
	.open = none_open,
	.read = none_read,
	.close = none_close,
};
