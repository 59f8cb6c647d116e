/* What somebody else starts, past gpumgr: seen, counted, and made room for or stopped again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rig.h"

static void look(struct rig *rig, size_t service)
{
	struct event event = { .kind = EVENT_LOOK, .service = service };

	rig_handle(rig, &event);
}

static void found_external(struct rig *rig, size_t service, bool healthy)
{
	struct event event = { .kind = EVENT_FOUND, .service = service };

	event.found.alive = true;
	event.found.healthy = healthy;
	event.found.external = true;
	event.found.pid = 77;
	rig_handle(rig, &event);
}

/* Somebody starts it, the driver sees that, and the readings show what it took. */
static void start_outside(struct rig *rig, size_t service)
{
	rig->measured_mib[0][service] = rig->services[service].vram.mib;
	look(rig, service);
	assert_int_equal(rig_count(rig, EFFECT_FIND, service), 1);
	found_external(rig, service, true);
	rig_read(rig);
}

static void test_fits(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, b);
	rig_forget(rig);
	start_outside(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	assert_int_equal(rig_status(rig, a)->external_starts, 1);
	assert_int_equal(rig_notices(rig, "service.external", "adopted"), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, b), 0);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 0);
}

static void test_lower_priorities_make_room(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t low = rig_service(rig, "low", 8000, 10), middle = rig_service(rig, "middle", 8000, 40);
	size_t big = rig_service(rig, "big", 12000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, low);
	rig_run(rig, middle);
	rig_forget(rig);
	start_outside(rig, big);
	assert_int_equal(rig_count(rig, EFFECT_STOP, low), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, middle), 0);
	rig_down(rig, low);
	assert_int_equal(rig_notices(rig, "transition", "make room for big: done"), 1);
	assert_int_equal(rig_status(rig, big)->state, SERVICE_READY);
	assert_true(rig_account(rig, 0)->admissible_mib >= 0);
}

/* When all that may go would not be enough, nothing goes, and it is said who is in the way. */
static void test_no_room_is_said(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t low = rig_service(rig, "low", 2000, 10), high = rig_service(rig, "high", 18000, 90);
	size_t big = rig_service(rig, "big", 12000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, low);
	rig_run(rig, high);
	rig_forget(rig);
	start_outside(rig, big);
	assert_int_equal(rig_count(rig, EFFECT_STOP, low) + rig_count(rig, EFFECT_STOP, high), 0);
	assert_int_equal(rig_notices(rig, "transition", "priority 90 is not below 50"), 1);
	assert_int_equal(rig_notices(rig, "transition", "needed by the same request"), 0);
	assert_int_equal(rig_status(rig, big)->state, SERVICE_READY);
}

static void test_stopped_again(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig->services[a].stop_external = true;
	rig_start(rig);
	start_outside(rig, a);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_notices(rig, "service.external", "stopped again"), 1);
	rig_down(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_int_equal(rig_status(rig, a)->external_starts, 1);
}

/* What runs when the daemon starts was started by nobody else that we know of. */
static void test_first_look_is_not_external(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig->services[a].stop_external = true;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_read(rig);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	assert_int_equal(rig_status(rig, a)->external_starts, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
}

/* A stop that an earlier daemon began is brought to its end, and whoever wants the service waits for that. */
static void test_a_stop_of_before_is_finished(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct event event = { .kind = EVENT_FOUND, .service = a };

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	event.found.alive = event.found.healthy = event.found.stopping = true;
	event.found.pid = 77;
	rig_handle(rig, &event);
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_ADOPT, a), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPING);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 10000);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 0);
	rig_gone(rig, a, "ended");
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 1);
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_notices(rig, "service.state", "error"), 0);
}

/* A reading that came before a service was found takes its memory for a stranger's, be it of the same millisecond. */
static void test_a_reading_of_the_same_moment(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 20000, 50), b = rig_service(rig, "b", 3000, 50);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig->foreign_mib[0] = 20000;
	rig_read(rig);
	rig_found(rig, b, false, false);
	rig_found(rig, a, true, true);
	uint64_t ticket = rig_submit(rig, REQUEST_START, b, 10000);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig->foreign_mib[0] = 0;
	rig->measured_mib[0][a] = 20000;
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_START, b), 1);
}

/* What is to be stopped when the daemon ends is, and nothing else goes on meanwhile. */
static void test_the_end(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	size_t c = rig_service(rig, "c", 20000, 90);
	const struct event end = { .kind = EVENT_EXIT };

	(void)state;
	rig->services[a].stop_on_exit = true;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	assert_false(engine_may_exit(rig->engine));
	rig_submit(rig, REQUEST_START, c, 60000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, b), 1);
	rig_forget(rig);
	rig_handle(rig, &end);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	assert_false(engine_may_exit(rig->engine));
	rig_down(rig, a);
	assert_true(engine_may_exit(rig->engine));
	rig_down(rig, b);
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_START, c), 0);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
}

/* What does not end, by no means, keeps nobody. */
static void test_the_end_of_what_does_not_end(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	const struct event end = { .kind = EVENT_EXIT };

	(void)state;
	rig->services[a].stop_on_exit = true;
	rig_start(rig);
	rig_run(rig, a);
	rig_forget(rig);
	rig_handle(rig, &end);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	rig_wait(rig, rig->services[a].stop_timeout_ms + 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 2);
	assert_true(rig_last(rig, EFFECT_STOP, a)->effect.force);
	assert_false(engine_may_exit(rig->engine));
	rig_wait(rig, 11000);
	assert_true(engine_may_exit(rig->engine));
}

/* Nor does what nobody can see; what nobody has looked for yet is looked for first. */
static void test_the_end_of_what_nobody_sees(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	const struct event end = { .kind = EVENT_EXIT };
	struct event untold = { .kind = EVENT_FOUND, .service = a, .text = "no answer" };

	(void)state;
	rig->services[a].stop_on_exit = true;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_handle(rig, &end);
	assert_false(engine_may_exit(rig->engine));
	untold.found.untold = true;
	rig_handle(rig, &untold);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_UNKNOWN);
	assert_true(engine_may_exit(rig->engine));
}

/* News that comes while a look is under way may be younger than its answer. */
static void test_looks_again(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	look(rig, a);
	look(rig, a);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 1);
	rig_found(rig, a, false, false);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 2);
	found_external(rig, a, true);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 2);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

/* Nobody makes room around what has ended again. */
static void test_ended_before_its_turn(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t low = rig_service(rig, "low", 16000, 10), big = rig_service(rig, "big", 12000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, low);
	rig_forget(rig);
	look(rig, big);
	found_external(rig, big, true);
	rig_gone(rig, big, "exit status 0");
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_STOP, low), 0);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 0);
	assert_int_equal(rig_count(rig, EFFECT_START, big), 0);
}

static void test_container_not_found(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct event event = { .kind = EVENT_START_FAILED, .service = a, .failure = START_FAILURE_NOT_FOUND };

	(void)state;
	rig_start(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 0);
	event.run = rig->run[a];
	event.text = "container \"a\" does not exist";
	rig_handle(rig, &event);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_CONTAINER_NOT_FOUND);
	ticket = rig_submit(rig, REQUEST_START, a, 0);
	rig_start_failed(rig, a, "exit status 1");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
}

/* What somebody else started while its own start was planned is not forgotten when that comes to nothing. */
static void test_found_while_its_start_is_planned(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t victim = rig_service(rig, "victim", 20000, 10), a = rig_service(rig, "a", 20000, 50);
	const struct event look = { .kind = EVENT_LOOK, .service = a };

	(void)state;
	rig_start(rig);
	rig_run(rig, victim);
	rig_forget(rig);
	rig_handle(rig, &look);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 60000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, victim), 1);
	rig_found(rig, a, true, true);
	assert_int_equal(rig_count(rig, EFFECT_ADOPT, a), 0);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 1);
	rig_event(rig, EVENT_STOP_REFUSED, victim, "nobody knows which process it is");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_STOP_FAILED);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 2);
	rig_found(rig, a, true, true);
	assert_int_equal(rig_count(rig, EFFECT_ADOPT, a), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_while_its_start_is_planned),
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_lower_priorities_make_room),
		cmocka_unit_test(test_no_room_is_said),
		cmocka_unit_test(test_stopped_again),
		cmocka_unit_test(test_first_look_is_not_external),
		cmocka_unit_test(test_a_stop_of_before_is_finished),
		cmocka_unit_test(test_a_reading_of_the_same_moment),
		cmocka_unit_test(test_the_end),
		cmocka_unit_test(test_the_end_of_what_does_not_end),
		cmocka_unit_test(test_the_end_of_what_nobody_sees),
		cmocka_unit_test(test_looks_again),
		cmocka_unit_test(test_ended_before_its_turn),
		cmocka_unit_test(test_container_not_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
