/* The scripted host: what its files share. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "../../support/api_world.h"
#include "api/api.h"
#include "base/cleanup.h"

#define TRANSITIONS_MAX 40000
#define LEASES_MAX 20000

struct record {
	struct world_record base;
	uint64_t ticket;
	struct lease_terms *terms; /* of a lease; owned */
	uint64_t repeats; /* fence of the lease that it asks for again, 0: none */
};

struct held {
	struct lease lease;
	char secret[33];
	size_t services[WORLD_SERVICES];
};

struct host {
	uv_loop_t loop;
	struct api *api;
	struct api_host ops;
	struct config config;
	struct explain_names names;
	const char *log_dir;
	uint64_t version;
	uint64_t now_ms;
	bool automatic; /* every request is done at once */
	bool serial; /* leases are granted one after the other */
	bool refuses; /* plans are refused, submissions fail */
	bool no_readings;
	char reload[16]; /* how it ends */
	size_t n_records;
	struct record *records[TRANSITIONS_MAX];
	size_t first_open; /* the first record that is not over */
	size_t next_serial; /* the first record that may still be granted in turn */
	size_t n_repeats; /* that wait to be answered */
	uint64_t last_fence;
	struct lock_status lock;
	uint64_t lock_ticket; /* that waits for the lock to be taken by force */
	size_t n_held;
	struct held *held[LEASES_MAX];
	const struct lease *leases[LEASES_MAX];
	struct status status;
	struct api_world world;
	const struct transition *queue[TRANSITIONS_MAX];
	const struct transition *running[TRANSITIONS_MAX];
	uv_timer_t answer_timer;
	uv_idle_t serial_idle;
	uv_poll_t input;
	size_t n_input;
	char input_buffer[4096];
};

/* The record of an id as text; NULL: there is none. */
struct record *host_find(struct host *host, const char *id);

/* A transition's event, and its end. */
void host_publish_state(struct host *host, struct record *record);
void host_finish_record(struct host *host, struct record *record, enum outcome outcome);

/* ---- fake_leases.c ---- */
struct command {
	const char *name;
	void (*run)(struct host *host, char **words);
};

extern const struct command lease_commands[]; /* a name of NULL ends it */

void leases_init(struct host *host);
void leases_serve(struct host *host);
void leases_close(struct host *host);
void leases_finish(struct host *host);
/* A request for a lease was submitted: prints its terms. */
void leases_submitted(struct host *host, struct record *record);
