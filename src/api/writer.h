/*
 * JSON as text, written from left to right without a tree in between: a page of thousands of entries is made in one
 * buffer, and an event in a microsecond.
 *
 * `key` names a member; it is NULL in lists and for the outermost value. Keys are our own: they are not escaped.
 * Memory that runs out is remembered: there is no text then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct writer {
	char *text; /* owned */
	size_t length;
	size_t capacity;
	bool has_failed;
};

#define CLEANUP_WRITER CLEANUP(writer_finish)

void writer_finish(struct writer *writer);
/* What was written, from malloc, not terminated; NULL: no memory. The writer is empty then. */
char *writer_take(struct writer *writer, size_t *ret_length);

/* '{' or '[', and '}' or ']'. */
void writer_open(struct writer *writer, const char *key, char bracket);
void writer_close(struct writer *writer, char bracket);

void writer_null(struct writer *writer, const char *key);
void writer_bool(struct writer *writer, const char *key, bool value);
void writer_integer(struct writer *writer, const char *key, int64_t value);
void writer_integer_or_null(struct writer *writer, const char *key, bool is_known, int64_t value);
/* Text that may hold bytes from outside (names of processes, output of services): what is not UTF-8 becomes U+FFFD. */
void writer_text(struct writer *writer, const char *key, const char *text);
/* The same, null for NULL and "". */
void writer_text_or_null(struct writer *writer, const char *key, const char *text);
/* Milliseconds as seconds: 0.25, 30. */
void writer_seconds(struct writer *writer, const char *key, uint64_t ms);
/* Seconds since the epoch as RFC 3339 in UTC with milliseconds; null for what no calendar has. */
void writer_wall_time(struct writer *writer, const char *key, double seconds);
/* A value that is JSON already. */
void writer_json(struct writer *writer, const char *key, const char *json, size_t length);

/* Bytes as they are: what surrounds JSON. */
void writer_raw(struct writer *writer, const char *bytes, size_t length);
