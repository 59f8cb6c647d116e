/*
 * Which container a service is, and how it is: found by its name, or by the labels that Compose puts on what it makes,
 * anew each time, since a container that is made again has a new id. Once it runs it is known by its id. Must not
 * change anything.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "driver/container.h"

#define LOOK_TIMEOUT_MS 5000
#define LATER_FIRST_MS 20
#define LATER_MAX_MS 1000
#define LABEL_PROJECT "com.docker.compose.project"
#define LABEL_SERVICE "com.docker.compose.service"
#define LABEL_ONE_OFF "com.docker.compose.oneoff" /* True: made by `compose run` */
#define LABEL_REPLACE "com.docker.compose.replace" /* made to take the place of that one, which may still be there */

const char *container_title(const struct container *container, char *buffer, size_t size)
{
	const struct container_config *config = &container->config->container;
	if (config->name != NULL)
		snprintf(buffer, size, "container \"%.255s\"", config->name);
	else
		snprintf(buffer, size, "the container of service \"%.100s\" in Compose project \"%.100s\"",
			config->compose_service, config->compose_project);
	return buffer;
}

void container_describe_pause(const struct container *container, char *buffer, size_t size)
{
	char title[300], command[160];
	container_title(container, title, sizeof(title));
	docker_command(container->docker, command, sizeof(command));
	snprintf(buffer, size, "%s is paused by somebody and answers nobody; go on with: %s unpause %s", title, command,
		container->facts.name);
}

static bool has_label(const json_t *labels, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(labels, key));
	return text != NULL && strcmp(text, value) == 0;
}

/* Events carry name and labels of the container. */
bool container_is_meant(struct docker_user *user, const struct docker_event *event)
{
	struct container *container = (struct container *)((char *)user - offsetof(struct container, user));
	const struct container_config *config = &container->config->container;
	bool is_run = container->run != NULL && strcmp(event->id, container->run->id) == 0;
	if (is_run)
		run_note_event(container->run, event);
	if (is_run || strcmp(event->id, container->facts.id) == 0)
		return true;
	if (config->name != NULL)
		return strcmp(event->name, config->name) == 0;
	return has_label(event->attributes, LABEL_PROJECT, config->compose_project) &&
		has_label(event->attributes, LABEL_SERVICE, config->compose_service);
}

/* ---- the end of a look ---- */

static void end_look(struct container *container, const struct view *view)
{
	if (view->kind != VIEW_UNKNOWN)
		container->look_wait_ms = 0;
	container_take_view(container, view);
	if (container->look_again && container->look_call == NULL)
		container_look(container);
	container_arm(container);
}

static void describe_absence(const struct container *container, char *text, size_t size)
{
	const struct container_config *config = &container->config->container;
	char command[160];
	docker_command(container->docker, command, sizeof(command));
	if (config->name != NULL)
		snprintf(text, size,
			"%s: container \"%s\" does not exist; create it with: %s create --name %s ... IMAGE, or, if it "
			"is one of Compose: %s compose -p PROJECT up --no-start SERVICE",
			docker_word(container->docker), config->name, command, config->name, command);
	else
		snprintf(text, size,
			"%s: service \"%s\" of Compose project \"%s\" has no container; create it with: %s compose -p "
			"%s up --no-start %s",
			docker_word(container->docker), config->compose_service, config->compose_project, command,
			config->compose_project, config->compose_service);
}

static void end_without_container(struct container *container)
{
	struct view view = { .kind = VIEW_ABSENT };
	describe_absence(container, view.text, sizeof(view.text));
	end_look(container, &view);
}

static void end_unknown(struct container *container, enum view_trouble trouble, const char *text)
{
	struct view view = { .kind = VIEW_UNKNOWN, .trouble = trouble };
	snprintf(view.text, sizeof(view.text), "%s", text);
	end_look(container, &view);
}

static void end_with_bad_answer(struct container *container, const struct docker_answer *answer)
{
	char text[768], title[300];
	if (answer->result != DOCKER_ANSWERED)
		snprintf(text, sizeof(text), "%s", answer->text);
	else
		snprintf(text, sizeof(text), "docker: what the engine at %.200s says of %.200s is no use: %.300s",
			container->config->container.engine, container_title(container, title, sizeof(title)),
			answer->text[0] != '\0' ? answer->text : "it makes no sense");
	end_unknown(container,
		answer->result == DOCKER_ANSWERED           ? TROUBLE_NONSENSE
			: answer->result == DOCKER_NOT_SENT ? TROUBLE_UNREACHABLE
							    : TROUBLE_SILENCE,
		text);
}

/* ---- inspection ---- */

/* A name that does not exist is taken for the beginning of an id by the engine; then another container answers. */
static bool is_the_one(const struct container *container, const struct container_facts *facts)
{
	const char *name = container->config->container.name;
	bool is_by_id = container->run != NULL && container->run->id[0] != '\0';
	return name == NULL || is_by_id || strcmp(facts->name, name) == 0;
}

static void handle_inspected(void *context, const struct docker_answer *answer)
{
	struct container *container = context;
	struct view view = { .kind = VIEW_FOUND };
	container->look_call = NULL;
	if (answer->result == DOCKER_ANSWERED && answer->status == 404)
		end_without_container(container);
	else if (answer->result != DOCKER_ANSWERED || answer->status != 200 ||
		container_facts_parse(answer->json, &view.facts) < 0)
		end_with_bad_answer(container, answer);
	else if (!is_the_one(container, &view.facts))
		end_without_container(container);
	else
		end_look(container, &view);
}

static int send_look(struct container *container, const char *path, docker_handler handler)
{
	const struct docker_request request = {
		.method = "GET",
		.path = path,
		.timeout_ms = container_wait(container, LOOK_TIMEOUT_MS),
		.handler = handler,
		.context = container,
	};
	return docker_call(container->docker, &request, &container->look_call);
}

static int inspect(struct container *container, const char *name)
{
	CLEANUP_FREE char *escaped = docker_escape(name);
	CLEANUP_FREE char *path = NULL;
	if (escaped == NULL || asprintf(&path, "/containers/%s/json", escaped) < 0)
		return -ENOMEM;
	return send_look(container, path, handle_inspected);
}

/* ---- Compose ---- */

struct candidate {
	const char *id, *name, *replaces;
	bool is_running;
};

static bool parse_candidate(const json_t *entry, struct candidate *ret_candidate)
{
	const json_t *labels = json_object_get(entry, "Labels");
	const char *state = json_string_value(json_object_get(entry, "State"));
	const char *name = json_string_value(json_array_get(json_object_get(entry, "Names"), 0));
	*ret_candidate = (struct candidate){
		.id = json_string_value(json_object_get(entry, "Id")),
		.name = name == NULL     ? "?"
			: name[0] == '/' ? name + 1
					 : name,
		.replaces = json_string_value(json_object_get(labels, LABEL_REPLACE)),
		.is_running = state != NULL && (strcmp(state, "running") == 0 || strcmp(state, "paused") == 0),
	};
	return container_is_id(ret_candidate->id) && !has_label(labels, LABEL_ONE_OFF, "True");
}

/* While Compose makes a container again, the old and the new one exist side by side for a moment. */
static bool is_replaced_by(const struct candidate *old, const struct candidate *new)
{
	if (new->replaces != NULL && (strcmp(new->replaces, old->id) == 0 || strcmp(new->replaces, old->name) == 0))
		return true;
	/* Version 1 renames the old one: 0123456789ab_NAME. */
	return strspn(old->name, "0123456789abcdef") == 12 && old->name[12] == '_' &&
		strcmp(old->name + 13, new->name) == 0;
}

static void end_unclear(struct container *container, const struct candidate *candidates, size_t n)
{
	const struct container_config *config = &container->config->container;
	struct view view = { .kind = VIEW_UNCLEAR };
	char names[300] = "", clean[80];
	size_t used = 0;
	for (size_t i = 0; i < n && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
			docker_clean(candidates[i].name, clean, sizeof(clean)));
	snprintf(view.text, sizeof(view.text),
		"%s: service \"%.100s\" of Compose project \"%.100s\" has %zu containers (%s%s); gpumgr drives one: "
		"name it "
		"(container.name), or scale the service to 1",
		docker_word(container->docker), config->compose_service, config->compose_project, n, names,
		used >= sizeof(names) ? "..." : "");
	end_look(container, &view);
}

/* Two of which one replaces the other: the old one as long as it runs, then the new one. NULL: there is no telling. */
static const struct candidate *choose(const struct candidate *candidates, size_t n)
{
	if (n == 1)
		return &candidates[0];
	for (size_t i = 0; n == 2 && i < 2; i++) {
		const struct candidate *old = &candidates[i], *new = &candidates[1 - i];
		if (is_replaced_by(old, new))
			return old->is_running ? old : new;
	}
	return NULL;
}

#define CANDIDATES_MAX 64

static void handle_listed(void *context, const struct docker_answer *answer)
{
	struct container *container = context;
	struct candidate candidates[CANDIDATES_MAX];
	const json_t *entry;
	size_t i, n = 0;
	container->look_call = NULL;
	if (answer->result != DOCKER_ANSWERED || answer->status != 200 || !json_is_array(answer->json)) {
		end_with_bad_answer(container, answer);
		return;
	}
	json_array_foreach(answer->json, i, entry)
	{
		if (n < CANDIDATES_MAX && parse_candidate(entry, &candidates[n]))
			n++;
	}
	const struct candidate *chosen = n > 0 ? choose(candidates, n) : NULL;
	if (n == 0)
		end_without_container(container);
	else if (chosen == NULL)
		end_unclear(container, candidates, n);
	else if (inspect(container, chosen->id) < 0)
		end_unknown(container, TROUBLE_SILENCE, "out of memory");
}

static int list(struct container *container)
{
	const struct container_config *config = &container->config->container;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *escaped = NULL;
	CLEANUP_FREE char *path = NULL;
	json_t *filters = json_pack("{s:[s++, s++]}", "label", LABEL_PROJECT, "=", config->compose_project,
		LABEL_SERVICE, "=", config->compose_service);
	text = filters != NULL ? json_dumps(filters, JSON_COMPACT) : NULL;
	json_decref(filters);
	escaped = text != NULL ? docker_escape(text) : NULL;
	if (escaped == NULL || asprintf(&path, "/containers/json?all=1&filters=%s", escaped) < 0)
		return -ENOMEM;
	return send_look(container, path, handle_listed);
}

/* ---- the beginning of a look ---- */

void container_look(struct container *container)
{
	const struct container_run *run = container->run;
	int r;
	if (container->look_call != NULL) {
		container->look_again = true;
		return;
	}
	container->look_again = false;
	container->look_at_ms = NEVER;
	container->look_serial++;
	container->look_sent_ms = clock_now_ms();
	if (run != NULL && run->id[0] != '\0')
		r = inspect(container, run->id);
	else if (container->config->container.name != NULL)
		r = inspect(container, container->config->container.name);
	else
		r = list(container);
	if (r < 0)
		container_look_later(container);
}

void container_look_later(struct container *container)
{
	uint64_t wait = container->look_wait_ms == 0 ? LATER_FIRST_MS : container->look_wait_ms * 2;
	container->look_wait_ms = wait < LATER_MAX_MS ? wait : LATER_MAX_MS;
	if (container->look_at_ms == NEVER)
		container->look_at_ms = clock_now_ms() + container->look_wait_ms;
	container_arm(container);
}
