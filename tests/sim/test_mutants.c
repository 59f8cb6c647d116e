/*
 * Proof that the judge can say no. Each mutant plays the same histories against the real engine, but lies to the
 * judge about one thing: what he sees then is what an engine with that fault would show. He must notice every one
 * of them, and nothing when nobody lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "history.h"

#define HISTORIES 400
#define MORE_RESERVE_MIB 512
#define FIRST_SEED 20260701

/* What the judge believes of the configuration. */

static void more_reserve(struct setup *setup) /* the engine ignores the reserve */
{
	setup->config.reserve = (struct size_value){ .mib = setup->config.reserve.mib + MORE_RESERVE_MIB };
}

static void larger_services(struct setup *setup) /* the engine commits less than is declared */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].vram.mib += setup->services[s].vram.mib / 2;
}

static void turned_priorities(struct setup *setup) /* the engine evicts and queues in the opposite order */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].priority = -setup->services[s].priority;
}

static void all_pinned(struct setup *setup) /* the engine evicts what is pinned */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].pinned = true;
}

static void nothing_yields(struct setup *setup) /* the engine evicts for yield_after what does not yield */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].yield_set = false;
}

static void longer_stops(struct setup *setup) /* the engine kills too early */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].stop_timeout_ms += 500;
}

static void shorter_waits(struct setup *setup) /* the engine lets people wait for too long */
{
	setup->config.wait_ms /= 2;
}

static void longer_waits(struct setup *setup) /* the engine gives up too early */
{
	setup->config.wait_ms *= 2;
}

static void slower_probes(struct setup *setup) /* the engine probes too often */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].health_interval_ms *= 2;
}

static void more_gpus_each(struct setup *setup) /* the engine places on too few GPUs */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].gpu_count++;
}

static void other_phases(struct setup *setup) /* the engine does not start all that a phase needs */
{
	for (size_t p = 0; p < setup->config.n_phases; p++) {
		setup->phases[p].n_services = setup->config.n_services;
		for (size_t s = 0; s < setup->config.n_services; s++)
			setup->phase_services[p][s] = s;
	}
}

/* What the judge sees of the effects and of the status. `memory` starts as 0 in each history. */

static struct seen_effect *find_effect(struct observation *seen, enum effect_kind kind)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].effect.kind == kind)
			return &seen->effects[i];
	}
	return NULL;
}

static void remove_effect(struct observation *seen, struct seen_effect *effect)
{
	size_t index = (size_t)(effect - seen->effects);

	memmove(effect, effect + 1, (seen->n_effects - index - 1) * sizeof(*effect));
	seen->n_effects--;
}

static struct seen_effect *add_effect(struct observation *seen, enum effect_kind kind)
{
	struct seen_effect *added = &seen->effects[seen->n_effects];

	if (seen->n_effects == SEEN_EFFECTS)
		return NULL;
	seen->n_effects++;
	memset(added, 0, sizeof(*added));
	added->effect.kind = kind;
	return added;
}

static void show_more_reserve(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t g = 0; g < seen->n_gpus; g++) {
		struct gpu_account *account = &seen->gpus[g].account;

		account->admissible_mib -= MORE_RESERVE_MIB;
		account->reserve_mib += MORE_RESERVE_MIB;
	}
}

static void start_without_waiting(struct observation *seen, uint64_t *memory) /* the reclaim wait is dropped */
{
	for (size_t i = 0; i < seen->n_running; i++) {
		for (size_t j = 0; j < seen->running[i].n_steps; j++) {
			const struct seen_step *step = &seen->running[i].steps[j];
			struct seen_effect *start;

			if (step->plan.action != PLAN_START || step->state != STEP_PENDING || *memory != 0 ||
				seen->services[step->plan.service].state != SERVICE_STOPPED)
				continue;
			start = add_effect(seen, EFFECT_START);
			if (start == NULL)
				return;
			start->effect.service = step->plan.service;
			start->effect.gpus = step->plan.gpus;
			start->effect.run = 1000000;
			*memory = 1;
		}
	}
}

static void drop_reply(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	if (reply != NULL && ++*memory == 3)
		remove_effect(seen, reply);
}

static void reply_twice(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY), *again;

	if (reply == NULL || ++*memory != 2)
		return;
	again = add_effect(seen, EFFECT_REPLY);
	if (again != NULL)
		*again = *find_effect(seen, EFFECT_REPLY);
}

static void say_done(struct observation *seen, uint64_t *memory) /* though it failed */
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL || reply->effect.answer.outcome != OUTCOME_START_FAILED)
		return;
	reply->effect.answer.outcome = OUTCOME_DONE;
	reply->answer.state = TRANSITION_DONE;
}

static void refuse_what_fits(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL || reply->effect.answer.outcome != OUTCOME_DONE || reply->answer.n_steps != 0 ||
		reply->answer.spec.kind != REQUEST_START)
		return;
	reply->effect.answer.outcome = OUTCOME_INSUFFICIENT_VRAM;
	reply->answer.state = TRANSITION_FAILED;
	reply->answer.n_blockers = 1;
}

static void act_for_the_refused(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY), *stop;

	(void)memory;
	if (reply == NULL || reply->effect.answer.outcome != OUTCOME_INSUFFICIENT_VRAM || seen->n_running > 0)
		return;
	for (size_t s = 0; s < seen->n_services; s++) {
		if (seen->services[s].state != SERVICE_READY)
			continue;
		stop = add_effect(seen, EFFECT_STOP);
		if (stop == NULL)
			return;
		stop->effect.service = s;
		stop->effect.run = 1;
	}
}

static void kill_at_once(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *stop = find_effect(seen, EFFECT_STOP);

	(void)memory;
	if (stop != NULL)
		stop->effect.force = true;
}

static void needless_victim(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_running; i++) {
		struct seen_transition *running = &seen->running[i];

		for (size_t s = 0; s < seen->n_services && running->n_steps < SEEN_STEPS; s++) {
			if (seen->services[s].state != SERVICE_READY || running->spec.kind != REQUEST_PHASE)
				continue;
			running->steps[running->n_steps++] = (struct seen_step){
				.plan = { .action = PLAN_STOP, .reason = PLAN_MAKES_ROOM, .service = s, .gpus = 1 },
				.state = STEP_RUNNING,
			};
			break;
		}
	}
}

static void elsewhere(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *start = find_effect(seen, EFFECT_START);

	(void)memory;
	if (start != NULL && seen->n_gpus > 1)
		start->effect.gpus = start->effect.gpus << 1;
}

static void probe_the_dead(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++) {
		struct seen_effect *probe;

		if (seen->services[s].state != SERVICE_STOPPED)
			continue;
		probe = add_effect(seen, EFFECT_PROBE);
		if (probe == NULL)
			return;
		probe->effect.service = s;
		probe->effect.run = 1;
		probe->effect.probe_timeout_ms = 1000;
		return;
	}
}

static void stale_stop(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *stop = find_effect(seen, EFFECT_STOP);

	(void)memory;
	if (stop != NULL)
		stop->effect.run--;
}

static void sleep_for_ever(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	if (seen->n_queue > 0 || seen->n_running > 0)
		seen->deadline = UINT64_MAX;
}

static void deadline_past(struct observation *seen, uint64_t *memory)
{
	if (++*memory > 20)
		seen->deadline = seen->now - 1;
}

static void forget_commitment(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t g = 0; g < seen->n_gpus; g++) {
		if (seen->gpus[g].account.committed_mib > 0) {
			seen->gpus[g].account.committed_mib--;
			seen->gpus[g].account.admissible_mib++;
		}
	}
}

static void forget_foreign(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t g = 0; g < seen->n_gpus; g++) {
		seen->gpus[g].account.admissible_mib += (int64_t)seen->gpus[g].account.foreign_mib;
		seen->gpus[g].account.foreign_mib = 0;
	}
}

static void jump_state(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++) {
		if (seen->services[s].state == SERVICE_STARTING)
			seen->services[s].state = SERVICE_READY;
	}
}

static void same_gpus(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	if (seen->n_running > 1)
		seen->running[1].gpus |= seen->running[0].gpus;
}

static void turn_the_queue(struct observation *seen, uint64_t *memory)
{
	struct seen_transition first;

	(void)memory;
	if (seen->n_queue < 2)
		return;
	first = seen->queue[0];
	seen->queue[0] = seen->queue[1];
	seen->queue[1] = first;
}

static void never_aged(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_queue; i++)
		seen->queue[i].overtaken = 0;
}

static void stand_still(struct observation *seen, uint64_t *memory) /* nothing runs, and somebody waits */
{
	(void)memory;
	if (seen->n_queue > 0)
		seen->n_running = 0;
}

static void slow_sampling(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *sampling = find_effect(seen, EFFECT_SAMPLING);

	(void)memory;
	if (sampling != NULL)
		sampling->effect.fast = false;
}

static void same_version(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	seen->version = 7;
}

static void never_satisfied(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	seen->phase.satisfied = false;
}

static void join_nobody(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *accept = find_effect(seen, EFFECT_ACCEPT);

	if (accept != NULL)
		accept->effect.answer.id = 1000000 + ++*memory;
}

static const struct mutant mutants[] = {
	{ .name = "ignores the reserve", .rule = "admission", .configure = more_reserve, .falsify = show_more_reserve },
	{ .name = "commits too little", .rule = "admission", .configure = larger_services },
	{ .name = "turns priorities round", .rule = "may-evict", .configure = turned_priorities },
	{ .name = "evicts the pinned", .rule = "pinned", .configure = all_pinned },
	{ .name = "evicts what does not yield", .rule = "may-evict", .configure = nothing_yields },
	{ .name = "kills too early", .rule = "early-kill", .configure = longer_stops },
	{ .name = "lets wait too long", .rule = "deadline-late", .configure = shorter_waits },
	{ .name = "gives up too early", .rule = "wait-short", .configure = longer_waits },
	{ .name = "probes too often", .rule = "probe-early", .configure = slower_probes },
	{ .name = "places on too few GPUs", .rule = "place", .configure = more_gpus_each },
	{ .name = "forgets what a phase needs", .rule = "needs", .configure = other_phases },
	{ .name = "does not wait for memory", .rule = "overfull", .falsify = start_without_waiting },
	{ .name = "forgets a reply", .rule = "no-reply", .falsify = drop_reply },
	{ .name = "replies twice", .rule = "reply-twice", .falsify = reply_twice },
	{ .name = "says done when it failed", .rule = "done-not-ready", .falsify = say_done },
	{ .name = "refuses what fits", .rule = "refused-feasible", .falsify = refuse_what_fits },
	{ .name = "acts for the refused", .rule = "unasked-stop", .falsify = act_for_the_refused },
	{ .name = "kills at once", .rule = "early-kill", .falsify = kill_at_once },
	{ .name = "takes a needless victim", .rule = "needless-victim", .falsify = needless_victim },
	{ .name = "starts elsewhere than planned", .rule = "place", .falsify = elsewhere },
	{ .name = "probes the dead", .rule = "stale-run", .falsify = probe_the_dead },
	{ .name = "stops an earlier run", .rule = "stale-run", .falsify = stale_stop },
	{ .name = "sleeps for ever", .rule = "deadline-late", .falsify = sleep_for_ever },
	{ .name = "wants to be woken in the past", .rule = "deadline-past", .falsify = deadline_past },
	{ .name = "shows too small commitments", .rule = "account-committed", .falsify = forget_commitment },
	{ .name = "forgets foreign memory", .rule = "account-others", .falsify = forget_foreign },
	{ .name = "is ready without a check", .rule = "state-notice", .falsify = jump_state },
	{ .name = "runs two on one GPU", .rule = "disjoint", .falsify = same_gpus },
	{ .name = "turns the queue round", .rule = "queue-order", .falsify = turn_the_queue },
	{ .name = "does not count overtaking", .rule = "overtaken-count", .falsify = never_aged },
	{ .name = "stands still", .rule = "stands-still", .falsify = stand_still },
	{ .name = "reads slowly", .rule = "sampling", .falsify = slow_sampling },
	{ .name = "shows changes under one version", .rule = "version", .falsify = same_version },
	{ .name = "is never satisfied", .rule = "phase-satisfied", .falsify = never_satisfied },
	{ .name = "does not join", .falsify = join_nobody },
};

/* The rule that was broken first, or NULL; the history in which it was. */
static bool is_noticed(const struct mutant *mutant, char *rule, size_t size, unsigned *ret_histories)
{
	uint64_t seeds = FIRST_SEED;

	for (unsigned i = 0; i < HISTORIES; i++) {
		struct history_options options = { .n_steps = 200, .mutant = mutant };
		struct history_result result;
		struct choices choices;

		choices_begin(&choices, splitmix64(&seeds));
		history_run(&choices, &options, &result);
		choices_finish(&choices);
		if (result.rule == NULL ||
			(mutant != NULL && mutant->rule != NULL && strcmp(mutant->rule, result.rule) != 0))
			continue;
		snprintf(rule, size, "%s: %s", result.rule, result.message);
		*ret_histories = i + 1;
		return true;
	}
	return false;
}

static void test_the_truth_passes(void **state)
{
	char rule[512];
	unsigned histories;

	(void)state;
	if (is_noticed(NULL, rule, sizeof(rule), &histories))
		fail_msg("without any lie, in history %u: %s", histories, rule);
}

static void test_every_mutant_is_noticed(void **state)
{
	size_t survivors = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(mutants); i++) {
		char rule[512];
		unsigned histories;

		if (is_noticed(&mutants[i], rule, sizeof(rule), &histories)) {
			print_message(
				"an engine that %s is noticed in history %u (%s)\n", mutants[i].name, histories, rule);
			continue;
		}
		print_error("an engine that %s is not noticed\n", mutants[i].name);
		survivors++;
	}
	assert_int_equal(survivors, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_truth_passes),
		cmocka_unit_test(test_every_mutant_is_noticed),
	};

	return cmocka_run_group_tests_name("sim/mutants", tests, NULL, NULL);
}
