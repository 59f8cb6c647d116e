/*
 * The modelled clients: what they ask for, hold, renew, let go and forget, and what a durable store keeps of it across
 * a restart of the daemon. They know what the judge's books know, since those are what clients are told.
 */
#pragma once

#include "checker.h"

/* A lease as the store has it: told to be granted or renewed, and not to have ended. */
struct stored {
	struct lease lease;
	size_t services[SIM_SERVICES];
};

struct clients {
	uint64_t last_asked; /* for names of requests */
	size_t n_stored;
	struct stored stored[SEEN_LEASES];
	/* What the event being brought points to. */
	size_t services[SIM_SERVICES];
	uint64_t holding[SEEN_HOLDING];
	char owner[32];
	char request_id[32];
	struct lease_terms terms; /* of the last request */
};

/* Somebody asks for a lease: good until the next call. False when nobody does: who is polite does one thing at a time.
 */
bool clients_ask(
	struct clients *clients, const struct checker *checker, struct choices *choices, struct request_spec *ret_spec);

/* Something that a holder, or somebody who believes to be one, does: false when nobody could. */
bool clients_act(
	struct clients *clients, const struct checker *checker, struct choices *choices, struct event *ret_event);

/* The next thing that a client who wants nothing more does; a polite one keeps what it has as long as it waits. */
bool clients_let_go(struct clients *clients, const struct checker *checker, bool is_polite, struct event *ret_event);

/* One ticket of a client that vanishes, then its connections: false when nothing of it is left. */
bool clients_vanish(const struct checker *checker, unsigned client, struct event *ret_event);

unsigned clients_choose(struct choices *choices);

/* The store hears of an effect. */
void clients_hear(struct clients *clients, const struct effect *effect);
