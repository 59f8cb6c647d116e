/*
 * For tests: config_parse() as another account than the one that runs it.
 */
#pragma once

#include <stdbool.h>

#include "config/config.h"

int config_parse_as(const char *name, const char *text, size_t length, bool is_root, struct config **ret_config,
	struct config_report *report);
