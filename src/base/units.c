/*
 * Sizes and durations: parsing and formatting in exact integers. Never uses strtod or printf's %f, which read the
 * locale and round; never clamps silently.
 */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Digits that fit beside the largest unit in 128 bits; more of them in a fraction only decide the rounding. */
#define DIGITS_MAX 18
#define SIZE_MAX_MIB ((uint64_t)1 << 31)
#define DURATION_MAX_MS ((uint64_t)10 * 365 * 24 * 3600 * 1000)

/* mantissa / 10^scale, and `more` when digits beyond were dropped that are not all zero. */
struct decimal {
	uint64_t mantissa;
	unsigned scale;
	bool has_fraction;
	bool more;
};

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	/* in bytes */
	{ "KiB", UINT64_C(1) << 10 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "GiB", UINT64_C(1) << 30 },
	{ "TiB", UINT64_C(1) << 40 },
	{ "kB", UINT64_C(1000) },
	{ "MB", UINT64_C(1000000) },
	{ "GB", UINT64_C(1000000000) },
	{ "TB", UINT64_C(1000000000000) },
	{ "", UINT64_C(1) << 20 },
};

static const struct unit duration_units[] = {
	/* in milliseconds, the largest first */
	{ "h", 3600 * 1000 },
	{ "m", 60 * 1000 },
	{ "s", 1000 },
	{ "ms", 1 },
};
#define N_DURATION_UNITS (sizeof(duration_units) / sizeof(duration_units[0]))

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_spaces(const char *text)
{
	while (*text == ' ')
		text++;
	return text;
}

static bool ends_in_space(const char *text)
{
	size_t length = strlen(text);
	return length > 0 && text[length - 1] == ' ';
}

static int add_digit(struct decimal *decimal, char c, bool in_fraction)
{
	if (decimal->mantissa >= UINT64_C(100000000000000000)) { /* 10^17: DIGITS_MAX digits are taken */
		if (!in_fraction)
			return -ERANGE;
		decimal->more |= c != '0';
		return 0;
	}
	if (in_fraction && decimal->scale == DIGITS_MAX) {
		decimal->more |= c != '0';
		return 0;
	}
	decimal->mantissa = decimal->mantissa * 10 + (uint64_t)(c - '0');
	decimal->scale += in_fraction;
	return 0;
}

/* A decimal at the start of `*text`, which then points behind it. */
static int parse_decimal(const char **text, struct decimal *ret_decimal)
{
	struct decimal decimal = { 0 };
	int r = 0;
	const char *p = *text;
	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++)
		if (r == 0)
			r = add_digit(&decimal, *p, false);
	if (*p == '.') {
		decimal.has_fraction = true;
		p++;
		if (!is_digit(*p))
			return -EINVAL;
		for (; is_digit(*p); p++)
			if (r == 0)
				r = add_digit(&decimal, *p, true);
	}
	*text = p;
	*ret_decimal = decimal;
	return r;
}

/* decimal * factor / divisor, rounded up, at most `most` or -ERANGE. */
static int scale_up(const struct decimal *decimal, uint64_t factor, uint64_t divisor, uint64_t most, uint64_t *ret)
{
	unsigned __int128 numerator = (unsigned __int128)decimal->mantissa * factor;
	unsigned __int128 denominator = divisor;
	for (unsigned i = 0; i < decimal->scale; i++)
		denominator *= 10;
	unsigned __int128 quotient = numerator / denominator;
	if (numerator % denominator != 0 || decimal->more)
		quotient++;
	if (quotient > most)
		return -ERANGE;
	*ret = (uint64_t)quotient;
	return 0;
}

static int take_percent(const struct decimal *decimal, struct size_value *ret_size)
{
	if (decimal->has_fraction || decimal->mantissa == 0)
		return -EINVAL;
	if (decimal->mantissa > 100)
		return -ERANGE;
	*ret_size = (struct size_value){ .percent = (uint32_t)decimal->mantissa };
	return 0;
}

int parse_size(const char *text, struct size_value *ret_size)
{
	struct decimal decimal;
	if (ends_in_space(text))
		return -EINVAL;
	int range = parse_decimal(&text, &decimal);
	if (range == -EINVAL)
		return range;
	text = skip_spaces(text);
	if (strcmp(text, "%") == 0)
		return range < 0 ? range : take_percent(&decimal, ret_size);
	for (size_t i = 0; i < sizeof(size_units) / sizeof(size_units[0]); i++) {
		if (strcmp(text, size_units[i].suffix) != 0)
			continue;
		uint64_t mib;
		int r = range < 0 ? range
				  : scale_up(&decimal, size_units[i].factor, UINT64_C(1) << 20, SIZE_MAX_MIB, &mib);
		if (r < 0)
			return r;
		*ret_size = (struct size_value){ .mib = (uint32_t)mib };
		return 0;
	}
	return -EINVAL;
}

/* The unit at the start of `*text`, which then points behind it; -1: none. "m" is not the start of "ms". */
static int parse_duration_unit(const char **text)
{
	size_t length = strspn(*text, "hms");
	for (size_t i = 0; i < N_DURATION_UNITS; i++) {
		if (strlen(duration_units[i].suffix) != length || strncmp(*text, duration_units[i].suffix, length) != 0)
			continue;
		*text += length;
		return (int)i;
	}
	return -1;
}

/* The parts of "1m30s", each unit smaller than the one before: "30s1m" is a slip, not a sum. */
int parse_duration(const char *text, uint64_t *ret_ms)
{
	uint64_t sum = 0;
	int range = 0;
	int last_unit = -1;
	if (ends_in_space(text))
		return -EINVAL;
	do {
		struct decimal decimal;
		int r = parse_decimal(&text, &decimal);
		if (r == -EINVAL)
			return r;
		range = range < 0 ? range : r;
		text = skip_spaces(text);
		bool is_bare = last_unit < 0 && *text == '\0';
		int unit = is_bare ? 2 : parse_duration_unit(&text);
		if (unit <= last_unit)
			return -EINVAL;
		last_unit = unit;
		uint64_t part = 0;
		if (range == 0)
			range = scale_up(&decimal, duration_units[unit].factor, 1, DURATION_MAX_MS, &part);
		sum += part;
		text = skip_spaces(text);
	} while (*text != '\0');
	if (range < 0 || sum > DURATION_MAX_MS)
		return -ERANGE;
	*ret_ms = sum;
	return 0;
}

uint32_t size_on_card(struct size_value size, uint32_t total_mib)
{
	if (size.percent == 0)
		return size.mib;
	return (uint32_t)(((uint64_t)total_mib * size.percent + 99) / 100);
}

const char *format_size(struct size_value size, char *buffer, size_t buffer_size)
{
	if (size.percent != 0)
		snprintf(buffer, buffer_size, "%" PRIu32 "%%", size.percent);
	else
		snprintf(buffer, buffer_size, "%" PRIu32 " MiB", size.mib);
	return buffer;
}

static void format_pair(
	char *buffer, size_t size, uint64_t major, const char *major_unit, uint64_t minor, const char *minor_unit)
{
	if (minor == 0)
		snprintf(buffer, size, "%" PRIu64 " %s", major, major_unit);
	else
		snprintf(buffer, size, "%" PRIu64 " %s %" PRIu64 " %s", major, major_unit, minor, minor_unit);
}

const char *format_duration(uint64_t ms, char *buffer, size_t buffer_size)
{
	/* Rounded first and then divided, so that no part ever reads "60". */
	uint64_t tenths = ms / 100 + (ms % 100 >= 50);
	uint64_t seconds = ms / 1000 + (ms % 1000 >= 500);
	uint64_t minutes = ms / 60000 + (ms % 60000 >= 30000);
	if (ms < 1000)
		snprintf(buffer, buffer_size, "%" PRIu64 " ms", ms);
	else if (tenths < 600 && tenths % 10 != 0)
		snprintf(buffer, buffer_size, "%" PRIu64 ".%" PRIu64 " s", tenths / 10, tenths % 10);
	else if (tenths < 600)
		snprintf(buffer, buffer_size, "%" PRIu64 " s", tenths / 10);
	else if (seconds < 3600)
		format_pair(buffer, buffer_size, seconds / 60, "m", seconds % 60, "s");
	else
		format_pair(buffer, buffer_size, minutes / 60, "h", minutes % 60, "m");
	return buffer;
}
