/* Lists of strings. Owns what is in them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/parse.h"
#include "config/schema.h"
#include "config/values.h"

int string_list_add(struct string_list *list, const char *text, size_t length)
{
	CLEANUP_FREE char *copy = strndup(text, length);
	if (copy == NULL)
		return -ENOMEM;
	if ((list->n & (list->n - 1)) == 0) { /* grows at powers of two, and so needs no capacity */
		char **items = reallocarray(list->items, list->n == 0 ? 1 : 2 * list->n, sizeof(*items));
		if (items == NULL)
			return -ENOMEM;
		list->items = items;
	}
	list->items[list->n++] = TAKE_PTR(copy);
	return 0;
}

void string_list_finish(struct string_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct string_list){ 0 };
}

void value_add_string(struct parser *parser, struct string_list *list, const char *text)
{
	if (string_list_add(list, text, strlen(text)) < 0)
		parser->out_of_memory = true;
}

void value_release_list(const struct option *option, void *base)
{
	string_list_finish(option_at(option, base));
}

bool string_is_equal(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool string_list_is_equal(const struct string_list *a, const struct string_list *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	return true;
}

bool value_is_equal_list(const struct option *option, const void *a, const void *b)
{
	return string_list_is_equal(option_of(option, a), option_of(option, b));
}
