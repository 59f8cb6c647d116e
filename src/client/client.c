/*
 * Requests over libcurl. One request at a time waits in curl_multi_poll(), so that signals and ticks are noticed. Never
 * follows a redirect, never uses a proxy: the token is for the daemon alone.
 */
#include "client/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define BODY_MAX (64 * 1024 * 1024)
#define TICK_MS 80
#define CONNECT_TIMEOUT_MS 5000L

struct client {
	const struct client_address *address;
};

/* One request under way. */
struct exchange {
	const struct client *client;
	const struct client_request *request;
	CURL *easy;
	struct curl_slist *headers;
	struct sse_parser *parser;
	bool is_open; /* handle_open() was called */
	bool is_known; /* the kind of the body was decided */
	bool is_events;
	bool is_bytes;
	bool stopped;
	int failure; /* of a callback, negative errno */
	struct client_answer answer;
	size_t capacity;
	char curl_error[CURL_ERROR_SIZE];
};

struct client *client_new(const struct client_address *address)
{
	struct client *client = calloc(1, sizeof(*client));
	if (client == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(client);
		return NULL;
	}
	client->address = address;
	return client;
}

struct client *client_free(struct client *client)
{
	if (client != NULL)
		curl_global_cleanup();
	free(client);
	return NULL;
}

void client_answer_finish(struct client_answer *answer)
{
	free(answer->body);
	json_decref(answer->json);
	*answer = (struct client_answer){ 0 };
}

static bool has_type(CURL *easy, const char *type)
{
	char *given = NULL;
	size_t n = strlen(type);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &given);
	return given != NULL && strncasecmp(given, type, n) == 0 && strchr("; \t", given[n]) != NULL;
}

static bool is_json(CURL *easy)
{
	return has_type(easy, "application/json") || has_type(easy, "application/problem+json");
}

static void decide_kind(struct exchange *exchange)
{
	exchange->is_known = true;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &exchange->answer.status);
	bool is_good = exchange->answer.status >= 200 && exchange->answer.status < 300;
	exchange->is_events = exchange->parser != NULL && has_type(exchange->easy, "text/event-stream");
	exchange->is_bytes = exchange->request->handle_bytes != NULL && is_good;
	exchange->answer.streamed = exchange->is_events || exchange->is_bytes;
}

static int keep(struct exchange *exchange, const char *bytes, size_t n)
{
	struct client_answer *answer = &exchange->answer;
	if (n > BODY_MAX || answer->length > BODY_MAX - n)
		return -EMSGSIZE;
	if (answer->length + n + 1 > exchange->capacity) {
		size_t capacity = (answer->length + n + 1) * 2;
		char *grown = realloc(answer->body, capacity);
		if (grown == NULL)
			return -ENOMEM;
		answer->body = grown;
		exchange->capacity = capacity;
	}
	memcpy(answer->body + answer->length, bytes, n);
	answer->length += n;
	answer->body[answer->length] = '\0';
	return 0;
}

static size_t handle_header(char *line, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	long status = 0;
	if (line[0] != '\r' && line[0] != '\n')
		return size * count;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 200 && status < 300 && !exchange->is_open && exchange->request->handle_open != NULL) {
		exchange->is_open = true;
		exchange->request->handle_open(exchange->request->context);
	}
	return size * count;
}

static size_t handle_body(char *bytes, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	size_t n = size * count;
	int r = 0;
	if (!exchange->is_known)
		decide_kind(exchange);
	if (exchange->is_events)
		r = sse_feed(exchange->parser, bytes, n);
	else if (exchange->is_bytes)
		r = exchange->request->handle_bytes(exchange->request->context, bytes, n) ? 0 : -ECANCELED;
	else
		r = keep(exchange, bytes, n);
	exchange->failure = r;
	exchange->stopped |= r == -ECANCELED;
	return r == 0 ? n : 0;
}

static int add_header(struct exchange *exchange, const char *name, const char *value)
{
	CLEANUP_FREE char *line = NULL;
	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	struct curl_slist *headers = curl_slist_append(exchange->headers, line);
	explicit_bzero(line, strlen(line));
	if (headers == NULL)
		return -ENOMEM;
	exchange->headers = headers;
	return 0;
}

static int add_headers(struct exchange *exchange)
{
	const struct client_request *request = exchange->request;
	const struct client_address *address = exchange->client->address;
	CLEANUP_FREE char *bearer = NULL;
	const char *accept = request->handle_event != NULL ? "text/event-stream, application/json"
		: request->handle_bytes != NULL            ? "text/plain, application/json"
							   : "application/json";
	int r = add_header(exchange, "Accept", accept);
	if (r == 0 && request->last_event_id != NULL)
		r = add_header(exchange, "Last-Event-ID", request->last_event_id);
	if (r < 0 || address->url == NULL || address->token == NULL)
		return r;
	if (asprintf(&bearer, "Bearer %s", address->token) < 0) {
		bearer = NULL;
		return -ENOMEM;
	}
	r = add_header(exchange, "Authorization", bearer);
	explicit_bzero(bearer, strlen(bearer));
	return r;
}

static int set_target(struct exchange *exchange)
{
	const struct client_address *address = exchange->client->address;
	CLEANUP_FREE char *url = NULL;
	if (asprintf(&url, "%s%s", address->url != NULL ? address->url : "http://localhost", exchange->request->path) <
		0) {
		url = NULL;
		return -ENOMEM;
	}
	if (address->socket != NULL)
		curl_easy_setopt(exchange->easy, CURLOPT_UNIX_SOCKET_PATH, address->socket);
	return curl_easy_setopt(exchange->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -ENOMEM;
}

static void set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static int set_options(struct exchange *exchange)
{
	CURL *easy = exchange->easy;
	const char *method = exchange->request->method;
	set_protocols(easy);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "gpumgr/" GPUMGR_VERSION);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_error);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, handle_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, handle_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	if (strcmp(method, "POST") == 0) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
	} else if (strcmp(method, "GET") != 0) {
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	}
	int r = add_headers(exchange);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
	return r < 0 ? r : set_target(exchange);
}

static bool is_interrupted(const struct client_request *request)
{
	return request->interrupted != NULL && *request->interrupted != 0;
}

/* How long to sleep at most; 0: the deadline has passed. */
static int sleep_ms(const struct client_request *request, uint64_t begin)
{
	uint64_t most = request->handle_tick != NULL || request->interrupted != NULL ? TICK_MS : 1000;
	if (request->deadline_ms == 0)
		return (int)most;
	uint64_t passed = clock_now_ms() - begin;
	if (passed >= request->deadline_ms)
		return 0;
	uint64_t left = request->deadline_ms - passed;
	return (int)(left < most ? left : most);
}

/* Drives the transfer to its end. 0 and libcurl's result, or -ETIMEDOUT, -ECANCELED, -ENOMEM. */
static int drive(struct exchange *exchange, CURLM *multi, CURLcode *ret_result)
{
	const struct client_request *request = exchange->request;
	uint64_t begin = clock_now_ms();
	uint64_t last_tick = begin;
	for (;;) {
		int running = 0, left;
		if (curl_multi_perform(multi, &running) != CURLM_OK)
			return -ENOMEM;
		CURLMsg *message = curl_multi_info_read(multi, &left);
		if (message != NULL && message->msg == CURLMSG_DONE) {
			*ret_result = message->data.result;
			return 0;
		}
		int wait_ms = sleep_ms(request, begin);
		if (wait_ms == 0)
			return -ETIMEDOUT;
		if (is_interrupted(request))
			return -ECANCELED;
		if (request->handle_tick != NULL && clock_now_ms() - last_tick >= TICK_MS) {
			last_tick = clock_now_ms();
			if (!request->handle_tick(request->context))
				return -ECANCELED;
		}
		curl_multi_poll(multi, NULL, 0, wait_ms, NULL);
	}
}

/* Why the socket cannot be connected to: asked again, for libcurl does not always tell. 0: now it can. */
static int socket_errno(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
}

static enum client_outcome explain_socket(const char *path, struct error *err)
{
	int why = socket_errno(path);
	if (why == EACCES || why == EPERM) {
		error_set(err, 0, "permission denied on the socket %s", path);
		return CLIENT_FORBIDDEN;
	}
	if (why == ENOENT || why == ENOTDIR)
		error_set(err, 0, "no socket at %s", path);
	else if (why == ECONNREFUSED)
		error_set(err, 0, "nobody listens on the socket %s", path);
	else
		error_set(err, 0, "cannot connect to the socket %s: %s", path, strerror(why));
	return CLIENT_NO_DAEMON;
}

static const char *target(const struct exchange *exchange)
{
	const struct client_address *address = exchange->client->address;
	return address->url != NULL ? address->url : address->socket;
}

static enum client_outcome explain_result(struct exchange *exchange, CURLcode result, struct error *err)
{
	const struct client_address *address = exchange->client->address;
	const char *words = exchange->curl_error[0] != '\0' ? exchange->curl_error : curl_easy_strerror(result);
	switch (result) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		if (address->socket != NULL)
			return explain_socket(address->socket, err);
		error_set(err, 0, "cannot connect to %s: %s", address->url, words);
		return CLIENT_NO_DAEMON;
	case CURLE_OPERATION_TIMEDOUT: /* only connecting has a timeout of libcurl's */
		error_set(err, 0, "cannot connect to %s: no answer within 5 s", target(exchange));
		return CLIENT_NO_DAEMON;
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		error_set(err, 0, "the connection to %s broke off: gpumgrd may have ended", target(exchange));
		return CLIENT_BAD_ANSWER;
	default:
		error_set(err, 0, "%s: %s (is that gpumgrd?)", target(exchange), words);
		return CLIENT_BAD_ANSWER;
	}
}

static enum client_outcome explain_failure(struct exchange *exchange, int failure, struct error *err)
{
	switch (failure) {
	case -ECANCELED:
		error_set(err, 0, "interrupted");
		return CLIENT_STOPPED;
	case -ETIMEDOUT:
		error_set(err, 0, "no answer from %s within %g s", target(exchange),
			(double)exchange->request->deadline_ms / 1000);
		return CLIENT_TIMED_OUT;
	case -EMSGSIZE:
		error_set(err, 0, "%s: the answer is too long (is that gpumgrd?)", target(exchange));
		return CLIENT_BAD_ANSWER;
	default:
		error_set(err, 0, "%s", strerror(-failure));
		return CLIENT_BAD_ANSWER;
	}
}

/* Of a whole answer: its JSON, where it says that it is. */
static enum client_outcome take_json(struct exchange *exchange, struct error *err)
{
	struct client_answer *answer = &exchange->answer;
	json_error_t where;
	if (!is_json(exchange->easy))
		return CLIENT_ANSWERED;
	answer->json = json_loadb(answer->length > 0 ? answer->body : "", answer->length, 0, &where);
	if (answer->json != NULL)
		return CLIENT_ANSWERED;
	error_set(err, 0, "%s: the answer is broken JSON: %s (is that gpumgrd?)", target(exchange), where.text);
	return CLIENT_BAD_ANSWER;
}

static enum client_outcome run(struct exchange *exchange, CURLM *multi, struct error *err)
{
	CURLcode result = CURLE_OK;
	int r = set_options(exchange);
	if (r == 0 && curl_multi_add_handle(multi, exchange->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r == 0)
		r = drive(exchange, multi, &result);
	if (r == 0 && exchange->failure != 0)
		r = exchange->failure;
	if (r < 0)
		return explain_failure(exchange, r, err);
	if (result != CURLE_OK)
		return explain_result(exchange, result, err);
	if (!exchange->is_known)
		decide_kind(exchange);
	return exchange->answer.streamed ? CLIENT_ANSWERED : take_json(exchange, err);
}

enum client_outcome client_ask(struct client *client, const struct client_request *request,
	struct client_answer *ret_answer, struct error *err)
{
	struct exchange exchange = { .client = client, .request = request };
	enum client_outcome outcome = CLIENT_BAD_ANSWER;
	CURLM *multi = curl_multi_init();
	exchange.easy = curl_easy_init();
	if (request->handle_event != NULL)
		exchange.parser = sse_parser_new(request->handle_event, request->context);
	if (multi != NULL && exchange.easy != NULL && (request->handle_event == NULL || exchange.parser != NULL))
		outcome = run(&exchange, multi, err);
	else
		error_set(err, 0, "out of memory");
	if (multi != NULL && exchange.easy != NULL)
		curl_multi_remove_handle(multi, exchange.easy);
	curl_easy_cleanup(exchange.easy);
	curl_multi_cleanup(multi);
	curl_slist_free_all(exchange.headers);
	sse_parser_free(exchange.parser);
	if (outcome == CLIENT_ANSWERED)
		*ret_answer = exchange.answer;
	else
		client_answer_finish(&exchange.answer);
	return outcome;
}
