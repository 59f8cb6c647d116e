/* The tables of the database, and how older ones become today's; only for this room. */
#pragma once

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define FENCE_END (UINT64_C(1) << 53) /* beyond it a number in JSON would not be exact everywhere */
/* Microseconds since the epoch stay below it until 2112. A damaged file that says more would use the fences up. */
#define FENCE_BELIEVED_MAX (UINT64_C(1) << 52)

/* steps[i] leads from layout i to layout i + 1; layout 0 is an empty database. */
struct layout {
	size_t n;
	const char *const *steps;
};

extern const struct layout layout_today;

/*
 * Checks the whole database and brings it up to date, in one step that happens or does not. What has no fences yet gets
 * `first_fence`. `*ret_next`: the first fence that was not reserved yet.
 *
 * 0; -EBADMSG: damaged; -EPROTO: newer than `layout`; -EINVAL: of another program; else what the system said.
 */
int layout_prepare(sqlite3 *db, const char *path, const struct layout *layout, uint64_t first_fence, uint64_t *ret_next,
	struct error *err);

/* The first free fence of a database that may be damaged; 0: it cannot be told any more. */
uint64_t layout_salvage_fence(const char *path);
