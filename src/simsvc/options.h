/* What a stand-in service is told to do. options.c holds ONE table of all options: it drives parsing and --help. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define OPTIONS_GPU_MAX 64
#define OPTIONS_UNSET UINT64_MAX

struct options {
	const char *name;
	const char *address;
	uint64_t port; /* OPTIONS_UNSET: not given */
	bool no_listen;
	const char *health_path;
	uint64_t vram_mib;
	uint64_t extra_mib;
	uint64_t leak_mib; /* each second */
	const char *gpu_list; /* NULL: CUDA_VISIBLE_DEVICES, else 0 */
	unsigned n_gpus;
	unsigned gpus[OPTIONS_GPU_MAX];
	const char *sim_dir; /* NULL: there is no simulated GPU */
	bool lazy;
	uint64_t boot_ms;
	bool boot_refuse;
	bool never_healthy, hang_health, redirect_health, rubbish_health, endless_health;
	bool ignore_term;
	uint64_t stop_delay_ms;
	uint64_t crash_after_ms; /* OPTIONS_UNSET: never */
	uint64_t exit_code;
	uint64_t crash_signal; /* 0: crash_after exits with exit_code */
	uint64_t fail_start; /* OPTIONS_UNSET: it does start */
	uint64_t linger_pid; /* 0: the memory comes back with the end */
	bool fork;
	bool keep_session;
	const char *pid_file; /* NULL */
	uint64_t n_children;
	bool children_deaf;
	bool new_session_child;
	uint64_t n_log_lines;
};

enum options_outcome {
	OPTIONS_HELP = 1,
	OPTIONS_VERSION,
};

/* 0, an outcome, or -EINVAL with a message. Strings are argv's or the environment's. */
int options_parse(int argc, char **argv, struct options *ret_options, struct error *err);

void options_print_help(void);
