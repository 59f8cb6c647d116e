/*
 * Reaching a container engine: which version it speaks, whether it answers, and who wants to know. Must not know any
 * request but those two questions (/version, /_ping).
 */
#include "driver/docker_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/units.h"

#define MINOR_MIN 41 /* Engine 20.10 */
#define MINOR_MAX 47
#define ASK_TIMEOUT_MS 5000
#define PING_INTERVAL_MS 30000
#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 1000
#define DOUBT_MAX_MS 5000
#define NO_DOUBT_MS 10000 /* without one, and the next is a matter of its own */

static void handle_timer(uv_timer_t *timer);

void docker_arm(struct docker *docker, uint64_t wait_ms)
{
	uv_update_time(docker->environment->loop);
	uv_timer_start(&docker->timer, handle_timer, wait_ms, 0);
}

static uint64_t ping_interval(const struct docker *docker)
{
	return docker->environment->tick_ms > 0 ? docker->environment->tick_ms : PING_INTERVAL_MS;
}

/* ---- who wants to know ---- */

static void handle_idle(uv_idle_t *idle)
{
	struct docker *docker = idle->data;
	bool any = true;
	docker_events_judge(docker);
	/* A handler may take itself or others off the list. */
	while (any) {
		any = false;
		for (struct docker_user *user = docker->users; user != NULL && !any; user = user->next) {
			if (!user->is_due)
				continue;
			user->is_due = false;
			any = true;
			user->handle_due(user);
		}
	}
	uv_idle_stop(idle);
}

void docker_wake(struct docker *docker)
{
	bool any = docker->n_odd_lines > 0;
	for (const struct docker_user *user = docker->users; user != NULL; user = user->next)
		any |= user->is_due;
	if (any)
		uv_idle_start(&docker->idle, handle_idle);
}

void docker_mark_all(struct docker *docker)
{
	for (struct docker_user *user = docker->users; user != NULL; user = user->next)
		user->is_due = true;
	docker_wake(docker);
}

void docker_use(struct docker *docker, struct docker_user *user)
{
	user->previous = NULL;
	user->next = docker->users;
	if (user->next != NULL)
		user->next->previous = user;
	docker->users = user;
	if (docker->state == DOCKER_UNKNOWN)
		docker_ask(docker);
}

void docker_unuse(struct docker *docker, struct docker_user *user)
{
	if (user->next != NULL)
		user->next->previous = user->previous;
	if (user->previous != NULL)
		user->previous->next = user->next;
	else
		docker->users = user->next;
}

/* ---- is it there? ---- */

static void tell(struct docker *docker, bool is_over, const char *text)
{
	const struct driver_listener *listener = docker->environment->listener;
	if (docker->trouble_told == !is_over)
		return;
	docker->trouble_told = !is_over;
	if (listener->handle_trouble != NULL)
		listener->handle_trouble(listener->context, docker->address, is_over, text);
	for (struct docker_user *user = docker->users; user != NULL && !is_over; user = user->next)
		user->handle_away(user);
}

static void go_down(struct docker *docker, const char *why)
{
	docker->state = DOCKER_DOWN;
	snprintf(docker->why_down, sizeof(docker->why_down), "%s", why);
	docker_events_close(docker);
	docker_arm(docker, docker->retry_ms);
	docker->retry_ms = docker->retry_ms * 2 < RETRY_MAX_MS ? docker->retry_ms * 2 : RETRY_MAX_MS;
	tell(docker, false, docker->why_down);
	docker_fail_waiting(docker, docker->why_down);
}

static void go_up(struct docker *docker)
{
	char text[512];
	snprintf(text, sizeof(text), "%s: the engine at %s answers again", docker_word(docker), docker->address);
	docker->state = DOCKER_UP;
	docker->retry_ms = RETRY_FIRST_MS;
	docker->heard_ms = clock_now_ms();
	tell(docker, true, text);
	docker_arm(docker, ping_interval(docker));
	docker_events_open(docker);
	docker_mark_all(docker);
	docker_send_waiting(docker);
}

/* "1.41" -> 41. Negative: no version of a kind that we know. */
static int parse_minor(const char *text)
{
	char *end;
	if (text == NULL || strncmp(text, "1.", 2) != 0 || text[2] < '0' || text[2] > '9')
		return -EINVAL;
	long minor = strtol(text + 2, &end, 10);
	return *end == '\0' && minor < 1000 ? (int)minor : -EINVAL;
}

static bool names_podman(const json_t *json)
{
	const json_t *components = json_object_get(json, "Components");
	size_t i;
	const json_t *component;
	json_array_foreach(components, i, component)
	{
		const char *name = json_string_value(json_object_get(component, "Name"));
		if (name != NULL && strstr(name, "Podman") != NULL)
			return true;
	}
	return false;
}

static int take_version(struct docker *docker, const struct docker_answer *answer, struct error *err)
{
	const char *most = json_string_value(json_object_get(answer->json, "ApiVersion"));
	int minor = parse_minor(most);
	int least = parse_minor(json_string_value(json_object_get(answer->json, "MinAPIVersion")));
	char clean[512];
	if (answer->status != 200)
		return error_set(err, -EPROTO, "docker: the engine at %s does not tell its version: %s",
			docker->address, answer->text);
	if (minor < 0)
		return error_set(err, -EPROTO,
			"docker: what answers at %s is no container engine: it tells no API version (%s); is that the "
			"right socket? (engine:)",
			docker->address, most != NULL ? docker_clean(most, clean, 64) : "no ApiVersion");
	docker->is_podman = names_podman(answer->json);
	if (minor < MINOR_MIN && !docker->is_podman)
		return error_set(err, -EPROTO,
			"docker: the engine at %s speaks API 1.%d at most; gpumgr needs 1.%d (Docker Engine 20.10) or "
			"newer: update it",
			docker->address, minor, MINOR_MIN);
	if (least > MINOR_MAX)
		return error_set(err, -EPROTO,
			"docker: the engine at %s speaks no API older than 1.%d, this gpumgr none newer than 1.%d: "
			"update gpumgr",
			docker->address, least, MINOR_MAX);
	snprintf(docker->version, sizeof(docker->version), "1.%d", minor < MINOR_MAX ? minor : MINOR_MAX);
	return 0;
}

static void handle_version(void *context, const struct docker_answer *answer)
{
	struct docker *docker = context;
	struct error err;
	docker->asking = NULL;
	if (answer->result != DOCKER_ANSWERED)
		go_down(docker, answer->text);
	else if (take_version(docker, answer, &err) < 0)
		go_down(docker, err.message);
	else
		go_up(docker);
}

void docker_ask(struct docker *docker)
{
	const struct docker_request request = {
		.method = "GET",
		.path = "/version",
		.timeout_ms = ASK_TIMEOUT_MS,
		.handler = handle_version,
		.context = docker,
	};
	if (docker->asking != NULL)
		return;
	docker->state = DOCKER_ASKING;
	docker->is_doubted = false;
	docker->pinging = docker_cancel(docker->pinging);
	uv_timer_stop(&docker->timer);
	/* Whoever waits is told by the next try. */
	if (docker_call_bare(docker, &request, &docker->asking) < 0)
		docker_arm(docker, RETRY_MAX_MS);
}

/*
 * What broke off may do so each time, while the version is told: then that question, and all the looks that follow its
 * answer, must not turn in circles. So the first doubt is looked into at once, further ones less and less often.
 */
void docker_doubt(struct docker *docker)
{
	uint64_t now = clock_now_ms();
	if (docker->state != DOCKER_UP || docker->is_doubted)
		return;
	if (docker->doubted_ms == 0 || now - docker->doubted_ms >= NO_DOUBT_MS)
		docker->doubt_wait_ms = 0;
	docker->doubted_ms = now;
	if (docker->doubt_wait_ms == 0) {
		docker->doubt_wait_ms = RETRY_FIRST_MS;
		docker_ask(docker);
		return;
	}
	docker->is_doubted = true;
	if (uv_timer_get_due_in(&docker->timer) > docker->doubt_wait_ms)
		docker_arm(docker, docker->doubt_wait_ms);
	docker->doubt_wait_ms = docker->doubt_wait_ms * 2 < DOUBT_MAX_MS ? docker->doubt_wait_ms * 2 : DOUBT_MAX_MS;
}

static void handle_ping(void *context, const struct docker_answer *answer)
{
	struct docker *docker = context;
	docker->pinging = NULL;
	if (answer->result != DOCKER_ANSWERED || answer->status != 200)
		docker_doubt(docker);
	else
		docker->heard_ms = clock_now_ms();
}

/* A stream of events that says nothing for long may be dead without having ended. */
static void ping(struct docker *docker)
{
	const struct docker_request request = {
		.method = "GET",
		.path = "/_ping",
		.timeout_ms = ASK_TIMEOUT_MS,
		.handler = handle_ping,
		.context = docker,
	};
	if (docker->pinging == NULL && clock_now_ms() - docker->heard_ms >= ping_interval(docker) / 2)
		docker_call_bare(docker, &request, &docker->pinging);
	docker_arm(docker, ping_interval(docker));
}

static void handle_timer(uv_timer_t *timer)
{
	struct docker *docker = timer->data;
	if (docker->state != DOCKER_UP || docker->is_doubted)
		docker_ask(docker);
	else if (docker->events == NULL)
		docker_ask(docker); /* another engine may sit behind the socket now */
	else
		ping(docker);
}

/* ---- words ---- */

const char *docker_word(const struct docker *docker)
{
	return docker->is_podman ? "podman" : "docker";
}

const char *docker_command(const struct docker *docker, char *buffer, size_t size)
{
	bool is_usual = strcmp(docker->socket_path, "/var/run/docker.sock") == 0 ||
		strcmp(docker->socket_path, "/run/docker.sock") == 0 || docker->is_podman;
	snprintf(buffer, size, is_usual ? "%s" : "%s -H %s", docker_word(docker), docker->address);
	return buffer;
}

void docker_describe_silence(const struct docker *docker, uint64_t waited_ms, char *text, size_t size)
{
	char waited[64];
	format_duration(waited_ms, waited, sizeof(waited));
	snprintf(text, size, "docker: the engine at %s did not answer within %s; is it hanging? (systemctl restart %s)",
		docker->address, waited, docker->is_podman ? "podman.socket" : "docker");
}

/* ---- life ---- */

static void handle_closed(uv_handle_t *handle)
{
	struct docker *docker = handle->data;
	if (--docker->n_open > 0)
		return;
	free(docker->address);
	free(docker);
}

static int create(const struct driver_environment *environment, const char *address, struct docker **ret_docker)
{
	CLEANUP_FREE struct docker *docker = calloc(1, sizeof(*docker));
	CLEANUP_FREE char *copy = strdup(address);
	if (docker == NULL || copy == NULL)
		return -ENOMEM;
	int r = curl_loop_create(environment->loop, &docker->curl);
	if (r < 0)
		return r;
	docker->environment = environment;
	docker->address = TAKE_PTR(copy);
	docker->socket_path = docker->address + strlen("unix://");
	docker->retry_ms = RETRY_FIRST_MS;
	uv_timer_init(environment->loop, &docker->timer);
	uv_idle_init(environment->loop, &docker->idle);
	docker->timer.data = docker->idle.data = docker;
	docker->n_open = 2;
	docker->next = environment->shared->dockers;
	environment->shared->dockers = docker;
	*ret_docker = TAKE_PTR(docker);
	return 0;
}

int docker_acquire(const struct driver_environment *environment, const char *address, struct docker **ret_docker,
	struct error *err)
{
	struct sockaddr_un limit;
	if (strncmp(address, "unix:///", 8) != 0)
		return error_set(
			err, -EINVAL, "docker: engine: %s is not a Unix socket (expected unix:///PATH)", address);
	if (strlen(address) - strlen("unix://") >= sizeof(limit.sun_path))
		return error_set(err, -ENAMETOOLONG, "docker: engine: the path of the socket is longer than %zu: %s",
			sizeof(limit.sun_path) - 1, address);
	for (struct docker *docker = environment->shared->dockers; docker != NULL; docker = docker->next) {
		if (strcmp(docker->address, address) != 0)
			continue;
		docker->n_references++;
		*ret_docker = docker;
		return 0;
	}
	int r = create(environment, address, ret_docker);
	if (r < 0)
		return error_set(err, r, "docker: %s", strerror(-r));
	(*ret_docker)->n_references = 1;
	return 0;
}

static void unlink_docker(struct docker *docker)
{
	struct docker **place = &docker->environment->shared->dockers;
	while (*place != docker)
		place = &(*place)->next;
	*place = docker->next;
}

struct docker *docker_release(struct docker *docker)
{
	if (docker == NULL || --docker->n_references > 0)
		return NULL;
	unlink_docker(docker);
	while (docker->calls != NULL)
		docker_cancel(docker->calls);
	docker->curl = curl_loop_destroy(docker->curl);
	uv_close((uv_handle_t *)&docker->timer, handle_closed);
	uv_close((uv_handle_t *)&docker->idle, handle_closed);
	return NULL;
}
