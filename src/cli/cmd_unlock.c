/* gpumgr unlock: ends all leases by force, and says what it broke. */

#include "cli/cli.h"

int cmd_unlock(struct cli *cli)
{
	struct client_answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "POST", "/gpu/lock/release", &answer);
	if (status != CLI_DONE)
		return status;
	const json_t *broken = json_object_get(answer.json, "broken");
	if (cli->json)
		cli_print_json(cli, &answer);
	else if (json_is_true(json_object_get(answer.json, "released")))
		cli_say(cli, "released; leases broken: %zu\n", json_array_size(broken));
	else
		cli_say(cli, "nothing was held\n");
	client_answer_finish(&answer);
	return CLI_DONE;
}
