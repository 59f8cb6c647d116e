/* The sampler child's command line, written and read in one place. It must never carry a secret. */
#include "gpu/sampler_arguments.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "core/gpu.h"
#include "gpu/decimal.h"
#include "gpu/sampler.h"

#define N_FIXED 6 /* the program, SAMPLER_ARGUMENT, parent, interval, reopen, backend */
#define NUMBER_SIZE 12

_Static_assert(ARRAY_SIZE(((struct sampler_arguments *)0)->sim_gpus_mib) == GPU_MAX, "a size for each GPU");

static const char *const choices[] = {
	[GPU_BACKEND_AUTO] = "auto",
	[GPU_BACKEND_NVML] = "nvml",
	[GPU_BACKEND_SIM] = "sim",
	[GPU_BACKEND_NONE] = "none",
};

static char *add_text(char **at, const char *text)
{
	char *start = *at;
	*at = stpcpy(start, text) + 1;
	return start;
}

static char *add_number(char **at, uint32_t number)
{
	char *start = *at;
	*at += snprintf(start, NUMBER_SIZE, "%u", number) + 1;
	return start;
}

char **sampler_arguments_make(pid_t parent, uint32_t interval_ms, const struct gpu_config *config)
{
	const char *dir = config->sim_dir;
	size_t n_sizes = dir != NULL ? config->n_sim_gpus : 0;
	if (n_sizes > GPU_MAX)
		return NULL;
	size_t n = N_FIXED + (dir != NULL) + n_sizes;
	size_t text_size = 64 + (n_sizes + 3) * NUMBER_SIZE + (dir != NULL ? strlen(dir) + 1 : 0);
	char **argv = malloc((n + 1) * sizeof(*argv) + text_size);
	if (argv == NULL)
		return NULL;
	char *at = (char *)(argv + n + 1);
	size_t i = 0;
	argv[i++] = add_text(&at, "gpumgrd");
	argv[i++] = add_text(&at, SAMPLER_ARGUMENT);
	argv[i++] = add_number(&at, (uint32_t)parent);
	argv[i++] = add_number(&at, interval_ms);
	argv[i++] = add_number(&at, 0);
	argv[i++] = add_text(&at, choices[config->backend]);
	if (dir != NULL)
		argv[i++] = add_text(&at, dir);
	for (size_t k = 0; k < n_sizes; k++)
		argv[i++] = add_number(&at, config->sim_gpus_mib[k]);
	argv[i] = NULL;
	return argv;
}

static bool parse_number(const char *text, uint64_t most, uint32_t *ret_value)
{
	uint64_t value;
	if (!decimal_parse(text, strlen(text), most, &value))
		return false;
	*ret_value = (uint32_t)value;
	return true;
}

static bool parse_choice(const char *text, enum gpu_backend_choice *ret_choice)
{
	for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
		if (strcmp(text, choices[i]) == 0) {
			*ret_choice = (enum gpu_backend_choice)i;
			return true;
		}
	}
	return false;
}

int sampler_arguments_parse(int argc, char **argv, struct sampler_arguments *ret_arguments)
{
	*ret_arguments = (struct sampler_arguments){ 0 };
	struct gpu_config *config = &ret_arguments->config;
	if (argc < N_FIXED || argc > N_FIXED + 1 + GPU_MAX || strcmp(argv[1], SAMPLER_ARGUMENT) != 0)
		return -EINVAL;
	uint32_t parent;
	if (!parse_number(argv[2], INT_MAX, &parent) ||
		!parse_number(argv[3], SAMPLER_INTERVAL_MOST_MS, &ret_arguments->interval_ms) ||
		ret_arguments->interval_ms == 0 ||
		!parse_number(argv[4], SAMPLER_INTERVAL_MOST_MS, &ret_arguments->reopen_ms) ||
		!parse_choice(argv[5], &config->backend))
		return -EINVAL;
	ret_arguments->parent = (pid_t)parent;
	config->interval_ms = ret_arguments->interval_ms;
	config->sim_gpus_mib = ret_arguments->sim_gpus_mib;
	if (argc > N_FIXED)
		config->sim_dir = argv[N_FIXED];
	for (int i = N_FIXED + 1; i < argc; i++)
		if (!parse_number(argv[i], GPU_MIB_UNKNOWN - 1, &config->sim_gpus_mib[config->n_sim_gpus++]))
			return -EINVAL;
	return 0;
}
