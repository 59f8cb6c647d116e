/* gpumgr lease ls, gpumgr lease release ID */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/text.h"

static void print_leases(struct cli *cli, const json_t *leases)
{
	static const struct column columns[] = { { "ID" }, { "OWNER", .drop = 1 }, { "MODE" }, { "SERVICES" },
		{ "EXPIRES IN", true } };
	struct table table;
	size_t i, j;
	const json_t *lease, *service;
	if (json_array_size(leases) == 0) {
		cli_say(cli, "no leases\n");
		return;
	}
	table_begin(&table, columns, ARRAY_SIZE(columns));
	json_array_foreach(leases, i, lease)
	{
		const char *services = "";
		json_array_foreach(json_object_get(lease, "services"), j, service)
		{
			char *clean = text_clean(json_is_string(service) ? json_string_value(service) : "?", false);
			services = cli_format(cli, "%s%s%s", services, j > 0 ? " " : "", cli_keep(cli, clean));
		}
		const char *id = json_words(cli, lease, "id");
		table_add(&table, id != NULL ? id : json_amount(cli, lease, "id"), COLOR_NONE);
		table_add(&table, json_words(cli, lease, "owner"), COLOR_NONE);
		table_add(&table, json_words(cli, lease, "mode"), COLOR_NONE);
		table_add(&table, services[0] != '\0' ? services : NULL, COLOR_NONE);
		table_add(&table, json_amount(cli, lease, "expires_in_s"), COLOR_NONE);
	}
	table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	table_end(&table);
}

static int list(struct cli *cli)
{
	struct client_answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "GET", "/gpu/leases", &answer);
	if (status != CLI_DONE)
		return status;
	if (cli->json)
		cli_print_json(cli, &answer);
	else
		print_leases(cli, json_object_get(answer.json, "leases"));
	client_answer_finish(&answer);
	return CLI_DONE;
}

static int release(struct cli *cli, const char *id)
{
	struct client_answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_ask(cli, "DELETE", cli_path(cli, "/gpu/leases/", id, ""), &answer);
	if (status != CLI_DONE)
		return status;
	if (cli->json)
		cli_print_json(cli, &answer);
	else
		cli_say(cli, "released\n");
	client_answer_finish(&answer);
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
