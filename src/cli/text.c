/* Cleaning and measuring of text that came from outside. Must not pass on anything that a terminal would obey. */
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/distance.h"

/*
 * The character at `text`, and how many bytes it has. -1, one byte: not UTF-8 (overlong forms and surrogates
 * included).
 */
static int32_t decode(const unsigned char *text, size_t left, unsigned *ret_length)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned length = text[0] < 0x80            ? 1
		: text[0] >= 0xc2 && text[0] < 0xe0 ? 2
		: text[0] >= 0xe0 && text[0] < 0xf0 ? 3
		: text[0] >= 0xf0 && text[0] < 0xf5 ? 4
						    : 0;
	*ret_length = 1;
	if (length == 1)
		return text[0];
	if (length == 0 || length > left)
		return -1;
	uint32_t code = text[0] & (0x7fu >> length);
	for (unsigned i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return -1;
		code = code << 6 | (text[i] & 0x3f);
	}
	if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return -1;
	*ret_length = length;
	return (int32_t)code;
}

/* Unicode, "Bidirectional Algorithm" 2: explicit directional formatting, and the line and paragraph separators. */
static bool is_hidden(int32_t code)
{
	return code < ' ' || code == 0x7f || (code >= 0x80 && code < 0xa0) || code == 0x200e || code == 0x200f ||
		(code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

char *text_clean(const char *text, bool keep_lines)
{
	size_t left = strlen(text);
	char *clean = malloc(left + 1);
	char *out = clean;
	if (clean == NULL)
		return NULL;
	while (left > 0) {
		unsigned length;
		int32_t code = decode((const unsigned char *)text, left, &length);
		if (code == '\n' || code == '\t')
			*out++ = keep_lines ? *text : ' ';
		else if (is_hidden(code))
			*out++ = '?';
		else
			out = (char *)memcpy(out, text, length) + length;
		text += length;
		left -= length;
	}
	*out = '\0';
	return clean;
}

size_t text_width(const char *text)
{
	size_t n = 0;
	for (; *text != '\0'; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

size_t text_prefix(const char *text, size_t width)
{
	size_t i = 0;
	for (; text[i] != '\0'; i++)
		if (((unsigned char)text[i] & 0xc0) != 0x80 && width-- == 0)
			break;
	return i;
}

const char *format_age(int64_t seconds, char *buffer, size_t size)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "m" }, { 1, "s" } };
	if (seconds < 0)
		seconds = 0; /* clocks of two machines */
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		/* Two of a unit at least, so that the rounding down stays small. */
		if (seconds < 2 * units[i].seconds && units[i].seconds > 1)
			continue;
		snprintf(buffer, size, "%lld %s", (long long)(seconds / units[i].seconds), units[i].unit);
		break;
	}
	return buffer;
}

static bool is_leap(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days since 1970-01-01. */
static int64_t days_before(int year, int month, int day)
{
	static const int before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	int64_t y = year - 1;
	int64_t days = y * 365 + y / 4 - y / 100 + y / 400 - 719162;
	return days + before[month - 1] + (month > 2 && is_leap(year)) + day - 1;
}

bool parse_time(const char *text, double *ret_seconds)
{
	int year, month, day, hour, minute, second, end = 0;
	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second, &end) != 6)
		return false;
	if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 ||
		minute > 59 || second < 0 || second > 60)
		return false;
	double fraction = 0, place = 0.1;
	const char *p = text + end;
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++, place /= 10)
			fraction += (*p - '0') * place;
	if (strcmp(p, "Z") != 0)
		return false;
	*ret_seconds = (double)(days_before(year, month, day) * 86400 + hour * 3600 + minute * 60 + second) + fraction;
	return true;
}

const char *text_closest(const char *word, const char *const *candidates, size_t n)
{
	const char *closest = NULL;
	unsigned least = 3;
	for (size_t i = 0; i < n; i++) {
		unsigned apart = edit_distance(word, candidates[i]);
		if (apart < least && apart * 2 <= strlen(candidates[i])) {
			least = apart;
			closest = candidates[i];
		}
	}
	return closest;
}

/* States of ECMA-48 control sequences, as far as needed to find their end. */
enum { LOG_TEXT, LOG_ESCAPE, LOG_SEQUENCE, LOG_STRING, LOG_STRING_ESCAPE };

/* A byte of an escape sequence: what comes next. */
static int next_state(int state, unsigned char byte)
{
	switch (state) {
	case LOG_ESCAPE:
		if (byte == '[')
			return LOG_SEQUENCE;
		if (byte == ']' || byte == 'P' || byte == '^' || byte == '_' || byte == 'X')
			return LOG_STRING;
		return byte >= ' ' && byte < '0' ? LOG_ESCAPE : LOG_TEXT;
	case LOG_SEQUENCE:
		return byte >= '@' && byte <= '~' ? LOG_TEXT : LOG_SEQUENCE;
	case LOG_STRING:
		return byte == 0x07 ? LOG_TEXT : byte == 0x1b ? LOG_STRING_ESCAPE : LOG_STRING;
	default:
		return byte == '\\' ? LOG_TEXT : LOG_STRING;
	}
}

/* What was held back of a character that turned out to be none. */
static size_t give_up_character(struct log_filter *filter, char *out)
{
	size_t n = filter->n_lead > 0;
	if (n > 0)
		*out = '?';
	filter->n_lead = 0;
	return n;
}

static size_t put_character(struct log_filter *filter, char *out)
{
	unsigned length;
	int32_t code = decode(filter->lead, filter->n_lead, &length);
	size_t n = filter->n_lead;
	if (is_hidden(code))
		return give_up_character(filter, out);
	memcpy(out, filter->lead, n);
	filter->n_lead = 0;
	return n;
}

static size_t feed_text(struct log_filter *filter, unsigned char byte, char *out)
{
	size_t n = 0;
	if (byte >= 0x80 && byte < 0xc0 && filter->n_lead > 0) {
		filter->lead[filter->n_lead++] = byte;
		return filter->n_lead == filter->n_wanted ? put_character(filter, out) : 0;
	}
	n += give_up_character(filter, out);
	if (filter->after_return && byte != '\n')
		out[n++] = '\n';
	filter->after_return = byte == '\r';
	if (byte >= 0xc2 && byte < 0xf5) {
		filter->lead[filter->n_lead++] = byte;
		filter->n_wanted = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
	} else if (byte == 0x1b) {
		filter->state = LOG_ESCAPE;
	} else if (byte == '\n' || byte == '\t' || (byte >= ' ' && byte < 0x7f)) {
		out[n++] = (char)byte;
	} else if (byte >= 0x80) {
		out[n++] = '?';
	}
	return n;
}

/* A newline ends a sequence that was never finished: one bad line must not hide the rest of the log. */
size_t log_filter_feed(struct log_filter *filter, const char *bytes, size_t n, char *out)
{
	size_t used = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char byte = (unsigned char)bytes[i];
		if (filter->state != LOG_TEXT && byte != '\n') {
			filter->state = next_state(filter->state, byte);
			continue;
		}
		filter->state = LOG_TEXT;
		used += feed_text(filter, byte, out + used);
	}
	return used;
}
