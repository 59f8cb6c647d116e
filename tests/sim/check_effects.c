/* Judges what the engine orders and answers. */
#include <string.h>

#include "checker.h"

#define PROBE_MOST_MS 10000 /* one health check takes at most that */
#define LESS(a, b) ((a) < (b) ? (a) : (b))

static bool has_step(const struct seen_transition *transition, size_t service, enum plan_action action)
{
	for (size_t i = 0; i < transition->n_steps; i++) {
		if (transition->steps[i].plan.service == service && transition->steps[i].plan.action == action)
			return true;
	}
	return false;
}

static bool is_over(const struct seen_transition *transition, size_t service, enum plan_action action)
{
	for (size_t i = 0; i < transition->n_steps; i++) {
		const struct seen_step *step = &transition->steps[i];

		if (step->plan.service == service && step->plan.action == action && step->state <= STEP_RUNNING)
			return false;
	}
	return true;
}

/* The running transition (or the one that ended just now) that has such a step. */
static const struct seen_transition *whose_step(const struct observation *seen, size_t service, enum plan_action action)
{
	for (size_t i = 0; i < seen->n_running; i++) {
		if (!is_over(&seen->running[i], service, action))
			return &seen->running[i];
	}
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct seen_effect *effect = &seen->effects[i];

		if (effect->effect.kind == EFFECT_REPLY && effect->answer.id != 0 &&
			has_step(&effect->answer, service, action))
			return &effect->answer;
	}
	for (size_t i = 0; i < seen->n_running; i++) { /* its step may have come to its end in this event */
		if (has_step(&seen->running[i], service, action))
			return &seen->running[i];
	}
	return NULL;
}

/* The next transition may have begun in the same moment. */
static bool is_stopped_now(const struct observation *seen, size_t service)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].effect.kind == EFFECT_STOP && seen->effects[i].effect.service == service)
			return true;
	}
	return false;
}

static bool is_forced(const struct checker *checker, const struct observation *seen, size_t service)
{
	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];

		if (!ticket->spec.force || (ticket->replied && ticket->submit_ms != seen->now))
			continue;
		if (ticket->spec.kind == REQUEST_RELEASE_ALL || ticket->spec.target == service)
			return true;
	}
	for (size_t i = 0; i < seen->n_running; i++) { /* whose client went away */
		const struct asked *spec = &seen->running[i].spec;

		if (spec->force && (spec->kind == REQUEST_RELEASE_ALL || spec->target == service))
			return true;
	}
	return false;
}

static void do_find(struct checker *checker, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];

	require(!told->find_out, "find", "%s is looked for twice", checker->setup.names[effect->service]);
	require(!told->alive, "find", "%s is looked for though it is there", checker->setup.names[effect->service]);
	told->find_out = true;
}

static void begin_run(struct checker *checker, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	struct told before = *told;

	require(!before.alive, "second-run", "%s is started or adopted while it lives",
		checker->setup.names[effect->service]);
	require(effect->run > before.last_run, "run-grows", "run %llu of %s after run %llu",
		(unsigned long long)effect->run, checker->setup.names[effect->service],
		(unsigned long long)before.last_run);
	*told = (struct told){
		.looked = before.looked,
		.alive = true,
		.run = effect->run,
		.last_run = effect->run,
		.start_ms = checker->now,
		.started_ms = checker->now,
		.last_used_ms = checker->now,
		.was_leased = before.was_leased,
		.was_used = leases_uses(checker, effect->service, 0, false) > 0,
		.allowed = before.allowed,
	};
}

static void do_adopt(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	bool was_healthy, was_external = told->external, was_stopping = told->found_stopping;

	require(told->found_alive, "adopt", "%s is adopted though nobody found it",
		checker->setup.names[effect->service]);
	told->found_alive = false;
	was_healthy = told->found_healthy;
	begin_run(checker, effect);
	told->adopted = true;
	told->started = true;
	told->was_ready = was_healthy;
	told->external = was_external;
	told->found_stopping = was_stopping;
	told->gpus = seen->services[effect->service].gpus;
	account_adopted(checker, effect->service);
	require(!was_external || !checker->setup.services[effect->service].stop_external ||
			is_stopped_now(seen, effect->service),
		"external-stays", "%s was started by others and is not stopped", checker->setup.names[effect->service]);
	require(!was_stopping || is_stopped_now(seen, effect->service), "half-stopped",
		"%s was being stopped before, and that is not finished", checker->setup.names[effect->service]);
	if (checker->stats == NULL)
		return;
	checker->stats->adopted++;
	checker->stats->external += was_external;
}

static void do_start(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	const char *name = checker->setup.names[effect->service];
	const struct seen_transition *whose = whose_step(seen, effect->service, PLAN_START);

	require(told->looked && !told->find_out, "unlooked-start", "%s is started before anybody looked", name);
	require(whose != NULL, "unasked-start", "%s is started for no transition", name);
	for (size_t i = 0; whose != NULL && i < whose->n_steps; i++) {
		const struct plan_step *step = &whose->steps[i].plan;

		if (step->action == PLAN_START && step->service == effect->service)
			require(step->gpus == effect->gpus, "place", "%s starts elsewhere than planned", name);
	}
	check_start(checker, effect);
	begin_run(checker, effect);
	told->gpus = effect->gpus;
	if (checker->stats != NULL)
		checker->stats->starts++;
}

static bool is_cleanup(const struct told *told)
{
	return !told->was_ready || told->leader_ended;
}

static void check_why_stopped(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	const struct seen_transition *whose = whose_step(seen, effect->service, PLAN_STOP);
	const char *name = checker->setup.names[effect->service];

	if (whose == NULL && is_forced(checker, seen, effect->service))
		return; /* a forced stop does not wait for its turn */
	if (whose == NULL && told->found_stopping)
		return;
	if (whose == NULL && told->external && checker->setup.services[effect->service].stop_external) {
		if (checker->stats != NULL)
			checker->stats->stopped_external++;
		return;
	}
	require(whose != NULL || is_cleanup(told) || told->stop_sent, "unasked-stop", "%s is stopped for no transition",
		name);
	require(whose != NULL || !told->adopted || told->leader_ended || told->stop_sent, "unasked-stop",
		"%s, which was found running, is stopped for no transition", name);
	if (whose == NULL || !checker->setup.services[effect->service].pinned || is_cleanup(told))
		return;
	require(whose->spec.kind != REQUEST_RELEASE_ALL &&
			(whose->spec.kind == REQUEST_PHASE || whose->spec.kind == REQUEST_LEASE
					? (request_needs(checker, &whose->spec) & GPU_BIT(effect->service)) != 0
					: whose->spec.target == effect->service),
		"pinned", "%s is pinned, and #%llu stops it", name, (unsigned long long)whose->id);
}

static void do_stop(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	const char *name = checker->setup.names[effect->service];

	require(told->alive && told->run == effect->run, "stale-run", "run %llu of %s is stopped, which is not",
		(unsigned long long)effect->run, name);
	check_why_stopped(checker, seen, effect);
	require(is_cleanup(told) || is_forced(checker, seen, effect->service) ||
			whose_step(seen, effect->service, PLAN_STOP) == NULL ||
			leases_uses(checker, effect->service, whose_step(seen, effect->service, PLAN_STOP)->id, true) ==
				0,
		"leased-stop", "%s is stopped under its holder", name);
	if (!effect->force) {
		if (!told->stop_sent)
			told->stop_ms = checker->now;
		told->last_stop_ms = checker->now;
		told->kill_sent = false;
		told->stop_sent = true;
		return;
	}
	require(is_forced(checker, seen, effect->service) ||
			(told->stop_sent &&
				checker->now - told->stop_ms >=
					checker->setup.services[effect->service].stop_timeout_ms),
		"early-kill", "%s is killed %s", name, told->stop_sent ? "before its stop_timeout" : "without a stop");
	told->stop_sent = true;
	told->kill_sent = true;
	if (checker->stats != NULL)
		checker->stats->kills++;
}

static uint64_t starting_interval_ms(uint64_t waited)
{
	uint64_t interval = waited / 64;

	return interval < 5 ? 5 : interval > 250 ? 250 : interval;
}

static void do_probe(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	const char *name = checker->setup.names[effect->service];
	uint64_t gap = checker->now - told->probe_ms,
		 least = checker->setup.services[effect->service].health_interval_ms;

	require(told->alive && told->run == effect->run, "stale-run", "run %llu of %s is probed, which is not",
		(unsigned long long)effect->run, name);
	require(!told->probe_out, "probe-twice", "%s is probed while a probe is under way", name);
	require(effect->probe_timeout_ms > 0 && effect->probe_timeout_ms <= PROBE_MOST_MS, "probe-timeout",
		"the probe of %s may take %llu ms", name, (unsigned long long)effect->probe_timeout_ms);
	if (!told->was_ready) /* it is starting, as far as anybody knows */
		least = LESS(least, starting_interval_ms(told->probe_ms - LESS(told->started_ms, told->probe_ms)));
	require(!told->probed || gap >= least || seen->services[effect->service].state == SERVICE_ERROR, "probe-early",
		"%s is probed again after %llu ms, not %llu", name, (unsigned long long)gap, (unsigned long long)least);
	told->probe_out = true;
	told->probed = true;
	told->probe_ms = checker->now;
}

/* Answers. */

static const struct known *open_equal(const struct checker *checker, const struct asked *spec)
{
	for (size_t i = 0; i < checker->n_known; i++) {
		const struct known *known = &checker->known[i];

		if (!known->ended && known->spec.kind == spec->kind && known->spec.target == spec->target)
			return known;
	}
	return NULL;
}

static bool has_forced_stop(const struct checker *checker)
{
	for (size_t i = 0; i < checker->n_tickets; i++) {
		if (checker->tickets[i].spec.force)
			return true;
	}
	return false;
}

static bool is_turned_away(const struct observation *seen, uint64_t ticket)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct effect *effect = &seen->effects[i].effect;

		if (effect->kind == EFFECT_REPLY && effect->answer.ticket == ticket &&
			effect->answer.outcome == OUTCOME_TOO_MANY)
			return true;
	}
	return false;
}

static size_t count_open(const struct checker *checker)
{
	size_t n = 0;

	for (size_t i = 0; i < checker->n_tickets; i++)
		n += !checker->tickets[i].replied && !checker->tickets[i].withdrawn;
	return n;
}

/* The same request_id means the same lease. */
static void check_same_request(struct checker *checker, const struct observation *seen, const struct ticket *ticket)
{
	unsigned long long number = ticket->ticket;
	enum outcome outcome = OUTCOME_DONE;
	bool is_answered = false;

	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct effect *effect = &seen->effects[i].effect;

		if (effect->kind != EFFECT_REPLY || effect->answer.ticket != ticket->ticket)
			continue;
		is_answered = true;
		outcome = effect->answer.outcome;
	}
	if ((ticket->same_id == 0 && ticket->same_fence == 0) || outcome == OUTCOME_TOO_MANY)
		return;
	if (!ticket->is_same) {
		require(is_answered && outcome == OUTCOME_REQUEST_ID_REUSED, "request-id",
			"ticket %llu uses a request_id for something else", number);
		return;
	}
	require(ticket->same_id == 0 || ticket->id == ticket->same_id, "request-id",
		"ticket %llu repeats #%llu and is part of #%llu", number, (unsigned long long)ticket->same_id,
		(unsigned long long)ticket->id);
	require(ticket->same_fence == 0 || (is_answered && outcome == OUTCOME_DONE), "request-id",
		"ticket %llu repeats what lease %llu is for and is not answered", number,
		(unsigned long long)ticket->same_fence);
	if (checker->stats != NULL)
		checker->stats->joined_leases += ticket->same_id != 0;
}

static void do_accept(struct checker *checker, const struct observation *seen, const struct effect *effect)
{
	struct ticket *ticket = find_ticket(checker, effect->answer.ticket);
	const struct known *equal;

	require(ticket != NULL, "accept", "ticket %llu is accepted, which nobody submitted",
		(unsigned long long)effect->answer.ticket);
	if (ticket == NULL)
		return;
	require(ticket->id == 0, "accept", "ticket %llu is accepted twice", (unsigned long long)ticket->ticket);
	require(effect->answer.id != 0, "accept", "ticket %llu is part of nothing", (unsigned long long)ticket->ticket);
	ticket->id = effect->answer.id;
	check_same_request(checker, seen, ticket);
	equal = open_equal(checker, &ticket->spec);
	if (is_turned_away(seen, ticket->ticket) || equal == NULL ||
		(ticket->spec.kind != REQUEST_PHASE && ticket->spec.kind != REQUEST_START))
		return;
	require(equal->id == ticket->id || has_forced_stop(checker), "join",
		"ticket %llu asks for the same as #%llu and does not join it", (unsigned long long)ticket->ticket,
		(unsigned long long)equal->id);
	if (checker->stats != NULL)
		checker->stats->joins += equal->id == ticket->id;
}

static void check_done(struct checker *checker, const struct observation *seen, const struct seen_transition *answer)
{
	gpu_set needs = request_needs(checker, &answer->spec);

	require(answer->state == TRANSITION_DONE, "outcome", "#%llu is done and its state is %s",
		(unsigned long long)answer->id, transition_state_name(answer->state));
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		enum service_state state = seen->services[s].state;

		if ((needs & GPU_BIT(s)) != 0)
			require(checker->told[s].alive && checker->told[s].was_ready &&
					(state == SERVICE_READY || state == SERVICE_BUSY || is_stopped_now(seen, s)),
				"done-not-ready", "#%llu is done and %s is %s", (unsigned long long)answer->id,
				checker->setup.names[s], service_state_name(state));
		if ((answer->spec.kind == REQUEST_STOP && answer->spec.target == s) ||
			(answer->spec.kind == REQUEST_RELEASE_ALL && !checker->setup.services[s].pinned))
			require(!checker->told[s].alive || has_step(answer, s, PLAN_STOP) == false ||
					checker->told[s].start_ms == checker->now,
				"done-not-stopped", "#%llu is done and %s lives", (unsigned long long)answer->id,
				checker->setup.names[s]);
	}
}

static bool shares_service_with_running(
	const struct checker *checker, const struct observation *seen, const struct seen_transition *answer)
{
	gpu_set needs = request_needs(checker, &answer->spec);

	for (size_t i = 0; i < seen->n_running; i++) {
		for (size_t j = 0; seen->running[i].id != answer->id && j < seen->running[i].n_steps; j++) {
			if ((needs & GPU_BIT(seen->running[i].steps[j].plan.service)) != 0)
				return true;
		}
	}
	return false;
}

static void check_outcome(struct checker *checker, const struct observation *seen, const struct ticket *ticket,
	const struct seen_effect *reply)
{
	enum outcome outcome = reply->effect.answer.outcome;
	const struct known *known = find_known(checker, ticket->id);

	switch (outcome) {
	case OUTCOME_DONE:
		if (reply->answer.id != 0)
			check_done(checker, seen, &reply->answer);
		break;
	case OUTCOME_INSUFFICIENT_VRAM:
		if (reply->answer.id != 0 && (known == NULL || !known->adopted))
			check_refusal(checker, &reply->answer, seen);
		break;
	case OUTCOME_WAIT_TIMEOUT:
	case OUTCOME_LEASE_TIMEOUT:
		require(seen->now >= ticket->submit_ms + ticket->wait_ms, "wait-short",
			"ticket %llu timed out after %llu of %llu ms", (unsigned long long)ticket->ticket,
			(unsigned long long)(seen->now - ticket->submit_ms), (unsigned long long)ticket->wait_ms);
		require(known == NULL || !known->adopted, "wait-running",
			"ticket %llu timed out waiting though #%llu had its turn", (unsigned long long)ticket->ticket,
			(unsigned long long)ticket->id);
		break;
	case OUTCOME_TOO_MANY:
		require((checker->setup.config.queue_max != 0 &&
				count_open(checker) > checker->setup.config.queue_max) ||
				(ticket->spec.kind == REQUEST_LEASE && checker->setup.config.leases_max != 0 &&
					checker->n_held + checker->n_claims >= checker->setup.config.leases_max),
			"too-many", "%zu wait and %zu may", count_open(checker), checker->setup.config.queue_max);
		break;
	case OUTCOME_WITHDRAWN:
		require(ticket->withdrawn, "withdrawn", "ticket %llu was not withdrawn",
			(unsigned long long)ticket->ticket);
		break;
	case OUTCOME_START_FAILED:
	case OUTCOME_START_TIMEOUT:
		require(reply->answer.id == 0 || reply->answer.n_steps > 0 || (known != NULL && known->adopted) ||
				!shares_service_with_running(checker, seen, &reply->answer),
			"turn-too-early", "#%llu failed while its service is in another transition",
			(unsigned long long)reply->answer.id);
		break;
	default:
		require(outcome <= OUTCOME_REQUEST_ID_REUSED, "outcome", "outcome %d", (int)outcome);
		break;
	}
}

/* A lease for which nothing was to be done, and whose turn came to nothing in the same moment. */
static void note_lost_turn(struct checker *checker, const struct observation *seen, const struct seen_effect *reply)
{
	const struct known *known = find_known(checker, reply->answer.id);

	if (reply->answer.id == 0 || reply->answer.spec.kind != REQUEST_LEASE || reply->answer.n_steps > 0 ||
		(known != NULL && known->adopted))
		return;
	for (size_t i = 0; i < seen->n_queue; i++) {
		struct known *waiting = find_known(checker, seen->queue[i].id);

		if (waiting != NULL)
			waiting->overtaken_hi++;
	}
}

static void do_reply(struct checker *checker, const struct observation *seen, const struct seen_effect *reply)
{
	struct ticket *ticket = find_ticket(checker, reply->effect.answer.ticket);

	require(ticket != NULL, "reply", "a reply to ticket %llu, which nobody submitted",
		(unsigned long long)reply->effect.answer.ticket);
	if (ticket == NULL)
		return;
	require(!ticket->replied, "reply-twice", "ticket %llu is answered twice", (unsigned long long)ticket->ticket);
	require(ticket->id != 0 || reply->effect.answer.outcome == OUTCOME_TOO_MANY, "reply",
		"ticket %llu is answered before it was accepted", (unsigned long long)ticket->ticket);
	require(reply->answer.id == 0 || ticket->id == 0 || reply->answer.id == ticket->id, "reply",
		"ticket %llu is answered with another's record", (unsigned long long)ticket->ticket);
	check_outcome(checker, seen, ticket, reply);
	note_lost_turn(checker, seen, reply);
	leases_check_reply(checker, ticket, reply, seen);
	ticket->replied = true;
	if (reply->answer.id != 0 && find_known(checker, reply->answer.id) != NULL)
		find_known(checker, reply->answer.id)->ended =
			reply->answer.state == TRANSITION_DONE || reply->answer.state == TRANSITION_FAILED;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (reply->answer.id != 0 && checker->told[s].planned == reply->answer.id)
			checker->told[s].planned = 0;
	}
	if (checker->stats != NULL)
		checker->stats->outcomes[reply->effect.answer.outcome]++;
}

static void do_ask(struct checker *checker, const struct effect *effect)
{
	struct told *told = &checker->told[effect->service];
	const char *name = checker->setup.names[effect->service];
	enum service_state state = checker->states[effect->service];

	require(told->alive && told->run == effect->run, "stale-run", "run %llu of %s is asked, which is not",
		(unsigned long long)effect->run, name);
	require(checker->setup.services[effect->service].has_busy_probe, "ask", "%s has no busy probe", name);
	require(!told->busy_out, "ask-twice", "%s is asked while a question is under way", name);
	require(state == SERVICE_READY || state == SERVICE_BUSY || checker->fault_ms == checker->now, "ask",
		"%s is asked whether it works and is %s", name, service_state_name(state));
	told->busy_out = true;
	told->busy_ms = checker->now;
	if (checker->stats != NULL)
		checker->stats->asked_busy++;
}

/* Leases for which nothing is to be done begin without a notice, and may come to nothing in the same event. */
static bool may_be_unpublished(const struct observation *seen, uint64_t id)
{
	for (size_t i = 0; i < seen->n_running; i++) {
		if (seen->running[i].id == id)
			return seen->running[i].n_steps == 0;
	}
	return true;
}

static void check_one(struct checker *checker, const struct observation *seen, const struct seen_effect *effect)
{
	switch (effect->effect.kind) {
	case EFFECT_FIND:
		do_find(checker, &effect->effect);
		break;
	case EFFECT_ADOPT:
		do_adopt(checker, seen, &effect->effect);
		break;
	case EFFECT_START:
		do_start(checker, seen, &effect->effect);
		break;
	case EFFECT_STOP:
		do_stop(checker, seen, &effect->effect);
		break;
	case EFFECT_PROBE:
		do_probe(checker, seen, &effect->effect);
		break;
	case EFFECT_SAMPLING:
		checker->fast = effect->effect.fast;
		break;
	case EFFECT_ACCEPT:
		do_accept(checker, seen, &effect->effect);
		break;
	case EFFECT_REPLY:
		do_reply(checker, seen, effect);
		break;
	case EFFECT_FENCE:
		require(find_claim(checker, effect->effect.answer.id) != NULL ||
				may_be_unpublished(seen, effect->effect.answer.id),
			"fence-asked", "a fence is asked for #%llu, which claims nothing",
			(unsigned long long)effect->effect.answer.id);
		leases_await_fence(checker, effect->effect.answer.id);
		break;
	case EFFECT_LOCK:
		lock_wanted(checker, &effect->effect);
		break;
	case EFFECT_LEASE:
		leases_news(checker, effect, seen);
		break;
	case EFFECT_ASK_BUSY:
		do_ask(checker, &effect->effect);
		break;
	case EFFECT_PUBLISH:
		if (strcmp(effect->notice, "service.state") == 0)
			check_change(checker, effect);
		if (effect->begins)
			checker_adopt(checker, seen, effect->effect.notice->transition);
		if (checker->stats != NULL)
			checker->stats->unreclaimed_notices += strcmp(effect->notice, "gpu.unreclaimed") == 0;
		break;
	default:
		break;
	}
}

void check_effects(struct checker *checker, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_effects; i++)
		check_one(checker, seen, &seen->effects[i]);
}
