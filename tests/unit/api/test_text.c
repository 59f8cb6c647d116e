/* Text from outside in JSON, and times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/json.h"
#include "base/cleanup.h"

#define R "\xef\xbf\xbd"

static void test_text(void **state)
{
	static const struct {
		const char *text, *clean;
	} cases[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "a\xff\x62", "a" R "b" },
		{ "\xc3", R },
		{ "\xe2\x82", R R },
		{ "\xf0\x9f\x98", R R R },
		{ "\xc0\xaf", R R }, /* overlong */
		{ "\xed\xa0\x80", R R R }, /* a surrogate */
		{ "\xf4\x90\x80\x80", R R R R }, /* beyond the last character */
		{ "\x80\xc3\xa9", R "\xc3\xa9" },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *json = json_text(cases[i].text);
		assert_non_null(json);
		assert_string_equal(json_string_value(json), cases[i].clean);
		json_decref(json);
	}
}

/* Whatever the bytes, there is a string. */
static void test_any_bytes(void **state)
{
	uint32_t seed = 1;
	(void)state;
	for (int round = 0; round < 20000; round++) {
		char text[9] = { 0 };
		for (int i = 0; i < 8; i++) {
			seed = seed * 1664525 + 1013904223;
			text[i] = (char)(seed >> 24 ? seed >> 24 : 1);
		}
		json_t *json = json_text(text);
		assert_non_null(json);
		json_decref(json);
	}
}

static void assert_time(double seconds, const char *expected)
{
	json_t *json = json_wall_time(seconds);
	assert_string_equal(json_string_value(json), expected);
	json_decref(json);
}

static void test_times(void **state)
{
	(void)state;
	assert_time(0, "1970-01-01T00:00:00.000Z");
	assert_time(1800000000.25, "2027-01-15T08:00:00.250Z");
	assert_time(-0.5, "1969-12-31T23:59:59.500Z");
}

static void test_null_text(void **state)
{
	(void)state;
	assert_true(json_is_null(json_text_or_null(NULL)));
	assert_true(json_is_null(json_text_or_null("")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_any_bytes),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_null_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
