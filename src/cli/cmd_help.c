/* gpumgr help [COMMAND]: everything from the tables of commands and options. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/text.h"

static const char exit_statuses[] = "Exit status:\n"
				    "  0  done\n"
				    "  1  the operation failed\n"
				    "  2  wrong use, or a wrong configuration\n"
				    "  3  no daemon, or its socket may not be opened\n"
				    "  4  it does not fit; what is in the way is listed\n"
				    "  5  timed out waiting\n";

static const char environment[] = "Environment:\n"
				  "  GPUMGR_SOCKET, GPUMGR_URL        where the daemon is, unless an option says it\n"
				  "  GPUMGR_TOKEN, GPUMGR_TOKEN_FILE  the daemon's token, for --url\n"
				  "  NO_COLOR                         no colours\n";

static void print_options(unsigned options, FILE *out)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		char left[64], letter[8] = "    ";
		if ((options & OPTION_BIT(i)) == 0)
			continue;
		if (row->letter != '\0')
			snprintf(letter, sizeof(letter), "-%c, ", row->letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter, row->name, row->value != NULL ? " " : "",
			row->value != NULL ? row->value : "");
		fprintf(out, "  %-20s %s\n", left, row->help);
	}
}

void help_brief(FILE *out)
{
	fputs("Usage: gpumgr [--socket PATH | --url URL] [--json] COMMAND ...\n\nCommands:\n", out);
	for (size_t i = 0; i < n_commands; i++)
		if (!commands[i].hidden)
			fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
	fputs("\n`gpumgr help COMMAND' tells more of one, `gpumgr help' of options and statuses.\n", out);
}

void help_main(FILE *out)
{
	fputs("gpumgr shares GPUs among services: it prepares them for a phase, starts and stops\n"
	      "what is needed, and says why when something does not fit. Its daemon is gpumgrd.\n\n",
		out);
	help_brief(out);
	fputs("\nOptions:\n", out);
	print_options(OPTIONS_GLOBAL, out);
	fprintf(out, "\n%s\n%s", environment, exit_statuses);
}

void help_command(const struct command *command, FILE *out)
{
	fprintf(out, "Usage: gpumgr %s%s%s\n\n%s.\n", command->name, command->usage[0] != '\0' ? " " : "",
		command->usage, command->help);
	if (command->options != 0) {
		fputs("\nOptions:\n", out);
		print_options(command->options, out);
	}
	fputs("\nOptions of every command:\n", out);
	print_options(OPTIONS_GLOBAL, out);
	if (command->details != NULL)
		fprintf(out, "\n%s", command->details);
	fprintf(out, "\n%s", command->statuses != NULL ? command->statuses : exit_statuses);
}

int cmd_help(struct cli *cli)
{
	const char *name = cli_word(cli, 0);
	if (name == NULL) {
		help_main(stdout);
		return CLI_DONE;
	}
	const struct command *command = find_command(name);
	if (command == NULL) {
		char *clean = text_clean(name, false);
		return cli_usage(cli, "there is no command \"%s\"", cli_keep(cli, clean));
	}
	help_command(command, stdout);
	return CLI_DONE;
}
