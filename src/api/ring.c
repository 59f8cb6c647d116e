/* The ring of events. Knows nothing of who reads it: a reader is an id, and finds out when it fell behind. */
#include "api/ring.h"

struct entry {
	struct note *note; /* NULL: it was rendered */
	struct blob *text; /* NULL: not yet */
	uint64_t transition;
};

struct ring {
	uint64_t first_id;
	uint64_t next_id;
	struct entry entries[RING_SIZE];
};

struct ring *ring_create(uint64_t first_id)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	if (ring != NULL)
		ring->first_id = ring->next_id = first_id;
	return ring;
}

static void clear(struct entry *entry)
{
	entry->note = note_free(entry->note);
	entry->text = blob_unref(entry->text);
}

struct ring *ring_destroy(struct ring *ring)
{
	if (ring == NULL)
		return NULL;
	for (size_t i = 0; i < RING_SIZE; i++)
		clear(&ring->entries[i]);
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

void ring_add(struct ring *ring, struct note *note, uint64_t transition)
{
	struct entry *entry = &ring->entries[ring->next_id++ % RING_SIZE];
	clear(entry);
	entry->note = note;
	entry->transition = transition;
}

static bool is_there(const struct ring *ring, uint64_t id)
{
	return id >= ring_oldest_id(ring) && id < ring->next_id;
}

bool ring_find(const struct ring *ring, uint64_t id, uint64_t *ret_transition)
{
	if (!is_there(ring, id))
		return false;
	*ret_transition = ring->entries[id % RING_SIZE].transition;
	return true;
}

struct blob *ring_get(struct ring *ring, uint64_t id)
{
	struct entry *entry = &ring->entries[id % RING_SIZE];
	if (!is_there(ring, id))
		return NULL;
	if (entry->text == NULL && entry->note != NULL)
		entry->text = note_render(entry->note, id);
	if (entry->text != NULL)
		entry->note = note_free(entry->note);
	return entry->text;
}
