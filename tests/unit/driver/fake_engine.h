/*
 * A container engine that only pretends, on a Unix socket in the loop of the test: it keeps a handful of containers in
 * memory, speaks as much of the Engine API as the driver uses, and misbehaves on request.
 */
#pragma once

#include "bench.h"

#define FAKE_CONTAINERS 6

enum fake_state { FAKE_CREATED, FAKE_RUNNING, FAKE_PAUSED, FAKE_RESTARTING, FAKE_EXITED };

struct fake_container {
	char id[65]; /* "" when there is none in this place */
	char name[64];
	const char *project, *service, *replaces; /* labels, or NULL */
	enum fake_state state;
	unsigned n_starts, n_stops, n_kills;
	int pid;
	int exit_code;
	const char *health, *health_output; /* NULL: it has none */
	const char *address; /* NULL: host networking */
	const char *error;
	const char *output; /* raw bytes of its log stream, `output_length` of them */
	size_t output_length;
	bool has_terminal, ignores_stop, ends_at_once, is_dead, is_oom, will_restart;
};

enum fake_fault_kind {
	FAULT_NONE,
	FAULT_HANG, /* never answered, nothing is done */
	FAULT_CLOSE, /* closed without an answer, nothing is done */
	FAULT_LOSE, /* done, and closed without an answer */
	FAULT_HOLD, /* done, and answered when fake_engine_release() is called */
	FAULT_RAW, /* these bytes, then closed; nothing is done */
	FAULT_ENDLESS, /* these bytes again and again */
};

struct fake_fault {
	const char *path; /* a part of "METHOD PATH"; NULL: no fault in this place */
	enum fake_fault_kind kind;
	unsigned n; /* so many times; 0: always */
	const char *bytes;
	size_t length; /* 0: strlen() */
};

#define FAKE_FAULTS 4

struct fake_connection;

struct fake_engine {
	uv_loop_t *loop;
	char path[108], url[128];
	uv_pipe_t *listener; /* NULL: it is not there */
	struct fake_connection *connections;
	struct fake_container containers[FAKE_CONTAINERS];
	struct fake_fault faults[FAKE_FAULTS];
	const char *version, *least; /* "1.41", NULL */
	bool is_podman, tells_no_events, sends_no_headers;
	bool spoils_after_start; /* inspections make no sense from the next start on */
	unsigned n_requests, n_inspections, n_versions, n_streams, n_connections;
	char last_version[16]; /* with which the last call came */
	char *log; /* "METHOD PATH\n" each */
};

struct fake_engine *fake_engine_create(struct bench *bench);
void fake_engine_destroy(struct fake_engine *engine);
/* Every connection ends and nobody listens any more; and again. */
void fake_engine_go(struct fake_engine *engine);
void fake_engine_come(struct fake_engine *engine);

struct fake_container *fake_engine_add(struct fake_engine *engine, const char *name);
/* As `docker start` and so on by hand, events included. */
void fake_engine_start(struct fake_engine *engine, struct fake_container *container);
void fake_engine_end(struct fake_engine *engine, struct fake_container *container, int exit_code);
void fake_engine_remove(struct fake_engine *engine, struct fake_container *container);
void fake_engine_event(struct fake_engine *engine, const struct fake_container *container, const char *action);
/* A kill by somebody else, as the engine tells of it before the end. */
void fake_engine_signal(struct fake_engine *engine, const struct fake_container *container, int signal);
void fake_engine_say(struct fake_engine *engine, const char *bytes, size_t length); /* on the event stream */
void fake_engine_break_streams(struct fake_engine *engine);
/* As at its end, though it lives on. */
void fake_engine_end_output(struct fake_engine *engine, const struct fake_container *container);
void fake_engine_fault(
	struct fake_engine *engine, const char *path, enum fake_fault_kind kind, unsigned n, const char *bytes);
void fake_engine_release(struct fake_engine *engine);
void fake_engine_heal(struct fake_engine *engine);
/* How many requests began with that text. */
unsigned fake_engine_count(const struct fake_engine *engine, const char *text);
