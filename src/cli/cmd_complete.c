/*
 * gpumgr _complete WHAT [COMMAND]: words for the shell's completion, one a line. Never complains: a key press is no
 * moment for error messages.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/text.h"

#define DEADLINE_MS 1000

static void complete_commands(void)
{
	for (size_t i = 0; i < n_commands; i++)
		if (!commands[i].hidden)
			puts(commands[i].name);
}

static void complete_options(const struct command *command)
{
	unsigned options = OPTIONS_GLOBAL | (command != NULL ? command->options : 0);
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		if (options & OPTION_BIT(i))
			printf("--%s\n", option_rows[i].name);
}

static bool ask_status(struct cli *cli, struct answer *answer)
{
	const char *socket = cli->arguments.values[OPTION_SOCKET];
	const char *url = cli->arguments.values[OPTION_URL];
	cli->g = gpumgr_new();
	if (cli->g == NULL || (socket != NULL && gpumgr_set_socket(cli->g, socket) != GPUMGR_OK) ||
		(url != NULL && gpumgr_set_url(cli->g, url) != GPUMGR_OK))
		return false;
	return cli_request(cli, "GET", "/gpu/status", DEADLINE_MS, answer) == GPUMGR_OK;
}

static void complete_services(struct cli *cli)
{
	struct answer answer = { 0 };
	const char *name;
	json_t *service;
	if (ask_status(cli, &answer))
		json_object_foreach(json_object_get(answer.json, "services"), name, service)
		{
			char *clean = text_clean(name, false);
			puts(cli_keep(cli, clean));
		}
	answer_finish(&answer);
}

/* Their numbers, and their names where they have one. */
static void complete_phases(struct cli *cli)
{
	struct answer answer = { 0 };
	const json_t *phase;
	size_t i;
	if (ask_status(cli, &answer))
		json_array_foreach(json_object_get(answer.json, "phases"), i, phase)
		{
			const char *name = json_words(cli, phase, "name");
			printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(json_object_get(phase, "number")));
			if (name != NULL)
				puts(name);
		}
	answer_finish(&answer);
}

static void complete_leases(struct cli *cli)
{
	struct answer answer = { 0 };
	const json_t *lease;
	size_t i;
	if (ask_status(cli, &answer))
		json_array_foreach(json_object_get(answer.json, "leases"), i, lease)
		{
			const char *id = json_words(cli, lease, "id");
			if (id != NULL)
				puts(id);
		}
	answer_finish(&answer);
}

static void complete_arguments(struct cli *cli, const struct command *command)
{
	switch (command->completion) {
	case COMPLETE_SERVICE:
		complete_services(cli);
		break;
	case COMPLETE_PHASE:
		complete_phases(cli);
		break;
	case COMPLETE_COMMAND:
		complete_commands();
		break;
	case COMPLETE_WORDS:
		for (const char *c = command->words; *c != '\0'; c++)
			putchar(*c == ' ' ? '\n' : *c);
		putchar('\n');
		break;
	default:
		break;
	}
}

int cmd_complete(struct cli *cli)
{
	const char *what = cli_word(cli, 0);
	const char *name = cli_word(cli, 1);
	const struct command *command = name != NULL ? find_command(name) : NULL;
	if (strcmp(what, "commands") == 0)
		complete_commands();
	else if (strcmp(what, "options") == 0)
		complete_options(command);
	else if (strcmp(what, "services") == 0)
		complete_services(cli);
	else if (strcmp(what, "phases") == 0)
		complete_phases(cli);
	else if (strcmp(what, "leases") == 0)
		complete_leases(cli);
	else if (strcmp(what, "arguments") == 0 && command != NULL)
		complete_arguments(cli, command);
	return CLI_DONE;
}
