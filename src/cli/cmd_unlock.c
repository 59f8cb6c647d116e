/* gpumgr unlock: ends all leases by force, or takes the shared lock from another host, and says what it broke. */
#include "cli/cli.h"
#include "cli/leases.h"

int cmd_unlock(struct cli *cli)
{
	struct answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "POST", "/gpu/lock/release", &answer);
	if (status != CLI_DONE)
		return status;
	if (cli->json)
		cli_print_json(cli, &answer);
	else if (json_words(cli, answer.json, "taken_from") != NULL)
		cli_say(cli, "took the lock from %s\n", json_words(cli, answer.json, "taken_from"));
	else if (json_is_true(json_object_get(answer.json, "released")))
		say_broken(cli, json_object_get(answer.json, "broken"));
	else
		cli_say(cli, "nothing was held\n");
	answer_finish(&answer);
	return CLI_DONE;
}
