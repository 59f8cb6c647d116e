/*
 * `${env.NAME}` and `${env.NAME:-default}` in values, from the process's environment. The default counts where the
 * variable is unset or empty. `$${` is a literal `${`; any other `$` stands for itself.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"

#define EXPANDED_MAX ((size_t)4 << 20) /* bytes: a short text may name a long variable again and again */

/* 0: the caller frees `*ret_text`. -EINVAL with a message; -ENOMEM. */
int expand_text(const char *text, char **ret_text, struct error *err);
