/* Making, filling and ending of requests. Decides nothing about them. */
#include "api/request.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/broken.h"
#include "api/server.h"
#include "api/stream.h"
#include "base/cleanup.h"

/* A decoded segment must not bring in what the cutting relied on, or what would garble a log. */
static bool is_clean(const char *segment)
{
	for (const char *c = segment; *c != 0; c++)
		if (*c == '/' || (unsigned char)*c < ' ' || *c == 0x7f)
			return false;
	return true;
}

/* "/gpu/service/a%20b/start?x=1" into decoded segments and the query. */
static bool cut_target(struct request *request)
{
	char *path = request->target;
	if (*path != '/')
		return false;
	path++;
	char *query = strpbrk(path, "?#");
	if (query != NULL) {
		request->query = *query == '?' ? query + 1 : NULL;
		*query = 0;
	}
	char *segment;
	while ((segment = strsep(&path, "/")) != NULL) {
		if (request->n_segments == SEGMENTS_MAX || percent_decode(segment, false) < 0 || !is_clean(segment))
			return false;
		request->segments[request->n_segments++] = segment;
	}
	return true;
}

struct request *request_new(
	struct api *api, struct client *client, struct MHD_Connection *connection, const char *target)
{
	struct request *request = calloc(1, sizeof(*request));
	if (request == NULL)
		return NULL;
	request->api = api;
	request->client = client;
	request->connection = connection;
	parameters_init(&request->parameters);
	request->target = strdup(target);
	if (request->target == NULL)
		return request_free(request);
	request->target_bad = !cut_target(request);
	return request;
}

struct request *request_free(struct request *request)
{
	if (request == NULL)
		return NULL;
	watch_stop(request);
	if (request->ticket != 0)
		tickets_remove(&request->api->tickets, request);
	broken_finish(request);
	if (request->stream != NULL)
		stream_detach(request->stream);
	if (request->response != NULL && !request->response_is_shared)
		MHD_destroy_response(request->response);
	parameters_finish(&request->parameters);
	free(request->target);
	free(request->body);
	free(request);
	return NULL;
}

static const struct header {
	const char *name;
	size_t offset;
	bool once; /* twice is an attack, or as bad as one */
} known_headers[] = {
	{ "Host", offsetof(struct headers, host), true },
	{ "Origin", offsetof(struct headers, origin), true },
	{ "Authorization", offsetof(struct headers, authorization), true },
	{ "Accept", offsetof(struct headers, accept), false },
	{ "Content-Type", offsetof(struct headers, content_type), true },
	{ "Content-Length", offsetof(struct headers, content_length), true },
	{ "Transfer-Encoding", offsetof(struct headers, transfer_encoding), true },
	{ "Last-Event-ID", offsetof(struct headers, last_event_id), false },
	{ "Expect", offsetof(struct headers, expect), false },
};

/* RFC 9110, 5.6.2. */
static bool is_token(const char *name)
{
	const char *c = name;
	while (isalnum((unsigned char)*c) || (*c != 0 && strchr("!#$%&'*+-.^_`|~", *c) != NULL))
		c++;
	return c > name && *c == 0;
}

/*
 * libmicrohttpd leaves blanks before the colon in the name, and of a value that begins on the next line it makes the
 * end of the name ("Transfer-Encodingchunked"). It knows neither as the header that it is, and would read the body as
 * one more request.
 */
static bool is_name(const char *key)
{
	static const char *const framing[] = { "Content-Length", "Transfer-Encoding" };
	for (size_t i = 0; i < ARRAY_SIZE(framing); i++)
		if (strncasecmp(key, framing[i], strlen(framing[i])) == 0)
			return key[strlen(framing[i])] == 0;
	return is_token(key);
}

static enum MHD_Result handle_header(void *context, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct headers *headers = context;
	(void)kind;
	if (!is_name(key))
		headers->malformed = true;
	for (size_t i = 0; i < ARRAY_SIZE(known_headers); i++) {
		if (strcasecmp(known_headers[i].name, key) != 0)
			continue;
		const char **field = (const char **)((char *)headers + known_headers[i].offset);
		if (*field != NULL && known_headers[i].once)
			headers->repeated = true;
		*field = value != NULL ? value : "";
	}
	return MHD_YES;
}

void request_read_headers(struct request *request)
{
	MHD_get_connection_values(request->connection, MHD_HEADER_KIND, handle_header, &request->headers);
}

bool request_has_body(const struct request *request)
{
	const struct headers *headers = &request->headers;
	return headers->transfer_encoding != NULL ||
		(headers->content_length != NULL &&
			strspn(headers->content_length, "0") != strlen(headers->content_length));
}

int request_add_body(struct request *request, const char *data, size_t length)
{
	if (request->body_discarded > 0 || length > API_BODY_MAX - request->body_length) {
		request->body_discarded += length;
		return -E2BIG;
	}
	char *grown = realloc(request->body, request->body_length + length);
	if (grown == NULL)
		return -ENOMEM;
	memcpy(grown + request->body_length, data, length);
	request->body = grown;
	request->body_length += length;
	return 0;
}

void request_drop_body(struct request *request)
{
	free(request->body);
	request->body = NULL;
	request->body_length = 0;
}

const char *request_title(const struct request *request, char *buffer, size_t size)
{
	size_t used = (size_t)snprintf(buffer, size, "%s ", request->method);
	for (size_t i = 0; i < request->n_segments && used < size; i++)
		used += (size_t)snprintf(buffer + used, size - used, "/%s", request->segments[i]);
	return buffer;
}
