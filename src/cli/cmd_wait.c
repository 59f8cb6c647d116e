/* gpumgr wait SVC: until it is ready. libgpumgr does the waiting; here are the words. Starts nothing. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/text.h"

#define TIMEOUT_DEFAULT_MS (600 * 1000)

static int unknown_service(struct cli *cli, const char *service)
{
	const char *name;
	const json_t *ignored;
	struct answer answer;
	size_t n = 0;
	int status = cli_status(cli, &answer);
	if (status != CLI_DONE)
		return status;
	const json_t *services = json_object_get(answer.json, "services");
	CLEANUP_FREE const char **names = calloc(json_object_size(services) + 1, sizeof(*names));
	char *clean = text_clean(service, false);
	const char *shown = cli_keep(cli, clean);
	json_object_foreach((json_t *)services, name, ignored) if (names != NULL) names[n++] = name;
	const char *closest = names != NULL ? text_closest(shown, names, n) : NULL;
	if (closest != NULL)
		cli_fail(0, "there is no service \"%s\" (did you mean %s?)", shown, closest);
	else
		cli_fail(0, "there is no service \"%s\"; `gpumgr status' lists them", shown);
	answer_finish(&answer);
	return CLI_FAILED;
}

static int explain(struct cli *cli, const char *service)
{
	const struct gpumgr_error *error = gpumgr_last_error(cli->g);
	if (error->json == NULL && error->code == GPUMGR_ERROR_UNKNOWN)
		return unknown_service(cli, service);
	if (error->json != NULL || error->code != GPUMGR_ERROR_TIMED_OUT)
		return cli_explain(cli);
	char *clean = text_clean(error->message, false);
	return cli_fail(CLI_TIMED_OUT, "%s; `gpumgr status' tells more", cli_keep(cli, clean));
}

static int conclude(struct cli *cli, const char *service)
{
	if (cli->json) {
		json_t *json = json_pack("{s:b, s:s, s:s}", "success", true, "service", service, "state", "ready");
		cli_dump_json(cli, json);
		json_decref(json);
	} else {
		cli_say(cli, "%s is ready\n", service);
	}
	return CLI_DONE;
}

int cmd_wait(struct cli *cli)
{
	const char *text = cli->arguments.values[OPTION_TIMEOUT];
	const char *service = cli_word(cli, 0);
	uint64_t timeout_ms = TIMEOUT_DEFAULT_MS;
	if (text != NULL && (parse_duration(text, &timeout_ms) < 0 || timeout_ms == 0))
		return cli_usage(cli, "--timeout takes a duration above 0 (30s, 5m, or a number of seconds)");
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	if (gpumgr_wait_ready(cli->g, service, (int64_t)timeout_ms) != GPUMGR_OK)
		return explain(cli, service);
	return conclude(cli, service);
}
