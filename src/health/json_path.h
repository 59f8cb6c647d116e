/*
 * Paths into JSON, as `busy.json` writes them: names and indexes such as queue.running[0].count or [0].n. A name is
 * anything without a point and brackets. Only for this room.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct json_step {
	const char *name; /* within the path, not ended by 0; NULL: an index */
	size_t length;
	size_t index;
};

/*
 * The step at `*rest`, which moves behind it. `is_first`: no point stands before a name. 1: there is one; 0: the path
 * ends here; -EINVAL: it cannot be read.
 */
int json_path_next(const char **rest, bool is_first, struct json_step *ret_step);

bool json_path_is_valid(const char *path);

/*
 * What `path` leads to in `root`; borrowed. NULL: nothing, and `text` says where it ended and what is there instead, in
 * whatever bytes the JSON holds.
 */
const json_t *json_path_follow(const json_t *root, const char *path, char *text, size_t size);

/* "a list", "an object", ... */
const char *json_kind(const json_t *value);
