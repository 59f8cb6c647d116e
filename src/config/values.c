/* The kinds of values that are one scalar and end up as a number. They say what is wrong, never where it is used. */
#include "config/values.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "config/hints.h"
#include "config/parse.h"
#include "config/report.h"

/* "USER:PASSWORD@HOST", wherever somebody writes it. */
static bool has_password(const char *text)
{
	const char *colon = strchr(text, ':');
	const char *scheme = colon != NULL && strncmp(colon, "://", 3) == 0 ? colon + 3 : text;
	const char *at = strchr(scheme, '@');
	return at != NULL && memchr(scheme, ':', (size_t)(at - scheme)) != NULL;
}

void value_refuse(struct parser *parser, const struct option *option, const struct scalar *scalar, const char *problem,
	const char *hint)
{
	char quoted[REPORT_QUOTE_SIZE], expected[256];
	bool is_secret = (option->flags & OPTION_SECRET) != 0 || has_password(scalar->text);
	parser_error(parser, scalar->at, "%s %s (expected %s%s%s%s)",
		is_secret ? "the value" : report_quote(scalar->text, quoted), problem,
		option_expected(option, expected, sizeof(expected)), hint == NULL ? "" : "; did you mean ",
		hint == NULL ? "" : hint, hint == NULL ? "" : "?");
}

/* Fields that are one number each. */
#define DEFINE_IS_EQUAL(name, type)                                                                                    \
	static bool name(const struct option *option, const void *a, const void *b)                                    \
	{                                                                                                              \
		return *(const type *)option_of(option, a) == *(const type *)option_of(option, b);                     \
	}

DEFINE_IS_EQUAL(is_equal_int, int)
DEFINE_IS_EQUAL(is_equal_count, unsigned)
DEFINE_IS_EQUAL(is_equal_bool, bool)
DEFINE_IS_EQUAL(is_equal_number, double)
DEFINE_IS_EQUAL(is_equal_amount, uint64_t)
DEFINE_IS_EQUAL(is_equal_duration, int64_t)

static bool is_equal_size(const struct option *option, const void *a, const void *b)
{
	const struct size_value *left = option_of(option, a), *right = option_of(option, b);
	return left->mib == right->mib && left->percent == right->percent;
}

/* An enum, as it was stored. */
static bool is_equal_choice(const struct option *option, const void *a, const void *b)
{
	return memcmp(option_of(option, a), option_of(option, b), sizeof(int)) == 0;
}

static bool is_digits(const char *text)
{
	return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* Decimal, without `+` and leading zeros: what YAML would read as octal is not guessed at. */
static int parse_integer(const char *text, int64_t *ret)
{
	bool is_negative = text[0] == '-';
	const char *digits = text + is_negative;
	if (!is_digits(digits) || (digits[0] == '0' && digits[1] != '\0'))
		return -EINVAL;
	if (strlen(digits) > 15)
		return -ERANGE;
	int64_t value = 0;
	for (; *digits != '\0'; digits++)
		value = value * 10 + (*digits - '0');
	*ret = is_negative ? -value : value;
	return 0;
}

/* False: no integer within the option's bounds, which was reported. */
static bool read_integer(struct parser *parser, const struct option *option, const struct scalar *scalar, int64_t *ret)
{
	int64_t value = 0;
	int r = parse_integer(scalar->text, &value);
	if (r == -EINVAL)
		value_refuse(parser, option, scalar, "is not an integer", NULL);
	else if (r < 0 || value < option->min || value > option->max)
		value_refuse(parser, option, scalar, "is out of range", NULL);
	else
		*ret = value;
	return r == 0 && value >= option->min && value <= option->max;
}

static void integer_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	int64_t value;
	if (read_integer(parser, option, scalar, &value))
		*(int *)option_at(option, base) = (int)value;
}

const struct value_type type_integer = {
	.name = "integer",
	.is_number = true,
	.from_text = integer_from_text,
	.is_equal = is_equal_int,
};

static void count_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	int64_t value;
	if (read_integer(parser, option, scalar, &value))
		*(unsigned *)option_at(option, base) = (unsigned)value;
}

const struct value_type type_count = {
	.name = "count",
	.is_number = true,
	.from_text = count_from_text,
	.is_equal = is_equal_count,
};

static void version_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	(void)option;
	(void)base;
	char quoted[REPORT_QUOTE_SIZE];
	if (strcmp(scalar->text, "1") == 0)
		return;
	if (is_digits(scalar->text))
		parser_error(parser, scalar->at,
			"version %s is not known to this gpumgr (expected 1; a newer gpumgr may know it)",
			report_quote(scalar->text, quoted));
	else
		parser_error(
			parser, scalar->at, "%s is not a version (expected 1)", report_quote(scalar->text, quoted));
}

const struct value_type type_version = {
	.name = "version",
	.expected = "1",
	.schema = "{\"const\": 1}",
	.from_text = version_from_text,
};

/* YAML 1.1 and 1.2 disagree on yes and no; here they mean what they say. */
static const struct {
	const char *text;
	bool value;
} booleans[] = {
	{ "true", true },
	{ "false", false },
	{ "yes", true },
	{ "no", false },
	{ "on", true },
	{ "off", false },
};

static void boolean_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	for (size_t i = 0; i < ARRAY_SIZE(booleans); i++) {
		if (strcasecmp(scalar->text, booleans[i].text) == 0) {
			*(bool *)option_at(option, base) = booleans[i].value;
			return;
		}
	}
	value_refuse(parser, option, scalar, "is neither true nor false", NULL);
}

const struct value_type type_boolean = {
	.name = "boolean",
	.expected = "true or false",
	.schema = "{\"anyOf\": [{\"type\": \"boolean\"}, {\"type\": \"string\", \"pattern\": "
		  "\"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff])$\"}]}",
	.from_text = boolean_from_text,
	.is_equal = is_equal_bool,
};

/* -1.5: no exponent, no locale. */
static bool parse_number(const char *text, double *ret)
{
	bool is_negative = text[0] == '-';
	double value = 0, unit = 1;
	size_t n_digits = 0;
	bool has_point = false;
	for (const char *p = text + is_negative; *p != '\0'; p++) {
		if (*p == '.' && !has_point && n_digits > 0 && p[1] != '\0') {
			has_point = true;
			continue;
		}
		if (*p < '0' || *p > '9' || ++n_digits > 15)
			return false;
		value = value * 10 + (*p - '0');
		unit *= has_point ? 10 : 1;
	}
	*ret = (is_negative ? -value : value) / unit;
	return n_digits > 0;
}

static void number_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	if (!parse_number(scalar->text, option_at(option, base)))
		value_refuse(parser, option, scalar, "is not a number", NULL);
}

const struct value_type type_number = {
	.name = "number",
	.expected = "a number such as 0 or 1.5",
	.schema = "{\"type\": \"number\"}",
	.from_text = number_from_text,
	.is_equal = is_equal_number,
};

/* False: no such size within the option's bounds, which was reported. */
static bool read_size(
	struct parser *parser, const struct option *option, const struct scalar *scalar, struct size_value *ret)
{
	char hint[64];
	struct size_value size;
	int r = parse_size(scalar->text, &size);
	if (r == -ERANGE) {
		value_refuse(parser, option, scalar, "is out of range", NULL);
		return false;
	}
	if (r < 0) {
		bool has_hint = hint_for_size(scalar->text, hint, sizeof(hint));
		value_refuse(parser, option, scalar, "is not a size", has_hint ? hint : NULL);
		return false;
	}
	if (size.percent != 0) {
		*ret = size;
		return true;
	}
	if (size.mib < option->min && !(size.mib == 0 && (option->flags & OPTION_OR_ZERO) != 0)) {
		bool has_hint = hint_for_small_size(scalar->text, hint, sizeof(hint));
		char problem[64];
		snprintf(problem, sizeof(problem), "is under %" PRId64 " MiB", option->min);
		value_refuse(parser, option, scalar, problem, has_hint ? hint : NULL);
		return false;
	}
	*ret = size;
	return true;
}

static void size_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	struct size_value size;
	if (read_size(parser, option, scalar, &size))
		*(struct size_value *)option_at(option, base) = size;
}

#define SIZE_PATTERN "^[0-9]+(\\\\.[0-9]+)? *(KiB|MiB|GiB|TiB|kB|MB|GB|TB"
#define NUMBER_OR_TEXT(pattern)                                                                                        \
	"{\"anyOf\": [{\"type\": \"number\", \"minimum\": 0}, {\"type\": \"string\", \"pattern\": \"" pattern "\"}]}"

const struct value_type type_size = {
	.name = "size",
	.expected = "a size such as 20GiB, or 80% of the card",
	.schema = NUMBER_OR_TEXT(SIZE_PATTERN "|%)?$"),
	.from_text = size_from_text,
	.is_equal = is_equal_size,
};

bool value_read_amount(
	struct parser *parser, const struct option *option, const struct scalar *scalar, uint32_t *ret_mib)
{
	struct size_value size;
	if (!read_size(parser, option, scalar, &size))
		return false;
	if (size.percent != 0) {
		value_refuse(parser, option, scalar, "is a share of a card, not an amount", NULL);
		return false;
	}
	*ret_mib = size.mib;
	return true;
}

static void bytes_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	uint32_t mib;
	if (!value_read_amount(parser, option, scalar, &mib))
		return;
	if (mib > option->max)
		value_refuse(parser, option, scalar, "is out of range", NULL);
	else
		*(uint64_t *)option_at(option, base) = (uint64_t)mib << 20;
}

const struct value_type type_bytes = {
	.name = "amount",
	.expected = "a size such as 10MiB",
	.schema = NUMBER_OR_TEXT(SIZE_PATTERN ")?$"),
	.from_text = bytes_from_text,
	.is_equal = is_equal_amount,
};

/* False: no duration within the option's bounds, which was reported. */
static bool read_duration(
	struct parser *parser, const struct option *option, const struct scalar *scalar, uint64_t *ret_ms)
{
	uint64_t ms = 0;
	int r = parse_duration(scalar->text, &ms);
	if (r == 0 && ms >= (uint64_t)option->min && ms <= (uint64_t)option->max) {
		*ret_ms = ms;
		return true;
	}
	char hint[64], least[32], most[32], problem[96];
	if (r == -EINVAL) {
		bool has_hint = hint_for_duration(scalar->text, hint, sizeof(hint));
		value_refuse(parser, option, scalar, "is not a duration", has_hint ? hint : NULL);
		return false;
	}
	snprintf(problem, sizeof(problem), "is not between %s and %s",
		format_duration((uint64_t)option->min, least, sizeof(least)),
		format_duration((uint64_t)option->max, most, sizeof(most)));
	value_refuse(parser, option, scalar, problem, NULL);
	return false;
}

static void duration_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	read_duration(parser, option, scalar, option_at(option, base));
}

const struct value_type type_duration = {
	.name = "duration",
	.expected = "a duration such as 30s, 5m or 1m30s",
	.schema = NUMBER_OR_TEXT("^[0-9][0-9hms. ]*$"),
	.from_text = duration_from_text,
	.is_equal = is_equal_amount,
};

static void duration_or_never_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	int64_t *target = option_at(option, base);
	uint64_t ms;
	if (strcmp(scalar->text, "never") == 0)
		*target = INT64_MAX;
	else if (read_duration(parser, option, scalar, &ms))
		*target = (int64_t)ms;
}

const struct value_type type_duration_or_never = {
	.name = "duration or never",
	.expected = "a duration such as 60s, or never",
	.schema = NUMBER_OR_TEXT("^(never|[0-9][0-9hms. ]*)$"),
	.from_text = duration_or_never_from_text,
	.is_equal = is_equal_duration,
};

static void choice_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const struct choice *close = NULL;
	unsigned distance, best = UINT32_MAX;
	for (const struct choice *choice = option->choices; choice->name != NULL; choice++) {
		if (strcmp(choice->name, scalar->text) == 0) {
			/* every enum of config.h is as wide as an int */
			memcpy(option_at(option, base), &choice->value, sizeof(choice->value));
			return;
		}
		if (hint_is_close(scalar->text, choice->name, &distance) && distance < best) {
			best = distance;
			close = choice;
		}
	}
	value_refuse(parser, option, scalar, "is not among the choices", close == NULL ? NULL : close->name);
}

const struct value_type type_choice = {
	.name = "choice",
	.from_text = choice_from_text,
	.is_equal = is_equal_choice,
};

static void mode_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *digits = scalar->text;
	if (strncmp(digits, "0o", 2) == 0)
		digits += 2;
	unsigned mode = 0;
	size_t length = strlen(digits);
	bool is_octal = length >= 3 && length <= 4 && digits[strspn(digits, "01234567")] == '\0';
	for (size_t i = 0; is_octal && i < length; i++)
		mode = mode * 8 + (unsigned)(digits[i] - '0');
	if (!is_octal || mode > 0777) {
		value_refuse(parser, option, scalar, "is not a file mode", NULL);
		return;
	}
	*(unsigned *)option_at(option, base) = mode;
}

const struct value_type type_mode = {
	.name = "mode",
	.expected = "an octal mode such as 0660",
	.schema = "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 0}, "
		  "{\"type\": \"string\", \"pattern\": \"^(0o)?[0-7]{3,4}$\"}]}",
	.from_text = mode_from_text,
	.is_equal = is_equal_count,
};

/* Those that can end a process. STOP, CONT, CHLD and the like would leave it there for ever. */
static const struct choice stop_signals[] = {
	{ "HUP", SIGHUP },
	{ "INT", SIGINT },
	{ "QUIT", SIGQUIT },
	{ "ABRT", SIGABRT },
	{ "KILL", SIGKILL },
	{ "USR1", SIGUSR1 },
	{ "USR2", SIGUSR2 },
	{ "PIPE", SIGPIPE },
	{ "ALRM", SIGALRM },
	{ "TERM", SIGTERM },
	{ "WINCH", SIGWINCH },
	{ "PWR", SIGPWR },
	{ NULL, 0 },
};

static int find_signal(const char *text)
{
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	int64_t number = 0;
	bool is_number = is_digits(text) && parse_integer(text, &number) == 0;
	for (const struct choice *signal = stop_signals; signal->name != NULL; signal++)
		if (is_number ? number == signal->value : strcasecmp(signal->name, name) == 0)
			return signal->value;
	return is_number && number >= SIGRTMIN && number <= SIGRTMAX ? (int)number : -1;
}

static void signal_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	int signal = find_signal(scalar->text);
	if (signal < 0)
		value_refuse(parser, option, scalar, "is no signal that ends a process", NULL);
	else
		*(int *)option_at(option, base) = signal;
}

const struct value_type type_signal = {
	.name = "signal",
	.expected = "a signal such as SIGTERM, INT or 15",
	.schema = "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 64}, "
		  "{\"type\": \"string\", \"pattern\": \"^([Ss][Ii][Gg])?[A-Za-z]+[12]?$|^[0-9]+$\"}]}",
	.from_text = signal_from_text,
	.is_equal = is_equal_int,
};
