/* Server-sent events, byte by byte: no piece of the input is ever looked at twice. Knows nothing of JSON. */
#include "client/sse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
	char *bytes; /* always ends with a 0 once it was added to */
	size_t n;
	size_t capacity;
};

struct sse_parser {
	sse_handler handler;
	void *context;
	unsigned n_start; /* bytes of a byte order mark seen at the very start; 3: past it */
	bool after_return; /* a \n now belongs to the \r before */
	struct buffer line;
	struct buffer type;
	struct buffer data;
	struct buffer id;
	bool has_type;
	bool has_data;
};

static int buffer_add(struct buffer *buffer, const char *bytes, size_t n)
{
	if (n > SSE_EVENT_MAX || buffer->n > SSE_EVENT_MAX - n)
		return -EMSGSIZE;
	if (buffer->n + n + 1 > buffer->capacity) {
		size_t capacity = (buffer->n + n + 1) * 2;
		char *grown = realloc(buffer->bytes, capacity);
		if (grown == NULL)
			return -ENOMEM;
		buffer->bytes = grown;
		buffer->capacity = capacity;
	}
	if (n > 0)
		memcpy(buffer->bytes + buffer->n, bytes, n);
	buffer->n += n;
	buffer->bytes[buffer->n] = '\0';
	return 0;
}

static int buffer_set(struct buffer *buffer, const char *bytes, size_t n)
{
	buffer->n = 0;
	return buffer_add(buffer, bytes, n);
}

static const char *buffer_text(const struct buffer *buffer)
{
	return buffer->bytes == NULL || buffer->n == 0 ? "" : buffer->bytes;
}

struct sse_parser *sse_parser_new(sse_handler handler, void *context)
{
	struct sse_parser *parser = calloc(1, sizeof(*parser));
	if (parser == NULL)
		return NULL;
	parser->handler = handler;
	parser->context = context;
	return parser;
}

struct sse_parser *sse_parser_free(struct sse_parser *parser)
{
	if (parser == NULL)
		return NULL;
	free(parser->line.bytes);
	free(parser->type.bytes);
	free(parser->data.bytes);
	free(parser->id.bytes);
	free(parser);
	return NULL;
}

/* The empty line: what was collected is an event. */
static int dispatch(struct sse_parser *parser)
{
	bool go_on = true;
	if (parser->has_data || parser->has_type) {
		struct sse_event event = {
			.type = parser->type.n > 0 ? parser->type.bytes : "message",
			.id = buffer_text(&parser->id),
			.data = buffer_text(&parser->data),
			.data_length = parser->data.n,
		};
		go_on = parser->handler(parser->context, &event);
	}
	parser->has_data = parser->has_type = false;
	parser->type.n = parser->data.n = 0;
	return go_on ? 0 : -ECANCELED;
}

static int take_field(struct sse_parser *parser, const char *name, size_t name_length, const char *value, size_t n)
{
	if (name_length == 4 && memcmp(name, "data", 4) == 0) {
		int r = parser->has_data ? buffer_add(&parser->data, "\n", 1) : 0;
		parser->has_data = true;
		return r < 0 ? r : buffer_add(&parser->data, value, n);
	}
	if (name_length == 5 && memcmp(name, "event", 5) == 0) {
		parser->has_type = true;
		return buffer_set(&parser->type, value, n);
	}
	if (name_length == 2 && memcmp(name, "id", 2) == 0)
		return buffer_set(&parser->id, value, n);
	return 0; /* retry is for browsers; unknown fields are ignored */
}

static int end_line(struct sse_parser *parser)
{
	size_t n = parser->line.n;
	const char *line = buffer_text(&parser->line);
	parser->line.n = 0;
	if (n == 0)
		return dispatch(parser);
	const char *colon = memchr(line, ':', n);
	if (colon == line)
		return 0; /* a comment */
	if (colon == NULL)
		return take_field(parser, line, n, "", 0);
	const char *value = colon + 1;
	if (value < line + n && *value == ' ')
		value++;
	return take_field(parser, line, (size_t)(colon - line), value, (size_t)(line + n - value));
}

/* True when the byte is part of a byte order mark at the very start of the stream. */
static bool skip_mark(struct sse_parser *parser, char byte)
{
	static const char mark[] = { '\xef', '\xbb', '\xbf' };
	if (parser->n_start >= sizeof(mark))
		return false;
	if (byte == mark[parser->n_start]) {
		parser->n_start++;
		return true;
	}
	parser->n_start = sizeof(mark);
	return false;
}

static int feed_byte(struct sse_parser *parser, char byte)
{
	bool after_return = parser->after_return;
	parser->after_return = byte == '\r';
	if (skip_mark(parser, byte) || byte == '\0' || (byte == '\n' && after_return))
		return 0;
	if (byte == '\r' || byte == '\n')
		return end_line(parser);
	return buffer_add(&parser->line, &byte, 1);
}

int sse_feed(struct sse_parser *parser, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = feed_byte(parser, bytes[i]);
		if (r < 0)
			return r;
	}
	return 0;
}
