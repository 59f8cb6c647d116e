/* The JSON of an inspection as plain facts. Must not trust a single field of it. */
#include "driver/container_facts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "driver/docker.h"

bool container_is_id(const char *text)
{
	return text != NULL && strlen(text) == CONTAINER_ID_SIZE - 1 &&
		strspn(text, "0123456789abcdef") == CONTAINER_ID_SIZE - 1;
}

bool container_is_alive(const struct container_facts *facts)
{
	return facts->status == CONTAINER_RUNNING || facts->status == CONTAINER_PAUSED;
}

bool container_is_there(const struct container_facts *facts)
{
	return container_is_alive(facts) || facts->status == CONTAINER_RESTARTING;
}

const char *container_life(const struct container_facts *facts, char *buffer, size_t size)
{
	snprintf(
		buffer, size, "%s%s%s", facts->id, facts->started_at, facts->status == CONTAINER_RESTARTING ? "+" : "");
	return buffer;
}

static bool is_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

static void copy_text(const json_t *object, const char *key, char *buffer, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));
	docker_clean(text != NULL ? text : "", buffer, size);
}

static enum container_status parse_status(const json_t *state)
{
	const char *word = json_string_value(json_object_get(state, "Status"));
	if (is_true(state, "Restarting")) /* beside Running: the engine counts it as running while it waits */
		return CONTAINER_RESTARTING;
	if (is_true(state, "Paused"))
		return CONTAINER_PAUSED;
	/* Podman's word for the time between the signal and the end. */
	if (is_true(state, "Running") || (word != NULL && strcmp(word, "stopping") == 0))
		return CONTAINER_RUNNING;
	return CONTAINER_ENDED;
}

static void parse_state(const json_t *state, struct container_facts *facts)
{
	const char *word = json_string_value(json_object_get(state, "Status"));
	json_int_t pid = json_integer_value(json_object_get(state, "Pid"));
	json_int_t code = json_integer_value(json_object_get(state, "ExitCode"));
	facts->status = parse_status(state);
	facts->is_dying = is_true(state, "Dead") ||
		(word != NULL && (strcmp(word, "dead") == 0 || strcmp(word, "removing") == 0));
	facts->pid = container_is_alive(facts) && pid > 0 && pid <= INT_MAX ? (pid_t)pid : 0;
	facts->exit_code = code >= INT_MIN && code <= INT_MAX ? (long)code : -1;
	facts->oom_killed = is_true(state, "OOMKilled");
	copy_text(state, "StartedAt", facts->started_at, sizeof(facts->started_at));
	copy_text(state, "FinishedAt", facts->finished_at, sizeof(facts->finished_at));
	copy_text(state, "Error", facts->error, sizeof(facts->error));
}

static void parse_health(const json_t *state, struct container_facts *facts)
{
	static const char *const words[] = {
		[HEALTH_STARTING] = "starting",
		[HEALTH_HEALTHY] = "healthy",
		[HEALTH_UNHEALTHY] = "unhealthy",
	};
	const json_t *health = json_object_get(state, "Health");
	const char *word;
	if (health == NULL) /* Podman has a name of its own for it in some versions */
		health = json_object_get(state, "Healthcheck");
	word = json_string_value(json_object_get(health, "Status"));
	for (size_t i = HEALTH_STARTING; word != NULL && i <= HEALTH_UNHEALTHY; i++)
		if (strcmp(word, words[i]) == 0)
			facts->health = (enum container_health)i;
	const json_t *log = json_object_get(health, "Log");
	size_t n = json_array_size(log);
	if (n > 0)
		copy_text(json_array_get(log, n - 1), "Output", facts->health_text, sizeof(facts->health_text));
}

/* Whether it is an address and nothing else: it becomes part of an URL. */
static bool take_address(const json_t *network, const char *key, struct container_facts *facts)
{
	const char *text = json_string_value(json_object_get(network, key));
	unsigned char bytes[16];
	if (text == NULL || strlen(text) >= sizeof(facts->address))
		return false;
	if (inet_pton(AF_INET, text, bytes) != 1 && inet_pton(AF_INET6, text, bytes) != 1)
		return false;
	snprintf(facts->address, sizeof(facts->address), "%s", text);
	return true;
}

static void parse_address(const json_t *json, struct container_facts *facts)
{
	const json_t *settings = json_object_get(json, "NetworkSettings");
	const char *mode = json_string_value(json_object_get(json_object_get(json, "HostConfig"), "NetworkMode"));
	const char *name;
	const json_t *network;
	if (mode != NULL && strcmp(mode, "host") == 0) {
		snprintf(facts->address, sizeof(facts->address), "127.0.0.1");
		return;
	}
	if (take_address(settings, "IPAddress", facts))
		return;
	json_object_foreach((json_t *)json_object_get(settings, "Networks"), name, network)
	{
		if (take_address(network, "IPAddress", facts))
			return;
	}
	json_object_foreach((json_t *)json_object_get(settings, "Networks"), name, network)
	{
		if (take_address(network, "GlobalIPv6Address", facts))
			return;
	}
}

int container_facts_parse(const json_t *json, struct container_facts *ret_facts)
{
	struct container_facts facts = { 0 };
	const json_t *state = json_object_get(json, "State");
	const json_t *host = json_object_get(json, "HostConfig");
	const char *id = json_string_value(json_object_get(json, "Id"));
	if (!container_is_id(id) || !json_is_object(state))
		return -EPROTO;
	memcpy(facts.id, id, sizeof(facts.id));
	copy_text(json, "Name", facts.name, sizeof(facts.name));
	if (facts.name[0] == '/') /* Docker's names begin with a slash, Podman's do not */
		memmove(facts.name, facts.name + 1, strlen(facts.name));
	parse_state(state, &facts);
	parse_health(state, &facts);
	parse_address(json, &facts);
	facts.has_terminal = is_true(json_object_get(json, "Config"), "Tty");
	facts.is_removed_at_end = is_true(host, "AutoRemove");
	copy_text(json_object_get(host, "RestartPolicy"), "Name", facts.restart_policy, sizeof(facts.restart_policy));
	*ret_facts = facts;
	return 0;
}

const char *container_describe_end(const struct container_facts *facts, char *buffer, size_t size)
{
	int signal = facts->exit_code > 128 && facts->exit_code < 128 + 65 ? (int)facts->exit_code - 128 : 0;
	const char *abbreviation = signal > 0 ? sigabbrev_np(signal) : NULL;
	size_t used = (size_t)snprintf(buffer, size, "exited with status %ld", facts->exit_code);
	if (abbreviation != NULL && used < size)
		used += (size_t)snprintf(buffer + used, size - used, " (SIG%s)", abbreviation);
	if (facts->oom_killed && used < size)
		used += (size_t)snprintf(buffer + used, size - used,
			"; out of memory: the kernel ended it at the memory limit of the container");
	if (facts->error[0] != '\0' && used < size)
		snprintf(buffer + used, size - used, "; %s", facts->error);
	return buffer;
}
