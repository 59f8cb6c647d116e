/* gpumgr plan phase N|NAME, gpumgr plan start SVC: the daemon's own explanation, and whether it would fit. */
#include <string.h>

#include "cli/cli.h"

int cmd_plan(struct cli *cli)
{
	struct answer answer;
	const char *kind = cli_word(cli, 0);
	if (strcmp(kind, "phase") != 0 && strcmp(kind, "start") != 0)
		return cli_usage(cli, "plan what? gpumgr plan phase N, or gpumgr plan start SVC");
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	const char *path = cli_path(cli, cli_format(cli, "/gpu/plan?%s=", kind), cli_word(cli, 1), "");
	status = cli_ask(cli, "GET", path, &answer);
	if (status != CLI_DONE)
		return status;
	const char *text = json_lines(cli, answer.json, "text");
	bool fits = json_is_true(json_object_get(answer.json, "feasible"));
	if (cli->json)
		cli_print_json(cli, &answer);
	else if (fits)
		cli_say(cli, "%s\n", text != NULL ? text : "it fits");
	else
		cli_fail(CLI_NO_FIT, "%s", text != NULL ? text : "it does not fit");
	if (!cli->json && !fits)
		print_blockers(cli, json_object_get(answer.json, "blocking"), stderr);
	answer_finish(&answer);
	return fits ? CLI_DONE : CLI_NO_FIT;
}
