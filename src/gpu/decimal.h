/* Decimal numbers from outside: digits only, no sign, no space, no leading zero, so that a number has one spelling. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False: not a decimal number, or over `most`. */
static inline bool decimal_parse(const char *text, size_t length, uint64_t most, uint64_t *ret_value)
{
	if (length == 0 || length > 19 || (text[0] == '0' && length > 1))
		return false;
	uint64_t value = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (value > most)
		return false;
	*ret_value = value;
	return true;
}
