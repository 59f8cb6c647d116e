/* The bar of a GPU's memory: the parts always fill it exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/bar.h"

static void expect(struct bar_input input, size_t width, size_t services, size_t promised, size_t foreign, size_t free)
{
	size_t parts[BAR_PARTS];
	bar_divide(&input, width, parts);
	if (parts[BAR_SERVICES] != services || parts[BAR_PROMISED] != promised || parts[BAR_FOREIGN] != foreign ||
		parts[BAR_FREE] != free)
		fail_msg("%zu %zu %zu %zu", parts[BAR_SERVICES], parts[BAR_PROMISED], parts[BAR_FOREIGN],
			parts[BAR_FREE]);
}

static void test_shares(void **state)
{
	(void)state;
	expect((struct bar_input){ .total = 1000 }, 10, 0, 0, 0, 10);
	expect((struct bar_input){ .total = 1000, .used = 500, .committed = 800, .foreign = 100 }, 10, 4, 4, 1, 1);
	expect((struct bar_input){ .total = 1000, .used = 1000, .committed = 1000 }, 10, 10, 0, 0, 0);
	/* Little is still seen. */
	expect((struct bar_input){ .total = 24576, .used = 2, .committed = 2, .foreign = 1 }, 10, 1, 1, 1, 7);
	/* More than there is. */
	expect((struct bar_input){ .total = 1000, .used = 900, .committed = 5000 }, 10, 9, 1, 0, 0);
	expect((struct bar_input){ .total = 0, .used = 900 }, 10, 0, 0, 0, 10);
}

static void test_any_numbers_fill_it(void **state)
{
	(void)state;
	uint64_t seed = 1;
	for (int round = 0; round < 10000; round++) {
		uint64_t n[4];
		for (int i = 0; i < 4; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			n[i] = (seed >> 33) % 30000;
		}
		size_t parts[BAR_PARTS], width = 1 + (size_t)round % 80;
		bar_divide(&(struct bar_input){ n[0], n[1], n[2], n[3] }, width, parts);
		assert_int_equal(parts[0] + parts[1] + parts[2] + parts[3], width);
	}
}

static void test_looks(void **state)
{
	(void)state;
	static const size_t parts[BAR_PARTS] = { 2, 1, 0, 3 };
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	bar_print(parts, out, false, false);
	fclose(out);
	assert_string_equal(text, "##=...");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_any_numbers_fill_it),
		cmocka_unit_test(test_looks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
