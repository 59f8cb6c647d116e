/*
 * The command line taken apart: words, and options from ONE table. Which of them a command takes is said by its row in
 * the table of commands; the global ones may stand anywhere.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum option {
	OPTION_SOCKET,
	OPTION_URL,
	OPTION_JSON,
	OPTION_QUIET,
	OPTION_NO_COLOR,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_WAIT,
	OPTION_ASYNC,
	OPTION_FORCE,
	OPTION_TIMEOUT,
	OPTION_LINES,
	OPTION_FOLLOW,
	OPTION_SINCE,
	OPTION_PHASE,
	OPTION_VRAM,
	OPTION_MODE,
	OPTION_PRIORITY,
	OPTION_OWNER,
	OPTION_KILL_ON_LOSS,
	OPTION_COUNT,
};

#define OPTION_BIT(option) (1u << (option))
#define OPTIONS_GLOBAL                                                                                                 \
	(OPTION_BIT(OPTION_SOCKET) | OPTION_BIT(OPTION_URL) | OPTION_BIT(OPTION_JSON) | OPTION_BIT(OPTION_QUIET) |     \
		OPTION_BIT(OPTION_NO_COLOR) | OPTION_BIT(OPTION_HELP) | OPTION_BIT(OPTION_VERSION))

struct option_row {
	const char *name; /* "wait" for --wait */
	char letter; /* 0: none */
	const char *value; /* "S", NULL: takes none */
	const char *help;
};

extern const struct option_row option_rows[OPTION_COUNT];

#define WORDS_MAX 512

struct arguments {
	unsigned given; /* OPTION_BIT, or'ed */
	const char *values[OPTION_COUNT]; /* of the last time each was given */
	size_t n_words;
	const char *words[WORDS_MAX + 1]; /* the command first; behind "--" only as far as there is room */
	size_t n_before_dashes; /* words before "--"; n_words when there was none */
	bool has_dashes;
	char *const *rest; /* what stands behind "--", however much it is; ends with NULL. NULL without it */
};

/* -EINVAL with a message that names the option. Values and words are borrowed from argv. */
int arguments_parse(int argc, char *const *argv, struct arguments *ret_arguments, struct error *err);

static inline bool is_given(const struct arguments *arguments, enum option option)
{
	return (arguments->given & OPTION_BIT(option)) != 0;
}
