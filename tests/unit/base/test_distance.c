/* Words and how far they are apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/distance.h"

static void test_known_pairs(void **state)
{
	static const struct {
		const char *a, *b;
		unsigned distance;
	} pairs[] = {
		{ "", "", 0 },
		{ "abc", "", 3 },
		{ "phase", "phase", 0 },
		{ "status", "statu", 1 },
		{ "status", "statsu", 1 },
		{ "ab", "ba", 1 },
		{ "ca", "abc", 3 }, /* a swapped pair is not taken apart again */
		{ "kitten", "sitting", 3 },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		assert_int_equal(edit_distance(pairs[i].a, pairs[i].b), pairs[i].distance);
		assert_int_equal(edit_distance(pairs[i].b, pairs[i].a), pairs[i].distance);
	}
}

static void test_long_words(void **state)
{
	char longest[DISTANCE_LENGTH_MAX + 2];
	(void)state;
	memset(longest, 'a', sizeof(longest));
	longest[DISTANCE_LENGTH_MAX] = '\0';
	assert_int_equal(edit_distance(longest, "a"), DISTANCE_LENGTH_MAX - 1);
	longest[DISTANCE_LENGTH_MAX] = 'a';
	longest[DISTANCE_LENGTH_MAX + 1] = '\0';
	assert_int_equal(edit_distance(longest, "a"), UINT_MAX);
	assert_int_equal(edit_distance("a", longest), UINT_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_pairs),
		cmocka_unit_test(test_long_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
