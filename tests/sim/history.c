/* Plays one history, and finds a smaller one that breaks the same rule. Must not know what is right: the judge does. */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients.h"
#include "faulty_malloc.h"

#define CLIENTS_MOST 14
#define DRAIN_STEPS 60000

struct history {
	const struct history_options *options;
	struct choices *choices;
	struct setup setup;
	struct world world;
	struct engine *engine;
	struct effects effects;
	struct observation *seen;
	struct checker *checker;
	struct clients clients;
	uint64_t next_ticket;
	uint64_t mutant_memory;
	size_t n_steps;
};

static uint64_t deadline_of(const struct history *history)
{
	return history->n_steps == 0 ? history->world.now : history->seen->deadline;
}

static void trace_event(const struct history *history, const struct event *event)
{
	if (history->options->trace != NULL)
		event_print(event, &history->setup, history->world.now, history->options->trace);
}

/* Nothing must have changed when memory ran out. */
static void check_failed_allocation(struct history *history)
{
	struct observation *seen = history->seen;

	if (history->effects.n != 0)
		checker_broke(history->checker, "no-memory", "effects were left behind");
	if (!history->checker->has_before)
		return;
	observe(seen, history->engine, &history->effects, history->checker->before.now);
	if (seen->version != history->checker->before.version || !is_same_page(seen, &history->checker->before))
		checker_broke(history->checker, "no-memory", "the page changed though memory ran out");
}

static int handle(struct history *history, const struct event *event)
{
	int r;

	effects_clear(&history->effects);
	if (!history->options->fail_allocations || !chance(history->choices, 30))
		return engine_handle(history->engine, event, history->world.now, &history->effects);
	faulty_malloc_fail(1 + choose(history->choices, 8));
	r = engine_handle(history->engine, event, history->world.now, &history->effects);
	if (!faulty_malloc_failed()) {
		return r;
	}
	if (history->options->stats != NULL)
		history->options->stats->failed_allocations++;
	history->checker->fault_ms = history->world.now;
	if (r == 0) /* it did without, or put it off */
		return r;
	if (r != -ENOMEM)
		checker_broke(history->checker, "no-memory", "engine_handle: %d", r);
	check_failed_allocation(history);
	effects_clear(&history->effects);
	return engine_handle(history->engine, event, history->world.now, &history->effects);
}

/* What the dead hold until it is told that they are dead looks like a stranger's. */
static bool is_any_death_untold(const struct history *history)
{
	for (size_t s = 0; s < history->setup.config.n_services; s++)
		if (history->checker->told[s].alive && !history->world.processes[s].exists)
			return true;
	return false;
}

static void bring(struct history *history, const struct event *event)
{
	const struct mutant *mutant = history->options->mutant;
	int r;

	history->n_steps++;
	trace_event(history, event);
	r = handle(history, event);
	if (r != 0)
		checker_broke(history->checker, "handle", "engine_handle: %d", r);
	history->checker->sees_strangers = history->world.is_strange || is_any_death_untold(history);
	checker_tell(history->checker, event, history->world.now);
	observe(history->seen, history->engine, &history->effects, history->world.now);
	if (history->options->trace != NULL)
		observation_print(history->seen, &history->setup, history->options->trace);
	if (mutant != NULL && mutant->falsify != NULL)
		mutant->falsify(history->seen, &history->mutant_memory);
	checker_judge(history->checker, history->seen);
	for (size_t i = 0; i < history->effects.n; i++) {
		world_apply(&history->world, &history->effects.items[i]);
		clients_hear(&history->clients, &history->effects.items[i]);
	}
}

/* What happens next. */

static void tick(struct history *history)
{
	struct event event = { .kind = EVENT_TICK };

	bring(history, &event);
}

/* Time goes on to the next thing that happens, or to when the engine wants to be woken (or a little later). */
static void go_on(struct history *history)
{
	struct event event;
	uint64_t deadline = deadline_of(history), target = world_next(&history->world);

	if (deadline <= target) {
		target = deadline;
		if (!history->world.quiet && chance(history->choices, 100))
			target += choose(history->choices, 300);
	}
	if (world_advance(&history->world, target, &event))
		bring(history, &event);
	else if (history->world.now >= deadline)
		tick(history);
}

static size_t count_waiting(const struct history *history)
{
	size_t n = 0;

	for (size_t i = 0; i < history->checker->n_tickets; i++)
		n += !history->checker->tickets[i].replied && !history->checker->tickets[i].withdrawn;
	return n;
}

static enum request_kind choose_kind(struct choices *choices)
{
	static const enum request_kind kinds[] = { REQUEST_START, REQUEST_PHASE, REQUEST_START, REQUEST_PHASE,
		REQUEST_START, REQUEST_STOP, REQUEST_START, REQUEST_PHASE, REQUEST_RESTART, REQUEST_RELEASE_ALL };

	return kinds[choose(choices, 10)];
}

static struct request_spec choose_request(struct history *history)
{
	static const int64_t waits[] = { WAIT_DEFAULT_MS, 0, 50, 1000, 5000, 30000 };
	const struct engine_config *config = &history->setup.config;
	struct request_spec spec = { .kind = choose_kind(history->choices) };

	if (spec.kind == REQUEST_PHASE && config->n_phases == 0)
		spec.kind = REQUEST_START;
	spec.target = choose(
		history->choices, (uint32_t)(spec.kind == REQUEST_PHASE ? config->n_phases : config->n_services));
	if (spec.kind == REQUEST_RELEASE_ALL)
		spec.target = 0;
	spec.wait_ms = waits[choose(history->choices, 6)];
	if (spec.kind == REQUEST_STOP || spec.kind == REQUEST_RELEASE_ALL)
		spec.force = chance(history->choices, 300);
	return spec;
}

static bool is_idle(const struct history *history)
{
	for (size_t s = 0; s < history->setup.config.n_services; s++) {
		if (!history->checker->told[s].looked)
			return false;
	}
	return history->checker->before.n_running == 0 && history->checker->before.n_queue == 0 &&
		history->checker->before.now == history->world.now &&
		history->checker->before.deadline > history->world.now;
}

/* A step that only waits for what is starting already: no part of a plan. */
static bool is_watched(const struct history *history, const struct plan_step *step, const struct seen_transition *made)
{
	for (size_t i = 0; i < made->n_steps; i++) {
		if (made->steps[i].plan.action == PLAN_STOP && made->steps[i].plan.service == step->service)
			return false;
	}
	return step->action == PLAN_START && history->checker->told[step->service].adopted &&
		history->checker->states[step->service] == SERVICE_STARTING;
}

static bool is_as_planned(const struct history *history, uint64_t ticket, const struct plan *plan, int outcome)
{
	const struct observation *seen = history->seen;
	const struct seen_transition *made = NULL;
	bool is_refused = false, has_to_wait = false, has_broken = false;
	size_t n = 0;

	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct seen_effect *effect = &seen->effects[i];

		has_broken = has_broken || (effect->effect.kind == EFFECT_LEASE && effect->lease.end == LEASE_BROKEN);
		if (effect->effect.kind == EFFECT_REPLY && effect->effect.answer.ticket == ticket) {
			made = &effect->answer;
			is_refused = effect->effect.answer.outcome == OUTCOME_INSUFFICIENT_VRAM;
			has_to_wait = effect->effect.answer.outcome == OUTCOME_WAIT_TIMEOUT ||
				effect->effect.answer.outcome == OUTCOME_TOO_MANY;
		}
	}
	if (made == NULL && seen->n_running > 0)
		made = &seen->running[0];
	if (has_to_wait || has_broken || (made == NULL && seen->n_queue > 0))
		return true; /* whether it waits rightly is another question */
	if (outcome == PLAN_REFUSED)
		return is_refused;
	if (is_refused || made == NULL)
		return false;
	for (size_t i = 0; i < made->n_steps; i++) {
		const struct plan_step *step = &made->steps[i].plan;

		if (is_watched(history, step, made))
			continue;
		if (n == plan->n_steps || step->service != plan->steps[n].service ||
			step->action != plan->steps[n].action || step->gpus != plan->steps[n].gpus)
			return false;
		n++;
	}
	return n == plan->n_steps;
}

/* Asks what would happen before it asks that it happens: the same has to. */
static void submit(struct history *history)
{
	struct event event = { .kind = EVENT_SUBMIT };
	struct plan plan = { 0 };
	bool is_checked;
	int outcome = -EINVAL;
	uint64_t version;

	event.submit.ticket = history->next_ticket++;
	if (!history->setup.has_leases || !chance(history->choices, 450) ||
		!clients_ask(&history->clients, history->checker, history->choices, &event.submit.spec))
		event.submit.spec = choose_request(history);
	is_checked = history->checker->has_before && is_idle(history) && event.submit.spec.kind <= REQUEST_START &&
		chance(history->choices, 500);
	if (is_checked) {
		version = engine_version(history->engine);
		outcome = engine_plan(history->engine, &event.submit.spec, history->world.now, &plan);
		if (outcome < 0 || engine_version(history->engine) != version ||
			engine_next_deadline(history->engine) != history->checker->before.deadline)
			checker_broke(
				history->checker, "dry-run", "engine_plan returned %d or changed something", outcome);
		if (history->options->stats != NULL)
			history->options->stats->dry_runs++;
	}
	bring(history, &event);
	if (is_checked && !is_as_planned(history, event.submit.ticket, &plan, outcome))
		checker_broke(history->checker, "dry-run", "what happened is not what engine_plan said");
	plan_finish(&plan);
}

static void withdraw(struct history *history)
{
	struct event event = { .kind = EVENT_WITHDRAW };
	size_t nth, n = count_waiting(history);

	if (n == 0) {
		go_on(history);
		return;
	}
	nth = choose(history->choices, (uint32_t)n);
	for (size_t i = 0; i < history->checker->n_tickets; i++) {
		const struct ticket *ticket = &history->checker->tickets[i];

		if (ticket->replied || ticket->withdrawn || nth-- > 0)
			continue;
		event.withdraw_ticket = ticket->ticket;
		break;
	}
	if (history->options->stats != NULL)
		history->options->stats->withdrawals++;
	bring(history, &event);
}

/* News of a run that is over, or of one that never was. */
static void bring_stale_news(struct history *history)
{
	static const enum event_kind kinds[] = { EVENT_HEALTH, EVENT_STARTED, EVENT_START_FAILED, EVENT_LEADER_ENDED,
		EVENT_GONE, EVENT_STOP_REFUSED };
	struct event event = { .kind = kinds[choose(history->choices, 6)] };
	const struct told *told;

	event.service = choose(history->choices, (uint32_t)history->setup.config.n_services);
	told = &history->checker->told[event.service];
	event.run = told->last_run + 1000;
	if (choose(history->choices, 2) == 0 && told->last_run > 0)
		event.run = told->alive ? told->last_run - 1 : told->last_run;
	event.text = "old news";
	if (event.kind == EVENT_HEALTH)
		event.healthy = choose(history->choices, 2) == 0;
	if (!history->checker->has_before || history->checker->before.now != history->world.now ||
		history->checker->before.deadline <= history->world.now ||
		history->world.now - history->checker->fault_ms <= 100) { /* what was put off may begin now */
		go_on(history);
		return;
	}
	history->checker->expects_nothing = true;
	if (history->options->stats != NULL)
		history->options->stats->stale_news++;
	bring(history, &event);
}

static void change_allowed(struct history *history)
{
	struct event event = { .kind = EVENT_ALLOWED };

	event.service = choose(history->choices, (uint32_t)history->setup.config.n_services);
	event.allowed = choose_between(history->choices, 1, (1u << history->setup.n_gpus) - 1);
	bring(history, &event);
}

/* ---- leases ---- */

static bool is_quiet_now(const struct history *history)
{
	return history->checker->has_before && history->checker->before.now == history->world.now &&
		history->checker->before.deadline > history->world.now &&
		history->world.now - history->checker->fault_ms > 100;
}

/* About a lease that ended, or never was. */
static void bring_stale_lease(struct history *history)
{
	static const enum event_kind kinds[] = { EVENT_RELEASE, EVENT_RENEW, EVENT_DETACH, EVENT_ATTACH, EVENT_FENCE,
		EVENT_LOCK };
	struct event event = { .kind = kinds[choose(history->choices, 6)] };
	uint64_t fence = choose(history->choices, (uint32_t)history->checker->last_fence + 5);

	if (!is_quiet_now(history) || find_held(history->checker, fence) != NULL ||
		(event.kind == EVENT_LOCK && history->world.lock_is_wanted)) {
		go_on(history);
		return;
	}
	if (event.kind == EVENT_FENCE) {
		event.fence.id = 1000000;
		event.fence.fence = ++history->world.last_fence;
	} else if (event.kind == EVENT_LOCK) {
		event.lock = choose(history->choices, LOCK_UNAVAILABLE + 1);
	} else {
		event.lease.fence = fence;
		event.lease.ttl_ms = choose(history->choices, 1000);
	}
	history->checker->expects_nothing = true;
	if (history->options->stats != NULL)
		history->options->stats->stale_leases++;
	bring(history, &event);
}

static void vanish(struct history *history)
{
	unsigned client = clients_choose(history->choices);
	struct event event;

	while (history->checker->rule == NULL && clients_vanish(history->checker, client, &event))
		bring(history, &event);
}

static void restore(struct history *history, uint64_t grace_ms)
{
	for (size_t i = 0; i < history->clients.n_stored; i++) {
		struct stored *stored = &history->clients.stored[i];

		stored->lease.services = stored->services;
		if (engine_restore_lease(history->engine, &stored->lease, history->world.now, grace_ms) != 0)
			checker_broke(history->checker, "restore", "lease %llu is not restored",
				(unsigned long long)stored->lease.fence);
		if (stored->lease.attached && chance(history->choices, 700))
			world_come_back(&history->world, stored->lease.fence,
				choose(history->choices,
					chance(history->choices, 700) ? 200 : (uint32_t)grace_ms + 100));
	}
}

/* The daemon is killed, and begins anew with what its store kept. */
static void restart(struct history *history)
{
	static const uint64_t graces_ms[] = { 10000, 2000, 500, 0 };
	uint64_t grace_ms = graces_ms[choose(history->choices, 4)];
	struct event event = { .kind = EVENT_TICK };

	if (history->options->trace != NULL)
		fprintf(history->options->trace,
			"t=%llu THE DAEMON IS KILLED; a new one has %zu leases, grace %llu ms\n",
			(unsigned long long)history->world.now, history->clients.n_stored,
			(unsigned long long)grace_ms);
	history->engine = engine_destroy(history->engine);
	world_restart(&history->world);
	if (engine_create(&history->setup.config, &history->engine) != 0)
		abort();
	checker_restart(history->checker, history->world.now, history->world.now + grace_ms);
	restore(history, grace_ms);
	bring(history, &event);
}

static void lease_step(struct history *history)
{
	uint32_t what = choose(history->choices, 100);
	struct event event = { .kind = EVENT_UNLOCK };

	if (what >= 97 && (history->clients.n_stored > 0 || chance(history->choices, 200)))
		restart(history);
	else if (what == 96)
		bring(history, &event);
	else if (what >= 92)
		vanish(history);
	else if (what >= 84)
		bring_stale_lease(history);
	else if (clients_act(&history->clients, history->checker, history->choices, &event))
		bring(history, &event);
	else
		go_on(history);
}

static void step(struct history *history)
{
	uint32_t what = choose(history->choices, 1000);

	if (what >= 850 && count_waiting(history) < CLIENTS_MOST)
		submit(history);
	else if (what >= 830)
		withdraw(history);
	else if (what >= 790)
		world_disturb(&history->world);
	else if (what >= 770)
		bring_stale_news(history);
	else if (what >= 755)
		tick(history);
	else if (what >= 752)
		change_allowed(history);
	else if (what >= 620 && history->setup.has_leases)
		lease_step(history);
	else
		go_on(history);
}

/* The world goes quiet; whoever waits must be answered, and the queue must empty. */
static void drain(struct history *history)
{
	struct event event;
	uint64_t limit, open = count_waiting(history) + history->seen->n_running + history->seen->n_queue;

	limit = history->world.now + 60000 + (open + 1) * 200000;
	world_calm(&history->world);
	for (size_t i = 0; i < DRAIN_STEPS && history->checker->rule == NULL; i++) {
		if (clients_let_go(&history->clients, history->checker, history->setup.is_polite, &event)) {
			bring(history, &event);
			continue;
		}
		if (count_waiting(history) == 0 && history->seen->n_queue == 0 && history->seen->n_running == 0)
			break;
		if (history->world.now > limit)
			break;
		go_on(history);
	}
	if (history->setup.is_polite && count_waiting(history) > 0)
		checker_broke(history->checker, "deadlock", "everybody lets go what he has, and some wait for ever");
	checker_end(history->checker);
	if (history->seen->n_queue != 0 || history->seen->n_running != 0)
		checker_broke(history->checker, "drain", "the world is quiet and the queue does not empty");
}

static void begin(struct history *history)
{
	struct event event = { .kind = EVENT_TICK };
	struct setup believed;

	choices_next_step(history->choices);
	setup_choose(&history->setup, history->choices);
	believed = history->setup;
	if (history->options->trace != NULL)
		setup_print(&history->setup, history->options->trace);
	if (history->options->mutant != NULL && history->options->mutant->configure != NULL)
		history->options->mutant->configure(&believed);
	checker_begin(history->checker, &believed, history->options->stats);
	world_begin(&history->world, &history->setup, history->choices, history->options->trace);
	if (engine_create(&history->setup.config, &history->engine) != 0)
		abort();
	bring(history, &event);
}

static void check_overflow(struct history *history)
{
	if (history->options->stats != NULL)
		history->options->stats->overflows += history->world.overflows;
	if (history->world.is_honest && history->setup.nastiness == 0 && history->world.overflows > 0)
		checker_broke(
			history->checker, "out-of-memory", "everybody kept his word and a card ran out of memory");
}

void history_run(struct choices *choices, const struct history_options *options, struct history_result *ret_result)
{
	struct history history = { .options = options, .choices = choices, .next_ticket = 1 };

	history.seen = calloc(1, sizeof(*history.seen));
	history.checker = calloc(1, sizeof(*history.checker));
	if (history.seen == NULL || history.checker == NULL)
		abort();
	begin(&history);
	while (history.checker->rule == NULL && history.n_steps < options->n_steps && choices_next_step(choices))
		step(&history);
	choices_next_step(choices);
	if (history.checker->rule == NULL)
		drain(&history);
	check_overflow(&history);
	ret_result->rule = history.checker->rule;
	memcpy(ret_result->message, history.checker->message, sizeof(ret_result->message));
	ret_result->n_steps = history.n_steps;
	effects_finish(&history.effects);
	engine_destroy(history.engine);
	world_finish(&history.world);
	free(history.seen);
	free(history.checker);
}

/* Shrinking. */

static bool still_fails(
	struct choices *choices, const struct history_options *options, const char *rule, struct history_result *result)
{
	choices_rewind(choices);
	history_run(choices, options, result);
	return result->rule != NULL && strcmp(result->rule, rule) == 0;
}

static void replace(struct choices *choices, struct choices *better)
{
	choices_finish(choices);
	*choices = *better;
}

static bool try_without(
	struct choices *choices, const struct history_options *options, const char *rule, size_t first, size_t n)
{
	struct choices fewer;
	struct history_result result;

	choices_copy(&fewer, choices);
	if (choices_drop_steps(&fewer, first, n) && still_fails(&fewer, options, rule, &result)) {
		replace(choices, &fewer);
		return true;
	}
	choices_finish(&fewer);
	return false;
}

static bool try_lower(struct choices *choices, const struct history_options *options, const char *rule, size_t step,
	size_t index, uint32_t value)
{
	struct choices lower;
	struct history_result result;

	choices_copy(&lower, choices);
	if (choices_lower(&lower, step, index, value) && still_fails(&lower, options, rule, &result)) {
		replace(choices, &lower);
		return true;
	}
	choices_finish(&lower);
	return false;
}

static bool is_late(const struct timespec *since, unsigned seconds)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - since->tv_sec >= (time_t)seconds;
}

void history_shrink(struct choices *choices, const struct history_options *options, const char *rule, unsigned seconds)
{
	struct timespec began;
	bool improved = true;

	clock_gettime(CLOCK_MONOTONIC, &began);
	while (improved && !is_late(&began, seconds)) {
		improved = false;
		for (size_t n = choices->n_steps / 2; n > 0; n /= 2) {
			for (size_t first = choices->n_steps; first > 1 && !is_late(&began, seconds);) {
				first = first > n ? first - n : 1;
				improved |= try_without(choices, options, rule, first, n);
			}
		}
		for (size_t s = 0; s < choices->n_steps && !is_late(&began, seconds); s++) {
			for (size_t i = 0; i < choices->steps[s].n && !is_late(&began, seconds); i++) {
				uint32_t value = choices->steps[s].values[i];

				improved |= try_lower(choices, options, rule, s, i, 0) ||
					try_lower(choices, options, rule, s, i, value / 2);
			}
		}
	}
}
