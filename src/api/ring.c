/* The ring of events. Knows nothing of who reads it: a reader is an id, and finds out when it fell behind. */
#include "api/ring.h"

struct ring {
	uint64_t first_id;
	uint64_t next_id;
	struct {
		struct blob *text;
		uint64_t transition;
	} entries[RING_SIZE];
};

struct ring *ring_create(uint64_t first_id)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	if (ring != NULL)
		ring->first_id = ring->next_id = first_id;
	return ring;
}

struct ring *ring_destroy(struct ring *ring)
{
	if (ring == NULL)
		return NULL;
	for (size_t i = 0; i < RING_SIZE; i++)
		blob_unref(ring->entries[i].text);
	free(ring);
	return NULL;
}

uint64_t ring_next_id(const struct ring *ring)
{
	return ring->next_id;
}

uint64_t ring_oldest_id(const struct ring *ring)
{
	return ring->next_id - ring->first_id > RING_SIZE ? ring->next_id - RING_SIZE : ring->first_id;
}

void ring_add(struct ring *ring, struct blob *text, uint64_t transition)
{
	size_t slot = ring->next_id++ % RING_SIZE;
	blob_unref(ring->entries[slot].text);
	ring->entries[slot].text = text;
	ring->entries[slot].transition = transition;
}

struct blob *ring_get(const struct ring *ring, uint64_t id, uint64_t *ret_transition)
{
	if (id < ring_oldest_id(ring) || id >= ring->next_id)
		return NULL;
	*ret_transition = ring->entries[id % RING_SIZE].transition;
	return ring->entries[id % RING_SIZE].text;
}
