/* JSON into structs, and the tables of all structs of the public header. Must not trust the JSON. */
#include "client/records.h"

#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "gpumgr.h"

/* Numbers that an int64_t holds, whatever a real may be. */
static int64_t number_of(const json_t *value, double factor)
{
	if (json_is_integer(value) && factor == 1)
		return json_integer_value(value);
	if (!json_is_number(value))
		return GPUMGR_UNKNOWN;
	double number = json_number_value(value) * factor;
	if (!(number > -9e18 && number < 9e18))
		return GPUMGR_UNKNOWN;
	return (int64_t)(number < 0 ? number - 0.5 : number + 0.5);
}

static const char *const *texts_of(struct arena *arena, const json_t *array)
{
	size_t n = 0, i;
	const json_t *value;
	const char **texts = arena_alloc(arena, (json_array_size(array) + 1) * sizeof(*texts));
	if (texts == NULL)
		return NULL;
	json_array_foreach(array, i, value) if (json_is_string(value)) texts[n++] = json_string_value(value);
	return texts;
}

static struct gpumgr_numbers numbers_of(struct arena *arena, const json_t *array)
{
	struct gpumgr_numbers numbers = { 0 };
	size_t i;
	const json_t *value;
	int64_t *values = arena_alloc(arena, (json_array_size(array) + 1) * sizeof(*values));
	numbers.values = values;
	if (values == NULL)
		return numbers;
	json_array_foreach(array, i, value) if (json_is_integer(value)) values[numbers.n++] = json_integer_value(value);
	return numbers;
}

static void *record_of(struct arena *arena, const struct record_type *type, const json_t *json, const char *key)
{
	void *record = arena_alloc(arena, type->size);
	if (record == NULL)
		return NULL;
	record_fill(arena, type, json, record);
	for (size_t i = 0; i < type->n_fields; i++)
		if (type->fields[i].key == NULL)
			memcpy((char *)record + type->fields[i].offset, &key, sizeof(key));
	return record;
}

const void *const *record_list(struct arena *arena, const struct record_type *type, const json_t *array)
{
	size_t n = 0, i;
	const json_t *value;
	const void **list = arena_alloc(arena, (json_array_size(array) + 1) * sizeof(*list));
	if (list == NULL)
		return NULL;
	json_array_foreach(array, i, value)
	{
		void *record = json_is_object(value) ? record_of(arena, type, value, NULL) : NULL;
		if (record != NULL)
			list[n++] = record;
	}
	return list;
}

static const void *const *record_map(struct arena *arena, const struct record_type *type, const json_t *object)
{
	size_t n = 0;
	const char *key;
	const json_t *value;
	const void **list = arena_alloc(arena, (json_object_size(object) + 1) * sizeof(*list));
	if (list == NULL)
		return NULL;
	json_object_foreach((json_t *)object, key, value)
	{
		void *record = json_is_object(value) ? record_of(arena, type, value, key) : NULL;
		if (record != NULL)
			list[n++] = record;
	}
	return list;
}

static const json_t *find(const json_t *json, const char *key)
{
	char first[32];
	const char *dot = strchr(key, '.');
	if (dot == NULL)
		return json_object_get(json, key);
	size_t n = (size_t)(dot - key);
	memcpy(first, key, n);
	first[n] = '\0';
	return json_object_get(json_object_get(json, first), dot + 1);
}

#define STORE(type, ...)                                                                                               \
	do {                                                                                                           \
		__typeof__(type) value_ = (__VA_ARGS__);                                                               \
		memcpy((char *)record + field->offset, &value_, sizeof(value_));                                       \
	} while (0)

static void fill_field(struct arena *arena, const struct field *field, const json_t *json, void *record)
{
	switch (field->kind) {
	case FIELD_TEXT:
		STORE(const char *, json_string_value(json));
		break;
	case FIELD_NUMBER:
		STORE(int64_t, number_of(json, 1));
		break;
	case FIELD_SECONDS:
		STORE(int64_t, number_of(json, 1000));
		break;
	case FIELD_FLAG:
		STORE(int, json_is_boolean(json) ? json_is_true(json) : -1);
		break;
	case FIELD_TEXTS:
		STORE(const char *const *, texts_of(arena, json));
		break;
	case FIELD_NUMBERS:
		STORE(struct gpumgr_numbers, numbers_of(arena, json));
		break;
	case FIELD_LIST:
		STORE(const void *const *, record_list(arena, field->type, json));
		break;
	case FIELD_MAP:
		STORE(const void *const *, record_map(arena, field->type, json));
		break;
	}
}

void record_fill(struct arena *arena, const struct record_type *type, const json_t *json, void *record)
{
	for (size_t i = 0; i < type->n_fields; i++)
		if (type->fields[i].key != NULL)
			fill_field(arena, &type->fields[i], find(json, type->fields[i].key), record);
}

/* ---- the tables ---- */

#define TABLE(name, members)                                                                                           \
	{                                                                                                              \
		sizeof(struct name), ARRAY_SIZE(members), members                                                      \
	}
#define AT(member) offsetof(struct RECORD, member)

#define RECORD gpumgr_blocker
static const struct field blocker_fields[] = {
	{ "service", FIELD_TEXT, AT(service) },
	{ "gpu", FIELD_NUMBER, AT(gpu) },
	{ "mb", FIELD_NUMBER, AT(mb) },
	{ "priority", FIELD_NUMBER, AT(priority) },
	{ "why", FIELD_TEXT, AT(why) },
};
const struct record_type blocker_record = TABLE(gpumgr_blocker, blocker_fields);
#undef RECORD

#define RECORD gpumgr_step
static const struct field step_fields[] = {
	{ "action", FIELD_TEXT, AT(action) },
	{ "service", FIELD_TEXT, AT(service) },
	{ "state", FIELD_TEXT, AT(state) },
	{ "reason", FIELD_TEXT, AT(reason) },
	{ "text", FIELD_TEXT, AT(text) },
	{ "error", FIELD_TEXT, AT(error) },
	{ "mb", FIELD_NUMBER, AT(mb) },
	{ "duration_ms", FIELD_NUMBER, AT(duration_ms) },
	{ "gpus", FIELD_NUMBERS, AT(gpus) },
};
const struct record_type step_record = TABLE(gpumgr_step, step_fields);
#undef RECORD

#define RECORD gpumgr_process
static const struct field process_fields[] = {
	{ "pid", FIELD_NUMBER, AT(pid) },
	{ "name", FIELD_TEXT, AT(name) },
	{ "memory_mb", FIELD_NUMBER, AT(memory_mb) },
	{ "service", FIELD_TEXT, AT(service) },
};
static const struct record_type process_record = TABLE(gpumgr_process, process_fields);
#undef RECORD

#define RECORD gpumgr_gpu
static const struct field gpu_fields[] = {
	{ "index", FIELD_NUMBER, AT(index) },
	{ "uuid", FIELD_TEXT, AT(uuid) },
	{ "name", FIELD_TEXT, AT(name) },
	{ "total_mb", FIELD_NUMBER, AT(total_mb) },
	{ "used_mb", FIELD_NUMBER, AT(used_mb) },
	{ "free_mb", FIELD_NUMBER, AT(free_mb) },
	{ "available_mb", FIELD_NUMBER, AT(available_mb) },
	{ "admissible_mb", FIELD_NUMBER, AT(admissible_mb) },
	{ "committed_mb", FIELD_NUMBER, AT(committed_mb) },
	{ "foreign_mb", FIELD_NUMBER, AT(foreign_mb) },
	{ "unreclaimed_mb", FIELD_NUMBER, AT(unreclaimed_mb) },
	{ "reserve_mb", FIELD_NUMBER, AT(reserve_mb) },
	{ "temperature_c", FIELD_NUMBER, AT(temperature_c) },
	{ "utilization_percent", FIELD_NUMBER, AT(utilization_percent) },
	{ "accounting", FIELD_TEXT, AT(accounting) },
	{ "problem", FIELD_TEXT, AT(problem) },
	{ "stale", FIELD_FLAG, AT(stale) },
	{ "processes", FIELD_LIST, AT(processes), &process_record },
};
static const struct record_type gpu_record = TABLE(gpumgr_gpu, gpu_fields);
#undef RECORD

#define RECORD gpumgr_service
static const struct field service_fields[] = {
	{ NULL, FIELD_TEXT, AT(name) },
	{ "state", FIELD_TEXT, AT(state) },
	{ "vram_mb", FIELD_NUMBER, AT(vram_mb) },
	{ "priority", FIELD_NUMBER, AT(priority) },
	{ "phases", FIELD_NUMBERS, AT(phases) },
	{ "gpus", FIELD_NUMBERS, AT(gpus) },
	{ "pid", FIELD_NUMBER, AT(pid) },
	{ "measured_mb", FIELD_NUMBER, AT(measured_mb) },
	{ "committed_mb", FIELD_NUMBER, AT(committed_mb) },
	{ "since", FIELD_TEXT, AT(since) },
	{ "error", FIELD_TEXT, AT(error) },
	{ "transition", FIELD_NUMBER, AT(transition) },
	{ "leases", FIELD_NUMBER, AT(leases) },
	{ "live", FIELD_FLAG, AT(live) },
	{ "pinned", FIELD_FLAG, AT(pinned) },
	{ "busy", FIELD_FLAG, AT(busy) },
};
static const struct record_type service_record = TABLE(gpumgr_service, service_fields);
#undef RECORD

#define RECORD gpumgr_transition
static const struct field transition_fields[] = {
	{ "id", FIELD_NUMBER, AT(id) },
	{ "kind", FIELD_TEXT, AT(kind) },
	{ "target", FIELD_TEXT, AT(target) },
	{ "phase", FIELD_NUMBER, AT(phase) },
	{ "state", FIELD_TEXT, AT(state) },
	{ "outcome", FIELD_TEXT, AT(outcome) },
	{ "priority", FIELD_NUMBER, AT(priority) },
	{ "place", FIELD_NUMBER, AT(place) },
	{ "waits_for", FIELD_TEXT, AT(waits_for) },
	{ "queued_at", FIELD_TEXT, AT(queued_at) },
	{ "started_at", FIELD_TEXT, AT(started_at) },
	{ "ended_at", FIELD_TEXT, AT(ended_at) },
	{ "duration_ms", FIELD_NUMBER, AT(duration_ms) },
	{ "detail", FIELD_TEXT, AT(detail) },
	{ "steps", FIELD_LIST, AT(steps), &step_record },
	{ "blocking", FIELD_LIST, AT(blocking), &blocker_record },
};
static const struct record_type transition_record = TABLE(gpumgr_transition, transition_fields);
#undef RECORD

#define RECORD gpumgr_lease_info
static const struct field lease_fields[] = {
	{ "id", FIELD_TEXT, AT(id) },
	{ "fence", FIELD_NUMBER, AT(fence) },
	{ "mode", FIELD_TEXT, AT(mode) },
	{ "services", FIELD_TEXTS, AT(services) },
	{ "phase", FIELD_NUMBER, AT(phase) },
	{ "gpus", FIELD_NUMBERS, AT(gpus) },
	{ "vram_mb", FIELD_NUMBER, AT(vram_mb) },
	{ "owner", FIELD_TEXT, AT(owner) },
	{ "priority", FIELD_NUMBER, AT(priority) },
	{ "attached", FIELD_FLAG, AT(attached) },
	{ "state", FIELD_TEXT, AT(state) },
	{ "since", FIELD_TEXT, AT(since) },
	{ "age_s", FIELD_SECONDS, AT(age_ms) },
	{ "ttl_s", FIELD_SECONDS, AT(ttl_ms) },
	{ "expires_in_s", FIELD_SECONDS, AT(expires_in_ms) },
	{ "wanted.by", FIELD_TEXT, AT(wanted_by) },
	{ "wanted.since", FIELD_TEXT, AT(wanted_since) },
	{ "wanted.breaks_in_s", FIELD_SECONDS, AT(breaks_in_ms) },
};
const struct record_type lease_record = TABLE(gpumgr_lease_info, lease_fields);
#undef RECORD

#define RECORD gpumgr_status
static const struct field status_fields[] = {
	{ "gpus", FIELD_LIST, AT(gpus), &gpu_record },
	{ "services", FIELD_MAP, AT(services), &service_record },
	{ "leases", FIELD_LIST, AT(leases), &lease_record },
	{ "queue", FIELD_LIST, AT(queue), &transition_record },
	{ "transitions", FIELD_LIST, AT(transitions), &transition_record },
	{ "phase.number", FIELD_NUMBER, AT(phase) },
	{ "phase.name", FIELD_TEXT, AT(phase_name) },
	{ "phase.satisfied", FIELD_FLAG, AT(phase_satisfied) },
	{ "lock.holder", FIELD_TEXT, AT(lock_holder) },
	{ "lock.ttl", FIELD_NUMBER, AT(lock_ttl_s) },
};
const struct record_type status_record = TABLE(gpumgr_status, status_fields);
#undef RECORD

#define RECORD gpumgr_result
static const struct field result_fields[] = {
	{ "transition", FIELD_NUMBER, AT(transition) },
	{ "duration_ms", FIELD_NUMBER, AT(duration_ms) },
	{ "phase", FIELD_NUMBER, AT(phase) },
	{ "service", FIELD_TEXT, AT(service) },
	{ "stopped", FIELD_TEXTS, AT(stopped) },
	{ "steps", FIELD_LIST, AT(steps), &step_record },
	{ "feasible", FIELD_FLAG, AT(feasible) },
	{ "text", FIELD_TEXT, AT(text) },
	{ "blocking", FIELD_LIST, AT(blocking), &blocker_record },
};
const struct record_type result_record = TABLE(gpumgr_result, result_fields);
#undef RECORD

#define RECORD gpumgr_event
static const struct field event_fields[] = {
	{ "id", FIELD_NUMBER, AT(id) },
	{ "time", FIELD_TEXT, AT(time) },
	{ "type", FIELD_TEXT, AT(type) },
	{ "subject", FIELD_TEXT, AT(subject) },
	{ "data.text", FIELD_TEXT, AT(text) },
	{ "data.transition", FIELD_NUMBER, AT(transition) },
};
const struct record_type event_record = TABLE(gpumgr_event, event_fields);
#undef RECORD
