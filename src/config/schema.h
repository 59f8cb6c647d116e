/*
 * The option table: every key that a configuration file may hold, in one place (schema.c). Reading, defaults, checks
 * of presence, hints, freeing, `config reference` and the JSON schema all walk it; a new key is a new row.
 *
 * A key is named by its path from the top of the file. `*` stands for a name that the file chooses: that of a service
 * or the number of a phase. A row's `offset` counts from the struct of its scope: struct config, struct phase_config
 * ("phases.*.") or struct service_config ("services.*.").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/values.h"

/* No table outgrows this; schema.c asserts it. */
#define OPTION_MAX 96

enum option_flag {
	OPTION_REQUIRED = 1 << 0, /* wherever its section is written */
	OPTION_SECRET = 1 << 1, /* its value never stands in a message */
	OPTION_EARLY = 1 << 2, /* read before its siblings, which depend on it */
	OPTION_IF_WRITTEN = 1 << 3, /* a section whose defaults count only where it is written */
	OPTION_AMOUNT = 1 << 4, /* a size that may not be a share of the card */
	OPTION_OR_ZERO = 1 << 5, /* 0 is accepted below `min` */
	OPTION_SHELL = 1 << 6, /* a command that `shell: true` makes a shell's */
	OPTION_OWN_ADDRESS = 1 << 7, /* ":PORT" is accepted: the container's own address */
	OPTION_AT_START = 1 << 8, /* read when the daemon starts: a reload does not change it */
	OPTION_AT_RUN = 1 << 9, /* a service that runs keeps it until it is started anew */
};

struct choice {
	const char *name; /* NULL ends the list */
	int value;
};

struct option {
	const char *path;
	const struct value_type *type;
	const char *fallback; /* the default, as one would write it; NULL: none */
	const char *fallback_text; /* what people are told instead of `fallback` */
	const char *meaning; /* one or two sentences, without a full stop at the end */
	const char *example; /* a value that is accepted, for messages and for the reference; NULL: the type's */
	unsigned flags;
	unsigned one_of; /* not 0: of the siblings with the same number exactly one is written */
	int64_t min, max; /* of numbers, of sizes in MiB, of durations in ms; both 0: no bounds */
	const struct choice *choices;
	size_t offset;
	size_t count_offset; /* lists of numbers: where their count goes */
	size_t written_offset; /* not 0: a bool that says whether the file has the key */
};

extern const struct option option_table[];
extern const size_t option_count;

/* The top of the file: a section without a path of its own, not part of the table. */
extern const struct option option_root;

enum option_scope { SCOPE_FILE, SCOPE_PHASE, SCOPE_SERVICE };

enum option_scope option_scope(const struct option *option);
size_t option_index(const struct option *option);

/* NULL: there is none. */
const struct option *option_find(const char *path);
const struct option *option_child(const struct option *section, const char *key);

/* The children of a section in the table's order: pass NULL first; NULL after the last. */
const struct option *option_next_child(const struct option *section, const struct option *previous);

/* The last part of the path. */
const char *option_name(const struct option *option);

/* The path as people write it: services.NAME.vram, phases.N.name. Returns `buffer`. */
const char *option_display(const struct option *option, char *buffer, size_t buffer_size);

/* "an integer from 1 to 64", "one of auto, nvml, sim, none", "a size such as 20GiB". Returns `buffer`. */
const char *option_expected(const struct option *option, char *buffer, size_t buffer_size);

/* Where the value lives in the struct of its scope. */
static inline void *option_at(const struct option *option, void *base)
{
	return (char *)base + option->offset;
}

static inline const void *option_of(const struct option *option, const void *base)
{
	return (const char *)base + option->offset;
}
