/* Judges plans and refusals by the rules of admission, tried the slow way. Must not call the planner. */
#include <string.h>

#include "admission.h"
#include "checker.h"

#define YIELD_MS 60000 /* of what names none, once it was leased */
#define BUSY_FRESH_MS 1000

gpu_set request_needs(const struct checker *checker, const struct asked *spec)
{
	gpu_set needs = 0;

	if (spec->kind == REQUEST_START || spec->kind == REQUEST_RESTART)
		return GPU_BIT(spec->target);
	if (spec->kind == REQUEST_LEASE)
		return spec->services;
	if (spec->kind != REQUEST_PHASE)
		return 0;
	for (size_t i = 0; i < checker->setup.phases[spec->target].n_services; i++)
		needs |= GPU_BIT(checker->setup.phase_services[spec->target][i]);
	return needs;
}

int request_priority(const struct checker *checker, const struct asked *spec)
{
	gpu_set needs = request_needs(checker, spec);
	int priority = 0;
	bool first = true;

	if (spec->kind == REQUEST_STOP || spec->kind == REQUEST_MAKE_ROOM)
		return checker->setup.services[spec->target].priority;
	if (spec->kind == REQUEST_LEASE && spec->has_priority)
		return spec->priority;
	if (spec->kind == REQUEST_LEASE && needs == 0)
		return PRIORITY_DEFAULT;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) == 0)
			continue;
		if (first || checker->setup.services[s].priority > priority)
			priority = checker->setup.services[s].priority;
		first = false;
	}
	return priority;
}

static bool yields(const struct checker *checker, size_t service)
{
	const struct service_definition *definition = &checker->setup.services[service];
	const struct told *told = &checker->told[service];
	int64_t after = definition->yield_set ? definition->yield_after_ms : told->was_leased ? YIELD_MS : NEVER_MS;

	return after != NEVER_MS && told->was_ready && told->idle_since_ms != 0 &&
		checker->now - told->idle_since_ms >= (uint64_t)after;
}

/* Something is ready that gives way to anybody once it was idle for long enough. */
bool is_anything_about_to_yield(const struct checker *checker)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		const struct service_definition *definition = &checker->setup.services[s];
		const struct told *told = &checker->told[s];
		int64_t after = definition->yield_set ? definition->yield_after_ms
			: told->was_leased            ? YIELD_MS
						      : NEVER_MS;

		if (after != NEVER_MS && told->was_ready && !definition->pinned)
			return true;
	}
	return false;
}

/* Whether the request may evict it if nobody used it, room aside. */
static bool may_evict_unused(const struct checker *checker, const struct asked *spec, size_t service)
{
	const struct service_definition *definition = &checker->setup.services[service];

	if (definition->pinned || (request_needs(checker, spec) & GPU_BIT(service)) != 0)
		return false;
	if (spec->kind == REQUEST_PHASE)
		return true;
	if (spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL)
		return false;
	if (spec->kind == REQUEST_MAKE_ROOM && spec->target == service)
		return false;
	return definition->priority < request_priority(checker, spec) || yields(checker, service);
}

static bool is_used(const struct checker *checker, size_t service)
{
	const struct told *told = &checker->told[service];
	bool is_broken = told->broken_ms == checker->now && told->broken_ms != 0; /* its holder's work ends with that */

	return leases_uses(checker, service, 0, true) > 0 || (told->says_busy && !is_broken);
}

static bool may_evict(const struct checker *checker, const struct asked *spec, size_t service)
{
	return !is_used(checker, service) && may_evict_unused(checker, spec, service);
}

/* What may work although nobody leases it was asked just now, and said that it does not. */
static void check_idle(struct checker *checker, const struct seen_transition *adopted, size_t service)
{
	const struct told *told = &checker->told[service];
	const char *name = checker->setup.names[service];
	enum service_state state = checker->states[service];

	if (adopted->spec.force || (state != SERVICE_READY && state != SERVICE_BUSY))
		return;
	require(leases_uses(checker, service, 0, true) == 0, "leased-victim", "#%llu stops %s under its holder",
		(unsigned long long)adopted->id, name);
	if (!checker->setup.services[service].has_busy_probe)
		return;
	if (told->broken_ms == checker->now && told->broken_ms != 0)
		return; /* its holder's work ends with the lease */
	require(!told->says_busy, "busy-victim", "#%llu stops %s, which says that it works",
		(unsigned long long)adopted->id, name);
	require(told->was_asked && checker->now - told->busy_answer_ms <= BUSY_FRESH_MS, "unasked-victim",
		"#%llu stops %s, which nobody asked whether it works", (unsigned long long)adopted->id, name);
}

static void check_stop_step(
	struct checker *checker, const struct seen_transition *adopted, const struct plan_step *step)
{
	const struct asked *spec = &adopted->spec;
	const char *name = checker->setup.names[step->service];
	bool is_needed = (request_needs(checker, spec) & GPU_BIT(step->service)) != 0;

	check_idle(checker, adopted, step->service);
	switch (step->reason) {
	case PLAN_ASKED:
		if (spec->kind == REQUEST_RELEASE_ALL) {
			require(!checker->setup.services[step->service].pinned, "pinned",
				"release-all stops %s, which is pinned", name);
			break;
		}
		require((spec->kind == REQUEST_STOP || spec->kind == REQUEST_RESTART) && spec->target == step->service,
			"may-evict", "nobody asked to stop %s", name);
		break;
	case PLAN_RESTART:
		require(is_needed, "may-evict", "%s is restarted though it is not needed", name);
		require(checker->states[step->service] == SERVICE_ERROR || spec->kind == REQUEST_RESTART, "may-evict",
			"%s is restarted though it is not broken", name);
		break;
	default:
		require(may_evict(checker, spec, step->service), "may-evict", "#%llu may not evict %s (%s)",
			(unsigned long long)adopted->id, name, plan_reason_name(step->reason));
		require((step->reason == PLAN_BROKEN) == (checker->states[step->service] == SERVICE_ERROR), "reason",
			"%s is evicted for the reason %s", name, plan_reason_name(step->reason));
		if (checker->stats != NULL) {
			checker->stats->evictions++;
			checker->stats->made_room += spec->kind == REQUEST_MAKE_ROOM;
			checker->stats->yields += step->reason == PLAN_YIELDS;
			checker->stats->broken += step->reason == PLAN_BROKEN;
		}
		break;
	}
}

static bool is_stopped_by(const struct seen_transition *transition, size_t service)
{
	for (size_t i = 0; i < transition->n_steps; i++) {
		if (transition->steps[i].plan.action == PLAN_STOP && transition->steps[i].plan.service == service)
			return true;
	}
	return false;
}

static bool is_started_by(const struct seen_transition *transition, size_t service)
{
	for (size_t i = 0; i < transition->n_steps; i++) {
		if (transition->steps[i].plan.action == PLAN_START && transition->steps[i].plan.service == service)
			return true;
	}
	return false;
}

bool is_watch_only(const struct checker *checker, const struct seen_transition *transition, size_t service)
{
	/* Of its end there may be no notice, where memory ran out. */
	return checker->told[service].alive && checker->states[service] == SERVICE_STARTING &&
		!is_stopped_by(transition, service);
}

gpu_set stands_on(const struct checker *checker, size_t service)
{
	gpu_set gpus = checker->told[service].alive ? checker->told[service].gpus : 0;

	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		if (account_commitment(checker, service, g).hi > 0)
			gpus |= GPU_BIT(g);
	}
	return gpus;
}

gpu_set stand_on(const struct checker *checker, gpu_set services)
{
	gpu_set gpus = 0;

	for (size_t s = 0; s < checker->setup.config.n_services; s++)
		gpus |= (services & GPU_BIT(s)) != 0 ? stands_on(checker, s) : 0;
	return gpus;
}

/* What is left on each card for whoever is still to be placed: everybody counts who is not on his way out. */
static void fill_room(const struct checker *checker, struct admission *admission, const struct seen_transition *mine)
{
	memset(admission, 0, sizeof(*admission));
	admission->n_gpus = checker->setup.n_gpus;
	for (size_t g = 0; g < admission->n_gpus; g++) {
		uint32_t total = 0;

		account_total(checker, g, &total);
		admission->room[g] = (int64_t)total - account_reserve(checker, g) - account_others(checker, g).lo -
			leases_rooms(checker, g).lo;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			bool is_leased = leases_uses(checker, s, mine != NULL ? mine->id : 0, true) > 0;
			bool is_moving = checker->told[s].planned != 0 ||
				(mine != NULL && (is_stopped_by(mine, s) || is_started_by(mine, s)));
			bool leaves = (checker->states[s] == SERVICE_STOPPING && (!is_leased || is_moving)) ||
				(mine != NULL && is_stopped_by(mine, s));

			if (checker->told[s].planned != 0 &&
				checker->told[s].planned != (mine != NULL ? mine->id : 0) &&
				(checker->told[s].planned_gpus & GPU_BIT(g)) != 0)
				admission->room[g] -= account_declared(checker, s, g);
			else if (checker->told[s].alive && !leaves)
				admission->room[g] -= account_commitment(checker, s, g).lo;
			else if (!checker->told[s].alive && is_leased && (mine == NULL || !is_started_by(mine, s)))
				admission->room[g] -= account_commitment(checker, s, g).lo;
		}
	}
}

static void add_need(const struct checker *checker, struct admission *admission, size_t service, gpu_set usable)
{
	struct admission_need *need = &admission->needs[admission->n_needs++];

	need->count = checker->setup.services[service].gpu_count;
	for (size_t g = 0; g < admission->n_gpus; g++) {
		uint32_t total;

		need->mib[g] = account_declared(checker, service, g);
		if (account_total(checker, g, &total) && (checker->told[service].allowed & usable & GPU_BIT(g)) != 0)
			need->allowed |= GPU_BIT(g);
	}
}

/* What is leased and down comes up where it stood, and so nobody asks whether it would fit elsewhere. */
static void add_start(const struct checker *checker, struct admission *admission, const struct seen_transition *adopted,
	const struct plan_step *step, gpu_set usable)
{
	bool is_kept =
		!checker->told[step->service].alive && leases_uses(checker, step->service, adopted->id, false) > 0;

	add_need(checker, admission, step->service, is_kept ? step->gpus : usable);
}

static void add_room_need(
	const struct checker *checker, struct admission *admission, const struct asked *spec, gpu_set usable)
{
	struct admission_need *need = &admission->needs[admission->n_needs];

	if (spec->kind != REQUEST_LEASE || spec->room_mib == 0)
		return;
	admission->n_needs++;
	need->count = 1;
	for (size_t g = 0; g < admission->n_gpus; g++) {
		uint32_t total;

		need->mib[g] = spec->room_mib;
		if (account_total(checker, g, &total) && (usable & GPU_BIT(g)) != 0)
			need->allowed |= GPU_BIT(g);
	}
}

/* `is_out`: fill_room() took it for gone already, so its memory is counted in again. */
static void add_candidate(
	const struct checker *checker, struct admission *admission, size_t service, bool is_broken, bool is_out)
{
	struct admission_candidate *candidate = &admission->candidates[admission->n_candidates++];

	candidate->service = service;
	candidate->broken = is_broken;
	candidate->priority = checker->setup.services[service].priority;
	candidate->last_used_ms = checker->told[service].last_used_ms;
	for (size_t g = 0; g < admission->n_gpus; g++) {
		candidate->gives[g] = account_commitment(checker, service, g).lo;
		if (is_out)
			admission->room[g] -= candidate->gives[g];
	}
}

static void check_places(struct checker *checker, const struct seen_transition *adopted, struct admission *admission)
{
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;
		const struct service_definition *definition = &checker->setup.services[step->service];

		if (step->action != PLAN_START || is_watch_only(checker, adopted, step->service))
			continue;
		require((request_needs(checker, &adopted->spec) & GPU_BIT(step->service)) != 0, "start-needed",
			"%s is started though nobody needs it", definition->name);
		require(gpu_set_count(step->gpus) == definition->gpu_count, "place", "%s is placed on %u GPUs",
			definition->name, gpu_set_count(step->gpus));
		require((step->gpus & ~checker->told[step->service].allowed) == 0, "place",
			"%s is placed where it may not be", definition->name);
		for (size_t g = 0; g < admission->n_gpus; g++) {
			uint32_t total;

			if ((step->gpus & GPU_BIT(g)) == 0)
				continue;
			require(account_total(checker, g, &total), "unknown-total",
				"%s is placed on a card of unknown size", definition->name);
			admission->room[g] -= account_declared(checker, step->service, g);
			require(admission->room[g] >= 0, "admission", "the plan of #%llu overfills gpu%zu by %lld MiB",
				(unsigned long long)adopted->id, g, -(long long)admission->room[g]);
		}
	}
	if (adopted->spec.kind != REQUEST_LEASE || adopted->spec.room_mib == 0)
		return;
	for (size_t g = 0; g < admission->n_gpus; g++) {
		if ((adopted->gpus & GPU_BIT(g)) != 0 && admission->room[g] >= (int64_t)adopted->spec.room_mib)
			return;
	}
	checker_broke(checker, "admission",
		"the room of #%llu (%u MiB) fits on none of its GPUs (%llx): %lld MiB on the first",
		(unsigned long long)adopted->id, adopted->spec.room_mib, (unsigned long long)adopted->gpus,
		adopted->gpus != 0 ? (long long)admission->room[__builtin_ctzll(adopted->gpus)] : 0LL);
}

gpu_set request_gpus(const struct checker *checker, const struct asked *spec, gpu_set *ret_certain)
{
	gpu_set needs = request_needs(checker, spec), present = GPU_BIT(checker->setup.n_gpus) - 1;
	gpu_set possible = 0, certain = 0;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		gpu_set allowed = checker->told[s].allowed & present;
		bool is_stopped = (spec->kind == REQUEST_STOP && spec->target == s) ||
			(spec->kind == REQUEST_RELEASE_ALL && !checker->setup.services[s].pinned);

		if (checker->told[s].alive && (is_stopped || (needs & GPU_BIT(s)) != 0)) {
			possible |= stands_on(checker, s);
			certain |= is_stopped ? checker->told[s].gpus : 0;
		}
		if ((needs & GPU_BIT(s)) == 0)
			continue;
		possible |= allowed | (checker->told[s].planned != 0 ? checker->told[s].planned_gpus : 0);
		if (!checker->told[s].alive && checker->told[s].planned == 0 &&
			gpu_set_count(allowed) == checker->setup.services[s].gpu_count)
			certain |= allowed;
	}
	if (spec->kind == REQUEST_LEASE && spec->room_mib > 0)
		possible |= present;
	if (spec->kind == REQUEST_MAKE_ROOM)
		possible |= stands_on(checker, spec->target);
	for (size_t s = 0; s < checker->setup.config.n_services && (needs != 0 || possible != 0); s++) {
		bool is_there = checker->told[s].alive || checker->told[s].planned != 0;

		if (is_there && (stands_on(checker, s) & possible) != 0)
			possible |= stands_on(checker, s); /* whom it could evict, and who stands elsewhere, too */
	}
	if (ret_certain != NULL)
		*ret_certain = certain;
	return possible;
}

bool request_fits(const struct checker *checker, const struct asked *spec, gpu_set usable)
{
	gpu_set needs = request_needs(checker, spec);
	struct admission admission;

	fill_room(checker, &admission, NULL);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) != 0)
			add_need(checker, &admission, s, usable);
	}
	add_room_need(checker, &admission, spec, usable);
	return admission_fits(&admission, 0);
}

bool request_is_hopeful(const struct checker *checker, const struct asked *spec)
{
	gpu_set needs = request_needs(checker, spec);
	struct admission admission = { .n_gpus = checker->setup.n_gpus };

	for (size_t g = 0; g < admission.n_gpus; g++) {
		uint32_t total = 0;

		if (!account_total(checker, g, &total))
			return true; /* readings may come, or come back */
		admission.room[g] = (int64_t)total - account_reserve(checker, g);
	}
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) != 0 && !checker->told[s].alive)
			add_need(checker, &admission, s, GPU_SET_ALL);
	}
	add_room_need(checker, &admission, spec, GPU_SET_ALL);
	return admission_fits(&admission, 0);
}

/* It keeps others from its GPUs, or did so until this event, in which it was parked. */
static bool has_gated(const struct checker *checker, const struct seen_transition *waiting)
{
	if (waiting->state == TRANSITION_QUEUED)
		return true;
	for (size_t i = 0; checker->has_before && i < checker->before.n_queue; i++) {
		if (checker->before.queue[i].id == waiting->id)
			return checker->before.queue[i].state == TRANSITION_QUEUED;
	}
	return true;
}

/* What the request could use: not what running transitions hold, nor what those before it in the queue wait for. */
static gpu_set usable_gpus(
	const struct checker *checker, const struct seen_transition *mine, const struct observation *seen)
{
	gpu_set usable = GPU_SET_ALL;

	usable &= ~leases_excluded_gpus(checker, &mine->spec, mine->id);
	for (size_t i = 0; i < seen->n_running; i++) {
		if (seen->running[i].id != mine->id && is_at_work(checker, &seen->running[i]))
			usable &= ~seen->running[i].gpus;
	}
	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];
		bool is_before = waiting->overtaken >= AGED || waiting->priority > mine->priority ||
			(waiting->priority == mine->priority && waiting->id < mine->id);

		if (has_gated(checker, waiting) && is_before)
			usable &= ~request_gpus(checker, &waiting->spec, NULL);
	}
	return usable;
}

/* Whether somebody before it in the queue keeps GPUs to himself, and nobody can say which. */
static bool is_gated(const struct checker *checker, const struct seen_transition *mine, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];

		if (has_gated(checker, waiting) &&
			(waiting->overtaken >= AGED || waiting->priority > mine->priority ||
				(waiting->priority == mine->priority && waiting->id < mine->id)))
			return true;
	}
	return false;
}

/* Room around what runs already: as if something of no size had to find a place on each of its GPUs. */
static void add_relief(const struct checker *checker, struct admission *admission, size_t service)
{
	struct admission_need *need = &admission->needs[admission->n_needs++];

	need->allowed = stands_on(checker, service) & (GPU_BIT(checker->setup.n_gpus) - 1);
	need->count = gpu_set_count(need->allowed);
}

static bool has_broken_lease(const struct checker *checker)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (checker->told[s].broken_ms == checker->now)
			return true;
	}
	return false;
}

/* Somebody's time was up in this event, after everybody's turn: until then he kept others from his GPUs. */
static bool has_given_up(const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct effect *effect = &seen->effects[i].effect;

		if (effect->kind == EFFECT_REPLY &&
			(effect->answer.outcome == OUTCOME_WAIT_TIMEOUT ||
				effect->answer.outcome == OUTCOME_LEASE_TIMEOUT))
			return true;
	}
	return false;
}

/* What is leased and down comes up again where it stood, wherever else there may be room. */
static bool revives_leased(const struct checker *checker, const struct seen_transition *adopted)
{
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action == PLAN_START && leases_uses(checker, step->service, adopted->id, false) > 0)
			return true;
	}
	return false;
}

/* Each victim is there because without it the plan would not fit. */
static void check_minimal(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen)
{
	struct admission admission;
	gpu_set usable = usable_gpus(checker, adopted, seen);

	if (revives_leased(checker, adopted))
		return;
	if (has_broken_lease(checker) || has_given_up(seen))
		return; /* what was kept for it is free now, and was not when this was planned */
	fill_room(checker, &admission, adopted);
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action == PLAN_START && !is_watch_only(checker, adopted, step->service))
			add_start(checker, &admission, adopted, step, usable);
	}
	add_room_need(checker, &admission, &adopted->spec, usable);
	if (adopted->spec.kind == REQUEST_MAKE_ROOM)
		add_relief(checker, &admission, adopted->spec.target);
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action != PLAN_STOP || step->reason == PLAN_ASKED || step->reason == PLAN_RESTART ||
			!checker->told[step->service].alive) /* what was kept for a lease that is broken */
			continue;
		add_candidate(checker, &admission, step->service, step->reason == PLAN_BROKEN, true);
	}
	for (size_t c = 0; c < admission.n_candidates; c++) {
		uint32_t all = ((uint32_t)1 << admission.n_candidates) - 1;

		require(!admission_fits(&admission, all & ~((uint32_t)1 << c)), "needless-victim",
			"#%llu evicts %s for nothing", (unsigned long long)adopted->id,
			checker->setup.names[admission.candidates[c].service]);
	}
}

static uint64_t used_until(const struct checker *checker, size_t service)
{
	const struct told *told = &checker->told[service];

	if (told->was_used) /* the lease's end */
		return told->last_used_ms;
	return told->ready_since_ms > told->start_ms ? told->ready_since_ms : checker->now;
}

static uint64_t used_from(const struct checker *checker, size_t service)
{
	const struct told *told = &checker->told[service];

	return told->was_used ? told->last_used_ms : told->start_ms;
}

/*
 * "Least recently used" leaves open whether a start counts from its beginning or from its end, and when something
 * that was found running was last used.
 */
static bool is_order_open(const struct checker *checker, const struct admission *admission)
{
	for (size_t a = 0; a < admission->n_candidates; a++) {
		size_t one = admission->candidates[a].service;

		if (checker->told[one].adopted)
			return true;
		for (size_t b = 0; b < a; b++) {
			size_t two = admission->candidates[b].service;

			if (admission->candidates[a].broken == admission->candidates[b].broken &&
				admission->candidates[a].priority == admission->candidates[b].priority &&
				used_from(checker, one) <= used_until(checker, two) &&
				used_from(checker, two) <= used_until(checker, one))
				return true;
		}
	}
	return false;
}

/* The victims are those that the rule names. */
static void check_victims(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen)
{
	struct admission admission;
	gpu_set usable = usable_gpus(checker, adopted, seen);
	uint32_t victims;

	if (revives_leased(checker, adopted) || has_given_up(seen))
		return;
	fill_room(checker, &admission, adopted);
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action == PLAN_START && !is_watch_only(checker, adopted, step->service))
			add_start(checker, &admission, adopted, step, usable);
	}
	add_room_need(checker, &admission, &adopted->spec, usable);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (is_used(checker, s) && may_evict_unused(checker, &adopted->spec, s))
			return; /* whether its leases may be broken is judged elsewhere */
		if (checker->told[s].broken_ms == checker->now && !is_stopped_by(adopted, s))
			return; /* free since its lease was broken, for the sake of another service of it */
		if (!checker->told[s].alive || checker->states[s] == SERVICE_STOPPING ||
			!may_evict(checker, &adopted->spec, s) || (stands_on(checker, s) & ~usable) != 0)
			continue;
		add_candidate(checker, &admission, s, checker->states[s] == SERVICE_ERROR, is_stopped_by(adopted, s));
	}
	if (admission_has_ties(&admission) || is_order_open(checker, &admission))
		return;
	victims = admission_victims(&admission);
	for (size_t c = 0; c < admission.n_candidates; c++)
		require((victims >> c & 1) == is_stopped_by(adopted, admission.candidates[c].service), "victim-order",
			"#%llu: %s should %sbe a victim", (unsigned long long)adopted->id,
			checker->setup.names[admission.candidates[c].service], (victims >> c & 1) != 0 ? "" : "not ");
}

/* Everything that is needed and not there is started, and nothing that is there and well. */
static void check_needs_met(struct checker *checker, const struct seen_transition *adopted)
{
	gpu_set needs = request_needs(checker, &adopted->spec);

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		enum service_state before = checker->states[s];

		if ((needs & GPU_BIT(s)) == 0)
			continue;
		if (before == SERVICE_STOPPED || (before == SERVICE_ERROR && !checker->told[s].alive))
			require(is_started_by(adopted, s), "needs", "#%llu does not start %s",
				(unsigned long long)adopted->id, checker->setup.names[s]);
		if ((before == SERVICE_READY || before == SERVICE_BUSY) && adopted->spec.kind != REQUEST_RESTART)
			require(!is_started_by(adopted, s) && !is_stopped_by(adopted, s), "needs",
				"#%llu starts or stops %s, which is there", (unsigned long long)adopted->id,
				checker->setup.names[s]);
	}
}

bool everything_is_looked_at(const struct checker *checker)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (!checker->told[s].looked)
			return false;
	}
	return true;
}

void check_adoption(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen, bool is_alone)
{
	struct admission admission;

	for (size_t i = 0; i < adopted->n_steps; i++) {
		if (adopted->steps[i].plan.action == PLAN_STOP)
			check_stop_step(checker, adopted, &adopted->steps[i].plan);
	}
	fill_room(checker, &admission, adopted);
	check_places(checker, adopted, &admission);
	check_needs_met(checker, adopted);
	if (!account_is_exact(checker) || !everything_is_looked_at(checker))
		return;
	check_minimal(checker, adopted, seen);
	if (is_alone && !is_gated(checker, adopted, seen) &&
		(adopted->spec.kind == REQUEST_PHASE || adopted->spec.kind == REQUEST_START ||
			adopted->spec.kind == REQUEST_LEASE))
		check_victims(checker, adopted, seen);
}

/* What may come about by itself while a request waits. */
struct hope {
	bool unused; /* leases and other work end */
	bool yielded; /* what is idle has been so for its yield_after */
};

/* Whether it gives way to anybody once it was idle for long enough. */
static bool would_yield(const struct checker *checker, size_t service)
{
	const struct service_definition *definition = &checker->setup.services[service];
	enum service_state state = checker->states[service];
	unsigned n = leases_uses(checker, service, 0, false);

	if (state != SERVICE_READY && state != SERVICE_BUSY && (state != SERVICE_STARTING || n == 0))
		return false;
	return definition->yield_set ? definition->yield_after_ms != NEVER_MS
				     : checker->told[service].was_leased || n > 0;
}

static bool is_candidate(
	const struct checker *checker, const struct asked *spec, size_t service, const struct hope *hope)
{
	const struct told *told = &checker->told[service];

	if (!told->alive || checker->states[service] == SERVICE_STOPPING) /* its place is kept for who leases it */
		return hope->unused && leases_uses(checker, service, 0, true) > 0 && told->planned == 0;
	if (is_used(checker, service) && !hope->unused)
		return false;
	return may_evict_unused(checker, spec, service) ||
		(hope->yielded && !checker->setup.services[service].pinned && would_yield(checker, service) &&
			(spec->kind != REQUEST_MAKE_ROOM || spec->target != service));
}

static void add_or_keep(const struct checker *checker, struct admission *admission, const struct asked *spec, size_t s)
{
	const struct told *told = &checker->told[s];
	bool leaves = checker->states[s] == SERVICE_STOPPING, is_broken = checker->states[s] == SERVICE_ERROR;
	bool is_counted;

	if (told->alive && !leaves && !is_broken && spec->kind != REQUEST_RESTART)
		return;
	/* What dies under its lease keeps its place from others; from this one it does not. */
	is_counted = (told->alive && !leaves) || leases_uses(checker, s, 0, true) > 0;
	for (size_t g = 0; is_counted && g < admission->n_gpus; g++)
		admission->room[g] += account_commitment(checker, s, g).lo;
	add_need(checker, admission, s, GPU_SET_ALL);
}

/* Whether evicting everybody who may be evicted then would make room. */
static bool could_fit(const struct checker *checker, const struct asked *spec, struct hope hope)
{
	gpu_set needs = request_needs(checker, spec);
	struct admission admission;

	fill_room(checker, &admission, NULL);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) != 0)
			add_or_keep(checker, &admission, spec, s);
		else if (is_candidate(checker, spec, s, &hope))
			add_candidate(checker, &admission, s, checker->states[s] == SERVICE_ERROR, false);
	}
	add_room_need(checker, &admission, spec, GPU_SET_ALL);
	if (spec->kind == REQUEST_MAKE_ROOM)
		add_relief(checker, &admission, spec->target);
	for (size_t g = 0; g < admission.n_gpus && hope.unused; g++)
		admission.room[g] += leases_rooms(checker, g).lo;
	return admission_feasible(&admission);
}

bool request_may_fit_some_day(const struct checker *checker, const struct asked *spec)
{
	return could_fit(checker, spec, (struct hope){ .unused = true, .yielded = true });
}

static bool was_parked(const struct checker *checker, uint64_t id)
{
	for (size_t i = 0; checker->has_before && i < checker->before.n_queue; i++) {
		if (checker->before.queue[i].id == id)
			return checker->before.queue[i].state == TRANSITION_PARKED;
	}
	return false;
}

/* Whether it would fit beside everybody, as far as what is needed does not run yet. */
static bool fits_beside_all(const struct checker *checker, const struct asked *spec)
{
	gpu_set needs = request_needs(checker, spec);
	struct admission admission = { .n_gpus = checker->setup.n_gpus };

	if (spec->kind != REQUEST_PHASE && spec->kind != REQUEST_START && spec->kind != REQUEST_LEASE)
		return false;
	for (size_t i = 0; i < checker->n_pending; i++) {
		const struct pending *pending = &checker->pending[i];

		if (pending->is_doubtful || pending->end_ms == checker->reading.taken_ms)
			return false; /* before anything was read nothing is owed; at the same moment it may be back */
		if (pending->is_given_up && checker->reading.taken_ms < pending->end_ms + RECLAIM_MS)
			return false; /* it may be back, but nobody has looked since */
	}
	for (size_t g = 0; g < admission.n_gpus; g++) {
		uint32_t total;

		if (account_mode(checker, g) != ACCOUNTING_PROCESS || !account_total(checker, g, &total))
			return false;
		admission.room[g] = (int64_t)total - account_reserve(checker, g) - leases_rooms(checker, g).hi;
		for (size_t s = 0; s < checker->setup.config.n_services; s++)
			admission.room[g] -= account_commitment(checker, s, g).hi;
	}
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		const struct told *told = &checker->told[s];

		if (told->untold || (told->alive && (told->gpus == 0 || checker->reading.taken_ms <= told->start_ms)))
			return false; /* who knows where it stands, and what it holds */
		if ((needs & GPU_BIT(s)) == 0)
			continue;
		if (told->alive || told->planned != 0 || leases_uses(checker, s, 0, false) > 0)
			return false;
		add_need(checker, &admission, s, GPU_SET_ALL);
	}
	add_room_need(checker, &admission, spec, GPU_SET_ALL);
	return admission_fits(&admission, 0);
}

/* Refused for lack of room: then evicting everybody who may be evicted would not have made room. */
void check_refusal(struct checker *checker, const struct seen_transition *refused, const struct observation *seen)
{
	const struct asked *spec = &refused->spec;
	unsigned long long id = refused->id;
	bool would_fit_yielded;

	require(refused->n_blockers > 0, "blockers", "a refusal (#%llu) without a blocker", id);
	for (size_t i = 0; i < refused->n_steps; i++)
		require(refused->steps[i].state == STEP_PENDING || refused->steps[i].state == STEP_SKIPPED,
			"refused-acts", "the refused #%llu did something", id);
	if (!everything_is_looked_at(checker) || checker->fault_ms == seen->now)
		return;
	require(checker->sees_strangers || !fits_beside_all(checker, spec), "refused-early",
		"#%llu was refused, but only memory that is on its way back is in its way", id);
	if (!account_is_exact(checker) || account_is_settling(checker) || seen->n_running > 0)
		return;
	require(!could_fit(checker, spec, (struct hope){ .unused = true }), "refused-feasible",
		"#%llu was refused, but it could be made to fit", id);
	would_fit_yielded = could_fit(checker, spec, (struct hope){ .yielded = true });
	require((would_fit_yielded && !was_parked(checker, refused->id)) || !request_may_fit_some_day(checker, spec),
		"refused-parkable", "#%llu was refused, but what is in use in its way may end and yield", id);
}

/* The last gate: what is really there now, and this one, fit the card. */
void check_start(struct checker *checker, const struct effect *start)
{
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		uint32_t total;
		int64_t sum;

		if ((start->gpus & GPU_BIT(g)) == 0)
			continue;
		require(account_total(checker, g, &total), "unknown-total", "%s starts on a card of unknown size",
			checker->setup.names[start->service]);
		if (!account_total(checker, g, &total))
			continue;
		sum = (int64_t)account_reserve(checker, g) + account_others(checker, g).lo +
			account_declared(checker, start->service, g) + leases_rooms(checker, g).lo;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			if (s != start->service && (checker->told[s].alive || checker->told[s].planned == 0))
				sum += account_commitment(checker, s, g).lo;
		}
		require(sum <= total, "overfull", "the start of %s overfills gpu%zu by %lld MiB",
			checker->setup.names[start->service], g, (long long)(sum - total));
	}
}
