/*
 * What an engine says of one container, out of the JSON of an inspection. Pure. The JSON may be anything: what has
 * another type than it should is taken as not there, and without a proper id there are no facts.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CONTAINER_ID_SIZE 65 /* 64 hexadecimal digits */

enum container_status {
	CONTAINER_ENDED, /* created, exited, or about to be removed: no process of it is left */
	CONTAINER_RUNNING,
	CONTAINER_PAUSED, /* alive, frozen */
	CONTAINER_RESTARTING, /* ended; the engine starts it again after a moment */
};

enum container_health { HEALTH_NONE, HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY };

struct container_facts {
	char id[CONTAINER_ID_SIZE];
	char name[256];
	enum container_status status;
	bool is_dying; /* dead, or being removed: it cannot be started */
	pid_t pid; /* of its main process as this host counts; 0: none, or unknown */
	char started_at[64]; /* tells one run of a container from another */
	char finished_at[64]; /* of the run that ended last */
	long exit_code;
	bool oom_killed;
	char error[256]; /* why the engine could not start it, as it says */
	enum container_health health;
	char health_text[256]; /* the last output of the health check */
	char address[64]; /* its own, "" when it has none */
	bool has_terminal; /* then its output is not framed */
	bool is_removed_at_end; /* --rm */
	char restart_policy[32]; /* "" or "no": none */
};

/* 0, or -EPROTO: not what an inspection looks like. */
int container_facts_parse(const json_t *json, struct container_facts *ret_facts);

/* Running or paused: there are processes. */
bool container_is_alive(const struct container_facts *facts);
/* Alive, or about to be without anybody asking. */
bool container_is_there(const struct container_facts *facts);

/* A text that differs between any two lives of containers, and between a life and the wait for the next one. */
#define CONTAINER_LIFE_SIZE (CONTAINER_ID_SIZE + 64 + 2)
const char *container_life(const struct container_facts *facts, char *buffer, size_t size);

/* 64 hexadecimal digits. */
bool container_is_id(const char *text);

/*
 * "exited with status 1", with what is known besides: a signal, the OOM killer, the engine's own error. Returns
 * `buffer`.
 */
const char *container_describe_end(const struct container_facts *facts, char *buffer, size_t size);
