/* gpumgrd: arguments, configuration, and the daemon from its creation to its end. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "gpu/sampler.h"

#define EXIT_USAGE 2

struct arguments {
	const char *config;
	const char *socket;
	const char *state_dir;
	bool check;
	bool verbose;
};

static const char help_text[] =
	"usage: gpumgrd [-c FILE] [--socket PATH] [--state-dir DIR] [--check] [--version]\n"
	"\n"
	"The daemon of gpumgr: shares the GPUs of this machine among services that do not fit together.\n"
	"It stays in the foreground and logs to stderr.\n"
	"\n"
	"  -c, --config FILE    the configuration (root: /etc/gpumgr/gpumgr.yaml, a user: "
	"~/.config/gpumgr/gpumgr.yaml)\n"
	"      --socket PATH    the Unix socket to serve on\n"
	"      --state-dir DIR  where state is kept; one gpumgrd a folder\n"
	"      --check          check the configuration and end\n"
	"  -v, --verbose        log more\n"
	"      --version        print the version\n"
	"  -h, --help           print this\n"
	"\n"
	"Exit status: 0 stopped by SIGTERM or SIGINT, 1 it could not serve, 2 usage or configuration.\n"
	"Configuration: gpumgr config reference, gpumgr.yaml(5). Client: gpumgr(1).\n";

enum option_code { OPTION_SOCKET = 256, OPTION_STATE_DIR, OPTION_CHECK, OPTION_VERSION };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "socket", required_argument, NULL, OPTION_SOCKET },
	{ "state-dir", required_argument, NULL, OPTION_STATE_DIR },
	{ "check", no_argument, NULL, OPTION_CHECK },
	{ "verbose", no_argument, NULL, 'v' },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* Returns -1 to go on, else the exit status. */
static int parse_arguments(int argc, char **argv, struct arguments *ret_arguments)
{
	int code;
	while ((code = getopt_long(argc, argv, "c:vh", long_options, NULL)) != -1) {
		switch (code) {
		case 'c':
			ret_arguments->config = optarg;
			break;
		case OPTION_SOCKET:
			ret_arguments->socket = optarg;
			break;
		case OPTION_STATE_DIR:
			ret_arguments->state_dir = optarg;
			break;
		case OPTION_CHECK:
			ret_arguments->check = true;
			break;
		case 'v':
			ret_arguments->verbose = true;
			break;
		case OPTION_VERSION:
			printf("gpumgrd %s\n", GPUMGR_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			fputs(help_text, stdout);
			return EXIT_SUCCESS;
		default:
			fputs("gpumgrd: see gpumgrd --help\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind == argc)
		return -1;
	fprintf(stderr, "gpumgrd: unexpected argument `%s`; see gpumgrd --help\n", argv[optind]);
	return EXIT_USAGE;
}

/* As editors read it; the journal, which has no such readers, is told how grave it is. */
static void print_problem(const char *line, bool is_warning)
{
	if (supervisor_reads_journal())
		log_line(is_warning ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "%s", line);
	else
		fprintf(stderr, "%s\n", line);
}

static void print_problems(const struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		CLEANUP_FREE char *line = config_problem_line(report, &report->problems[i]);
		print_problem(line != NULL ? line : "out of memory", report->problems[i].is_warning);
	}
}

static struct config *load(const char *path)
{
	struct config *config = NULL;
	struct config_report report = { 0 };
	int result = config_load(path, &config, &report);
	print_problems(&report);
	config_report_finish(&report);
	return result == 0 ? config : NULL;
}

/* Takes `config`. */
static int serve(struct config *config, const struct arguments *arguments)
{
	struct error err = { "" };
	struct daemon_paths paths;
	struct daemon *daemon = NULL;
	int listen_fd = supervisor_take_socket();
	size_t n_services = config->n_services;
	int result = paths_prepare(config, arguments->socket, arguments->state_dir, &paths, &err);
	if (result < 0)
		config_free(config);
	else
		result = daemon_create(config, &paths, listen_fd, &daemon, &err);
	if (result < 0) {
		log_error("%s", err.message[0] != '\0' ? err.message : strerror(-result));
		paths_finish(&paths);
		return EXIT_FAILURE;
	}
	log_info("gpumgrd %s serves %zu service%s on %s", GPUMGR_VERSION, n_services, n_services == 1 ? "" : "s",
		paths.socket);
	daemon_run(daemon);
	supervisor_notify("STOPPING=1");
	daemon_destroy(daemon);
	paths_finish(&paths);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], SAMPLER_ARGUMENT) == 0)
		return sampler_child_main(argc, argv);
	struct arguments arguments = { 0 };
	int status = parse_arguments(argc, argv, &arguments);
	if (status >= 0)
		return status;
	log_setup(arguments.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, supervisor_reads_journal());
	signal(SIGPIPE, SIG_IGN); /* a client that went away is an error of its own write */
	CLEANUP_FREE char *default_config = paths_default_config();
	struct config *config = load(arguments.config != NULL ? arguments.config : default_config);
	if (config == NULL)
		return EXIT_USAGE;
	if (!arguments.check)
		return serve(config, &arguments);
	printf("%s: ok\n", config->path);
	config_free(config);
	return EXIT_SUCCESS;
}
