/* The daemon's JSON as structs of libgpumgr: any JSON fills any of them, and every list of it can be walked. */
#include "client/records.h"

#include "fuzz.h"
#include "gpumgr.h"

static const struct record_type *const types[] = {
	&blocker_record,
	&step_record,
	&lease_record,
	&status_record,
	&result_record,
	&event_record,
};

static uint64_t seen; /* of every value that is read, so that none is left out */

static void walk(const struct record_type *type, const void *record);

static void walk_list(const struct record_type *type, const void *const *list)
{
	FUZZ_CHECK(list != NULL);
	for (; *list != NULL; list++)
		walk(type, *list);
}

static void walk_field(const struct field *field, const char *at)
{
	const char *text;
	const char *const *texts;
	struct gpumgr_numbers numbers;
	int64_t number;
	int flag;
	switch (field->kind) {
	case FIELD_TEXT:
		memcpy(&text, at, sizeof(text));
		seen += text != NULL ? strlen(text) : 0;
		break;
	case FIELD_NUMBER:
	case FIELD_SECONDS:
		memcpy(&number, at, sizeof(number));
		seen += (uint64_t)number;
		break;
	case FIELD_FLAG:
		memcpy(&flag, at, sizeof(flag));
		FUZZ_CHECK(flag >= -1 && flag <= 1);
		break;
	case FIELD_TEXTS:
		memcpy(&texts, at, sizeof(texts));
		FUZZ_CHECK(texts != NULL);
		for (; *texts != NULL; texts++)
			seen += strlen(*texts);
		break;
	case FIELD_NUMBERS:
		memcpy(&numbers, at, sizeof(numbers));
		for (size_t i = 0; i < numbers.n; i++)
			seen += (uint64_t)numbers.values[i];
		break;
	case FIELD_LIST:
	case FIELD_MAP:
		memcpy(&texts, at, sizeof(texts));
		walk_list(field->type, (const void *const *)texts);
		break;
	}
}

static void walk(const struct record_type *type, const void *record)
{
	for (size_t i = 0; i < type->n_fields; i++)
		walk_field(&type->fields[i], (const char *)record + type->fields[i].offset);
}

static void fill(const struct record_type *type, json_t *json)
{
	struct arena *arena = arena_new();
	FUZZ_CHECK(arena != NULL);
	arena_keep_json(arena, json_incref(json));
	void *record = arena_alloc(arena, type->size);
	FUZZ_CHECK(record != NULL);
	record_fill(arena, type, json, record);
	walk(type, record);
	walk_list(type, record_list(arena, type, json));
	FUZZ_CHECK(!arena_failed(arena));
	arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	const struct record_type *type = types[fuzz_u8(&input) % (sizeof(types) / sizeof(types[0]))];
	json_t *json = json_loadb((const char *)input.at, fuzz_left(&input), JSON_DECODE_ANY, NULL);
	if (json != NULL)
		fill(type, json);
	json_decref(json);
	return 0;
}
