/* Judges plans and refusals by the rules of admission, tried the slow way. Must not call the planner. */
#include <string.h>

#include "admission.h"
#include "checker.h"

#define AGED 8

gpu_set request_needs(const struct checker *checker, const struct request_spec *spec)
{
	gpu_set needs = 0;

	if (spec->kind == REQUEST_START || spec->kind == REQUEST_RESTART)
		return GPU_BIT(spec->target);
	if (spec->kind != REQUEST_PHASE)
		return 0;
	for (size_t i = 0; i < checker->setup.phases[spec->target].n_services; i++)
		needs |= GPU_BIT(checker->setup.phase_services[spec->target][i]);
	return needs;
}

int request_priority(const struct checker *checker, const struct request_spec *spec)
{
	gpu_set needs = request_needs(checker, spec);
	int priority = 0;
	bool first = true;

	if (spec->kind == REQUEST_STOP)
		return checker->setup.services[spec->target].priority;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) == 0)
			continue;
		if (first || checker->setup.services[s].priority > priority)
			priority = checker->setup.services[s].priority;
		first = false;
	}
	return priority;
}

/* Whether the request may evict it, room aside. */
static bool may_evict(const struct checker *checker, const struct request_spec *spec, size_t service)
{
	const struct service_definition *definition = &checker->setup.services[service];
	const struct told *told = &checker->told[service];

	if (definition->pinned || (request_needs(checker, spec) & GPU_BIT(service)) != 0)
		return false;
	if (spec->kind == REQUEST_PHASE)
		return true;
	if (spec->kind != REQUEST_START && spec->kind != REQUEST_RESTART)
		return false;
	if (definition->priority < request_priority(checker, spec))
		return true;
	return definition->yield_set && definition->yield_after_ms != NEVER_MS && told->was_ready &&
		told->ready_since_ms != 0 &&
		checker->now - told->ready_since_ms >= (uint64_t)definition->yield_after_ms;
}

static void check_stop_step(
	struct checker *checker, const struct seen_transition *adopted, const struct plan_step *step)
{
	const struct request_spec *spec = &adopted->spec;
	const char *name = checker->setup.names[step->service];
	bool is_needed = (request_needs(checker, spec) & GPU_BIT(step->service)) != 0;

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

/* A start of what is starting already (it was found so) only waits for it. */
static bool is_watch_only(const struct checker *checker, const struct seen_transition *transition, size_t service)
{
	return checker->states[service] == SERVICE_STARTING && !is_stopped_by(transition, service);
}

static gpu_set stands_on(const struct checker *checker, size_t service)
{
	gpu_set gpus = checker->told[service].alive ? checker->told[service].gpus : 0;

	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		if (account_commitment(checker, service, g).hi > 0)
			gpus |= GPU_BIT(g);
	}
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
		admission->room[g] = (int64_t)total - account_reserve(checker, g) - account_others(checker, g).lo;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			bool leaves =
				checker->states[s] == SERVICE_STOPPING || (mine != NULL && is_stopped_by(mine, s));

			if (checker->told[s].planned != 0 &&
				checker->told[s].planned != (mine != NULL ? mine->id : 0) &&
				(checker->told[s].planned_gpus & GPU_BIT(g)) != 0)
				admission->room[g] -= account_declared(checker, s, g);
			else if (checker->told[s].alive && !leaves)
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
}

gpu_set request_gpus(const struct checker *checker, const struct request_spec *spec, gpu_set *ret_certain)
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
		possible |= allowed;
		if (!checker->told[s].alive && checker->told[s].planned == 0 &&
			gpu_set_count(allowed) == checker->setup.services[s].gpu_count)
			certain |= allowed;
	}
	for (size_t s = 0; s < checker->setup.config.n_services && needs != 0; s++) {
		if (checker->told[s].alive && (stands_on(checker, s) & possible) != 0)
			possible |= stands_on(checker, s); /* whom it could evict, and who stands elsewhere, too */
	}
	if (ret_certain != NULL)
		*ret_certain = certain;
	return possible;
}

bool request_fits(const struct checker *checker, const struct request_spec *spec, gpu_set usable)
{
	gpu_set needs = request_needs(checker, spec);
	struct admission admission;

	fill_room(checker, &admission, NULL);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) != 0)
			add_need(checker, &admission, s, usable);
	}
	return admission_fits(&admission, 0);
}

/* What the request could use: not what running transitions hold, nor what those before it in the queue wait for. */
static gpu_set usable_gpus(
	const struct checker *checker, const struct seen_transition *mine, const struct observation *seen)
{
	gpu_set usable = GPU_SET_ALL;

	for (size_t i = 0; i < seen->n_running; i++) {
		if (seen->running[i].id != mine->id)
			usable &= ~seen->running[i].gpus;
	}
	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];
		bool is_before = waiting->overtaken >= AGED || waiting->priority > mine->priority ||
			(waiting->priority == mine->priority && waiting->id < mine->id);

		if (waiting->state == TRANSITION_QUEUED && is_before)
			usable &= ~request_gpus(checker, &waiting->spec, NULL);
	}
	return usable;
}

/* Whether somebody before it in the queue keeps GPUs to himself, and nobody can say which. */
static bool is_gated(const struct seen_transition *mine, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];

		if (waiting->state == TRANSITION_QUEUED &&
			(waiting->overtaken >= AGED || waiting->priority > mine->priority ||
				(waiting->priority == mine->priority && waiting->id < mine->id)))
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

	fill_room(checker, &admission, adopted);
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action == PLAN_START && !is_watch_only(checker, adopted, step->service))
			add_need(checker, &admission, step->service, usable);
	}
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action != PLAN_STOP || step->reason == PLAN_ASKED || step->reason == PLAN_RESTART)
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

	return told->ready_since_ms > told->start_ms ? told->ready_since_ms : checker->now;
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
				checker->told[one].start_ms <= used_until(checker, two) &&
				checker->told[two].start_ms <= used_until(checker, one))
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

	fill_room(checker, &admission, adopted);
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action == PLAN_START && !is_watch_only(checker, adopted, step->service))
			add_need(checker, &admission, step->service, usable);
	}
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
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

static bool has_start(const struct seen_transition *transition, size_t service)
{
	for (size_t i = 0; i < transition->n_steps; i++) {
		if (transition->steps[i].plan.action == PLAN_START && transition->steps[i].plan.service == service)
			return true;
	}
	return false;
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
			require(has_start(adopted, s), "needs", "#%llu does not start %s",
				(unsigned long long)adopted->id, checker->setup.names[s]);
		if ((before == SERVICE_READY || before == SERVICE_BUSY) && adopted->spec.kind != REQUEST_RESTART)
			require(!has_start(adopted, s) && !is_stopped_by(adopted, s), "needs",
				"#%llu starts or stops %s, which is there", (unsigned long long)adopted->id,
				checker->setup.names[s]);
	}
}

static bool everything_is_looked_at(const struct checker *checker)
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
	if (is_alone && !is_gated(adopted, seen) &&
		(adopted->spec.kind == REQUEST_PHASE || adopted->spec.kind == REQUEST_START))
		check_victims(checker, adopted, seen);
}

/* Refused for lack of room: then evicting everybody who may be evicted would not have made room. */
void check_refusal(struct checker *checker, const struct seen_transition *refused, const struct observation *seen)
{
	struct admission admission;
	gpu_set needs = request_needs(checker, &refused->spec);

	require(refused->n_blockers > 0, "blockers", "a refusal (#%llu) without a blocker",
		(unsigned long long)refused->id);
	for (size_t i = 0; i < refused->n_steps; i++)
		require(refused->steps[i].state == STEP_PENDING || refused->steps[i].state == STEP_SKIPPED,
			"refused-acts", "the refused #%llu did something", (unsigned long long)refused->id);
	if (!account_is_exact(checker) || account_is_settling(checker) || !everything_is_looked_at(checker) ||
		seen->n_running > 0 || checker->fault_ms == seen->now)
		return;
	fill_room(checker, &admission, NULL);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		bool is_broken = seen->services[s].state == SERVICE_ERROR;

		if ((needs & GPU_BIT(s)) != 0) {
			bool leaves = checker->states[s] == SERVICE_STOPPING;

			if (checker->told[s].alive && !leaves && !is_broken && refused->spec.kind != REQUEST_RESTART)
				continue;
			for (size_t g = 0; checker->told[s].alive && !leaves && g < admission.n_gpus; g++)
				admission.room[g] += account_commitment(checker, s, g).lo;
			add_need(checker, &admission, s, GPU_SET_ALL);
		} else if (checker->told[s].alive && checker->states[s] != SERVICE_STOPPING &&
			may_evict(checker, &refused->spec, s)) {
			add_candidate(checker, &admission, s, is_broken, false);
		}
	}
	require(!admission_feasible(&admission), "refused-feasible", "#%llu was refused, but it could be made to fit",
		(unsigned long long)refused->id);
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
			account_declared(checker, start->service, g);
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			if (s != start->service && checker->told[s].alive)
				sum += account_commitment(checker, s, g).lo;
		}
		require(sum <= total, "overfull", "the start of %s overfills gpu%zu by %lld MiB",
			checker->setup.names[start->service], g, (long long)(sum - total));
	}
}
