/* The judge's books on what was told, and the order in which it looks at things. */
#include "checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void checker_broke(struct checker *checker, const char *rule, const char *format, ...)
{
	va_list arguments;

	if (checker->rule != NULL)
		return;
	checker->rule = rule;
	va_start(arguments, format);
	vsnprintf(checker->message, sizeof(checker->message), format, arguments);
	va_end(arguments);
}

void checker_begin(struct checker *checker, const struct setup *setup, struct checker_stats *stats)
{
	memset(checker, 0, sizeof(*checker));
	checker->setup = *setup;
	checker->stats = stats;
	for (size_t g = 0; g < SIM_GPUS; g++)
		checker->last_end_ms[g] = SIM_NEVER;
	for (size_t s = 0; s < SIM_SERVICES; s++)
		checker->told[s].allowed = setup->services[s].allowed;
}

/* What a new engine cannot know is forgotten; what was told of leases stands. */
void checker_restart(struct checker *checker, uint64_t now, uint64_t grace_until_ms)
{
	struct checker *fresh = calloc(1, sizeof(*fresh));

	if (fresh == NULL)
		abort();
	checker_begin(fresh, &checker->setup, checker->stats);
	fresh->now = now;
	fresh->last_fence = checker->last_fence;
	fresh->moved = checker->moved;
	fresh->n_held = checker->n_held;
	fresh->is_restarted = true;
	fresh->rule = checker->rule;
	memcpy(fresh->message, checker->message, sizeof(fresh->message));
	for (size_t i = 0; i < checker->n_held; i++) {
		fresh->held[i] = (struct held){ .lease = checker->held[i].lease, .is_restored = true };
		if (fresh->held[i].lease.attached) {
			fresh->held[i].lease.awaits_holder = true;
			fresh->held[i].lease.expires_ms = grace_until_ms;
		}
		fresh->held[i].room_base = checker->held[i].room_base;
		for (size_t g = 0; g < SIM_GPUS && fresh->held[i].lease.room_mib > 0; g++) {
			if ((fresh->held[i].lease.gpus & GPU_BIT(g)) != 0)
				fresh->room_base[g] = fresh->held[i].room_base;
		}
		for (size_t s = 0; s < fresh->setup.config.n_services; s++) {
			if ((fresh->held[i].lease.services & GPU_BIT(s)) == 0)
				continue;
			fresh->told[s].was_leased = true;
			fresh->told[s].was_used = true;
		}
	}
	*checker = *fresh;
	free(fresh);
	if (checker->stats == NULL)
		return;
	checker->stats->restarts_of_daemon++;
	checker->stats->restored += checker->n_held;
}

struct ticket *find_ticket(struct checker *checker, uint64_t ticket)
{
	for (size_t i = checker->n_tickets; i-- > 0;) {
		if (checker->tickets[i].ticket == ticket)
			return &checker->tickets[i];
	}
	return NULL;
}

struct known *find_known(struct checker *checker, uint64_t id)
{
	for (size_t i = checker->n_known; i-- > 0;) {
		if (checker->known[i].id == id)
			return &checker->known[i];
	}
	return NULL;
}

size_t open_tickets(const struct checker *checker, uint64_t id)
{
	size_t n = 0;

	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];

		n += ticket->id == id && !ticket->replied && !ticket->withdrawn;
	}
	return n;
}

/* What is told. */

static void tell_submit(struct checker *checker, const struct event *event)
{
	struct ticket *ticket;

	if (checker->n_tickets == MAX_TICKETS)
		return;
	ticket = &checker->tickets[checker->n_tickets++];
	*ticket = (struct ticket){
		.ticket = event->submit.ticket,
		.submit_ms = checker->now,
		.wait_ms = event->submit.spec.wait_ms == WAIT_DEFAULT_MS ? checker->setup.config.wait_ms
									 : (uint64_t)event->submit.spec.wait_ms,
	};
	asked_copy(&ticket->spec, &event->submit.spec);
	if (checker->stats != NULL)
		checker->stats->kinds[event->submit.spec.kind]++;
}

static void tell_ended(struct checker *checker, const struct event *event)
{
	struct told *told = &checker->told[event->service];

	if (!told->alive || told->run != event->run)
		return;
	account_ended(checker, event->service, event->kind == EVENT_START_FAILED);
	told->alive = false;
	if (told->planned != 0) /* that is where it is going to be, or is kept for who leases it */
		told->gpus = told->planned_gpus;
	told->busy_out = false;
	told->probe_out = false;
	if (checker->stats != NULL)
		checker->stats->crashes += event->kind == EVENT_GONE && !told->stop_sent;
	told->ended_by_others = event->by_others;
}

static void tell_health(struct checker *checker, const struct event *event)
{
	struct told *told = &checker->told[event->service];

	if (!told->alive || told->run != event->run)
		return;
	told->probe_out = false;
	told->answer_ms = checker->now;
	if (!event->healthy)
		return;
	if (checker->stats != NULL)
		checker->stats->ready += !told->was_ready;
	told->was_ready = true;
}

static void tell_found(struct checker *checker, const struct event *event)
{
	struct told *told = &checker->told[event->service];

	told->looked = true;
	/* What is about to be started is not adopted for a look from before, so that nothing new is known of it. */
	bool is_ignored = told->planned != 0 && event->found.alive;
	told->untold = event->found.untold || (told->untold && is_ignored);
	told->find_out = false;
	told->found_alive = event->found.alive;
	told->found_healthy = event->found.healthy;
	told->external = event->found.external;
	told->found_stopping = event->found.stopping;
}

void checker_tell(struct checker *checker, const struct event *event, uint64_t now)
{
	struct told *told = &checker->told[event->service];

	checker->now = now;
	if (checker->begin_ms == 0)
		checker->begin_ms = now;
	account_time(checker);
	checker->is_tick = event->kind == EVENT_TICK;
	switch (event->kind) {
	case EVENT_TICK:
		break;
	case EVENT_READINGS:
		account_reading(checker, event);
		break;
	case EVENT_SUBMIT:
		tell_submit(checker, event);
		break;
	case EVENT_WITHDRAW:
		if (find_ticket(checker, event->withdraw_ticket) != NULL)
			find_ticket(checker, event->withdraw_ticket)->withdrawn = true;
		break;
	case EVENT_ALLOWED:
		told->allowed = event->allowed;
		told->learns_allowed = true;
		checker->moved |= GPU_BIT(event->service);
		break;
	default:
		break;
	}
	if (event->kind == EVENT_FOUND)
		tell_found(checker, event);
	else if (event->kind == EVENT_GONE || event->kind == EVENT_START_FAILED)
		tell_ended(checker, event);
	else if (event->kind == EVENT_HEALTH)
		tell_health(checker, event);
	else if (event->kind == EVENT_STARTED && told->alive && told->run == event->run) {
		told->started = true;
		told->started_ms = now;
	} else if (event->kind == EVENT_STOP_REFUSED && told->run == event->run) {
		told->stop_sent = false;
	} else if (event->kind == EVENT_LEADER_ENDED && told->run == event->run) {
		told->leader_ended = true;
	}
	lock_tell(checker, event);
	leases_tell(checker, event);
	account_settle(checker);
}

/* What is seen. */

static bool is_listed(const struct seen_transition *transitions, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (transitions[i].id == id)
			return true;
	}
	return false;
}

static struct known *note(struct checker *checker, const struct seen_transition *seen)
{
	struct known *known = find_known(checker, seen->id);

	if (seen->id == 0)
		return NULL;
	if (known == NULL && checker->n_known < MAX_KNOWN) {
		known = &checker->known[checker->n_known++];
		*known = (struct known){ .id = seen->id, .spec = seen->spec };
	}
	return known;
}

static bool did_something(const struct seen_transition *seen)
{
	for (size_t i = 0; i < seen->n_steps; i++) {
		if (seen->steps[i].state != STEP_PENDING && seen->steps[i].state != STEP_SKIPPED)
			return true;
	}
	return false;
}

static bool is_newly_adopted(struct checker *checker, const struct seen_transition *seen)
{
	struct known *known = note(checker, seen);

	if (known == NULL || known->adopted)
		return false;
	return seen->state == TRANSITION_RUNNING || did_something(seen);
}

/* How often, as of the last event: this turn itself may count already. */
static unsigned overtaken_before(const struct checker *checker, uint64_t id)
{
	for (size_t i = 0; checker->has_before && i < checker->before.n_queue; i++) {
		if (checker->before.queue[i].id == id)
			return checker->before.queue[i].overtaken;
	}
	return 0;
}

/* At the last event it waited for somebody with the same service, who ran or stood before it, rather than for a GPU. */
static bool waited_for_another(const struct checker *checker, const struct seen_transition *waiting)
{
	for (size_t i = 0; checker->has_before && i < checker->before.n_running; i++) {
		if ((services_of(checker, &checker->before.running[i]) & services_of(checker, waiting)) != 0)
			return true;
	}
	for (size_t i = 0; checker->has_before && i < checker->before.n_queue; i++) {
		if (checker->before.queue[i].id == waiting->id)
			return false;
		if ((services_of(checker, &checker->before.queue[i]) & services_of(checker, waiting)) != 0)
			return true;
	}
	return false;
}

/* A lease on what is there already changes nothing on any GPU. */
static bool is_changeless(const struct seen_transition *adopted)
{
	return adopted->spec.kind == REQUEST_LEASE && adopted->n_steps == 0 && adopted->spec.room_mib == 0 &&
		adopted->spec.mode != LEASE_GPU;
}

static bool want_same_service(const struct seen_transition *a, const struct seen_transition *b)
{
	return a->spec.kind == REQUEST_LEASE && b->spec.kind == REQUEST_LEASE &&
		(a->spec.services & b->spec.services) != 0;
}

static bool was_parked(const struct checker *checker, uint64_t id)
{
	for (size_t i = 0; checker->has_before && i < checker->before.n_queue; i++) {
		if (checker->before.queue[i].id == id)
			return checker->before.queue[i].state == TRANSITION_PARKED;
	}
	return false;
}

/* Somebody came to be parked in this event, perhaps only for a part of it. */
static bool is_any_parked(const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].parks)
			return true;
	}
	return false;
}

/* What began without a notice is judged after what began in the same event with one. */
static bool has_begun_others(const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].begins)
			return true;
	}
	return false;
}

/* What those wanted who have had their answer in this event: they stood in the queue for a part of it. */
static gpu_set services_of_answered(const struct checker *checker, const struct observation *seen)
{
	gpu_set services = 0;

	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].effect.kind == EFFECT_REPLY && seen->effects[i].answer.id != 0)
			services |= services_of(checker, &seen->effects[i].answer);
	}
	return services;
}

/* Where it stands what the request is about came out in this event: it counts by where that was thought to be. */
static bool was_elsewhere(const struct checker *checker, const struct seen_transition *waiting)
{
	gpu_set services = services_of(checker, waiting);

	for (size_t s = 0; checker->has_before && s < checker->before.n_services; s++) {
		if ((services & GPU_BIT(s)) != 0 && checker->told[s].adopted &&
			checker->before.services[s].gpus != checker->told[s].gpus)
			return true;
	}
	return false;
}

/* Nobody who was before it in the queue and wants the same GPUs was passed by. */
static void check_overtaking(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen)
{
	bool adopted_is_aged = adopted->overtaken >= AGED;
	bool is_late = adopted->spec.kind == REQUEST_LEASE && adopted->n_steps == 0 && has_begun_others(seen);
	gpu_set services = 0; /* of those before it in the queue, for whom it waits first */
	gpu_set before =
		services_of_answered(checker, seen); /* and of all before it, be they parked, or waiting for the lock */

	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];
		struct known *known = find_known(checker, waiting->id);
		gpu_set certain;
		bool is_aged = overtaken_before(checker, waiting->id) >= AGED;
		bool is_before = is_aged != adopted_is_aged                 ? is_aged
			: is_aged || waiting->priority == adopted->priority ? waiting->id < adopted->id
									    : waiting->priority > adopted->priority;

		/* A stop keeps nobody from anything while somebody before it is about the same service. */
		bool is_behind = waiting->spec.kind == REQUEST_STOP && (before & services_of(checker, waiting)) != 0;

		before |= services_of(checker, waiting);
		request_gpus(checker, &waiting->spec, &certain);
		if (known != NULL && waiting->state == TRANSITION_PARKED && adopted->id > waiting->id)
			known->overtaken_hi++; /* it may have been parked after that */
		if (waiting->state != TRANSITION_QUEUED || is_forced_stop(adopted))
			continue;
		if (!lock_let_begin(checker, &waiting->spec)) { /* nobody else waits for the lock with it */
			if (known != NULL)
				known->overtaken_hi += adopted->id > waiting->id;
			continue;
		}
		if (known != NULL && adopted->id > waiting->id) {
			known->overtaken_hi++;
			/* (Between a stop and who is before it about the same service nothing is counted.) */
			known->overtaken_lo += adopted->n_steps > 0 && !is_behind &&
				(waiting->spec.kind != REQUEST_STOP ||
					(services_of(checker, waiting) & services_of(checker, adopted)) == 0) &&
				!is_forced_stop(waiting) && (services & services_of(checker, waiting)) == 0 &&
				!waited_for_another(checker, waiting) && !was_parked(checker, waiting->id) &&
				!is_any_parked(seen) && checker->was_settled && !was_elsewhere(checker, waiting) &&
				(certain & adopted->gpus) != 0;
		}
		services |= services_of(checker, waiting);
		require(!is_before || is_late || is_behind || is_forced_stop(waiting) ||
				waited_for_another(checker, waiting) || is_changeless(adopted) ||
				was_parked(checker, waiting->id) || is_any_parked(seen) ||
				(certain & adopted->gpus) == 0,
			"overtaken", "#%llu had its turn before #%llu, which waits for the same GPUs",
			(unsigned long long)adopted->id, (unsigned long long)waiting->id);
		require(!is_before || !want_same_service(adopted, waiting) || was_parked(checker, waiting->id) ||
				is_any_parked(seen),
			"overtaken-lease", "#%llu had its turn before #%llu, which waits for the same service",
			(unsigned long long)adopted->id, (unsigned long long)waiting->id);
	}
}

static size_t count_adopted(struct checker *checker, const struct observation *seen)
{
	size_t n = 0;

	for (size_t i = 0; i < seen->n_running; i++)
		n += is_newly_adopted(checker, &seen->running[i]);
	for (size_t i = 0; i < seen->n_effects; i++)
		n += seen->effects[i].effect.kind == EFFECT_REPLY &&
			is_newly_adopted(checker, &seen->effects[i].answer);
	return n;
}

static void adopt(struct checker *checker, const struct seen_transition *adopted, const struct observation *seen)
{
	struct known *known = find_known(checker, adopted->id);

	if (checker->fault_ms != seen->now) /* else news of states may be missing */
		check_adoption(checker, adopted, seen, checker->adopts_one);
	check_overtaking(checker, adopted, seen);
	require(lock_permitted(checker, &adopted->spec, seen), "lock-begin", "#%llu begins without the lock",
		(unsigned long long)adopted->id);
	leases_claim(checker, adopted);
	known->adopted = true;
	known->n_steps = adopted->n_steps;
	memcpy(known->steps, adopted->steps, sizeof(known->steps));
	for (size_t i = 0; i < adopted->n_steps; i++) {
		const struct plan_step *step = &adopted->steps[i].plan;

		if (step->action != PLAN_START || is_watch_only(checker, adopted, step->service))
			continue;
		checker->told[step->service].planned = adopted->id;
		checker->told[step->service].planned_gpus = step->gpus;
	}
	if (checker->stats == NULL)
		return;
	checker->stats->aged += adopted->overtaken >= AGED;
	for (size_t i = 0; i < adopted->n_steps; i++)
		checker->stats->restarts += adopted->steps[i].plan.reason == PLAN_RESTART;
}

/* The turn of a transition is judged where it is published, so that what came before it counts. */
void checker_adopt(struct checker *checker, const struct observation *seen, uint64_t id)
{
	for (size_t i = 0; i < seen->n_running; i++) {
		if (seen->running[i].id == id && is_newly_adopted(checker, &seen->running[i]))
			adopt(checker, &seen->running[i], seen);
	}
	for (size_t i = 0; i < seen->n_effects; i++) {
		if (seen->effects[i].effect.kind == EFFECT_REPLY && seen->effects[i].answer.id == id &&
			is_newly_adopted(checker, &seen->effects[i].answer))
			adopt(checker, &seen->effects[i].answer, seen);
	}
}

static void note_all(struct checker *checker, const struct observation *seen)
{
	checker->adopts_one = count_adopted(checker, seen) == 1;
	for (size_t i = 0; i < seen->n_queue; i++)
		note(checker, &seen->queue[i]);
}

/* Where memory ran out, news may be missing; then what is shown is taken as it is. */
static void forgive(struct checker *checker, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_running; i++) {
		if (!is_newly_adopted(checker, &seen->running[i]))
			continue;
		for (size_t j = 0; j < seen->n_queue; j++) {
			if (find_known(checker, seen->queue[j].id) != NULL)
				find_known(checker, seen->queue[j].id)->overtaken_hi++;
		}
		find_known(checker, seen->running[i].id)->adopted = true;
		find_known(checker, seen->running[i].id)->n_steps = seen->running[i].n_steps;
		memcpy(find_known(checker, seen->running[i].id)->steps, seen->running[i].steps,
			sizeof(seen->running[i].steps));
	}
	for (size_t s = 0; s < seen->n_services; s++)
		checker->states[s] = seen->services[s].state;
}

static void check_published(struct checker *checker, const struct observation *seen)
{
	if (checker->fault_ms == seen->now) {
		forgive(checker, seen);
		return;
	}
	for (size_t i = 0; i < seen->n_running; i++) {
		/* A lease for which nothing is to be done is news itself. */
		if (seen->running[i].spec.kind == REQUEST_LEASE && seen->running[i].n_steps == 0 &&
			is_newly_adopted(checker, &seen->running[i]))
			adopt(checker, &seen->running[i], seen);
		require(!is_newly_adopted(checker, &seen->running[i]), "unpublished",
			"#%llu had its turn and nobody said so", (unsigned long long)seen->running[i].id);
	}
}

/* A plan is not changed once it is adopted, and its steps only go forward. */
static void check_progress(struct checker *checker, const struct seen_transition *seen)
{
	struct known *known = find_known(checker, seen->id);

	if (known == NULL || !known->adopted)
		return;
	require(known->n_steps == seen->n_steps, "plan-changed", "#%llu changed its plan",
		(unsigned long long)seen->id);
	for (size_t i = 0; i < seen->n_steps && i < known->n_steps; i++) {
		enum step_state before = known->steps[i].state, after = seen->steps[i].state;

		require(known->steps[i].plan.service == seen->steps[i].plan.service &&
				known->steps[i].plan.action == seen->steps[i].plan.action,
			"plan-changed", "#%llu changed its plan", (unsigned long long)seen->id);
		require(before == after || before == STEP_PENDING || (before == STEP_RUNNING && after >= STEP_DONE),
			"step-order", "a step of #%llu went from %s to %s", (unsigned long long)seen->id,
			step_state_name(before), step_state_name(after));
		known->steps[i].state = after;
	}
}

/* Which services hold room for a start that is still to come. */
static void note_planned(struct checker *checker, const struct observation *seen)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++)
		checker->told[s].planned = 0;
	for (size_t i = 0; i < seen->n_running; i++) {
		for (size_t j = 0; j < seen->running[i].n_steps; j++) {
			const struct seen_step *step = &seen->running[i].steps[j];

			if (step->plan.action != PLAN_START || step->state != STEP_PENDING)
				continue;
			checker->told[step->plan.service].planned = seen->running[i].id;
			checker->told[step->plan.service].planned_gpus = step->plan.gpus;
			if (!checker->told[step->plan.service].alive)
				checker->told[step->plan.service].gpus = step->plan.gpus;
		}
	}
}

/* A transition that ended without its start gave the room back. */
static void forget_planned(struct checker *checker, const struct observation *seen)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (!is_listed(seen->running, seen->n_running, checker->told[s].planned))
			checker->told[s].planned = 0;
	}
}

static void note_states(struct checker *checker, const struct observation *seen)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		enum service_state state = seen->services[s].state;
		struct told *told = &checker->told[s];

		if ((told->adopted && told->alive) || checker->is_restarted)
			told->gpus = seen->services[s].gpus;
		if (state != SERVICE_READY)
			told->idle_since_ms = 0;
		else if (told->idle_since_ms == 0)
			told->idle_since_ms = seen->now;
		if (state != SERVICE_READY && state != SERVICE_BUSY)
			leases_forget_busy(checker, s);
		if (state != SERVICE_READY && state != SERVICE_BUSY)
			told->ready_since_ms = 0;
		else if (told->ready_since_ms == 0)
			told->ready_since_ms = seen->now;
	}
}

/* What is neither queued nor running is over. */
static void note_ended(struct checker *checker, const struct observation *seen)
{
	for (size_t i = 0; i < checker->n_known; i++) {
		struct known *known = &checker->known[i];

		if (!known->ended)
			known->ended = !is_listed(seen->queue, seen->n_queue, known->id) &&
				!is_listed(seen->running, seen->n_running, known->id);
	}
}

static void check_nothing(struct checker *checker, const struct observation *seen)
{
	if (!checker->expects_nothing)
		return;
	checker->expects_nothing = false;
	if (checker->fault_ms == seen->now)
		return; /* what is put off and tried again may be anything */
	require(seen->n_effects == 0, "stale-news", "news of a run that is over had an effect");
	require(seen->version == checker->before.version, "stale-news", "news of a run that is over changed the page");
}

/* It is kept for its leases among what they have, as far as it may be used: more of that may be known now. */
static void note_kept_place(struct checker *checker, const struct observation *seen, size_t service)
{
	struct told *told = &checker->told[service];
	unsigned count = checker->setup.services[service].gpu_count;
	gpu_set kept = told->gpus;

	if (!told->learns_allowed || told->alive || gpu_set_count(told->gpus) >= count)
		return;
	for (size_t i = 0; i < checker->n_held; i++) {
		if ((checker->held[i].lease.services & GPU_BIT(service)) != 0)
			kept |= checker->held[i].lease.gpus;
	}
	if (leases_uses(checker, service, 0, false) == 0 || told->planned != 0)
		return;
	told->gpus = gpu_set_first(kept & told->allowed, count);
	require(seen->services[service].gpus == told->gpus, "kept-place", "%s is kept on gpus %llx, should be on %llx",
		checker->setup.names[service], (unsigned long long)seen->services[service].gpus,
		(unsigned long long)told->gpus);
}

/* Where it stands that was found running: nobody but the engine says, and a reading may just have corrected it. */
static void note_places(struct checker *checker, const struct observation *seen)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		struct told *told = &checker->told[s];

		note_kept_place(checker, seen, s);
		told->learns_allowed = false;
		if (!told->adopted || !told->alive || seen->services[s].gpus == 0)
			continue;
		for (size_t g = 0; g < seen->n_gpus; g++) /* whose it was before is anybody's guess */
			if ((seen->services[s].gpus & ~told->gpus & GPU_BIT(g)) != 0)
				checker->baseline_lo[g] = 0;
		told->gpus = seen->services[s].gpus;
	}
}

void checker_judge(struct checker *checker, const struct observation *seen)
{
	note_places(checker, seen);
	check_nothing(checker, seen);
	forget_planned(checker, seen);
	note_all(checker, seen);
	check_effects(checker, seen);
	check_published(checker, seen);
	for (size_t i = 0; i < seen->n_running; i++)
		check_progress(checker, &seen->running[i]);
	note_planned(checker, seen);
	note_states(checker, seen);
	leases_check(checker, seen);
	lock_check(checker, seen);
	check_status(checker, seen);
	check_queue(checker, seen);
	check_deadline(checker, seen);
	note_ended(checker, seen);
	for (size_t g = 0; checker->stats != NULL && g < seen->n_gpus; g++)
		checker->stats->modes[seen->gpus[g].account.mode]++;
	checker->is_restarted = false;
	checker->was_settled = everything_is_looked_at(checker) && !awaits_reading(checker) &&
		checker->now - checker->fault_ms > FAULT_MS; /* else the queue may not have been looked through */
	observation_copy(&checker->before, seen);
	checker->has_before = true;
}

void checker_end(struct checker *checker)
{
	for (size_t i = 0; i < checker->n_tickets; i++)
		require(checker->tickets[i].replied || checker->tickets[i].withdrawn, "no-reply",
			"ticket %llu was never answered", (unsigned long long)checker->tickets[i].ticket);
	require(checker->n_claims == 0, "claims-left", "%zu claims are left behind", checker->n_claims);
}
