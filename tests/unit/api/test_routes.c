/* The table of routes and that of problems. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/problem.h"
#include "api/routes.h"
#include "base/cleanup.h"

static void test_routes_are_whole(void **state)
{
	(void)state;
	assert_non_null(route_at(0));
	for (size_t i = 0; route_at(i) != NULL; i++) {
		const struct route *route = route_at(i);
		assert_non_null(route->handle);
		assert_int_equal(route->path[0], '/');
		const char *wildcard = strchr(route->path, '{');
		assert_true(wildcard == NULL || strchr(wildcard + 1, '{') == NULL);
		for (size_t j = 0; j < i; j++)
			assert_true(strcmp(route_at(j)->path, route->path) != 0 ||
				strcmp(route_at(j)->method, route->method) != 0);
	}
}

static void test_problems_have_a_status(void **state)
{
	(void)state;
	for (size_t i = 0; problem_code(i) != NULL; i++) {
		size_t length;
		struct writer writer = { 0 };
		problem_begin(&writer, problem_status(problem_code(i)), problem_code(i), "x");
		writer_close(&writer, '}');
		CLEANUP_FREE char *text = writer_take(&writer, &length);
		json_t *document = json_loadb(text, length, 0, NULL);
		assert_string_equal(json_string_value(json_object_get(document, "code")), problem_code(i));
		assert_int_equal(
			json_integer_value(json_object_get(document, "status")), problem_status(problem_code(i)));
		assert_true(json_is_false(json_object_get(document, "success")));
		json_decref(document);
	}
	assert_int_equal(problem_status("nonsense"), 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes_are_whole),
		cmocka_unit_test(test_problems_have_a_status),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
