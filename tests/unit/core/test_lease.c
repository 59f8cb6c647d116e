/* Leases by example: what each mode excludes, how they begin and end, and what they protect. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

static uint64_t ask_for(struct rig *rig, size_t service, enum lease_mode mode)
{
	struct lease_terms terms = rig_terms(&service, 1, mode);
	return rig_submit_lease(rig, &terms, WAIT);
}

static void test_cold_lease_starts_its_service(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	uint64_t ticket = ask_for(rig, a, LEASE_EXCLUSIVE);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 1);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_n_leases(rig), 1);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
	assert_true(rig_granted_before_reply(rig, ticket));
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
}

static void test_exclusive_excludes_and_hands_over(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t first = ask_for(rig, a, LEASE_EXCLUSIVE), second = ask_for(rig, a, LEASE_SHARED);
	uint64_t third = ask_for(rig, a, LEASE_EXCLUSIVE);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, second), -1);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	assert_true(rig_lease_at(rig, 0)->is_wanted);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_WANTED), 1);
	rig_release(rig, fence);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, third), -1);
	assert_true(rig_lease_at(rig, 0)->fence > fence);
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_outcome(rig, third), OUTCOME_DONE);
}

static void test_shared_up_to_max(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig->services[a].max_leases = 2;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t tickets[3];
	for (size_t i = 0; i < 3; i++)
		tickets[i] = ask_for(rig, a, LEASE_SHARED);
	assert_int_equal(rig_outcome(rig, tickets[1]), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, tickets[2]), -1);
	rig_release(rig, rig_lease_at(rig, 1)->fence);
	assert_int_equal(rig_outcome(rig, tickets[2]), OUTCOME_DONE);
}

/* A waiting exclusive lease is not overtaken for ever by shared ones. */
static void test_shared_does_not_pass_waiting_exclusive(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	ask_for(rig, a, LEASE_SHARED);
	uint64_t exclusive = ask_for(rig, a, LEASE_EXCLUSIVE), late = ask_for(rig, a, LEASE_SHARED);
	uint64_t beside = ask_for(rig, b, LEASE_EXCLUSIVE);
	assert_int_equal(rig_outcome(rig, late), -1);
	assert_int_equal(rig_outcome(rig, beside), OUTCOME_DONE); /* it delays nobody */
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_outcome(rig, exclusive), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, late), -1);
}

static void test_gpu_mode_is_the_mutex_of_the_card(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	size_t c = rig_service(rig, "c", 8000, 50);

	(void)state;
	rig->services[a].allowed = rig->services[b].allowed = GPU_BIT(0);
	rig->services[c].allowed = GPU_BIT(1);
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	rig_run(rig, c);
	uint64_t first = ask_for(rig, a, LEASE_GPU), beside = ask_for(rig, b, LEASE_SHARED);
	uint64_t elsewhere = ask_for(rig, c, LEASE_GPU);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, beside), -1);
	assert_int_equal(rig_outcome(rig, elsewhere), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, b)->state, SERVICE_READY); /* residents stay */
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_outcome(rig, beside), OUTCOME_DONE);
}

/* A phase waits for who uses what it would stop. */
static void test_phase_waits_for_lease(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 10), big = rig_service(rig, "big", 20000, 90);
	size_t phase = rig_phase(rig, 4, (size_t[]){ big, SIZE_MAX });

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_forget(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_PHASE, phase, WAIT);
	uint64_t late = ask_for(rig, a, LEASE_SHARED);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	assert_string_equal(rig_lease_at(rig, 0)->wanted_by, "phase 4");
	rig_wait(rig, 9000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_release(rig, fence);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	rig_down(rig, a);
	rig_up(rig, big);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, late), OUTCOME_INSUFFICIENT_VRAM); /* its turn came after the phase's */
}

/* Who waits for a service of higher priority to end its work waits on until it is idle for long enough. */
static void test_parked_until_it_yields(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 20000, 90), low = rig_service(rig, "low", 8000, 10);
	struct lease_terms terms = rig_terms(&low, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, high);
	ask_for(rig, high, LEASE_EXCLUSIVE);
	uint64_t ticket = rig_submit_lease(rig, &terms, 300000);
	const struct transition *record = engine_transition(rig->engine, rig_transition(rig, ticket));
	assert_int_equal(record->state, TRANSITION_PARKED);
	assert_non_null(strstr(record->detail, "high, which is in use"));
	assert_int_equal(record->blockers[0].reason, BLOCKED_BY_USE);
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	for (int i = 0; i < 11; i++)
		rig_health(rig, high, true);
	assert_int_equal(rig_count(rig, EFFECT_STOP, high), 0);
	rig_read(rig);
	rig_wait(rig, 5000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, high), 1);
	rig_down(rig, high);
	rig_found(rig, low, false, false); /* it was looked for when readings came back */
	rig_up(rig, low);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

static void test_preempt_after(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 10), big = rig_service(rig, "big", 20000, 90);
	struct lease_terms terms = rig_terms(&a, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig->services[a].preempt_after_ms = 3000;
	rig_start(rig);
	rig_run(rig, a);
	terms.attached = true;
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_forget(rig);
	rig_submit(rig, REQUEST_START, big, WAIT);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_WANTED), 1);
	assert_int_equal(rig_lease_at(rig, 0)->breaks_ms, rig->now + 3000);
	rig_wait(rig, 2900);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_wait(rig, 200);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_ENDED), 1);
	assert_int_equal(rig_end(rig, fence), LEASE_BROKEN);
	rig_down(rig, a);
	assert_int_equal(rig_count(rig, EFFECT_START, big), 1);
}

/* Equal priority is no right to break. */
static void test_preempt_after_is_for_the_entitled(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct lease_terms terms = rig_terms(&a, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig->services[a].preempt_after_ms = 1000;
	rig_start(rig);
	rig_run(rig, a);
	terms.attached = true;
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t equal = rig_submit_lease(rig, &terms, WAIT);
	rig_wait(rig, 5000);
	assert_int_equal(rig_outcome(rig, equal), -1);
	terms.has_priority = true;
	terms.priority = 51;
	uint64_t higher = rig_submit_lease(rig, &terms, WAIT);
	rig_wait(rig, 1100);
	assert_int_equal(rig_outcome(rig, higher), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, equal), -1);
}

static void test_time_runs_out_unless_renewed(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_wait(rig, 9000);
	rig_renew(rig, fence, 0);
	rig_wait(rig, 9000);
	assert_int_equal(rig_n_leases(rig), 1);
	rig_renew(rig, fence, 2000);
	rig_wait(rig, 1900);
	assert_int_equal(rig_n_leases(rig), 1);
	rig_wait(rig, 200);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_end(rig, fence), LEASE_EXPIRED);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

static void test_crash_keeps_the_reservation(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), b = rig_service(rig, "b", 16000, 90);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_down(rig, a);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_SERVICE_FAILED), 1);
	assert_int_equal(rig_n_leases(rig), 1);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 16000);
	uint64_t other = rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_outcome(rig, other), -1);
	/* Its holder may have it back. */
	rig_forget(rig);
	rig_submit(rig, REQUEST_START, a, WAIT);
	rig_wait(rig, 100);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_release(rig, fence);
	rig_wait(rig, 100);
	assert_int_equal(rig_n_leases(rig), 0);
}

static void test_crashed_service_starts_again_for_its_holder(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_down(rig, a);
	rig_forget(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 1);
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 16000);
}

/* Reserved for who leased it, and given back when the lease ends while it is down. */
static void test_release_of_a_crashed_service(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_down(rig, a);
	rig_release(rig, fence);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
	assert_false(rig_status(rig, a)->live);
}

static void test_forced_stop_breaks_leases(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	uint64_t gentle = rig_submit(rig, REQUEST_STOP, a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_submit_force(rig, REQUEST_STOP, a);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_end(rig, fence), LEASE_FORCED);
	rig_down(rig, a);
	assert_int_equal(rig_outcome(rig, gentle), OUTCOME_DONE);
}

static void test_unlock_breaks_all(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	struct event event = { .kind = EVENT_UNLOCK };

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	ask_for(rig, b, LEASE_SHARED);
	rig_handle(rig, &event);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
}

static void test_several_services_all_or_nothing(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	size_t both[] = { a, b };
	struct lease_terms terms = rig_terms(both, 2, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t ticket = rig_submit_lease(rig, &terms, WAIT);
	/* `a` is well and `b` boots: both are claimed already. */
	uint64_t other = ask_for(rig, a, LEASE_SHARED);
	assert_int_equal(rig_outcome(rig, other), -1);
	rig_up(rig, b);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, other), -1);
	assert_int_equal(rig_lease_at(rig, 0)->n_services, 2);
}

static void test_failed_start_leaves_no_claim(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	size_t both[] = { a, b };
	struct lease_terms terms = rig_terms(both, 2, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t ticket = rig_submit_lease(rig, &terms, WAIT), other = ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_start_failed(rig, b, "exit status 1");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig_outcome(rig, other), OUTCOME_DONE);
}

static void test_room(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10);
	struct lease_terms terms = rig_room(10000);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_forget(rig);
	uint64_t ticket = rig_submit_lease(rig, &terms, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1); /* priority 10 is below that of leased room */
	rig_down(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 10000);
	/* What its process takes is the room's, not foreign. */
	rig->foreign_mib[0] = 9000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	rig->foreign_mib[0] = 10500;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 500);
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 10500);
}

static struct lease kept_room(uint32_t mib, uint32_t base_mib)
{
	return (struct lease){ .fence = 7,
		.phase = LEASE_NO_PHASE,
		.gpus = 1,
		.room_mib = mib,
		.room_base_mib = base_mib,
		.priority = 50,
		.expires_ms = 1000000 };
}

/* What was foreign before the room was leased is foreign after a restart, too. */
static void test_room_of_before_a_restart(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 14000, 50);
	struct lease_terms terms = rig_room(8000);

	(void)state;
	rig_start(rig);
	rig->foreign_mib[0] = 2000;
	rig_read(rig);
	rig_submit_lease(rig, &terms, WAIT);
	struct lease kept = *rig_lease_at(rig, 0);
	assert_int_equal(kept.room_base_mib, 2000);
	rig->engine = engine_destroy(rig->engine);
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, false, false);
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
	rig_submit(rig, REQUEST_START, a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 0); /* 2000 and 8000 leave too little */
	rig->foreign_mib[0] = 9000; /* its process fills it */
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
}

/* An older gpumgrd did not keep that: all that is there counts as foreign, once all services are looked for. */
static void test_room_of_which_nobody_knows_what_was_before(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50);
	struct lease kept = kept_room(8000, GPU_MIB_UNKNOWN);

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig->foreign_mib[0] = 2000;
	rig->measured_mib[0][a] = 4000;
	rig_read(rig);
	assert_int_equal(rig_lease_at(rig, 0)->room_base_mib, GPU_MIB_UNKNOWN); /* some of it may be a's */
	rig_found(rig, a, true, true);
	rig_tick(rig, 10);
	rig_read(rig);
	assert_int_equal(rig_lease_at(rig, 0)->room_base_mib, 2000);
	assert_int_equal(rig_news(rig, 7, LEASE_NEWS_MOVED), 1); /* the next gpumgrd is to know it */
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
	rig->foreign_mib[0] = 9000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
}

/* Nor can anybody tell while there are no readings. */
static void test_room_that_is_leased_blindly(void **state)
{
	RIG rig = rig_new(1, CARD);
	struct lease_terms terms = rig_room(8000);

	(void)state;
	rig_start(rig);
	rig_wait(rig, 11000);
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, WAIT)), OUTCOME_DONE);
	assert_int_equal(rig_lease_at(rig, 0)->room_base_mib, GPU_MIB_UNKNOWN);
	rig->foreign_mib[0] = 2000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
	assert_int_equal(rig_lease_at(rig, 0)->room_base_mib, 2000);
}

/* What rooms take is not there for anybody else, and ends like any lease. */
static void test_rooms_are_waited_for(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t low = rig_service(rig, "low", 4000, 10), big = rig_service(rig, "big", 16000, 90);
	struct lease_terms terms = rig_room(12000);

	(void)state;
	rig_start(rig);
	rig_run(rig, low);
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_forget(rig);
	uint64_t start = rig_submit(rig, REQUEST_START, big, WAIT), second = rig_submit_lease(rig, &terms, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, low), 0); /* it would not help */
	assert_int_equal(rig_outcome(rig, start), -1);
	assert_int_equal(rig_outcome(rig, second), -1);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_WANTED), 1);
	rig_release(rig, fence);
	assert_int_equal(rig_count(rig, EFFECT_START, big), 1);
	terms.n_holding = 0;
	rig_up(rig, big);
	assert_int_equal(rig_outcome(rig, start), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_INSUFFICIENT_VRAM);
}

/* Where readings tell totals only, strangers do not hide behind room that is not filled yet. */
static void test_room_with_totals_only(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50);
	struct lease_terms terms = rig_room(3000);

	(void)state;
	rig->totals_only = true;
	rig_start(rig);
	rig_run(rig, a);
	rig->foreign_mib[0] = 2000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
	rig_submit_lease(rig, &terms, WAIT);
	assert_int_equal(rig_n_leases(rig), 1);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
	rig->foreign_mib[0] = 5000; /* its process fills it */
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 2000);
}

/* What no card can hold is refused, whoever works there now. */
static void test_what_never_fits_does_not_wait(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), huge = rig_service(rig, "huge", 40000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	assert_int_equal(rig_outcome(rig, ask_for(rig, huge, LEASE_EXCLUSIVE)), OUTCOME_INSUFFICIENT_VRAM);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, huge, WAIT)), OUTCOME_INSUFFICIENT_VRAM);
}

static void test_own_room_would_deadlock(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t big = rig_service(rig, "big", 16000, 90);
	struct lease_terms terms = rig_room(12000), more = rig_terms(&big, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t held[] = { rig_lease_at(rig, 0)->fence };
	more.n_holding = 1;
	more.holding = held;
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &more, WAIT)), OUTCOME_WOULD_DEADLOCK);
}

static void test_no_grace_is_broken_at_once(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), big = rig_service(rig, "big", 20000, 90);

	(void)state;
	rig->services[a].preempt_after_ms = 0;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_submit(rig, REQUEST_START, big, WAIT);
	assert_int_equal(rig_end(rig, fence), LEASE_BROKEN);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_WANTED), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

/* It will be reserved again when its last process is gone. */
/* Who has no grace for one of its services has none when that one will do, though another was looked at first. */
static void test_the_shortest_grace_counts(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t leased[] = { rig_service(rig, "a", 8000, 10), rig_service(rig, "b", 8000, 0) };
	size_t c = rig_service(rig, "c", 12000, 50);
	size_t phase = rig_phase(rig, 4, (size_t[]){ c, SIZE_MAX });
	struct lease_terms both = rig_terms(leased, 1, LEASE_EXCLUSIVE);

	(void)state;
	both.n_services = 2;
	rig->services[leased[0]].preempt_after_ms = 0;
	rig->services[leased[1]].preempt_after_ms = 60000;
	rig_start(rig);
	rig_run(rig, leased[0]);
	rig_run(rig, leased[1]);
	rig_submit_lease(rig, &both, WAIT);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig_submit(rig, REQUEST_PHASE, phase, WAIT);
	assert_int_equal(rig_end(rig, fence), LEASE_BROKEN);
	assert_int_equal(rig_count(rig, EFFECT_STOP, leased[0]), 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, leased[1]), 0);
}

static void test_dying_leased_service_leaves_no_room(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), other = rig_service(rig, "other", 16000, 90);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_event(rig, EVENT_LEADER_ENDED, a, "exit status 1");
	uint64_t ticket = rig_submit(rig, REQUEST_START, other, WAIT);
	rig_down(rig, a);
	rig_wait(rig, 8000);
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_count(rig, EFFECT_START, other), 0);
	assert_int_equal(rig_n_leases(rig), 1);
}

static void test_limits(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig->config.leases_max = 2;
	rig->config.queue_max = 2;
	rig_start(rig);
	uint64_t first = ask_for(rig, a, LEASE_SHARED), second = ask_for(rig, a, LEASE_SHARED);
	uint64_t full = rig_submit_force(rig, REQUEST_STOP, a);
	assert_int_equal(rig_outcome(rig, full), OUTCOME_TOO_MANY);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0); /* what is refused does nothing */
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, ask_for(rig, a, LEASE_SHARED)), OUTCOME_TOO_MANY);
}

static void test_own_lease_would_deadlock(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 50), b = rig_service(rig, "b", 16000, 90);
	struct lease_terms terms = rig_terms(&a, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t held[] = { rig_lease_at(rig, 0)->fence };
	terms.n_holding = 1;
	terms.holding = held;
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, WAIT)), OUTCOME_WOULD_DEADLOCK);
	terms.services = &b; /* it would have to evict what its own client leases */
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, WAIT)), OUTCOME_WOULD_DEADLOCK);
}

static void test_circle_of_two_would_deadlock(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	struct lease_terms left = rig_terms(&a, 1, LEASE_EXCLUSIVE), right = rig_terms(&b, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	rig_submit_lease(rig, &left, WAIT);
	rig_submit_lease(rig, &right, WAIT);
	uint64_t has_a[] = { rig_lease_at(rig, 0)->fence }, has_b[] = { rig_lease_at(rig, 1)->fence };
	left.holding = has_b;
	right.holding = has_a;
	left.n_holding = right.n_holding = 1;
	uint64_t first = rig_submit_lease(rig, &left, WAIT), second = rig_submit_lease(rig, &right, WAIT);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_WOULD_DEADLOCK);
	assert_int_equal(rig_outcome(rig, first), -1);
}

/* B has to wait for C, who waits for nobody: no circle, although A waits for B. */
static void test_chain_is_no_circle(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);
	size_t c = rig_service(rig, "c", 4000, 50);
	size_t services[] = { a, b, c };
	struct lease_terms terms[3];
	uint64_t held[3];

	(void)state;
	rig_start(rig);
	for (size_t i = 0; i < 3; i++) {
		rig_run(rig, services[i]);
		terms[i] = rig_terms(&services[i], 1, LEASE_EXCLUSIVE);
		rig_submit_lease(rig, &terms[i], WAIT);
		held[i] = rig_lease_at(rig, i)->fence;
	}
	terms[1].n_holding = terms[2].n_holding = 1;
	terms[1].holding = &held[0];
	terms[2].holding = &held[1];
	uint64_t first = rig_submit_lease(rig, &terms[1], WAIT), second = rig_submit_lease(rig, &terms[2], WAIT);
	assert_int_equal(rig_outcome(rig, first), -1);
	assert_int_equal(rig_outcome(rig, second), -1);
	terms[0].n_holding = 1;
	terms[0].holding = &held[2]; /* C asks for a: now it is one */
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms[0], WAIT)), OUTCOME_WOULD_DEADLOCK);
	rig_release(rig, held[2]);
	assert_int_equal(rig_outcome(rig, second), OUTCOME_DONE);
}

/* What is leased for its card starts again on that card. */
static void test_dying_leased_service_stays_where_it_stood(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig->services[b].allowed = GPU_BIT(0);
	rig_start(rig);
	rig_run(rig, b);
	ask_for(rig, b, LEASE_GPU);
	ask_for(rig, a, LEASE_GPU);
	rig_up(rig, a);
	assert_int_equal(rig_lease_at(rig, 1)->gpus, GPU_BIT(1));
	rig_event(rig, EVENT_LEADER_ENDED, a, "exit status 1");
	rig_submit(rig, REQUEST_START, a, WAIT);
	rig_forget(rig);
	rig_down(rig, a);
	assert_int_equal(rig_last(rig, EFFECT_START, a)->effect.gpus, GPU_BIT(1));
	assert_int_equal(rig_lease_at(rig, 1)->gpus, GPU_BIT(1));
}

/* Nobody was promised the card that what dies leaves: once it starts elsewhere, that card is free for others. */
static void test_claim_leaves_the_card_that_its_service_left(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig->services[b].allowed = GPU_BIT(0);
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	assert_int_equal(rig_status(rig, a)->gpus, GPU_BIT(0));
	rig->foreign_mib[0] = 12000;
	rig_read(rig);
	rig_event(rig, EVENT_LEADER_ENDED, a, "exit status 1");
	ask_for(rig, a, LEASE_GPU);
	uint64_t other = ask_for(rig, b, LEASE_GPU);
	assert_int_equal(rig_outcome(rig, other), -1); /* it still stands there */
	rig_forget(rig);
	rig_down(rig, a);
	assert_int_equal(rig_last(rig, EFFECT_START, a)->effect.gpus, GPU_BIT(1));
	assert_int_equal(rig_outcome(rig, other), OUTCOME_DONE);
}

static void test_request_id(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50), b = rig_service(rig, "b", 8000, 50);
	struct lease_terms terms = rig_terms(&a, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	terms.request_id = "job-7";
	uint64_t first = rig_submit_lease(rig, &terms, WAIT), again = rig_submit_lease(rig, &terms, WAIT);
	assert_int_equal(rig_transition(rig, first), rig_transition(rig, again));
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, again), OUTCOME_DONE);
	assert_int_equal(rig_n_leases(rig), 1);
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, WAIT)), OUTCOME_DONE);
	assert_int_equal(rig_n_leases(rig), 1);
	terms.services = &b;
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, WAIT)), OUTCOME_REQUEST_ID_REUSED);
}

static void test_waiter_goes_away_or_gives_up(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);
	struct lease_terms terms = rig_terms(&a, 1, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	terms.attached = true;
	rig_submit_lease(rig, &terms, WAIT);
	uint64_t gone = rig_submit_lease(rig, &terms, WAIT), patient = rig_submit_lease(rig, &terms, 5000);
	rig_withdraw(rig, gone);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 1);
	rig_wait(rig, 5001);
	assert_int_equal(rig_outcome(rig, patient), OUTCOME_LEASE_TIMEOUT);
	const struct transition *record = engine_transition(rig->engine, rig_transition(rig, patient));
	assert_int_equal(record->n_blockers, 1); /* who was in the way */
	assert_int_equal(record->blockers[0].service, a);
	assert_false(rig_lease_at(rig, 0)->is_wanted);
	assert_int_equal(rig_outcome(rig, rig_submit_lease(rig, &terms, 0)), OUTCOME_LEASE_TIMEOUT);
}

static void test_client_of_a_booting_lease_goes_away(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	uint64_t ticket = ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_withdraw(rig, ticket);
	rig_up(rig, a);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	assert_int_equal(rig_status(rig, a)->n_leases, 0);
}

static void test_no_fence_no_lease(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig->fences_fail = true;
	assert_int_equal(rig_outcome(rig, ask_for(rig, a, LEASE_EXCLUSIVE)), OUTCOME_LOCK_UNAVAILABLE);
	assert_int_equal(rig_status(rig, a)->n_leases, 0);
	rig->fences_fail = false;
	assert_int_equal(rig_outcome(rig, ask_for(rig, a, LEASE_EXCLUSIVE)), OUTCOME_DONE);
}

static void test_detach_and_restart(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 50), b = rig_service(rig, "b", 16000, 90);
	struct lease attached = { .fence = 7, .n_services = 1, .services = &a, .gpus = 1, .attached = true };

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &attached, rig->now, 10000), 0);
	assert_int_equal(engine_restore_lease(rig->engine, &attached, rig->now, 10000), -EINVAL);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_found(rig, b, false, false);
	rig->measured_mib[0][a] = 16000;
	rig_read(rig);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
	uint64_t other = rig_submit(rig, REQUEST_START, b, WAIT);
	struct event event = { .kind = EVENT_ATTACH, .lease.fence = 7 };
	rig_wait(rig, 5000);
	rig_handle(rig, &event);
	rig_wait(rig, 20000);
	assert_int_equal(rig_outcome(rig, other), -1);
	assert_int_equal(rig_n_leases(rig), 1);
	event.kind = EVENT_DETACH;
	rig_handle(rig, &event);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

static void learn_allowed(struct rig *rig, size_t service, gpu_set allowed)
{
	const struct event event = { .kind = EVENT_ALLOWED, .service = service, .allowed = allowed };

	rig_handle(rig, &event);
}

/* GPUs that are named by UUID are known with the first reading: until then a lease tells where its service stood. */
static void test_place_of_before_it_is_known_what_it_may_use(void **state)
{
	RIG rig = rig_new(3, CARD);
	size_t a = rig_service(rig, "a", 18000, 50), b = rig_service(rig, "b", 18000, 50);
	size_t both[] = { a, b };
	struct lease kept = { .fence = 7, .n_services = 2, .services = both, .gpus = 6, .expires_ms = 1000000 };

	(void)state;
	rig->services[a].allowed = rig->services[b].allowed = 0;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, false, false);
	rig_found(rig, b, false, false);
	assert_int_equal(rig_account(rig, 1)->committed_mib, 2 * 18000); /* any of the two may have been there */
	assert_int_equal(rig_account(rig, 2)->committed_mib, 2 * 18000);
	learn_allowed(rig, a, 3);
	learn_allowed(rig, b, 4);
	rig_read(rig);
	assert_int_equal(rig_status(rig, a)->gpus, 2);
	assert_int_equal(rig_status(rig, b)->gpus, 4);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
	assert_int_equal(rig_account(rig, 1)->committed_mib, 18000);
	assert_int_equal(rig_account(rig, 2)->committed_mib, 18000);
}

/* Some of them by number and some by UUID. */
static void test_place_of_before_all_is_known_that_it_may_use(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 18000, 50);
	struct lease kept = { .fence = 7, .n_services = 1, .services = &a, .gpus = 2, .expires_ms = 1000000 };

	(void)state;
	rig->services[a].allowed = 1;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, false, false);
	learn_allowed(rig, a, 3);
	rig_read(rig);
	assert_int_equal(rig_status(rig, a)->gpus, 2);
}

/* Nobody knows yet which GPUs there are: what is found is booked where its lease stands. */
static void test_what_is_found_stands_where_its_lease_does(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 18000, 50), b = rig_service(rig, "b", 1000, 50);
	struct lease kept = { .fence = 7, .n_services = 1, .services = &a, .gpus = 2, .expires_ms = 1000000 };

	(void)state;
	rig->config.n_gpus = 0;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_found(rig, b, false, false);
	learn_allowed(rig, b, 1);
	rig_read(rig);
	assert_int_equal(rig_status(rig, a)->gpus, 2);
	assert_int_equal(rig_lease_at(rig, 0)->gpus, 2);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* Found, booked on a guess and leased there; then readings show it elsewhere. Who keeps the lease hears of it. */
static void test_a_move_is_told(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 8000, 50);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, ask_for(rig, a, LEASE_GPU)), OUTCOME_DONE);
	assert_int_equal(rig_lease_at(rig, 0)->gpus, 1);
	uint64_t fence = rig_lease_at(rig, 0)->fence;
	rig->measured_mib[1][a] = 8000;
	rig_read(rig);
	assert_int_equal(rig_lease_at(rig, 0)->gpus, 3);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_MOVED), 1);
	rig_read(rig);
	assert_int_equal(rig_news(rig, fence, LEASE_NEWS_MOVED), 1);
}

static void test_holder_does_not_come_back(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 50);
	struct lease attached = { .fence = 7, .n_services = 1, .services = &a, .gpus = 1, .attached = true };

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &attached, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, false, false);
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 16000);
	rig_wait(rig, 9900);
	assert_int_equal(rig_n_leases(rig), 1);
	rig_wait(rig, 200);
	assert_int_equal(rig_n_leases(rig), 0);
	assert_int_equal(rig_end(rig, 7), LEASE_ABANDONED);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* Some of it is not configured any more: the rest goes on, and its holder hears of it. */
static void test_holder_hears_what_is_not_configured_any_more(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 50);
	struct lease kept = {
		.fence = 7, .n_services = 1, .services = &a, .gpus = 1, .attached = true, .gone = "b, c"
	};
	const struct event event = { .kind = EVENT_ATTACH, .lease.fence = 7 };

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_handle(rig, &event);
	assert_int_equal(rig_news(rig, 7, LEASE_NEWS_SERVICES_GONE), 1);
	rig_handle(rig, &event);
	assert_int_equal(rig_news(rig, 7, LEASE_NEWS_SERVICES_GONE), 1);
	assert_int_equal(rig_n_leases(rig), 1);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
}

/* None of it is: it is kept for nobody but its holder, who hears why it ends. */
static void test_holder_hears_that_nothing_is_configured_any_more(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 50);
	struct lease kept = { .fence = 7, .mode = LEASE_GPU, .attached = true, .gone = "b" };
	struct event event = { .kind = EVENT_ATTACH, .lease.fence = 7 };

	(void)state;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	kept.fence = 8;
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), 0);
	kept.fence = 9;
	kept.attached = false; /* nobody will come and ask */
	assert_int_equal(engine_restore_lease(rig->engine, &kept, rig->now, 10000), -EINVAL);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, ask_for(rig, a, LEASE_GPU)), OUTCOME_DONE); /* it is in nobody's way */
	rig_handle(rig, &event);
	assert_int_equal(rig_end(rig, 7), LEASE_UNCONFIGURED);
	rig_wait(rig, 10100);
	assert_int_equal(rig_end(rig, 8), LEASE_ABANDONED);
}

/* ---- services that work without a lease ---- */

static void answer_busy(struct rig *rig, size_t service, bool known, bool busy)
{
	struct event event = { .kind = EVENT_BUSY, .service = service, .run = rig->run[service] };

	event.busy.known = known;
	event.busy.busy = busy;
	rig_handle(rig, &event);
}

static void test_busy_service_is_not_evicted(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), b = rig_service(rig, "b", 16000, 90);

	(void)state;
	rig->services[a].has_busy_probe = true;
	rig_start(rig);
	rig_run(rig, a);
	answer_busy(rig, a, true, false);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_READY);
	rig_wait(rig, 2000);
	rig_forget(rig);
	/* The last answer is too old to be relied on. */
	uint64_t ticket = rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	assert_int_equal(rig_count(rig, EFFECT_ASK_BUSY, a), 1);
	answer_busy(rig, a, true, true);
	assert_int_equal(rig_status(rig, a)->state, SERVICE_BUSY);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_wait(rig, 6000);
	answer_busy(rig, a, true, false);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
	assert_int_equal(rig_outcome(rig, ticket), -1);
}

static void test_silent_busy_probe_gives_way_in_the_end(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), b = rig_service(rig, "b", 16000, 90);

	(void)state;
	rig->services[a].has_busy_probe = true;
	rig_start(rig);
	rig_run(rig, a);
	answer_busy(rig, a, true, true);
	rig_submit(rig, REQUEST_START, b, WAIT);
	/* The first question after that comes 5 s later and is lost after 4. */
	rig_wait(rig, 15000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 0);
	rig_wait(rig, 20000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

static void test_yields_after_it_was_leased(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 90), low = rig_service(rig, "low", 16000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_release(rig, rig_lease_at(rig, 0)->fence);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, low, 0)), OUTCOME_INSUFFICIENT_VRAM);
	for (int i = 0; i < 13; i++)
		rig_health(rig, a, true);
	rig_read(rig);
	rig_submit(rig, REQUEST_START, low, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_STOP, a), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cold_lease_starts_its_service),
		cmocka_unit_test(test_exclusive_excludes_and_hands_over),
		cmocka_unit_test(test_shared_up_to_max),
		cmocka_unit_test(test_shared_does_not_pass_waiting_exclusive),
		cmocka_unit_test(test_gpu_mode_is_the_mutex_of_the_card),
		cmocka_unit_test(test_phase_waits_for_lease),
		cmocka_unit_test(test_parked_until_it_yields),
		cmocka_unit_test(test_preempt_after),
		cmocka_unit_test(test_preempt_after_is_for_the_entitled),
		cmocka_unit_test(test_time_runs_out_unless_renewed),
		cmocka_unit_test(test_crash_keeps_the_reservation),
		cmocka_unit_test(test_crashed_service_starts_again_for_its_holder),
		cmocka_unit_test(test_release_of_a_crashed_service),
		cmocka_unit_test(test_forced_stop_breaks_leases),
		cmocka_unit_test(test_unlock_breaks_all),
		cmocka_unit_test(test_several_services_all_or_nothing),
		cmocka_unit_test(test_failed_start_leaves_no_claim),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_room_of_before_a_restart),
		cmocka_unit_test(test_room_of_which_nobody_knows_what_was_before),
		cmocka_unit_test(test_room_that_is_leased_blindly),
		cmocka_unit_test(test_rooms_are_waited_for),
		cmocka_unit_test(test_room_with_totals_only),
		cmocka_unit_test(test_what_never_fits_does_not_wait),
		cmocka_unit_test(test_own_room_would_deadlock),
		cmocka_unit_test(test_no_grace_is_broken_at_once),
		cmocka_unit_test(test_the_shortest_grace_counts),
		cmocka_unit_test(test_dying_leased_service_leaves_no_room),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_own_lease_would_deadlock),
		cmocka_unit_test(test_circle_of_two_would_deadlock),
		cmocka_unit_test(test_chain_is_no_circle),
		cmocka_unit_test(test_dying_leased_service_stays_where_it_stood),
		cmocka_unit_test(test_claim_leaves_the_card_that_its_service_left),
		cmocka_unit_test(test_request_id),
		cmocka_unit_test(test_waiter_goes_away_or_gives_up),
		cmocka_unit_test(test_client_of_a_booting_lease_goes_away),
		cmocka_unit_test(test_no_fence_no_lease),
		cmocka_unit_test(test_detach_and_restart),
		cmocka_unit_test(test_place_of_before_it_is_known_what_it_may_use),
		cmocka_unit_test(test_place_of_before_all_is_known_that_it_may_use),
		cmocka_unit_test(test_what_is_found_stands_where_its_lease_does),
		cmocka_unit_test(test_a_move_is_told),
		cmocka_unit_test(test_holder_does_not_come_back),
		cmocka_unit_test(test_holder_hears_what_is_not_configured_any_more),
		cmocka_unit_test(test_holder_hears_that_nothing_is_configured_any_more),
		cmocka_unit_test(test_busy_service_is_not_evicted),
		cmocka_unit_test(test_silent_busy_probe_gives_way_in_the_end),
		cmocka_unit_test(test_yields_after_it_was_leased),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
