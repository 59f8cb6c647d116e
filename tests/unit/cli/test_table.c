/* Tables: alignment, narrow terminals, colours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/table.h"
#include "cli/text.h"

static const struct column columns[] = { { "NAME" }, { "MiB", true }, { "MORE", .drop = 1 }, { "LESS", .drop = 2 },
	{ "WHY" } };

static char *print(size_t indent, size_t width, bool colors)
{
	struct table table;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	table_begin(&table, columns, ARRAY_SIZE(columns));
	static const char *const cells[] = { "comfyui", "20000", "x", "y", "a reason that is long", "h\xc3\xa9", "5",
		NULL, "", "short" };
	for (size_t i = 0; i < ARRAY_SIZE(cells); i++)
		assert_true(table_add(&table, cells[i], i == 0 ? COLOR_GREEN : COLOR_NONE));
	table_print(&table, out, indent, width, colors);
	table_end(&table);
	fclose(out);
	return text;
}

static void test_without_a_limit(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = print(0, 0, false);
	assert_string_equal(text,
		"NAME       MiB  MORE  LESS  WHY\n"
		"comfyui  20000  x     y     a reason that is long\n"
		"h\xc3\xa9           5  -           short\n");
}

static void test_columns_are_dropped_in_order(void **state)
{
	(void)state;
	CLEANUP_FREE char *a = print(0, 46, false);
	assert_null(strstr(a, "LESS"));
	assert_non_null(strstr(a, "MORE"));
	assert_non_null(strstr(a, "a reason that is long"));
	CLEANUP_FREE char *b = print(0, 38, false);
	assert_null(strstr(b, "MORE"));
	assert_non_null(strstr(b, "a reason that is long"));
	CLEANUP_FREE char *c = print(2, 32, false);
	assert_string_equal(c,
		"  NAME       MiB  WHY\n"
		"  comfyui  20000  a reason that~\n"
		"  h\xc3\xa9           5  short\n");
}

static void test_nothing_is_wider_than_the_terminal(void **state)
{
	(void)state;
	for (size_t width = 28; width < 70; width++) {
		CLEANUP_FREE char *text = print(0, width, false);
		char *rest = text, *line;
		while ((line = strsep(&rest, "\n")) != NULL)
			assert_true(text_width(line) <= width);
	}
	for (size_t width = 1; width < 28; width++) {
		CLEANUP_FREE char *text = print(3, width, false);
		assert_non_null(strstr(text, "comfyui"));
	}
}

static void test_colors_do_not_move_anything(void **state)
{
	(void)state;
	CLEANUP_FREE char *plain = print(0, 0, false);
	CLEANUP_FREE char *colored = print(0, 0, true);
	assert_non_null(strstr(colored, "\x1b[32mcomfyui\x1b[0m"));
	char *out = colored;
	for (const char *in = colored; *in != '\0'; in++) {
		if (*in == '\x1b')
			in = strchr(in, 'm');
		else
			*out++ = *in;
	}
	*out = '\0';
	assert_string_equal(colored, plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_limit),
		cmocka_unit_test(test_columns_are_dropped_in_order),
		cmocka_unit_test(test_nothing_is_wider_than_the_terminal),
		cmocka_unit_test(test_colors_do_not_move_anything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
