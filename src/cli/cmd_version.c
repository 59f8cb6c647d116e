/* gpumgr version: of this program, and of the daemon where one answers. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/text.h"

#define DEADLINE_MS 2000

static const char *daemon_problem(struct cli *cli, enum client_outcome outcome, const struct error *err)
{
	if (outcome == CLIENT_ANSWERED)
		return "the answer is not understood";
	char *clean = text_clean(err->message, false);
	return cli_keep(cli, clean);
}

int cmd_version(struct cli *cli)
{
	struct client_answer answer = { 0 };
	struct error err;
	struct client_request request = { .method = "GET", .path = "/gpu/version", .deadline_ms = DEADLINE_MS };
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	enum client_outcome outcome = client_ask(cli->client, &request, &answer, &err);
	const char *version = json_words(cli, answer.json, "version");
	bool answers = outcome == CLIENT_ANSWERED && answer.status == 200 && answer.json != NULL;
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
			printf("gpumgrd does not answer: %s\n", daemon_problem(cli, outcome, &err));
	}
	client_answer_finish(&answer);
	return CLI_DONE;
}
