/*
 * The stream of events of an engine: lines of JSON without end. Tells users that they are meant, nothing more: an event
 * that was missed, repeated or forged costs an inspection and decides nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "driver/docker_private.h"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 5000
#define LONG_LIFE_MS 10000
#define ODD_LINES_MAX 8 /* that are no event */

/* What an engine does for others while nothing changes; an exec begins and ends with each health check. */
static bool is_idle_talk(const char *action)
{
	static const char *const words[] = { "exec_", "top", "attach", "resize", "copy", "export", "archive",
		"health" };
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strncmp(action, words[i], strlen(words[i])) == 0)
			return true;
	return false;
}

static void mark(struct docker *docker, const struct docker_event *event)
{
	for (struct docker_user *user = docker->users; user != NULL; user = user->next)
		user->is_due |= user->is_meant(user, event);
}

static void take_event(struct docker *docker, const json_t *json, const char *id, const char *action)
{
	const json_t *attributes = json_object_get(json_object_get(json, "Actor"), "Attributes");
	const char *name = json_string_value(json_object_get(attributes, "name"));
	json_int_t at_ns = json_integer_value(json_object_get(json, "timeNano"));
	const struct docker_event event = {
		.id = id,
		.action = action,
		.name = name != NULL ? name : "",
		.attributes = attributes,
		.at_ns = at_ns > 0 ? (uint64_t)at_ns : 0,
	};
	mark(docker, &event);
}

/* What cannot be read may have been about anybody. A stream that goes on like that is given up, from the loop. */
static void take_odd_line(struct docker *docker)
{
	docker->n_odd_lines++;
	for (struct docker_user *user = docker->users; user != NULL && docker->n_odd_lines == 1; user = user->next)
		user->is_due = true;
}

static void take_line(struct docker *docker)
{
	json_t *event = json_loadb(docker->line, docker->line_length, 0, NULL);
	const json_t *actor = json_object_get(event, "Actor");
	const char *id = json_string_value(json_object_get(actor, "ID"));
	const char *action = json_string_value(json_object_get(event, "Action"));
	const char *type = json_string_value(json_object_get(event, "Type"));
	if (id == NULL || action == NULL)
		take_odd_line(docker);
	else if ((type == NULL || strcmp(type, "container") == 0) && !is_idle_talk(action))
		take_event(docker, event, id, action);
	json_decref(event);
}

static void end_line(struct docker *docker)
{
	if (!docker->line_is_cut && docker->line_length > 0)
		take_line(docker);
	docker->line_length = 0;
	docker->line_is_cut = false;
}

static void take_byte(struct docker *docker, char byte)
{
	if (byte == '\n' || byte == '\r')
		end_line(docker);
	else if (docker->line_length < sizeof(docker->line))
		docker->line[docker->line_length++] = byte;
	else if (!docker->line_is_cut) {
		docker->line_is_cut = true;
		take_odd_line(docker);
	}
}

static bool handle_data(void *context, const char *data, size_t length)
{
	struct docker *docker = context;
	docker->heard_ms = clock_now_ms();
	for (size_t i = 0; i < length && docker->n_odd_lines < ODD_LINES_MAX; i++)
		take_byte(docker, data[i]);
	docker_wake(docker);
	return docker->n_odd_lines < ODD_LINES_MAX;
}

/* Opened again after a while; what happened meanwhile is not known, so everybody looks then. */
static void retry_later(struct docker *docker)
{
	bool is_odd = docker->n_odd_lines >= ODD_LINES_MAX;
	bool lived_long = clock_now_ms() - docker->events_since_ms >= LONG_LIFE_MS;
	docker->events_retry_ms = (lived_long && !is_odd) || docker->events_retry_ms == 0 ? RETRY_FIRST_MS
		: docker->events_retry_ms * 2 < RETRY_MAX_MS                              ? docker->events_retry_ms * 2
											  : RETRY_MAX_MS;
	if (docker->state == DOCKER_UP)
		docker_arm(docker, docker->events_retry_ms);
}

/* It should never end. */
static void handle_end(void *context, const struct docker_answer *answer)
{
	struct docker *docker = context;
	(void)answer;
	docker->events = NULL;
	retry_later(docker);
}

void docker_events_judge(struct docker *docker)
{
	if (docker->events == NULL || docker->n_odd_lines < ODD_LINES_MAX)
		return;
	docker_events_close(docker);
	retry_later(docker);
}

void docker_events_open(struct docker *docker)
{
	/* From a moment ago on: everybody looks now, and what happens until the engine has begun to tell must not be
	 * lost. The filter is {"type":["container"]}. */
	const char *const filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
	char path[128];
	const struct docker_request request = {
		.method = "GET",
		.path = path,
		.handler = handle_end,
		.context = docker,
		.handle_data = handle_data,
	};
	if (docker->events != NULL)
		return;
	docker->line_length = 0;
	docker->line_is_cut = false;
	docker->n_odd_lines = 0;
	docker->events_since_ms = clock_now_ms();
	snprintf(path, sizeof(path), "/events?since=%lld&filters=%s", (long long)time(NULL) - 1, filters);
	if (docker_call(docker, &request, &docker->events) < 0)
		docker_arm(docker, RETRY_MAX_MS);
}

void docker_events_close(struct docker *docker)
{
	docker->events = docker_cancel(docker->events);
}
