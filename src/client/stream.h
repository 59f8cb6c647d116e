/*
 * The parts of an answer that comes bit by bit, put in a row so that they can be taken one at a time. Streams, event
 * streams and attached leases stand on it.
 */
#pragma once

#include "client/handle.h"

struct flow {
	struct gpumgr *g; /* a reference */
	struct pump pump;
	struct exchange *exchange; /* NULL: none just now */
	struct part *first, **last; /* what came and was not taken yet */
	bool has_failed; /* no memory for a part */
};

/* One event, or a piece of text. */
struct part {
	struct part *next;
	enum gpumgr_part_kind kind;
	const char *type;
	const char *id;
	const char *data;
	size_t length;
	char bytes[];
};

/* 0 or a negative errno; then there is nothing to finish. */
int flow_init(struct flow *flow, struct gpumgr *g);
void flow_finish(struct flow *flow);

enum {
	FLOW_EVENTS = 1, /* an event stream is asked for */
	FLOW_BYTES = 2, /* text is taken bit by bit */
};

/* Asks. An exchange of before is ended. 0 or a negative errno. */
int flow_begin(struct flow *flow, unsigned kinds, const char *method, const char *path, const char *body,
	const char *last_event_id);
/* Ends the exchange, and forgets what was not taken. */
void flow_end(struct flow *flow);

/* Does what can be done without waiting. 0 or a negative errno. */
int flow_turn(struct flow *flow);
/* The next part that is there; the caller frees it. NULL: none. */
struct part *flow_take(struct flow *flow);
/* All that will come is there (the exchange may still hold an answer that is no stream). */
bool flow_is_over(const struct flow *flow);

/*
 * For the public ..._next(): waits until the descriptor says so, at most until `deadline_ms`. 1, 0: it is time, or
 * GPUMGR_ERROR_INTERRUPTED.
 */
int flow_wait(struct flow *flow, uint64_t deadline_ms);
