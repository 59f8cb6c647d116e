/* gpumgr events: a line an event. Without -f it ends when what is known was told. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/text.h"

#define SILENCE_TICKS 4 /* of about 80 ms each: the daemon tells what it knows in one go */
#define DEADLINE_MS 30000

struct listener {
	struct cli *cli;
	bool follow;
	bool resumes; /* events were printed, or asked for by number: a gap matters */
	bool failed; /* writing did */
	bool ended; /* on purpose */
	bool is_open; /* the daemon answers: silence means that it has no more to tell */
	unsigned n_silent;
};

static void print_event(struct listener *listener, const struct sse_event *event)
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

static bool handle_event(void *context, const struct sse_event *event)
{
	struct listener *listener = context;
	listener->n_silent = 0;
	bool is_gap = strcmp(event->type, "reset") == 0;
	if (is_gap && listener->resumes)
		cli_fail(0, "events are missing here: the daemon does not have them any more");
	else if (!is_gap)
		print_event(listener, event);
	listener->resumes = true;
	listener->failed = !cli_flush();
	return !listener->failed;
}

static void handle_open(void *context)
{
	((struct listener *)context)->is_open = true;
}

static bool handle_tick(void *context)
{
	struct listener *listener = context;
	listener->ended = !listener->follow && listener->is_open && ++listener->n_silent >= SILENCE_TICKS;
	return !listener->ended;
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
	struct client_answer answer = { 0 };
	struct error err;
	if (since != NULL && !is_event_id(since))
		return cli_usage(cli, "--since takes the number of an event");
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	struct client_request request = {
		.method = "GET",
		.path = "/gpu/events",
		.last_event_id = since != NULL || listener.follow ? since : "0",
		.handle_event = handle_event,
		.handle_open = handle_open,
		.handle_tick = handle_tick,
		.deadline_ms = listener.follow ? 0 : DEADLINE_MS,
		.context = &listener,
	};
	enum client_outcome outcome = client_ask(cli->client, &request, &answer, &err);
	if (listener.failed || listener.ended)
		status = CLI_DONE;
	else if (outcome != CLIENT_ANSWERED)
		status = cli_explain(cli, outcome, &err);
	else if (!answer.streamed)
		status = cli_problem(cli, &answer);
	else
		status = cli_fail(CLI_FAILED, "gpumgrd ended the stream: it is going down");
	client_answer_finish(&answer);
	return status;
}
