/* Sizes and durations: every suffix, rounding, limits, rubbish, and that no locale is read. */
#include <errno.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/units.h"

static void expect_mib(const char *text, uint32_t mib)
{
	struct size_value size = { 7, 7 };
	int r = parse_size(text, &size);
	if (r != 0 || size.mib != mib || size.percent != 0)
		fail_msg("\"%s\": r %d, %u MiB %u %%, expected %u MiB", text, r, size.mib, size.percent, mib);
}

static void expect_size_error(const char *text, int code)
{
	struct size_value size = { 7, 7 };
	int r = parse_size(text, &size);
	if (r != code || size.mib != 7 || size.percent != 7)
		fail_msg("\"%s\": r %d, expected %d and the value left alone", text, r, code);
}

static void expect_ms(const char *text, uint64_t ms)
{
	uint64_t got = 7;
	int r = parse_duration(text, &got);
	if (r != 0 || got != ms)
		fail_msg("\"%s\": r %d, %llu ms, expected %llu", text, r, (unsigned long long)got,
			(unsigned long long)ms);
}

static void expect_duration_error(const char *text, int code)
{
	uint64_t got = 7;
	int r = parse_duration(text, &got);
	if (r != code || got != 7)
		fail_msg("\"%s\": r %d, expected %d and the value left alone", text, r, code);
}

static void test_size_suffixes(void **state)
{
	(void)state;
	expect_mib("0", 0);
	expect_mib("0GiB", 0);
	expect_mib("20000", 20000);
	expect_mib("20000MiB", 20000);
	expect_mib("20000 MiB", 20000);
	expect_mib("1024KiB", 1);
	expect_mib("20GiB", 20480);
	expect_mib("1.5GiB", 1536);
	expect_mib("2TiB", 2097152);
	expect_mib("1048576kB", 1000);
	expect_mib("1048.576MB", 1000);
	expect_mib("24GB", 22889); /* 22888.18 */
	expect_mib("1TB", 953675); /* 953674.3 */
	expect_mib("000000000000000000000000020GiB", 20480);
}

static void test_size_rounds_up(void **state)
{
	(void)state;
	expect_mib("1KiB", 1);
	expect_mib("1kB", 1);
	expect_mib("1025KiB", 2);
	expect_mib("0.1GiB", 103); /* 102.4 */
	expect_mib("1.0000000000000000000000000000001MiB", 2);
	expect_mib("1.0000000000000000000000000000000MiB", 1);
	expect_mib("0.0000000000000000000000000000001", 1);
	expect_mib("99999.99999999999999999999999", 100000);
}

static void test_size_percent(void **state)
{
	(void)state;
	struct size_value size;
	assert_int_equal(parse_size("80%", &size), 0);
	assert_int_equal(size.percent, 80);
	assert_int_equal(size.mib, 0);
	assert_int_equal(size_on_card(size, 24576), 19661); /* 19660.8 */
	assert_int_equal(parse_size("100 %", &size), 0);
	assert_int_equal(size_on_card(size, UINT32_MAX), UINT32_MAX);
	assert_int_equal(parse_size("1%", &size), 0);
	assert_int_equal(size_on_card(size, 1), 1);
	assert_int_equal(size_on_card(size, 0), 0);
	assert_int_equal(size_on_card((struct size_value){ .mib = 4000 }, 24576), 4000);
	expect_size_error("0%", -EINVAL);
	expect_size_error("101%", -ERANGE);
	expect_size_error("99999999999999999999999999%", -ERANGE);
	expect_size_error("12.5%", -EINVAL);
	expect_size_error("80%%", -EINVAL);
	expect_size_error("80%GiB", -EINVAL);
}

static void test_size_limits(void **state)
{
	(void)state;
	expect_mib("2147483648", 2147483648u);
	expect_mib("2147483648MiB", 2147483648u);
	expect_mib("2048TiB", 2147483648u);
	expect_size_error("2147483648.000000000000000000000001", -ERANGE);
	expect_size_error("2147483649", -ERANGE);
	expect_size_error("2048.0001TiB", -ERANGE);
	expect_size_error("18446744073709551616", -ERANGE);
	expect_size_error("18446744073709551616KiB", -ERANGE);
	expect_size_error("17179869184GiB", -ERANGE); /* 2^64 bytes */
	expect_size_error("99999999999999999999999999999999999999999999TiB", -ERANGE);
}

static void test_size_rubbish(void **state)
{
	(void)state;
	static const char *const texts[] = { "", " ", "GiB", "-1", "+1", " 1", "1 ", "1GiB ", "1\tGiB", "1gib", "1G",
		"1GIB", "1B", "1KB", "1e3", "0x10", "1.", ".5", "1.GiB", "1..5", "1.5.5", "1,5GiB", "1_000", "inf",
		"nan", "1GiB1GiB", "1GiBx", "1\nGiB", "99999999999999999999999999x", "\xef\xbc\x91" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		expect_size_error(texts[i], -EINVAL);
}

static void test_duration_units(void **state)
{
	(void)state;
	expect_ms("0", 0);
	expect_ms("30", 30000);
	expect_ms("0.25", 250);
	expect_ms("250ms", 250);
	expect_ms("120s", 120000);
	expect_ms("1.5s", 1500);
	expect_ms("5m", 300000);
	expect_ms("2h", 7200000);
	expect_ms("1m30s", 90000);
	expect_ms("1h 2m 3s 4ms", 3723004);
	expect_ms("3 m 20 s", 200000);
	expect_ms("1h4ms", 3600004);
	expect_ms("0.0001ms", 1);
	expect_ms("1.0000000000000000000001s", 1001);
}

static void test_duration_limits(void **state)
{
	(void)state;
	expect_ms("87600h", UINT64_C(315360000000));
	expect_ms("315360000", UINT64_C(315360000000));
	expect_duration_error("87600h1ms", -ERANGE);
	expect_duration_error("315360000.001", -ERANGE);
	expect_duration_error("18446744073709551616ms", -ERANGE);
	expect_duration_error("99999999999999999999999999999999999h", -ERANGE);
	expect_duration_error("99999999999999999999999999999999999h1m", -ERANGE);
}

static void test_duration_rubbish(void **state)
{
	(void)state;
	static const char *const texts[] = { "", " ", "s", "-1s", "+1s", " 1s", "1s ", "1 ", "1S", "1d", "1min", "1sec",
		"1hs", "1m30", "30s1m", "1s1s", "1ms1s", "1s,2ms", "1:30", "1.s", ".5s", "1e3s", "1s\n", "never",
		"99999999999999999999999999x", "1h99999999999999999999999999999x" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		expect_duration_error(texts[i], -EINVAL);
}

static void expect_duration_text(uint64_t ms, const char *text)
{
	char buffer[64];
	assert_string_equal(format_duration(ms, buffer, sizeof(buffer)), text);
}

static void test_format_duration(void **state)
{
	(void)state;
	expect_duration_text(0, "0 ms");
	expect_duration_text(310, "310 ms");
	expect_duration_text(999, "999 ms");
	expect_duration_text(1000, "1 s");
	expect_duration_text(4249, "4.2 s");
	expect_duration_text(4250, "4.3 s");
	expect_duration_text(10000, "10 s");
	expect_duration_text(59949, "59.9 s");
	expect_duration_text(59950, "1 m");
	expect_duration_text(60000, "1 m");
	expect_duration_text(200000, "3 m 20 s");
	expect_duration_text(3599499, "59 m 59 s");
	expect_duration_text(3599500, "1 h");
	expect_duration_text(7500000, "2 h 5 m");
	expect_duration_text(UINT64_MAX, "5124095576030 h 26 m");
}

/* What is printed can be typed in again. */
static void test_formatted_durations_parse(void **state)
{
	(void)state;
	for (uint64_t ms = 1; ms < UINT64_C(300000000000); ms += ms / 7 + 1) {
		char buffer[64];
		uint64_t back = 0;
		assert_int_equal(parse_duration(format_duration(ms, buffer, sizeof(buffer)), &back), 0);
		uint64_t apart = back > ms ? back - ms : ms - back;
		assert_true(apart <= (ms < 1000 ? 0 : ms < 60000 ? 50 : ms < 3600000 ? 500 : 30000));
	}
}

static void test_format_size(void **state)
{
	(void)state;
	char buffer[64];
	assert_string_equal(format_size((struct size_value){ .mib = 20000 }, buffer, sizeof(buffer)), "20000 MiB");
	assert_string_equal(format_size((struct size_value){ .percent = 80 }, buffer, sizeof(buffer)), "80%");
	char small[4];
	assert_string_equal(format_size((struct size_value){ .mib = 20000 }, small, sizeof(small)), "200");
}

/* With a locale whose separator is a comma, where the machine has one; the C locale alone would prove nothing. */
static void test_locale_is_not_read(void **state)
{
	(void)state;
	static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "nl_NL.UTF-8", "de_DE.utf8", "de_DE" };
	const char *set = NULL;
	for (size_t i = 0; set == NULL && i < ARRAY_SIZE(names); i++)
		set = setlocale(LC_ALL, names[i]);
	if (set == NULL)
		print_message("no locale with a decimal comma is installed: checked in the C locale only\n");
	expect_mib("1.5GiB", 1536);
	expect_size_error("1,5GiB", -EINVAL);
	expect_ms("1.5s", 1500);
	expect_duration_error("1,5s", -EINVAL);
	expect_duration_text(4200, "4.2 s");
	setlocale(LC_ALL, "C");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size_suffixes),
		cmocka_unit_test(test_size_rounds_up),
		cmocka_unit_test(test_size_percent),
		cmocka_unit_test(test_size_limits),
		cmocka_unit_test(test_size_rubbish),
		cmocka_unit_test(test_duration_units),
		cmocka_unit_test(test_duration_limits),
		cmocka_unit_test(test_duration_rubbish),
		cmocka_unit_test(test_format_duration),
		cmocka_unit_test(test_formatted_durations_parse),
		cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_locale_is_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
