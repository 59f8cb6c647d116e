/*
 * `${env.NAME}` and `${env.NAME:-default}` in values, from the process's environment. The default counts where the
 * variable is unset or empty. `$${` is a literal `${`; any other `$` stands for itself.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"

/* 0: the caller frees `*ret_text`. -EINVAL with a message; -ENOMEM. */
int expand_text(const char *text, char **ret_text, struct error *err);
