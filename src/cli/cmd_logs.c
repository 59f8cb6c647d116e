/* gpumgr logs SVC: the service's own words. Cleaned for a terminal, untouched in a pipe. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/text.h"

#define LINES_DEFAULT "100"
#define LINES_MAX 100000 /* that the daemon takes */
#define DEADLINE_MS 30000

/* Whether it could be written. */
static bool put(struct cli *cli, struct log_filter *filter, const char *bytes, size_t n)
{
	if (!cli->terminal.is_tty)
		return cli_write(cli, bytes, n);
	size_t mark = cli->n_kept; /* following may go on for weeks */
	char *clean = malloc(2 * n + 4);
	cli_keep(cli, clean);
	bool is_written = cli_write(cli, clean, log_filter_feed(filter, bytes, n, clean));
	cli_release(cli, mark);
	return is_written;
}

static bool is_count(const char *text)
{
	char *end;
	errno = 0;
	long n = strtol(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && n <= LINES_MAX;
}

static int copy(struct cli *cli, struct gpumgr_stream *stream, int64_t patience_ms)
{
	struct log_filter filter = { 0 };
	const struct gpumgr_part *part;
	for (;;) {
		int r = gpumgr_stream_next(stream, patience_ms, &part);
		if (r < 0)
			return cli_explain(cli);
		if (r == 0)
			return cli_fail(CLI_FAILED, "the daemon sends nothing any more");
		if (part->kind == GPUMGR_PART_ANSWER)
			return cli_problem_part(cli, part);
		if (part->kind == GPUMGR_PART_END)
			return CLI_DONE;
		/* When nobody reads any more that is the end, too; cli_finish_output() says what is wrong. */
		if (part->kind == GPUMGR_PART_BYTES && !put(cli, &filter, part->data, part->length))
			return CLI_DONE;
	}
}

int cmd_logs(struct cli *cli)
{
	const char *lines = cli->arguments.values[OPTION_LINES];
	bool follow = is_given(&cli->arguments, OPTION_FOLLOW);
	struct gpumgr_stream *stream;
	if (lines != NULL && !is_count(lines))
		return cli_usage(cli, "-n takes a number of lines, 0 to %d", LINES_MAX);
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	const char *query =
		cli_format(cli, "/logs?tail=%s%s", lines != NULL ? lines : LINES_DEFAULT, follow ? "&follow=1" : "");
	const char *path = cli_path(cli, "/gpu/service/", cli_word(cli, 0), query);
	if (gpumgr_stream_open(cli->g, "GET", path, NULL, NULL, &stream) != GPUMGR_OK)
		return cli_explain(cli);
	status = copy(cli, stream, follow ? -1 : DEADLINE_MS);
	gpumgr_stream_free(stream);
	return status;
}
