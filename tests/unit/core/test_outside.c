/* What others do to services past gpumgr: pauses, stops, and engines that cannot be asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

#define PAUSED "container \"a\" is paused by somebody; go on with: docker unpause a"

static void hinder(struct rig *rig, size_t service, bool is_over)
{
	const struct event event = { .kind = EVENT_HINDERED,
		.service = service,
		.run = rig->run[service],
		.is_over = is_over,
		.text = is_over ? "container \"a\" was paused" : PAUSED };

	rig_handle(rig, &event);
}

static void untold(struct rig *rig, size_t service)
{
	const struct event event = { .kind = EVENT_FOUND,
		.service = service,
		.found = { .untold = true },
		.text = "docker: the engine is away" };

	rig_handle(rig, &event);
}

/* It is looked for, and nobody can tell. */
static void lose_sight(struct rig *rig, size_t service)
{
	const struct event event = { .kind = EVENT_LOOK, .service = service };

	rig_handle(rig, &event);
	untold(rig, service);
}

static void gone_by_others(struct rig *rig, size_t service)
{
	const struct event event = { .kind = EVENT_GONE,
		.service = service,
		.run = rig->run[service],
		.by_others = true,
		.text = "stopped by somebody else (SIGTERM): exited with status 143" };

	rig->is_probing[service] = false;
	rig->measured_mib[0][service] = 0;
	rig_handle(rig, &event);
	rig_read(rig);
}

static uint64_t lease_of(struct rig *rig, size_t *service)
{
	struct lease_terms terms = rig_terms(service, 1, LEASE_EXCLUSIVE);

	terms.ttl_ms = 600000;
	rig_submit_lease(rig, &terms, 0);
	return rig->next_fence - 1;
}

/* ---- pauses ---- */

static void test_paused(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	hinder(rig, a, false);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_string_equal(rig_status(rig, a)->error, PAUSED);
	assert_int_equal(rig_status(rig, a)->committed_mib, 8000);
	assert_int_equal(rig_notices(rig, "service.state", PAUSED), 1);
	/* An answer from before does not bring it back, and nobody asks meanwhile. */
	rig_forget(rig);
	rig_wait(rig, 60000);
	assert_true(rig_count(rig, EFFECT_PROBE, a) <= 1);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	/* It is asked at once when it goes on. */
	rig->is_probing[a] = false;
	rig_forget(rig);
	hinder(rig, a, true);
	rig_tick(rig, 0);
	assert_int_equal(rig_count(rig, EFFECT_PROBE, a), 1);
	assert_string_equal(rig_status(rig, a)->error, "container \"a\" was paused");
	rig_health(rig, a, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	assert_string_equal(rig_status(rig, a)->error != NULL ? rig_status(rig, a)->error : "", "");
}

static void test_an_answer_from_before_the_pause(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct event healthy = { .kind = EVENT_HEALTH, .service = a };

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	while (!rig->is_probing[a])
		rig_tick(rig, 1000);
	hinder(rig, a, false);
	healthy.run = rig->run[a];
	healthy.healthy = true;
	rig_handle(rig, &healthy);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
}

static void test_paused_while_leased(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t fence = lease_of(rig, &a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
	hinder(rig, a, false);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_SERVICE_FAILED), 1);
	rig_wait(rig, 300000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	assert_int_equal(rig_end(rig, fence), -1);
	rig->is_probing[a] = false;
	hinder(rig, a, true);
	rig_health(rig, a, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
}

/* Neither is it started anew for a request, nor is anybody evicted for one that cannot succeed. */
static void test_requests_for_what_is_paused(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), low = rig_service(rig, "low", 8000, 10);
	size_t big = rig_service(rig, "big", 12000, 40);
	size_t phase = rig_phase(rig, 1, (size_t[]){ a, big, SIZE_MAX });
	const struct request_spec spec = { .kind = REQUEST_START, .target = a };
	struct plan plan;

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, low);
	hinder(rig, a, false);
	rig_forget(rig);
	uint64_t asked[] = { rig_submit(rig, REQUEST_START, a, 0), rig_submit(rig, REQUEST_PHASE, phase, 0) };
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(rig_outcome(rig, asked[i]), OUTCOME_START_FAILED);
		assert_string_equal(rig_detail(rig, asked[i]), "a: " PAUSED);
	}
	assert_int_equal(engine_plan(rig->engine, &spec, rig->now, &plan), PLAN_REFUSED);
	assert_int_equal(plan.n_blockers, 1);
	assert_int_equal(plan.blockers[0].reason, BLOCKED_BY_HINDRANCE);
	plan_finish(&plan);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a) + rig_count(rig, EFFECT_STOP, low), 0);
	/* It goes on: whoever asks now waits for its answer. */
	hinder(rig, a, true);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 10000);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_health(rig, a, true);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
}

/* By name it is stopped and started anew all the same, and it gives way to others first. */
static void test_paused_can_be_restarted_and_evicted(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	size_t big = rig_service(rig, "big", 12000, 60);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	hinder(rig, a, false);
	rig_submit(rig, REQUEST_RESTART, a, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	rig_down(rig, a);
	rig_up(rig, a);
	rig_run(rig, b);
	hinder(rig, b, false);
	rig_forget(rig);
	rig_submit(rig, REQUEST_START, big, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, b), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
}

/* The start fails at once, says what helps, and leaves what somebody froze alone. */
static void test_paused_while_it_starts(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 0);
	rig_started(rig, a);
	hinder(rig, a, false);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_string_equal(rig_detail(rig, ticket), "a: " PAUSED);
	rig_wait(rig, 300000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig->is_probing[a] = false;
	hinder(rig, a, true);
	rig_health(rig, a, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

/* ---- stops ---- */

static void test_stopped_by_others(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	gone_by_others(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_string_equal(rig_status(rig, a)->error != NULL ? rig_status(rig, a)->error : "", "");
	assert_int_equal(rig_notices(rig, "service.external_stop", "somebody else (SIGTERM)"), 1);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
	/* A crash is another matter. */
	rig_run(rig, a);
	rig_gone(rig, a, "exited with status 139");
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_int_equal(rig_notices(rig, "service.external_stop", ""), 0);
}

static void test_stopped_by_others_while_leased(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t fence = lease_of(rig, &a);
	gone_by_others(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_SERVICE_FAILED), 1);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 8000); /* kept for its holder */
}

static void test_stopped_by_others_while_it_starts(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 0);
	rig_started(rig, a);
	gone_by_others(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_non_null(strstr(rig_detail(rig, ticket), "stopped by somebody else"));
}

/* ---- nobody can tell ---- */

static void test_what_nobody_sees_is_unknown(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	uint64_t ticket = rig_submit(rig, REQUEST_START, b, 10000);
	rig_found(rig, b, false, false);
	rig_read(rig);
	assert_int_equal(rig_count(rig, EFFECT_START, b), 0); /* nothing is decided before all were looked for */
	untold(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_UNKNOWN);
	assert_string_equal(rig_status(rig, a)->error, "it is not known whether it runs: docker: the engine is away");
	/* And nobody else is kept from anything. */
	rig_up(rig, b);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	/* It is looked for again now and then. */
	rig_forget(rig);
	rig_wait(rig, 60000);
	assert_true(rig_count(rig, EFFECT_FIND, a) >= 1);
	rig_found(rig, a, false, false);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_string_equal(rig_status(rig, a)->error != NULL ? rig_status(rig, a)->error : "", "");
	/* What was stopped is so no longer for sure; then it turns out to run. */
	lose_sight(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_UNKNOWN);
	assert_int_equal(rig_notices(rig, "service.state", "a is unknown: it is not known"), 1);
	rig_event(rig, EVENT_LOOK, a, NULL);
	rig_found(rig, a, true, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

/* Settling may show less or more as free, whatever the answer says of the service. */
static void test_a_look_in_vain_at_what_failed_makes_a_new_page(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_gone(rig, a, "exit status 0");
	rig_event(rig, EVENT_LOOK, a, NULL);
	uint64_t before = engine_version(rig->engine);
	untold(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_true(engine_version(rig->engine) > before);
}

static void test_a_stop_of_what_nobody_sees_fails(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	bool forced[] = { false, true };

	(void)state;
	rig_start(rig);
	rig_run(rig, b);
	lose_sight(rig, a);
	for (size_t i = 0; i < 2; i++) {
		uint64_t ticket =
			forced[i] ? rig_submit_force(rig, REQUEST_STOP, a) : rig_submit(rig, REQUEST_STOP, a, 0);
		assert_int_equal(rig_outcome(rig, ticket), OUTCOME_STOP_FAILED);
		assert_non_null(strstr(rig_detail(rig, ticket), "the engine is away"));
	}
	/* Whatever can be stopped is. */
	uint64_t all = rig_submit(rig, REQUEST_RELEASE_ALL, 0, 0);
	rig_down(rig, b);
	assert_int_equal(rig_status(rig, b)->state, SERVICE_STOPPED);
	assert_int_equal(rig_outcome(rig, all), OUTCOME_STOP_FAILED);
	assert_non_null(strstr(rig_detail(rig, all), "a: it is not known whether it runs"));
}

/* A start is tried, and when that was in vain it may have been done: no stop is sure before somebody has looked. */
static void test_a_start_of_what_nobody_sees(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct event failed = { .kind = EVENT_START_FAILED,
		.service = a,
		.failure = START_FAILURE_UNTOLD,
		.text = "docker: the engine is away" };

	(void)state;
	rig_start(rig);
	lose_sight(rig, a);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, 0);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 1);
	failed.run = rig->run[a];
	rig_handle(rig, &failed);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_STOP, a, 0)), OUTCOME_STOP_FAILED);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	rig_event(rig, EVENT_LOOK, a, NULL);
	rig_found(rig, a, false, false);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_STOPPED);
	assert_string_equal(rig_status(rig, a)->error != NULL ? rig_status(rig, a)->error : "", "");
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_STOP, a, 0)), OUTCOME_DONE);
}

/* What failed, and how, is known whoever is away now. */
static void test_an_error_stays_one(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_gone(rig, a, "exited with status 139");
	rig_read(rig);
	lose_sight(rig, a);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_ERROR);
	assert_string_equal(rig_status(rig, a)->error, "exited with status 139");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_an_answer_from_before_the_pause),
		cmocka_unit_test(test_paused_while_leased),
		cmocka_unit_test(test_requests_for_what_is_paused),
		cmocka_unit_test(test_paused_can_be_restarted_and_evicted),
		cmocka_unit_test(test_paused_while_it_starts),
		cmocka_unit_test(test_stopped_by_others),
		cmocka_unit_test(test_stopped_by_others_while_leased),
		cmocka_unit_test(test_stopped_by_others_while_it_starts),
		cmocka_unit_test(test_what_nobody_sees_is_unknown),
		cmocka_unit_test(test_a_look_in_vain_at_what_failed_makes_a_new_page),
		cmocka_unit_test(test_a_stop_of_what_nobody_sees_fails),
		cmocka_unit_test(test_a_start_of_what_nobody_sees),
		cmocka_unit_test(test_an_error_stays_one),
	};

	return cmocka_run_group_tests_name("core/outside", tests, NULL, NULL);
}
