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
	return service->leases > 0 || service->state == SERVICE_BUSY;
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
	bool broken = service->state == SERVICE_ERROR;
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
	if (service->state == SERVICE_READY) {
		service->error[0] = '\0';
		service->idle_since_ms = engine->now_ms;
	}
	publish_state(engine, service, from);
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
	uint64_t interval = service->state == SERVICE_STARTING ? starting_interval(engine, service)
							       : service->definition.health_interval_ms;
	/* From one check to the next, however long the answer took. */
	uint64_t last_ms = service->probed_ms > service->started_ms ? service->probed_ms : engine->now_ms;
	service->probe_due_ms = last_ms + interval > engine->now_ms ? last_ms + interval : engine->now_ms;
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

static void handle_healthy(struct engine *engine, struct service *service)
{
	service->failures = 0;
	if (service->state == SERVICE_STARTING) {
		service->start_deadline_ms = DEADLINE_NONE;
		service->last_used_ms = engine->now_ms;
	}
	lifecycle_apply(engine, service, SERVICE_HEALTHY);
}

static void handle_health(struct engine *engine, struct service *service, bool healthy, const char *text)
{
	if (service->probe_lost_ms == DEADLINE_NONE || !service->alive)
		return;
	service->probe_lost_ms = DEADLINE_NONE;
	if (service->state == SERVICE_STOPPING)
		return;
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
	if (service->find_lost_ms != DEADLINE_NONE)
		return false;
	if (service->alive)
		return service->state == SERVICE_ERROR && service->adopted && service->pid == 0;
	return service->transition == 0 && (service->state == SERVICE_STOPPED || service->state == SERVICE_ERROR);
}

void lifecycle_find_stopped(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (is_worth_finding(&engine->services[i]))
			lifecycle_find(engine, &engine->services[i]);
}

/* Where a service that was found may stand: nobody told, so the first GPUs that it may use. Readings correct it. */
static gpu_set guess_gpus(const struct engine *engine, const struct service *service)
{
	gpu_set guess = 0;
	size_t n_gpus = engine->n_cards > 0 ? engine->n_cards : 1;
	for (size_t gpu = 0; gpu < n_gpus; gpu++)
		if ((service->definition.allowed & GPU_BIT(gpu)) &&
			gpu_set_count(guess) < service->definition.gpu_count)
			guess |= GPU_BIT(gpu);
	return guess;
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
	service->stop_wanted = false;
	service->stop_failed = false;
	service->start_timed_out = false;
	service->error[0] = '\0';
	service->last_answer[0] = '\0';
	forget_probes(service);
}

static void adopt(struct engine *engine, struct service *service, bool healthy, pid_t pid)
{
	begin_run(engine, service);
	service->adopted = true;
	service->pid = pid;
	service->gpus = guess_gpus(engine, service);
	service->last_used_ms = engine->now_ms;
	engine->adopted_ms = engine->now_ms;
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

static void end_run(struct engine *engine, struct service *service, const char *text);

static void handle_found(struct engine *engine, struct service *service, bool alive, bool healthy, pid_t pid)
{
	if (service->find_lost_ms == DEADLINE_NONE)
		return;
	service->find_lost_ms = DEADLINE_NONE;
	bool there = alive || healthy;
	if (service->alive) {
		if (!there && service->adopted && service->pid == 0 && service->state == SERVICE_ERROR)
			end_run(engine, service, "it is not there any more");
		return;
	}
	if (service->transition != 0 && service->state != SERVICE_UNKNOWN)
		return; /* about to be started: a look from before does not count */
	if (there)
		adopt(engine, service, healthy, pid);
	else
		lifecycle_apply(engine, service, SERVICE_FOUND_ABSENT);
	settle_all(engine); /* what nobody of ours holds, as is known now, was always there */
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

/* The whole group is gone. When it was being stopped for a fault, the fault is what is remembered, not the stop. */
static void end_run(struct engine *engine, struct service *service, const char *text)
{
	bool had_memory = service->committed;
	ledger_end_service(engine, service);
	service->alive = false;
	service->pid = 0;
	service->start_deadline_ms = DEADLINE_NONE;
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = DEADLINE_NONE;
	forget_probes(service);
	if (service->stop_wanted)
		service->error[0] = '\0';
	else if (service->state != SERVICE_STOPPING || service->error[0] == '\0')
		service_set_error(service, "%s", text != NULL && text[0] != '\0' ? text : "it ended");
	lifecycle_apply(engine, service, service->stop_wanted ? SERVICE_ENDED : SERVICE_DIED);
	settle_all(engine); /* a reading of this very moment may show its memory back already */
	if (had_memory)
		effect_add(engine, EFFECT_SAMPLE);
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

static void handle_start_failed(struct engine *engine, struct service *service, const char *text)
{
	if (!service->alive)
		return;
	service->committed = false; /* nothing of it ever ran: no memory to wait for */
	end_run(engine, service, text);
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
	char waited[32];
	format_duration(service->definition.start_timeout_ms, waited, sizeof(waited));
	bool has_answer = service->last_answer[0] != '\0';
	service_set_error(service, "not healthy within %s (health.timeout)%s%s; see gpumgr logs %s", waited,
		has_answer ? "; last check: " : "", service->last_answer, service->definition.name);
	if (service->adopted)
		lifecycle_apply(engine, service, SERVICE_UNHEALTHY); /* not ours to kill */
	else
		lifecycle_stop(engine, service, false, false);
}

/* ---- the door and the clock ---- */

void lifecycle_handle(struct engine *engine, const struct event *event)
{
	struct service *service = &engine->services[event->service];
	bool is_about_run = event->kind != EVENT_FOUND && event->kind != EVENT_ALLOWED;
	if (is_about_run && event->run != service->run)
		return; /* news of an earlier run */
	switch (event->kind) {
	case EVENT_ALLOWED:
		service->definition.allowed = event->allowed;
		engine->definitions[event->service].allowed = event->allowed;
		break;
	case EVENT_FOUND:
		handle_found(engine, service, event->found.alive, event->found.healthy, event->found.pid);
		break;
	case EVENT_STARTED:
		handle_started(engine, service, event->started_pid);
		break;
	case EVENT_START_FAILED:
		handle_start_failed(engine, service, event->text);
		break;
	case EVENT_LEADER_ENDED:
		handle_leader_ended(engine, service, event->text);
		break;
	case EVENT_GONE:
		if (service->alive)
			end_run(engine, service, event->text);
		break;
	case EVENT_STOP_REFUSED:
		handle_stop_refused(engine, service, event->text);
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
		handle_found(engine, service, false, false, 0);
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

uint64_t lifecycle_deadline(const struct service *service)
{
	const uint64_t deadlines[] = {
		service->find_lost_ms,
		service->probe_lost_ms,
		service->probe_due_ms,
		service->start_deadline_ms,
		service->stop_deadline_ms,
		service->kill_deadline_ms,
	};
	uint64_t earliest = DEADLINE_NONE;
	for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++)
		if (deadlines[i] < earliest)
			earliest = deadlines[i];
	return earliest;
}
