/* gpumgr config check FILE, reference, schema: the same code as the daemon's, and no daemon needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/text.h"
#include "config/config.h"

static void print_problem(struct cli *cli, const struct config_report *report, const struct config_problem *problem)
{
	CLEANUP_FREE char *line = config_problem_line(report, problem);
	char *clean = text_clean(line != NULL ? line : "out of memory", true);
	fprintf(stderr, "%s\n", cli_keep(cli, clean));
}

static int check(struct cli *cli, const char *path)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_load(path, &config, &report);
	for (size_t i = 0; i < report.n; i++)
		print_problem(cli, &report, &report.problems[i]);
	if (r < 0 && report.n == 0)
		cli_fail(0, "%s: %s", path, strerror(-r));
	char *clean = text_clean(path, false);
	if (r == 0)
		cli_say(cli, "%s: good: %zu service%s, %zu phase%s\n", cli_keep(cli, clean), config->n_services,
			config->n_services == 1 ? "" : "s", config->n_phases, config->n_phases == 1 ? "" : "s");
	else
		free(clean);
	config_free(config);
	config_report_finish(&report);
	return r == 0 ? CLI_DONE : CLI_USAGE;
}

static int print(char *text)
{
	CLEANUP_FREE char *owned = text;
	if (owned == NULL)
		return cli_fail(CLI_FAILED, "out of memory");
	fputs(owned, stdout);
	if (owned[0] != '\0' && owned[strlen(owned) - 1] != '\n')
		putchar('\n');
	return CLI_DONE;
}

int cmd_config(struct cli *cli)
{
	const char *what = cli_word(cli, 0);
	const char *file = cli_word(cli, 1);
	if (strcmp(what, "check") == 0 && file != NULL)
		return check(cli, file);
	if (strcmp(what, "reference") == 0 && file == NULL)
		return print(config_reference());
	if (strcmp(what, "schema") == 0 && file == NULL)
		return print(config_schema());
	return cli_usage(cli, "gpumgr config check FILE, gpumgr config reference, or gpumgr config schema");
}
