/* A queue in one piece of memory. */
#include "lock/redis_wishes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 16

/* Moves them to the front, when at least half of the room is there, else into more room. */
static bool make_room(struct redis_wishes *wishes)
{
	if (wishes->first >= wishes->room / 2 && wishes->first > 0) {
		memmove(wishes->items, wishes->items + wishes->first, wishes->n * sizeof(wishes->items[0]));
		wishes->first = 0;
		return true;
	}
	size_t room = wishes->room == 0 ? ROOM_FIRST : wishes->room * 2;
	struct redis_wish *grown = realloc(wishes->items, room * sizeof(grown[0]));
	if (grown == NULL)
		return false;
	wishes->items = grown;
	wishes->room = room;
	return true;
}

bool redis_wishes_add(struct redis_wishes *wishes, struct redis_wish wish)
{
	if (wishes->first + wishes->n == wishes->room && !make_room(wishes))
		return false;
	wishes->items[wishes->first + wishes->n++] = wish;
	return true;
}

struct redis_wish redis_wishes_take(struct redis_wishes *wishes)
{
	assert(wishes->n > 0);
	struct redis_wish wish = wishes->items[wishes->first++];
	if (--wishes->n == 0)
		wishes->first = 0;
	return wish;
}

size_t redis_wishes_late(const struct redis_wishes *wishes, uint64_t now)
{
	size_t n = 0;
	while (n < wishes->n && wishes->items[wishes->first + n].until <= now)
		n++;
	return n;
}

uint64_t redis_wishes_deadline(const struct redis_wishes *wishes)
{
	return wishes->n == 0 ? UINT64_MAX : wishes->items[wishes->first].until;
}

void redis_wishes_clear(struct redis_wishes *wishes)
{
	wishes->first = wishes->n = 0;
}

void redis_wishes_finish(struct redis_wishes *wishes)
{
	free(wishes->items);
	*wishes = (struct redis_wishes){ 0 };
}
