/* gpumgr logs SVC: the service's own words. Cleaned for a terminal, untouched in a pipe. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/text.h"

#define LINES_DEFAULT "100"
#define LINES_MAX 100000 /* that the daemon takes */
#define DEADLINE_MS 30000

struct output {
	bool clean;
	bool failed;
	struct log_filter filter;
};

static bool handle_bytes(void *context, const char *bytes, size_t n)
{
	struct output *output = context;
	if (!output->clean) {
		fwrite(bytes, 1, n, stdout);
	} else {
		char *out = malloc(2 * n + 4);
		if (out == NULL)
			return false;
		fwrite(out, 1, log_filter_feed(&output->filter, bytes, n, out), stdout);
		free(out);
	}
	output->failed = !cli_flush();
	return !output->failed;
}

static bool is_count(const char *text)
{
	char *end;
	errno = 0;
	long n = strtol(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && n <= LINES_MAX;
}

int cmd_logs(struct cli *cli)
{
	const char *lines = cli->arguments.values[OPTION_LINES];
	bool follow = is_given(&cli->arguments, OPTION_FOLLOW);
	struct output output = { .clean = cli->terminal.is_tty };
	struct client_answer answer = { 0 };
	struct error err;
	if (lines != NULL && !is_count(lines))
		return cli_usage(cli, "-n takes a number of lines, 0 to %d", LINES_MAX);
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	const char *query =
		cli_format(cli, "/logs?tail=%s%s", lines != NULL ? lines : LINES_DEFAULT, follow ? "&follow=1" : "");
	struct client_request request = {
		.method = "GET",
		.path = cli_path(cli, "/gpu/service/", cli_word(cli, 0), query),
		.handle_bytes = handle_bytes,
		.context = &output,
		.deadline_ms = follow ? 0 : DEADLINE_MS,
	};
	enum client_outcome outcome = client_ask(cli->client, &request, &answer, &err);
	if (output.failed)
		status = CLI_DONE; /* nobody reads any more, or cli_finish_output() says what is wrong */
	else if (outcome != CLIENT_ANSWERED)
		status = cli_explain(cli, outcome, &err);
	else if (!answer.streamed)
		status = cli_problem(cli, &answer);
	client_answer_finish(&answer);
	return status;
}
