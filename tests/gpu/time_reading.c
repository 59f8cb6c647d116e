/* Prints how many milliseconds each of N readings through NVML takes, a line each. For tests/gpu. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/backend.h"

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
	static struct gpu_sample sample;
	const struct gpu_config config = { .backend = GPU_BACKEND_NVML };
	struct gpu_backend *backend = NULL;
	struct error err = { "" };
	long n = argc > 1 ? strtol(argv[1], NULL, 10) : 100;
	int r = gpu_backend_open(&config, &backend, &err);
	for (long i = 0; i < n && r >= 0; i++) {
		memset(&sample, 0, sizeof(sample));
		double begin = now_ms();
		r = backend->ops->read(backend, &sample, &err);
		if (r >= 0)
			printf("%.3f\n", now_ms() - begin);
		gpu_sample_finish(&sample);
	}
	if (backend != NULL)
		backend->ops->close(backend);
	if (r < 0)
		fprintf(stderr, "time-reading: %s\n", err.message);
	return r < 0;
}
