/* gpumgr events: a line an event. Without -f it ends when what is known was told. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/text.h"

#define DEADLINE_MS 30000

struct listener {
	struct cli *cli;
	bool follow;
	bool resumes; /* events were printed, or asked for by number: a gap matters */
	bool failed; /* writing did */
};

static void print_event(struct listener *listener, const struct gpumgr_part *event)
{
	struct cli *cli = listener->cli;
	size_t mark = cli->n_kept; /* following may go on for weeks */
	json_t *json = json_loads(event->data, 0, NULL);
	const char *time = json_words(cli, json, "time");
	const char *type = json_words(cli, json, "type");
	const char *subject = json_words(cli, json, "subject");
	const char *text = json_words(cli, json_object_get(json, "data"), "text");
	if (cli->json && json_is_object(json)) {
		cli_print_line_json(cli, json);
	} else if (type != NULL) {
		printf("%s  %-14s  %s\n", time != NULL ? time : "-", type,
			text != NULL              ? text
				: subject != NULL ? subject
						  : "");
	}
	json_decref(json);
	cli_release(cli, mark);
}

static void take_event(struct listener *listener, const struct gpumgr_part *event)
{
	bool is_gap = strcmp(event->type, "reset") == 0;
	if (is_gap && listener->resumes)
		cli_fail(0, "events are missing here: the daemon does not have them any more");
	else if (!is_gap)
		print_event(listener, event);
	listener->resumes = true;
	listener->failed = !cli_flush(listener->cli);
}

/* Until there is no more to tell, or nobody reads it any more. */
static int listen_to(struct listener *listener, struct gpumgr_stream *stream)
{
	const struct gpumgr_part *part;
	int64_t patience_ms = listener->follow ? -1 : DEADLINE_MS;
	while (!listener->failed) {
		int r = gpumgr_stream_next(stream, patience_ms, &part);
		if (r < 0)
			return cli_explain(listener->cli);
		if (r == 0)
			return cli_fail(CLI_FAILED, "the daemon does not answer");
		if (part->kind == GPUMGR_PART_ANSWER)
			return cli_problem_part(listener->cli, part);
		if (part->kind == GPUMGR_PART_END && listener->follow)
			return cli_fail(CLI_FAILED, "gpumgrd ended the stream: it is going down");
		if (part->kind == GPUMGR_PART_END)
			break;
		if (part->kind == GPUMGR_PART_EVENT)
			take_event(listener, part);
	}
	return CLI_DONE;
}

static bool is_event_id(const char *text)
{
	return text[0] != '\0' && strlen(text) < 20 && strspn(text, "0123456789") == strlen(text);
}

int cmd_events(struct cli *cli)
{
	const char *since = cli->arguments.values[OPTION_SINCE];
	struct listener listener = {
		.cli = cli, .follow = is_given(&cli->arguments, OPTION_FOLLOW), .resumes = since != NULL
	};
	struct gpumgr_stream *stream;
	if (since != NULL && !is_event_id(since))
		return cli_usage(cli, "--since takes the number of an event");
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	const char *path = listener.follow ? "/gpu/events" : "/gpu/events?follow=no";
	if (gpumgr_stream_open(cli->g, "GET", path, NULL, since, &stream) != GPUMGR_OK)
		return cli_explain(cli);
	status = listen_to(&listener, stream);
	gpumgr_stream_free(stream);
	return status;
}
