/* Error objects: what is set, prefixed and cut, and that NULL is fine everywhere. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

static void test_set_and_prefix(void **state)
{
	(void)state;
	struct error err;
	assert_int_equal(error_set(&err, -ENOENT, "container \"%s\" does not exist", "x"), -ENOENT);
	assert_string_equal(err.message, "container \"x\" does not exist");
	assert_int_equal(error_prefix(&err, -ENOENT, "service %s: ", "comfyui"), -ENOENT);
	assert_string_equal(err.message, "service comfyui: container \"x\" does not exist");
	assert_int_equal(error_prefix(&err, -EIO, "gpumgrd: "), -EIO);
	assert_string_equal(err.message, "gpumgrd: service comfyui: container \"x\" does not exist");
}

static void test_percent_signs_in_what_was_said(void **state)
{
	(void)state;
	struct error err;
	error_set(&err, -EINVAL, "%s", "100%s %n");
	error_prefix(&err, -EINVAL, "%s", "a%sb: ");
	assert_string_equal(err.message, "a%sb: 100%s %n");
}

static void test_null_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(error_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(error_prefix(NULL, -EIO, "x"), -EIO);
}

static void test_long_texts_are_cut(void **state)
{
	(void)state;
	struct error err;
	char text[4096];
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	error_set(&err, -EIO, "%s", text);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	error_prefix(&err, -EIO, "service x: ");
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	assert_int_equal(strncmp(err.message, "service x: aaa", 14), 0);
	error_prefix(&err, -EIO, "%s", text);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	assert_int_equal(strncmp(err.message, "aaaa", 4), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_and_prefix),
		cmocka_unit_test(test_percent_signs_in_what_was_said),
		cmocka_unit_test(test_null_is_accepted),
		cmocka_unit_test(test_long_texts_are_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
