/* The lock across hosts by example: what waits for it, what does not, when it is wanted, and what its loss means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

struct bench {
	size_t a, b;
};

static struct rig *new_rig(struct bench *bench)
{
	struct rig *rig = rig_new(1, CARD);
	rig->config.uses_lock = true;
	bench->a = rig_service(rig, "a", 8000, 50);
	bench->b = rig_service(rig, "b", 8000, 60);
	return rig;
}

/* Both services run; nobody has a lease. */
static struct rig *warm_rig(struct bench *bench)
{
	struct rig *rig = new_rig(bench);
	rig_start(rig);
	rig_run(rig, bench->a);
	rig_run(rig, bench->b);
	rig_forget(rig);
	return rig;
}

static uint64_t ask(struct rig *rig, size_t service, int64_t wait_ms)
{
	struct lease_terms terms = rig_terms(&service, 1, LEASE_EXCLUSIVE);
	return rig_submit_lease(rig, &terms, wait_ms);
}

static uint64_t ask_holding(struct rig *rig, size_t service, uint64_t fence)
{
	struct lease_terms terms = rig_terms(&service, 1, LEASE_EXCLUSIVE);
	terms.n_holding = 1;
	terms.holding = &fence;
	return rig_submit_lease(rig, &terms, WAIT);
}

/* What was last said of the lock since the last rig_forget(): 1 wanted, 0 not, -1 nothing. */
static int wanted(const struct rig *rig)
{
	for (size_t i = rig->n; i > 0; i--)
		if (rig->seen[i - 1].effect.kind == EFFECT_LOCK)
			return rig->seen[i - 1].effect.lock_wanted;
	return -1;
}

static uint64_t fence_at(struct rig *rig, size_t index)
{
	return engine_status(rig->engine, rig->now)->leases[index]->fence;
}

static void test_without_a_lock_nothing_is_said_of_it(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig->config.uses_lock = false;
	rig_start(rig);
	rig_run(rig, bench.a);
	assert_int_equal(rig_outcome(rig, ask(rig, bench.a, WAIT)), OUTCOME_DONE);
	assert_int_equal(wanted(rig), -1);
}

static void test_said_once_at_the_start(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	assert_int_equal(wanted(rig), 0);
}

static void test_taken_for_the_first_and_given_back_with_the_last(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	uint64_t first = ask(rig, bench.a, WAIT);
	assert_int_equal(wanted(rig), 1);
	assert_int_equal(rig_last(rig, EFFECT_LOCK, bench.a)->effect.service, bench.a);
	assert_int_equal(rig_outcome(rig, first), -1);
	assert_string_equal(rig_detail(rig, first), "takes the lock");
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	rig_forget(rig);
	assert_int_equal(rig_outcome(rig, ask(rig, bench.b, WAIT)), OUTCOME_DONE);
	rig_release(rig, fence_at(rig, 0));
	assert_int_equal(wanted(rig), -1);
	rig_release(rig, fence_at(rig, 0));
	assert_int_equal(wanted(rig), 0);
}

static void test_what_is_cold_is_not_started_before(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig_start(rig);
	uint64_t ticket = ask(rig, bench.a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, bench.a), 0);
	rig_lock(rig, LOCK_FOREIGN, "gpu_mutex_v2 is held by comfyui");
	assert_int_equal(rig_count(rig, EFFECT_START, bench.a), 0);
	assert_string_equal(rig_detail(rig, ticket), "waits for the lock: gpu_mutex_v2 is held by comfyui");
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_count(rig, EFFECT_START, bench.a), 1);
	rig_up(rig, bench.a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

static void test_nobody_is_evicted_before(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);
	size_t big = rig_service(rig, "big", 20000, 100);

	(void)state;
	rig_start(rig);
	rig_run(rig, bench.a);
	ask(rig, big, WAIT);
	rig_lock(rig, LOCK_FOREIGN, "");
	assert_int_equal(rig_count(rig, EFFECT_STOP, bench.a), 0);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_count(rig, EFFECT_STOP, bench.a), 1);
}

static void test_what_is_no_lease_goes_on(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig_start(rig);
	ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_UNAVAILABLE, "Redis is down");
	rig_run(rig, bench.a);
	rig_run(rig, bench.b);
	uint64_t stop = rig_submit(rig, REQUEST_STOP, bench.b, WAIT);
	rig_down(rig, bench.b);
	assert_int_equal(rig_outcome(rig, stop), OUTCOME_DONE);
}

static void test_what_can_never_be_is_refused_without_it(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);
	size_t huge = rig_service(rig, "huge", 30000, 100);

	(void)state;
	rig_start(rig);
	rig_forget(rig);
	assert_int_equal(rig_outcome(rig, ask(rig, huge, WAIT)), OUTCOME_INSUFFICIENT_VRAM);
	assert_int_equal(wanted(rig), -1);
}

/* Who waits for something else on this host must not keep the lock from others meanwhile. */
static void test_not_wanted_for_who_waits_for_something_else(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig_start(rig);
	rig_submit(rig, REQUEST_START, bench.a, WAIT);
	uint64_t ticket = ask(rig, bench.a, WAIT);
	assert_int_equal(wanted(rig), -1);
	rig_up(rig, bench.a);
	assert_int_equal(wanted(rig), 1);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

static void test_not_wanted_any_more_when_the_last_goes_away(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	uint64_t ticket = ask(rig, bench.a, WAIT);
	assert_int_equal(wanted(rig), 1);
	rig_withdraw(rig, ticket);
	assert_int_equal(wanted(rig), 0);
	rig_forget(rig);
	rig_lock(rig, LOCK_HELD, ""); /* too late: it was given back */
	assert_int_equal(rig_outcome(rig, ask(rig, bench.a, WAIT)), -1);
	assert_int_equal(wanted(rig), 1);
}

static void test_who_cannot_wait_waits_for_the_first_word(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	uint64_t first = ask(rig, bench.a, 0);
	assert_int_equal(rig_outcome(rig, first), -1);
	assert_true(engine_next_deadline(rig->engine) > rig->now); /* nothing spins meanwhile */
	rig_tick(rig, 500);
	assert_int_equal(rig_outcome(rig, first), -1);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	rig_release(rig, fence_at(rig, 0));
	uint64_t second = ask(rig, bench.a, 0);
	rig_lock(rig, LOCK_FOREIGN, "vidi has it");
	assert_int_equal(rig_outcome(rig, second), OUTCOME_LEASE_TIMEOUT);
	uint64_t third = ask(rig, bench.a, 0);
	rig_lock(rig, LOCK_UNAVAILABLE, "Redis is down");
	assert_int_equal(rig_outcome(rig, third), OUTCOME_LOCK_UNAVAILABLE);
	assert_int_equal(wanted(rig), 0);
}

/* Whoever would be evicted is asked whether it works; the lock is not given back for that moment. */
static void test_kept_while_somebody_is_asked(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);
	size_t big = rig_service(rig, "big", 20000, 100);

	(void)state;
	rig->services[bench.a].has_busy_probe = true;
	rig_start(rig);
	rig_run(rig, bench.a);
	rig_tick(rig, 2000); /* what it said when it was ready is old */
	uint64_t ticket = ask(rig, big, WAIT);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_count(rig, EFFECT_STOP, bench.a), 0);
	assert_int_equal(wanted(rig), 1);
	struct event idle = {
		.kind = EVENT_BUSY, .service = bench.a, .run = rig->run[bench.a], .busy = { true, false }
	};
	rig_handle(rig, &idle);
	assert_int_equal(rig_count(rig, EFFECT_STOP, bench.a), 1);
	assert_int_equal(wanted(rig), 1);
}

static void test_waits_run_out(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	uint64_t first = ask(rig, bench.a, 1000), second = ask(rig, bench.b, 3000);
	rig_lock(rig, LOCK_FOREIGN, "vidi has it");
	rig_wait(rig, 1000);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_LEASE_TIMEOUT);
	rig_lock(rig, LOCK_UNAVAILABLE, "Redis is down");
	rig_wait(rig, 1999);
	assert_int_equal(rig_outcome(rig, second), -1);
	assert_int_equal(wanted(rig), 1);
	rig_wait(rig, 1);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_LOCK_UNAVAILABLE);
	assert_int_equal(wanted(rig), 0);
}

static void test_priority_decides_who_is_first_when_it_comes(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);
	struct lease_terms low = rig_terms(&bench.a, 1, LEASE_EXCLUSIVE),
			   high = rig_terms(&bench.a, 1, LEASE_EXCLUSIVE);

	(void)state;
	high.has_priority = true;
	high.priority = 200;
	uint64_t first = rig_submit_lease(rig, &low, WAIT), second = rig_submit_lease(rig, &high, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, first), -1);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_DONE);
}

static void test_its_loss_ends_every_lease(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	ask(rig, bench.a, WAIT);
	ask(rig, bench.b, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	uint64_t first = fence_at(rig, 0), second = fence_at(rig, 1);
	rig_forget(rig);
	rig_lock(rig, LOCK_LOST, "the key is gone");
	assert_int_equal(rig_end(rig, first), LEASE_LOCK_LOST);
	assert_int_equal(rig_end(rig, second), LEASE_LOCK_LOST);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_status(rig, bench.a)->state, SERVICE_READY);
	assert_int_equal(wanted(rig), 0);
	assert_int_equal(rig_notices(rig, "lock", "lost"), 1);
}

/* Somebody else may be granted the same meanwhile: what was begun under the lock is not granted after its loss. */
static void test_its_loss_while_a_service_boots(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);

	(void)state;
	rig_start(rig);
	uint64_t ticket = ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	rig_lock(rig, LOCK_LOST, "the key is gone");
	rig_lock(rig, LOCK_HELD, "");
	rig_up(rig, bench.a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_LOCK_UNAVAILABLE);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(wanted(rig), 0);
	assert_int_equal(rig_status(rig, bench.a)->state, SERVICE_READY);
}

static void test_its_loss_between_ready_and_granted(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	rig->fences_are_late = true;
	uint64_t ticket = ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	struct event fence = { .kind = EVENT_FENCE,
		.fence = { .id = rig_last(rig, EFFECT_FENCE, 0)->effect.answer.id, .fence = 200 } };
	rig_lock(rig, LOCK_LOST, "the key is gone");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_LOCK_UNAVAILABLE);
	assert_non_null(strstr(rig_detail(rig, ticket), "the key is gone"));
	rig_handle(rig, &fence);
	assert_int_equal(rig_n_leases(rig), 0);
}

static void test_who_waits_gets_it_after_a_loss(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	uint64_t second = ask(rig, bench.a, WAIT);
	rig_forget(rig);
	rig_lock(rig, LOCK_LOST, "");
	assert_int_equal(rig_outcome(rig, second), -1);
	assert_int_not_equal(wanted(rig), 0);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, second), OUTCOME_DONE);
}

static void test_yielding_grants_nothing_new(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	rig_lock(rig, LOCK_YIELDING, "");
	rig_forget(rig);
	uint64_t other = ask(rig, bench.b, WAIT);
	assert_int_equal(rig_outcome(rig, other), -1);
	assert_string_equal(rig_detail(rig, other), "waits for the lock: another host has its turn first");
	assert_int_equal(wanted(rig), -1);
	rig_release(rig, fence_at(rig, 0));
	size_t n_told = 0;
	for (size_t i = 0; i < rig->n; i++)
		if (rig->seen[i].effect.kind == EFFECT_LOCK)
			assert_int_equal(rig->seen[i].effect.lock_wanted, n_told++);
	assert_int_equal(n_told, 2); /* given back, then asked for anew */
	assert_int_equal(rig_outcome(rig, other), -1);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_outcome(rig, other), OUTCOME_DONE);
}

/* Its client keeps the lock from being given back, and waits for nothing but this. */
static void test_yielding_lets_a_holder_go_on(void **state)
{
	struct bench bench;
	RIG rig = warm_rig(&bench);

	(void)state;
	ask(rig, bench.a, WAIT);
	rig_lock(rig, LOCK_HELD, "");
	rig_lock(rig, LOCK_YIELDING, "");
	assert_int_equal(rig_outcome(rig, ask_holding(rig, bench.b, 77)), -1);
	assert_int_equal(rig_outcome(rig, ask(rig, bench.b, WAIT)), -1);
	/* Not even behind who came before, and waits for its client's end. */
	assert_int_equal(rig_outcome(rig, ask_holding(rig, bench.b, fence_at(rig, 0))), OUTCOME_DONE);
}

static struct lease restored_lease(size_t *service)
{
	return (struct lease){ .fence = 7,
		.mode = LEASE_EXCLUSIVE,
		.n_services = 1,
		.services = service,
		.phase = LEASE_NO_PHASE,
		.gpus = GPU_BIT(0),
		.ttl_ms = 60000,
		.expires_ms = 61000,
		.owner = "of before" };
}

static void test_leases_of_before_want_it_at_once(void **state)
{
	struct bench bench;
	RIG rig = new_rig(&bench);
	struct lease lease = restored_lease(&bench.a);

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &lease, rig->now, 10000), 0);
	rig_tick(rig, 0);
	assert_int_equal(wanted(rig), 1);
	rig_lock(rig, LOCK_HELD, "");
	assert_int_equal(rig_n_leases(rig), 1);
	rig_lock(rig, LOCK_LOST, "somebody else had it");
	assert_int_equal(rig_end(rig, 7), LEASE_LOCK_LOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_lock_nothing_is_said_of_it),
		cmocka_unit_test(test_said_once_at_the_start),
		cmocka_unit_test(test_taken_for_the_first_and_given_back_with_the_last),
		cmocka_unit_test(test_what_is_cold_is_not_started_before),
		cmocka_unit_test(test_nobody_is_evicted_before),
		cmocka_unit_test(test_what_is_no_lease_goes_on),
		cmocka_unit_test(test_what_can_never_be_is_refused_without_it),
		cmocka_unit_test(test_not_wanted_for_who_waits_for_something_else),
		cmocka_unit_test(test_not_wanted_any_more_when_the_last_goes_away),
		cmocka_unit_test(test_who_cannot_wait_waits_for_the_first_word),
		cmocka_unit_test(test_kept_while_somebody_is_asked),
		cmocka_unit_test(test_waits_run_out),
		cmocka_unit_test(test_priority_decides_who_is_first_when_it_comes),
		cmocka_unit_test(test_its_loss_ends_every_lease),
		cmocka_unit_test(test_its_loss_while_a_service_boots),
		cmocka_unit_test(test_its_loss_between_ready_and_granted),
		cmocka_unit_test(test_who_waits_gets_it_after_a_loss),
		cmocka_unit_test(test_yielding_grants_nothing_new),
		cmocka_unit_test(test_yielding_lets_a_holder_go_on),
		cmocka_unit_test(test_leases_of_before_want_it_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
