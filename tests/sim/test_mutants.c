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

#define HISTORIES 1500
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

static void no_lock_used(struct setup *setup) /* the engine wants a lock that there is not */
{
	setup->config.uses_lock = false;
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

static void fewer_sharers(struct setup *setup) /* the engine lets more share than may */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].max_leases = 1;
}

static void longer_graces(struct setup *setup) /* the engine breaks leases too early */
{
	for (size_t s = 0; s < setup->config.n_services; s++) {
		if (setup->services[s].preempt_after_ms != NEVER_MS)
			setup->services[s].preempt_after_ms += 100;
	}
}

static void no_graces(struct setup *setup) /* the engine breaks what may never be broken */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].preempt_after_ms = NEVER_MS;
}

static void all_have_probes(struct setup *setup) /* the engine does not ask whether its victims work */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].has_busy_probe = true;
}

static void all_external_stopped(struct setup *setup) /* the engine lets run what others started */
{
	for (size_t s = 0; s < setup->config.n_services; s++)
		setup->services[s].stop_external = true;
}

static void fewer_leases(struct setup *setup) /* the engine grants more leases than are allowed */
{
	setup->config.leases_max = 1;
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

/* Whoever waited in vain is told that it does not fit. */
static void refuse_who_waited(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL ||
		(reply->effect.answer.outcome != OUTCOME_WAIT_TIMEOUT &&
			reply->effect.answer.outcome != OUTCOME_LEASE_TIMEOUT))
		return;
	reply->effect.answer.outcome = OUTCOME_INSUFFICIENT_VRAM;
	reply->answer.state = TRANSITION_FAILED;
	reply->answer.n_blockers = 1;
}

/* What was found half stopped goes on running. */
static void let_go_on(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *adopt = find_effect(seen, EFFECT_ADOPT), *stop = find_effect(seen, EFFECT_STOP);

	(void)memory;
	if (adopt != NULL && stop != NULL && adopt->effect.service == stop->effect.service)
		remove_effect(seen, stop);
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

/* Leases. */

static struct seen_effect *find_news(struct observation *seen, enum lease_news news)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].effect.kind == EFFECT_LEASE && seen->effects[i].effect.lease.news == news)
			return &seen->effects[i];
	}
	return NULL;
}

static void drop_news(struct observation *seen, enum lease_news news)
{
	struct seen_effect *found = find_news(seen, news);

	if (found != NULL)
		remove_effect(seen, found);
}

static void tell_twice(struct observation *seen, enum lease_news news)
{
	struct seen_effect *found = find_news(seen, news), *again;

	if (found == NULL)
		return;
	again = add_effect(seen, EFFECT_LEASE);
	if (again != NULL)
		*again = *find_news(seen, news);
}

static void keep_lease(struct observation *seen, const struct seen_lease *lease)
{
	size_t at = 0;

	if (seen->n_leases == SEEN_LEASES)
		return;
	while (at < seen->n_leases && seen->leases[at].fence < lease->fence)
		at++;
	memmove(&seen->leases[at + 1], &seen->leases[at], (seen->n_leases - at) * sizeof(*lease));
	seen->leases[at] = *lease;
	seen->n_leases++;
}

static void drop_grant(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	drop_news(seen, LEASE_NEWS_GRANTED);
}

static void grant_twice(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	tell_twice(seen, LEASE_NEWS_GRANTED);
}

static void old_fence(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *grant = find_news(seen, LEASE_NEWS_GRANTED);

	if (grant == NULL)
		return;
	if (*memory != 0)
		grant->lease.fence = *memory;
	*memory = grant->lease.fence;
}

static void grant_something_else(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *grant = find_news(seen, LEASE_NEWS_GRANTED);

	(void)memory;
	if (grant != NULL)
		grant->lease.attached = !grant->lease.attached;
}

/* Some service was never seen to become ready. */
static void grant_unready(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = seen->n_effects; i-- > 0;) {
		struct seen_effect *change = &seen->effects[i];

		if (strcmp(change->notice, "service.state") == 0 && change->subject == 0 &&
			(change->from == SERVICE_READY || change->to == SERVICE_READY || change->to == SERVICE_BUSY))
			remove_effect(seen, change);
	}
	if (seen->services[0].state == SERVICE_READY || seen->services[0].state == SERVICE_BUSY)
		seen->services[0].state = SERVICE_STARTING;
}

/* A grant takes in what somebody else holds. */
static void grant_what_is_held(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *grant = find_news(seen, LEASE_NEWS_GRANTED);

	(void)memory;
	for (size_t i = 0; i < seen->n_leases && grant != NULL; i++) {
		if (seen->leases[i].fence != grant->lease.fence && seen->leases[i].mode == LEASE_EXCLUSIVE)
			grant->lease.services |= seen->leases[i].services;
	}
}

static void claim_what_is_held(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_running; i++) {
		for (size_t j = 0; j < seen->n_leases && seen->running[i].spec.kind == REQUEST_LEASE; j++)
			seen->running[i].spec.services |= seen->leases[j].services;
	}
}

static void answer_early(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *grant = find_news(seen, LEASE_NEWS_GRANTED), *reply = find_effect(seen, EFFECT_REPLY);
	struct seen_effect earlier;

	(void)memory;
	if (grant == NULL || reply == NULL || reply < grant)
		return;
	earlier = *reply;
	memmove(grant + 1, grant, (size_t)(reply - grant) * sizeof(*grant));
	*grant = earlier;
}

static void drop_end(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	drop_news(seen, LEASE_NEWS_ENDED);
}

static void end_twice(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	tell_twice(seen, LEASE_NEWS_ENDED);
}

static void end_for(struct observation *seen, enum lease_end from, enum lease_end to)
{
	struct seen_effect *end = find_news(seen, LEASE_NEWS_ENDED);

	if (end != NULL && end->lease.end == from)
		end->lease.end = to;
}

static void say_expired(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	end_for(seen, LEASE_RELEASED, LEASE_EXPIRED);
}

static void say_abandoned(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	end_for(seen, LEASE_DETACHED, LEASE_ABANDONED);
}

static void say_released(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	end_for(seen, LEASE_EXPIRED, LEASE_RELEASED);
}

static void say_broken(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	end_for(seen, LEASE_RELEASED, LEASE_BROKEN);
}

/* What ended for that reason goes on, for this event at least. */
static void let_live(struct observation *seen, enum lease_end why)
{
	struct seen_effect *end = find_news(seen, LEASE_NEWS_ENDED);

	if (end == NULL || end->lease.end != why)
		return;
	keep_lease(seen, &end->lease);
	remove_effect(seen, end);
}

static void never_expire(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	let_live(seen, LEASE_EXPIRED);
}

static void ignore_release(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	let_live(seen, LEASE_RELEASED);
}

static void ignore_force(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	let_live(seen, LEASE_FORCED);
}

static void expire_sooner(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_leases; i++)
		seen->leases[i].expires_ms -= seen->leases[i].expires_ms != SIM_NEVER;
}

static void forget_renewal(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	drop_news(seen, LEASE_NEWS_RENEWED);
}

static void move_secretly(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_leases; i++)
		seen->leases[i].gpus |= seen->leases[i].gpus << 1;
}

static void warn_nobody(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	drop_news(seen, LEASE_NEWS_WANTED);
}

/* Nobody is warned, and nobody is shown to be waited for. */
static void want_nothing(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	while (find_news(seen, LEASE_NEWS_WANTED) != NULL)
		drop_news(seen, LEASE_NEWS_WANTED);
	for (size_t i = 0; i < seen->n_leases; i++) {
		seen->leases[i].is_wanted = false;
		seen->leases[i].breaks_ms = SIM_NEVER;
	}
}

static void warn_for_nothing(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *news;

	if (seen->n_leases == 0 || seen->n_queue > 0 || *memory != 0)
		return;
	news = add_effect(seen, EFFECT_LEASE);
	if (news == NULL)
		return;
	seen->leases[0].is_wanted = true;
	news->effect.lease.news = LEASE_NEWS_WANTED;
	news->lease = seen->leases[0];
	*memory = 1;
}

static void warn_twice(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_effects; i++) {
		struct seen_effect *again;

		if (seen->effects[i].effect.kind != EFFECT_LEASE ||
			seen->effects[i].effect.lease.news != LEASE_NEWS_WANTED)
			continue;
		again = add_effect(seen, EFFECT_LEASE);
		if (again != NULL)
			*again = seen->effects[i];
		return;
	}
}

static void keep_failure_quiet(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	drop_news(seen, LEASE_NEWS_SERVICE_FAILED);
}

static void cry_deadlock(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply != NULL && reply->effect.answer.outcome == OUTCOME_LEASE_TIMEOUT)
		reply->effect.answer.outcome = OUTCOME_WOULD_DEADLOCK;
}

/* Whoever would wait for himself is left to wait. */
static void let_wait_for_itself(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL || reply->effect.answer.outcome != OUTCOME_WOULD_DEADLOCK ||
		seen->n_queue == SEEN_TRANSITIONS)
		return;
	seen->queue[seen->n_queue] = reply->answer;
	seen->queue[seen->n_queue++].state = TRANSITION_QUEUED;
	remove_effect(seen, reply);
}

static void refuse_repetition(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL || reply->lease.fence == 0 || reply->answer.id != 0)
		return;
	reply->effect.answer.outcome = OUTCOME_REQUEST_ID_REUSED;
	reply->lease.fence = 0;
}

static void refuse_new_name(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply != NULL && reply->effect.answer.outcome == OUTCOME_LEASE_TIMEOUT)
		reply->effect.answer.outcome = OUTCOME_REQUEST_ID_REUSED;
}

static void deny_fences(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply != NULL && reply->effect.answer.outcome == OUTCOME_LEASE_TIMEOUT)
		reply->effect.answer.outcome = OUTCOME_LOCK_UNAVAILABLE;
}

static void keep_the_lease(struct observation *seen, uint64_t *memory) /* the answer comes without it */
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply != NULL)
		reply->lease.fence = 0;
}

static void forget_holders(struct observation *seen, uint64_t *memory) /* who may come back after a restart */
{
	size_t kept = 0;

	(void)memory;
	for (size_t i = 0; i < seen->n_leases; i++) {
		if (!seen->leases[i].awaits_holder)
			seen->leases[kept++] = seen->leases[i];
	}
	seen->n_leases = kept;
}

/* A needless victim, of a kind. */
static void stop_somebody(struct observation *seen, bool (*is_meant)(const struct service_status *))
{
	for (size_t i = 0; i < seen->n_running; i++) {
		struct seen_transition *running = &seen->running[i];

		for (size_t s = 0; s < seen->n_services && running->n_steps < SEEN_STEPS; s++) {
			if (!is_meant(&seen->services[s]) || running->spec.force || running->n_steps == 0)
				continue;
			running->steps[running->n_steps++] = (struct seen_step){
				.plan = { .action = PLAN_STOP, .reason = PLAN_MAKES_ROOM, .service = s, .gpus = 1 },
				.state = STEP_RUNNING,
			};
			break;
		}
	}
}

static bool is_leased(const struct service_status *service)
{
	return service->state == SERVICE_BUSY && service->n_leases > 0;
}

static bool is_working(const struct service_status *service)
{
	return service->state == SERVICE_BUSY && service->n_leases == 0 && service->says_busy;
}

static void evict_leased(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	stop_somebody(seen, is_leased);
}

static void evict_working(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	stop_somebody(seen, is_working);
}

/* `memory` is the run of service 0. */
static void stop_under_holder(struct observation *seen, uint64_t *memory)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct effect *effect = &seen->effects[i].effect;

		if ((effect->kind == EFFECT_START || effect->kind == EFFECT_ADOPT) && effect->service == 0)
			*memory = effect->run;
	}
	if (seen->n_running == 0 || !is_leased(&seen->services[0]) || seen->running[0].n_steps == SEEN_STEPS)
		return;
	seen->running[0].steps[seen->running[0].n_steps++] = (struct seen_step){
		.plan = { .action = PLAN_STOP, .reason = PLAN_MAKES_ROOM, .service = 0, .gpus = 1 },
		.state = STEP_RUNNING,
	};
	if (add_effect(seen, EFFECT_STOP) != NULL) {
		seen->effects[seen->n_effects - 1].effect.service = 0;
		seen->effects[seen->n_effects - 1].effect.run = *memory;
	}
}

/* What is leased and down, or leased as room, gives its place away. */
static void forget_reservation(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++) {
		struct service_status *service = &seen->services[s];

		for (size_t g = 0; g < seen->n_gpus && service->n_leases > 0 && service->state == SERVICE_ERROR; g++) {
			struct gpu_account *account = &seen->gpus[g].account;

			if ((service->gpus & GPU_BIT(g)) == 0 || account->committed_mib < 64)
				continue;
			account->committed_mib -= 64;
			account->admissible_mib += 64;
		}
	}
}

static void forget_room(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_leases; i++) {
		for (size_t g = 0; g < seen->n_gpus; g++) {
			if (seen->leases[i].room_mib == 0 || (seen->leases[i].gpus & GPU_BIT(g)) == 0)
				continue;
			seen->gpus[g].account.committed_mib -= seen->leases[i].room_mib;
			seen->gpus[g].account.admissible_mib += seen->leases[i].room_mib;
		}
	}
}

static void ask_the_dead(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++) {
		struct seen_effect *ask;

		if (seen->services[s].state != SERVICE_STOPPED)
			continue;
		ask = add_effect(seen, EFFECT_ASK_BUSY);
		if (ask != NULL)
			ask->effect.service = s;
		return;
	}
}

static void ask_twice(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *ask = find_effect(seen, EFFECT_ASK_BUSY), *again;

	(void)memory;
	if (ask == NULL)
		return;
	again = add_effect(seen, EFFECT_ASK_BUSY);
	if (again != NULL)
		*again = *find_effect(seen, EFFECT_ASK_BUSY);
}

static void hear_nothing(struct observation *seen, uint64_t *memory) /* of what busy probes say */
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++)
		seen->services[s].says_busy = false;
}

static void show_unused(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++)
		seen->services[s].in_use = false;
}

static void forget_claims(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t s = 0; s < seen->n_services; s++)
		seen->services[s].n_leases -= seen->services[s].n_leases > 0;
}

static void oversleep(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	if (seen->n_leases > 0)
		seen->deadline += 100000;
}

static void park_everybody(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_queue; i++)
		seen->queue[i].state = TRANSITION_PARKED;
}

/* Who is refused is let wait instead, for what would not help him. */
static void park_the_hopeless(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *reply = find_effect(seen, EFFECT_REPLY);

	(void)memory;
	if (reply == NULL || reply->effect.answer.outcome != OUTCOME_INSUFFICIENT_VRAM ||
		seen->n_queue + seen->n_running > 0)
		return;
	seen->queue[seen->n_queue] = reply->answer;
	seen->queue[seen->n_queue++].state = TRANSITION_PARKED;
	remove_effect(seen, reply);
}

/* Who would be parked is refused instead. */
static void refuse_the_parked(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *accept = find_effect(seen, EFFECT_ACCEPT), *reply;
	struct seen_transition *parked = &seen->queue[0];

	(void)memory;
	if (accept == NULL || seen->n_queue != 1 || seen->n_running > 0 || parked->state != TRANSITION_PARKED ||
		parked->id != accept->effect.answer.id)
		return;
	reply = add_effect(seen, EFFECT_REPLY);
	if (reply == NULL)
		return;
	reply->effect.answer.ticket = accept->effect.answer.ticket;
	reply->effect.answer.id = parked->id;
	reply->effect.answer.outcome = OUTCOME_INSUFFICIENT_VRAM;
	reply->answer = *parked;
	reply->answer.state = TRANSITION_FAILED;
	reply->answer.n_blockers = 1;
	seen->n_queue = 0;
}

/* Who would wait for himself does so. */
static void let_circles_wait(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = seen->n_effects; i-- > 0;) {
		if (seen->effects[i].effect.kind == EFFECT_REPLY &&
			seen->effects[i].effect.answer.outcome == OUTCOME_WOULD_DEADLOCK)
			remove_effect(seen, &seen->effects[i]);
	}
}

static void drop_change(struct observation *seen, size_t service)
{
	for (size_t i = seen->n_effects; i-- > 0;) {
		struct seen_effect *change = &seen->effects[i];

		if (strcmp(change->notice, "service.state") == 0 && change->subject == service)
			remove_effect(seen, change);
	}
}

/* A lease for which nothing is to be done stays in the queue. */
static void let_warm_wait(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *fence = find_effect(seen, EFFECT_FENCE);
	struct seen_transition *last;

	(void)memory;
	if (fence == NULL || seen->n_running == 0 || seen->n_queue > 0)
		return;
	last = &seen->running[seen->n_running - 1];
	if (last->n_steps > 0 || last->spec.kind != REQUEST_LEASE || last->id != fence->effect.answer.id)
		return;
	remove_effect(seen, fence);
	seen->queue[seen->n_queue] = *last;
	seen->queue[seen->n_queue++].state = TRANSITION_QUEUED;
	seen->n_running--;
	for (size_t s = 0; s < seen->n_services; s++) {
		struct service_status *service = &seen->services[s];

		if ((last->spec.services & GPU_BIT(s)) == 0 || --service->n_leases > 0)
			continue;
		service->in_use = service->says_busy;
		service->state = service->in_use ? SERVICE_BUSY : SERVICE_READY;
		drop_change(seen, s);
	}
}

/* Who waits for another service is shown to wait for the one that is taken, and to stand before who takes it. */
static void pass_by(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_running; i++) {
		const struct seen_transition *running = &seen->running[i];

		for (size_t j = 0; j < seen->n_queue && running->spec.kind == REQUEST_LEASE; j++) {
			if (seen->queue[j].spec.kind != REQUEST_LEASE)
				continue;
			seen->queue[j].spec.services |= running->spec.services;
			seen->queue[j].priority = running->priority + 1;
		}
	}
}

/* ---- the lock across hosts ---- */

static void outlive_lock(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	let_live(seen, LEASE_LOCK_LOST);
}

static void say_forced(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	end_for(seen, LEASE_LOCK_LOST, LEASE_FORCED);
}

/* Who would have to wait for the lock has its turn. */
static void begin_at_once(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *lock = find_effect(seen, EFFECT_LOCK);
	struct seen_transition *first = &seen->queue[0];

	(void)memory;
	if (lock == NULL || !lock->effect.lock_wanted || seen->n_queue != 1 || seen->n_running > 0 ||
		first->spec.kind != REQUEST_LEASE)
		return;
	seen->running[seen->n_running] = *first;
	seen->running[seen->n_running++].state = TRANSITION_RUNNING;
	seen->n_queue = 0;
}

static void keep_lock(struct observation *seen, uint64_t *memory)
{
	struct seen_effect *lock = find_effect(seen, EFFECT_LOCK);

	(void)memory;
	if (lock != NULL && !lock->effect.lock_wanted)
		remove_effect(seen, lock);
}

static void blame_lock(struct observation *seen, uint64_t *memory)
{
	(void)memory;
	for (size_t i = 0; i < seen->n_effects; i++) {
		struct effect *effect = &seen->effects[i].effect;

		if (effect->kind == EFFECT_REPLY && effect->answer.outcome == OUTCOME_LEASE_TIMEOUT)
			effect->answer.outcome = OUTCOME_LOCK_UNAVAILABLE;
	}
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
	{ .name = "refuses who may wait for memory", .rule = "refused-early", .falsify = refuse_who_waited },
	{ .name = "does not finish a stop", .rule = "half-stopped", .falsify = let_go_on },
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
	{ .name = "lets too many share", .rule = "max-leases", .configure = fewer_sharers },
	{ .name = "breaks leases too early", .rule = "broken-early", .configure = longer_graces },
	{ .name = "breaks what may never be", .rule = "broken-never", .configure = no_graces },
	{ .name = "breaks for nobody", .rule = "broken-unwarned", .falsify = say_broken },
	{ .name = "breaks without a warning", .rule = "broken-unwarned", .falsify = want_nothing },
	{ .name = "grants too many leases", .rule = "leases-max", .configure = fewer_leases },
	{ .name = "does not ask its victims", .rule = "unasked-victim", .configure = all_have_probes },
	{ .name = "lets run what others started", .rule = "external-stays", .configure = all_external_stopped },
	{ .name = "forgets a grant", .rule = "reply-lease", .falsify = drop_grant },
	{ .name = "grants twice", .rule = "grant", .falsify = grant_twice },
	{ .name = "uses a fence again", .rule = "fence", .falsify = old_fence },
	{ .name = "grants something else", .rule = "grant-terms", .falsify = grant_something_else },
	{ .name = "grants what is not ready", .rule = "grant-ready", .falsify = grant_unready },
	{ .name = "grants what is held", .rule = "two-holders", .falsify = grant_what_is_held },
	{ .name = "claims what is held", .rule = "claims-held", .falsify = claim_what_is_held },
	{ .name = "answers before it grants", .rule = "reply-lease", .falsify = answer_early },
	{ .name = "forgets an end", .rule = "leases", .falsify = drop_end },
	{ .name = "ends a lease twice", .rule = "end-unknown", .falsify = end_twice },
	{ .name = "lets a released lease expire", .rule = "expired-early", .falsify = say_expired },
	{ .name = "abandons who is there", .rule = "abandoned-early", .falsify = say_abandoned },
	{ .name = "says released when time is over", .rule = "end-reason", .falsify = say_released },
	{ .name = "lets no lease expire", .rule = "expired-late", .falsify = never_expire },
	{ .name = "ignores a release", .rule = "end-missed", .falsify = ignore_release },
	{ .name = "ignores force", .rule = "end-missed", .falsify = ignore_force },
	{ .name = "cuts leases short", .rule = "expiry", .falsify = expire_sooner },
	{ .name = "forgets a renewal", .rule = "renew-missed", .falsify = forget_renewal },
	{ .name = "moves a lease and tells nobody", .rule = "moved-untold", .falsify = move_secretly },
	{ .name = "warns nobody", .rule = "unwarned", .falsify = warn_nobody },
	{ .name = "warns for nothing", .rule = "warned-for-nothing", .falsify = warn_for_nothing },
	{ .name = "warns twice", .rule = "warned-twice", .falsify = warn_twice },
	{ .name = "keeps a failure quiet", .rule = "failed-untold", .falsify = keep_failure_quiet },
	{ .name = "cries deadlock", .rule = "false-deadlock", .falsify = cry_deadlock },
	{ .name = "lets wait for oneself", .rule = "waits-for-itself", .falsify = let_wait_for_itself },
	{ .name = "refuses a repetition", .rule = "request-id", .falsify = refuse_repetition },
	{ .name = "refuses a new name", .rule = "request-id", .falsify = refuse_new_name },
	{ .name = "denies fences", .rule = "lock", .falsify = deny_fences },
	{ .name = "answers without the lease", .rule = "reply-lease", .falsify = keep_the_lease },
	{ .name = "forgets who may come back", .rule = "leases", .falsify = forget_holders },
	{ .name = "evicts what is leased", .rule = "leased-victim", .falsify = evict_leased },
	{ .name = "evicts what works", .rule = "busy-victim", .falsify = evict_working },
	{ .name = "stops under a holder", .rule = "leased-stop", .falsify = stop_under_holder },
	{ .name = "gives away what is down and leased", .rule = "account-committed", .falsify = forget_reservation },
	{ .name = "forgets leased room", .rule = "account-committed", .falsify = forget_room },
	{ .name = "asks the dead whether they work", .rule = "stale-run", .falsify = ask_the_dead },
	{ .name = "asks twice", .rule = "ask-twice", .falsify = ask_twice },
	{ .name = "does not hear that one works", .rule = "says-busy", .falsify = hear_nothing },
	{ .name = "shows nothing in use", .rule = "in-use", .falsify = show_unused },
	{ .name = "does not count claims", .rule = "lease-count", .falsify = forget_claims },
	{ .name = "oversleeps an expiry", .rule = "deadline-late", .falsify = oversleep },
	{ .name = "parks for nothing", .rule = "parked-for-nothing", .falsify = park_everybody },
	{ .name = "parks what would never fit", .rule = "parked-unfit", .falsify = park_the_hopeless },
	{ .name = "refuses who may be parked", .rule = "refused-parkable", .falsify = refuse_the_parked },
	{ .name = "lets a circle wait", .rule = "deadlock", .falsify = let_circles_wait },
	{ .name = "lets wait for what is free", .rule = "waits-warm", .falsify = let_warm_wait },
	{ .name = "begins without the lock", .rule = "lock-begin", .falsify = begin_at_once },
	{ .name = "wants a lock that is none", .rule = "lock-wanted", .configure = no_lock_used },
	{ .name = "keeps leases when the lock is lost", .rule = "end-missed", .falsify = outlive_lock },
	{ .name = "says forced when the lock is lost", .rule = "end-reason", .falsify = say_forced },
	{ .name = "keeps the lock for nobody", .rule = "lock-wanted", .falsify = keep_lock },
	{ .name = "blames the lock", .rule = "lock", .falsify = blame_lock },
	{ .name = "passes by who waits for a service", .rule = "overtaken-lease", .falsify = pass_by },
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
