/*
 * Words for the terminal: cleaning, measuring, guessing. Pure functions: no terminal, no daemon, no clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A copy that may be shown: control characters (C0, C1, DEL), bytes that are not UTF-8 and the marks that reorder text
 * (bidi) become '?'; newlines and tabs become spaces unless `keep_lines`. The caller frees it. NULL: no memory.
 */
char *text_clean(const char *text, bool keep_lines);

/* Characters, not bytes, of UTF-8. */
size_t text_width(const char *text);

/* How many bytes of `text` are its first `width` characters. */
size_t text_prefix(const char *text, size_t width);

/* "12 s", "3 m", "2 h", "5 d": one unit, for columns. */
const char *format_age(int64_t seconds, char *buffer, size_t size);

/* RFC 3339 in UTC ("...Z", with or without a fraction) as seconds since the epoch. */
bool parse_time(const char *text, double *ret_seconds);

/* The candidate that `word` is most likely a slip of, or NULL. */
const char *text_closest(const char *word, const char *const *candidates, size_t n);

/*
 * What a service printed, on its way to a terminal: escape sequences and control characters are taken out, a lone
 * carriage return (progress bars) becomes a new line. State is kept between pieces.
 */
struct log_filter {
	int state;
	bool after_return;
	unsigned char lead[4]; /* of a UTF-8 character that is not complete yet */
	unsigned n_lead;
	unsigned n_wanted;
};

/* Writes at most 2 * n + 4 bytes to `out`; returns how many. */
size_t log_filter_feed(struct log_filter *filter, const char *bytes, size_t n, char *out);
