/* Another configuration by example: what counts at once, what is retired, and who is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

/* What the rig's services and phases say now, and a tick after it, as the daemon does. */
static void reconfigure(struct rig *rig)
{
	const struct event tick = { .kind = EVENT_TICK };
	effects_clear(&rig->effects);
	assert_int_equal(engine_reconfigure(rig->engine, &rig->config, rig->now, &rig->effects), 0);
	rig_take(rig);
	rig_handle(rig, &tick);
}

static uint64_t lease(struct rig *rig, size_t service)
{
	const struct lease_terms terms = rig_terms(&service, 1, LEASE_EXCLUSIVE);
	return rig_submit_lease(rig, &terms, WAIT);
}

static void test_priority_counts_at_once(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 20000, 50), b = rig_service(rig, "b", 20000, 40);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, b, WAIT)), OUTCOME_INSUFFICIENT_VRAM);
	rig->services[b].priority = 60;
	reconfigure(rig);
	rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

static void test_who_waits_stands_where_he_is_put_now(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 7000, 50), b = rig_service(rig, "b", 7000, 10),
	       c = rig_service(rig, "c", 7000, 20);

	(void)state;
	rig_start(rig);
	rig_submit(rig, REQUEST_START, a, WAIT); /* it boots, and the others wait for its GPU */
	lease(rig, c);
	lease(rig, b);
	assert_int_equal(engine_status(rig->engine, rig->now)->queue[0]->spec.lease->services[0], c);
	rig->services[b].priority = 90;
	reconfigure(rig);
	const struct status *status = engine_status(rig->engine, rig->now);
	assert_int_equal(status->n_queue, 2);
	assert_int_equal(status->queue[0]->spec.lease->services[0], b);
	assert_int_equal(status->queue[0]->priority, 90);
}

/* With its driver the look that was under way is gone: silence must not be taken for absence. */
static void test_a_changed_service_is_looked_for_anew(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 7000, 50), b = rig_service(rig, "b", 7000, 50);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_read(rig);
	rig_forget(rig);
	rig_tick(rig, 10000);
	rig->services[a].is_changed = true;
	reconfigure(rig);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 1);
	assert_int_equal(rig_count(rig, EFFECT_FIND, b), 0); /* its answer is on the way */
	rig_tick(rig, 10000);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_UNKNOWN);
	rig_found(rig, a, true, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	rig_forget(rig);
	reconfigure(rig);
	assert_int_equal(rig_count(rig, EFFECT_FIND, a), 0); /* nothing is under way */
}

static void test_a_new_service_is_looked_for_and_started(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	size_t b = rig_service(rig, "b", 8000, 50);
	reconfigure(rig);
	assert_int_equal(rig_count(rig, EFFECT_FIND, b), 1);
	uint64_t ticket = rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, b), 0); /* nobody knows yet whether it runs */
	rig_found(rig, b, false, false);
	rig_up(rig, b);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

static void test_what_is_retired_and_idle_is_stopped(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	rig->services[a].is_retired = true;
	reconfigure(rig);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, b), 0);
	rig_down(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, a, WAIT)), OUTCOME_RETIRED);
	rig->services[a].is_retired = false;
	reconfigure(rig);
	rig_run(rig, a);
}

static void test_what_is_retired_and_leased_is_left_alone(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t first = lease(rig, a), second = lease(rig, a);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	rig->services[a].is_retired = true;
	reconfigure(rig);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_RETIRED);
	assert_int_equal(rig_outcome(rig, lease(rig, a)), OUTCOME_RETIRED);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_release(rig, engine_status(rig->engine, rig->now)->leases[0]->fence);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

static void test_what_is_retired_while_it_boots_is_stopped_after_that(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, WAIT);
	rig->services[a].is_retired = true;
	reconfigure(rig);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0); /* the transition completes */
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	rig_tick(rig, 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

static void test_a_retired_phase_is_refused(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	size_t phase = rig_phase(rig, 4, (size_t[]){ a, SIZE_MAX });

	(void)state;
	rig_start(rig);
	rig->phases[phase].is_retired = true;
	reconfigure(rig);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_PHASE, phase, WAIT)), OUTCOME_RETIRED);
}

static void test_what_runs_is_outdated_until_it_is_started_anew(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig->services[a].is_changed = rig->services[b].is_changed = true;
	reconfigure(rig);
	assert_true(rig_status(rig, a)->is_outdated);
	assert_false(rig_status(rig, b)->is_outdated); /* it will be started as it is now */
	rig->services[a].is_changed = rig->services[b].is_changed = false;
	reconfigure(rig);
	assert_true(rig_status(rig, a)->is_outdated); /* still */
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_submit(rig, REQUEST_RESTART, a, WAIT);
	rig_down(rig, a);
	rig_up(rig, a);
	assert_false(rig_status(rig, a)->is_outdated);
}

static void test_declared_cards_and_the_reserve(void **state)
{
	RIG rig = rig_new(1, CARD);

	(void)state;
	rig_start(rig);
	assert_int_equal(rig_account(rig, 0)->admissible_mib, CARD - 1024);
	rig->config.reserve = (struct size_value){ .mib = 4096 };
	reconfigure(rig);
	assert_int_equal(rig_account(rig, 0)->admissible_mib, CARD - 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_priority_counts_at_once),
		cmocka_unit_test(test_who_waits_stands_where_he_is_put_now),
		cmocka_unit_test(test_a_changed_service_is_looked_for_anew),
		cmocka_unit_test(test_a_new_service_is_looked_for_and_started),
		cmocka_unit_test(test_what_is_retired_and_idle_is_stopped),
		cmocka_unit_test(test_what_is_retired_and_leased_is_left_alone),
		cmocka_unit_test(test_what_is_retired_while_it_boots_is_stopped_after_that),
		cmocka_unit_test(test_a_retired_phase_is_refused),
		cmocka_unit_test(test_what_runs_is_outdated_until_it_is_started_anew),
		cmocka_unit_test(test_declared_cards_and_the_reserve),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
