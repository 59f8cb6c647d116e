/* Memory that is given back in one piece. */
#include <stdlib.h>
#include <string.h>

#include "client/records.h"

struct block {
	struct block *before;
	max_align_t bytes[];
};

struct arena {
	struct block *last;
	json_t *json; /* an array of what is kept */
	bool failed;
};

struct arena *arena_new(void)
{
	struct arena *arena = calloc(1, sizeof(*arena));
	if (arena == NULL)
		return NULL;
	arena->json = json_array();
	return arena->json != NULL ? arena : arena_free(arena);
}

struct arena *arena_free(struct arena *arena)
{
	if (arena == NULL)
		return NULL;
	while (arena->last != NULL) {
		struct block *before = arena->last->before;
		free(arena->last);
		arena->last = before;
	}
	json_decref(arena->json);
	free(arena);
	return NULL;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	struct block *block = calloc(1, sizeof(*block) + size);
	if (block == NULL) {
		arena->failed = true;
		return NULL;
	}
	block->before = arena->last;
	arena->last = block;
	return block->bytes;
}

const char *arena_copy(struct arena *arena, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = arena_alloc(arena, size);
	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

bool arena_failed(const struct arena *arena)
{
	return arena->failed;
}

void arena_keep_json(struct arena *arena, json_t *json)
{
	if (json_array_append_new(arena->json, json) < 0)
		arena->failed = true;
}
