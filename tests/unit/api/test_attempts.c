/* Wrong tokens by address: how many, how fast, and who is spared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>

#include "api/attempts.h"
#include "base/cleanup.h"

#define NOW 1000000

struct place {
	struct sockaddr_storage storage;
};

static const struct sockaddr *at(struct place *place, const char *text)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&place->storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&place->storage;
	*place = (struct place){ 0 };
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
		v4->sin_family = AF_INET;
	else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
	}
	return (const struct sockaddr *)&place->storage;
}

static uint64_t wait_of(const struct attempts *attempts, const char *text, uint64_t now)
{
	struct place place;
	return attempts_wait_ms(attempts, at(&place, text), now);
}

static bool show_wrong(struct attempts *attempts, const char *text, uint64_t now)
{
	struct place place;
	return attempts_note_wrong(attempts, at(&place, text), now);
}

static void show_right(struct attempts *attempts, const char *text, uint64_t now)
{
	struct place place;
	attempts_note_right(attempts, at(&place, text), now);
}

static void lock_out(struct attempts *attempts, const char *text, uint64_t now)
{
	for (unsigned i = 0; i < ATTEMPTS_BURST; i++)
		show_wrong(attempts, text, now);
	assert_true(wait_of(attempts, text, now) > 0);
}

static void test_a_burst_and_then_a_pace(void **state)
{
	(void)state;
	struct attempts attempts = { 0 };
	for (unsigned i = 1; i < ATTEMPTS_BURST; i++) {
		assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW), 0);
		assert_false(show_wrong(&attempts, "192.0.2.1", NOW));
	}
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW), 0);
	assert_true(show_wrong(&attempts, "192.0.2.1", NOW));
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW), ATTEMPTS_INTERVAL_MS);
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW + ATTEMPTS_INTERVAL_MS - 1), 1);
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW + ATTEMPTS_INTERVAL_MS), 0);
	/* One more, and it waits again; that is no news. */
	assert_false(show_wrong(&attempts, "192.0.2.1", NOW + ATTEMPTS_INTERVAL_MS));
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW + ATTEMPTS_INTERVAL_MS), ATTEMPTS_INTERVAL_MS);
	assert_int_equal(wait_of(&attempts, "192.0.2.2", NOW), 0);
}

static void test_time_makes_up_for_all(void **state)
{
	(void)state;
	struct attempts attempts = { 0 };
	lock_out(&attempts, "192.0.2.1", NOW);
	uint64_t later = NOW + (uint64_t)ATTEMPTS_BURST * ATTEMPTS_INTERVAL_MS;
	for (unsigned i = 1; i < ATTEMPTS_BURST; i++)
		assert_false(show_wrong(&attempts, "192.0.2.1", later));
	assert_int_equal(wait_of(&attempts, "192.0.2.1", later), 0);
	assert_true(show_wrong(&attempts, "192.0.2.1", later)); /* and is told again */
	assert_true(wait_of(&attempts, "192.0.2.1", later) > 0);
}

static void test_who_has_shown_the_right_one_is_spared(void **state)
{
	(void)state;
	struct attempts attempts = { 0 };
	show_right(&attempts, "192.0.2.1", NOW);
	for (unsigned i = 0; i < 10 * ATTEMPTS_BURST; i++)
		assert_false(show_wrong(&attempts, "192.0.2.1", NOW));
	assert_int_equal(wait_of(&attempts, "192.0.2.1", NOW), 0);
	/* Also when it comes after a lockout has passed. */
	lock_out(&attempts, "192.0.2.2", NOW);
	show_right(&attempts, "192.0.2.2", NOW + ATTEMPTS_INTERVAL_MS);
	assert_int_equal(wait_of(&attempts, "192.0.2.2", NOW + ATTEMPTS_INTERVAL_MS), 0);
}

static void test_what_is_one_address(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		bool is_one;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1", true },
		{ "192.0.2.1", "192.0.3.1", false },
		{ "192.0.2.1", "::ffff:192.0.2.1", true },
		{ "127.0.0.1", "127.200.3.4", true },
		{ "127.0.0.1", "::1", false },
		{ "126.0.0.1", "126.0.0.2", false },
		{ "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true },
		{ "2001:db8:1:2::1", "2001:db8:1:3::1", false },
		{ "0.0.0.0", "::", false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct attempts attempts = { 0 };
		lock_out(&attempts, cases[i].a, NOW);
		if ((wait_of(&attempts, cases[i].b, NOW) > 0) != cases[i].is_one)
			fail_msg("%s and %s", cases[i].a, cases[i].b);
	}
}

static void test_a_flood_of_addresses_forgets_the_oldest(void **state)
{
	(void)state;
	struct attempts attempts = { 0 };
	char text[32];
	show_right(&attempts, "198.51.100.1", NOW - 2);
	lock_out(&attempts, "198.51.100.2", NOW - 1);
	for (unsigned i = 0; i < ATTEMPTS_MAX - 2; i++) {
		snprintf(text, sizeof(text), "192.0.%u.%u", i / 200, i % 200);
		show_wrong(&attempts, text, NOW + i);
	}
	assert_true(wait_of(&attempts, "198.51.100.2", NOW) > 0); /* there was a place for each */
	show_wrong(&attempts, "203.0.113.1", NOW + ATTEMPTS_MAX);
	assert_int_equal(wait_of(&attempts, "198.51.100.2", NOW), 0);
	/* The one with the right token is older still, and stays. */
	for (unsigned i = 0; i < ATTEMPTS_BURST; i++)
		show_wrong(&attempts, "198.51.100.1", NOW);
	assert_int_equal(wait_of(&attempts, "198.51.100.1", NOW), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_burst_and_then_a_pace),
		cmocka_unit_test(test_time_makes_up_for_all),
		cmocka_unit_test(test_who_has_shown_the_right_one_is_spared),
		cmocka_unit_test(test_what_is_one_address),
		cmocka_unit_test(test_a_flood_of_addresses_forgets_the_oldest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
