/*
 * The body of POST /gpu/leases as the terms that core knows. ONE table of keys; everything that a client can get wrong
 * about itself is refused here, by the name of the key.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "core/request.h"

struct request;

#define LEASE_ROOM_MIN_MIB 64

struct lease_body {
	struct lease_terms terms; /* borrows from the rest */
	int64_t wait_ms;
	unsigned n_subjects; /* how many of service, services, phase and vram were given */
	bool has_ttl;
	size_t *services;
	uint64_t *holding;
	json_t *root;
};

/* False: the refusal is the request's answer. To be finished in either case. */
bool lease_terms_read(struct request *request, struct lease_body *ret_body);
void lease_terms_finish(struct lease_body *body);

/* The canonical decimal form of a fence, as ids of leases are written; 0: it is none. */
uint64_t lease_id_parse(const char *text);
