/* Environment variables in values. Pure but for getenv(); knows nothing of YAML. */
#include "config/expand.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
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

/* Writes what one `${env.NAME...}` stands for; `*text` then points behind it. */
static int expand_one(const char **text, FILE *out, struct error *err)
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
	if (fallback != NULL && (value == NULL || value[0] == '\0'))
		fwrite(fallback, 1, (size_t)(close - fallback), out);
	else
		fputs(value, out);
	*text = close + 1;
	return 0;
}

static int expand_into(const char *text, FILE *out, struct error *err)
{
	while (*text != '\0') {
		if (strncmp(text, "$${", 3) == 0) {
			fputs("${", out);
			text += 3;
		} else if (strncmp(text, PREFIX, PREFIX_LENGTH) == 0) {
			int r = expand_one(&text, out, err);
			if (r < 0)
				return r;
		} else {
			fputc(*text++, out);
		}
	}
	return 0;
}

int expand_text(const char *text, char **ret_text, struct error *err)
{
	if (strchr(text, '$') == NULL) {
		*ret_text = strdup(text);
		return *ret_text == NULL ? -ENOMEM : 0;
	}
	char *expanded = NULL;
	size_t length;
	FILE *out = open_memstream(&expanded, &length);
	if (out == NULL)
		return -ENOMEM;
	int r = expand_into(text, out, err);
	bool failed = ferror(out);
	failed |= fclose(out) != 0;
	if (r == 0 && failed)
		r = -ENOMEM;
	if (r < 0) {
		free(expanded);
		return r;
	}
	*ret_text = expanded;
	return 0;
}
