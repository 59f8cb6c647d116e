/* The table of routes and the ring of events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/problem.h"
#include "api/ring.h"
#include "api/routes.h"

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
		json_t *document = problem_document(problem_code(i), "x");
		assert_int_equal(
			json_integer_value(json_object_get(document, "status")), problem_status(problem_code(i)));
		assert_true(json_is_false(json_object_get(document, "success")));
		json_decref(document);
	}
	assert_int_equal(problem_status("nonsense"), 500);
}

static void test_ring(void **state)
{
	struct ring *ring = ring_create(1000);
	uint64_t transition;
	(void)state;
	assert_int_equal(ring_oldest_id(ring), 1000);
	assert_int_equal(ring_next_id(ring), 1000);
	assert_null(ring_get(ring, 1000, &transition));
	for (uint64_t i = 0; i < RING_SIZE + 10; i++)
		ring_add(ring, blob_from((const char *)&i, sizeof(i)), i);
	assert_int_equal(ring_next_id(ring), 1000 + RING_SIZE + 10);
	assert_int_equal(ring_oldest_id(ring), 1010);
	assert_null(ring_get(ring, 1009, &transition));
	for (uint64_t id = 1010; id < ring_next_id(ring); id++) {
		uint64_t i = id - 1000;
		assert_memory_equal(ring_get(ring, id, &transition)->data, &i, sizeof(i));
		assert_int_equal(transition, i);
	}
	assert_null(ring_get(ring, UINT64_MAX, &transition));
	ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes_are_whole),
		cmocka_unit_test(test_problems_have_a_status),
		cmocka_unit_test(test_ring),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
