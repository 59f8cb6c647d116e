/* A sorted list. Fences grow, so what is looked for or added lies mostly at its end. Knows no file. */
#include "state/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void overlay_finish(struct overlay *overlay)
{
	free(overlay->entries);
	*overlay = (struct overlay){ 0 };
}

int overlay_reserve(struct overlay *overlay)
{
	size_t needed = overlay->n + overlay->n_in_database + 1;
	if (needed <= overlay->capacity)
		return 0;
	size_t capacity = 2 * needed + 16;
	struct overlay_entry *grown = realloc(overlay->entries, capacity * sizeof(grown[0]));
	if (grown == NULL)
		return -ENOMEM;
	overlay->entries = grown;
	overlay->capacity = capacity;
	return 0;
}

/*
 * Each lease that the database holds was put before: there was room for its entry then, or its end was counted in since
 * the start. So what is kept free is used up only by those ends.
 */
int overlay_reserve_end(struct overlay *overlay)
{
	int r = overlay_reserve(overlay);
	return overlay->n < overlay->capacity ? 0 : r;
}

/* The first entry whose fence is not smaller. */
static size_t find_place(const struct overlay *overlay, uint64_t fence)
{
	size_t low = 0, high = overlay->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (overlay->entries[middle].fence < fence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct overlay *overlay, size_t place, uint64_t fence)
{
	return place < overlay->n && overlay->entries[place].fence == fence;
}

const struct overlay_entry *overlay_find(const struct overlay *overlay, uint64_t fence)
{
	size_t place = find_place(overlay, fence);
	return is_at(overlay, place, fence) ? &overlay->entries[place] : NULL;
}

static struct overlay_entry *find_or_add(struct overlay *overlay, uint64_t fence, bool may_be_in_database)
{
	size_t place = find_place(overlay, fence);
	struct overlay_entry *entry = &overlay->entries[place];
	if (is_at(overlay, place, fence))
		return entry;
	memmove(entry + 1, entry, (overlay->n - place) * sizeof(*entry));
	overlay->n++;
	*entry = (struct overlay_entry){ .fence = fence, .is_in_database = may_be_in_database };
	return entry;
}

void overlay_put(struct overlay *overlay, uint64_t fence, bool may_be_in_database, size_t place, size_t size)
{
	struct overlay_entry *entry = find_or_add(overlay, fence, may_be_in_database);
	entry->is_gone = false;
	entry->place = place;
	entry->size = size;
}

void overlay_forget(struct overlay *overlay, uint64_t fence, bool may_be_in_database)
{
	struct overlay_entry *entry = find_or_add(overlay, fence, may_be_in_database);
	size_t place = (size_t)(entry - overlay->entries);
	entry->is_gone = true;
	if (entry->is_in_database)
		return;
	overlay->n--;
	memmove(entry, entry + 1, (overlay->n - place) * sizeof(*entry));
}

void overlay_clear(struct overlay *overlay, size_t n_in_database)
{
	overlay->n = 0;
	overlay->n_in_database = n_in_database;
}
