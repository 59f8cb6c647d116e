/*
 * GPU backends: where readings come from. One file a backend, each with one `const struct gpu_backend_ops`, all
 * listed in backend.c. Backends run in the sampler child process, where a call that hangs hurts nobody, and may
 * block.
 */
#pragma once

#include "base/error.h"
#include "config/config.h"
#include "core/gpu.h"

struct gpu_backend {
	const struct gpu_backend_ops *ops;
};

struct gpu_backend_ops {
	const char *name;
	/* -ENOTSUP with a message when the machine does not have what it takes. */
	int (*open)(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err);
	/*
	 * Reads all GPUs into `sample` (zeroed by the caller, but for taken_ms). The processes of a reading are
	 * malloc'ed; gpu_sample_finish() frees them. What cannot be read is left invalid with a `problem`; negative
	 * only when nothing could be read at all.
	 */
	int (*read)(struct gpu_backend *backend, struct gpu_sample *sample, struct error *err);
	void (*close)(struct gpu_backend *backend);
};

extern const struct gpu_backend_ops sim_backend;
extern const struct gpu_backend_ops none_backend;

/* Opens what the configuration names; auto takes the first of the table that opens (never sim), none at last. */
int gpu_backend_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err);

void gpu_sample_finish(struct gpu_sample *sample);
