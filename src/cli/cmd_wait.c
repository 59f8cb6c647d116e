/*
 * gpumgr wait SVC: until it is ready. Listens to the events, so that it notices at once; looks at the status when it
 * begins, when events were missed, and when the service failed. Starts nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/text.h"

#define TIMEOUT_DEFAULT_MS (600 * 1000)

struct waiter {
	struct cli *cli;
	const char *service;
	bool must_look; /* at the status, in the next tick */
	bool is_ready;
	int status; /* when it ended badly, and was said */
	const char *state; /* the last one known */
};

static bool is_ready_state(const char *state)
{
	return state != NULL && (strcmp(state, "ready") == 0 || strcmp(state, "busy") == 0);
}

static bool handle_event(void *context, const struct sse_event *event)
{
	struct waiter *waiter = context;
	if (strcmp(event->type, "reset") == 0)
		waiter->must_look = true;
	if (strcmp(event->type, "service.state") != 0)
		return true;
	json_t *json = json_loads(event->data, 0, NULL);
	const char *subject = json_string_value(json_object_get(json, "subject"));
	if (subject != NULL && strcmp(subject, waiter->service) == 0) {
		waiter->state = json_words(waiter->cli, json_object_get(json, "data"), "to");
		waiter->is_ready = is_ready_state(waiter->state);
		waiter->must_look = waiter->state != NULL && strcmp(waiter->state, "error") == 0;
	}
	json_decref(json);
	return !waiter->is_ready;
}

static int unknown_service(struct waiter *waiter, const json_t *services)
{
	const char *name;
	const json_t *ignored;
	size_t n = 0;
	CLEANUP_FREE const char **names = calloc(json_object_size(services) + 1, sizeof(*names));
	char *clean = text_clean(waiter->service, false);
	const char *shown = cli_keep(waiter->cli, clean);
	json_object_foreach((json_t *)services, name, ignored) if (names != NULL) names[n++] = name;
	const char *closest = names != NULL ? text_closest(shown, names, n) : NULL;
	if (closest != NULL)
		return cli_fail(CLI_FAILED, "there is no service \"%s\" (did you mean %s?)", shown, closest);
	return cli_fail(CLI_FAILED, "there is no service \"%s\"; `gpumgr status' lists them", shown);
}

/* Whether something queued or under way will start it. */
static bool is_expected(const json_t *status, const json_t *service, const char *name)
{
	size_t i;
	const json_t *transition;
	if (json_is_integer(json_object_get(service, "transition")))
		return true;
	json_array_foreach(json_object_get(status, "queue"), i, transition)
	{
		const char *target = json_string_value(json_object_get(transition, "target"));
		const char *kind = json_string_value(json_object_get(transition, "kind"));
		bool is_phase = kind != NULL && strcmp(kind, "phase") == 0;
		if (is_phase || (target != NULL && strcmp(target, name) == 0))
			return true;
	}
	return false;
}

static int judge(struct waiter *waiter, const json_t *status)
{
	struct cli *cli = waiter->cli;
	const json_t *services = json_object_get(status, "services");
	const json_t *service = json_object_get(services, waiter->service);
	if (!json_is_object(service))
		return unknown_service(waiter, services);
	waiter->state = json_words(cli, service, "state");
	waiter->is_ready = is_ready_state(waiter->state);
	if (waiter->state == NULL || strcmp(waiter->state, "error") != 0 ||
		is_expected(status, service, waiter->service))
		return CLI_DONE;
	const char *error = json_words(cli, service, "error");
	return cli_fail(CLI_FAILED, "%s is in error, and nothing is about to start it: %s", waiter->service,
		error != NULL ? error : "the reason is not known");
}

static void handle_open(void *context)
{
	((struct waiter *)context)->must_look = true;
}

static bool handle_tick(void *context)
{
	struct waiter *waiter = context;
	struct client_answer answer;
	if (!waiter->must_look)
		return true;
	waiter->must_look = false;
	waiter->status = cli_status(waiter->cli, &answer);
	if (waiter->status != CLI_DONE)
		return false;
	waiter->status = judge(waiter, answer.json);
	client_answer_finish(&answer);
	return waiter->status == CLI_DONE && !waiter->is_ready;
}

static void print_json(struct waiter *waiter)
{
	json_t *json =
		json_pack("{s:b, s:s, s:s}", "success", true, "service", waiter->service, "state", waiter->state);
	cli_dump_json(waiter->cli, json);
	json_decref(json);
}

static int conclude(struct waiter *waiter, enum client_outcome outcome, const struct client_answer *answer,
	const struct error *err, uint64_t timeout_ms)
{
	char timeout[64];
	if (waiter->is_ready) {
		if (waiter->cli->json)
			print_json(waiter);
		else
			cli_say(waiter->cli, "%s is %s\n", waiter->service, waiter->state);
		return CLI_DONE;
	}
	if (waiter->status != CLI_DONE)
		return waiter->status;
	if (outcome == CLIENT_TIMED_OUT)
		return cli_fail(CLI_TIMED_OUT, "%s is not ready after %s: it is %s; `gpumgr status' tells more",
			waiter->service, format_duration(timeout_ms, timeout, sizeof(timeout)),
			waiter->state != NULL ? waiter->state : "not known");
	if (outcome != CLIENT_ANSWERED)
		return cli_explain(waiter->cli, outcome, err);
	if (!answer->streamed)
		return cli_problem(waiter->cli, answer);
	return cli_fail(CLI_FAILED, "gpumgrd ended the stream: it is going down");
}

int cmd_wait(struct cli *cli)
{
	const char *text = cli->arguments.values[OPTION_TIMEOUT];
	uint64_t timeout_ms = TIMEOUT_DEFAULT_MS;
	struct waiter waiter = { .cli = cli, .service = cli_word(cli, 0) };
	struct client_answer answer = { 0 };
	struct error err;
	if (text != NULL && (parse_duration(text, &timeout_ms) < 0 || timeout_ms == 0))
		return cli_usage(cli, "--timeout takes a duration above 0 (30s, 5m, or a number of seconds)");
	int status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	/* The status is looked at once the stream is open, so that nothing falls in between. */
	struct client_request request = {
		.method = "GET",
		.path = "/gpu/events",
		.deadline_ms = timeout_ms,
		.handle_event = handle_event,
		.handle_open = handle_open,
		.handle_tick = handle_tick,
		.context = &waiter,
	};
	enum client_outcome outcome = client_ask(cli->client, &request, &answer, &err);
	status = conclude(&waiter, outcome, &answer, &err, timeout_ms);
	client_answer_finish(&answer);
	return status;
}
