/* The engine by example: a test for each mistake of docs/testing.md that is its own to make, and for its promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

/* A site as they are: examples/mcn.yaml. */
struct site {
	size_t comfyui, cosyvoice, vidi, ollama;
	size_t crawl, analysis, speech, video;
};

static struct rig *site_new(struct site *site)
{
	struct rig *rig = rig_new(1, CARD);

	site->comfyui = rig_service(rig, "comfyui", 20000, 100);
	site->cosyvoice = rig_service(rig, "cosyvoice", 4000, 50);
	site->vidi = rig_service(rig, "vidi", 4000, 40);
	site->ollama = rig_service(rig, "ollama", 18000, 10);
	site->crawl = rig_phase(rig, 1, (size_t[]){ SIZE_MAX });
	site->analysis = rig_phase(rig, 2, (size_t[]){ site->vidi, SIZE_MAX });
	site->speech = rig_phase(rig, 3, (size_t[]){ site->cosyvoice, SIZE_MAX });
	site->video = rig_phase(rig, 4, (size_t[]){ site->comfyui, SIZE_MAX });
	rig_start(rig);
	return rig;
}

static size_t stops(const struct rig *rig)
{
	size_t n = 0;

	for (size_t s = 0; s < rig->config.n_services; s++)
		n += rig_count(rig, EFFECT_STOP, s);
	return n;
}

static size_t starts(const struct rig *rig)
{
	size_t n = 0;

	for (size_t s = 0; s < rig->config.n_services; s++)
		n += rig_count(rig, EFFECT_START, s);
	return n;
}

/* At the start every service is looked for, once, and nothing begins before all is known. */
static void test_looks_before_it_leaps(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 1000, 50), two = rig_service(rig, "two", 1000, 50);
	uint64_t ticket;

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	assert_int_equal(rig_count(rig, EFFECT_FIND, one), 1);
	assert_int_equal(rig_count(rig, EFFECT_FIND, two), 1);
	rig_read(rig);
	ticket = rig_submit(rig, REQUEST_START, one, WAIT_DEFAULT_MS);
	assert_int_equal(rig_status(rig, one)->state, SERVICE_UNKNOWN);
	rig_found(rig, one, false, false);
	assert_int_equal(starts(rig), 0);
	rig_found(rig, two, false, false);
	assert_int_equal(rig_count(rig, EFFECT_START, one), 1);
	rig_up(rig, one);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* What runs already is adopted, with its commitment. */
static void test_adopts_what_runs(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 6000, 50);
	uint64_t ticket;

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, one, true, true);
	assert_int_equal(rig_count(rig, EFFECT_ADOPT, one), 1);
	assert_int_equal(rig_last(rig, EFFECT_ADOPT, one)->effect.pid, 77);
	rig->measured_mib[0][one] = 5000;
	rig_read(rig);
	assert_int_equal(rig_status(rig, one)->state, SERVICE_READY);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 6000);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	ticket = rig_submit(rig, REQUEST_START, one, 0);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(starts(rig), 0);
}

/* Two phases that evict each other's service: the second does nothing before its turn. */
static void test_acts_only_in_its_turn(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t video, speech;

	(void)state;
	rig_run(rig, site.cosyvoice);
	rig_run(rig, site.vidi);
	video = rig_submit(rig, REQUEST_PHASE, site.video, WAIT_DEFAULT_MS);
	speech = rig_submit(rig, REQUEST_PHASE, site.speech, WAIT_DEFAULT_MS);
	assert_int_equal(stops(rig), 2);
	rig_down(rig, site.cosyvoice);
	assert_int_equal(starts(rig), 0);
	rig_down(rig, site.vidi);
	assert_int_equal(starts(rig), 1);
	rig_started(rig, site.comfyui);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.comfyui), 0);
	assert_int_equal(rig_outcome(rig, video), -1);
	rig->measured_mib[0][site.comfyui] = 20000;
	rig_read(rig);
	rig_health(rig, site.comfyui, true);
	assert_int_equal(rig_outcome(rig, video), OUTCOME_DONE);
	assert_int_equal(rig_outcome(rig, speech), -1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.comfyui), 1);
}

/* What runs already is not asked for again. */
static void test_running_costs_nothing(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t again;

	(void)state;
	rig_run(rig, site.comfyui);
	again = rig_submit(rig, REQUEST_PHASE, site.video, 0);
	assert_int_equal(rig_outcome(rig, again), OUTCOME_DONE);
	assert_int_equal(starts(rig) + stops(rig), 0);
}

/* What cannot fit evicts nobody, and says why. */
static void test_refuses_and_touches_nothing(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;
	const struct transition *record;

	(void)state;
	rig_run(rig, site.comfyui);
	ticket = rig_submit(rig, REQUEST_START, site.ollama, 0);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_INSUFFICIENT_VRAM);
	assert_int_equal(starts(rig) + stops(rig), 0);
	record = engine_transition(rig->engine, rig_transition(rig, ticket));
	assert_non_null(record);
	assert_int_equal(record->state, TRANSITION_FAILED);
	assert_int_equal(record->n_blockers, 1);
	assert_int_equal(record->blockers[0].service, site.comfyui);
	assert_int_equal(record->blockers[0].mib, 20000);
	assert_non_null(strstr(record->detail, "comfyui"));
}

/* A direct start goes through admission and preemption, too. */
static void test_start_evicts_lower_priority(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_run(rig, site.ollama);
	rig_submit(rig, REQUEST_START, site.comfyui, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.ollama), 1);
	assert_false(rig_last(rig, EFFECT_STOP, site.ollama)->effect.force);
	assert_int_equal(starts(rig), 0);
	rig_down(rig, site.ollama);
	assert_int_equal(rig_count(rig, EFFECT_START, site.comfyui), 1);
}

/* Only as much is evicted as the missing ones need. */
static void test_counts_what_is_missing_only(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t big = rig_service(rig, "big", 12000, 50), small = rig_service(rig, "small", 4000, 10);
	size_t other = rig_service(rig, "other", 6000, 50);
	size_t phase = rig_phase(rig, 1, (size_t[]){ big, other, SIZE_MAX });

	(void)state;
	rig_start(rig);
	rig_run(rig, big);
	rig_run(rig, small);
	rig_submit(rig, REQUEST_PHASE, phase, 0); /* 12000 + 4000 + 6000 + 1024 fit */
	assert_int_equal(stops(rig), 0);
	assert_int_equal(rig_count(rig, EFFECT_START, other), 1);
}

/* Nothing waits for a clock. Evict, start, healthy: all within the interval of one probe. */
static void test_no_fixed_waits(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket, began;

	(void)state;
	rig_run(rig, site.ollama);
	began = rig->now;
	ticket = rig_submit(rig, REQUEST_PHASE, site.video, 0);
	rig_down(rig, site.ollama);
	rig_up(rig, site.comfyui);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_true(rig->now - began <= 10);
}

/* A card that nobody knows the size of is neither free nor full: nothing is admitted, and why is said. */
static void test_unknown_is_not_infinity(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 1000, 50);
	uint64_t ticket;
	const struct transition *record;

	(void)state;
	rig->config.n_gpus = 0;
	rig_create(rig);
	rig_tick(rig, 0);
	rig_found(rig, one, false, false);
	ticket = rig_submit(rig, REQUEST_START, one, 0);
	rig_wait(rig, 3000);
	assert_int_equal(starts(rig), 0);
	assert_true(rig_outcome(rig, ticket) == OUTCOME_INSUFFICIENT_VRAM ||
		rig_outcome(rig, ticket) == OUTCOME_WAIT_TIMEOUT);
	ticket = rig_submit(rig, REQUEST_START, one, 0);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_INSUFFICIENT_VRAM);
	record = engine_transition(rig->engine, rig_transition(rig, ticket));
	assert_true(record->n_blockers > 0);
	assert_non_null(strstr(record->detail, "gpu.gpus"));
	assert_int_equal(starts(rig), 0);
}

/* A service that has not loaded its model yet still counts with all that it declared. */
static void test_lazy_services_count(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_submit(rig, REQUEST_START, site.comfyui, 0);
	rig_started(rig, site.comfyui);
	rig_read(rig); /* it holds nothing */
	rig_health(rig, site.comfyui, true);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 20000);
	rig_forget(rig);
	ticket = rig_submit(rig, REQUEST_START, site.cosyvoice, 0);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_INSUFFICIENT_VRAM);
	assert_int_equal(starts(rig) + stops(rig), 0);
}

/* ... and one that took more than it declared counts with its peak, even after it gave some back. */
static void test_peak_counts(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 4000, 50);

	(void)state;
	rig_start(rig);
	rig_run(rig, one);
	rig->measured_mib[0][one] = 9000;
	rig_read(rig);
	rig->measured_mib[0][one] = 5000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 9000);
	rig_submit(rig, REQUEST_STOP, one, 0);
	rig_down(rig, one);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
	rig_run(rig, one);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 4000);
}

/* Not healthy yet is not failed; it has until its timeout. */
static void test_not_healthy_yet(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket = rig_submit(rig, REQUEST_START, site.vidi, 0), began = rig->now;

	(void)state;
	rig_started(rig, site.vidi);
	while (rig->now < began + 119000)
		rig_health(rig, site.vidi, false);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_STARTING);
	rig_health(rig, site.vidi, true);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* While it starts it is asked every waited / 64, 5 to 250 ms; then every health.interval. */
static void test_probe_intervals(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t began = rig->now, last;

	(void)state;
	rig_submit(rig, REQUEST_START, site.vidi, 0);
	rig_started(rig, site.vidi);
	last = rig->now;
	while (rig->now < began + 60000) {
		uint64_t waited, interval;

		rig_health(rig, site.vidi, false);
		waited = last - began;
		interval = waited / 64 < 5 ? 5 : waited / 64 > 250 ? 250 : waited / 64;
		assert_in_range(rig->now - last, interval, interval + interval / 32 + 1);
		last = rig->now;
	}
	rig_health(rig, site.vidi, true);
	last = rig->now;
	rig_health(rig, site.vidi, true);
	assert_int_equal(rig->now - last, 5000);
}

static void test_start_timeout(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket = rig_submit(rig, REQUEST_START, site.vidi, 0), began = rig->now;

	(void)state;
	rig_started(rig, site.vidi);
	while (rig_count(rig, EFFECT_STOP, site.vidi) == 0 && rig->now < began + 130000) {
		if (rig->is_probing[site.vidi])
			rig_health(rig, site.vidi, false);
		else
			rig_tick(rig, engine_next_deadline(rig->engine) - rig->now);
	}
	assert_in_range(rig->now - began, 120000, 120250);
	rig_down(rig, site.vidi);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_TIMEOUT);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_ERROR);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* A container engine that hangs says nothing of the start: then that is why it was not healthy in time. */
static void test_start_timeout_of_what_never_came_up(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket = rig_submit(rig, REQUEST_START, site.vidi, 0);

	(void)state;
	rig_tick(rig, 120000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 1);
	rig_start_failed(rig, site.vidi, "docker: the engine had not answered");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_TIMEOUT);
	const char *error = rig_status(rig, site.vidi)->error;
	assert_non_null(strstr(error, "health.timeout"));
	assert_non_null(strstr(error, "docker: the engine had not answered"));
}

/* What ends while it starts fails the start at once, in its own words. */
static void test_ends_while_starting(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket = rig_submit(rig, REQUEST_START, site.vidi, 0), began = rig->now;

	(void)state;
	rig_started(rig, site.vidi);
	rig_gone(rig, site.vidi, "exit status 3: no such model");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig->now, began);
	assert_non_null(strstr(engine_transition(rig->engine, rig_transition(rig, ticket))->detail, "no such model"));
	assert_non_null(strstr(rig_status(rig, site.vidi)->error, "no such model"));
}

static void test_start_that_fails(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket = rig_submit(rig, REQUEST_START, site.vidi, 0);

	(void)state;
	rig_start_failed(rig, site.vidi, "no such file");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
	ticket = rig_submit(rig, REQUEST_START, site.vidi, 0); /* it may be tried again */
	rig_up(rig, site.vidi);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* Equal requests join: one start, and everybody gets the answer. */
static void test_equal_requests_join(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t one = rig_submit(rig, REQUEST_START, site.vidi, 0);
	uint64_t two = rig_submit(rig, REQUEST_START, site.vidi, 5000);

	(void)state;
	assert_int_equal(rig_transition(rig, one), rig_transition(rig, two));
	rig_withdraw(rig, one); /* after it began: it goes on, also for the other */
	rig_up(rig, site.vidi);
	assert_int_equal(rig_count(rig, EFFECT_START, site.vidi), 1);
	assert_int_equal(rig_outcome(rig, two), OUTCOME_DONE);
}

/* wait_s covers the turn, each client's own, and not the boot. */
static void test_wait_budget(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t first = rig_submit(rig, REQUEST_START, site.comfyui, 0), hasty, patient;
	uint64_t began = rig->now;

	(void)state;
	hasty = rig_submit(rig, REQUEST_PHASE, site.speech, 1000);
	patient = rig_submit(rig, REQUEST_PHASE, site.speech, 100000);
	assert_int_equal(rig_transition(rig, hasty), rig_transition(rig, patient));
	rig_wait(rig, 999);
	assert_int_equal(rig_outcome(rig, hasty), -1);
	rig_wait(rig, 1);
	assert_int_equal(rig_outcome(rig, hasty), OUTCOME_WAIT_TIMEOUT);
	assert_int_equal(rig_outcome(rig, patient), -1);
	rig_wait(rig, 5000);
	assert_int_equal(rig_outcome(rig, first), -1); /* its wait was 0, and it boots */
	rig_up(rig, site.comfyui);
	assert_int_equal(rig_outcome(rig, first), OUTCOME_DONE);
	rig_down(rig, site.comfyui);
	rig_up(rig, site.cosyvoice);
	assert_int_equal(rig_outcome(rig, patient), OUTCOME_DONE);
	assert_true(rig->now > began);
}

/* Who goes away before his turn is forgotten. */
static void test_withdrawn_before_its_turn(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t second;

	(void)state;
	rig_submit(rig, REQUEST_START, site.comfyui, 0);
	second = rig_submit(rig, REQUEST_PHASE, site.speech, WAIT_DEFAULT_MS);
	rig_withdraw(rig, second);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_queue, 0);
	rig_up(rig, site.comfyui);
	assert_int_equal(rig_count(rig, EFFECT_START, site.cosyvoice), 0);
	assert_int_equal(stops(rig), 0);
	assert_true(rig_outcome(rig, second) == -1 || rig_outcome(rig, second) == OUTCOME_WITHDRAWN);
}

/* Priority first, then arrival. */
static void test_order_of_the_queue(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t a = rig_service(rig, "a", 1000, 50), low = rig_service(rig, "low", 1000, 10);
	size_t high = rig_service(rig, "high", 1000, 90), also = rig_service(rig, "also", 1000, 10);

	(void)state;
	rig_start(rig);
	rig_submit(rig, REQUEST_START, a, 0);
	rig_submit(rig, REQUEST_START, low, WAIT_DEFAULT_MS);
	rig_submit(rig, REQUEST_START, also, WAIT_DEFAULT_MS);
	rig_submit(rig, REQUEST_START, high, WAIT_DEFAULT_MS);
	rig_up(rig, a);
	assert_int_equal(rig_count(rig, EFFECT_START, high), 1);
	assert_int_equal(rig_count(rig, EFFECT_START, low), 0);
	rig_up(rig, high);
	assert_int_equal(rig_count(rig, EFFECT_START, low), 1);
	assert_int_equal(rig_count(rig, EFFECT_START, also), 0);
	rig_up(rig, low);
	assert_int_equal(rig_count(rig, EFFECT_START, also), 1);
}

/* Who was overtaken 8 times goes first. */
static void test_ageing(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t high = rig_service(rig, "high", 1000, 90), low = rig_service(rig, "low", 1000, 10);
	unsigned overtaken = 0;

	(void)state;
	rig_start(rig);
	rig_submit(rig, REQUEST_START, high, WAIT_DEFAULT_MS);
	rig_submit(rig, REQUEST_START, low, WAIT_DEFAULT_MS);
	for (; overtaken < 20 && rig_count(rig, EFFECT_START, low) == 0; overtaken++) {
		bool stops_now = overtaken % 2 == 0;

		rig_submit(rig, stops_now ? REQUEST_STOP : REQUEST_START, high, WAIT_DEFAULT_MS);
		if (stops_now)
			rig_up(rig, high);
		else
			rig_down(rig, high);
	}
	assert_int_equal(overtaken, 9); /* 8 times another one; then, with the ninth waiting, it is its turn */
}

/* A forced stop does not wait for the start that it is about; the start says that it was stopped. */
static void test_forced_stop_in_the_middle_of_a_start(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t start = rig_submit(rig, REQUEST_START, site.comfyui, 0), stop;

	(void)state;
	rig_started(rig, site.comfyui);
	stop = rig_submit_force(rig, REQUEST_STOP, site.comfyui);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.comfyui), 1);
	assert_true(rig_last(rig, EFFECT_STOP, site.comfyui)->effect.force);
	rig_down(rig, site.comfyui);
	assert_int_equal(rig_outcome(rig, start), OUTCOME_STOPPED);
	assert_int_equal(rig_outcome(rig, stop), OUTCOME_DONE);
	assert_int_equal(rig_status(rig, site.comfyui)->state, SERVICE_STOPPED);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* Stop, then kill, then say that it cannot be done; and the memory still counts. */
static void test_climbs_to_the_kill(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.vidi);
	ticket = rig_submit(rig, REQUEST_STOP, site.vidi, 0);
	rig_wait(rig, 29999);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 1);
	rig_wait(rig, 1);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 2);
	assert_true(rig_last(rig, EFFECT_STOP, site.vidi)->effect.force);
	rig_wait(rig, 60000);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_STOP_FAILED);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_ERROR);
	assert_int_equal(rig_status(rig, site.vidi)->committed_mib, 4000);
}

/* The driver cannot stop it: the request fails at once, in the driver's words. */
static void test_stop_refused(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.vidi);
	ticket = rig_submit(rig, REQUEST_STOP, site.vidi, 0);
	rig_event(rig, EVENT_STOP_REFUSED, site.vidi, "set pid_file, then it can be found");
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_STOP_FAILED);
	assert_non_null(strstr(engine_transition(rig->engine, rig_transition(rig, ticket))->detail, "set pid_file"));
	assert_int_equal(rig_account(rig, 0)->committed_mib, 4000);
}

/* The start waits for the victim's memory, not for its end. */
static void test_waits_for_memory(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_run(rig, site.ollama);
	rig_submit(rig, REQUEST_START, site.comfyui, 0);
	rig_gone(rig, site.ollama, "exit status 0");
	assert_int_equal(starts(rig), 0);
	rig->measured_mib[0][site.ollama] = 0;
	rig->foreign_mib[0] = 18000; /* nobody's any more, and still there */
	rig_read(rig);
	assert_int_equal(starts(rig), 0);
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 18000);
	rig->foreign_mib[0] = 3000; /* now it fits */
	rig_read(rig);
	assert_int_equal(starts(rig), 1);
}

/* What is not back after 5 s is foreign, which an event says, and what waited for it fails. */
static void test_unreclaimed_becomes_foreign(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.ollama);
	ticket = rig_submit(rig, REQUEST_START, site.comfyui, 0);
	rig->measured_mib[0][site.ollama] = 0;
	rig->foreign_mib[0] = 18000;
	rig_gone(rig, site.ollama, "exit status 0");
	for (int i = 0; i < 49; i++) {
		rig_tick(rig, 99);
		rig_read(rig);
	}
	assert_int_equal(rig_outcome(rig, ticket), -1);
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 18000);
	rig_wait(rig, 100);
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 0);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 18000);
	assert_int_equal(rig_notices(rig, "gpu.unreclaimed", "18000"), 1);
	assert_true(rig_outcome(rig, ticket) == OUTCOME_INSUFFICIENT_VRAM ||
		rig_outcome(rig, ticket) == OUTCOME_STOP_FAILED);
	assert_int_equal(starts(rig), 0);
}

static void found_stopping(struct rig *rig, size_t service)
{
	struct event event = { .kind = EVENT_FOUND, .service = service };

	event.found.alive = true;
	event.found.stopping = true;
	event.found.pid = 77;
	rig_handle(rig, &event);
}

/*
 * A reading from before it was known who runs shows everybody's memory as nobody's. That is not what was foreign
 * before a service ended, or nobody would wait for its memory to come back.
 */
static void test_adopted_memory_was_not_foreign(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t mill = rig_service(rig, "mill", 17000, 60), saw = rig_service(rig, "saw", 2000, 50);
	const struct lease_terms room = rig_room(8000);
	uint64_t ticket;

	(void)state;
	rig_create(rig);
	rig_tick(rig, 0);
	rig->measured_mib[0][mill] = 17000;
	rig->measured_mib[0][saw] = 2000;
	rig_read(rig);
	rig_found(rig, saw, true, true);
	found_stopping(rig, mill);
	assert_int_equal(rig_count(rig, EFFECT_STOP, mill), 1);
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	rig_gone(rig, mill, "exit status 0");
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 17000);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	ticket = rig_submit_lease(rig, &room, WAIT_DEFAULT_MS);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig->measured_mib[0][mill] = 0;
	rig_read(rig);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* A reading from between a crash and the news of it shows the memory as nobody's. It is on its way back all the same.
 */
static void test_memory_of_the_dead_was_not_foreign(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.ollama);
	rig->measured_mib[0][site.ollama] = 0;
	rig->foreign_mib[0] = 18000;
	rig_read(rig);
	rig_found(rig, site.comfyui, false, false); /* it was not one of ours that somebody started by hand */
	rig_gone(rig, site.ollama, "SIGSEGV");
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 18000);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	ticket = rig_submit(rig, REQUEST_START, site.comfyui, WAIT_DEFAULT_MS);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig->foreign_mib[0] = 0;
	rig_read(rig);
	assert_int_equal(starts(rig), 1);
}

/* Nor when it took its memory and died between two readings, so that none ever showed it as its own. */
static void test_memory_that_nobody_saw_was_not_foreign(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_submit(rig, REQUEST_START, site.ollama, WAIT_DEFAULT_MS);
	rig_started(rig, site.ollama);
	rig->foreign_mib[0] = 18000;
	rig_read(rig);
	rig_found(rig, site.comfyui, false, false);
	rig_gone(rig, site.ollama, "SIGSEGV");
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	ticket = rig_submit(rig, REQUEST_START, site.comfyui, WAIT_DEFAULT_MS);
	assert_int_equal(rig_outcome(rig, ticket), -1);
}

/* What is foreign all the time is not waited for when a service ends, also while others hold less than declared. */
static void test_foreign_memory_is_not_owed(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig->foreign_mib[0] = 500;
	rig_read(rig);
	for (size_t s = 0; s < rig->config.n_services; s++)
		rig_found(rig, s, false, false); /* it was none of ours that somebody started by hand */
	rig_run(rig, site.cosyvoice);
	rig_run(rig, site.vidi);
	rig->measured_mib[0][site.vidi] = 3000;
	rig_read(rig);
	rig_submit(rig, REQUEST_STOP, site.cosyvoice, WAIT_DEFAULT_MS);
	rig_down(rig, site.cosyvoice);
	assert_int_equal(rig_account(rig, 0)->unreclaimed_mib, 0);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 500);
}

/* A stranger took the room between the plan and the start: the start does not happen. */
static void test_stranger_in_between(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.ollama);
	ticket = rig_submit(rig, REQUEST_START, site.comfyui, 0);
	rig->foreign_mib[0] = 8000;
	rig_read(rig);
	rig_down(rig, site.ollama);
	for (int i = 0; i < 60; i++) { /* it could be memory of the victim that is on its way back */
		rig_wait(rig, 100);
		rig_read(rig);
	}
	assert_int_equal(starts(rig), 0);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_INSUFFICIENT_VRAM);
}

/* `retries` bad answers in a row; one good one in between, and they count anew. */
static void test_unhealthy_after_retries(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_run(rig, site.vidi);
	rig_health(rig, site.vidi, false);
	rig_health(rig, site.vidi, false);
	rig_health(rig, site.vidi, true);
	rig_health(rig, site.vidi, false);
	rig_health(rig, site.vidi, false);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_READY);
	rig_health(rig, site.vidi, false);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_ERROR);
	assert_int_equal(stops(rig), 0); /* nobody asked */
	assert_int_equal(rig_account(rig, 0)->committed_mib, 4000);
	rig_submit(rig, REQUEST_START, site.vidi, 0); /* somebody does: it is started anew */
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 1);
	rig_down(rig, site.vidi);
	assert_int_equal(rig_count(rig, EFFECT_START, site.vidi), 1);
}

/* A crash is noticed at once. */
static void test_crash_is_noticed(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_run(rig, site.vidi);
	rig_gone(rig, site.vidi, "killed by signal 11");
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_ERROR);
	assert_int_equal(rig_notices(rig, "service.state", "signal 11"), 1);
	rig_forget(rig);
	rig_wait(rig, 20000);
	assert_int_equal(rig_count(rig, EFFECT_PROBE, site.vidi), 0);
}

/* News of an earlier run change nothing. */
static void test_stale_news(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	struct event old = { .service = site.vidi, .text = "old" };
	static const enum event_kind kinds[] = { EVENT_GONE, EVENT_START_FAILED, EVENT_LEADER_ENDED, EVENT_STOP_REFUSED,
		EVENT_STARTED, EVENT_HEALTH };
	uint64_t version;

	(void)state;
	rig_run(rig, site.vidi);
	old.run = rig->run[site.vidi];
	rig_submit(rig, REQUEST_RESTART, site.vidi, 0);
	rig_down(rig, site.vidi);
	rig_up(rig, site.vidi);
	assert_true(rig->run[site.vidi] > old.run);
	rig_forget(rig);
	version = engine_version(rig->engine);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		old.kind = kinds[i];
		rig_handle(rig, &old);
	}
	assert_int_equal(rig->n, 0);
	assert_int_equal(engine_version(rig->engine), version);
}

/* A pinned service goes only when it is named. */
static void test_pinned(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t pinned = rig_service(rig, "pinned", 20000, 1), other = rig_service(rig, "other", 20000, 99);
	size_t phase = rig_phase(rig, 1, (size_t[]){ other, SIZE_MAX });

	(void)state;
	rig->services[pinned].pinned = true;
	rig_start(rig);
	rig_run(rig, pinned);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, other, 0)), OUTCOME_INSUFFICIENT_VRAM);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_PHASE, phase, 0)), OUTCOME_INSUFFICIENT_VRAM);
	rig_submit(rig, REQUEST_RELEASE_ALL, 0, 0);
	assert_int_equal(stops(rig), 0);
	rig_submit(rig, REQUEST_STOP, pinned, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, pinned), 1);
}

static void test_yields_when_idle(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t idle = rig_service(rig, "idle", 20000, 90), low = rig_service(rig, "low", 20000, 10);

	(void)state;
	rig->services[idle].yield_set = true;
	rig->services[idle].yield_after_ms = 60000;
	rig_start(rig);
	rig_run(rig, idle);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, low, 0)), OUTCOME_INSUFFICIENT_VRAM);
	for (int i = 0; i < 12; i++)
		rig_health(rig, idle, true);
	rig_read(rig);
	rig_submit(rig, REQUEST_START, low, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, idle), 1);
}

/* Stops run side by side, and starts as soon as each fits. */
static void test_release_all(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.vidi);
	rig_run(rig, site.cosyvoice);
	ticket = rig_submit(rig, REQUEST_RELEASE_ALL, 0, 0);
	assert_int_equal(stops(rig), 2);
	rig_down(rig, site.vidi);
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_down(rig, site.cosyvoice);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	assert_int_equal(rig_account(rig, 0)->admissible_mib, CARD - 1024);
	rig_forget(rig);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_RELEASE_ALL, 0, 0)), OUTCOME_DONE);
}

/* An empty phase is done at once, and is the phase that status shows. */
static void test_empty_phase(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	const struct status *status;

	(void)state;
	rig_submit(rig, REQUEST_START, site.comfyui, 0);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_PHASE, site.crawl, 0)), OUTCOME_DONE);
	status = engine_status(rig->engine, rig->now);
	assert_true(status->phase.any && status->phase.satisfied);
	assert_int_equal(status->phase.phase, site.crawl);
}

/* Two GPUs: what fits on the free one evicts nobody, and disjoint transitions run side by side. */
static void test_two_gpus(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t one = rig_service(rig, "one", 20000, 50), two = rig_service(rig, "two", 20000, 50);

	(void)state;
	rig_start(rig);
	rig_submit(rig, REQUEST_START, one, 0);
	rig_submit(rig, REQUEST_START, two, 0);
	assert_int_equal(rig_count(rig, EFFECT_START, one), 1);
	assert_int_equal(rig_count(rig, EFFECT_START, two), 1);
	assert_int_equal(
		rig_last(rig, EFFECT_START, one)->effect.gpus & rig_last(rig, EFFECT_START, two)->effect.gpus, 0);
	assert_int_equal(engine_status(rig->engine, rig->now)->n_running, 2);
	rig_up(rig, one);
	rig_up(rig, two);
	assert_int_equal(stops(rig), 0);
}

/* A service on two GPUs takes its memory on each of them, and evicts on each where it must. */
static void test_gpu_count_two(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t one = rig_service(rig, "one", 20000, 10), wide = rig_service(rig, "wide", 8000, 50);

	(void)state;
	rig->services[wide].gpu_count = 2;
	rig_start(rig);
	rig_run(rig, one);
	rig_submit(rig, REQUEST_START, wide, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, one), 1);
	rig_down(rig, one);
	assert_int_equal(rig_last(rig, EFFECT_START, wide)->effect.gpus, GPU_BIT(0) | GPU_BIT(1));
	rig_up(rig, wide);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 8000);
	assert_int_equal(rig_account(rig, 1)->committed_mib, 8000);
	assert_int_equal(rig_status(rig, wide)->committed_mib, 16000);
}

/* Sizes in percent are of the card that it stands on; the reserve, too. */
static void test_percent_sizes(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t half = rig_service(rig, "half", 0, 50);

	(void)state;
	rig->totals_mib[0] = 8000;
	rig->services[half].vram = (struct size_value){ .percent = 50 };
	rig->services[half].allowed = GPU_BIT(1);
	rig->config.reserve = (struct size_value){ .percent = 10 };
	rig_start(rig);
	assert_int_equal(rig_account(rig, 0)->admissible_mib, 7200);
	rig_run(rig, half);
	assert_int_equal(rig_account(rig, 1)->committed_mib, CARD / 2);
	assert_int_equal(rig_account(rig, 1)->reserve_mib, 2458); /* 2457.6, rounded up */
}

/* Which GPUs it may use becomes known later (by UUID). */
static void test_allowed_later(void **state)
{
	RIG rig = rig_new(2, CARD);
	size_t one = rig_service(rig, "one", 4000, 50);
	struct event event = { .kind = EVENT_ALLOWED, .service = one, .allowed = GPU_BIT(1) };

	(void)state;
	rig->services[one].allowed = 0;
	rig_start(rig);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, one, 0)), OUTCOME_INSUFFICIENT_VRAM);
	rig_handle(rig, &event);
	rig_submit(rig, REQUEST_START, one, 0);
	assert_int_equal(rig_last(rig, EFFECT_START, one)->effect.gpus, GPU_BIT(1));
}

/* Readings that stop coming: after 10 s the ledger decides. */
static void test_stale_readings(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig->foreign_mib[0] = 5000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->mode, ACCOUNTING_PROCESS);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 5000);
	rig_wait(rig, 10000);
	assert_int_equal(rig_account(rig, 0)->mode, ACCOUNTING_PROCESS);
	rig_wait(rig, 1);
	assert_int_equal(rig_account(rig, 0)->mode, ACCOUNTING_LEDGER);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 0);
	assert_true(engine_status(rig->engine, rig->now)->gpus[0].stale);
	assert_true(rig_notices(rig, "gpu.mode", "") >= 1);
}

static void test_totals_only(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig->totals_only = true;
	rig->foreign_mib[0] = 3000;
	rig_read(rig);
	assert_int_equal(rig_account(rig, 0)->mode, ACCOUNTING_TOTAL);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 3000);
	for (size_t s = 0; s < rig->config.n_services; s++) {
		if (rig_count(rig, EFFECT_FIND, s) > 0) /* could it be one of ours, started by hand? */
			rig_found(rig, s, false, false);
	}
	rig_run(rig, site.vidi);
	assert_int_equal(rig_account(rig, 0)->foreign_mib, 3000);
	assert_int_equal(rig_account(rig, 0)->admissible_mib, CARD - 1024 - 4000 - 3000);
}

/* Transitions are watched closely, and nothing else is. */
static void test_sampling(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_submit(rig, REQUEST_START, site.vidi, 0);
	assert_true(rig_last(rig, EFFECT_SAMPLING, 0)->effect.fast);
	rig_up(rig, site.vidi);
	assert_false(rig_last(rig, EFFECT_SAMPLING, 0)->effect.fast);
}

static void test_too_many(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 1000, 50), two = rig_service(rig, "two", 1000, 50);
	size_t three = rig_service(rig, "three", 1000, 50);

	(void)state;
	rig->config.queue_max = 2; /* who waits for his own transition waits, too */
	rig_start(rig);
	rig_submit(rig, REQUEST_START, one, 0);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, two, WAIT_DEFAULT_MS)), -1);
	assert_int_equal(rig_outcome(rig, rig_submit(rig, REQUEST_START, three, WAIT_DEFAULT_MS)), OUTCOME_TOO_MANY);
}

/* What would happen: changes nothing, and is what happens. */
static void test_dry_run(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	struct request_spec spec = { .kind = REQUEST_PHASE, .target = site.video };
	struct plan plan;
	uint64_t version;

	(void)state;
	rig_run(rig, site.ollama);
	version = engine_version(rig->engine);
	assert_int_equal(engine_plan(rig->engine, &spec, rig->now, &plan), PLAN_OK);
	assert_int_equal(plan.n_steps, 2);
	assert_int_equal(plan.steps[0].service, site.ollama);
	assert_int_equal(plan.steps[1].service, site.comfyui);
	plan_finish(&plan);
	assert_int_equal(engine_version(rig->engine), version);
	assert_int_equal(stops(rig), 0);
	spec.kind = REQUEST_STOP;
	assert_true(engine_plan(rig->engine, &spec, rig->now, &plan) < 0);
}

/* A restart is a stop and a start, one after the other. */
static void test_restart(void **state)
{
	struct site site;
	RIG rig = site_new(&site);
	uint64_t ticket;

	(void)state;
	rig_run(rig, site.vidi);
	ticket = rig_submit(rig, REQUEST_RESTART, site.vidi, 0);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 1);
	assert_int_equal(starts(rig), 0);
	rig_down(rig, site.vidi);
	assert_int_equal(rig_count(rig, EFFECT_START, site.vidi), 1);
	rig_up(rig, site.vidi);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
}

/* The main process ends, its children live on: the rest is stopped, and its memory counts until then. */
static void test_leader_ended(void **state)
{
	struct site site;
	RIG rig = site_new(&site);

	(void)state;
	rig_run(rig, site.vidi);
	rig_event(rig, EVENT_LEADER_ENDED, site.vidi, "exit status 1");
	assert_int_equal(rig_account(rig, 0)->committed_mib, 4000);
	assert_int_equal(rig_count(rig, EFFECT_STOP, site.vidi), 1);
	rig_down(rig, site.vidi);
	assert_int_equal(rig_status(rig, site.vidi)->state, SERVICE_ERROR);
	assert_int_equal(rig_account(rig, 0)->committed_mib, 0);
}

/* A step fails: what happened stays, what depended on it is skipped, and the rest goes on. */
static void test_no_rollback(void **state)
{
	RIG rig = rig_new(1, CARD);
	size_t one = rig_service(rig, "one", 4000, 50), two = rig_service(rig, "two", 4000, 50);
	size_t phase = rig_phase(rig, 1, (size_t[]){ one, two, SIZE_MAX });
	uint64_t ticket;

	(void)state;
	rig_start(rig);
	ticket = rig_submit(rig, REQUEST_PHASE, phase, 0);
	assert_int_equal(starts(rig), 2); /* side by side */
	rig_start_failed(rig, one, "broken");
	assert_int_equal(rig_outcome(rig, ticket), -1);
	rig_up(rig, two);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_START_FAILED);
	assert_int_equal(rig_status(rig, two)->state, SERVICE_READY);
	assert_false(engine_status(rig->engine, rig->now)->phase.any &&
		engine_status(rig->engine, rig->now)->phase.satisfied);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_looks_before_it_leaps),
		cmocka_unit_test(test_adopts_what_runs),
		cmocka_unit_test(test_acts_only_in_its_turn),
		cmocka_unit_test(test_running_costs_nothing),
		cmocka_unit_test(test_refuses_and_touches_nothing),
		cmocka_unit_test(test_start_evicts_lower_priority),
		cmocka_unit_test(test_counts_what_is_missing_only),
		cmocka_unit_test(test_no_fixed_waits),
		cmocka_unit_test(test_unknown_is_not_infinity),
		cmocka_unit_test(test_lazy_services_count),
		cmocka_unit_test(test_peak_counts),
		cmocka_unit_test(test_not_healthy_yet),
		cmocka_unit_test(test_probe_intervals),
		cmocka_unit_test(test_start_timeout),
		cmocka_unit_test(test_start_timeout_of_what_never_came_up),
		cmocka_unit_test(test_ends_while_starting),
		cmocka_unit_test(test_start_that_fails),
		cmocka_unit_test(test_equal_requests_join),
		cmocka_unit_test(test_wait_budget),
		cmocka_unit_test(test_withdrawn_before_its_turn),
		cmocka_unit_test(test_order_of_the_queue),
		cmocka_unit_test(test_ageing),
		cmocka_unit_test(test_forced_stop_in_the_middle_of_a_start),
		cmocka_unit_test(test_climbs_to_the_kill),
		cmocka_unit_test(test_stop_refused),
		cmocka_unit_test(test_waits_for_memory),
		cmocka_unit_test(test_unreclaimed_becomes_foreign),
		cmocka_unit_test(test_adopted_memory_was_not_foreign),
		cmocka_unit_test(test_memory_of_the_dead_was_not_foreign),
		cmocka_unit_test(test_memory_that_nobody_saw_was_not_foreign),
		cmocka_unit_test(test_foreign_memory_is_not_owed),
		cmocka_unit_test(test_stranger_in_between),
		cmocka_unit_test(test_unhealthy_after_retries),
		cmocka_unit_test(test_crash_is_noticed),
		cmocka_unit_test(test_stale_news),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_yields_when_idle),
		cmocka_unit_test(test_release_all),
		cmocka_unit_test(test_empty_phase),
		cmocka_unit_test(test_two_gpus),
		cmocka_unit_test(test_gpu_count_two),
		cmocka_unit_test(test_percent_sizes),
		cmocka_unit_test(test_allowed_later),
		cmocka_unit_test(test_stale_readings),
		cmocka_unit_test(test_totals_only),
		cmocka_unit_test(test_sampling),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_dry_run),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_leader_ended),
		cmocka_unit_test(test_no_rollback),
	};

	return cmocka_run_group_tests_name("core/engine", tests, NULL, NULL);
}
