/* UTF-8 as RFC 3629 defines it. */
#include "config/utf8.h"

#include <stdbool.h>

/* Bytes of the UTF-8 character at the start, 0: it is none. Overlong forms and surrogates are none. */
static size_t character_length(const unsigned char *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	size_t length = p[0] >= 0xc2 && p[0] <= 0xdf ? 2
		: (p[0] & 0xf0) == 0xe0              ? 3
		: p[0] >= 0xf0 && p[0] <= 0xf4       ? 4
						     : 0;
	if (length == 0 || length > n)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	bool is_bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
		(p[0] == 0xf4 && p[1] > 0x8f);
	return is_bad ? 0 : length;
}

size_t utf8_valid_length(const char *text, size_t length)
{
	size_t i = 0;
	while (i < length) {
		size_t n = character_length((const unsigned char *)text + i, length - i);
		if (n == 0)
			break;
		i += n;
	}
	return i;
}
