/* Reads answers as a strict client would, and JSON as any client would. */
#include "http_answers.h"

#include <jansson.h>
#include <strings.h>

#include "api/problem.h"
#include "fuzz.h"

struct answer {
	unsigned status;
	char type[64];
	bool has_length, is_chunked, closes;
	size_t length;
	char *body; /* owned */
	size_t body_length;
};

struct reader {
	const char *at, *end;
};

/* A line without its end. False: the bytes end before. */
static bool take_line(struct reader *reader, const char **ret_line, size_t *ret_length)
{
	const char *end = memmem(reader->at, (size_t)(reader->end - reader->at), "\r\n", 2);
	if (end == NULL)
		return false;
	*ret_line = reader->at;
	*ret_length = (size_t)(end - reader->at);
	reader->at = end + 2;
	for (size_t i = 0; i < *ret_length; i++)
		FUZZ_CHECK((unsigned char)(*ret_line)[i] >= ' ' || (*ret_line)[i] == '\t');
	return true;
}

static void take_header(struct answer *answer, const char *line, size_t length)
{
	char name[64] = "", value[256] = "";
	const char *colon = memchr(line, ':', length);
	FUZZ_CHECK(colon != NULL && colon > line && colon[1] == ' ');
	snprintf(name, sizeof(name), "%.*s", (int)(colon - line), line);
	snprintf(value, sizeof(value), "%.*s", (int)(length - (size_t)(colon + 2 - line)), colon + 2);
	FUZZ_CHECK(strpbrk(name, " \t") == NULL);
	if (strcasecmp(name, "Content-Length") == 0) {
		FUZZ_CHECK(!answer->has_length && strspn(value, "0123456789") == strlen(value));
		answer->has_length = true;
		answer->length = strtoull(value, NULL, 10);
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		FUZZ_CHECK(strcasecmp(value, "chunked") == 0);
		answer->is_chunked = true;
	} else if (strcasecmp(name, "Connection") == 0) {
		answer->closes |= strcasestr(value, "close") != NULL;
	} else if (strcasecmp(name, "Content-Type") == 0) {
		snprintf(answer->type, sizeof(answer->type), "%s", value);
	}
}

static void take_status(struct answer *answer, const char *line, size_t length)
{
	FUZZ_CHECK(length > 12 && (memcmp(line, "HTTP/1.1 ", 9) == 0 || memcmp(line, "HTTP/1.0 ", 9) == 0));
	for (int i = 9; i < 12; i++)
		FUZZ_CHECK(line[i] >= '0' && line[i] <= '9');
	answer->status = (unsigned)strtoul(line + 9, NULL, 10);
	FUZZ_CHECK(answer->status >= 100 && answer->status <= 599);
}

/* False: the bytes end before the headers do. */
static bool take_head(struct reader *reader, struct answer *answer)
{
	const char *line;
	size_t length;
	if (!take_line(reader, &line, &length))
		return false;
	take_status(answer, line, length);
	while (take_line(reader, &line, &length)) {
		if (length == 0)
			return true;
		take_header(answer, line, length);
	}
	return false;
}

static void add_body(struct answer *answer, const char *bytes, size_t n)
{
	char *grown = realloc(answer->body, answer->body_length + n + 1);
	FUZZ_CHECK(grown != NULL);
	memcpy(grown + answer->body_length, bytes, n);
	answer->body = grown;
	answer->body_length += n;
	answer->body[answer->body_length] = '\0';
}

/* False: the bytes end before the last chunk. */
static bool take_chunks(struct reader *reader, struct answer *answer)
{
	const char *line;
	size_t length;
	while (take_line(reader, &line, &length)) {
		char text[32] = "", *end;
		snprintf(text, sizeof(text), "%.*s", (int)length, line);
		size_t n = strtoul(text, &end, 16);
		FUZZ_CHECK(length > 0 && *end == '\0');
		if (n == 0)
			return take_line(reader, &line, &length) && length == 0;
		if ((size_t)(reader->end - reader->at) < n + 2)
			return false;
		add_body(answer, reader->at, n);
		reader->at += n;
		FUZZ_CHECK(memcmp(reader->at, "\r\n", 2) == 0);
		reader->at += 2;
	}
	return false;
}

static bool is_next_answer(const struct reader *reader)
{
	size_t left = (size_t)(reader->end - reader->at);
	return left == 0 || (left >= 7 && memcmp(reader->at, "HTTP/1.", 7) == 0);
}

/* False: the bytes end before the body does. */
static bool take_body(struct reader *reader, struct answer *answer, bool may_have_no_body)
{
	size_t left = (size_t)(reader->end - reader->at);
	if (answer->status < 200 || answer->status == 204 || answer->status == 304)
		return true;
	if (may_have_no_body && is_next_answer(reader))
		return true; /* of a HEAD */
	if (answer->is_chunked) {
		FUZZ_CHECK(!answer->has_length);
		return take_chunks(reader, answer);
	}
	size_t n = answer->has_length ? answer->length : left;
	if (n > left)
		return false;
	add_body(answer, reader->at, n);
	reader->at += n;
	answer->closes |= !answer->has_length;
	return true;
}

static void check_problem(const struct answer *answer, const json_t *json)
{
	const char *code = json_string_value(json_object_get(json, "code"));
	const char *detail = json_string_value(json_object_get(json, "detail"));
	FUZZ_CHECK(code != NULL && detail != NULL && json_is_false(json_object_get(json, "success")));
	FUZZ_CHECK(json_integer_value(json_object_get(json, "status")) == (json_int_t)answer->status);
	bool is_of_lease = answer->status == 409 && strcmp(code, "bad_request") == 0;
	FUZZ_CHECK((problem_status(code) == answer->status || is_of_lease) && answer->status >= 400);
	FUZZ_CHECK(json_is_string(json_object_get(json, "title")) && json_is_string(json_object_get(json, "type")));
}

static void check_json(const struct answer *answer)
{
	json_error_t error;
	json_t *json = json_loadb(answer->body, answer->body_length, JSON_REJECT_DUPLICATES, &error);
	if (json == NULL)
		fprintf(stderr, "%s at %d in %s\n", error.text, error.position, answer->body);
	FUZZ_CHECK(json != NULL);
	if (strcmp(answer->type, PROBLEM_TYPE) == 0)
		check_problem(answer, json);
	json_decref(json);
}

static void check_data(const char *data, size_t length)
{
	json_t *json = json_loadb(data, length, JSON_REJECT_DUPLICATES, NULL);
	FUZZ_CHECK(json != NULL);
	json_decref(json);
}

/* Whole lines only; the last may have been cut. */
static void check_events(const struct answer *answer)
{
	const char *at = answer->body, *end = answer->body + answer->body_length, *newline;
	for (; at < end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL; at = newline + 1) {
		size_t length = (size_t)(newline - at);
		FUZZ_CHECK(memchr(at, '\r', length) == NULL && memchr(at, '\0', length) == NULL);
		if (length > 6 && memcmp(at, "data: ", 6) == 0)
			check_data(at + 6, length - 6);
		else
			FUZZ_CHECK(length == 0 || at[0] == ':' || memcmp(at, "id: ", 4) == 0 ||
				memcmp(at, "event: ", 7) == 0 || memcmp(at, "retry: ", 7) == 0);
	}
}

static void check_content(const struct answer *answer, bool is_whole)
{
	if (answer->body == NULL)
		return;
	if (strncmp(answer->type, "text/event-stream", 17) == 0)
		check_events(answer);
	else if (is_whole && strstr(answer->type, "json") != NULL)
		check_json(answer);
}

/* libmicrohttpd's own refusals have no type, and some begin twice; see server.c. */
static void skip_second_head(struct reader *reader, const struct answer *answer, const char *head)
{
	size_t length = (size_t)(reader->at - head), left = (size_t)(reader->end - reader->at);
	bool is_the_librarys =
		answer->status >= 400 && answer->status < 500 && answer->type[0] == '\0' && answer->closes;
	if (is_the_librarys && left >= length && memcmp(reader->at, head, length) == 0)
		reader->at += length;
}

static bool is_endless(const struct answer *answer)
{
	return answer->is_chunked || !answer->has_length;
}

unsigned http_answers_check(const char *text, size_t length, bool may_be_cut, bool may_have_no_body)
{
	struct reader reader = { .at = text, .end = text + length };
	unsigned n = 0;
	while (reader.at < reader.end) {
		struct answer answer = { 0 };
		const char *head = reader.at;
		bool has_head = take_head(&reader, &answer);
		skip_second_head(&reader, &answer, head);
		bool is_whole = has_head && take_body(&reader, &answer, may_have_no_body);
		check_content(&answer, is_whole);
		FUZZ_CHECK(is_whole || (has_head && may_be_cut && is_endless(&answer)));
		n += answer.status >= 200;
		free(answer.body);
		if (!is_whole)
			break;
		FUZZ_CHECK(!answer.closes || reader.at == reader.end);
	}
	return n;
}
