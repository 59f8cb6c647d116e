/*
 * What requests wait for when leases are in their way, by example: who waits, who is parked, who is refused, who is
 * warned, and who would wait for himself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

/* Attached; services by index, ended by SIZE_MAX. */
static struct lease_terms terms_on(const size_t *services, enum lease_mode mode)
{
	size_t n = 0;

	while (services[n] != SIZE_MAX)
		n++;
	struct lease_terms terms = rig_terms(services, n, mode);
	terms.attached = true;
	return terms;
}

static uint64_t ask_for(struct rig *rig, size_t service, enum lease_mode mode)
{
	struct lease_terms terms = terms_on((size_t[]){ service, SIZE_MAX }, mode);
	return rig_submit_lease(rig, &terms, WAIT);
}

static uint64_t ask_with_priority(struct rig *rig, size_t service, int priority, int64_t wait_ms)
{
	struct lease_terms terms = terms_on((size_t[]){ service, SIZE_MAX }, LEASE_EXCLUSIVE);
	terms.has_priority = true;
	terms.priority = priority;
	return rig_submit_lease(rig, &terms, wait_ms);
}

static uint64_t ask_holding(struct rig *rig, size_t service, uint64_t held)
{
	struct lease_terms terms = terms_on((size_t[]){ service, SIZE_MAX }, LEASE_EXCLUSIVE);
	terms.n_holding = 1;
	terms.holding = &held;
	return rig_submit_lease(rig, &terms, WAIT);
}

static uint64_t ask_for_room(struct rig *rig, uint32_t mib)
{
	struct lease_terms terms = rig_room(mib);
	terms.attached = true;
	return rig_submit_lease(rig, &terms, WAIT);
}

/* A lease that is granted at once. */
static uint64_t hold(struct rig *rig, uint64_t ticket)
{
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	return rig_lease_at(rig, engine_status(rig->engine, rig->now)->n_leases - 1)->fence;
}

static enum transition_state state_of(struct rig *rig, uint64_t ticket)
{
	return engine_transition(rig->engine, rig_transition(rig, ticket))->state;
}

/* ---- where nobody knows which GPUs there are ---- */

static void test_gpu_mode_waits_until_a_gpu_is_known(void **state)
{
	RIG rig = rig_new(0, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_found(rig, b, true, true);
	rig_tick(rig, 3000); /* no reading came */
	uint64_t first = ask_for(rig, a, LEASE_GPU), second = ask_for(rig, b, LEASE_GPU);
	assert_int_equal(rig_outcome(rig, first), -1);
	assert_int_equal(rig_outcome(rig, second), -1);
	assert_non_null(strstr(rig_detail(rig, first), "gpu.gpus"));
	rig->n_gpus = 1;
	rig->totals_mib[0] = CARD;
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, second), -1);
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(0));
}

/* Two who share a card that the readings do not show (yet) exclude each other there, too. */
static void test_exclusion_beyond_the_known_gpus(void **state)
{
	RIG rig = rig_new(0, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50), indexes[] = { a };
	struct lease before = { .fence = 7, .mode = LEASE_GPU, .n_services = 1, .services = indexes };

	(void)state;
	before.phase = LEASE_NO_PHASE;
	before.gpus = GPU_BIT(0);
	before.ttl_ms = 60000;
	before.expires_ms = 60000;
	rig_create(rig);
	assert_int_equal(engine_restore_lease(rig->engine, &before, rig->now, 0), 0);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_found(rig, b, true, true);
	rig_tick(rig, 3000);
	uint64_t shared = ask_for(rig, b, LEASE_SHARED);
	assert_int_equal(rig_outcome(rig, shared), -1);
	rig_release(rig, 7);
	assert_int_equal(rig_outcome(rig, shared), OUTCOME_DONE);
}

/* What was found before it was known which GPUs there are is booked as soon as that is known. */
static void test_found_service_is_booked_once_its_gpu_is_known(void **state)
{
	RIG rig = rig_new(0, CARD);
	size_t a = rig_service(rig, "a", 4000, 50);

	(void)state;
	rig->services[a].allowed = GPU_BIT(1);
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig->n_gpus = 2;
	rig->totals_mib[0] = rig->totals_mib[1] = CARD;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 1)->committed_mib, 4000);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* Where readings show what was found, its lease is, too; mode gpu then keeps others from that card as well. */
static void test_lease_follows_what_was_found(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig->services[b].allowed = GPU_BIT(1);
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_found(rig, b, false, false);
	rig_read(rig);
	rig_run(rig, b);
	hold(rig, ask_for(rig, a, LEASE_GPU));
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(0)); /* as was guessed */
	rig->measured_mib[1][a] = 4000;
	rig_read(rig);
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(0) | GPU_BIT(1));
	assert_int_equal(rig_outcome(rig, ask_for(rig, b, LEASE_SHARED)), -1);
}

/* Booked on a guess where it can never fit, claimed there, and gone: it does not come up on a card of mode gpu. */
static void test_what_is_claimed_does_not_move_to_a_card_of_mode_gpu(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 10000, 50);
	struct lease_terms card = rig_room(10000);

	(void)state;
	card.mode = LEASE_GPU;
	rig->totals_mib[0] = 8192;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, a, true, true);
	rig_read(rig);
	rig->fences_are_late = true;
	ask_for(rig, a, LEASE_EXCLUSIVE);
	rig_submit_lease(rig, &card, WAIT);
	assert_int_equal(rig_account(rig, 1)->committed_mib, 10000);
	rig_gone(rig, a, "exit status 1");
	rig_submit(rig, REQUEST_START, a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 0);
}

/* A reading that shows the memory of what was found is waited for as long as that runs, and no longer. */
static void test_who_was_found_and_is_gone_holds_nobody_up(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig_start(rig);
	rig_tick(rig, 500);
	rig_event(rig, EVENT_LOOK, a, NULL);
	rig_found(rig, a, true, true);
	rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, b), 0);
	rig_gone(rig, a, "exit status 1");
	assert_int_equal(rig_count(rig, EFFECT_START, b), 1);
}

/* ---- who waits, who is parked, who is refused ---- */

/* A lease that may be broken is one in use all the same: its service may not be evicted yet, but will be some day. */
static void test_parked_for_what_may_be_broken_but_not_evicted(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t used = rig_service(rig, "used", 12000, 50), a = rig_service(rig, "a", 16000, 50);
	struct lease_terms card = rig_room(500);

	(void)state;
	rig->services[used].preempt_after_ms = 0;
	card.mode = LEASE_GPU;
	card.attached = true;
	rig_start(rig);
	rig_run(rig, used);
	hold(rig, ask_for_room(rig, 500)); /* keeps the next but one from his turn */
	hold(rig, ask_with_priority(rig, used, -10, WAIT));
	rig_submit_lease(rig, &card, WAIT);
	assert_int_equal(rig_lease_at(rig, 1)->breaks_ms, rig->now);
	uint64_t ticket = rig_submit(rig, REQUEST_START, a, WAIT);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(state_of(rig, ticket), TRANSITION_PARKED);
}

/* When all that is in use had ended it would still not fit: there is nothing to wait for. */
static void test_who_would_never_fit_is_not_parked(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 10000, 90), low = rig_service(rig, "low", 16000, 10);

	(void)state;
	rig->services[high].yield_set = true; /* never */
	rig_start(rig);
	rig_run(rig, high);
	hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, low, WAIT)), OUTCOME_INSUFFICIENT_VRAM);
}

static void test_foreign_memory_is_nothing_to_wait_for(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 4000, 90), low = rig_service(rig, "low", 16000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, high);
	hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	rig->foreign_mib[0] = 9000;
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, low, WAIT)), OUTCOME_INSUFFICIENT_VRAM);
}

/* Only the first that finds no place is listed as blocked; what would help the whole set may stand elsewhere. */
static void test_set_waits_for_a_lease_on_another_card(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t used = rig_service(rig, "used", 20000, 10), large = rig_service(rig, "large", 14000, 50);
	size_t small = rig_service(rig, "small", 12000, 50);
	struct lease_terms both = terms_on((size_t[]){ large, small, SIZE_MAX }, LEASE_EXCLUSIVE);

	(void)state;
	rig->services[used].allowed = GPU_BIT(1);
	rig->services[small].allowed = GPU_BIT(0);
	rig_start(rig);
	rig_run(rig, used);
	uint64_t held = hold(rig, ask_for(rig, used, LEASE_EXCLUSIVE));
	uint64_t ticket = rig_submit_lease(rig, &both, WAIT);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 1);
	rig_release(rig, held);
	rig_down(rig, used);
	rig_up(rig, large);
	rig_up(rig, small);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* What is leased and down holds its place for its lease alone, whatever its priority. */
static void test_place_of_the_dead_comes_back_with_its_lease(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 20000, 90), low = rig_service(rig, "low", 8000, 10);

	(void)state;
	rig->services[high].yield_set = true; /* never */
	rig_start(rig);
	rig_run(rig, high);
	uint64_t held = hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	rig_down(rig, high);
	uint64_t ticket = rig_submit(rig, REQUEST_START, low, WAIT);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 1);
	rig_release(rig, held);
	rig_up(rig, low);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* It could be started elsewhere, were it not leased where it stood: then that lease is what is waited for. */
static void test_dead_service_moves_when_its_lease_has_ended(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 12000, 50), pinned = rig_service(rig, "pinned", 12000, 50);

	(void)state;
	rig->services[pinned].pinned = true;
	rig->services[pinned].allowed = GPU_BIT(0);
	rig_start(rig);
	rig_run(rig, a); /* on the first card */
	assert_int_equal(rig_status(rig, a)->gpus, GPU_BIT(0));
	uint64_t held = hold(rig, ask_for(rig, a, LEASE_SHARED));
	rig_down(rig, a);
	rig->foreign_mib[0] = 14000;
	rig_read(rig);
	uint64_t ticket = ask_for(rig, a, LEASE_SHARED);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 1);
	rig_release(rig, held);
	rig_tick(rig, 0);
	rig_found(rig, a, false, false); /* it was looked for when the foreign memory grew */
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, a)->gpus, GPU_BIT(1));
}

/* Who waits, parked or not, is gone with its client, and so is the warning. */
static void test_parked_lease_leaves_with_its_client(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 20000, 90), low = rig_service(rig, "low", 8000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, high);
	uint64_t held = hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	uint64_t parked = ask_for(rig, low, LEASE_EXCLUSIVE), queued = ask_for(rig, high, LEASE_EXCLUSIVE);
	assert_int_equal(state_of(rig, parked), TRANSITION_PARKED);
	assert_int_equal(state_of(rig, queued), TRANSITION_QUEUED);
	rig_withdraw(rig, parked);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 1);
	rig_withdraw(rig, queued);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 0);
	assert_false(rig_lease_at(rig, 0)->is_wanted);
	rig_release(rig, held);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_leases, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, high), 0);
}

/* wait_s is for the turn and for the leases waited for; a boot takes as long as it takes. */
static void test_wait_of_a_lease_ends_with_its_turn(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 16000, 10), b = rig_service(rig, "b", 16000, 50);
	struct lease_terms terms = terms_on((size_t[]){ b, SIZE_MAX }, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t held = hold(rig, ask_for(rig, a, LEASE_EXCLUSIVE));
	uint64_t patient = rig_submit_lease(rig, &terms, 3000), other = rig_submit_lease(rig, &terms, 1000);
	rig_wait(rig, 1001);
	assert_int_equal(rig_outcome(rig, other), OUTCOME_LEASE_TIMEOUT);
	rig_wait(rig, 1000);
	rig_release(rig, held);
	rig_down(rig, a);
	rig_wait(rig, 20000); /* it boots */
	assert_int_equal(rig_outcome(rig, patient), -1);
	rig_up(rig, b);
	assert_int_equal(rig_outcome(rig, patient), OUTCOME_DONE);
}

/* A phase may break what is more important than itself; a start may not, nor break what may never be. */
static void test_phases_and_higher_priorities_break_leases(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 16000, 90), low = rig_service(rig, "low", 16000, 10);
	size_t phase = rig_phase(rig, 1, (size_t[]){ low, SIZE_MAX });

	(void)state;
	rig->services[high].preempt_after_ms = 1000;
	rig_start(rig);
	rig_run(rig, high);
	uint64_t held = hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	uint64_t start = rig_submit(rig, REQUEST_START, low, WAIT);
	rig_wait(rig, 3000);
	assert_int_equal(rig_end(rig, held), -1);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 0);
	rig_submit(rig, REQUEST_PHASE, phase, WAIT);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 1);
	rig_wait(rig, 900);
	assert_int_equal(rig_end(rig, held), -1);
	rig_wait(rig, 200);
	assert_int_equal(rig_end(rig, held), LEASE_BROKEN);
	assert_int_equal(rig_count(rig, EFFECT_STOP, high), 1);
	assert_int_equal(rig_outcome(rig, start), -1);
}

/* Who was overtaken 8 times on a service goes first, whatever the priority of the others; it breaks no lease by that.
 */
static void test_leases_age(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50);
	unsigned n = 0;

	(void)state;
	rig->services[a].preempt_after_ms = 1000;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t held = hold(rig, ask_with_priority(rig, a, 90, 1000000));
	uint64_t old = ask_with_priority(rig, a, 10, 1000000);
	for (; rig_outcome(rig, old) == -1 && n < 20; n++) {
		ask_with_priority(rig, a, 90, 1000000);
		rig_tick(rig, 2000);
		assert_int_equal(rig_lease_at(rig, 0)->breaks_ms, UINT64_MAX);
		rig_release(rig, held);
		held = rig_lease_at(rig, 0)->fence;
	}
	assert_int_equal(n, 9); /* 8 others, and then him */
}

/* What is leased and fits no more where it stood is not moved onto a card that somebody has to himself. */
static void test_leased_service_is_not_moved_into_mode_gpu(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 12000, 50), b = rig_service(rig, "b", 4000, 50);

	(void)state;
	rig->services[b].allowed = GPU_BIT(1);
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	hold(rig, ask_for(rig, a, LEASE_EXCLUSIVE));
	uint64_t whole = hold(rig, ask_for(rig, b, LEASE_GPU));
	rig_down(rig, a);
	rig->totals_mib[0] = 8000; /* it will never fit there again */
	rig_read(rig);
	uint64_t start = rig_submit(rig, REQUEST_START, a, WAIT);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 0);
	assert_int_equal(rig_outcome(rig, start), -1);
	assert_int_equal(rig_lease_at(rig, 0)->gpus & rig_lease_at(rig, 1)->gpus, 0);
	rig_release(rig, whole);
	assert_int_equal(rig_count(rig, EFFECT_START, a), 1);
}

/* ---- who is warned ---- */

/* Who comes and goes within one event leaves no trace with those who wait longer. */
static void test_passer_by_does_not_repeat_the_warning(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);
	struct lease_terms both = terms_on((size_t[]){ a, b, SIZE_MAX }, LEASE_EXCLUSIVE);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	uint64_t held_a = hold(rig, ask_for(rig, a, LEASE_EXCLUSIVE)),
		 held_b = hold(rig, ask_for(rig, b, LEASE_SHARED));
	rig_submit_lease(rig, &both, WAIT);
	assert_int_equal(rig_news(rig, held_b, LEASE_NEWS_WANTED), 1);
	uint64_t passer_by = ask_with_priority(rig, a, 90, 0);
	assert_int_equal(rig_outcome(rig, passer_by), OUTCOME_LEASE_TIMEOUT);
	assert_int_equal(rig_news(rig, held_a, LEASE_NEWS_WANTED), 1);
	assert_int_equal(rig_news(rig, held_b, LEASE_NEWS_WANTED), 1);
	assert_true(rig_lease_at(rig, 1)->is_wanted);
}

/* The holder hears once that somebody waits, and once more when that is somebody who may break it. */
static void test_one_warning_for_all_who_wait(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 4000, 50), b = rig_service(rig, "b", 4000, 50);
	struct lease_terms both = terms_on((size_t[]){ a, b, SIZE_MAX }, LEASE_SHARED);

	(void)state;
	rig->services[a].preempt_after_ms = rig->services[b].preempt_after_ms = 3000;
	rig_start(rig);
	rig_run(rig, a);
	rig_run(rig, b);
	uint64_t shared = hold(rig, rig_submit_lease(rig, &both, WAIT));
	uint64_t sole = hold(rig, ask_for(rig, a, LEASE_SHARED));
	ask_for(rig, a, LEASE_EXCLUSIVE);
	assert_int_equal(rig_news(rig, shared, LEASE_NEWS_WANTED), 1);
	assert_int_equal(rig_lease_at(rig, 0)->breaks_ms, UINT64_MAX);
	ask_with_priority(rig, b, 90, WAIT);
	assert_int_equal(rig_news(rig, shared, LEASE_NEWS_WANTED), 2);
	assert_int_equal(rig_lease_at(rig, 0)->breaks_ms, rig->now + 3000);
	assert_int_equal(rig_news(rig, sole, LEASE_NEWS_WANTED), 1);
	rig_tick(rig, 10);
	assert_int_equal(rig_news(rig, shared, LEASE_NEWS_WANTED), 2);
}

/* Memory on its way back is what it waits for, though something is in use there, too: that holder is left in peace. */
static void test_memory_on_its_way_comes_before_leases(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t used = rig_service(rig, "used", 4000, 10), gone = rig_service(rig, "gone", 16000, 50);

	(void)state;
	rig->services[used].preempt_after_ms = 0;
	rig_start(rig);
	rig_run(rig, used);
	rig_run(rig, gone);
	uint64_t held = hold(rig, ask_for(rig, used, LEASE_EXCLUSIVE));
	rig_gone(rig, gone, "exit status 1"); /* and no reading shows its memory back */
	uint64_t ticket = rig_submit(rig, REQUEST_START, gone, WAIT);
	assert_int_equal(state_of(rig, ticket), TRANSITION_QUEUED);
	assert_non_null(strstr(rig_detail(rig, ticket), "memory"));
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 0);
	uint64_t version = engine_version(rig->engine);
	rig_tick(rig, 1);
	assert_int_equal(engine_version(rig->engine), version);
}

/* Room on a card that only a victim shares is in nobody's way. */
static void test_room_elsewhere_is_in_nobodys_way(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t wide = rig_service(rig, "wide", 16000, 10), b = rig_service(rig, "b", 16000, 50);

	(void)state;
	rig->services[wide].gpu_count = 2;
	rig->services[b].allowed = GPU_BIT(0);
	rig_start(rig);
	rig_run(rig, wide);
	uint64_t other = hold(rig, ask_for_room(rig, 4000)), room;
	room = hold(rig, ask_for_room(rig, 4000));
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(0));
	assert_int_equal(rig_lease_at(rig, 1)->gpus, GPU_BIT(1));
	rig_release(rig, other);
	uint64_t held = hold(rig, ask_for(rig, wide, LEASE_EXCLUSIVE));
	rig_submit(rig, REQUEST_START, b, WAIT);
	assert_int_equal(rig_news(rig, held, LEASE_NEWS_WANTED), 1);
	assert_int_equal(rig_news(rig, room, LEASE_NEWS_WANTED), 0);
}

/* ---- who would wait for himself ---- */

/* What one holds oneself and what stands beside it is in nobody's way. */
static void test_own_room_beside_is_no_deadlock(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 10000, 10), b = rig_service(rig, "b", 12000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	uint64_t mine = hold(rig, ask_for_room(rig, 3000)), other = hold(rig, ask_for_room(rig, 3000));
	uint64_t used = hold(rig, ask_for(rig, a, LEASE_EXCLUSIVE));
	uint64_t ticket = ask_holding(rig, b, mine);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_release(rig, used);
	rig_down(rig, a);
	rig_up(rig, b);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_not_equal(other, 0);
}

/* Nor does what is held beside turn a refusal into a deadlock. */
static void test_own_room_elsewhere_is_no_deadlock(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t idle = rig_service(rig, "idle", 16000, 50), a = rig_service(rig, "a", 16000, 50);

	(void)state;
	rig->services[idle].allowed = rig->services[a].allowed = GPU_BIT(0);
	rig->services[idle].yield_set = true;
	rig->services[idle].yield_after_ms = 5000;
	rig_start(rig);
	rig_run(rig, idle);
	uint64_t mine = hold(rig, ask_for_room(rig, 10000));
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(1));
	assert_int_equal(rig_outcome(rig, ask_holding(rig, a, mine)), OUTCOME_INSUFFICIENT_VRAM);
}

/* A parked request waits for leases like any other: whoever holds them must not wait for what its client holds. */
static void test_circle_over_a_parked_request(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 12000, 90), mine = rig_service(rig, "mine", 4000, 10);
	size_t low = rig_service(rig, "low", 12000, 10);

	(void)state;
	rig_start(rig);
	rig_run(rig, high);
	rig_run(rig, mine);
	uint64_t held_high = hold(rig, ask_for(rig, high, LEASE_EXCLUSIVE));
	uint64_t held_mine = hold(rig, ask_for(rig, mine, LEASE_EXCLUSIVE));
	uint64_t parked = ask_holding(rig, low, held_mine);
	assert_int_equal(state_of(rig, parked), TRANSITION_PARKED);
	uint64_t closing = ask_holding(rig, mine, held_high);
	bool is_refused = rig_outcome(rig, closing) == OUTCOME_WOULD_DEADLOCK ||
		rig_outcome(rig, parked) == OUTCOME_WOULD_DEADLOCK;
	assert_true(is_refused);
}

/* Who waits for a service to go stays behind whoever has it stopped, wherever it stood when he was last looked at. */
static void test_circle_over_a_service_that_has_to_go(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t a = rig_service(rig, "a", 15000, 10);

	(void)state;
	rig->totals_mib[0] = 17024; /* `a` fits there, and nothing beside it */
	rig_start(rig);
	rig_run(rig, a);
	uint64_t room = hold(rig, ask_for_room(rig, 6000));
	assert_int_equal(rig_lease_at(rig, 0)->gpus, GPU_BIT(1));
	uint64_t used = hold(rig, ask_for(rig, a, LEASE_EXCLUSIVE));
	uint64_t next = ask_for(rig, a, LEASE_EXCLUSIVE);
	ask_for(rig, a, LEASE_EXCLUSIVE);
	uint64_t mine = ask_holding(rig, a, room);
	/* It moves to the other card while he waits in line. */
	rig_down(rig, a);
	rig->foreign_mib[0] = 10000;
	rig_read(rig);
	rig_found(rig, a, false, false);
	rig_release(rig, used);
	rig_up(rig, a);
	assert_int_equal(rig_outcome(rig, next), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, a)->gpus, GPU_BIT(1));
	assert_int_equal(rig_outcome(rig, mine), -1);
	/* This one needs all of that card: `a` has to go for it, and so does his room. */
	ask_for_room(rig, 23000);
	assert_int_equal(rig_outcome(rig, mine), OUTCOME_WOULD_DEADLOCK);
}

/* Its process is gone, which nobody has told yet, and readings show its memory as a stranger's. */
static void test_memory_of_who_is_about_to_be_told_gone(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 20000, 10), b = rig_service(rig, "b", 16000, 50);
	size_t c = rig_service(rig, "c", 4000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, a);
	rig_submit(rig, REQUEST_START, b, WAIT); /* a has to go for it */
	rig->measured_mib[0][a] = 0;
	rig->foreign_mib[0] = 20000;
	rig_read(rig);
	uint64_t ticket = rig_submit(rig, REQUEST_START, c, WAIT);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig->foreign_mib[0] = 0;
	rig_down(rig, a);
	rig_up(rig, b);
	rig_found(rig, c, false, false); /* such memory could have been its */
	assert_int_equal(rig_count(rig, EFFECT_START, c), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gpu_mode_waits_until_a_gpu_is_known),
		cmocka_unit_test(test_exclusion_beyond_the_known_gpus),
		cmocka_unit_test(test_found_service_is_booked_once_its_gpu_is_known),
		cmocka_unit_test(test_lease_follows_what_was_found),
		cmocka_unit_test(test_what_is_claimed_does_not_move_to_a_card_of_mode_gpu),
		cmocka_unit_test(test_who_was_found_and_is_gone_holds_nobody_up),
		cmocka_unit_test(test_parked_for_what_may_be_broken_but_not_evicted),
		cmocka_unit_test(test_memory_of_who_is_about_to_be_told_gone),
		cmocka_unit_test(test_who_would_never_fit_is_not_parked),
		cmocka_unit_test(test_foreign_memory_is_nothing_to_wait_for),
		cmocka_unit_test(test_set_waits_for_a_lease_on_another_card),
		cmocka_unit_test(test_place_of_the_dead_comes_back_with_its_lease),
		cmocka_unit_test(test_dead_service_moves_when_its_lease_has_ended),
		cmocka_unit_test(test_leased_service_is_not_moved_into_mode_gpu),
		cmocka_unit_test(test_parked_lease_leaves_with_its_client),
		cmocka_unit_test(test_wait_of_a_lease_ends_with_its_turn),
		cmocka_unit_test(test_phases_and_higher_priorities_break_leases),
		cmocka_unit_test(test_leases_age),
		cmocka_unit_test(test_passer_by_does_not_repeat_the_warning),
		cmocka_unit_test(test_one_warning_for_all_who_wait),
		cmocka_unit_test(test_memory_on_its_way_comes_before_leases),
		cmocka_unit_test(test_room_elsewhere_is_in_nobodys_way),
		cmocka_unit_test(test_own_room_beside_is_no_deadlock),
		cmocka_unit_test(test_own_room_elsewhere_is_no_deadlock),
		cmocka_unit_test(test_circle_over_a_parked_request),
		cmocka_unit_test(test_circle_over_a_service_that_has_to_go),
	};

	return cmocka_run_group_tests_name("core/waiting", tests, NULL, NULL);
}
