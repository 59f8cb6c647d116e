/* Wishes for fences, in their order. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redis_wish {
	uint64_t request;
	uint64_t until; /* then it is answered without a fence */
};

struct redis_wishes {
	struct redis_wish *items; /* the oldest is items[first] */
	size_t first, n, room;
};

/* False: no memory. */
bool redis_wishes_add(struct redis_wishes *wishes, struct redis_wish wish);
/* The oldest one leaves. Only when there is one. */
struct redis_wish redis_wishes_take(struct redis_wishes *wishes);
/* How many of the oldest ones are over by then. */
size_t redis_wishes_late(const struct redis_wishes *wishes, uint64_t now);
/* When the oldest one is over; UINT64_MAX: there is none. */
uint64_t redis_wishes_deadline(const struct redis_wishes *wishes);
void redis_wishes_clear(struct redis_wishes *wishes);
void redis_wishes_finish(struct redis_wishes *wishes);
