/*
 * The host behind the API in fuzz_http.c: made-up services, phases, readings and leases. What it does with what is
 * asked of it depends on the first bytes of the input alone. It holds the API to what it promises its host.
 */
#pragma once

#include <uv.h>

#include "../support/api_world.h"
#include "api/api.h"

#define HOST_RECORDS 64
#define HOST_LEASES 64

/* Of the first byte of an input. */
enum http_mode {
	MODE_ANSWERS = 1 << 0, /* what is asked for ends at once, as the second byte says; else it waits */
	MODE_REFUSES = 1 << 1, /* plans are refused */
	MODE_BLIND = 1 << 2, /* no readings */
	MODE_NETWORK = 1 << 3, /* the client is of the network: it needs a token */
	MODE_NEWS = 1 << 4, /* things happen while it is connected, and answers cross with withdrawals */
	MODE_FOREIGN = 1 << 5, /* another host has the lock, and nobody here a lease */
	MODE_PIECES = 1 << 6, /* the request comes in pieces */
	MODE_FULL = 1 << 7, /* nothing can be submitted */
};

struct http_record {
	struct world_record base;
	struct lease_terms *terms; /* owned */
	uint64_t ticket; /* 0: answered or withdrawn */
};

struct http_lease {
	struct lease lease;
	char secret[33];
	size_t services[WORLD_SERVICES];
};

struct http_host {
	struct api *api;
	struct api_host ops;
	struct config config;
	struct explain_names names;
	uint8_t mode, outcome;
	uint64_t version;
	uint64_t last_fence;
	uint64_t lock_ticket;
	size_t n_records;
	struct http_record *records[HOST_RECORDS];
	size_t n_leases;
	struct http_lease *leases[HOST_LEASES];
	const struct lease *lease_list[HOST_LEASES];
	const struct transition *queue[HOST_RECORDS];
	const struct transition *running[HOST_RECORDS];
	struct api_world world;
	struct status status;
};

void http_host_init(struct http_host *host);
/* An input begins: two leases are held, the second by nobody yet (none with MODE_FOREIGN). */
void http_host_begin(struct http_host *host, uint8_t mode, uint8_t outcome);
/* What happens between two turns of the loop. */
void http_host_turn(struct http_host *host);
/* Something is told to whoever listens. */
void http_host_tell(struct http_host *host);
/* Every lease ends. */
void http_host_end_leases(struct http_host *host);
/* The input is over; what somebody asked for and did not wait for is forgotten. */
void http_host_end(struct http_host *host);
