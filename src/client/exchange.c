/* HTTP over libcurl, one request at a time. Must not block, and must not keep the token after the request. */
#include "client/exchange.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "gpumgr.h"

#define BODY_MAX (64 * 1024 * 1024)
#define CONNECT_TIMEOUT_MS 5000L

struct exchange {
	struct pump *pump;
	const struct client_address *address;
	struct exchange_request request; /* its texts are not used after the beginning */
	CURL *easy;
	struct curl_slist *headers;
	struct sse_parser *parser;
	bool is_open; /* the end of the headers was seen */
	bool is_known; /* the kind of the body was decided */
	bool is_events;
	bool is_bytes;
	bool is_over;
	CURLcode result;
	int failure; /* of a handler, or of keeping the body: negative errno */
	uint64_t heard_ms;
	long status;
	char type[128];
	char *body;
	size_t length;
	size_t capacity;
	char curl_error[CURL_ERROR_SIZE];
};

/* ---- the answer ---- */

static void read_type(struct exchange *exchange)
{
	char *given = NULL;
	size_t i;
	curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_TYPE, &given);
	for (i = 0; given != NULL && strchr("; \t", given[i]) == NULL && i + 1 < sizeof(exchange->type); i++)
		exchange->type[i] = (char)tolower((unsigned char)given[i]);
	exchange->type[i] = '\0';
}

static void decide_kind(struct exchange *exchange)
{
	if (exchange->is_known)
		return;
	exchange->is_known = true;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &exchange->status);
	read_type(exchange);
	bool is_good = exchange->status >= 200 && exchange->status < 300;
	exchange->is_events = exchange->parser != NULL && is_good && strcmp(exchange->type, "text/event-stream") == 0;
	exchange->is_bytes =
		exchange->request.handle_bytes != NULL && is_good && strcmp(exchange->type, "text/plain") == 0;
}

static int keep(struct exchange *exchange, const char *bytes, size_t n)
{
	if (n > BODY_MAX || exchange->length > BODY_MAX - n)
		return -EMSGSIZE;
	if (exchange->length + n + 1 > exchange->capacity) {
		size_t capacity = (exchange->length + n + 1) * 2;
		char *grown = realloc(exchange->body, capacity);
		if (grown == NULL)
			return -ENOMEM;
		exchange->body = grown;
		exchange->capacity = capacity;
	}
	memcpy(exchange->body + exchange->length, bytes, n);
	exchange->length += n;
	exchange->body[exchange->length] = '\0';
	return 0;
}

static size_t handle_header(char *line, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	long status = 0;
	exchange->heard_ms = clock_now_ms();
	if (line[0] != '\r' && line[0] != '\n')
		return size * count;
	curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || exchange->is_open)
		return size * count; /* 1xx: the answer is still to come */
	decide_kind(exchange);
	exchange->is_open = true;
	if (exchange_was_streamed(exchange) && exchange->request.handle_open != NULL &&
		!exchange->request.handle_open(exchange->request.context)) {
		exchange->failure = -ENOMEM;
		return 0;
	}
	return size * count;
}

static size_t handle_body(char *bytes, size_t size, size_t count, void *context)
{
	struct exchange *exchange = context;
	size_t n = size * count;
	int r;
	exchange->heard_ms = clock_now_ms();
	decide_kind(exchange);
	if (exchange->is_events)
		r = sse_feed(exchange->parser, bytes, n);
	else if (exchange->is_bytes)
		r = exchange->request.handle_bytes(exchange->request.context, bytes, n) ? 0 : -ENOMEM;
	else
		r = keep(exchange, bytes, n);
	exchange->failure = r == -ECANCELED ? -ENOMEM : r;
	return r == 0 ? n : 0;
}

/* ---- the request ---- */

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

static int add_token(struct exchange *exchange)
{
	CLEANUP_FREE char *bearer = NULL;
	if (exchange->address->url == NULL || exchange->address->token == NULL)
		return 0;
	if (asprintf(&bearer, "Bearer %s", exchange->address->token) < 0) {
		bearer = NULL;
		return -ENOMEM;
	}
	int r = add_header(exchange, "Authorization", bearer);
	explicit_bzero(bearer, strlen(bearer));
	return r;
}

static int add_headers(struct exchange *exchange, const struct exchange_request *request)
{
	const char *accept = request->handle_event != NULL && request->handle_bytes != NULL
		? "text/event-stream, text/plain, application/json"
		: request->handle_event != NULL ? "text/event-stream, application/json"
						: "application/json";
	int r = add_header(exchange, "Accept", accept);
	if (r == 0 && request->last_event_id != NULL)
		r = add_header(exchange, "Last-Event-ID", request->last_event_id);
	if (r == 0 && request->body != NULL)
		r = add_header(exchange, "Content-Type", "application/json");
	/* libcurl would ask for a "100 Continue" first and wait for it. */
	if (r == 0 && request->body != NULL)
		r = add_header(exchange, "Expect", "");
	return r < 0 ? r : add_token(exchange);
}

static int set_target(struct exchange *exchange, const char *path)
{
	const struct client_address *address = exchange->address;
	CLEANUP_FREE char *url = NULL;
	if (asprintf(&url, "%s%s", address->url != NULL ? address->url : "http://localhost", path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	if (address->socket != NULL)
		curl_easy_setopt(exchange->easy, CURLOPT_UNIX_SOCKET_PATH, address->socket);
	return curl_easy_setopt(exchange->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -ENOMEM;
}

static int set_method(struct exchange *exchange, const struct exchange_request *request)
{
	CURL *easy = exchange->easy;
	if (strcmp(request->method, "POST") != 0 && request->body == NULL) {
		if (strcmp(request->method, "GET") == 0)
			return 0;
		return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK ? 0 : -ENOMEM;
	}
	const char *body = request->body != NULL ? request->body : "";
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
	if (curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, body) != CURLE_OK)
		return -ENOMEM;
	return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK ? 0 : -ENOMEM;
}

static void set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static void set_behaviour(struct exchange *exchange)
{
	CURL *easy = exchange->easy;
	set_protocols(easy);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "gpumgr/" GPUMGR_VERSION);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, exchange->request.connects_anew ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->curl_error);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, handle_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, handle_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
}

static int set_options(struct exchange *exchange, const struct exchange_request *request)
{
	set_behaviour(exchange);
	int r = set_method(exchange, request);
	if (r == 0)
		r = add_headers(exchange, request);
	if (r == 0 && curl_easy_setopt(exchange->easy, CURLOPT_HTTPHEADER, exchange->headers) != CURLE_OK)
		r = -ENOMEM;
	return r < 0 ? r : set_target(exchange, request->path);
}

int exchange_begin(struct pump *pump, const struct client_address *address, const struct exchange_request *request,
	struct exchange **ret_exchange)
{
	struct exchange *exchange = calloc(1, sizeof(*exchange));
	if (exchange == NULL)
		return -ENOMEM;
	exchange->pump = pump;
	exchange->address = address;
	exchange->request = *request;
	exchange->heard_ms = clock_now_ms();
	exchange->easy = pump_easy(pump);
	if (request->handle_event != NULL)
		exchange->parser = sse_parser_new(request->handle_event, request->context);
	int r = exchange->easy == NULL || (request->handle_event != NULL && exchange->parser == NULL) ? -ENOMEM : 0;
	if (r == 0)
		r = set_options(exchange, request);
	if (r == 0)
		r = pump_add(pump, exchange->easy);
	if (r < 0)
		exchange_free(exchange);
	else
		*ret_exchange = exchange;
	return r;
}

struct exchange *exchange_free(struct exchange *exchange)
{
	if (exchange == NULL)
		return NULL;
	pump_remove(exchange->pump, exchange->easy);
	curl_slist_free_all(exchange->headers);
	sse_parser_free(exchange->parser);
	free(exchange->body);
	free(exchange);
	return NULL;
}

void exchange_done(void *context, CURLcode result)
{
	struct exchange *exchange = context;
	exchange->is_over = true;
	exchange->result = result;
	/* An answer without a body was not looked at yet. */
	if (result == CURLE_OK)
		decide_kind(exchange);
}

/* ---- reading it ---- */

bool exchange_is_over(const struct exchange *exchange)
{
	return exchange->is_over;
}

bool exchange_was_answered(const struct exchange *exchange)
{
	return exchange->is_known;
}

uint64_t exchange_heard_ms(const struct exchange *exchange)
{
	return exchange->heard_ms;
}

int exchange_status(const struct exchange *exchange)
{
	return (int)exchange->status;
}

bool exchange_was_streamed(const struct exchange *exchange)
{
	return exchange->is_events || exchange->is_bytes;
}

const char *exchange_body(const struct exchange *exchange, size_t *ret_length)
{
	*ret_length = exchange->length;
	return exchange->body != NULL ? exchange->body : "";
}

const char *exchange_type(const struct exchange *exchange)
{
	return exchange->type;
}

/* ---- why there is no answer ---- */

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

static int explain_socket(const char *path, struct error *err)
{
	int why = socket_errno(path);
	if (why == EACCES || why == EPERM)
		return error_set(err, GPUMGR_ERROR_FORBIDDEN, "permission denied on the socket %s", path);
	if (why == EMFILE || why == ENFILE)
		return error_set(err, GPUMGR_ERROR_SYSTEM, "cannot connect to the socket %s: %s", path, strerror(why));
	if (why == ENOENT || why == ENOTDIR)
		return error_set(err, GPUMGR_ERROR_NO_DAEMON, "no socket at %s", path);
	if (why == ECONNREFUSED)
		return error_set(err, GPUMGR_ERROR_NO_DAEMON, "nobody listens on the socket %s", path);
	if (why == 0)
		return error_set(err, GPUMGR_ERROR_NO_DAEMON, "the connection to the socket %s was not taken", path);
	return error_set(err, GPUMGR_ERROR_NO_DAEMON, "cannot connect to the socket %s: %s", path, strerror(why));
}

static const char *target(const struct exchange *exchange)
{
	return exchange->address->url != NULL ? exchange->address->url : exchange->address->socket;
}

static int explain_result(const struct exchange *exchange, struct error *err)
{
	const struct client_address *address = exchange->address;
	const char *words =
		exchange->curl_error[0] != '\0' ? exchange->curl_error : curl_easy_strerror(exchange->result);
	switch (exchange->result) {
	case CURLE_OUT_OF_MEMORY:
		return error_set(err, GPUMGR_ERROR_NO_MEMORY, "out of memory");
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		if (address->socket != NULL)
			return explain_socket(address->socket, err);
		return error_set(err, GPUMGR_ERROR_NO_DAEMON, "cannot connect to %s: %s", address->url, words);
	case CURLE_OPERATION_TIMEDOUT: /* only connecting has a timeout of libcurl's */
		return error_set(
			err, GPUMGR_ERROR_NO_DAEMON, "cannot connect to %s: no answer within 5 s", target(exchange));
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return error_set(err, GPUMGR_ERROR_BROKEN, "the connection to %s broke off: gpumgrd may have ended",
			target(exchange));
	default:
		return error_set(err, GPUMGR_ERROR_BAD_ANSWER, "%s: %s (is that gpumgrd?)", target(exchange), words);
	}
}

int exchange_outcome(const struct exchange *exchange, struct error *err)
{
	switch (exchange->failure) {
	case 0:
		return exchange->result == CURLE_OK ? GPUMGR_OK : explain_result(exchange, err);
	case -EMSGSIZE:
		return error_set(err, GPUMGR_ERROR_BAD_ANSWER, "%s: the answer is too long (is that gpumgrd?)",
			target(exchange));
	default:
		return error_set(err, GPUMGR_ERROR_NO_MEMORY, "out of memory");
	}
}
