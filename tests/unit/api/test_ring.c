/* The ring of events, and what becomes of a notice in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "api/ring.h"
#include "base/cleanup.h"

static struct notice make_notice(int64_t number)
{
	struct notice notice = { .type = "step" };
	snprintf(notice.subject, sizeof(notice.subject), "saw");
	snprintf(notice.text, sizeof(notice.text), "step %lld: \"J\xc3\xbcrgen\"\n", (long long)number);
	notice_add_number(&notice, "number", number);
	notice_add_bool(&notice, "yes", true);
	notice_add_bool(&notice, "no", false);
	notice_add_text(&notice, "words", "a \\ b");
	notice_add_text(&notice, "nothing", "");
	return notice;
}

static int64_t number_of(const json_t *event)
{
	return json_integer_value(json_object_get(json_object_get(event, "data"), "number"));
}

/* The data of "id: ID\nevent: step\ndata: {...}\n\n". */
static json_t *read_event(const struct blob *blob, uint64_t id)
{
	char head[64];
	int length = snprintf(head, sizeof(head), "id: %llu\nevent: step\ndata: ", (unsigned long long)id);
	assert_non_null(blob);
	assert_memory_equal(blob->data, head, (size_t)length);
	assert_memory_equal(blob->data + blob->length - 2, "\n\n", 2);
	json_t *event = json_loadb(blob->data + length, blob->length - (size_t)length, 0, NULL);
	assert_non_null(event);
	assert_int_equal(json_integer_value(json_object_get(event, "id")), id);
	return event;
}

static void test_a_notice_says_the_same_later(void **state)
{
	(void)state;
	struct notice notice = make_notice(-7);
	notice.transition = 42;
	struct note *note = note_make(&notice);
	memset(&notice, 'x', sizeof(notice)); /* it was only lent */
	struct blob *blob = note_render(note, 5);
	json_t *event = read_event(blob, 5), *data = json_object_get(event, "data");
	assert_string_equal(json_string_value(json_object_get(event, "type")), "step");
	assert_string_equal(json_string_value(json_object_get(event, "subject")), "saw");
	assert_string_equal(json_string_value(json_object_get(data, "text")), "step -7: \"J\xc3\xbcrgen\"\n");
	assert_int_equal(json_integer_value(json_object_get(data, "transition")), 42);
	assert_int_equal(number_of(event), -7);
	assert_true(json_is_true(json_object_get(data, "yes")));
	assert_true(json_is_false(json_object_get(data, "no")));
	assert_string_equal(json_string_value(json_object_get(data, "words")), "a \\ b");
	assert_string_equal(json_string_value(json_object_get(data, "nothing")), "");
	assert_int_equal(json_object_size(data), 7);
	json_decref(event);
	blob_unref(blob);
	note_free(note);
}

static void test_a_notice_without_anything(void **state)
{
	(void)state;
	const struct notice notice = { .type = "step" };
	struct note *note = note_make(&notice);
	struct blob *blob = note_render(note, 9);
	json_t *event = read_event(blob, 9);
	assert_true(json_is_null(json_object_get(event, "subject")));
	assert_int_equal(json_object_size(json_object_get(event, "data")), 1);
	json_decref(event);
	blob_unref(blob);
	note_free(note);
}

static void test_a_notice_of_the_largest_size(void **state)
{
	(void)state;
	struct notice notice = { .type = "step", .n_facts = NOTICE_FACTS_MAX };
	memset(notice.subject, 's', sizeof(notice.subject) - 1);
	memset(notice.text, 't', sizeof(notice.text) - 1);
	for (size_t i = 0; i < NOTICE_FACTS_MAX; i++) {
		notice.facts[i] = (struct fact){ .key = &"abcdefghij"[i], .kind = FACT_TEXT };
		memset(notice.facts[i].text, 'f', sizeof(notice.facts[i].text) - 1);
	}
	struct note *note = note_make(&notice);
	struct blob *blob = note_render(note, 1);
	json_t *event = read_event(blob, 1), *data = json_object_get(event, "data");
	assert_string_equal(json_string_value(json_object_get(event, "subject")), notice.subject);
	assert_string_equal(json_string_value(json_object_get(data, "text")), notice.text);
	assert_string_equal(json_string_value(json_object_get(data, "j")), notice.facts[9].text);
	json_decref(event);
	blob_unref(blob);
	note_free(note);
}

/* When it happened, and not when somebody asked. */
static void test_the_time_is_that_of_the_event(void **state)
{
	(void)state;
	const struct timespec pause = { .tv_nsec = 30000000 };
	const struct notice notice = make_notice(1);
	struct note *note = note_make(&notice);
	struct blob *early = note_render(note, 1);
	nanosleep(&pause, NULL);
	struct blob *late = note_render(note, 1);
	assert_int_equal(early->length, late->length);
	assert_memory_equal(early->data, late->data, early->length);
	blob_unref(early);
	blob_unref(late);
	note_free(note);
}

static void add(struct ring *ring, int64_t number)
{
	const struct notice notice = make_notice(number);
	ring_add(ring, note_make(&notice), (uint64_t)number);
}

static void test_the_last_ones_are_there(void **state)
{
	struct ring *ring = ring_create(1000);
	uint64_t transition;
	(void)state;
	assert_int_equal(ring_oldest_id(ring), 1000);
	assert_int_equal(ring_next_id(ring), 1000);
	assert_null(ring_get(ring, 1000));
	assert_false(ring_find(ring, 1000, &transition));
	for (int64_t i = 0; i < RING_SIZE + 10; i++) {
		add(ring, i);
		if (i % 3 == 0) /* some are read at once, the others when they are old */
			assert_non_null(ring_get(ring, 1000 + (uint64_t)i));
	}
	assert_int_equal(ring_next_id(ring), 1000 + RING_SIZE + 10);
	assert_int_equal(ring_oldest_id(ring), 1010);
	assert_null(ring_get(ring, 1009));
	assert_false(ring_find(ring, 1009, &transition));
	for (uint64_t id = 1010; id < ring_next_id(ring); id++) {
		json_t *event = read_event(ring_get(ring, id), id);
		assert_int_equal(number_of(event), id - 1000);
		assert_true(ring_find(ring, id, &transition));
		assert_int_equal(transition, id - 1000);
		json_decref(event);
	}
	assert_null(ring_get(ring, UINT64_MAX));
	ring_destroy(ring);
}

/* A reader that holds on to an event does not lose it when the ring goes on. */
static void test_many_readers_share_one_rendering(void **state)
{
	struct ring *ring = ring_create(1);
	(void)state;
	add(ring, 1);
	struct blob *first = blob_ref(ring_get(ring, 1));
	assert_ptr_equal(ring_get(ring, 1), first);
	for (int64_t i = 2; i < RING_SIZE + 5; i++)
		add(ring, i);
	assert_null(ring_get(ring, 1));
	json_decref(read_event(first, 1));
	assert_int_equal(first->references, 1);
	blob_unref(first);
	ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_notice_says_the_same_later),
		cmocka_unit_test(test_a_notice_without_anything),
		cmocka_unit_test(test_a_notice_of_the_largest_size),
		cmocka_unit_test(test_the_time_is_that_of_the_event),
		cmocka_unit_test(test_the_last_ones_are_there),
		cmocka_unit_test(test_many_readers_share_one_rendering),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
