/* Cleaning, measuring and guessing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/text.h"

static void test_clean(void **state)
{
	(void)state;
	static const struct {
		const char *text, *clean, *lines;
	} cases[] = {
		{ "plain", "plain", "plain" },
		{ "", "", "" },
		{ "a\nb\tc", "a b c", "a\nb\tc" },
		{ "a\rb\x1b[2Jc\x7f", "a?b?[2Jc?", "a?b?[2Jc?" },
		{ "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
			"h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
		{ "\xc2\x9b"
		  "31m",
			"?31m", "?31m" }, /* C1 */
		{ "\xe2\x80\xae"
		  "evil",
			"?evil", "?evil" }, /* U+202E */
		{ "\xe2\x81\xa6\xe2\x80\xa8", "??", "??" },
		{ "\xff\xc3", "??", "??" },
		{ "\xc0\x9b\xe0\x80\x9b\xed\xa0\x80", "????????", "????????" }, /* overlong, surrogate */
		{ "\xf4\x90\x80\x80\xf5", "?????", "?????" },
		{ "\xe2\x82", "??", "??" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_FREE char *clean = text_clean(cases[i].text, false);
		CLEANUP_FREE char *lines = text_clean(cases[i].text, true);
		assert_string_equal(clean, cases[i].clean);
		assert_string_equal(lines, cases[i].lines);
	}
}

static void test_width(void **state)
{
	(void)state;
	assert_int_equal(text_width(""), 0);
	assert_int_equal(text_width("h\xc3\xa9\xe2\x82\xac"), 3);
	assert_int_equal(text_prefix("h\xc3\xa9\xe2\x82\xacx", 2), 3);
	assert_int_equal(text_prefix("h\xc3\xa9\xe2\x82\xacx", 3), 6);
	assert_int_equal(text_prefix("abc", 0), 0);
	assert_int_equal(text_prefix("abc", 10), 3);
}

static void test_age(void **state)
{
	(void)state;
	static const struct {
		int64_t seconds;
		const char *text;
	} cases[] = { { -5, "0 s" }, { 0, "0 s" }, { 119, "119 s" }, { 120, "2 m" }, { 7199, "119 m" }, { 7200, "2 h" },
		{ 172799, "47 h" }, { 172800, "2 d" }, { 31536000, "365 d" } };
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char buffer[32];
		assert_string_equal(format_age(cases[i].seconds, buffer, sizeof(buffer)), cases[i].text);
	}
}

static void test_time(void **state)
{
	(void)state;
	double seconds;
	assert_true(parse_time("1970-01-01T00:00:00Z", &seconds));
	assert_true(seconds == 0);
	assert_true(parse_time("2026-01-02T03:04:05.250Z", &seconds));
	assert_true(seconds > 1767323045.249 && seconds < 1767323045.251);
	assert_true(parse_time("2024-02-29T23:59:60Z", &seconds));
	assert_true(seconds == 1709251200);
	assert_true(parse_time("2100-03-01T00:00:00Z", &seconds)); /* no leap year */
	assert_true(seconds == 4107542400.0);
	static const char *const bad[] = { "", "now", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00",
		"2026-13-02T03:04:05Z", "2026-01-32T03:04:05Z", "2026-01-02T25:04:05Z", "1969-01-02T03:04:05Z",
		"2026-01-02T03:04:05Zx", "2026-00-02T03:04:05Z", "-999-01-02T03:04:05Z" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (parse_time(bad[i], &seconds))
			fail_msg("%s", bad[i]);
}

static void test_closest(void **state)
{
	(void)state;
	static const char *const words[] = { "status", "start", "stop", "phase", "a" };
	assert_string_equal(text_closest("statsu", words, 5), "status");
	assert_string_equal(text_closest("strat", words, 5), "start");
	assert_string_equal(text_closest("phaes", words, 5), "phase");
	assert_null(text_closest("frobnicate", words, 5));
	assert_null(text_closest("zzzz", words, 5));
	assert_null(text_closest("b", words, 5));
	assert_null(text_closest("", words, 5));
	assert_null(text_closest(
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", words, 5));
}

/* In pieces of every size, the same. */
static void expect_filtered(const char *bytes, size_t n, const char *expected)
{
	for (size_t piece = 1; piece <= n; piece++) {
		struct log_filter filter = { 0 };
		char out[1024] = "";
		size_t used = 0;
		for (size_t at = 0; at < n; at += piece) {
			size_t size = piece < n - at ? piece : n - at;
			char *room = malloc(2 * size + 4);
			size_t written = log_filter_feed(&filter, bytes + at, size, room);
			assert_true(written <= 2 * size + 4);
			memcpy(out + used, room, written);
			used += written;
			free(room);
		}
		out[used] = '\0';
		if (strcmp(out, expected) != 0)
			fail_msg("in pieces of %zu: \"%s\", expected \"%s\"", piece, out, expected);
	}
}

static void test_log_filter(void **state)
{
	(void)state;
	static const struct {
		const char *bytes, *expected;
	} cases[] = {
		{ "plain\nlines\ttoo\n", "plain\nlines\ttoo\n" },
		{ "\x1b[1;31mred\x1b[0m\n", "red\n" },
		{ "\x1b]0;title\x07x\x1b]8;;http://x\x1b\\link\n", "xlink\n" },
		{ "a\r\nb\n", "a\nb\n" },
		{ "10%\r20%\r\n", "10%\n20%\n" },
		{ "\x1b[31never ends\nnext\n", "ever ends\nnext\n" },
		{ "\x1b[12345\nnext\n", "\nnext\n" },
		{ "\x1bP never ends\nnext\n", "\nnext\n" },
		{ "\x07\x08\x01\x7f!", "!" },
		{ "h\xc3\xa9\xe2\x82\xac\n", "h\xc3\xa9\xe2\x82\xac\n" },
		{ "\xc2\x9b"
		  "31m\xff\xc3x",
			"?31m??x" },
		{ "\xe2\x80\xaeq", "?q" },
		{ "\xe2\x82\x1b[0mx", "?x" },
		{ "\x1b(Bx\x1b=y", "xy" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_filtered(cases[i].bytes, strlen(cases[i].bytes), cases[i].expected);
	expect_filtered("a\0b", 3, "ab");
}

static void test_random_logs_are_harmless(void **state)
{
	(void)state;
	unsigned seed = 1;
	struct log_filter filter = { 0 };
	for (int round = 0; round < 20000; round++) {
		char bytes[16], out[36];
		for (size_t i = 0; i < sizeof(bytes); i++) {
			seed = seed * 1103515245 + 12345;
			bytes[i] = (char)(seed >> 16);
		}
		size_t n = log_filter_feed(&filter, bytes, sizeof(bytes), out);
		assert_true(n <= sizeof(out));
		for (size_t i = 0; i < n; i++)
			assert_true((unsigned char)out[i] >= ' ' || out[i] == '\n' || out[i] == '\t');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_closest),
		cmocka_unit_test(test_log_filter),
		cmocka_unit_test(test_random_logs_are_harmless),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
