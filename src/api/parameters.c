/* Parameters of requests: one table, strict values. Everything here comes from outside; nothing is guessed. */
#include "api/parameters.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "core/request.h"

#define WAIT_MAX_S (30 * 24 * 3600)
#define TAIL_MAX 100000

enum kind { KIND_BOOL, KIND_SECONDS, KIND_COUNT, KIND_NUMBER, KIND_TEXT, KIND_STRING };

static const struct description {
	const char *name;
	enum parameter bit;
	enum kind kind;
	size_t offset;
} table[] = {
	{ "wait_s", PARAMETER_WAIT, KIND_SECONDS, offsetof(struct parameters, wait_ms) },
	{ "dry_run", PARAMETER_DRY_RUN, KIND_BOOL, offsetof(struct parameters, dry_run) },
	{ "async", PARAMETER_ASYNC, KIND_BOOL, offsetof(struct parameters, async) },
	{ "force", PARAMETER_FORCE, KIND_BOOL, offsetof(struct parameters, force) },
	{ "tail", PARAMETER_TAIL, KIND_COUNT, offsetof(struct parameters, tail) },
	{ "follow", PARAMETER_FOLLOW, KIND_BOOL, offsetof(struct parameters, follow) },
	{ "phase", PARAMETER_PHASE, KIND_TEXT, offsetof(struct parameters, phase) },
	{ "start", PARAMETER_START, KIND_TEXT, offsetof(struct parameters, start) },
	{ "ttl_s", PARAMETER_TTL, KIND_SECONDS, offsetof(struct parameters, ttl_ms) },
	{ "fence", PARAMETER_FENCE, KIND_NUMBER, offsetof(struct parameters, fence) },
	{ "secret", PARAMETER_SECRET, KIND_STRING, offsetof(struct parameters, secret) },
};

void parameters_init(struct parameters *parameters)
{
	*parameters = (struct parameters){ .wait_ms = WAIT_DEFAULT_MS, .tail = 100 };
}

void parameters_finish(struct parameters *parameters)
{
	free(parameters->phase);
	free(parameters->start);
	free(parameters->secret);
	parameters->phase = parameters->start = parameters->secret = NULL;
}

static void *field(struct parameters *parameters, const struct description *description)
{
	return (char *)parameters + description->offset;
}

/* What a route takes, in words: "wait_s, dry_run and async". */
static const char *list_accepted(unsigned accepted, char *buffer, size_t size)
{
	size_t used = 0;
	buffer[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(table) && used < size; i++) {
		if ((accepted & table[i].bit) == 0)
			continue;
		int written = snprintf(buffer + used, size - used, "%s%s", used > 0 ? ", " : "", table[i].name);
		used += (size_t)written;
	}
	return used > 0 ? buffer : "none";
}

static int find(struct parameters *parameters, unsigned accepted, const char *name, const struct description **ret,
	struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (strcmp(table[i].name, name) != 0 || (accepted & table[i].bit) == 0)
			continue;
		if (parameters->given & table[i].bit)
			return error_set(err, -EINVAL, "the parameter `%s` is given twice", name);
		parameters->given |= table[i].bit;
		*ret = &table[i];
		return 0;
	}
	char buffer[160];
	return error_set(err, -EINVAL, "the parameter `%.64s` is not known here; accepted: %s", name,
		list_accepted(accepted, buffer, sizeof(buffer)));
}

static int set_bool(bool *value, const char *name, const char *text, struct error *err)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = { { "1", true }, { "0", false }, { "true", true }, { "false", false }, { "yes", true },
		{ "no", false } };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasecmp(words[i].word, text) == 0) {
			*value = words[i].value;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "`%s` must be 1, 0, true, false, yes or no, not `%.64s`", name, text);
}

static int refuse_seconds(const char *name, struct error *err)
{
	return error_set(err, -EINVAL, "`%s` must be seconds from 0 to %d in decimal digits, such as 30 or 0.5", name,
		WAIT_MAX_S);
}

/* Digits with at most one point, nothing else: no sign, no exponent, no space. Three decimals count. */
static int set_seconds(int64_t *value, const char *name, const char *text, struct error *err)
{
	int64_t ms = 0;
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 9)
		return refuse_seconds(name, err);
	for (size_t i = 0; i < digits; i++)
		ms = ms * 10 + (text[i] - '0');
	ms *= 1000;
	const char *rest = text + digits;
	if (*rest == '.') {
		rest++;
		size_t decimals = strspn(rest, "0123456789");
		if (decimals == 0 || decimals > 9)
			return refuse_seconds(name, err);
		for (size_t i = 0, unit = 100; i < decimals && unit > 0; i++, unit /= 10)
			ms += (int64_t)unit * (rest[i] - '0');
		rest += decimals;
	}
	if (*rest != 0 || ms > (int64_t)WAIT_MAX_S * 1000)
		return refuse_seconds(name, err);
	*value = ms;
	return 0;
}

static int set_count(int64_t *value, const char *name, const char *text, struct error *err)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 6 || text[digits] != 0 || atol(text) > TAIL_MAX)
		return error_set(err, -EINVAL, "`%s` must be a whole number from 0 to %d", name, TAIL_MAX);
	*value = atol(text);
	return 0;
}

static int set_number(int64_t *value, const char *name, const char *text, struct error *err)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 18 || text[digits] != 0)
		return error_set(err, -EINVAL, "`%s` must be a whole number", name);
	*value = atoll(text);
	return 0;
}

static int set_text(char **value, const char *text)
{
	*value = strdup(text);
	return *value != NULL ? 0 : -ENOMEM;
}

static int set_from_text(
	struct parameters *parameters, const struct description *description, const char *text, struct error *err)
{
	switch (description->kind) {
	case KIND_BOOL:
		return set_bool(field(parameters, description), description->name, text, err);
	case KIND_SECONDS:
		return set_seconds(field(parameters, description), description->name, text, err);
	case KIND_COUNT:
		return set_count(field(parameters, description), description->name, text, err);
	case KIND_NUMBER:
		return set_number(field(parameters, description), description->name, text, err);
	case KIND_TEXT:
	case KIND_STRING: /* in a body nothing but a string */
		return set_text(field(parameters, description), text);
	}
	return -EINVAL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_decode(char *text, bool plus)
{
	char *out = text;
	for (const char *in = text; *in != 0; in++, out++) {
		*out = *in == '+' && plus ? ' ' : *in;
		if (*in != '%')
			continue;
		int high = hex_digit(in[1]);
		int low = high >= 0 ? hex_digit(in[2]) : -1;
		if (low < 0 || (high == 0 && low == 0))
			return -EINVAL;
		*out = (char)(high * 16 + low);
		in += 2;
	}
	*out = 0;
	return 0;
}

int parameters_read_query(struct parameters *parameters, unsigned accepted, char *query, struct error *err)
{
	char *pair;
	while ((pair = strsep(&query, "&")) != NULL) {
		if (*pair == 0)
			continue;
		char *value = strchr(pair, '=');
		if (value != NULL)
			*value++ = 0;
		if (percent_decode(pair, true) < 0 || (value != NULL && percent_decode(value, true) < 0))
			return error_set(err, -EINVAL, "the query has a broken %%-escape");
		const struct description *description;
		int r = find(parameters, accepted, pair, &description, err);
		if (r == 0)
			r = set_from_text(parameters, description, value != NULL ? value : "", err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A JSON value as the text that the query would carry. */
static int json_as_text(
	const struct description *description, json_t *value, char *buffer, size_t size, struct error *err)
{
	bool is_number = json_is_number(value) && description->kind < KIND_TEXT;
	if (json_is_string(value) && json_string_length(value) < size) {
		snprintf(buffer, size, "%s", json_string_value(value));
	} else if (json_is_boolean(value) && description->kind == KIND_BOOL) {
		snprintf(buffer, size, "%d", json_is_true(value) ? 1 : 0);
	} else if (json_is_integer(value) && description->kind != KIND_STRING) {
		snprintf(buffer, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	} else if (is_number && json_real_value(value) >= 0 && json_real_value(value) < 1e9) {
		/* Not printf's %f: its point follows the locale. */
		int64_t ms = (int64_t)(json_real_value(value) * 1000 + 0.5);
		snprintf(buffer, size, "%lld.%03lld", (long long)(ms / 1000), (long long)(ms % 1000));
	} else if (is_number) {
		snprintf(buffer, size, "too large");
	} else {
		return error_set(err, -EINVAL, "`%s` has a value of the wrong type in the body", description->name);
	}
	return 0;
}

int parameters_json_bool(const char *name, json_t *value, bool *ret_value, struct error *err)
{
	char text[16];
	const struct description description = { .name = name, .kind = KIND_BOOL };
	int r = json_as_text(&description, value, text, sizeof(text), err);
	return r < 0 ? r : set_bool(ret_value, name, text, err);
}

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

int parameters_load_body(const char *body, size_t length, json_t **ret_root, struct error *err)
{
	json_error_t where;
	CLEANUP(cleanup_json) json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
	if (root == NULL)
		return error_set(err, -EINVAL, "the body is not JSON: line %d, column %d: %s", where.line, where.column,
			where.text);
	if (!json_is_object(root))
		return error_set(err, -EINVAL, "the body must be a JSON object, such as {\"wait_s\": 30}");
	*ret_root = TAKE_PTR(root);
	return 0;
}

int parameters_read_body(
	struct parameters *parameters, unsigned accepted, const char *body, size_t length, struct error *err)
{
	if (length == 0)
		return 0;
	CLEANUP(cleanup_json) json_t *root = NULL;
	int loaded = parameters_load_body(body, length, &root, err);
	if (loaded < 0)
		return loaded;
	const char *key;
	json_t *value;
	json_object_foreach(root, key, value)
	{
		const struct description *description;
		char text[256];
		int r = find(parameters, accepted, key, &description, err);
		if (r == 0)
			r = json_as_text(description, value, text, sizeof(text), err);
		if (r == 0)
			r = set_from_text(parameters, description, text, err);
		if (r < 0)
			return r;
	}
	return 0;
}
