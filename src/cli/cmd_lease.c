/* gpumgr lease ls, gpumgr lease release ID */
#include <string.h>

#include "cli/cli.h"
#include "cli/leases.h"

static int list(struct cli *cli)
{
	struct answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "GET", "/gpu/leases", &answer);
	if (status != CLI_DONE)
		return status;
	const json_t *leases = json_object_get(answer.json, "leases");
	if (cli->json)
		cli_print_json(cli, &answer);
	else if (json_array_size(leases) == 0)
		cli_say(cli, "no leases\n");
	else if (!cli->quiet)
		print_leases(cli, leases);
	answer_finish(&answer);
	return CLI_DONE;
}

static int release(struct cli *cli, const char *id)
{
	struct answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "DELETE", cli_path(cli, "/gpu/leases/", id, ""), &answer);
	if (status != CLI_DONE)
		return status;
	if (cli->json)
		cli_print_json(cli, &answer);
	else
		cli_say(cli, "released\n");
	answer_finish(&answer);
	return CLI_DONE;
}

int cmd_lease(struct cli *cli)
{
	const char *what = cli_word(cli, 0);
	const char *id = cli_word(cli, 1);
	if (strcmp(what, "ls") == 0 && id == NULL)
		return list(cli);
	if (strcmp(what, "release") == 0 && id != NULL)
		return release(cli, id);
	return cli_usage(cli, "gpumgr lease ls, or gpumgr lease release ID");
}
