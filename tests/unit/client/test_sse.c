/* Server-sent events: the standard's examples, split at every byte, and input that means harm. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "client/sse.h"

/* What was reported, as "type|id|data;" in a row. */
struct record {
	char text[4096];
	int n;
	int stop_after; /* 0: never */
};

static bool handle_event(void *context, const struct sse_event *event)
{
	struct record *record = context;
	size_t used = strlen(record->text);
	assert_int_equal(strlen(event->data), event->data_length);
	snprintf(record->text + used, sizeof(record->text) - used, "%s|%s|%s;", event->type, event->id, event->data);
	record->n++;
	return record->stop_after == 0 || record->n < record->stop_after;
}

/* In pieces of `piece` bytes, the first of `first` bytes. */
static int feed(struct record *record, const char *bytes, size_t n, size_t first, size_t piece)
{
	struct sse_parser *parser = sse_parser_new(handle_event, record);
	int r = 0;
	for (size_t at = 0; at < n && r == 0;) {
		size_t size = at == 0 && first > 0 ? first : piece;
		size = size < n - at ? size : n - at;
		/* A copy of exactly this size, so that reading beyond it is seen by the sanitizer. */
		char *copy = malloc(size);
		memcpy(copy, bytes + at, size);
		r = sse_feed(parser, copy, size);
		free(copy);
		at += size;
	}
	sse_parser_free(parser);
	return r;
}

static const struct {
	const char *bytes;
	size_t n; /* 0: strlen */
	const char *expected;
} cases[] = {
	{ "data: x\n\n", 0, "message||x;" },
	{ "event: result\ndata: {\"a\": 1}\nid: 7\n\n", 0, "result|7|{\"a\": 1};" },
	{ "data: a\ndata:b\ndata:  c\n\n", 0, "message||a\nb\n c;" },
	{ "data: a\r\n\r\ndata: b\r\rdata: c\n\n", 0, "message||a;message||b;message||c;" },
	{ ": ping\n\n: ping\n\ndata: x\n\n", 0, "message||x;" },
	{ "id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", 0, "message|1|a;message|1|b;message||c;" },
	{ "event: reset\n\n", 0, "reset||;" },
	{ "data\n\ndata\ndata\n\ndata:", 0, "message||;message||\n;" },
	{ "event: a\nevent: b\ndata: x\n\ndata: y\n\n", 0, "b||x;message||y;" },
	{ "\xef\xbb\xbf"
	  "data: x\n\n",
		0, "message||x;" },
	{ "retry: 10\nrubbish\nfoo: bar\n:\n\n", 0, "" },
	{ "data: never ended", 0, "" },
	{ "data: never ended\n", 0, "" },
	{ "data: a\0b\n\nd\0ata: c\n\n", 21, "message||ab;message||c;" },
	{ "\n\n\n\r\n\r\r\n", 0, "" },
	{ " data: x\n\ndata : y\n\nDATA: z\n\n", 0, "" },
	{ "data: \xff\xfe\x1b[2J\n\n", 0, "message||\xff\xfe\x1b[2J;" },
};

static void test_all_cases_split_everywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = cases[i].n != 0 ? cases[i].n : strlen(cases[i].bytes);
		for (size_t first = 0; first <= n; first++) {
			struct record record = { 0 };
			assert_int_equal(feed(&record, cases[i].bytes, n, first, n), 0);
			if (strcmp(record.text, cases[i].expected) != 0)
				fail_msg("case %zu split at %zu: \"%s\"", i, first, record.text);
		}
		struct record record = { 0 };
		assert_int_equal(feed(&record, cases[i].bytes, n, 0, 1), 0);
		assert_string_equal(record.text, cases[i].expected);
	}
}

static void test_the_handler_stops(void **state)
{
	(void)state;
	struct record record = { .stop_after = 2 };
	static const char bytes[] = "data: a\n\ndata: b\n\ndata: c\n\n";
	assert_int_equal(feed(&record, bytes, strlen(bytes), 0, 100), -ECANCELED);
	assert_string_equal(record.text, "message||a;message||b;");
}

static char *endless(const char *begin, const char *again, size_t n)
{
	char *bytes = malloc(n);
	size_t at = strlen(begin), size = strlen(again);
	memcpy(bytes, begin, at);
	for (; at < n; at++)
		bytes[at] = again[(at - strlen(begin)) % size];
	return bytes;
}

static void test_endless_events_are_given_up(void **state)
{
	(void)state;
	static const struct {
		const char *begin, *again;
	} kinds[] = {
		{ "data: ", "x" },
		{ "", "x" },
		{ "id: ", "x" },
		{ ":", "x" },
		{ "", "data: xxxxxxxxxxxxxxxx\n" },
		{ "event: ", "x" },
	};
	size_t n = 2 * SSE_EVENT_MAX;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		CLEANUP_FREE char *bytes = endless(kinds[i].begin, kinds[i].again, n);
		struct record record = { 0 };
		assert_int_equal(feed(&record, bytes, n, 0, 65536), -EMSGSIZE);
		assert_int_equal(record.n, 0);
	}
	/* The same amount in many events is fine. */
	CLEANUP_FREE char *bytes = endless("", ": xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n\n", n);
	struct record record = { 0 };
	assert_int_equal(feed(&record, bytes, n, 0, 65536), 0);
}

/* Rubbish never crashes it, and however it is split the outcome is the same. */
static void test_random_bytes(void **state)
{
	(void)state;
	static const char alphabet[] = "datevnid: \n\r\n\n:\xef\xbb\xbfx";
	unsigned seed = 1;
	for (int round = 0; round < 3000; round++) {
		char bytes[64];
		for (size_t i = 0; i < sizeof(bytes); i++) {
			seed = seed * 1103515245 + 12345;
			bytes[i] = alphabet[(seed >> 16) % sizeof(alphabet)];
		}
		struct record whole = { 0 }, split = { 0 };
		assert_int_equal(feed(&whole, bytes, sizeof(bytes), 0, sizeof(bytes)), 0);
		assert_int_equal(feed(&split, bytes, sizeof(bytes), (size_t)round % 64, 3), 0);
		assert_string_equal(whole.text, split.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_cases_split_everywhere),
		cmocka_unit_test(test_the_handler_stops),
		cmocka_unit_test(test_endless_events_are_given_up),
		cmocka_unit_test(test_random_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
