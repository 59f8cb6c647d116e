/*
 * Guesses at what was meant: slips of the fingers, and the names that other tools have for the same thing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/schema.h"

/* Whether `candidate` may have been meant, and how far off it is (0: but for case and `-`). */
bool hint_is_close(const char *written, const char *candidate, unsigned *ret_distance);

/* What would help with an unknown key of that section: "did you mean `vram`?", or the keys there are. Returns `buffer`.
 */
const char *hint_for_key(const struct option *section, const char *key, char *buffer, size_t buffer_size);

/* " (did you mean ...)" parts for values; false: no guess. */
bool hint_for_size(const char *text, char *buffer, size_t buffer_size);
bool hint_for_small_size(const char *text, char *buffer, size_t buffer_size);
bool hint_for_duration(const char *text, char *buffer, size_t buffer_size);

/* The table of foreign names, for the tests. `ours` is the path of an option, or NULL where `note` says it all. */
struct foreign_key {
	const char *section; /* path of the section that it would stand in; NULL: anywhere */
	const char *name;
	const char *ours;
	const char *note;
};
extern const struct foreign_key foreign_keys[];
extern const size_t foreign_key_count;
