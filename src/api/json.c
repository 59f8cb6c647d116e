/* Plain data in, JSON out. Asks the host only for what it knows already; changes nothing. */
#include "api/json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/broken.h"
#include "api/lease_json.h"
#include "api/problem.h"
#include "api/request.h"
#include "base/cleanup.h"

#define TEXT_BYTES 8192

/* Small things. */

void json_engine_time(struct writer *writer, const char *key, const struct api_host *host, uint64_t ms)
{
	if (ms != 0)
		writer_wall_time(writer, key, host->wall_time(host->context, ms));
	else
		writer_null(writer, key);
}

void json_gpu_set(struct writer *writer, const char *key, gpu_set gpus, size_t n_gpus)
{
	writer_open(writer, key, '[');
	for (gpu_set rest = gpus; rest != 0; rest &= rest - 1)
		if ((size_t)__builtin_ctzll(rest) < n_gpus)
			writer_integer(writer, NULL, __builtin_ctzll(rest));
	writer_close(writer, ']');
}

void json_service_names(
	struct writer *writer, const char *key, const struct api_host *host, const size_t *services, size_t n)
{
	writer_open(writer, key, '[');
	for (size_t i = 0; i < n; i++)
		writer_text(writer, NULL, host->names->services[services[i]].name);
	writer_close(writer, ']');
}

/* GPUs. */

static const struct gpu_reading *reading_of(const struct gpu_sample *sample, size_t index)
{
	return sample != NULL && index < sample->n_gpus ? &sample->gpus[index] : NULL;
}

static bool has(const struct gpu_reading *reading, unsigned field)
{
	return reading != NULL && (reading->valid & field) != 0;
}

struct memory {
	bool has_total, has_used, has_free;
	int64_t total_mib, used_mib, free_mib;
};

static struct memory memory_of(const struct gpu_status *gpu, const struct gpu_reading *reading)
{
	struct memory memory = { .has_total = gpu->account.has_total, .total_mib = gpu->account.total_mib };
	memory.has_used = has(reading, GPU_VALID_USED) || gpu->has_used;
	memory.used_mib = has(reading, GPU_VALID_USED) ? reading->used_mib : gpu->used_mib;
	memory.has_free = has(reading, GPU_VALID_FREE) || (memory.has_total && memory.has_used);
	memory.free_mib = has(reading, GPU_VALID_FREE) ? reading->free_mib : memory.total_mib - memory.used_mib;
	if (memory.free_mib < 0)
		memory.free_mib = 0;
	return memory;
}

static void put_processes(struct writer *writer, const struct api_host *host, const struct gpu_reading *reading)
{
	writer_open(writer, "processes", '[');
	for (size_t i = 0; reading != NULL && i < reading->n_processes; i++) {
		const struct gpu_process *process = &reading->processes[i];
		writer_open(writer, NULL, '{');
		writer_integer(writer, "pid", process->pid);
		writer_text(writer, "name", process->name);
		writer_integer_or_null(writer, "memory_mb", process->mib != GPU_MIB_UNKNOWN, process->mib);
		writer_text_or_null(writer, "service", host->service_of_process(host->context, process->pid));
		writer_close(writer, '}');
	}
	writer_close(writer, ']');
}

static void put_migs(struct writer *writer, const struct gpu_reading *reading)
{
	writer_open(writer, "mig", '[');
	for (size_t i = 0; reading != NULL && i < reading->n_migs; i++) {
		const struct gpu_mig *mig = &reading->migs[i];
		writer_open(writer, NULL, '{');
		writer_text_or_null(writer, "uuid", mig->uuid);
		writer_text_or_null(writer, "name", mig->name);
		writer_integer_or_null(writer, "total_mb", mig->has_memory, mig->total_mib);
		writer_integer_or_null(writer, "used_mb", mig->has_memory, mig->used_mib);
		writer_close(writer, '}');
	}
	writer_close(writer, ']');
}

/* What `vram` and the entries of `gpus` have in common. */
static void put_vram(struct writer *writer, const struct api_host *host, const struct gpu_status *gpu,
	const struct gpu_reading *reading)
{
	struct memory memory = memory_of(gpu, reading);
	int64_t available = memory.free_mib - (int64_t)gpu->account.reserve_mib;
	writer_integer_or_null(writer, "total_mb", memory.has_total, memory.total_mib);
	writer_integer_or_null(writer, "used_mb", memory.has_used, memory.used_mib);
	writer_integer_or_null(writer, "free_mb", memory.has_free, memory.free_mib);
	writer_integer_or_null(writer, "available_mb", memory.has_free, available > 0 ? available : 0);
	put_processes(writer, host, reading);
	writer_integer_or_null(writer, "temperature_c", has(reading, GPU_VALID_TEMPERATURE),
		reading != NULL ? reading->temperature_c : 0);
	writer_integer_or_null(writer, "utilization_percent", has(reading, GPU_VALID_UTILIZATION),
		reading != NULL ? reading->utilization_percent : 0);
}

static void put_no_vram(struct writer *writer, const struct api_host *host)
{
	static const char *const unknown[] = { "total_mb", "used_mb", "free_mb", "available_mb", "temperature_c",
		"utilization_percent" };
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		writer_null(writer, unknown[i]);
	put_processes(writer, host, NULL);
}

static void put_gpu(struct writer *writer, const struct api_host *host, size_t index, const struct gpu_status *gpu,
	const struct gpu_reading *reading)
{
	const struct gpu_account *account = &gpu->account;
	writer_open(writer, NULL, '{');
	put_vram(writer, host, gpu, reading);
	writer_integer(writer, "index", (int64_t)index);
	writer_text_or_null(writer, "uuid", reading != NULL ? reading->uuid : NULL);
	writer_text_or_null(writer, "name", reading != NULL ? reading->name : NULL);
	writer_integer_or_null(writer, "admissible_mb", account->has_total, account->admissible_mib);
	writer_integer(writer, "committed_mb", (int64_t)account->committed_mib);
	writer_integer(writer, "foreign_mb", (int64_t)account->foreign_mib);
	writer_integer(writer, "unreclaimed_mb", (int64_t)account->unreclaimed_mib);
	writer_integer(writer, "reserve_mb", account->reserve_mib);
	writer_text(writer, "accounting", accounting_mode_name(account->mode));
	json_engine_time(writer, "sampled_at", host, gpu->sampled_ms);
	writer_bool(writer, "stale", gpu->stale);
	writer_text_or_null(writer, "problem", reading != NULL ? reading->problem : NULL);
	writer_integer_or_null(
		writer, "driver_mb", has(reading, GPU_VALID_DRIVER), reading != NULL ? reading->driver_mib : 0);
	put_migs(writer, reading);
	writer_close(writer, '}');
}

/* Services. */

static void put_declared(
	struct writer *writer, const struct status *status, const struct service_definition *definition)
{
	const struct size_value *vram = &definition->vram;
	bool is_known = vram->percent == 0;
	uint32_t mib = vram->mib;
	for (size_t i = 0; !is_known && i < status->n_gpus && i < GPU_MAX; i++) {
		if ((definition->allowed & GPU_BIT(i)) == 0 || !status->gpus[i].account.has_total)
			continue;
		is_known = true;
		mib = size_on_card(*vram, status->gpus[i].account.total_mib);
	}
	writer_integer_or_null(writer, "vram_mb", is_known, mib);
}

static void put_phases(struct writer *writer, const struct explain_names *names, size_t service)
{
	writer_open(writer, "phases", '[');
	for (size_t p = 0; p < names->n_phases; p++)
		for (size_t i = 0; !names->phases[p].is_retired && i < names->phases[p].n_services; i++)
			if (names->phases[p].services[i] == service)
				writer_integer(writer, NULL, names->phases[p].number);
	writer_close(writer, ']');
}

bool json_shows_service(const struct service_status *service)
{
	return !service->definition->is_retired || service->live;
}

static void put_service(struct writer *writer, const struct api_host *host, const struct status *status, size_t index)
{
	const struct service_status *service = &status->services[index];
	const struct service_definition *definition = service->definition;
	writer_open(writer, definition->name, '{');
	writer_text(writer, "state", service_state_name(service->state));
	put_declared(writer, status, definition);
	writer_integer(writer, "priority", definition->priority);
	put_phases(writer, host->names, index);
	json_gpu_set(writer, "gpus", service->gpus, status->n_gpus);
	writer_integer_or_null(writer, "pid", service->pid > 0, service->pid);
	writer_integer_or_null(writer, "measured_mb", service->has_measured, service->measured_mib);
	writer_integer(writer, "committed_mb", (int64_t)service->committed_mib);
	writer_integer_or_null(writer, "peak_mb", service->has_peak, service->peak_mib);
	writer_integer_or_null(writer, "boot_ms", service->has_boot, (int64_t)service->boot_ms);
	json_engine_time(writer, "since", host, service->since_ms);
	writer_text_or_null(writer, "error", service->error);
	writer_bool(writer, "live", service->live);
	writer_integer_or_null(writer, "transition", service->transition != 0, (int64_t)service->transition);
	writer_bool(writer, "pinned", definition->pinned);
	writer_integer(writer, "leases", service->n_leases);
	if (definition->has_busy_probe)
		writer_bool(writer, "busy", service->says_busy);
	else
		writer_null(writer, "busy");
	writer_integer(writer, "external_starts", (int64_t)service->external_starts);
	writer_bool(writer, "outdated", service->is_outdated);
	writer_bool(writer, "retired", definition->is_retired);
	writer_close(writer, '}');
}

/* Steps and blockers. */

static uint64_t engine_now(const struct api_host *host)
{
	const struct status *status = host->status(host->context);
	return status != NULL ? status->now_ms : 0;
}

/* Milliseconds from a beginning (0: it has not begun) to an end, or until now. */
static void put_duration(struct writer *writer, uint64_t from_ms, uint64_t to_ms)
{
	writer_integer_or_null(writer, "duration_ms", from_ms != 0, to_ms > from_ms ? (int64_t)(to_ms - from_ms) : 0);
}

/* All bits of its GPUs: steps name some that a reading may have lost since. `carried` is NULL for one of a plan. */
static void put_step(struct writer *writer, const struct api_host *host, const struct plan_step *plan,
	const struct step *carried, uint64_t now_ms)
{
	char text[1024];
	assert(plan != NULL);
	bool has_ended = carried != NULL && carried->ended_ms != 0;
	writer_open(writer, NULL, '{');
	writer_text(writer, "action", plan_action_name(plan->action));
	writer_text(writer, "service", host->names->services[plan->service].name);
	json_gpu_set(writer, "gpus", plan->gpus, GPU_MAX);
	writer_integer(writer, "mb", plan->mib);
	writer_text(writer, "reason", plan_reason_name(plan->reason));
	writer_text(writer, "state", carried != NULL ? step_state_name(carried->state) : "pending");
	put_duration(writer, carried != NULL ? carried->started_ms : 0, has_ended ? carried->ended_ms : now_ms);
	writer_text_or_null(writer, "error", carried != NULL && carried->state == STEP_FAILED ? carried->detail : NULL);
	writer_text(writer, "text", explain_step(host->names, plan, text, sizeof(text)));
	writer_close(writer, '}');
}

void json_steps(
	struct writer *writer, const char *key, const struct api_host *host, const struct transition *transition)
{
	uint64_t now_ms = transition->n_steps > 0 ? engine_now(host) : 0;
	writer_open(writer, key, '[');
	for (size_t i = 0; i < transition->n_steps; i++)
		put_step(writer, host, &transition->steps[i].plan, &transition->steps[i], now_ms);
	writer_close(writer, ']');
}

static void put_blockers(struct writer *writer, const struct api_host *host, const struct request_spec *spec,
	const struct plan_blocker *blockers, size_t n_blockers)
{
	writer_open(writer, "blocking", '[');
	for (size_t i = 0; i < n_blockers; i++) {
		const struct plan_blocker *blocker = &blockers[i];
		bool is_service = blocker->service != PLAN_NO_SERVICE;
		char why[512];
		writer_open(writer, NULL, '{');
		writer_text_or_null(
			writer, "service", is_service ? host->names->services[blocker->service].name : NULL);
		writer_integer_or_null(writer, "gpu", blocker->gpu >= 0, blocker->gpu);
		writer_integer(writer, "mb", blocker->mib);
		writer_integer_or_null(writer, "priority", is_service, blocker->priority);
		writer_text(writer, "why", explain_blocker(host->names, spec, blocker, why, sizeof(why)));
		writer_close(writer, '}');
	}
	writer_close(writer, ']');
}

/* Transitions. */

/* NULL: it has none. `number` is room for one. */
static const char *target_name(
	const struct api_host *host, const struct request_spec *spec, char *number, size_t number_size)
{
	const struct phase_definition *phase;
	switch (spec->kind) {
	case REQUEST_PHASE:
		phase = &host->names->phases[spec->target];
		snprintf(number, number_size, "%d", phase->number);
		return phase->name != NULL ? phase->name : number;
	case REQUEST_RELEASE_ALL:
		return NULL;
	case REQUEST_LEASE:
		return spec->lease->n_services > 0 ? host->names->services[spec->lease->services[0]].name : NULL;
	default:
		return host->names->services[spec->target].name;
	}
}

static void put_target(
	struct writer *writer, const char *key, const struct api_host *host, const struct request_spec *spec)
{
	char number[16];
	writer_text_or_null(writer, key, target_name(host, spec, number, sizeof(number)));
}

static void put_phase_number(struct writer *writer, const struct api_host *host, const struct request_spec *spec)
{
	size_t phase = spec->kind == REQUEST_PHASE ? spec->target
		: spec->kind == REQUEST_LEASE      ? spec->lease->phase
						   : SIZE_MAX;
	bool is_phase = phase < host->names->n_phases;
	writer_integer_or_null(writer, "phase", is_phase, is_phase ? host->names->phases[phase].number : 0);
}

static bool is_over(const struct transition *transition)
{
	return transition->state == TRANSITION_DONE || transition->state == TRANSITION_FAILED;
}

static bool is_waiting(const struct transition *transition)
{
	return transition->state == TRANSITION_QUEUED || transition->state == TRANSITION_PARKED;
}

/* From the end, where those are that have just come. */
size_t json_place(const struct api_host *host, const struct transition *transition)
{
	if (!is_waiting(transition))
		return 0;
	const struct status *status = host->status(host->context);
	for (size_t i = status->n_queue; i > 0; i--)
		if (status->queue[i - 1] == transition)
			return i;
	return 0;
}

static const char *outcome_word(enum outcome outcome)
{
	return outcome == OUTCOME_DONE ? "done" : outcome_code(outcome);
}

static void put_times(struct writer *writer, const struct api_host *host, const struct transition *transition)
{
	uint64_t ended_ms = is_over(transition) ? transition->ended_ms : 0, started_ms = transition->started_ms;
	json_engine_time(writer, "queued_at", host, transition->queued_ms);
	json_engine_time(writer, "started_at", host, started_ms);
	json_engine_time(writer, "ended_at", host, ended_ms);
	put_duration(writer, started_ms, is_over(transition) || started_ms == 0 ? ended_ms : engine_now(host));
}

void json_transition_begin(struct writer *writer, const char *key, const struct api_host *host,
	const struct transition *transition, size_t place)
{
	const struct request_spec *spec = &transition->spec;
	writer_open(writer, key, '{');
	writer_integer(writer, "id", (int64_t)transition->id);
	writer_text(writer, "kind", request_kind_name(spec->kind));
	put_target(writer, "target", host, spec);
	put_phase_number(writer, host, spec);
	writer_text(writer, "state", transition_state_name(transition->state));
	writer_text_or_null(writer, "outcome", is_over(transition) ? outcome_word(transition->outcome) : NULL);
	writer_integer(writer, "priority", transition->priority);
	writer_integer_or_null(writer, "place", place > 0, (int64_t)place);
	writer_text_or_null(writer, "waits_for", is_waiting(transition) ? transition->detail : NULL);
	put_times(writer, host, transition);
	json_gpu_set(writer, "gpus", transition->gpus, GPU_MAX);
	json_steps(writer, "steps", host, transition);
	put_blockers(writer, host, spec, transition->blockers, transition->n_blockers);
	writer_text_or_null(writer, "detail", transition->detail);
	if (spec->kind == REQUEST_LEASE)
		json_lease_terms(writer, "lease", host, spec->lease);
}

void json_transition(struct writer *writer, const char *key, const struct api_host *host,
	const struct transition *transition, size_t place)
{
	json_transition_begin(writer, key, host, transition, place);
	writer_close(writer, '}');
}

void json_transition_by_id_begin(struct writer *writer, const struct api_host *host, uint64_t id)
{
	const struct transition *transition = host->transition(host->context, id);
	if (transition != NULL) {
		json_transition_begin(writer, NULL, host, transition, json_place(host, transition));
		return;
	}
	writer_open(writer, NULL, '{');
	writer_integer(writer, "id", (int64_t)id);
}

/* Plans. */

void json_plan(struct writer *writer, const struct api_host *host, const struct request_spec *spec,
	const struct plan *plan, bool is_feasible)
{
	CLEANUP_FREE char *text = calloc(1, TEXT_BYTES);
	if (text == NULL) {
		writer->has_failed = true;
		return;
	}
	if (is_feasible)
		explain_plan(host->names, spec, plan, text, TEXT_BYTES);
	else
		explain_refusal(host->names, spec, plan, text, TEXT_BYTES);
	writer_open(writer, NULL, '{');
	writer_bool(writer, "success", true);
	writer_bool(writer, "feasible", is_feasible);
	if (spec->kind == REQUEST_PHASE)
		put_phase_number(writer, host, spec);
	else
		put_target(writer, "service", host, spec);
	writer_open(writer, "steps", '[');
	for (size_t i = 0; i < plan->n_steps; i++)
		put_step(writer, host, &plan->steps[i], NULL, 0);
	writer_close(writer, ']');
	put_blockers(writer, host, spec, plan->blockers, plan->n_blockers);
	writer_text(writer, "text", text);
	writer_close(writer, '}');
}

/* Results. */

static void put_stopped(struct writer *writer, const struct api_host *host, const struct transition *transition)
{
	writer_open(writer, "stopped", '[');
	for (size_t i = 0; i < transition->n_steps; i++)
		if (transition->steps[i].plan.action == PLAN_STOP && transition->steps[i].state == STEP_DONE)
			writer_text(writer, NULL, host->names->services[transition->steps[i].plan.service].name);
	writer_close(writer, ']');
}

/* Who the answer is about. */
static void put_subject(struct writer *writer, const struct api_host *host, const struct request_spec *spec)
{
	switch (spec->kind) {
	case REQUEST_PHASE:
		put_phase_number(writer, host, spec);
		writer_text_or_null(writer, "name", host->names->phases[spec->target].name);
		break;
	case REQUEST_LEASE:
		if (spec->lease != NULL)
			json_lease_terms(writer, "lease", host, spec->lease);
		break;
	case REQUEST_RELEASE_ALL:
		break;
	default:
		put_target(writer, "service", host, spec);
	}
}

static void put_success(struct writer *writer, const struct api_host *host, const struct request *request,
	const struct transition *transition)
{
	uint64_t from = transition->started_ms != 0 ? transition->started_ms : transition->queued_ms;
	writer_open(writer, NULL, '{');
	writer_bool(writer, "success", true);
	put_subject(writer, host, &transition->spec);
	writer_integer(writer, "transition", (int64_t)transition->id);
	if (transition->spec.kind == REQUEST_RELEASE_ALL)
		put_stopped(writer, host, transition);
	json_steps(writer, "steps", host, transition);
	writer_integer(writer, "duration_ms", transition->ended_ms > from ? (int64_t)(transition->ended_ms - from) : 0);
	broken_put(request, writer);
	writer_close(writer, '}');
}

/* Where the transition does not say it itself. */
static const struct {
	enum outcome outcome;
	bool tells_reason; /* what it waited for follows */
	const char *text;
} details[] = {
	{ OUTCOME_WAIT_TIMEOUT, true, "its turn did not come in time; a longer wait_s waits longer" },
	{ OUTCOME_LEASE_TIMEOUT, true, "the lease was not granted in time; a longer wait_s waits longer" },
	{ OUTCOME_RETIRED, false, "it is not configured any more" },
	{ OUTCOME_SHUTDOWN, false, "gpumgrd is shutting down" },
	{ OUTCOME_TOO_MANY, false, "too many requests are waiting, or too many leases are held; try again later" },
	{ OUTCOME_REQUEST_ID_REUSED, false,
		"this request_id asked for something else before; take a new one for each lease" },
};

/* A ticket whose own wait ran out says so, whatever becomes of the transition. */
static const char *failure_detail(const struct transition *transition, enum outcome outcome, char *buffer, size_t size)
{
	const char *said = transition != NULL ? transition->detail : "";
	if (said[0] != 0 && is_over(transition) && transition->outcome == outcome)
		return said;
	for (size_t i = 0; i < ARRAY_SIZE(details); i++) {
		if (details[i].outcome != outcome)
			continue;
		bool is_reason = said[0] != 0 && details[i].tells_reason;
		snprintf(buffer, size, "%s%s%s", details[i].text, is_reason ? ": " : "", is_reason ? said : "");
		return buffer;
	}
	return said[0] != 0 ? said : "the request failed; see the log of gpumgrd";
}

static unsigned put_failure(struct writer *writer, const struct api_host *host, const struct request *request,
	const struct transition *transition, enum outcome outcome)
{
	char buffer[768];
	const struct request_spec *spec = &request->spec;
	const char *code = outcome_code(outcome);
	unsigned status = problem_status(code);
	problem_begin(writer, status, code, failure_detail(transition, outcome, buffer, sizeof(buffer)));
	put_subject(writer, host, transition != NULL ? &transition->spec : spec);
	if (transition != NULL) {
		writer_integer(writer, "transition", (int64_t)transition->id);
		if (transition->n_blockers > 0)
			put_blockers(writer, host, spec, transition->blockers, transition->n_blockers);
		json_steps(writer, "steps", host, transition);
	}
	broken_put(request, writer);
	writer_close(writer, '}');
	return status;
}

unsigned json_result(struct writer *writer, const struct api_host *host, const struct request *request,
	const struct transition *transition, enum outcome outcome)
{
	if (outcome != OUTCOME_DONE || transition == NULL)
		return put_failure(writer, host, request, transition, outcome);
	put_success(writer, host, request, transition);
	return 200;
}

/* The status page. */

static void put_phase(struct writer *writer, const struct api_host *host, const struct phase_status *phase)
{
	if (!phase->any) {
		writer_null(writer, "phase");
		return;
	}
	const struct phase_definition *definition = &host->names->phases[phase->phase];
	writer_open(writer, "phase", '{');
	writer_integer(writer, "number", definition->number);
	writer_text_or_null(writer, "name", definition->name);
	json_engine_time(writer, "at", host, phase->at_ms);
	writer_bool(writer, "satisfied", phase->satisfied);
	writer_close(writer, '}');
}

/* What a request may name. */
static void put_known_phases(struct writer *writer, const struct explain_names *names)
{
	writer_open(writer, "phases", '[');
	for (size_t p = 0; p < names->n_phases; p++) {
		const struct phase_definition *phase = &names->phases[p];
		if (phase->is_retired)
			continue;
		writer_open(writer, NULL, '{');
		writer_integer(writer, "number", phase->number);
		writer_text_or_null(writer, "name", phase->name);
		writer_open(writer, "services", '[');
		for (size_t i = 0; i < phase->n_services; i++)
			writer_text(writer, NULL, names->services[phase->services[i]].name);
		writer_close(writer, ']');
		writer_close(writer, '}');
	}
	writer_close(writer, ']');
}

static void put_gpus(struct writer *writer, const struct api_host *host, const struct status *status)
{
	const struct gpu_sample *sample = host->sample(host->context);
	writer_open(writer, "vram", '{');
	if (status->n_gpus > 0)
		put_vram(writer, host, &status->gpus[0], reading_of(sample, 0));
	else
		put_no_vram(writer, host);
	writer_close(writer, '}');
	writer_open(writer, "gpus", '[');
	for (size_t i = 0; i < status->n_gpus; i++)
		put_gpu(writer, host, i, &status->gpus[i], reading_of(sample, i));
	writer_close(writer, ']');
	writer_text_or_null(writer, "gpu_problem", host->sampler_problem(host->context));
}

void json_status(struct writer *writer, const struct api_host *host)
{
	const struct status *status = host->status(host->context);
	writer_open(writer, NULL, '{');
	put_gpus(writer, host, status);
	writer_open(writer, "services", '{');
	for (size_t i = 0; i < status->n_services; i++)
		if (json_shows_service(&status->services[i]))
			put_service(writer, host, status, i);
	writer_close(writer, '}');
	json_lock(writer, "lock", host, status);
	json_leases(writer, "leases", host, status);
	put_known_phases(writer, host->names);
	put_phase(writer, host, &status->phase);
	writer_open(writer, "queue", '[');
	for (size_t i = 0; i < status->n_queue; i++)
		json_transition(writer, NULL, host, status->queue[i], i + 1);
	writer_close(writer, ']');
	writer_open(writer, "transitions", '[');
	for (size_t i = 0; i < status->n_running; i++)
		json_transition(writer, NULL, host, status->running[i], 0);
	writer_close(writer, ']');
	writer_close(writer, '}');
}
