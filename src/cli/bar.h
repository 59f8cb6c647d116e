/* The bar that shows how a GPU's memory is shared out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/table.h"

/* MiB; what exceeds the total is cut off. */
struct bar_input {
	uint64_t total;
	uint64_t used; /* measured, of services and of others */
	uint64_t committed; /* what services may grow to */
	uint64_t foreign;
};

enum bar_part { BAR_SERVICES, BAR_PROMISED, BAR_FOREIGN, BAR_FREE, BAR_PARTS };

/* How many of `width` characters each part gets; their sum is `width`. A part that is not 0 gets one at least. */
void bar_divide(const struct bar_input *input, size_t width, size_t parts[BAR_PARTS]);

void bar_print(const size_t parts[BAR_PARTS], FILE *out, bool utf8, bool colors);
