/* Paths into JSON. No wildcards, no filters: a path leads to one value or to none. */
#include "health/json_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define DIGITS "0123456789"
#define INDEX_DIGITS_MAX 6
#define KEYS_SHOWN 8

static int read_index(const char **rest, struct json_step *ret_step)
{
	const char *digits = *rest + 1;
	size_t length = strspn(digits, DIGITS);
	if (length == 0 || length > INDEX_DIGITS_MAX || digits[length] != ']')
		return -EINVAL;
	*ret_step = (struct json_step){ .index = strtoul(digits, NULL, 10) };
	*rest = digits + length + 1;
	return 1;
}

int json_path_next(const char **rest, bool is_first, struct json_step *ret_step)
{
	const char *name = *rest;
	if (*name == '\0')
		return is_first ? -EINVAL : 0;
	if (*name == '[')
		return read_index(rest, ret_step);
	if (!is_first && *name++ != '.')
		return -EINVAL;
	size_t length = strcspn(name, ".[]");
	if (length == 0)
		return -EINVAL;
	*ret_step = (struct json_step){ .name = name, .length = length };
	*rest = name + length;
	return 1;
}

bool json_path_is_valid(const char *path)
{
	const char *rest = path;
	struct json_step step;
	int r = json_path_next(&rest, true, &step);
	while (r > 0)
		r = json_path_next(&rest, false, &step);
	return r == 0;
}

const char *json_kind(const json_t *value)
{
	static const char *const kinds[] = {
		[JSON_OBJECT] = "an object",
		[JSON_ARRAY] = "a list",
		[JSON_STRING] = "a string",
		[JSON_INTEGER] = "a number",
		[JSON_REAL] = "a number",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null",
	};
	return kinds[json_typeof(value)];
}

/* "a, b, c, ...", or "nothing". */
static void list_keys(const json_t *object, char *text, size_t size)
{
	size_t used = 0, n = 0;
	void *first = json_object_iter((json_t *)object);
	snprintf(text, size, "nothing");
	for (void *i = first; i != NULL && used < size; i = json_object_iter_next((json_t *)object, i), n++) {
		int length = snprintf(text + used, size - used, "%s%.40s", n > 0 ? ", " : "",
			n < KEYS_SHOWN ? json_object_iter_key(i) : "...");
		used += length > 0 ? (size_t)length : 0;
		if (n == KEYS_SHOWN)
			return;
	}
}

/* `where` is the part of the path that led to `value`. */
static void tell_what_is_there(
	const json_t *value, const char *where, int where_length, const struct json_step *step, char *text, size_t size)
{
	char keys[200];
	if (where_length == 0) {
		where = "the answer";
		where_length = (int)strlen(where);
	}
	if (step->name != NULL && json_is_object(value)) {
		list_keys(value, keys, sizeof(keys));
		snprintf(text, size, "%.*s has no member %.*s (it has %s)", where_length, where, (int)step->length,
			step->name, keys);
	} else if (step->name == NULL && json_is_array(value)) {
		snprintf(text, size, "%.*s has no element %zu (it has %zu)", where_length, where, step->index,
			json_array_size(value));
	} else {
		snprintf(text, size, "%.*s is %s, not %s", where_length, where, json_kind(value),
			step->name != NULL ? "an object" : "a list");
	}
}

static const json_t *take_step(const json_t *value, const struct json_step *step)
{
	if (step->name == NULL)
		return json_array_get(value, step->index);
	CLEANUP_FREE char *key = strndup(step->name, step->length);
	return key == NULL ? NULL : json_object_get(value, key);
}

const json_t *json_path_follow(const json_t *root, const char *path, char *text, size_t size)
{
	const json_t *value = root;
	const char *rest = path, *before = path;
	struct json_step step;
	if (!json_path_is_valid(path)) {
		snprintf(text, size, "\"%s\" is not a path into JSON", path);
		return NULL;
	}
	for (; json_path_next(&rest, before == path, &step) > 0; before = rest) {
		const json_t *next = take_step(value, &step);
		if (next == NULL) {
			tell_what_is_there(value, path, (int)(before - path), &step, text, size);
			return NULL;
		}
		value = next;
	}
	return value;
}
