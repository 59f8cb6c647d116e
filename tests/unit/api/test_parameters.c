/* Parameters from queries and bodies, and percent-decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/parameters.h"
#include "base/cleanup.h"

#define ALL 0xffu

static int read_query(struct parameters *parameters, const char *query, struct error *err)
{
	char text[512];
	snprintf(text, sizeof(text), "%s", query);
	parameters_init(parameters);
	return parameters_read_query(parameters, ALL, text, err);
}

static int read_body(struct parameters *parameters, const char *body, struct error *err)
{
	parameters_init(parameters);
	return parameters_read_body(parameters, ALL, body, strlen(body), err);
}

static void test_seconds(void **state)
{
	static const struct {
		const char *query;
		int64_t ms; /* -2: refused */
	} cases[] = {
		{ "wait_s=0", 0 },
		{ "wait_s=30", 30000 },
		{ "wait_s=0.5", 500 },
		{ "wait_s=1.2345", 1234 },
		{ "wait_s=2592000", 2592000000 },
		{ "wait_s=2592001", -2 },
		{ "wait_s=2592000.001", -2 },
		{ "wait_s=1e9", -2 },
		{ "wait_s=-1", -2 },
		{ "wait_s=%2B1", -2 },
		{ "wait_s=+1", -2 },
		{ "wait_s=", -2 },
		{ "wait_s", -2 },
		{ "wait_s=.5", -2 },
		{ "wait_s=5.", -2 },
		{ "wait_s=1.2.3", -2 },
		{ "wait_s=0x10", -2 },
		{ "wait_s=inf", -2 },
		{ "wait_s=nan", -2 },
		{ "wait_s=10s", -2 },
		{ "wait_s=99999999999999999999", -2 },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parameters parameters;
		struct error err = { 0 };
		int r = read_query(&parameters, cases[i].query, &err);
		if ((r == 0 ? parameters.wait_ms : -2) != cases[i].ms)
			fail_msg("%s: %d, %lld ms", cases[i].query, r, (long long)parameters.wait_ms);
		if (r < 0)
			assert_non_null(strstr(err.message, "wait_s"));
		parameters_finish(&parameters);
	}
}

static void test_booleans(void **state)
{
	static const struct {
		const char *query;
		int value; /* -1: refused */
	} cases[] = { { "force=1", 1 }, { "force=true", 1 }, { "force=YES", 1 }, { "force=0", 0 }, { "force=false", 0 },
		{ "force=no", 0 }, { "force=2", -1 }, { "force=", -1 }, { "force", -1 }, { "force=on", -1 },
		{ "force=1&force=1", -1 }, { "fo%72ce=%31", 1 }, { "force=1%00", -1 }, { "force=%", -1 },
		{ "force=%4", -1 }, { "force=%zz", -1 } };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parameters parameters;
		int r = read_query(&parameters, cases[i].query, NULL);
		if ((r == 0 ? (int)parameters.force : -1) != cases[i].value)
			fail_msg("%s", cases[i].query);
		parameters_finish(&parameters);
	}
}

static void test_counts(void **state)
{
	struct parameters parameters;
	(void)state;
	assert_int_equal(read_query(&parameters, "tail=0", NULL), 0);
	assert_int_equal(parameters.tail, 0);
	assert_int_equal(read_query(&parameters, "tail=100000", NULL), 0);
	assert_int_equal(parameters.tail, 100000);
	static const char *const wrong[] = { "tail=100001", "tail=-1", "tail=1.5", "tail=", "tail=1e3",
		"tail=9999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_true(read_query(&parameters, wrong[i], NULL) < 0);
}

static void test_unknown_names_are_told(void **state)
{
	struct parameters parameters;
	struct error err;
	char query[] = "wait=3";
	(void)state;
	parameters_init(&parameters);
	assert_true(parameters_read_query(&parameters, PARAMETER_WAIT | PARAMETER_ASYNC, query, &err) < 0);
	assert_non_null(strstr(err.message, "`wait`"));
	assert_non_null(strstr(err.message, "accepted: wait_s, async"));
	char other[] = "force=1";
	assert_true(parameters_read_query(&parameters, 0, other, &err) < 0);
	assert_non_null(strstr(err.message, "accepted: none"));
}

static void test_empty_pieces(void **state)
{
	struct parameters parameters;
	(void)state;
	assert_int_equal(read_query(&parameters, "", NULL), 0);
	assert_int_equal(read_query(&parameters, "&&wait_s=1&", NULL), 0);
	assert_int_equal(parameters.wait_ms, 1000);
	parameters_init(&parameters);
	assert_int_equal(parameters_read_query(&parameters, ALL, NULL, NULL), 0);
}

static void test_text(void **state)
{
	struct parameters parameters;
	(void)state;
	assert_int_equal(read_query(&parameters, "phase=a+b%20c&start=x%2Fy", NULL), 0);
	assert_string_equal(parameters.phase, "a b c");
	assert_string_equal(parameters.start, "x/y");
	parameters_finish(&parameters);
}

static void test_bodies(void **state)
{
	struct parameters parameters;
	(void)state;
	assert_int_equal(
		read_body(&parameters, "{\"wait_s\": 1.5, \"force\": true, \"async\": 0, \"dry_run\": \"yes\"}", NULL),
		0);
	assert_int_equal(parameters.wait_ms, 1500);
	assert_true(parameters.force);
	assert_false(parameters.async);
	assert_true(parameters.dry_run);
	assert_int_equal(read_body(&parameters, "", NULL), 0);
	assert_int_equal(read_body(&parameters, "{}", NULL), 0);
	assert_int_equal(read_body(&parameters, "{\"phase\": 4}", NULL), 0);
	assert_string_equal(parameters.phase, "4");
	parameters_finish(&parameters);
}

static void test_bad_bodies(void **state)
{
	static const struct {
		const char *body;
		const char *says;
	} cases[] = {
		{ "{", "line 1" },
		{ "{\n \"wait_s\": }", "line 2" },
		{ "[]", "object" },
		{ "3", "object" },
		{ "null", "object" },
		{ "{\"wait_s\": 1e9}", "wait_s" },
		{ "{\"wait_s\": 1e308}", "wait_s" },
		{ "{\"wait_s\": 1e999}", "not JSON" },
		{ "{\"wait_s\": -0.5}", "wait_s" },
		{ "{\"wait_s\": 1000000000}", "wait_s" },
		{ "{\"wait_s\": 123456789012345678901234567890}", "not JSON" },
		{ "{\"wait_s\": null}", "wrong type" },
		{ "{\"wait_s\": [1]}", "wrong type" },
		{ "{\"wait_s\": true}", "wrong type" },
		{ "{\"force\": 1.0}", "force" },
		{ "{\"force\": 2}", "force" },
		{ "{\"force\": {}}", "wrong type" },
		{ "{\"force\": true, \"force\": true}", "duplicate" },
		{ "{\"nonsense\": 1}", "nonsense" },
		{ "{\"\": 1}", "accepted" },
		{ "{\"force\": true} x", "end of file" },
		{ "{\"a\\u0000\": 1}", "not JSON" },
		{ "\xff\xfe", "not JSON" },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parameters parameters;
		struct error err = { 0 };
		int r = read_body(&parameters, cases[i].body, &err);
		if (r >= 0 || strstr(err.message, cases[i].says) == NULL)
			fail_msg("%s: %d %s", cases[i].body, r, err.message);
		parameters_finish(&parameters);
	}
}

static void test_deep_body(void **state)
{
	static char deep[60001];
	struct parameters parameters;
	(void)state;
	memset(deep, '[', sizeof(deep) - 1);
	assert_true(read_body(&parameters, deep, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_booleans),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_unknown_names_are_told),
		cmocka_unit_test(test_empty_pieces),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_bad_bodies),
		cmocka_unit_test(test_deep_body),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
