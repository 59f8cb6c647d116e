/* Writing JSON. Whether there must be a comma is told by what was written last; nothing else is remembered. */
#include "api/writer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LEAST_BYTES 512

/* Room. */

static char *make_room(struct writer *writer, size_t more)
{
	if (writer->has_failed)
		return NULL;
	if (writer->capacity - writer->length < more) {
		size_t capacity = writer->capacity > 0 ? writer->capacity : LEAST_BYTES;
		while (capacity - writer->length < more)
			capacity *= 2;
		char *grown = realloc(writer->text, capacity);
		if (grown == NULL) {
			writer->has_failed = true;
			return NULL;
		}
		writer->text = grown;
		writer->capacity = capacity;
	}
	return writer->text + writer->length;
}

void writer_finish(struct writer *writer)
{
	free(writer->text);
	*writer = (struct writer){ 0 };
}

char *writer_take(struct writer *writer, size_t *ret_length)
{
	char *text = writer->has_failed ? NULL : TAKE_PTR(writer->text);
	*ret_length = writer->length;
	writer_finish(writer);
	return text;
}

void writer_raw(struct writer *writer, const char *bytes, size_t length)
{
	char *end = make_room(writer, length);
	if (end == NULL)
		return;
	memcpy(end, bytes, length);
	writer->length += length;
}

static void put_char(struct writer *writer, char c)
{
	writer_raw(writer, &c, 1);
}

#define put_literal(writer, literal) writer_raw(writer, literal, sizeof(literal) - 1)

/* After a bracket, or the space that ends what comes before the JSON, nothing is to be separated. */
static void begin_value(struct writer *writer, const char *key)
{
	if (writer->length > 0 && strchr("{[ ", writer->text[writer->length - 1]) == NULL)
		put_char(writer, ',');
	if (key == NULL)
		return;
	size_t length = strlen(key);
	char *end = make_room(writer, length + 3);
	if (end == NULL)
		return;
	*end++ = '"';
	end = mempcpy(end, key, length);
	*end++ = '"';
	*end = ':';
	writer->length += length + 3;
}

void writer_open(struct writer *writer, const char *key, char bracket)
{
	begin_value(writer, key);
	put_char(writer, bracket);
}

void writer_close(struct writer *writer, char bracket)
{
	put_char(writer, bracket);
}

void writer_json(struct writer *writer, const char *key, const char *json, size_t length)
{
	begin_value(writer, key);
	writer_raw(writer, json, length);
}

void writer_null(struct writer *writer, const char *key)
{
	begin_value(writer, key);
	put_literal(writer, "null");
}

void writer_bool(struct writer *writer, const char *key, bool value)
{
	begin_value(writer, key);
	if (value)
		put_literal(writer, "true");
	else
		put_literal(writer, "false");
}

/* Numbers. */

static void put_digits(struct writer *writer, uint64_t value, unsigned least)
{
	char digits[24];
	size_t n = 0;
	do {
		digits[sizeof(digits) - ++n] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0 || n < least);
	writer_raw(writer, digits + sizeof(digits) - n, n);
}

void writer_integer(struct writer *writer, const char *key, int64_t value)
{
	begin_value(writer, key);
	if (value < 0)
		put_char(writer, '-');
	put_digits(writer, value < 0 ? -(uint64_t)value : (uint64_t)value, 1);
}

void writer_integer_or_null(struct writer *writer, const char *key, bool is_known, int64_t value)
{
	if (is_known)
		writer_integer(writer, key, value);
	else
		writer_null(writer, key);
}

void writer_seconds(struct writer *writer, const char *key, uint64_t ms)
{
	begin_value(writer, key);
	put_digits(writer, ms / 1000, 1);
	if (ms % 1000 == 0)
		return;
	unsigned rest = (unsigned)(ms % 1000), digits = 3;
	for (; rest % 10 == 0; digits--)
		rest /= 10;
	put_char(writer, '.');
	put_digits(writer, rest, digits);
}

#define WALL_TIME_MAX_S 1e12 /* beyond the year 9999, and no number of milliseconds overflows */

void writer_wall_time(struct writer *writer, const char *key, double seconds)
{
	if (!(seconds > -WALL_TIME_MAX_S && seconds < WALL_TIME_MAX_S)) {
		writer_null(writer, key);
		return;
	}
	int64_t total_ms = (int64_t)(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5));
	int ms = (int)(((total_ms % 1000) + 1000) % 1000);
	time_t whole = (time_t)((total_ms - ms) / 1000);
	struct tm utc;
	if (gmtime_r(&whole, &utc) == NULL || utc.tm_year < -1900 || utc.tm_year > 8099) {
		writer_null(writer, key);
		return;
	}
	const struct {
		int value;
		unsigned digits;
		char after;
	} parts[] = { { utc.tm_year + 1900, 4, '-' }, { utc.tm_mon + 1, 2, '-' }, { utc.tm_mday, 2, 'T' },
		{ utc.tm_hour, 2, ':' }, { utc.tm_min, 2, ':' }, { utc.tm_sec, 2, '.' }, { ms, 3, 'Z' } };
	begin_value(writer, key);
	put_char(writer, '"');
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		put_digits(writer, (uint64_t)parts[i].value, parts[i].digits);
		put_char(writer, parts[i].after);
	}
	put_char(writer, '"');
}

/* Text. */

/* The length of the UTF-8 sequence at `s`, 0 when it is none. */
static size_t utf8_length(const unsigned char *s)
{
	static const struct {
		unsigned char mask, lead;
		size_t length;
		uint32_t least;
	} kinds[] = { { 0x80, 0x00, 1, 0 }, { 0xe0, 0xc0, 2, 0x80 }, { 0xf0, 0xe0, 3, 0x800 },
		{ 0xf8, 0xf0, 4, 0x10000 } };
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		if ((s[0] & kinds[k].mask) != kinds[k].lead)
			continue;
		uint32_t code = s[0] & (unsigned char)~kinds[k].mask;
		for (size_t i = 1; i < kinds[k].length; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (s[i] & 0x3f);
		}
		bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
		return code >= kinds[k].least && code <= 0x10ffff && !is_surrogate ? kinds[k].length : 0;
	}
	return 0;
}

static bool is_plain(unsigned char c)
{
	return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

static void put_control(struct writer *writer, unsigned char c)
{
	static const char short_forms[] = "\bb\ff\nn\rr\tt";
	static const char hex[] = "0123456789abcdef";
	for (size_t i = 0; i + 1 < sizeof(short_forms); i += 2) {
		if ((unsigned char)short_forms[i] != c)
			continue;
		put_char(writer, '\\');
		put_char(writer, short_forms[i + 1]);
		return;
	}
	put_literal(writer, "\\u00");
	put_char(writer, hex[c >> 4]);
	put_char(writer, hex[c & 15]);
}

/* What is not plain, one character; how many bytes it was. */
static size_t put_special(struct writer *writer, const char *text)
{
	unsigned char c = (unsigned char)*text;
	if (c == '"' || c == '\\') {
		put_char(writer, '\\');
		put_char(writer, *text);
		return 1;
	}
	if (c < ' ' || c == 0x7f) {
		put_control(writer, c);
		return 1;
	}
	size_t length = utf8_length((const unsigned char *)text);
	if (length > 0)
		writer_raw(writer, text, length);
	else
		put_literal(writer, "\xef\xbf\xbd");
	return length > 0 ? length : 1;
}

void writer_text(struct writer *writer, const char *key, const char *text)
{
	begin_value(writer, key);
	put_char(writer, '"');
	while (*text != '\0') {
		size_t plain = 0;
		while (is_plain((unsigned char)text[plain]))
			plain++;
		writer_raw(writer, text, plain);
		text += plain;
		if (*text != '\0')
			text += put_special(writer, text);
	}
	put_char(writer, '"');
}

void writer_text_or_null(struct writer *writer, const char *key, const char *text)
{
	if (text != NULL && text[0] != '\0')
		writer_text(writer, key, text);
	else
		writer_null(writer, key);
}
