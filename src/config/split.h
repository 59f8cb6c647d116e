/*
 * Splits a command line into words as a shell does, with quotes and backslashes, but expands nothing: no variables,
 * no patterns, no operators.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "config/config.h"

/*
 * 0: the words are the caller's. `*ret_needs_shell`: something in it means more to a shell than to us. -EINVAL with a
 * message; -ENOMEM.
 */
int split_words(const char *text, struct string_list *ret_words, bool *ret_needs_shell, struct error *err);
