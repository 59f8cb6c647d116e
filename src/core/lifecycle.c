/*
 * One service through its states: found, started, watched, stopped, killed. Says what is to be done about a service
 * as effects, and keeps its clocks. Must not know why something is started or stopped; transitions do.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/engine_state.h"

bool service_is_live(const struct service *service)
{
	return service->alive || service->committed || service->n_debts > 0;
}

bool service_is_in_use(const struct service *service)
{
	return service->leases > 0 || service->says_busy;
}

int64_t service_yield_after(const struct service *service)
{
	if (service->state != SERVICE_READY)
		return NEVER_MS;
	if (service->definition.yield_set)
		return service->definition.yield_after_ms;
	return service->was_leased ? YIELD_AFTER_MS : NEVER_MS;
}

bool service_is_leaving(const struct service *service)
{
	return service->state == SERVICE_STOPPING || (service->n_debts > 0 && !service->alive && !service->committed);
}

void service_set_error(struct service *service, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(service->error, sizeof(service->error), format, args);
	va_end(args);
}

static void publish_state(struct engine *engine, const struct service *service, enum service_state from)
{
	struct notice *notice = notice_begin(engine, "service.state", service->definition.name);
	if (notice == NULL)
		return;
	bool broken = service->state == SERVICE_ERROR || service->state == SERVICE_UNKNOWN;
	bool is_use = from == SERVICE_BUSY || service->state == SERVICE_BUSY;
	notice->is_routine = is_use && (from == SERVICE_READY || service->state == SERVICE_READY);
	notice->transition = service->transition;
	notice->is_problem = broken;
	notice_add_text(notice, "from", service_state_name(from));
	notice_add_text(notice, "to", service_state_name(service->state));
	if (service->pid != 0)
		notice_add_number(notice, "pid", service->pid);
	snprintf(notice->text, sizeof(notice->text), "%s is %s%s%s", service->definition.name,
		service_state_name(service->state), broken && service->error[0] != '\0' ? ": " : "",
		broken ? service->error : "");
}

/* What follows from a state, whichever way it was reached. */
static void enter_state(struct engine *engine, struct service *service)
{
	enum service_state state = service->state;
	if (state == SERVICE_READY) {
		service->error[0] = '\0';
		service->idle_since_ms = engine->now_ms;
	}
	if (state != SERVICE_READY && state != SERVICE_BUSY)
		busy_forget(service);
	if (state == SERVICE_ERROR || state == SERVICE_STOPPED)
		lease_tell_failed(engine, service);
}

void lifecycle_settle_use(struct engine *engine, struct service *service)
{
	bool is_used = service_is_in_use(service);
	if (service->state == SERVICE_READY && is_used)
		lifecycle_apply(engine, service, SERVICE_USE);
	else if (service->state == SERVICE_BUSY && !is_used)
		lifecycle_apply(engine, service, SERVICE_UNUSE);
	busy_watch(engine, service);
}

bool lifecycle_apply(struct engine *engine, struct service *service, enum service_event event)
{
	int next = service_next_state(service->state, event);
	if (next < 0)
		return false;
	enum service_state from = service->state;
	engine->version++;
	if ((enum service_state)next == from)
		return true;
	service->state = (enum service_state)next;
	service->since_ms = engine->now_ms;
	enter_state(engine, service);
	publish_state(engine, service, from);
	if (service->state == SERVICE_READY)
		lifecycle_settle_use(engine, service);
	return true;
}

/* ---- health ---- */

static uint64_t starting_interval(const struct engine *engine, const struct service *service)
{
	uint64_t interval = (engine->now_ms - service->started_ms) / 64;
	if (interval < PROBE_FIRST_MS)
		return PROBE_FIRST_MS;
	return interval < PROBE_STARTING_MAX_MS ? interval : PROBE_STARTING_MAX_MS;
}

static void plan_probe(struct engine *engine, struct service *service)
{
	if (service->probe_lost_ms != DEADLINE_NONE)
		return; /* one at a time: the answer to that one plans the next */
	if (service->hindrance == HINDRANCE_THERE)
		return; /* its end is told, and then it is asked at once */
	uint64_t interval = service->state == SERVICE_STARTING ? starting_interval(engine, service)
							       : service->definition.health_interval_ms;
	/* From one check to the next, however long the answer took. */
	uint64_t last_ms = service->probed_ms > service->started_ms ? service->probed_ms : engine->now_ms;
	service->probe_due_ms = last_ms + interval > engine->now_ms ? last_ms + interval : engine->now_ms;
}

void lifecycle_probe_soon(struct engine *engine, struct service *service)
{
	if (service->probe_lost_ms == DEADLINE_NONE)
		service->probe_due_ms = engine->now_ms;
}

static void forget_probes(struct service *service)
{
	service->probe_due_ms = DEADLINE_NONE;
	service->probe_lost_ms = DEADLINE_NONE;
	service->failures = 0;
}

static void begin_probe(struct engine *engine, struct service *service)
{
	struct effect *effect = effect_add(engine, EFFECT_PROBE);
	effect->service = service->index;
	effect->run = service->run;
	effect->probe_timeout_ms = PROBE_TIMEOUT_MS;
	service->probe_due_ms = DEADLINE_NONE;
	service->probed_ms = engine->now_ms;
	service->probe_lost_ms = engine->now_ms + PROBE_ANSWER_MS;
}

static void handle_unhealthy(struct engine *engine, struct service *service, const char *text)
{
	if (service->state == SERVICE_STARTING) {
		snprintf(service->last_answer, sizeof(service->last_answer), "%s", text != NULL ? text : "");
		return; /* it has until its start deadline */
	}
	service->failures++;
	if (service->failures < service->definition.health_retries || service->state == SERVICE_ERROR)
		return;
	service_set_error(service, "%u health checks in a row failed: %s", service->failures,
		text != NULL && text[0] != '\0' ? text : "no answer");
	lifecycle_apply(engine, service, SERVICE_UNHEALTHY);
}

/* Of one that was found while it booted, only a part of the time was seen. */
static void note_boot(struct engine *engine, struct service *service)
{
	if (service->adopted)
		return;
	service->has_boot = true;
	service->boot_ms = engine->now_ms - service->started_ms;
	engine->knowledge++;
}

static void handle_healthy(struct engine *engine, struct service *service)
{
	service->failures = 0;
	if (service->state == SERVICE_STARTING) {
		service->start_deadline_ms = DEADLINE_NONE;
		service->last_used_ms = engine->now_ms;
		note_boot(engine, service);
	}
	lifecycle_apply(engine, service, SERVICE_HEALTHY);
}

static void handle_health(struct engine *engine, struct service *service, bool healthy, const char *text)
{
	if (service->probe_lost_ms == DEADLINE_NONE || !service->alive)
		return;
	service->probe_lost_ms = DEADLINE_NONE;
	if (service->state == SERVICE_STOPPING || service->hindrance == HINDRANCE_THERE)
		return; /* in the second case it is an answer from before */
	service->hindrance = HINDRANCE_NONE;
	if (healthy)
		handle_healthy(engine, service);
	else
		handle_unhealthy(engine, service, text);
	plan_probe(engine, service);
}

static void settle_all(struct engine *engine)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
		ledger_settle(engine, gpu);
	engine->version++; /* what is free may be more or less now */
}

/* ---- finding ---- */

void lifecycle_find(struct engine *engine, struct service *service)
{
	effect_add(engine, EFFECT_FIND)->service = service->index;
	service->find_lost_ms = engine->now_ms + FIND_WAIT_MS;
}

/* Nobody knows the process of an adopted service without a PID; looking again is how its end is noticed. */
static bool is_worth_finding(const struct service *service)
{
	if (service->find_lost_ms != DEADLINE_NONE || service->definition.is_retired)
		return false;
	if (service->alive)
		return service->state == SERVICE_ERROR && service->adopted && service->pid == 0;
	if (service->state == SERVICE_UNKNOWN)
		return service->was_looked_for && service->transition == 0;
	return service->transition == 0 && (service->state == SERVICE_STOPPED || service->state == SERVICE_ERROR);
}

void lifecycle_leave_transition(struct engine *engine, struct service *service)
{
	service->transition = 0;
	if (service->was_found_early && is_worth_finding(service))
		lifecycle_find(engine, service);
	service->was_found_early = false;
}

void lifecycle_find_stopped(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (is_worth_finding(&engine->services[i]))
			lifecycle_find(engine, &engine->services[i]);
}

static gpu_set known_gpus(const struct engine *engine)
{
	return engine->n_cards < GPU_MAX ? GPU_BIT(engine->n_cards) - 1 : GPU_SET_ALL;
}

/*
 * Where a service that was found may stand: where its leases do, else nobody told, so the first GPUs that it may use.
 * Readings correct it.
 */
static gpu_set guess_gpus(const struct engine *engine, const struct service *service)
{
	const struct service_definition *definition = &service->definition;
	bool knows_gpus = engine->n_cards > 0;
	gpu_set leased = lease_gpus(engine, service) & (knows_gpus ? known_gpus(engine) : GPU_SET_ALL);
	gpu_set guess = gpu_set_first(leased & definition->allowed, definition->gpu_count);
	gpu_set others = (knows_gpus ? known_gpus(engine) : GPU_BIT(0)) & definition->allowed & ~guess;
	return guess | gpu_set_first(others, definition->gpu_count - gpu_set_count(guess));
}

static bool is_booked(const struct engine *engine, const struct service *service)
{
	return !service->alive || !service->adopted || (service->gpus & known_gpus(engine)) != 0;
}

void lifecycle_book_found(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		gpu_set guess = is_booked(engine, service) ? 0 : guess_gpus(engine, service);
		if (guess == 0 || guess == service->gpus)
			continue;
		service->gpus = guess;
		ledger_adopt_service(engine, service);
		lease_follow_service(engine, service);
		engine->version++;
	}
}

static void begin_run(struct engine *engine, struct service *service)
{
	service->run++;
	service->alive = true;
	service->committed = true;
	service->has_measured = false;
	service->started_ms = engine->now_ms;
	service->start_deadline_ms = engine->now_ms + service->definition.start_timeout_ms;
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = DEADLINE_NONE;
	service->is_outdated = false;
	service->was_found_early = false;
	service->stop_wanted = false;
	service->stop_failed = false;
	service->start_timed_out = false;
	service->start_failure = START_FAILURE_OTHER;
	service->hindrance = HINDRANCE_NONE;
	service->error[0] = '\0';
	service->last_answer[0] = '\0';
	forget_probes(service);
}

/* Somebody started it past us: said, counted, and dealt with as its definition says. */
static void handle_external_start(struct engine *engine, struct service *service)
{
	bool is_stopped = service->definition.stop_external;
	service->external_starts++;
	struct notice *notice = notice_begin(engine, "service.external", service->definition.name);
	if (notice != NULL) {
		notice->is_problem = true;
		notice_add_text(notice, "then", is_stopped ? "stop" : "adopt");
		notice_add_number(notice, "count", (int64_t)service->external_starts);
		snprintf(notice->text, sizeof(notice->text), "%s was started by somebody else; it is %s",
			service->definition.name, is_stopped ? "stopped again (on_external_start: stop)" : "adopted");
	}
	if (is_stopped)
		lifecycle_stop(engine, service, false, true);
	else
		queue_make_room(engine, service);
}

static void adopt(struct engine *engine, struct service *service, bool healthy, pid_t pid)
{
	begin_run(engine, service);
	service->adopted = true;
	service->n_readings_before = engine->n_readings;
	service->pid = pid;
	if (service->leases == 0 || service->gpus == 0)
		service->gpus = guess_gpus(engine, service);
	service->last_used_ms = engine->now_ms;
	ledger_adopt_service(engine, service);
	effect_add(engine, EFFECT_SAMPLE); /* what was foreign until now is its own */
	struct effect *effect = effect_add(engine, EFFECT_ADOPT);
	effect->service = service->index;
	effect->run = service->run;
	effect->pid = pid;
	if (healthy)
		service->start_deadline_ms = DEADLINE_NONE;
	lifecycle_apply(engine, service, healthy ? SERVICE_FOUND_HEALTHY : SERVICE_FOUND_ALIVE);
	plan_probe(engine, service);
}

static void end_run(struct engine *engine, struct service *service, bool wanted, const char *text);

static void take_look(
	struct engine *engine, struct service *service, bool alive, bool healthy, const struct event *event)
{
	bool there = alive || healthy;
	if (service->alive) {
		if (!there && service->adopted && service->pid == 0 && service->state == SERVICE_ERROR)
			end_run(engine, service, service->stop_wanted, "it is not there any more");
		return;
	}
	if (service->transition != 0 && !there && service->state == SERVICE_UNKNOWN)
		sight_take_absence(engine, service);
	if (service->transition != 0) { /* about to be started: a look from before does not count, unless that fails */
		service->was_found_early |= there;
		return;
	}
	if (there)
		adopt(engine, service, healthy, event != NULL ? event->found.pid : 0);
	else
		sight_take_absence(engine, service);
	if (there && event != NULL && event->found.external)
		handle_external_start(engine, service);
	if (there && event != NULL && event->found.stopping)
		lifecycle_stop(engine, service, false, true);
}

/* `event` is NULL when no answer came. */
static void handle_found(struct engine *engine, struct service *service, const struct event *event)
{
	if (service->find_lost_ms == DEADLINE_NONE)
		return;
	service->find_lost_ms = DEADLINE_NONE;
	service->was_looked_for = true;
	if (event != NULL && event->found.untold)
		sight_lose(engine, service, event->text);
	else
		take_look(engine, service, event != NULL && event->found.alive, event != NULL && event->found.healthy,
			event);
	settle_all(engine); /* what nobody of ours holds, as is known now, was always there */
	if (service->look_again && is_worth_finding(service))
		lifecycle_find(engine, service);
	service->look_again = false;
}

static void handle_look(struct engine *engine, struct service *service)
{
	if (service->find_lost_ms != DEADLINE_NONE)
		service->look_again = true; /* the answer on its way may be from before */
	else if (is_worth_finding(service))
		lifecycle_find(engine, service);
}

/* ---- starting and stopping ---- */

void lifecycle_start(struct engine *engine, struct service *service, uint64_t transition)
{
	begin_run(engine, service);
	service->adopted = false;
	service->pid = 0;
	service->transition = transition;
	struct effect *effect = effect_add(engine, EFFECT_START);
	effect->service = service->index;
	effect->run = service->run;
	effect->gpus = service->gpus;
	lifecycle_apply(engine, service, SERVICE_START);
}

static void kill_group(struct engine *engine, struct service *service)
{
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = engine->now_ms + KILL_WAIT_MS;
}

void lifecycle_stop(struct engine *engine, struct service *service, bool force, bool wanted)
{
	bool again = service->state == SERVICE_STOPPING;
	bool is_killed = again && service->kill_deadline_ms != DEADLINE_NONE;
	if (!service->alive || service_next_state(service->state, SERVICE_STOP) < 0)
		return;
	service->stop_wanted |= wanted;
	if (!again)
		ledger_expect_end(engine, service);
	lifecycle_apply(engine, service, SERVICE_STOP);
	if (again && (!force || is_killed))
		return;
	service->probe_due_ms = DEADLINE_NONE;
	service->failures = 0;
	service->start_deadline_ms = DEADLINE_NONE;
	service->stop_failed = false;
	service->stop_deadline_ms = engine->now_ms + service->definition.stop_timeout_ms;
	if (force)
		kill_group(engine, service);
	struct effect *effect = effect_add(engine, EFFECT_STOP);
	effect->service = service->index;
	effect->run = service->run;
	effect->force = force;
}

/* Somebody else ended it on purpose: said, and no fault, unless a transition counts on it. */
static bool is_ended_by_others(const struct service *service, const struct event *event)
{
	return event->by_others && service->state != SERVICE_STOPPING && service->transition == 0;
}

static void publish_external_stop(struct engine *engine, const struct service *service, const char *text)
{
	struct notice *notice = notice_begin(engine, "service.external_stop", service->definition.name);
	if (notice == NULL)
		return;
	notice->is_problem = service->leases > 0;
	snprintf(notice->text, sizeof(notice->text), "%s has ended: %.300s", service->definition.name,
		text != NULL ? text : "it ended");
}

/* The whole group is gone. When it was being stopped for a fault, the fault is what is remembered, not the stop. */
static void end_run(struct engine *engine, struct service *service, bool wanted, const char *text)
{
	bool had_memory = service->committed;
	ledger_end_service(engine, service);
	service->committed = service->leases > 0; /* kept for them, while it is down */
	service->alive = false;
	service->pid = 0;
	service->start_deadline_ms = DEADLINE_NONE;
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = DEADLINE_NONE;
	service->hindrance = HINDRANCE_NONE;
	forget_probes(service);
	if (wanted)
		service->error[0] = '\0';
	else if (service->state != SERVICE_STOPPING || service->error[0] == '\0')
		service_set_error(service, "%s", text != NULL && text[0] != '\0' ? text : "it ended");
	lifecycle_apply(engine, service, wanted ? SERVICE_ENDED : SERVICE_DIED);
	settle_all(engine); /* a reading of this very moment may show its memory back already */
	if (had_memory)
		effect_add(engine, EFFECT_SAMPLE);
}

static void handle_gone(struct engine *engine, struct service *service, const struct event *event)
{
	bool by_others = is_ended_by_others(service, event);
	if (!service->alive)
		return;
	if (by_others)
		publish_external_stop(engine, service, event->text);
	end_run(engine, service, service->stop_wanted || by_others, event->text);
}

static void handle_started(struct engine *engine, struct service *service, pid_t pid)
{
	if (!service->alive)
		return;
	service->pid = pid;
	engine->version++;
	bool is_probed = service->probe_due_ms != DEADLINE_NONE || service->probe_lost_ms != DEADLINE_NONE;
	if (service->state == SERVICE_STARTING && !is_probed)
		plan_probe(engine, service);
}

static void describe_start_timeout(struct service *service, const char *label, const char *why)
{
	char waited[32];
	format_duration(service->definition.start_timeout_ms, waited, sizeof(waited));
	service_set_error(service, "not healthy within %s (health.timeout)%s%s; see gpumgr logs %s", waited, label, why,
		service->definition.name);
}

static void handle_start_failed(
	struct engine *engine, struct service *service, enum start_failure failure, const char *text)
{
	if (!service->alive)
		return;
	service->start_failure = failure;
	service->committed = false; /* nothing of it ever ran: no memory to wait for */
	if (service->start_timed_out && text != NULL && text[0] != '\0')
		describe_start_timeout(service, "; ", text); /* that is why */
	end_run(engine, service, service->stop_wanted, text);
}

static void handle_leader_ended(struct engine *engine, struct service *service, const char *text)
{
	if (!service->alive || service->state == SERVICE_STOPPING)
		return;
	service_set_error(service, "%s", text != NULL ? text : "its main process ended");
	lifecycle_stop(engine, service, false, false);
}

static void handle_stop_refused(struct engine *engine, struct service *service, const char *text)
{
	if (service->state != SERVICE_STOPPING)
		return;
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = DEADLINE_NONE;
	service->stop_failed = true;
	service->stop_wanted = false;
	service_set_error(service, "%s", text != NULL ? text : "it cannot be stopped");
	lifecycle_apply(engine, service, SERVICE_STOP_REFUSED);
	plan_probe(engine, service);
}

static void handle_stop_failed(struct engine *engine, struct service *service)
{
	service->kill_deadline_ms = DEADLINE_NONE;
	service->stop_failed = true;
	service->stop_wanted = false;
	service_set_error(service,
		"it outlived SIGKILL by %d s; a process stuck in the kernel or driver needs a look at dmesg, perhaps a "
		"reboot",
		KILL_WAIT_MS / 1000);
	lifecycle_apply(engine, service, SERVICE_STOP_FAILED);
}

static void handle_start_timeout(struct engine *engine, struct service *service)
{
	service->start_deadline_ms = DEADLINE_NONE;
	service->start_timed_out = true;
	describe_start_timeout(service, service->last_answer[0] != '\0' ? "; last check: " : "", service->last_answer);
	if (service->adopted)
		lifecycle_apply(engine, service, SERVICE_UNHEALTHY); /* not ours to kill */
	else
		lifecycle_stop(engine, service, false, false);
}

/* ---- the door and the clock ---- */

static void handle_allowed(struct engine *engine, struct service *service, gpu_set allowed)
{
	gpu_set before = service->definition.allowed;
	service->definition.allowed = allowed;
	engine->definitions[service->index].allowed = allowed;
	lease_place_service(engine, service, before);
	lifecycle_book_found(engine);
}

void lifecycle_handle(struct engine *engine, const struct event *event)
{
	struct service *service = &engine->services[event->service];
	bool is_about_run = event->kind != EVENT_FOUND && event->kind != EVENT_LOOK && event->kind != EVENT_ALLOWED;
	if (is_about_run && event->run != service->run)
		return; /* news of an earlier run */
	switch (event->kind) {
	case EVENT_ALLOWED:
		handle_allowed(engine, service, event->allowed);
		break;
	case EVENT_FOUND:
		handle_found(engine, service, event);
		break;
	case EVENT_LOOK:
		handle_look(engine, service);
		break;
	case EVENT_STARTED:
		handle_started(engine, service, event->started_pid);
		break;
	case EVENT_START_FAILED:
		handle_start_failed(engine, service, event->failure, event->text);
		break;
	case EVENT_LEADER_ENDED:
		handle_leader_ended(engine, service, event->text);
		break;
	case EVENT_GONE:
		handle_gone(engine, service, event);
		break;
	case EVENT_HINDERED:
		hindrance_take(engine, service, event->is_over, event->text);
		break;
	case EVENT_STOP_REFUSED:
		handle_stop_refused(engine, service, event->text);
		break;
	case EVENT_BUSY:
		busy_take(engine, service, event->busy.known, event->busy.busy);
		break;
	case EVENT_HEALTH:
		handle_health(engine, service, event->healthy, event->text);
		break;
	default:
		break;
	}
}

static void tick_service(struct engine *engine, struct service *service)
{
	uint64_t now = engine->now_ms;
	if (service->find_lost_ms <= now)
		handle_found(engine, service, NULL);
	if (service->probe_lost_ms <= now)
		handle_health(engine, service, false, "the check did not end");
	if (service->start_deadline_ms <= now)
		handle_start_timeout(engine, service);
	if (service->stop_deadline_ms <= now)
		lifecycle_stop(engine, service, true, false);
	if (service->kill_deadline_ms <= now)
		handle_stop_failed(engine, service);
	if (service->probe_due_ms <= now)
		begin_probe(engine, service);
	busy_tick(engine, service);
}

void lifecycle_tick(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		tick_service(engine, &engine->services[i]);
	if (engine->find_due_ms <= engine->now_ms) {
		lifecycle_find_stopped(engine);
		engine->find_due_ms = engine->now_ms + FIND_INTERVAL_MS;
	}
}

bool lifecycle_delays_exit(const struct service *service)
{
	/* Of what was looked for in vain nobody knows when it can be seen again. */
	bool is_there = service->alive || service_is_unseen(service);
	return service->definition.stop_on_exit && is_there && !service->stop_failed;
}

void lifecycle_exit(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		if (lifecycle_delays_exit(service) && service->state != SERVICE_STOPPING)
			lifecycle_stop(engine, service, false, true);
	}
}

uint64_t lifecycle_deadline(const struct service *service)
{
	const uint64_t deadlines[] = {
		service->find_lost_ms,
		service->probe_lost_ms,
		service->probe_due_ms,
		service->start_deadline_ms,
		service->stop_deadline_ms,
		service->kill_deadline_ms,
		service->busy_due_ms,
		service->busy_lost_ms,
	};
	uint64_t earliest = DEADLINE_NONE;
	for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++)
		if (deadlines[i] < earliest)
			earliest = deadlines[i];
	return earliest;
}
