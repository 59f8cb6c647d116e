/*
 * What the database does not hold yet: for each lease that was put or forgotten since it was written last, where the
 * journal has it, or that it is gone. Only for this room.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct overlay_entry {
	uint64_t fence;
	bool is_gone;
	bool is_in_database; /* an earlier one of the same fence may stand there */
	size_t place, size; /* in the journal, of one that is not gone */
};

/* All zero at first. */
struct overlay {
	struct overlay_entry *entries; /* in the order of their fences */
	size_t n, capacity;
	size_t n_in_database; /* leases there when it was written last: the end of each finds room here */
};

void overlay_finish(struct overlay *overlay);
/* Room for one more, so that the next put cannot fail, and for all ends that may come. -ENOMEM. */
int overlay_reserve(struct overlay *overlay);
/* Room for the next forget. -ENOMEM: there is none, and it is of no lease that the database holds. */
int overlay_reserve_end(struct overlay *overlay);

const struct overlay_entry *overlay_find(const struct overlay *overlay, uint64_t fence);
/* After overlay_reserve(), or overlay_reserve_end(). `may_be_in_database` is heard for a fence that is new here. */
void overlay_put(struct overlay *overlay, uint64_t fence, bool may_be_in_database, size_t place, size_t size);
void overlay_forget(struct overlay *overlay, uint64_t fence, bool may_be_in_database);
/* The database has it all, and holds so many leases. */
void overlay_clear(struct overlay *overlay, size_t n_in_database);
