/*
 * The last events, rendered. Ids only grow, also from one daemon to the next (they begin at the wall clock's
 * milliseconds), so that a client that resumes after a restart learns that it missed something.
 */
#pragma once

#include <stdint.h>

#include "api/blob.h"

#define RING_SIZE 4096

struct ring;

/* NULL: no memory. */
struct ring *ring_create(uint64_t first_id);
struct ring *ring_destroy(struct ring *ring);

/* The id that the next event gets. */
uint64_t ring_next_id(const struct ring *ring);
/* The oldest id that is still there; equal to the next id when there is none. */
uint64_t ring_oldest_id(const struct ring *ring);

/* Takes the event under the next id; the ring takes over the reference. */
void ring_add(struct ring *ring, struct blob *text, uint64_t transition);

/* The event, borrowed, and whose it is; NULL when it is not (or no longer) there. */
struct blob *ring_get(const struct ring *ring, uint64_t id, uint64_t *ret_transition);
