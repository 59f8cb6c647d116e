/* Plain data in, JSON out. Asks the host only for what it knows already; changes nothing. */
#include "api/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/problem.h"
#include "base/cleanup.h"

#define TEXT_BYTES 8192

/* Text and time. */

/* The length of the UTF-8 sequence at `s`, 0 when it is none. */
static size_t utf8_length(const unsigned char *s)
{
	static const struct {
		unsigned char mask, lead;
		size_t length;
		uint32_t least;
	} kinds[] = { { 0x80, 0x00, 1, 0 }, { 0xe0, 0xc0, 2, 0x80 }, { 0xf0, 0xe0, 3, 0x800 },
		{ 0xf8, 0xf0, 4, 0x10000 } };
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		if ((s[0] & kinds[k].mask) != kinds[k].lead)
			continue;
		uint32_t code = s[0] & (unsigned char)~kinds[k].mask;
		for (size_t i = 1; i < kinds[k].length; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (s[i] & 0x3f);
		}
		bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
		return code >= kinds[k].least && code <= 0x10ffff && !is_surrogate ? kinds[k].length : 0;
	}
	return 0;
}

json_t *json_text(const char *text)
{
	json_t *string = json_string(text);
	if (string != NULL)
		return string;
	CLEANUP_FREE char *clean = malloc(strlen(text) * 3 + 1);
	if (clean == NULL)
		return NULL;
	char *out = clean;
	while (*text != 0) {
		size_t length = utf8_length((const unsigned char *)text);
		const char *from = length > 0 ? text : "\xef\xbf\xbd";
		size_t n = length > 0 ? length : 3;
		memcpy(out, from, n);
		out += n;
		text += length > 0 ? length : 1;
	}
	*out = 0;
	return json_string(clean);
}

json_t *json_text_or_null(const char *text)
{
	return text != NULL && text[0] != 0 ? json_text(text) : json_null();
}

json_t *json_wall_time(double seconds)
{
	int64_t total_ms = (int64_t)(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5));
	int ms = (int)(((total_ms % 1000) + 1000) % 1000);
	time_t whole = (time_t)((total_ms - ms) / 1000);
	struct tm utc;
	if (gmtime_r(&whole, &utc) == NULL)
		return json_null();
	char text[64];
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1,
		utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, ms);
	return json_string(text);
}

json_t *json_engine_time(const struct api_host *host, uint64_t ms)
{
	return ms != 0 ? json_wall_time(host->wall_time(host->context, ms)) : json_null();
}

static json_t *number_or_null(bool is_known, int64_t value)
{
	return is_known ? json_integer(value) : json_null();
}

/* Fills an object from the pieces; a piece that is NULL (no memory) makes the whole NULL. */
static int put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new_nocheck(object, key, value);
}

static json_t *gpu_set_json(gpu_set gpus, size_t n_gpus)
{
	json_t *list = json_array();
	for (size_t i = 0; i < n_gpus && i < GPU_MAX; i++)
		if (gpus & GPU_BIT(i))
			json_array_append_new(list, json_integer((json_int_t)i));
	return list;
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

static json_t *available_mb(const struct gpu_status *gpu, const struct memory *memory)
{
	int64_t available = memory->free_mib - (int64_t)gpu->account.reserve_mib;
	return number_or_null(memory->has_free, available > 0 ? available : 0);
}

static json_t *processes_json(const struct gpu_reading *reading)
{
	json_t *list = json_array();
	for (size_t i = 0; reading != NULL && i < reading->n_processes; i++) {
		const struct gpu_process *process = &reading->processes[i];
		json_array_append_new(list,
			json_pack("{s:i, s:o, s:o}", "pid", (int)process->pid, "name", json_text(process->name),
				"memory_mb", number_or_null(process->mib != GPU_MIB_UNKNOWN, process->mib)));
	}
	return list;
}

/* What `vram` and the entries of `gpus` have in common. */
static json_t *vram_json(const struct gpu_status *gpu, const struct gpu_reading *reading)
{
	struct memory memory = memory_of(gpu, reading);
	json_t *object = json_object();
	put(object, "total_mb", number_or_null(memory.has_total, memory.total_mib));
	put(object, "used_mb", number_or_null(memory.has_used, memory.used_mib));
	put(object, "free_mb", number_or_null(memory.has_free, memory.free_mib));
	put(object, "available_mb", available_mb(gpu, &memory));
	put(object, "processes", processes_json(reading));
	put(object, "temperature_c",
		number_or_null(has(reading, GPU_VALID_TEMPERATURE), reading != NULL ? reading->temperature_c : 0));
	put(object, "utilization_percent",
		number_or_null(
			has(reading, GPU_VALID_UTILIZATION), reading != NULL ? reading->utilization_percent : 0));
	return object;
}

static json_t *no_vram_json(void)
{
	return json_pack("{s:n, s:n, s:n, s:n, s:[], s:n, s:n}", "total_mb", "used_mb", "free_mb", "available_mb",
		"processes", "temperature_c", "utilization_percent");
}

static json_t *gpu_json(
	const struct api_host *host, size_t index, const struct gpu_status *gpu, const struct gpu_reading *reading)
{
	const struct gpu_account *account = &gpu->account;
	json_t *object = vram_json(gpu, reading);
	put(object, "index", json_integer((json_int_t)index));
	put(object, "uuid", json_text_or_null(reading != NULL ? reading->uuid : NULL));
	put(object, "name", json_text_or_null(reading != NULL ? reading->name : NULL));
	put(object, "admissible_mb", number_or_null(account->has_total, account->admissible_mib));
	put(object, "committed_mb", json_integer((json_int_t)account->committed_mib));
	put(object, "foreign_mb", json_integer((json_int_t)account->foreign_mib));
	put(object, "unreclaimed_mb", json_integer((json_int_t)account->unreclaimed_mib));
	put(object, "reserve_mb", json_integer(account->reserve_mib));
	put(object, "accounting", json_string(accounting_mode_name(account->mode)));
	put(object, "sampled_at", json_engine_time(host, gpu->sampled_ms));
	put(object, "stale", json_boolean(gpu->stale));
	put(object, "problem", json_text_or_null(reading != NULL ? reading->problem : NULL));
	return object;
}

/* Services. */

static json_t *declared_mb(const struct status *status, const struct service_definition *definition)
{
	if (definition->vram.percent == 0)
		return json_integer(definition->vram.mib);
	for (size_t i = 0; i < status->n_gpus && i < GPU_MAX; i++)
		if ((definition->allowed & GPU_BIT(i)) && status->gpus[i].account.has_total)
			return json_integer(size_on_card(definition->vram, status->gpus[i].account.total_mib));
	return json_null();
}

static json_t *phases_of(const struct explain_names *names, size_t service)
{
	json_t *list = json_array();
	for (size_t p = 0; p < names->n_phases; p++)
		for (size_t i = 0; i < names->phases[p].n_services; i++)
			if (names->phases[p].services[i] == service)
				json_array_append_new(list, json_integer(names->phases[p].number));
	return list;
}

static json_t *service_json(const struct api_host *host, const struct status *status, size_t index)
{
	const struct service_status *service = &status->services[index];
	json_t *object = json_object();
	put(object, "state", json_string(service_state_name(service->state)));
	put(object, "vram_mb", declared_mb(status, service->definition));
	put(object, "priority", json_integer(service->definition->priority));
	put(object, "phases", phases_of(host->names, index));
	put(object, "gpus", gpu_set_json(service->gpus, status->n_gpus));
	put(object, "pid", number_or_null(service->pid > 0, service->pid));
	put(object, "measured_mb", number_or_null(service->has_measured, service->measured_mib));
	put(object, "committed_mb", json_integer((json_int_t)service->committed_mib));
	put(object, "since", json_engine_time(host, service->since_ms));
	put(object, "error", json_text_or_null(service->error));
	put(object, "live", json_boolean(service->live));
	put(object, "transition", number_or_null(service->transition != 0, (int64_t)service->transition));
	put(object, "pinned", json_boolean(service->definition->pinned));
	return object;
}

/* Steps and blockers. */

/* All bits: steps name GPUs that a reading may have lost since. */
static json_t *step_json(const struct api_host *host, const struct plan_step *plan)
{
	char text[1024];
	return json_pack("{s:s, s:o, s:o, s:I, s:s, s:s, s:n, s:n, s:o}", "action", plan_action_name(plan->action),
		"service", json_text(host->names->services[plan->service].name), "gpus",
		gpu_set_json(plan->gpus, GPU_MAX), "mb", (json_int_t)plan->mib, "reason",
		plan_reason_name(plan->reason), "state", "pending", "duration_ms", "error", "text",
		json_text(explain_step(host->names, plan, text, sizeof(text))));
}

static uint64_t engine_now(const struct api_host *host)
{
	const struct status *status = host->status(host->context);
	return status != NULL ? status->now_ms : 0;
}

static json_t *carried_step_json(const struct api_host *host, const struct step *step, uint64_t now_ms)
{
	json_t *object = step_json(host, &step->plan);
	if (object == NULL)
		return NULL;
	put(object, "state", json_string(step_state_name(step->state)));
	if (step->started_ms != 0) {
		uint64_t end = step->ended_ms != 0 ? step->ended_ms : now_ms;
		put(object, "duration_ms",
			json_integer(end > step->started_ms ? (json_int_t)(end - step->started_ms) : 0));
	}
	if (step->state == STEP_FAILED)
		put(object, "error", json_text_or_null(step->detail));
	return object;
}

static json_t *steps_json(const struct api_host *host, const struct transition *transition)
{
	json_t *list = json_array();
	uint64_t now_ms = transition->n_steps > 0 ? engine_now(host) : 0;
	for (size_t i = 0; i < transition->n_steps; i++)
		json_array_append_new(list, carried_step_json(host, &transition->steps[i], now_ms));
	return list;
}

static json_t *blockers_json(const struct api_host *host, const struct request_spec *spec,
	const struct plan_blocker *blockers, size_t n_blockers)
{
	json_t *list = json_array();
	for (size_t i = 0; i < n_blockers; i++) {
		const struct plan_blocker *blocker = &blockers[i];
		bool is_service = blocker->service != PLAN_NO_SERVICE;
		char why[512];
		json_array_append_new(list,
			json_pack("{s:o, s:o, s:I, s:o, s:o}", "service",
				is_service ? json_text(host->names->services[blocker->service].name) : json_null(),
				"gpu", number_or_null(blocker->gpu >= 0, blocker->gpu), "mb", (json_int_t)blocker->mib,
				"priority", number_or_null(is_service, blocker->priority), "why",
				json_text(explain_blocker(host->names, spec, blocker, why, sizeof(why)))));
	}
	return list;
}

/* Transitions. */

static json_t *target_json(const struct api_host *host, const struct request_spec *spec)
{
	char number[16];
	const struct phase_definition *phase;
	switch (spec->kind) {
	case REQUEST_PHASE:
		phase = &host->names->phases[spec->target];
		snprintf(number, sizeof(number), "%d", phase->number);
		return json_text(phase->name != NULL ? phase->name : number);
	case REQUEST_RELEASE_ALL:
		return json_null();
	default:
		return json_text(host->names->services[spec->target].name);
	}
}

static json_t *phase_number(const struct api_host *host, const struct request_spec *spec)
{
	return spec->kind == REQUEST_PHASE ? json_integer(host->names->phases[spec->target].number) : json_null();
}

static json_t *place_json(const struct status *status, const struct transition *transition)
{
	for (size_t i = 0; status != NULL && i < status->n_queue; i++)
		if (status->queue[i]->id == transition->id)
			return json_integer((json_int_t)i + 1);
	return json_null();
}

static bool is_over(const struct transition *transition)
{
	return transition->state == TRANSITION_DONE || transition->state == TRANSITION_FAILED;
}

static bool is_waiting(const struct transition *transition)
{
	return transition->state == TRANSITION_QUEUED || transition->state == TRANSITION_PARKED;
}

static const char *outcome_word(enum outcome outcome)
{
	return outcome == OUTCOME_DONE ? "done" : outcome_code(outcome);
}

static json_t *duration_json(const struct api_host *host, const struct transition *transition)
{
	if (transition->started_ms == 0)
		return json_null();
	uint64_t end = is_over(transition) ? transition->ended_ms : engine_now(host);
	return json_integer(end > transition->started_ms ? (json_int_t)(end - transition->started_ms) : 0);
}

json_t *json_transition(const struct api_host *host, const struct transition *transition)
{
	const struct request_spec *spec = &transition->spec;
	json_t *object = json_object();
	put(object, "id", json_integer((json_int_t)transition->id));
	put(object, "kind", json_string(request_kind_name(spec->kind)));
	put(object, "target", target_json(host, spec));
	put(object, "phase", phase_number(host, spec));
	put(object, "state", json_string(transition_state_name(transition->state)));
	put(object, "outcome", is_over(transition) ? json_string(outcome_word(transition->outcome)) : json_null());
	put(object, "priority", json_integer(transition->priority));
	put(object, "place", place_json(host->status(host->context), transition));
	put(object, "waits_for", is_waiting(transition) ? json_text_or_null(transition->detail) : json_null());
	put(object, "queued_at", json_engine_time(host, transition->queued_ms));
	put(object, "started_at", json_engine_time(host, transition->started_ms));
	put(object, "ended_at", json_engine_time(host, is_over(transition) ? transition->ended_ms : 0));
	put(object, "duration_ms", duration_json(host, transition));
	put(object, "gpus", gpu_set_json(transition->gpus, GPU_MAX));
	put(object, "steps", steps_json(host, transition));
	put(object, "blocking", blockers_json(host, spec, transition->blockers, transition->n_blockers));
	put(object, "detail", json_text_or_null(transition->detail));
	return object;
}

json_t *json_transition_by_id(const struct api_host *host, uint64_t id)
{
	const struct transition *transition = host->transition(host->context, id);
	return transition != NULL ? json_transition(host, transition) : json_pack("{s:I}", "id", (json_int_t)id);
}

/* Plans. */

json_t *json_plan(
	const struct api_host *host, const struct request_spec *spec, const struct plan *plan, bool is_feasible)
{
	CLEANUP_FREE char *text = calloc(1, TEXT_BYTES);
	json_t *object = json_object();
	if (text == NULL || object == NULL)
		return json_decref(object), NULL;
	json_t *steps = json_array();
	for (size_t i = 0; i < plan->n_steps; i++)
		json_array_append_new(steps, step_json(host, &plan->steps[i]));
	if (is_feasible)
		explain_plan(host->names, spec, plan, text, TEXT_BYTES);
	else
		explain_refusal(host->names, spec, plan, text, TEXT_BYTES);
	put(object, "success", json_true());
	put(object, "feasible", json_boolean(is_feasible));
	if (spec->kind == REQUEST_PHASE)
		put(object, "phase", phase_number(host, spec));
	else
		put(object, "service", target_json(host, spec));
	put(object, "steps", steps);
	put(object, "blocking", blockers_json(host, spec, plan->blockers, plan->n_blockers));
	put(object, "text", json_text(text));
	return object;
}

/* Results. */

static json_t *stopped_json(const struct api_host *host, const struct transition *transition)
{
	json_t *list = json_array();
	for (size_t i = 0; i < transition->n_steps; i++)
		if (transition->steps[i].plan.action == PLAN_STOP && transition->steps[i].state == STEP_DONE)
			json_array_append_new(
				list, json_text(host->names->services[transition->steps[i].plan.service].name));
	return list;
}

/* Who the answer is about. */
static void put_subject(json_t *object, const struct api_host *host, const struct request_spec *spec)
{
	if (spec->kind == REQUEST_PHASE) {
		put(object, "phase", phase_number(host, spec));
		put(object, "name", json_text_or_null(host->names->phases[spec->target].name));
	} else if (spec->kind != REQUEST_RELEASE_ALL) {
		put(object, "service", target_json(host, spec));
	}
}

static json_t *success_json(const struct api_host *host, const struct transition *transition)
{
	uint64_t from = transition->started_ms != 0 ? transition->started_ms : transition->queued_ms;
	json_t *object = json_object();
	put(object, "success", json_true());
	put_subject(object, host, &transition->spec);
	put(object, "transition", json_integer((json_int_t)transition->id));
	if (transition->spec.kind == REQUEST_RELEASE_ALL)
		put(object, "stopped", stopped_json(host, transition));
	put(object, "steps", steps_json(host, transition));
	put(object, "duration_ms",
		json_integer(transition->ended_ms > from ? (json_int_t)(transition->ended_ms - from) : 0));
	return object;
}

/* A ticket whose own wait ran out says so, whatever becomes of the transition. */
static const char *failure_detail(const struct transition *transition, enum outcome outcome, char *buffer, size_t size)
{
	const char *said = transition != NULL ? transition->detail : "";
	if (said[0] != 0 && is_over(transition) && transition->outcome == outcome)
		return said;
	switch (outcome) {
	case OUTCOME_WAIT_TIMEOUT:
		snprintf(buffer, size, "its turn did not come in time; a longer wait_s waits longer%s%s",
			said[0] != 0 ? ": " : "", said);
		break;
	case OUTCOME_SHUTDOWN:
		snprintf(buffer, size, "gpumgrd is shutting down");
		break;
	case OUTCOME_TOO_MANY:
		snprintf(buffer, size, "too many requests are waiting; try again later");
		break;
	default:
		snprintf(buffer, size, "%s", said[0] != 0 ? said : "the request failed; see the log of gpumgrd");
	}
	return buffer;
}

static json_t *failure_json(const struct api_host *host, const struct request_spec *spec,
	const struct transition *transition, enum outcome outcome, unsigned *ret_status)
{
	char buffer[768];
	const char *code = outcome_code(outcome);
	*ret_status = problem_status(code);
	json_t *object = problem_document(code, failure_detail(transition, outcome, buffer, sizeof(buffer)));
	if (object == NULL)
		return NULL;
	put_subject(object, host, spec);
	if (transition == NULL)
		return object; /* it never became one */
	put(object, "transition", json_integer((json_int_t)transition->id));
	if (transition->n_blockers > 0)
		put(object, "blocking", blockers_json(host, spec, transition->blockers, transition->n_blockers));
	put(object, "steps", steps_json(host, transition));
	return object;
}

json_t *json_result(const struct api_host *host, const struct request_spec *spec, const struct transition *transition,
	enum outcome outcome, unsigned *ret_status)
{
	*ret_status = 200;
	return outcome == OUTCOME_DONE ? success_json(host, transition)
				       : failure_json(host, spec, transition, outcome, ret_status);
}

/* The status page. */

static json_t *transitions_json(const struct api_host *host, const struct transition *const *transitions, size_t n)
{
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_transition(host, transitions[i]));
	return list;
}

static json_t *phase_json(const struct api_host *host, const struct phase_status *phase)
{
	if (!phase->any)
		return json_null();
	const struct phase_definition *definition = &host->names->phases[phase->phase];
	return json_pack("{s:i, s:o, s:o, s:b}", "number", definition->number, "name",
		json_text_or_null(definition->name), "at", json_engine_time(host, phase->at_ms), "satisfied",
		(int)phase->satisfied);
}

json_t *json_status(const struct api_host *host)
{
	const struct status *status = host->status(host->context);
	const struct gpu_sample *sample = host->sample(host->context);
	json_t *object = json_object();
	put(object, "vram", status->n_gpus > 0 ? vram_json(&status->gpus[0], reading_of(sample, 0)) : no_vram_json());
	json_t *gpus = json_array();
	for (size_t i = 0; i < status->n_gpus; i++)
		json_array_append_new(gpus, gpu_json(host, i, &status->gpus[i], reading_of(sample, i)));
	put(object, "gpus", gpus);
	json_t *services = json_object();
	for (size_t i = 0; i < status->n_services; i++)
		put(services, status->services[i].definition->name, service_json(host, status, i));
	put(object, "services", services);
	put(object, "lock", json_pack("{s:n, s:i}", "holder", "ttl", -2));
	put(object, "leases", json_array());
	put(object, "phase", phase_json(host, &status->phase));
	put(object, "queue", transitions_json(host, status->queue, status->n_queue));
	put(object, "transitions", transitions_json(host, status->running, status->n_running));
	return object;
}
