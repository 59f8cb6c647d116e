/* Environment variables in values. Pure but for getenv(); knows nothing of YAML. */
#include "config/expand.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "${env."
#define PREFIX_LENGTH (sizeof(PREFIX) - 1)

static bool is_name_character(char c, bool is_first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (!is_first && c >= '0' && c <= '9');
}

static size_t name_length(const char *text)
{
	size_t length = 0;
	while (is_name_character(text[length], length == 0))
		length++;
	return length;
}

/* What has been expanded so far. Not a stream of open_memstream(): that one does not tell when memory runs out. */
struct expansion {
	char *text;
	size_t length, size;
};

static int append(struct expansion *to, const char *text, size_t length, struct error *err)
{
	if (length > EXPANDED_MAX - to->length)
		return error_set(err, -EINVAL,
			"more than 4 MiB once its environment variables are expanded: this is not a configuration");
	if (to->length + length >= to->size) {
		size_t size = 2 * (to->length + length) + 64;
		char *grown = realloc(to->text, size);
		if (grown == NULL)
			return -ENOMEM;
		to->text = grown;
		to->size = size;
	}
	memcpy(to->text + to->length, text, length);
	to->length += length;
	to->text[to->length] = '\0';
	return 0;
}

/* Appends what one `${env.NAME...}` stands for; `*text` then points behind it. */
static int expand_one(const char **text, struct expansion *to, struct error *err)
{
	const char *start = *text + PREFIX_LENGTH;
	size_t length = name_length(start);
	const char *end = start + length;
	const char *fallback = strncmp(end, ":-", 2) == 0 ? end + 2 : NULL;
	const char *close = fallback != NULL ? strchr(fallback, '}') : (*end == '}' ? end : NULL);
	if (length == 0 || length > 255 || close == NULL)
		return error_set(err, -EINVAL, "a malformed ${env...} (expected ${env.NAME} or ${env.NAME:-default})");
	char name[256];
	memcpy(name, start, length);
	name[length] = '\0';
	const char *value = getenv(name);
	if (value == NULL && fallback == NULL)
		return error_set(err, -EINVAL,
			"the environment variable %s is not set (set it, or give a default: ${env.%s:-default})", name,
			name);
	*text = close + 1;
	if (fallback != NULL && (value == NULL || value[0] == '\0'))
		return append(to, fallback, (size_t)(close - fallback), err);
	return append(to, value, strlen(value), err);
}

static int expand_into(const char *text, struct expansion *to, struct error *err)
{
	int r = append(to, "", 0, err); /* so that there is a text, be it empty */
	while (r == 0 && *text != '\0') {
		if (strncmp(text, "$${", 3) == 0) {
			r = append(to, "${", 2, err);
			text += 3;
		} else if (strncmp(text, PREFIX, PREFIX_LENGTH) == 0) {
			r = expand_one(&text, to, err);
		} else {
			size_t length = 1 + strcspn(text + 1, "$");
			r = append(to, text, length, err);
			text += length;
		}
	}
	return r;
}

int expand_text(const char *text, char **ret_text, struct error *err)
{
	struct expansion expansion = { 0 };
	int r = expand_into(text, &expansion, err);
	if (r < 0)
		free(expansion.text);
	else
		*ret_text = expansion.text;
	return r;
}
