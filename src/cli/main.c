/*
 * gpumgr: the command line. The ONE table of commands, and what happens around each: arguments in, exit status out.
 * Explains nothing that the daemon can explain.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/text.h"

#define ACTION_OPTIONS (OPTION_BIT(OPTION_WAIT) | OPTION_BIT(OPTION_ASYNC))

/* In the order of the help. */
const struct command commands[] = {
	{
		.name = "status",
		.run = cmd_status,
		.usage = "",
		.help = "GPUs, services, leases, the queue and what is under way",
		.details = "VRAM is in MiB. USED is what is measured now, ADMISSIBLE what may still be\n"
			   "admitted.\n",
	},
	{
		.name = "phase",
		.run = cmd_phase,
		.usage = "N|NAME [--wait S] [--async]",
		.help = "make room for a phase and start its services",
		.options = ACTION_OPTIONS,
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_PHASE,
		.details = "Examples:\n  gpumgr phase 4\n  gpumgr phase video --wait 10m\n",
	},
	{
		.name = "plan",
		.run = cmd_plan,
		.usage = "phase N|NAME, or: start SVC",
		.help = "what that would do and why; changes nothing",
		.min_words = 2,
		.max_words = 2,
		.completion = COMPLETE_WORDS,
		.words = "phase start",
		.details = "Exit status 4 when it does not fit as things stand. What is in use is in the\n"
			   "way then, though a request would wait for it.\n\n"
			   "Examples:\n  gpumgr plan phase 4\n  gpumgr plan start ollama\n",
	},
	{
		.name = "start",
		.run = cmd_start,
		.usage = "SVC [--wait S] [--async]",
		.help = "start a service; may evict what has a lower priority",
		.options = ACTION_OPTIONS,
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_SERVICE,
	},
	{
		.name = "stop",
		.run = cmd_stop,
		.usage = "SVC [--force] [--wait S] [--async]",
		.help = "stop a service",
		.options = ACTION_OPTIONS | OPTION_BIT(OPTION_FORCE),
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_SERVICE,
	},
	{
		.name = "restart",
		.run = cmd_restart,
		.usage = "SVC [--wait S] [--async]",
		.help = "stop and start a service",
		.options = ACTION_OPTIONS,
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_SERVICE,
	},
	{
		.name = "release-all",
		.run = cmd_release_all,
		.usage = "[--wait S] [--async]",
		.help = "stop every service that is not in use",
		.options = ACTION_OPTIONS,
	},
	{
		.name = "wait",
		.run = cmd_wait,
		.usage = "SVC [--timeout S]",
		.help = "wait until a service is ready; starts nothing",
		.options = OPTION_BIT(OPTION_TIMEOUT),
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_SERVICE,
		.details = "Exit status 5 when it was not ready in time, 1 when it failed and nothing is\n"
			   "about to start it.\n",
	},
	{
		.name = "run",
		.run = cmd_run,
		.usage = "[SVC ...|--phase N|--vram SIZE] [OPTIONS] -- CMD ...",
		.help = "hold a lease while CMD runs",
		.options = OPTION_BIT(OPTION_PHASE) | OPTION_BIT(OPTION_VRAM) | OPTION_BIT(OPTION_MODE) |
			OPTION_BIT(OPTION_WAIT) | OPTION_BIT(OPTION_PRIORITY) | OPTION_BIT(OPTION_OWNER) |
			OPTION_BIT(OPTION_KILL_ON_LOSS),
		.max_words = WORDS_MAX,
		.completion = COMPLETE_SERVICE,
		.details = "CMD begins when the services are healthy and nobody may evict them, and gets\n"
			   "GPUMGR_LEASE, GPUMGR_FENCE and CUDA_VISIBLE_DEVICES. The lease ends with it.\n"
			   "^C while it waits leaves the queue. A lost lease does not end CMD without\n"
			   "--kill-on-loss; CMD is killed when `gpumgr run' itself is.\n\n"
			   "Examples:\n  gpumgr run comfyui -- python3 render.py\n"
			   "  gpumgr run --vram 6GiB --wait 1h -- ./train\n",
		.statuses = "Exit status: that of CMD, or the signal that CMD died of; besides\n"
			    "  2    wrong use\n"
			    "  125  there was no lease\n"
			    "  126  CMD cannot be run\n"
			    "  127  there is no CMD\n",
	},
	{
		.name = "lease",
		.run = cmd_lease,
		.usage = "ls, or: release ID",
		.help = "list the leases, or end one",
		.min_words = 1,
		.max_words = 2,
		.completion = COMPLETE_WORDS,
		.words = "ls release",
	},
	{
		.name = "reload",
		.run = cmd_reload,
		.usage = "",
		.help = "read the configuration again; says what changed",
		.details = "All of the file is checked first: one that is wrong changes nothing, and the\n"
			   "exit status is 2. A service that runs goes on as it is; what is new in how it\n"
			   "is run counts from its next start. What was removed is stopped when nobody\n"
			   "uses it.\n",
	},
	{
		.name = "unlock",
		.run = cmd_unlock,
		.usage = "",
		.help = "end all leases by force; says what it broke",
		.details = "Where there is no lease, and another host has the lock that hosts share, it\n"
			   "takes the lock from that host and says from whom.\n",
	},
	{
		.name = "logs",
		.run = cmd_logs,
		.usage = "SVC [-n N] [-f]",
		.help = "what a service printed",
		.options = OPTION_BIT(OPTION_LINES) | OPTION_BIT(OPTION_FOLLOW),
		.min_words = 1,
		.max_words = 1,
		.completion = COMPLETE_SERVICE,
		.details = "On a terminal, escape sequences in the log are left out; in a pipe the log is\n"
			   "passed on as it is.\n",
	},
	{
		.name = "events",
		.run = cmd_events,
		.usage = "[-f] [--since ID]",
		.help = "what happened lately, a line an event",
		.options = OPTION_BIT(OPTION_FOLLOW) | OPTION_BIT(OPTION_SINCE),
		.details = "With -f only what happens from now on, unless --since says where to begin.\n",
	},
	{
		.name = "config",
		.run = cmd_config,
		.usage = "check FILE, or: reference, or: schema",
		.help = "check a configuration; every option; its JSON schema",
		.min_words = 1,
		.max_words = 2,
		.completion = COMPLETE_WORDS,
		.words = "check reference schema",
		.details = "Needs no daemon. `check' lists all problems as FILE:LINE:COLUMN: and exits\n"
			   "with 2 if one of them is an error.\n",
	},
	{
		.name = "version",
		.run = cmd_version,
		.usage = "",
		.help = "the versions of this program and of the daemon",
	},
	{
		.name = "help",
		.run = cmd_help,
		.usage = "[COMMAND]",
		.help = "this help, or that of a command",
		.max_words = 1,
		.completion = COMPLETE_COMMAND,
	},
	{
		.name = "_complete",
		.run = cmd_complete,
		.usage = "WHAT [COMMAND]",
		.help = "words for the shell's completion",
		.min_words = 1,
		.max_words = 2,
		.hidden = true,
	},
};
const size_t n_commands = ARRAY_SIZE(commands);

const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < n_commands; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int unknown_command(struct cli *cli, const char *given)
{
	const char *names[ARRAY_SIZE(commands)];
	char *name = text_clean(given, false);
	for (size_t i = 0; i < n_commands; i++)
		names[i] = commands[i].hidden ? "" : commands[i].name;
	const char *clean = cli_keep(cli, name);
	const char *closest = text_closest(clean, names, n_commands);
	if (closest != NULL)
		return cli_fail(CLI_USAGE, "unknown command \"%s\" (did you mean `gpumgr %s'?)", clean, closest);
	return cli_fail(CLI_USAGE, "unknown command \"%s\"; `gpumgr help' lists them", clean);
}

/* The first option that was given and that the command does not take; -1: none. */
static int foreign_option(const struct arguments *arguments, const struct command *command)
{
	unsigned foreign = arguments->given & ~(OPTIONS_GLOBAL | command->options);
	return foreign != 0 ? __builtin_ctz(foreign) : -1;
}

static int check_use(struct cli *cli, const struct command *command)
{
	int option = foreign_option(&cli->arguments, command);
	size_t n = cli->arguments.n_words - 1;
	if (option >= 0)
		return cli_usage(cli, "%s does not take --%s", command->name, option_rows[option].name);
	if (n < command->min_words)
		return cli_usage(cli, "%s needs more: gpumgr %s %s", command->name, command->name, command->usage);
	if (n > command->max_words)
		return cli_usage(
			cli, "%s takes fewer arguments: gpumgr %s %s", command->name, command->name, command->usage);
	return CLI_DONE;
}

static int run_command(struct cli *cli)
{
	if (cli->arguments.n_words == 0 && is_given(&cli->arguments, OPTION_HELP)) {
		help_main(stdout);
		return CLI_DONE;
	}
	if (is_given(&cli->arguments, OPTION_VERSION)) {
		printf("gpumgr %s\n", GPUMGR_VERSION);
		return CLI_DONE;
	}
	if (cli->arguments.n_words == 0) {
		help_brief(stderr);
		return CLI_USAGE;
	}
	const struct command *command = find_command(cli->arguments.words[0]);
	if (command == NULL)
		return unknown_command(cli, cli->arguments.words[0]);
	if (is_given(&cli->arguments, OPTION_HELP)) {
		help_command(command, stdout);
		return CLI_DONE;
	}
	int status = check_use(cli, command);
	return status != CLI_DONE ? status : command->run(cli);
}

static void end(struct cli *cli)
{
	gpumgr_free(cli->g);
	cli_release(cli, 0);
	free(cli->kept);
}

/* A program that was started without one of the first three would open a connection there, and write messages to it. */
static void fill_standard_descriptors(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR); /* to be inherited */
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct cli cli = { 0 };
	struct error err;
	fill_standard_descriptors();
	/* A reader that went away is noticed by writing; a daemon that went away must not end us without a word. */
	cli.sigpipe_ignored = signal(SIGPIPE, SIG_IGN) == SIG_IGN;
	if (arguments_parse(argc, argv, &cli.arguments, &err) < 0) {
		char *clean = text_clean(err.message, false);
		int status = cli_usage(&cli, "%s", clean != NULL ? clean : "wrong option");
		free(clean);
		return status;
	}
	cli.json = is_given(&cli.arguments, OPTION_JSON);
	cli.quiet = is_given(&cli.arguments, OPTION_QUIET);
	terminal_look(&cli.terminal, STDOUT_FILENO, !is_given(&cli.arguments, OPTION_NO_COLOR));
	int status = cli_finish_output(&cli, run_command(&cli));
	end(&cli);
	return status;
}
