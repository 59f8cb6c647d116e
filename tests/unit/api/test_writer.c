/* The JSON that is written, judged by a parser: text from outside, numbers, times, nesting, and what was begun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/sse.h"
#include "api/writer.h"
#include "base/cleanup.h"

#define R "\xef\xbf\xbd"

/* What a parser makes of it, strictly. */
static json_t *parse(struct writer *writer)
{
	size_t length;
	json_error_t where;
	CLEANUP_FREE char *text = writer_take(writer, &length);
	assert_non_null(text);
	json_t *json = json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &where);
	if (json == NULL)
		fail_msg("%s in %.*s", where.text, (int)length, text);
	return json;
}

static void assert_text(const char *text, const char *expected)
{
	struct writer writer = { 0 };
	writer_text(&writer, NULL, text);
	json_t *json = parse(&writer);
	assert_string_equal(json_string_value(json), expected);
	json_decref(json);
}

static void test_text(void **state)
{
	static const struct {
		const char *text, *clean;
	} cases[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "a\"b\\c/d", "a\"b\\c/d" },
		{ "\b\f\n\r\t\x01\x1f\x7f", "\b\f\n\r\t\x01\x1f\x7f" },
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
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_text(cases[i].text, cases[i].clean);
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
		struct writer writer = { 0 };
		writer_text(&writer, NULL, text);
		json_t *json = parse(&writer);
		assert_true(json_is_string(json));
		json_decref(json);
	}
}

static void assert_written(struct writer *writer, const char *expected)
{
	size_t length;
	CLEANUP_FREE char *text = writer_take(writer, &length);
	assert_int_equal(length, strlen(expected));
	assert_memory_equal(text, expected, length);
}

static void test_numbers(void **state)
{
	static const struct {
		int64_t value;
		const char *text;
	} integers[] = { { 0, "0" }, { 7, "7" }, { -7, "-7" }, { INT64_MAX, "9223372036854775807" },
		{ INT64_MIN, "-9223372036854775808" } };
	static const struct {
		uint64_t ms;
		const char *text;
	} seconds[] = { { 0, "0" }, { 1, "0.001" }, { 10, "0.01" }, { 250, "0.25" }, { 900, "0.9" }, { 30000, "30" },
		{ 12345678, "12345.678" }, { 60050, "60.05" } };
	struct writer writer = { 0 };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(integers); i++) {
		writer_integer(&writer, NULL, integers[i].value);
		assert_written(&writer, integers[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(seconds); i++) {
		writer_seconds(&writer, NULL, seconds[i].ms);
		assert_written(&writer, seconds[i].text);
	}
	writer_integer_or_null(&writer, NULL, false, 7);
	assert_written(&writer, "null");
	writer_text_or_null(&writer, NULL, "");
	assert_written(&writer, "null");
	writer_text_or_null(&writer, NULL, NULL);
	assert_written(&writer, "null");
}

static void test_times(void **state)
{
	static const struct {
		double seconds;
		const char *text;
	} cases[] = { { 0, "\"1970-01-01T00:00:00.000Z\"" }, { 1800000000.25, "\"2027-01-15T08:00:00.250Z\"" },
		{ -0.5, "\"1969-12-31T23:59:59.500Z\"" }, { 4e12, "null" }, { 1e17, "null" } };
	struct writer writer = { 0 };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		writer_wall_time(&writer, NULL, cases[i].seconds);
		assert_written(&writer, cases[i].text);
	}
}

static void test_nesting(void **state)
{
	struct writer writer = { 0 };
	(void)state;
	writer_open(&writer, NULL, '{');
	writer_open(&writer, "empty", '[');
	writer_close(&writer, ']');
	writer_open(&writer, "list", '[');
	writer_integer(&writer, NULL, 1);
	writer_open(&writer, NULL, '{');
	writer_close(&writer, '}');
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "ends like one that begins", "{");
	writer_text(&writer, "so does this", "[ ");
	writer_close(&writer, '}');
	writer_null(&writer, NULL);
	writer_close(&writer, ']');
	writer_bool(&writer, "yes", true);
	writer_bool(&writer, "no", false);
	writer_json(&writer, "raw", "[1,2]", 5);
	writer_null(&writer, "last");
	writer_close(&writer, '}');
	assert_written(&writer,
		"{\"empty\":[],\"list\":[1,{},{\"ends like one that begins\":\"{\",\"so does this\":\"[ \"},null],"
		"\"yes\":true,\"no\":false,\"raw\":[1,2],\"last\":null}");
}

/* More than any first buffer holds. */
static void test_growth(void **state)
{
	struct writer writer = { 0 };
	(void)state;
	writer_open(&writer, NULL, '[');
	for (int i = 0; i < 100000; i++)
		writer_integer(&writer, NULL, i);
	writer_close(&writer, ']');
	json_t *json = parse(&writer);
	assert_int_equal(json_array_size(json), 100000);
	assert_int_equal(json_integer_value(json_array_get(json, 99999)), 99999);
	json_decref(json);
}

static void test_failure_is_remembered(void **state)
{
	size_t length;
	struct writer writer = { .has_failed = true };
	(void)state;
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "a", "b");
	writer_close(&writer, '}');
	assert_null(writer_take(&writer, &length));
	writer.has_failed = true;
	assert_null(sse_end(&writer));
}

static void test_server_sent_events(void **state)
{
	static const char with_id[] = "id: 7\nevent: step\ndata: {\"text\":\"a\\nb\"}\n\n";
	static const char without[] = "event: lost\ndata: {\"a\":1}\n\n";
	struct writer writer = { 0 };
	(void)state;
	sse_begin(&writer, 7, "step");
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "text", "a\nb");
	writer_close(&writer, '}');
	struct blob *blob = sse_end(&writer);
	assert_int_equal(blob->length, sizeof(with_id) - 1);
	assert_memory_equal(blob->data, with_id, blob->length);
	blob_unref(blob);
	sse_begin(&writer, 0, "lost");
	writer_json(&writer, NULL, "{\"a\":1}", 7);
	blob = sse_end(&writer);
	assert_int_equal(blob->length, sizeof(without) - 1);
	assert_memory_equal(blob->data, without, blob->length);
	blob_unref(blob);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_any_bytes),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_nesting),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_failure_is_remembered),
		cmocka_unit_test(test_server_sent_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
