/* The command line of gpumgr-simsvc. It must not act on anything: it only fills struct options. */
#include "simsvc/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/units.h"

enum option_kind { KIND_FLAG, KIND_TEXT, KIND_NUMBER, KIND_MIB, KIND_SECONDS };

#define FIELD(field) offsetof(struct options, field)

static const struct option_row {
	const char *name;
	enum option_kind kind;
	size_t offset;
	uint64_t most; /* of KIND_NUMBER */
	const char *value; /* its name in the help */
	const char *help;
} rows[] = {
	{ "name", KIND_TEXT, FIELD(name), 0, "NAME", "its name in what it writes" },
	{ "port", KIND_NUMBER, FIELD(port), 65535, "P", "the port to serve on; 0: any free one, which it names" },
	{ "address", KIND_TEXT, FIELD(address), 0, "A", "the address to serve on (127.0.0.1)" },
	{ "no-listen", KIND_FLAG, FIELD(no_listen), 0, NULL, "serve nothing" },
	{ "health-path", KIND_TEXT, FIELD(health_path), 0, "PATH", "where health is asked for (/health)" },
	{ "vram", KIND_MIB, FIELD(vram_mib), 0, "MIB", "VRAM that it takes (0)" },
	{ "extra", KIND_MIB, FIELD(extra_mib), 0, "MIB", "take so much more than --vram" },
	{ "leak", KIND_MIB, FIELD(leak_mib), 0, "MIB", "take so much more each second" },
	{ "lazy", KIND_FLAG, FIELD(lazy), 0, NULL, "take the VRAM only when GET /load comes" },
	{ "gpu", KIND_TEXT, FIELD(gpu_list), 0, "I[,I]", "take it on each of these (CUDA_VISIBLE_DEVICES, else 0)" },
	{ "sim-dir", KIND_TEXT, FIELD(sim_dir), 0, "D", "the simulated GPU's folder (GPUMGR_SIM_DIR)" },
	{ "boot", KIND_SECONDS, FIELD(boot_ms), 0, "S", "until it is healthy and takes its VRAM; 503 before (0)" },
	{ "boot-refuse", KIND_FLAG, FIELD(boot_refuse), 0, NULL, "do not even listen while booting" },
	{ "never-healthy", KIND_FLAG, FIELD(never_healthy), 0, NULL, "health is always 503" },
	{ "hang-health", KIND_FLAG, FIELD(hang_health), 0, NULL, "health is accepted and never answered" },
	{ "redirect-health", KIND_FLAG, FIELD(redirect_health), 0, NULL, "health is a redirection" },
	{ "rubbish-health", KIND_FLAG, FIELD(rubbish_health), 0, NULL, "health answers what is not HTTP" },
	{ "endless-health", KIND_FLAG, FIELD(endless_health), 0, NULL, "health answers without an end" },
	{ "ignore-term", KIND_FLAG, FIELD(ignore_term), 0, NULL, "do not end on SIGTERM" },
	{ "stop-delay", KIND_SECONDS, FIELD(stop_delay_ms), 0, "S", "end so long after SIGTERM" },
	{ "crash-after", KIND_SECONDS, FIELD(crash_after_ms), 0, "S", "crash so long after the start" },
	{ "exit-code", KIND_NUMBER, FIELD(exit_code), 255, "N", "crash by exit with this status (1)" },
	{ "crash-signal", KIND_NUMBER, FIELD(crash_signal), 64, "N", "crash by this signal" },
	{ "fail-start", KIND_NUMBER, FIELD(fail_start), 255, "N", "exit with this status before serving" },
	{ "linger-pid", KIND_NUMBER, FIELD(linger_pid), INT32_MAX, "PID",
		"leave the VRAM to that process on a clean end, so that it comes back late" },
	{ "fork", KIND_FLAG, FIELD(fork), 0, NULL, "go into the background once it serves" },
	{ "keep-session", KIND_FLAG, FIELD(keep_session), 0, NULL, "with --fork: stay in the session and group" },
	{ "pid-file", KIND_TEXT, FIELD(pid_file), 0, "F", "write its PID there; removed on a clean end" },
	{ "children", KIND_NUMBER, FIELD(n_children), 1000, "N", "keep so many helper processes in its group" },
	{ "children-deaf", KIND_FLAG, FIELD(children_deaf), 0, NULL, "they ignore SIGTERM" },
	{ "new-session-child", KIND_FLAG, FIELD(new_session_child), 0, NULL, "keep one in a session of its own" },
	{ "log-lines", KIND_NUMBER, FIELD(n_log_lines), 1000000, "N", "write so many lines to stdout at the start" },
	{ "help", KIND_FLAG, SIZE_MAX, 0, NULL, "this text" },
	{ "version", KIND_FLAG, SIZE_MAX, 0, NULL, "its version" },
};

#define FIRST_VALUE 256 /* beyond what getopt_long() itself returns */

void options_print_help(void)
{
	printf("gpumgr-simsvc --port P [OPTION ...]\n\n"
	       "A stand-in for a GPU service: serves a health check, takes VRAM of a simulated GPU, and misbehaves as\n"
	       "told. Sizes are MiB, durations seconds, and both take units (1GiB, 50ms).\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char left[64];
		snprintf(left, sizeof(left), "--%s%s%s", rows[i].name, rows[i].value != NULL ? " " : "",
			rows[i].value != NULL ? rows[i].value : "");
		printf("  %-22s %s\n", left, rows[i].help);
	}
	printf("\nGET HEALTH-PATH 200 when healthy, else 503    GET /healthy, /unhealthy  sets that\n"
	       "GET /load       takes the VRAM                GET /vram                 the MiB taken on each GPU\n"
	       "GET /crash      exits with status 1\n");
}

/* One decimal number, without sign or space. */
static int parse_number(const char *text, uint64_t most, uint64_t *ret_number)
{
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	char *end;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || number > most)
		return -EINVAL;
	*ret_number = number;
	return 0;
}

static int parse_mib(const char *text, uint64_t *ret_mib)
{
	struct size_value size;
	if (parse_size(text, &size) < 0 || size.percent != 0)
		return -EINVAL;
	*ret_mib = size.mib;
	return 0;
}

static int parse_value(const struct option_row *row, const char *text, struct options *options, struct error *err)
{
	void *field = (char *)options + row->offset;
	int r = 0;
	switch (row->kind) {
	case KIND_FLAG:
		*(bool *)field = true;
		break;
	case KIND_TEXT:
		*(const char **)field = text;
		break;
	case KIND_NUMBER:
		r = parse_number(text, row->most, field);
		break;
	case KIND_MIB:
		r = parse_mib(text, field);
		break;
	case KIND_SECONDS:
		r = parse_duration(text, field);
		break;
	}
	if (r < 0)
		return error_set(err, -EINVAL, "--%s %s: not a %s that it could be", row->name, text,
			row->kind == KIND_NUMBER        ? "number"
				: row->kind == KIND_MIB ? "size"
							: "duration");
	return 0;
}

/* "0,GPU-sim-1": as CUDA_VISIBLE_DEVICES, an entry that is no GPU ends the list. */
static int parse_gpus(struct options *options, const char *list, bool is_environment, struct error *err)
{
	static const char prefix[] = "GPU-sim-";
	char text[1024];
	if (strlen(list) >= sizeof(text))
		return error_set(err, -EINVAL, "the list of GPUs is too long");
	memcpy(text, list, strlen(list) + 1);
	char *rest = text;
	for (char *item; (item = strsep(&rest, ",")) != NULL && *item != '\0';) {
		uint64_t index;
		const char *digits = strncmp(item, prefix, strlen(prefix)) == 0 ? item + strlen(prefix) : item;
		if (parse_number(digits, OPTIONS_GPU_MAX - 1, &index) < 0) {
			if (is_environment)
				return 0;
			return error_set(err, -EINVAL, "--gpu %s: neither an index nor GPU-sim-INDEX", item);
		}
		if (options->n_gpus == OPTIONS_GPU_MAX)
			return error_set(err, -EINVAL, "more than %d GPUs", OPTIONS_GPU_MAX);
		options->gpus[options->n_gpus++] = (unsigned)index;
	}
	return 0;
}

static int choose_gpus(struct options *options, struct error *err)
{
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (options->gpu_list != NULL)
		return parse_gpus(options, options->gpu_list, false, err);
	return parse_gpus(options, visible != NULL ? visible : "0", true, err);
}

static int complete(struct options *options, struct error *err)
{
	if (options->sim_dir == NULL)
		options->sim_dir = getenv("GPUMGR_SIM_DIR");
	if (options->port == OPTIONS_UNSET && !options->no_listen)
		return error_set(err, -EINVAL, "--port is missing; say --no-listen if it shall serve nothing");
	if (options->health_path[0] != '/')
		return error_set(err, -EINVAL, "--health-path %s: must begin with /", options->health_path);
	return choose_gpus(options, err);
}

int options_parse(int argc, char **argv, struct options *ret_options, struct error *err)
{
	*ret_options = (struct options){
		.name = "gpumgr-simsvc",
		.address = "127.0.0.1",
		.port = OPTIONS_UNSET,
		.health_path = "/health",
		.crash_after_ms = OPTIONS_UNSET,
		.exit_code = 1,
		.fail_start = OPTIONS_UNSET,
	};
	struct option long_options[ARRAY_SIZE(rows) + 1] = { 0 };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		long_options[i].name = rows[i].name;
		long_options[i].has_arg = rows[i].kind == KIND_FLAG ? no_argument : required_argument;
		long_options[i].val = FIRST_VALUE + (int)i;
	}
	for (int value; (value = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (value < FIRST_VALUE)
			return error_set(err, -EINVAL, "see gpumgr-simsvc --help");
		const struct option_row *row = &rows[value - FIRST_VALUE];
		if (row->offset == SIZE_MAX)
			return strcmp(row->name, "help") == 0 ? OPTIONS_HELP : OPTIONS_VERSION;
		int r = parse_value(row, optarg, ret_options, err);
		if (r < 0)
			return r;
	}
	if (optind < argc)
		return error_set(err, -EINVAL, "%s: it takes options only; see gpumgr-simsvc --help", argv[optind]);
	return complete(ret_options, err);
}
