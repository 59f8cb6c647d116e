/*
 * Transitions: plans being carried out. Stops begin at once; a start begins when its room is really there, by the
 * account, with its own commitment in it. Nothing is rolled back: a step that fails is reported with what did happen.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

gpu_set transition_locked(const struct engine *engine)
{
	gpu_set locked = 0;
	for (size_t i = 0; i < engine->n_running; i++)
		if (!engine->running[i]->awaits_fence)
			locked |= engine->running[i]->record.gpus;
	return locked;
}

/* ---- steps ---- */

static struct service *step_service(struct engine *engine, const struct step *step)
{
	return &engine->services[step->plan.service];
}

static void publish_step(struct engine *engine, const struct request *request, const struct step *step)
{
	char line[256];
	struct notice *notice = notice_begin(engine, "step", engine->services[step->plan.service].definition.name);
	if (notice == NULL)
		return;
	notice->transition = request->record.id;
	notice->is_problem = step->state == STEP_FAILED;
	notice_add_text(notice, "action", plan_action_name(step->plan.action));
	notice_add_text(notice, "state", step_state_name(step->state));
	notice_add_text(notice, "reason", plan_reason_name(step->plan.reason));
	notice_add_number(notice, "mb", step->plan.mib);
	if (step->state != STEP_RUNNING && step->state != STEP_SKIPPED)
		notice_add_number(notice, "duration_ms", (int64_t)(step->ended_ms - step->started_ms));
	explain_step(&engine->names, &step->plan, line, sizeof(line));
	snprintf(notice->text, sizeof(notice->text), "%s: %s%s%.240s", line, step_state_name(step->state),
		step->detail[0] != '\0' ? ": " : "", step->detail);
}

static void begin_step(struct engine *engine, const struct request *request, struct step *step)
{
	step->state = STEP_RUNNING;
	step->started_ms = engine->now_ms;
	publish_step(engine, request, step);
}

static void end_step(struct engine *engine, const struct request *request, struct step *step, enum step_state state,
	enum outcome outcome)
{
	step->state = state;
	step->outcome = outcome;
	step->ended_ms = engine->now_ms;
	if (step->started_ms == 0)
		step->started_ms = engine->now_ms;
	engine->version++;
	publish_step(engine, request, step);
}

static void say(struct step *step, const char *text)
{
	snprintf(step->detail, sizeof(step->detail), "%s", text);
}

/* ---- stops ---- */

static bool begin_stop(struct engine *engine, struct request *request, struct step *step)
{
	struct service *service = step_service(engine, step);
	bool is_evicted = step->plan.reason != PLAN_ASKED;
	begin_step(engine, request, step);
	service->stop_failed = false;
	/* A crash that is being cleaned up keeps its error; whatever else ends here ends because somebody wants it to.
	 */
	bool wanted = service->state != SERVICE_STOPPING || !is_evicted;
	lifecycle_stop(engine, service, request->record.spec.force, wanted);
	return true;
}

static bool watch_stop(struct engine *engine, struct request *request, struct step *step)
{
	struct service *service = step_service(engine, step);
	if (service->stop_failed) {
		say(step, service->error);
		end_step(engine, request, step, STEP_FAILED, OUTCOME_STOP_FAILED);
		return true;
	}
	if (service->alive || service->n_debts > 0)
		return false;
	end_step(engine, request, step, STEP_DONE, OUTCOME_DONE);
	return true;
}

/* ---- starts ---- */

static bool has_failed_stop(const struct request *request, gpu_set gpus)
{
	for (size_t i = 0; i < request->record.n_steps; i++) {
		const struct step *step = &request->record.steps[i];
		if (step->plan.action != PLAN_START && step->state == STEP_FAILED && (step->plan.gpus & gpus) != 0)
			return true;
	}
	return false;
}

/* Whether the service itself still has to be stopped by this transition. */
static bool awaits_own_end(const struct request *request, const struct step *start)
{
	for (size_t i = 0; i < request->record.n_steps; i++) {
		const struct step *step = &request->record.steps[i];
		if (step->plan.action != PLAN_START && step->plan.service == start->plan.service &&
			step->state <= STEP_RUNNING)
			return true;
	}
	return false;
}

static bool has_room(const struct engine *engine, gpu_set gpus)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		struct gpu_account account;
		if ((gpus & GPU_BIT(gpu)) == 0)
			continue;
		ledger_account(engine, gpu, &account);
		if (!account.has_total || account.admissible_mib < 0)
			return false;
	}
	return true;
}

static bool owes_memory(const struct engine *engine, const struct service *service, gpu_set gpus)
{
	for (size_t gpu = 0; service->n_debts > 0 && gpu < engine->n_cards; gpu++)
		if ((gpus & GPU_BIT(gpu)) != 0 && debts_mib(service, gpu) > 0)
			return true;
	return false;
}

/* Whether memory on these GPUs is still on its way back, so that waiting for it makes sense. */
static bool may_get_room(const struct engine *engine, gpu_set gpus)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		bool is_stopping = service->state == SERVICE_STOPPING && (ledger_gpus(engine, service) & gpus) != 0;
		if (is_stopping || owes_memory(engine, service, gpus))
			return true;
	}
	return false;
}

/* Room that the plan counted on and that is gone: something outside grew in the meantime. */
static void explain_lost_room(const struct engine *engine, gpu_set gpus, char *buffer, size_t size)
{
	struct gpu_account account = { 0 };
	size_t worst = 0;
	int64_t least = INT64_MAX;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		if ((gpus & GPU_BIT(gpu)) == 0)
			continue;
		struct gpu_account here;
		ledger_account(engine, gpu, &here);
		if (here.admissible_mib >= least)
			continue;
		least = here.admissible_mib;
		account = here;
		worst = gpu;
	}
	if (!account.has_total)
		snprintf(buffer, size,
			"the readings of gpu%zu were lost meanwhile and its size is not declared; see gpumgr status, "
			"or set gpu.gpus",
			worst);
	else
		snprintf(buffer, size,
			"gpu%zu lacks %" PRId64 " MiB: %" PRIu64 " MiB are committed, %" PRIu64
			" MiB are foreign, %" PRIu64 " MiB not back yet, of %" PRIu32 " MiB; see gpumgr status",
			worst, -least, account.committed_mib, account.foreign_mib, account.unreclaimed_mib,
			account.total_mib);
}

/* From the adoption of the plan; for what is started anew, from the end of its earlier processes. */
static void commit(struct engine *engine, struct service *service, const struct step *step)
{
	if (service->alive)
		return;
	service->committed = true;
	service->gpus = step->plan.gpus;
	lease_follow_service(engine, service);
}

static void uncommit(struct service *service)
{
	if (!service->alive)
		service->committed = service->leases > 0;
}

static bool begin_start(struct engine *engine, struct request *request, struct step *step)
{
	struct service *service = step_service(engine, step);
	commit(engine, service, step);
	if (awaits_own_end(request, step))
		return false;
	if (has_failed_stop(request, step->plan.gpus) && !may_get_room(engine, step->plan.gpus) &&
		(service->alive || !has_room(engine, step->plan.gpus))) {
		say(step, "not started: what had to make room could not be stopped");
		uncommit(service);
		end_step(engine, request, step, STEP_SKIPPED, OUTCOME_STOP_FAILED);
		return true;
	}
	if (service->alive && service->state != SERVICE_STOPPING) {
		say(step, "not started: its earlier processes could not be stopped");
		end_step(engine, request, step, STEP_FAILED, OUTCOME_STOP_FAILED);
		return true;
	}
	if (service->alive || service->find_lost_ms != DEADLINE_NONE)
		return false; /* the end of an earlier run, or a look at who runs there, comes first */
	if (has_room(engine, step->plan.gpus)) {
		begin_step(engine, request, step);
		lifecycle_start(engine, service, request->record.id);
		return true;
	}
	if (may_get_room(engine, step->plan.gpus))
		return false;
	char why[320];
	explain_lost_room(engine, step->plan.gpus, why, sizeof(why));
	snprintf(step->detail, sizeof(step->detail), "not started: %s", why);
	uncommit(service);
	end_step(engine, request, step, STEP_FAILED, OUTCOME_INSUFFICIENT_VRAM);
	return true;
}

static enum outcome start_outcome(const struct service *service)
{
	if (service->start_timed_out)
		return OUTCOME_START_TIMEOUT;
	if (service->stop_wanted)
		return OUTCOME_STOPPED;
	return service->start_failure == START_FAILURE_NOT_FOUND ? OUTCOME_CONTAINER_NOT_FOUND : OUTCOME_START_FAILED;
}

static bool watch_start(struct engine *engine, struct request *request, struct step *step)
{
	struct service *service = step_service(engine, step);
	if (service->state == SERVICE_STARTING || service->state == SERVICE_STOPPING)
		return false;
	if (service->state == SERVICE_READY || service->state == SERVICE_BUSY) {
		end_step(engine, request, step, STEP_DONE, OUTCOME_DONE);
		return true;
	}
	say(step, service->stop_wanted ? "stopped by force before it was ready" : service->error);
	end_step(engine, request, step, STEP_FAILED, start_outcome(service));
	return true;
}

/* ---- the whole ---- */

static bool advance_step(struct engine *engine, struct request *request, struct step *step)
{
	bool is_start = step->plan.action == PLAN_START;
	if (step->state == STEP_PENDING)
		return is_start ? begin_start(engine, request, step) : begin_stop(engine, request, step);
	if (step->state == STEP_RUNNING)
		return is_start ? watch_start(engine, request, step) : watch_stop(engine, request, step);
	return false;
}

static bool is_over(const struct request *request)
{
	for (size_t i = 0; i < request->record.n_steps; i++)
		if (request->record.steps[i].state <= STEP_RUNNING)
			return false;
	return true;
}

static const struct step *first_failed(const struct request *request)
{
	for (size_t i = 0; i < request->record.n_steps; i++)
		if (request->record.steps[i].state == STEP_FAILED)
			return &request->record.steps[i];
	return NULL;
}

static void note_phase(struct engine *engine, const struct request *request)
{
	const struct phase_definition *phase = &engine->phases[request->record.spec.target];
	char subject[72];
	engine->phase =
		(struct phase_status){ .any = true, .phase = request->record.spec.target, .at_ms = engine->now_ms };
	engine->knowledge++;
	if (phase->name != NULL)
		snprintf(subject, sizeof(subject), "%s", phase->name);
	else
		snprintf(subject, sizeof(subject), "%d", phase->number);
	struct notice *notice = notice_begin(engine, "phase", subject);
	if (notice == NULL)
		return;
	notice->transition = request->record.id;
	notice_add_number(notice, "number", phase->number);
	snprintf(notice->text, sizeof(notice->text), "phase %d is ready", phase->number);
}

/* What was well when the plan was made, or after its own step, may have ended meanwhile. */
static const struct service *find_lost_need(const struct engine *engine, const struct request *request)
{
	struct plan_request needs;
	if (!request_promises_services(&request->record.spec))
		return NULL;
	snapshot_request(engine, request, &needs);
	for (size_t i = 0; i < needs.n_needs; i++) {
		const struct service *service = &engine->services[needs.needs[i]];
		if (service->state != SERVICE_READY && service->state != SERVICE_BUSY)
			return service;
	}
	return NULL;
}

static void end_well(struct engine *engine, struct request *request)
{
	struct transition *record = &request->record;
	if (request->is_forced_out) {
		snprintf(record->detail, sizeof(record->detail), "what it was to lease was stopped by force");
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_STOPPED);
		return;
	}
	if (request->has_lost_lock) {
		snprintf(record->detail, sizeof(record->detail), "the lock was lost meanwhile%s%s",
			engine->lock_text[0] != '\0' ? ": " : "", engine->lock_text);
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_LOCK_UNAVAILABLE);
		return;
	}
	const struct service *unseen = sight_find_lost(engine, request);
	if (unseen != NULL) {
		snprintf(record->detail, sizeof(record->detail), "%s: %s", unseen->definition.name, unseen->error);
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_STOP_FAILED);
		return;
	}
	const struct service *lost = find_lost_need(engine, request);
	if (lost != NULL) {
		bool was_stopped = lost->stop_wanted;
		snprintf(record->detail, sizeof(record->detail), "%s %s meanwhile: %s", lost->definition.name,
			lost->alive ? "failed" : "ended",
			was_stopped                      ? "stopped by force"
				: lost->error[0] != '\0' ? lost->error
							 : "it was stopped");
		queue_finish(engine, request, TRANSITION_FAILED, was_stopped ? OUTCOME_STOPPED : OUTCOME_START_FAILED);
		return;
	}
	if (record->spec.kind == REQUEST_PHASE)
		note_phase(engine, request);
	queue_finish(engine, request, TRANSITION_DONE, OUTCOME_DONE);
}

/* ---- the end of a lease request: all is ready, but it takes a fence to be granted ---- */

static void want_fence(struct engine *engine, struct request *request)
{
	request->awaits_fence = true;
	effect_add(engine, EFFECT_FENCE)->answer.id = request->record.id;
}

static void grant(struct engine *engine, struct request *request, const struct event *event)
{
	struct transition *record = &request->record;
	if (event->fence.fence == 0) {
		snprintf(record->detail, sizeof(record->detail), "%s", event->text != NULL ? event->text : "no fence");
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_LOCK_UNAVAILABLE);
		return;
	}
	if (request->n_tickets == 0) {
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_WITHDRAWN);
		return;
	}
	if (find_lost_need(engine, request) == NULL)
		request->granted = lease_grant(engine, request, event->fence.fence);
	end_well(engine, request);
}

static void take_from_running(struct engine *engine, size_t place)
{
	engine->n_running--;
	memmove(&engine->running[place], &engine->running[place + 1],
		(engine->n_running - place) * sizeof(engine->running[0]));
}

void transition_force_out(struct engine *engine, const struct service *service)
{
	for (size_t i = 0; i < engine->n_running;) {
		struct request *request = engine->running[i];
		bool is_meant = request->claim != NULL && lease_has_service(request->claim, service->index);
		request->is_forced_out |= is_meant;
		if (!is_meant || !request->awaits_fence) {
			i++;
			continue;
		}
		take_from_running(engine, i);
		end_well(engine, request);
	}
}

void transition_lose_lock(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_running;) {
		struct request *request = engine->running[i];
		request->has_lost_lock |= request->claim != NULL;
		if (!request->awaits_fence) {
			i++;
			continue;
		}
		take_from_running(engine, i);
		end_well(engine, request);
	}
}

bool transition_will_start(const struct engine *engine, const struct service *service)
{
	for (size_t i = 0; service->transition != 0 && i < engine->n_running; i++)
		for (size_t j = 0; j < engine->running[i]->record.n_steps; j++) {
			const struct step *step = &engine->running[i]->record.steps[j];
			if (step->plan.action == PLAN_START && step->plan.service == service->index &&
				step->state == STEP_PENDING)
				return true;
		}
	return false;
}

void transition_take_fence(struct engine *engine, const struct event *event)
{
	for (size_t i = 0; i < engine->n_running; i++) {
		struct request *request = engine->running[i];
		if (request->record.id != event->fence.id || !request->awaits_fence)
			continue;
		take_from_running(engine, i);
		grant(engine, request, event);
		return;
	}
}

/* Room for what is no service: nothing was started that would have found out that it is not there. */
static bool lacks_room(const struct engine *engine, const struct request *request)
{
	const struct lease *claim = request->claim;
	return claim != NULL && claim->room_mib > 0 && !has_room(engine, claim->gpus);
}

static bool awaits_room(const struct engine *engine, const struct request *request)
{
	return lacks_room(engine, request) && may_get_room(engine, request->claim->gpus);
}

static void release_services(struct engine *engine, const struct request *request)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (engine->services[i].transition == request->record.id)
			lifecycle_leave_transition(engine, &engine->services[i]);
	if (request->record.n_steps > 0)
		effect_add(engine, EFFECT_SAMPLE); /* whoever looks next sees what became of it */
}

/* A lease request whose steps went well, and that somebody still waits for. */
static bool may_be_granted(struct engine *engine, struct request *request)
{
	if (request->record.spec.kind != REQUEST_LEASE || first_failed(request) != NULL || request->n_tickets == 0 ||
		request->is_forced_out || request->has_lost_lock || find_lost_need(engine, request) != NULL ||
		lacks_room(engine, request))
		return false;
	release_services(engine, request);
	return true;
}

static void end_transition(struct engine *engine, struct request *request)
{
	struct transition *record = &request->record;
	const struct step *failed = first_failed(request);
	release_services(engine, request);
	if (failed == NULL && lacks_room(engine, request)) {
		explain_lost_room(engine, request->claim->gpus, record->detail, sizeof(record->detail));
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_INSUFFICIENT_VRAM);
		return;
	}
	if (failed == NULL && record->spec.kind == REQUEST_LEASE && request->n_tickets == 0) {
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_WITHDRAWN);
		return;
	}
	if (failed == NULL) {
		end_well(engine, request);
		return;
	}
	snprintf(record->detail, sizeof(record->detail), "%s: %s",
		engine->services[failed->plan.service].definition.name, failed->detail);
	queue_finish(engine, request, TRANSITION_FAILED, failed->outcome);
}

static bool advance_request(struct engine *engine, struct request *request)
{
	bool moved;
	do {
		moved = false;
		for (size_t i = 0; i < request->record.n_steps; i++)
			moved |= advance_step(engine, request, &request->record.steps[i]);
	} while (moved);
	return is_over(request) && (first_failed(request) != NULL || !awaits_room(engine, request));
}

bool transition_advance(struct engine *engine)
{
	bool ended = false;
	for (size_t i = 0; i < engine->n_running;) {
		struct request *request = engine->running[i];
		if (request->awaits_fence || !advance_request(engine, request)) {
			i++;
			continue;
		}
		ended = true;
		if (may_be_granted(engine, request)) {
			want_fence(engine, request);
			continue;
		}
		take_from_running(engine, i);
		end_transition(engine, request);
	}
	return ended;
}

/* ---- adoption of a plan ---- */

/* Services that are needed and already on their way up without a transition (found while they boot) are waited for. */
static size_t add_joined_starts(struct engine *engine, const struct request *request, struct step *steps)
{
	const struct request_spec *spec = &request->record.spec;
	if (!request_promises_services(spec) || spec->kind == REQUEST_RESTART)
		return 0;
	struct plan_request needs;
	size_t n = 0;
	snapshot_request(engine, request, &needs);
	for (size_t i = 0; i < needs.n_needs; i++) {
		const struct service *service = &engine->services[needs.needs[i]];
		if (service->state != SERVICE_STARTING || !service->alive)
			continue;
		steps[n++] = (struct step){
			.plan = { .action = PLAN_START,
				.reason = PLAN_NEEDED,
				.service = service->index,
				.gpus = service->gpus },
			.state = STEP_RUNNING,
			.started_ms = engine->now_ms,
		};
	}
	return n;
}

static void claim_services(struct engine *engine, const struct request *request)
{
	for (size_t i = 0; i < request->record.n_steps; i++) {
		const struct step *step = &request->record.steps[i];
		struct service *service = &engine->services[step->plan.service];
		service->transition = request->record.id;
		if (step->plan.action == PLAN_START && step->state == STEP_PENDING)
			commit(engine, service, step);
	}
}

/* Whoever was granted something there since the forced stop was asked for is told before it is gone. */
static void force_out_holders(struct engine *engine, const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_steps; i++) {
		const struct service *service = &engine->services[plan->steps[i].service];
		transition_force_out(engine, service);
		lease_end_on_service(engine, service, LEASE_FORCED, "its service was stopped by force");
	}
}

int transition_adopt(struct engine *engine, struct request *request, struct plan *plan)
{
	struct transition *record = &request->record;
	struct step *steps = calloc(plan->n_steps + engine->n_services + 1, sizeof(steps[0]));
	if (steps == NULL)
		return -ENOMEM;
	if (record->spec.kind == REQUEST_LEASE && lease_claim(engine, request, plan) < 0) {
		free(steps);
		return -ENOMEM;
	}
	contention_break(engine, request, plan);
	if (record->spec.force)
		force_out_holders(engine, plan);
	for (size_t i = 0; i < plan->n_steps; i++)
		steps[i].plan = plan->steps[i];
	record->steps = steps;
	record->n_steps = plan->n_steps + add_joined_starts(engine, request, steps + plan->n_steps);
	record->gpus = plan->gpus;
	record->state = TRANSITION_RUNNING;
	record->started_ms = engine->now_ms;
	record->detail[0] = '\0';
	free(record->blockers);
	record->blockers = NULL;
	record->n_blockers = 0;
	engine->running[engine->n_running++] = request;
	claim_services(engine, request);
	engine->knowledge += record->n_steps > 0;
	engine->version++;
	queue_publish(engine, request);
	return 0;
}
