/* gpumgr version: of this program, and of the daemon where one answers. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/text.h"

#define DEADLINE_MS 2000

static const char *daemon_problem(struct cli *cli, int r)
{
	if (r == GPUMGR_OK)
		return "the answer is not understood";
	char *clean = text_clean(gpumgr_last_error(cli->g)->message, false);
	return cli_keep(cli, clean);
}

int cmd_version(struct cli *cli)
{
	struct answer answer = { 0 };
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	int r = cli_request(cli, "GET", "/gpu/version", DEADLINE_MS, &answer);
	const char *version = json_words(cli, answer.json, "version");
	bool answers = r == GPUMGR_OK && answer.status == 200 && answer.json != NULL;
	if (cli->json) {
		json_t *all =
			json_pack("{s:s, s:O?}", "client", GPUMGR_VERSION, "daemon", answers ? answer.json : NULL);
		if (!answers)
			json_object_set_new(all, "daemon", json_null());
		cli_dump_json(cli, all);
		json_decref(all);
	} else {
		printf("gpumgr %s\n", GPUMGR_VERSION);
		if (answers && version != NULL)
			printf("gpumgrd %s\n", version);
		else
			printf("gpumgrd does not answer: %s\n", daemon_problem(cli, r));
	}
	answer_finish(&answer);
	return CLI_DONE;
}
