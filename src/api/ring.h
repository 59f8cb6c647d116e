/*
 * The last events. Each is rendered when the first reader asks for it, and then stays rendered. Ids only grow, also
 * from one daemon to the next (they begin at the wall clock's milliseconds), so that a client that resumes after a
 * restart learns that it missed something.
 */
#pragma once

#include <stdint.h>

#include "api/blob.h"
#include "api/note.h"

#define RING_SIZE 4096

struct ring;

/* NULL: no memory. */
struct ring *ring_create(uint64_t first_id);
struct ring *ring_destroy(struct ring *ring);

/* The id that the next event gets. */
uint64_t ring_next_id(const struct ring *ring);
/* The oldest id that is still there; equal to the next id when there is none. */
uint64_t ring_oldest_id(const struct ring *ring);

/* Takes the event under the next id, and the note over. */
void ring_add(struct ring *ring, struct note *note, uint64_t transition);

/* Whose the event is. False: it is not (or no longer) there. */
bool ring_find(const struct ring *ring, uint64_t id, uint64_t *ret_transition);
/* The event as it is sent, borrowed; NULL when it is not there, or there is no memory to render it. */
struct blob *ring_get(struct ring *ring, uint64_t id);
