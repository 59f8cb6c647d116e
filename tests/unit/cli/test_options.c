/* The command line taken apart. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/options.h"

#define PARSE(arguments, ...)                                                                                          \
	arguments_parse(sizeof((char *[]){ "gpumgr", __VA_ARGS__ }) / sizeof(char *),                                  \
		(char *[]){ "gpumgr", __VA_ARGS__, NULL }, (arguments), &err)

static void test_words_and_options_anywhere(void **state)
{
	(void)state;
	struct arguments a;
	struct error err;
	assert_int_equal(PARSE(&a, "--json", "phase", "--socket", "/s", "4", "--wait=5m", "-q"), 0);
	assert_int_equal(a.n_words, 2);
	assert_string_equal(a.words[0], "phase");
	assert_string_equal(a.words[1], "4");
	assert_string_equal(a.values[OPTION_SOCKET], "/s");
	assert_string_equal(a.values[OPTION_WAIT], "5m");
	assert_true(is_given(&a, OPTION_JSON) && is_given(&a, OPTION_QUIET) && is_given(&a, OPTION_WAIT));
	assert_false(is_given(&a, OPTION_URL));
}

static void test_letters(void **state)
{
	(void)state;
	struct arguments a;
	struct error err;
	assert_int_equal(PARSE(&a, "logs", "-fn5", "x"), 0);
	assert_string_equal(a.values[OPTION_LINES], "5");
	assert_true(is_given(&a, OPTION_FOLLOW));
	assert_int_equal(PARSE(&a, "logs", "-n", "7", "-f"), 0);
	assert_string_equal(a.values[OPTION_LINES], "7");
	assert_int_equal(a.n_words, 1);
	assert_int_equal(PARSE(&a, "-n"), -EINVAL);
	assert_int_equal(PARSE(&a, "-z"), -EINVAL);
	assert_int_equal(PARSE(&a, "-fz"), -EINVAL);
}

static void test_the_last_one_counts(void **state)
{
	(void)state;
	struct arguments a;
	struct error err;
	assert_int_equal(PARSE(&a, "--wait", "1", "--wait=2", "x"), 0);
	assert_string_equal(a.values[OPTION_WAIT], "2");
	assert_int_equal(PARSE(&a, "--wait="), 0);
	assert_string_equal(a.values[OPTION_WAIT], "");
}

static void test_dashes(void **state)
{
	(void)state;
	struct arguments a;
	struct error err;
	assert_int_equal(PARSE(&a, "run", "svc", "--", "ls", "--json", "--", "-l"), 0);
	assert_int_equal(a.n_words, 6);
	assert_int_equal(a.n_before_dashes, 2);
	assert_true(a.has_dashes);
	assert_false(is_given(&a, OPTION_JSON));
	assert_int_equal(PARSE(&a, "x", "-"), 0);
	assert_string_equal(a.words[1], "-");
	assert_int_equal(a.n_before_dashes, 2);
	assert_false(a.has_dashes);
}

static void test_errors_name_the_option(void **state)
{
	(void)state;
	struct arguments a;
	struct error err;
	assert_int_equal(PARSE(&a, "--wiat", "3"), -EINVAL);
	assert_string_equal(err.message, "unknown option --wiat (did you mean --wait?)");
	assert_int_equal(PARSE(&a, "--xyzzyx=3"), -EINVAL);
	assert_string_equal(err.message, "unknown option --xyzzyx");
	assert_int_equal(PARSE(&a, "--json=1"), -EINVAL);
	assert_string_equal(err.message, "--json takes no value");
	assert_int_equal(PARSE(&a, "--wait"), -EINVAL);
	assert_string_equal(err.message, "--wait needs a value: --wait S");
	assert_int_equal(PARSE(&a, "--=x"), -EINVAL);
	assert_int_equal(PARSE(&a, "---"), -EINVAL);
	assert_int_equal(PARSE(&a, "--wai"), -EINVAL); /* no abbreviations: they would break with the next option */
}

static void test_too_many_words(void **state)
{
	(void)state;
	static struct arguments a;
	struct error err;
	char **argv = calloc(WORDS_MAX + 3, sizeof(*argv));
	for (int i = 0; i < WORDS_MAX + 2; i++)
		argv[i] = "x";
	assert_int_equal(arguments_parse(WORDS_MAX + 1, argv, &a, &err), 0);
	assert_int_equal(a.n_words, WORDS_MAX);
	assert_int_equal(arguments_parse(WORDS_MAX + 2, argv, &a, &err), -EINVAL);
	free(argv);
}

/* Two options with one name or letter could never both be reached. */
static void test_the_table_is_sound(void **state)
{
	(void)state;
	for (int i = 0; i < OPTION_COUNT; i++) {
		assert_non_null(option_rows[i].name);
		assert_non_null(option_rows[i].help);
		for (int j = 0; j < i; j++) {
			assert_string_not_equal(option_rows[i].name, option_rows[j].name);
			assert_true(option_rows[i].letter == 0 || option_rows[i].letter != option_rows[j].letter);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words_and_options_anywhere),
		cmocka_unit_test(test_letters),
		cmocka_unit_test(test_the_last_one_counts),
		cmocka_unit_test(test_dashes),
		cmocka_unit_test(test_errors_name_the_option),
		cmocka_unit_test(test_too_many_words),
		cmocka_unit_test(test_the_table_is_sound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
