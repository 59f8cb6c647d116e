/* Paths into JSON: what they lead to, what is said when they lead nowhere, and whatever else may be written as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "config/config.h"
#include "health/json_path.h"

static const char document[] =
	"{\"a\": {\"b\": [{\"c\": 1}, [10, 20, 30], \"x\"], \"empty\": [], \"\": 7}, \"n\": null, \"with space\": 2, "
	"\"k1\": 0, \"k2\": 0, \"k3\": 0, \"k4\": 0, \"k5\": 0, \"k6\": 0, \"k7\": 0, \"k8\": 0, \"\\u00fc\": 3}";

static void test_what_they_lead_to(void **state)
{
	(void)state;
	static const struct {
		const char *path, *value;
	} cases[] = {
		{ "a.b[0].c", "1" },
		{ "a.b[1][2]", "30" },
		{ "a.b[1]", "[10, 20, 30]" },
		{ "a.b[2]", "\"x\"" },
		{ "a.b[000002]", "\"x\"" },
		{ "a.empty", "[]" },
		{ "n", "null" },
		{ "with space", "2" },
		{ "\xc3\xbc", "3" },
	};
	json_t *root = json_loads(document, 0, NULL);
	assert_non_null(root);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256] = "";
		const json_t *value = json_path_follow(root, cases[i].path, text, sizeof(text));
		if (value == NULL)
			fail_msg("%s: %s", cases[i].path, text);
		CLEANUP_FREE char *dump = json_dumps(value, JSON_ENCODE_ANY);
		assert_string_equal(dump, cases[i].value);
	}
	json_decref(root);
}

static void test_where_they_lead_nowhere(void **state)
{
	(void)state;
	static const struct {
		const char *path, *text;
	} cases[] = {
		{ "a.c", "a has no member c (it has b, empty, )" },
		{ "z.y", "the answer has no member z (it has a, n, with space, k1, k2, k3, k4, k5, ...)" },
		{ "a.b[3]", "a.b has no element 3 (it has 3)" },
		{ "a.empty[0].c", "a.empty has no element 0 (it has 0)" },
		{ "a.b.c", "a.b is a list, not an object" },
		{ "a[0]", "a is an object, not a list" },
		{ "[0]", "the answer is an object, not a list" },
		{ "n.x", "n is null, not an object" },
		{ "a.b[2].x", "a.b[2] is a string, not an object" },
		{ "a.b[1][0][1]", "a.b[1][0] is a number, not a list" },
		{ "a..b", "\"a..b\" is not a path into JSON" },
	};
	json_t *root = json_loads(document, 0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256] = "";
		assert_null(json_path_follow(root, cases[i].path, text, sizeof(text)));
		if (strcmp(text, cases[i].text) != 0)
			fail_msg("%s: \"%s\"", cases[i].path, text);
	}
	json_decref(root);
}

static void test_an_empty_object(void **state)
{
	(void)state;
	char text[256];
	json_t *root = json_object();
	assert_null(json_path_follow(root, "a", text, sizeof(text)));
	assert_string_equal(text, "the answer has no member a (it has nothing)");
	json_decref(root);
}

static uint32_t random_number(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

static void random_path(uint64_t *seed, char *path, size_t max)
{
	static const char letters[] = "ab01.[]..[][0][1].a.b";
	size_t length = random_number(seed) % max;
	for (size_t i = 0; i < length; i++)
		path[i] = letters[random_number(seed) % (sizeof(letters) - 1)];
	path[length] = '\0';
}

/* Whatever stands there, in room for the text of any size: an answer or a text, and nothing else is touched. */
static void test_random_paths(void **state)
{
	(void)state;
	uint64_t seed = 99;
	size_t n_found = 0, n_invalid = 0;
	json_t *root = json_loads(
		"{\"a\": [{\"b\": 0, \"a\": [[1], {\"a\": 2}]}, 3], \"b\": {\"0\": [0]}, \"0\": {}}", 0, NULL);
	for (int i = 0; i < 200000; i++) {
		char path[24], text[80];
		size_t size = 1 + random_number(&seed) % (sizeof(text) - 1);
		random_path(&seed, path, sizeof(path));
		memset(text, '#', sizeof(text));
		text[0] = '\0';
		const json_t *value = json_path_follow(root, path, text, size);
		n_found += value != NULL;
		n_invalid += !json_path_is_valid(path);
		assert_true(memchr(text, '\0', size) != NULL);
		for (size_t j = size; j < sizeof(text); j++)
			assert_int_equal(text[j], '#');
		if (value != NULL)
			assert_true(json_path_is_valid(path));
	}
	json_decref(root);
	print_message("%zu of 200000 led somewhere, %zu were none\n", n_found, n_invalid);
	assert_true(n_found > 100);
	assert_true(n_invalid > 1000 && n_invalid < 199000);
}

/* The configuration takes exactly the paths that can be followed. */
static void test_the_configuration_agrees(void **state)
{
	(void)state;
	uint64_t seed = 4;
	size_t n_valid = 0;
	for (int i = 0; i < 3000; i++) {
		char path[12], text[512];
		struct config *config = NULL;
		struct config_report report;
		random_path(&seed, path, sizeof(path));
		int length = snprintf(text, sizeof(text),
			"version: 1\nservices:\n  s:\n    vram: 1GiB\n    process: {command: [/bin/true], user: "
			"nobody}\n"
			"    health: {tcp: \"127.0.0.1:1\"}\n"
			"    busy: {http: \"http://127.0.0.1:1/\", json: \"%s\"}\n",
			path);
		int r = config_parse("test", text, (size_t)length, &config, &report);
		if ((r == 0) != json_path_is_valid(path))
			fail_msg("\"%s\": %d, \"%s\"", path, r, report.n > 0 ? report.problems[0].message : "");
		n_valid += r == 0;
		if (r == 0)
			assert_string_equal(config->services[0].busy.json, path);
		config_report_finish(&report);
		if (r == 0)
			config_free(config);
	}
	assert_true(n_valid > 100 && n_valid < 2900);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_they_lead_to),
		cmocka_unit_test(test_where_they_lead_nowhere),
		cmocka_unit_test(test_an_empty_object),
		cmocka_unit_test(test_random_paths),
		cmocka_unit_test(test_the_configuration_agrees),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
