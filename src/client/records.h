/*
 * The daemon's JSON as structs, by tables: which member of an object goes where. What is missing, null or of another
 * type is unknown; a list is never NULL. All of it hangs on one arena and is freed with it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct arena;

struct arena *arena_new(void);
struct arena *arena_free(struct arena *arena);
/* Zeroed. NULL: no memory, and arena_failed() from then on. */
void *arena_alloc(struct arena *arena, size_t size);
const char *arena_copy(struct arena *arena, const char *text);
bool arena_failed(const struct arena *arena);
/* Takes over a reference, so that texts may point into it. */
void arena_keep_json(struct arena *arena, json_t *json);

enum field_kind {
	FIELD_TEXT, /* const char * */
	FIELD_NUMBER, /* int64_t */
	FIELD_SECONDS, /* of a number of seconds: int64_t, in milliseconds */
	FIELD_FLAG, /* int */
	FIELD_TEXTS, /* const char *const * */
	FIELD_NUMBERS, /* struct gpumgr_numbers */
	FIELD_LIST, /* of an array of objects: const T *const * */
	FIELD_MAP, /* of an object of objects: the same; the key goes into the member of T that has no key */
};

struct record_type;

struct field {
	const char *key; /* "a" or "a.b"; NULL: the key of the map it stands in */
	enum field_kind kind;
	size_t offset;
	const struct record_type *type; /* of lists and maps */
};

struct record_type {
	size_t size;
	size_t n_fields;
	const struct field *fields;
};

/* Fills a zeroed struct; texts are borrowed from `json`. */
void record_fill(struct arena *arena, const struct record_type *type, const json_t *json, void *record);
/* Ends with NULL; never NULL itself unless the arena failed. Elements that are no objects are left out. */
const void *const *record_list(struct arena *arena, const struct record_type *type, const json_t *array);

extern const struct record_type blocker_record;
extern const struct record_type step_record;
extern const struct record_type lease_record;
extern const struct record_type status_record;
extern const struct record_type result_record;
extern const struct record_type event_record;
