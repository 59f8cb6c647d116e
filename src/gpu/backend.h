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
	/*
	 * Negative with a message when it does not work (now): -ENOENT when the machine does not have what it takes,
	 * which lets `auto` go on to the next backend.
	 */
	int (*open)(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err);
	/*
	 * Reads all GPUs into `sample` (zeroed by the caller, but for taken_ms). The lists of a reading are malloc'ed;
	 * gpu_sample_finish() frees them. What cannot be read is left invalid with a `problem`; negative only when
	 * nothing could be read at all, and then the backend is to be closed and opened anew.
	 */
	int (*read)(struct gpu_backend *backend, struct gpu_sample *sample, struct error *err);
	void (*close)(struct gpu_backend *backend);
	/*
	 * After close(), or an open() that failed: whether something of it is still in this process and would be used
	 * again, so that only another process gets what is on disk now. NULL: never.
	 */
	bool (*is_left_behind)(void);
};

extern const struct gpu_backend_ops nvml_backend;
extern const struct gpu_backend_ops sim_backend;
extern const struct gpu_backend_ops none_backend;

/*
 * Opens what the configuration names. auto takes the first of the table that the machine has what it takes for (never
 * sim), none at last: one that is there and does not work is an error, so that nobody takes a broken driver for no GPU.
 */
int gpu_backend_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err);

/* Whether `backend` is only what `auto` falls back to: another may open later. */
bool gpu_backend_is_fallback(const struct gpu_config *config, const struct gpu_backend *backend);

/* Whether a backend is left behind in this process that `config` may open. */
bool gpu_backend_is_left_behind(const struct gpu_config *config);

void gpu_sample_finish(struct gpu_sample *sample);
