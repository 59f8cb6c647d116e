/* gpumgr reload: has the daemon read its configuration again, and says what changed. */
#include "cli/cli.h"

int cmd_reload(struct cli *cli)
{
	struct answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "POST", "/gpu/reload", &answer);
	if (status != CLI_DONE)
		return status;
	const char *text = json_lines(cli, answer.json, "text");
	cli_complain(cli, json_object_get(answer.json, "warnings"));
	if (cli->json)
		cli_print_json(cli, &answer);
	else
		cli_say(cli, "%s", text != NULL ? text : "done\n");
	answer_finish(&answer);
	return CLI_DONE;
}
