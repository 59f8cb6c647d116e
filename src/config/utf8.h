/* UTF-8: whether bytes are it. */
#pragma once

#include <stddef.h>

/* How many bytes from the start are whole characters; `length` when all is well. NUL is a character. */
size_t utf8_valid_length(const char *text, size_t length);
