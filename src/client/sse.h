/*
 * The parser of server-sent events (WHATWG HTML, 9.2.6), fed with whatever pieces the network delivers. Hostile input
 * costs at most SSE_EVENT_MAX bytes of memory. It departs from the standard in one point: an event that has a type but
 * no data is reported too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define SSE_EVENT_MAX (4 * 1024 * 1024)

struct sse_event {
	const char *type; /* "message" when none was given */
	const char *id; /* the last one seen, "" when none was */
	const char *data; /* "" when there was none; holds no 0 bytes: they are dropped */
	size_t data_length;
};

/* Returns false to stop: sse_feed() then returns at once. */
typedef bool (*sse_handler)(void *context, const struct sse_event *event);

struct sse_parser;

/* NULL: no memory. */
struct sse_parser *sse_parser_new(sse_handler handler, void *context);
struct sse_parser *sse_parser_free(struct sse_parser *parser);

/* 0; -ECANCELED when the handler said stop; -EMSGSIZE when an event is too long; -ENOMEM. Not to be fed after an error.
 */
int sse_feed(struct sse_parser *parser, const char *bytes, size_t n);
