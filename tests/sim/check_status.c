/* Judges what the engine shows: accounts, states, the queue, and when it wants to be woken. */
#include <string.h>

#include "checker.h"

#define READING_MS 2000 /* nothing is decided before a first reading had so long to come */

/* From which state to which a service may go; from a row to the columns set. */
#define TO(state) (1u << SERVICE_##state)
static const unsigned legal[SERVICE_STATE_COUNT] = {
	[SERVICE_UNKNOWN] = TO(STOPPED) | TO(STARTING) | TO(READY),
	/* ready: found running at a later look; unknown: looked for in vain */
	[SERVICE_STOPPED] = TO(STARTING) | TO(READY) | TO(UNKNOWN),
	/* stopped: by somebody else */
	[SERVICE_STARTING] = TO(READY) | TO(STOPPING) | TO(ERROR) | TO(STOPPED),
	[SERVICE_READY] = TO(BUSY) | TO(ASLEEP) | TO(STOPPING) | TO(ERROR) | TO(STOPPED),
	[SERVICE_BUSY] = TO(READY) | TO(STOPPING) | TO(ERROR) | TO(STOPPED),
	[SERVICE_ASLEEP] = TO(READY) | TO(STARTING) | TO(STOPPING) | TO(ERROR) | TO(STOPPED),
	[SERVICE_STOPPING] = TO(STOPPED) | TO(ERROR),
	[SERVICE_ERROR] = TO(STARTING) | TO(STOPPING) | TO(READY) | TO(STOPPED),
};

/* Every change is published, and goes on from where the last one ended. */
void check_change(struct checker *checker, const struct seen_effect *change)
{
	require(change->subject < checker->setup.config.n_services && change->from >= 0 && change->to >= 0,
		"state-notice", "a service.state notice without service, from or to");
	if (change->subject >= checker->setup.config.n_services || change->from < 0 || change->to < 0)
		return;
	require((int)checker->states[change->subject] == change->from || checker->fault_ms == checker->now,
		"state-notice", "%s is published to leave %s and is %s", checker->setup.names[change->subject],
		service_state_name((enum service_state)change->from),
		service_state_name(checker->states[change->subject]));
	require((legal[change->from] >> change->to & 1) != 0, "state-change", "%s went from %s to %s",
		checker->setup.names[change->subject], service_state_name((enum service_state)change->from),
		service_state_name((enum service_state)change->to));
	bool is_by_others = change->to == SERVICE_STOPPED && change->from != SERVICE_STOPPING &&
		change->from != SERVICE_UNKNOWN && change->from != SERVICE_ERROR;
	require(!is_by_others || checker->told[change->subject].ended_by_others, "state-change",
		"%s is stopped though nobody stopped it", checker->setup.names[change->subject]);
	checker->states[change->subject] = (enum service_state)change->to;
	if (change->to == SERVICE_READY && change->from != SERVICE_BUSY)
		checker->told[change->subject].ready_since_ms = checker->now;
	checker->told[change->subject].idle_since_ms = change->to == SERVICE_READY ? checker->now : 0;
	if (change->to != SERVICE_READY && change->to != SERVICE_BUSY)
		leases_forget_busy(checker, change->subject);
	if (change->to == SERVICE_ERROR || change->to == SERVICE_STOPPED)
		leases_failed(checker, change->subject);
}

static void check_account(struct checker *checker, const struct observation *seen, size_t g)
{
	const struct gpu_account *account = &seen->gpus[g].account;
	struct range others = account_others(checker, g), committed = { 0, 0 };
	int64_t shown = (int64_t)(account->foreign_mib + account->unreclaimed_mib);
	uint32_t total;

	require(account->mode == account_mode(checker, g), "account-mode", "gpu%zu is in mode %s, should be %s", g,
		accounting_mode_name(account->mode), accounting_mode_name(account_mode(checker, g)));
	require(account->has_total == account_total(checker, g, &total), "account-total", "gpu%zu: total %sknown", g,
		account->has_total ? "" : "not ");
	if (!account->has_total || !account_total(checker, g, &total))
		return;
	require(account->total_mib == total, "account-total", "gpu%zu: total %u, not %u", g, account->total_mib, total);
	require(account->reserve_mib == account_reserve(checker, g), "account-reserve", "gpu%zu: reserve %u, not %u", g,
		account->reserve_mib, account_reserve(checker, g));
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		struct range one = account_commitment(checker, s, g);

		committed.lo += one.lo;
		committed.hi += one.hi;
	}
	committed.lo += leases_rooms(checker, g).lo;
	committed.hi += leases_rooms(checker, g).hi;
	require((int64_t)account->committed_mib >= committed.lo && (int64_t)account->committed_mib <= committed.hi,
		"account-committed", "gpu%zu: committed %llu, should be %lld..%lld", g,
		(unsigned long long)account->committed_mib, (long long)committed.lo, (long long)committed.hi);
	require(shown >= others.lo && shown <= others.hi, "account-others",
		"gpu%zu: foreign + unreclaimed %lld, should be %lld..%lld", g, (long long)shown, (long long)others.lo,
		(long long)others.hi);
	require(account->admissible_mib ==
			(int64_t)account->total_mib - account->reserve_mib - (int64_t)account->committed_mib - shown,
		"account-sum", "gpu%zu: admissible %lld is not the sum", g, (long long)account->admissible_mib);
}

static bool has_pending(const struct checker *checker, size_t service)
{
	for (size_t i = 0; i < checker->n_pending; i++) {
		if (checker->pending[i].service == service)
			return true;
	}
	return false;
}

static void check_service(struct checker *checker, const struct observation *seen, size_t s)
{
	const struct service_status *service = &seen->services[s];
	const struct told *told = &checker->told[s];
	const char *name = checker->setup.names[s];

	require(service->state == checker->states[s], "state-notice", "%s is %s and was published as %s", name,
		service_state_name(service->state), service_state_name(checker->states[s]));
	require(!told->alive || service->live, "live", "%s lives and is shown as dead", name);
	if (told->alive)
		require(service->state != SERVICE_STOPPED && service->state != SERVICE_UNKNOWN, "state-alive",
			"%s lives and is %s", name, service_state_name(service->state));
	else
		require(service->state == SERVICE_STOPPED || service->state == SERVICE_ERROR ||
				service->state == SERVICE_UNKNOWN,
			"state-dead", "%s is gone and is %s", name, service_state_name(service->state));
	/* What was found while it was about to be started is looked for again when that has come to nothing. */
	bool may_be_unknown =
		!told->looked || told->untold || (told->found_alive && (service->transition != 0 || told->find_out));
	require(service->state == SERVICE_UNKNOWN ? may_be_unknown : told->looked, "state-looked", "%s is %s", name,
		service_state_name(service->state));
	require(service->state != SERVICE_READY || told->was_ready, "state-ready", "%s is ready without a good check",
		name);
	if (!told->alive && !has_pending(checker, s) && !account_is_settling(checker) && told->planned == 0 &&
		leases_uses(checker, s, 0, false) == 0)
		require(service->committed_mib == 0, "account-service", "%s is gone and commits %llu MiB", name,
			(unsigned long long)service->committed_mib);
}

static void check_phase(struct checker *checker, const struct observation *seen)
{
	bool satisfied = true;

	if (!seen->phase.any)
		return;
	for (size_t i = 0; i < checker->setup.phases[seen->phase.phase].n_services; i++) {
		enum service_state state = seen->services[checker->setup.phase_services[seen->phase.phase][i]].state;

		satisfied = satisfied && (state == SERVICE_READY || state == SERVICE_BUSY);
	}
	require(seen->phase.satisfied == satisfied, "phase-satisfied", "phase %zu is %ssatisfied",
		seen->phase.phase + 1, satisfied ? "" : "not ");
}

bool is_same_page(const struct observation *a, const struct observation *b)
{
	if (a->n_running != b->n_running || a->n_queue != b->n_queue || a->n_services != b->n_services)
		return false;
	for (size_t i = 0; i < a->n_services; i++) {
		if (a->services[i].state != b->services[i].state || a->services[i].live != b->services[i].live ||
			a->services[i].committed_mib != b->services[i].committed_mib ||
			a->services[i].pid != b->services[i].pid)
			return false;
	}
	for (size_t i = 0; i < a->n_running; i++) {
		if (a->running[i].id != b->running[i].id)
			return false;
		for (size_t j = 0; j < a->running[i].n_steps; j++) {
			if (a->running[i].steps[j].state != b->running[i].steps[j].state)
				return false;
		}
	}
	for (size_t i = 0; i < a->n_queue; i++) {
		if (a->queue[i].id != b->queue[i].id)
			return false;
	}
	for (size_t g = 0; g < a->n_gpus; g++) {
		if (a->gpus[g].account.admissible_mib != b->gpus[g].account.admissible_mib ||
			a->gpus[g].account.mode != b->gpus[g].account.mode)
			return false;
	}
	return true;
}

void check_status(struct checker *checker, const struct observation *seen)
{
	require(seen->n_services == checker->setup.config.n_services, "services", "%zu services are shown",
		seen->n_services);
	require(seen->n_gpus >= checker->setup.config.n_gpus && seen->n_gpus <= checker->setup.n_gpus, "gpus",
		"%zu GPUs are shown", seen->n_gpus);
	for (size_t g = 0; g < seen->n_gpus; g++)
		check_account(checker, seen, g);
	for (size_t s = 0; s < seen->n_services; s++)
		check_service(checker, seen, s);
	check_phase(checker, seen);
	require(!checker->has_before || seen->version != checker->before.version ||
			is_same_page(seen, &checker->before),
		"version", "the page changed and its version did not");
	for (size_t i = 0; i < seen->n_running; i++)
		require(checker->fast || seen->running[i].n_steps == 0 || !is_at_work(checker, &seen->running[i]),
			"sampling", "a transition runs and readings are slow");
}

/* The queue. */

static bool is_aged(const struct seen_transition *transition)
{
	return transition->overtaken >= AGED;
}

/* Ids are given in the order of arrival. */
static bool goes_before(const struct seen_transition *a, const struct seen_transition *b)
{
	if (is_aged(a) != is_aged(b))
		return is_aged(a);
	if (is_aged(a)) /* among them only arrival counts */
		return a->id < b->id;
	if (a->priority != b->priority)
		return a->priority > b->priority;
	return a->id < b->id;
}

/* Who kills does not wait for his turn. */
bool is_forced_stop(const struct seen_transition *transition)
{
	return (transition->spec.kind == REQUEST_STOP || transition->spec.kind == REQUEST_RELEASE_ALL) &&
		transition->spec.force;
}

static bool shares_service(const struct seen_transition *a, const struct seen_transition *b)
{
	for (size_t i = 0; i < a->n_steps; i++) {
		for (size_t j = 0; j < b->n_steps; j++) {
			if (a->steps[i].plan.service == b->steps[j].plan.service)
				return true;
		}
	}
	return false;
}

static void check_running(struct checker *checker, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_running; i++) {
		const struct seen_transition *a = &seen->running[i];

		require(a->state == TRANSITION_RUNNING, "running", "#%llu runs and is %s", (unsigned long long)a->id,
			transition_state_name(a->state));
		for (size_t j = 0; j < i; j++) {
			const struct seen_transition *b = &seen->running[j];

			if (is_forced_stop(a) || is_forced_stop(b) || !is_at_work(checker, a) ||
				!is_at_work(checker, b))
				continue;
			require((a->gpus & b->gpus) == 0, "disjoint", "#%llu and #%llu run on the same GPU",
				(unsigned long long)a->id, (unsigned long long)b->id);
			require(!shares_service(a, b), "one-transition", "a service is in #%llu and in #%llu",
				(unsigned long long)a->id, (unsigned long long)b->id);
		}
	}
	if (checker->stats != NULL)
		checker->stats->side_by_side += seen->n_running > 1;
}

/* Everything that the request is about, as bits over the services. */
gpu_set services_of(const struct checker *checker, const struct seen_transition *transition)
{
	gpu_set services = request_needs(checker, &transition->spec);

	if (transition->spec.kind == REQUEST_RELEASE_ALL)
		return GPU_SET_ALL;
	if (transition->spec.kind == REQUEST_STOP || transition->spec.kind == REQUEST_MAKE_ROOM)
		services |= GPU_BIT(transition->spec.target);
	for (size_t i = 0; i < transition->n_steps; i++)
		services |= GPU_BIT(transition->steps[i].plan.service);
	return services;
}

static bool has_alive_need(const struct checker *checker, const struct seen_transition *transition)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((request_needs(checker, &transition->spec) & GPU_BIT(s)) != 0 && checker->told[s].alive)
			return true;
	}
	return false;
}

/* At the start, and when something was found that readings have not shown yet. */
bool awaits_reading(const struct checker *checker)
{
	if (!checker->has_reading && checker->now - checker->begin_ms <= READING_MS)
		return true;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		const struct told *told = &checker->told[s];

		if (told->adopted && checker->now - told->start_ms <= STALE_MS &&
			(!checker->has_reading || checker->reading.taken_ms <= told->start_ms))
			return true;
	}
	return false;
}

/* If memory ran out while it was decided, it is decided again soon. */
static void expect_turn(struct checker *checker, const struct observation *seen, const struct seen_transition *waiting,
	bool waits_rightly, const char *rule)
{
	if (waits_rightly || awaits_reading(checker))
		return;
	if (checker->now - checker->fault_ms <= FAULT_MS)
		require(seen->deadline <= checker->fault_ms + FAULT_MS, "no-memory",
			"nobody tries again to begin #%llu (deadline in %lld ms)", (unsigned long long)waiting->id,
			(long long)(seen->deadline - seen->now));
	else
		checker_broke(checker, rule, "#%llu waits, and could have its turn", (unsigned long long)waiting->id);
}

/* Who waits keeps others from the GPUs that he waits for, and from the services that he is about. */
static bool gates(
	const struct checker *checker, const struct seen_transition *before, const struct seen_transition *waiting)
{
	if (before->state != TRANSITION_QUEUED && waiting->spec.kind != REQUEST_STOP)
		return false;
	return (services_of(checker, before) & services_of(checker, waiting)) != 0 ||
		(request_gpus(checker, &before->spec, NULL) & request_gpus(checker, &waiting->spec, NULL)) != 0;
}

/* A lease on what is well and free waits for nobody, whatever else is under way. */
static void check_warm(struct checker *checker, const struct observation *seen, size_t index)
{
	const struct seen_transition *waiting = &seen->queue[index];
	bool is_warm =
		waiting->spec.kind == REQUEST_LEASE && waiting->spec.mode != LEASE_GPU && waiting->spec.services != 0;

	for (size_t i = 0; i < index; i++) /* who is before it may be about to end what it needs */
		is_warm = is_warm && seen->queue[i].state != TRANSITION_QUEUED;
	for (size_t s = 0; s < seen->n_services; s++) {
		enum service_state state = seen->services[s].state;

		if ((waiting->spec.services & GPU_BIT(s)) != 0)
			is_warm = is_warm && (state == SERVICE_READY || state == SERVICE_BUSY) &&
				seen->services[s].transition == 0;
	}
	expect_turn(checker, seen, waiting, !is_warm || leases_excludes(checker, &waiting->spec, waiting->id),
		"waits-warm");
}

/* Who waits behind another lease request for the same service keeps what he would have used when he was looked at. */
static bool has_long_line(const struct observation *seen, size_t index)
{
	gpu_set services = 0;

	for (size_t i = 0; i < index; i++) {
		if (seen->queue[i].state != TRANSITION_QUEUED || seen->queue[i].spec.kind != REQUEST_LEASE)
			continue;
		if ((seen->queue[i].spec.services & services) != 0)
			return true;
		services |= seen->queue[i].spec.services;
	}
	return false;
}

/* Whom mode gpu excludes is known only once it is known where its services stand. */
static bool is_place_unknown(
	const struct checker *checker, const struct observation *seen, const struct seen_transition *waiting)
{
	gpu_set known = GPU_BIT(seen->n_gpus) - 1;

	for (size_t s = 0; s < checker->setup.config.n_services && waiting->spec.mode == LEASE_GPU; s++) {
		if ((waiting->spec.services & GPU_BIT(s)) != 0 && checker->told[s].alive &&
			(seen->services[s].gpus & known) == 0)
			return true;
	}
	return false;
}

/* What is nobody's may be of a service that is being stopped, and has died already: then it is about to come back. */
static bool may_be_of_the_dying(const struct checker *checker)
{
	bool is_stopping = false, is_open = false;

	for (size_t s = 0; s < checker->setup.config.n_services; s++)
		is_stopping |= checker->told[s].alive && checker->states[s] == SERVICE_STOPPING;
	for (size_t g = 0; g < checker->setup.n_gpus; g++)
		is_open |= account_mode(checker, g) == ACCOUNTING_PROCESS &&
			account_others(checker, g).lo < account_others(checker, g).hi;
	return is_stopping && is_open;
}

/* Somebody waits only for what runs, or for somebody who waits before him. */
static void check_waits(struct checker *checker, const struct observation *seen, size_t index)
{
	const struct seen_transition *waiting = &seen->queue[index];
	gpu_set taken = 0, services = 0;

	bool runs = false, is_behind = false;

	if (!everything_is_looked_at(checker) || account_is_settling(checker))
		return;
	if (waiting->state == TRANSITION_PARKED)
		expect_turn(checker, seen, waiting,
			request_is_hopeful(checker, &waiting->spec) || leases_are_full(checker), "parked-hopeless");
	if (waiting->state == TRANSITION_PARKED)
		expect_turn(checker, seen, waiting,
			leases_is_anything_used(checker) || is_anything_about_to_yield(checker) ||
				is_place_unknown(checker, seen, waiting),
			"parked-for-nothing");
	if (waiting->state == TRANSITION_PARKED && seen->n_running == 0 && account_is_exact(checker))
		expect_turn(checker, seen, waiting,
			request_may_fit_some_day(checker, &waiting->spec) || leases_are_full(checker) ||
				is_place_unknown(checker, seen, waiting),
			"parked-unfit");
	if (waiting->state != TRANSITION_QUEUED || !lock_permits(checker, &waiting->spec) ||
		may_be_of_the_dying(checker))
		return;
	for (size_t i = 0; i < seen->n_running; i++) {
		if (!is_at_work(checker, &seen->running[i]))
			continue;
		runs = true;
		taken |= seen->running[i].gpus;
		services |= services_of(checker, &seen->running[i]);
	}
	/* Whoever was found running while no GPU was known stands on more than its transition was told. */
	for (size_t s = 0; s < seen->n_services; s++)
		if (seen->services[s].transition != 0)
			taken |= seen->services[s].gpus;
	bool is_blocked = leases_may_block(checker, &waiting->spec, waiting->id);

	for (size_t i = 0; i < index; i++)
		is_behind = is_behind || gates(checker, &seen->queue[i], waiting);
	expect_turn(
		checker, seen, waiting, runs || is_behind || is_blocked || has_long_line(seen, index), "stands-still");
	check_warm(checker, seen, index);
	for (size_t i = 0; i < index; i++) {
		if (waiting->spec.kind ==
			REQUEST_STOP) /* what was asked for before it comes before it, parked or not */
			services |= services_of(checker, &seen->queue[i]);
		if (seen->queue[i].state != TRANSITION_QUEUED)
			continue;
		taken |= request_gpus(checker, &seen->queue[i].spec, NULL);
		services |= services_of(checker, &seen->queue[i]);
	}
	if ((services_of(checker, waiting) & services) != 0 || is_blocked || has_long_line(seen, index))
		return;
	expect_turn(checker, seen, waiting, (request_gpus(checker, &waiting->spec, NULL) & taken) != 0,
		"waits-for-nothing");
	expect_turn(checker, seen, waiting,
		(waiting->spec.kind != REQUEST_START && waiting->spec.kind != REQUEST_PHASE &&
			waiting->spec.kind != REQUEST_LEASE) ||
			has_alive_need(checker, waiting) || !account_is_exact(checker) ||
			!request_fits(checker, &waiting->spec, ~taken),
		"waits-needlessly");
}

static void check_budget(struct checker *checker, const struct observation *seen, const struct seen_transition *waiting)
{
	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];

		if (ticket->id != waiting->id || ticket->replied || ticket->withdrawn ||
			lock_is_undecided(checker, &waiting->spec))
			continue;
		require(seen->now <= ticket->submit_ms + ticket->wait_ms, "wait-long",
			"ticket %llu still waits after %llu ms of %llu", (unsigned long long)ticket->ticket,
			(unsigned long long)(seen->now - ticket->submit_ms), (unsigned long long)ticket->wait_ms);
	}
}

void check_queue(struct checker *checker, const struct observation *seen)
{
	check_running(checker, seen);
	for (size_t i = 0; i < seen->n_queue; i++) {
		const struct seen_transition *waiting = &seen->queue[i];
		const struct known *known = find_known(checker, waiting->id);

		require(waiting->state == TRANSITION_QUEUED || waiting->state == TRANSITION_PARKED, "queue",
			"#%llu is queued and %s", (unsigned long long)waiting->id,
			transition_state_name(waiting->state));
		if (known != NULL)
			require(waiting->overtaken >= known->overtaken_lo && waiting->overtaken <= known->overtaken_hi,
				"overtaken-count", "#%llu was overtaken %u..%u times and counts %u",
				(unsigned long long)waiting->id, known->overtaken_lo, known->overtaken_hi,
				waiting->overtaken);
		require(known == NULL || !known->adopted, "queue", "#%llu had its turn and waits again",
			(unsigned long long)waiting->id);
		if (waiting->spec.kind != REQUEST_RELEASE_ALL)
			require(waiting->priority == request_priority(checker, &waiting->spec), "priority",
				"#%llu has priority %d", (unsigned long long)waiting->id, waiting->priority);
		require(i == 0 || goes_before(&seen->queue[i - 1], waiting), "queue-order", "#%llu stands before #%llu",
			i == 0 ? 0 : (unsigned long long)seen->queue[i - 1].id, (unsigned long long)waiting->id);
		require(open_tickets(checker, waiting->id) > 0 || waiting->spec.kind == REQUEST_MAKE_ROOM, "orphan",
			"#%llu waits for nobody", (unsigned long long)waiting->id);
		check_waits(checker, seen, i);
		check_budget(checker, seen, waiting);
	}
}

/* Waking. */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t probe_interval_ms(const struct checker *checker, size_t s, enum service_state state)
{
	uint64_t waited = checker->now - checker->told[s].start_ms, interval = waited / 64;

	if (state != SERVICE_STARTING)
		return checker->setup.services[s].health_interval_ms;
	return interval < 5 ? 5 : interval > 250 ? 250 : interval;
}

/* Until when the engine has to be awake for the sake of one service. */
static uint64_t due_for(const struct checker *checker, const struct observation *seen, size_t s)
{
	const struct told *told = &checker->told[s];
	enum service_state state = seen->services[s].state;
	uint64_t due = SIM_NEVER;

	if (!told->alive)
		return due;
	if (state == SERVICE_STARTING && !told->adopted)
		due = earlier(due,
			(told->started ? told->started_ms : told->start_ms) +
				checker->setup.services[s].start_timeout_ms);
	if ((state == SERVICE_STARTING && told->started) || state == SERVICE_READY || state == SERVICE_BUSY) {
		if (!told->probe_out)
			due = earlier(due,
				(told->probed ? told->answer_ms : checker->now) + probe_interval_ms(checker, s, state));
	}
	if (state == SERVICE_STOPPING && told->stop_sent && !told->kill_sent)
		due = earlier(due, told->last_stop_ms + checker->setup.services[s].stop_timeout_ms);
	return due;
}

void check_deadline(struct checker *checker, const struct observation *seen)
{
	uint64_t due = SIM_NEVER;

	require(seen->deadline >= seen->now, "deadline-past", "the next deadline (%llu) is in the past",
		(unsigned long long)seen->deadline);
	require(seen->deadline > seen->now || !checker->is_tick || seen->n_effects > 0, "deadline-spins",
		"a tick did nothing and the next one is due at once");
	for (size_t s = 0; s < seen->n_services; s++)
		due = earlier(due, due_for(checker, seen, s));
	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];
		const struct known *known =
			ticket->replied || ticket->withdrawn ? NULL : find_known(checker, ticket->id);

		if (known != NULL && !known->adopted && !known->ended && !lock_is_undecided(checker, &known->spec))
			due = earlier(due, ticket->submit_ms + ticket->wait_ms);
	}
	due = earlier(due, leases_due(checker, seen));
	require(seen->deadline <= due || due <= seen->now, "deadline-late",
		"the next deadline is %llu, but something is due at %llu", (unsigned long long)seen->deadline,
		(unsigned long long)due);
}
