/*
 * libmicrohttpd in the daemon's loop: its epoll descriptor on a uv_poll, requests in, answers out. What a request
 * means is no business of this file. How the library behaves where its manual is silent (seen in 0.9.75):
 *
 * - An answer that is queued before the request is complete closes the connection, so all but refusals of requests
 *   with a body wait for the last call of the handler.
 * - A suspended connection is not looked at at all (watch.h), and stopping with one aborts the process.
 * - A resumed connection calls the handler again.
 * - A connection that a content reader ended with an error, or whose answer could not be sent, is closed by the run
 *   after that one, and it does not say that it wants to run again.
 * - It keeps a record of each parameter of the query; when there is no room for one, it forgets to answer.
 * - What it refuses by itself after the headers (no Host, a Content-Length that is no number or too large) gets the
 * head of its answer twice, then the body, and the end of the connection.
 */
#include "api/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/action.h"
#include "api/leases.h"
#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/log.h"

/*
 * What libmicrohttpd keeps for a connection; its headers must fit. An attached lease keeps it whole, so with thousands
 * of them it is most of what they cost. Browsers, who bring what cookies they have, come over TCP.
 */
#define POOL_BYTES_UNIX (4 * 1024)
#define POOL_BYTES_TCP (24 * 1024)
#define BODY_DISCARD_MAX (1024 * 1024) /* what a client may go on sending before it is cut off */
#define RUNS_MAX 8 /* in a row, before others get a turn */
#define ACCEPTS_MAX 64 /* the same */
#define ACCEPT_PAUSE_MS 50 /* when one could not be taken */
#define FDS_KEPT 512 /* for everything but connections */
#define CLOSING_RUNS_MAX 64

/* Freeing: after the last handle. */

static void api_free(struct api *api)
{
	guard_finish(&api->guard);
	ring_destroy(api->ring);
	free(api);
}

void api_handle_opened(struct api *api)
{
	api->n_handles++;
}

void api_handle_closed(struct api *api)
{
	if (--api->n_handles == 0 && api->closing)
		api_free(api);
}

static void handle_closed(uv_handle_t *handle)
{
	api_handle_closed(handle->data);
}

void api_close_handle(struct api *api, uv_handle_t *handle)
{
	handle->data = api;
	uv_close(handle, handle_closed);
}

/* The loop. */

static void handle_run_again(uv_timer_t *timer);

static void run(struct shard *shard)
{
	unsigned long long timeout = 1;
	for (unsigned i = 0; i < RUNS_MAX; i++) {
		shard->has_remains = false;
		shard->n_runs++;
		MHD_run(shard->daemon);
		bool has_work = MHD_get_timeout(shard->daemon, &timeout) == MHD_YES && timeout == 0;
		if (!has_work && !shard->has_remains)
			return;
	}
	uv_timer_start(&shard->timer, handle_run_again, 0, 0);
}

static void handle_run_again(uv_timer_t *timer)
{
	run(timer->data);
}

static void handle_ready(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	run(poll->data);
}

void api_suspend(struct request *request)
{
	request->is_suspended = true;
	MHD_suspend_connection(request->connection);
}

void api_resume(struct request *request)
{
	if (!request->is_suspended)
		return;
	request->is_suspended = false;
	/* Without a thread of its own the library takes note of it only when it runs, and nothing else may make it run
	 * soon. */
	MHD_resume_connection(request->connection);
	uv_timer_start(&request->client->shard->timer, handle_run_again, 0, 0);
}

/* Connections. */

static void cut_off(int fd)
{
	shutdown(fd, SHUT_RDWR);
}

static void handle_deadline(struct deadline *deadline)
{
	struct client *client = (struct client *)((char *)deadline - offsetof(struct client, deadline));
	log_debug("a client was too slow and is cut off");
	cut_off(client->fd);
}

static void read_peer(struct client *client)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	if (!client->listener->is_unix || getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return;
	client->has_peer = true;
	client->uid = peer.uid;
	client->pid = peer.pid;
}

static void client_begin(struct shard *shard, struct MHD_Connection *connection, void **socket_context)
{
	struct listener *listener = shard->listener;
	struct api *api = listener->api;
	int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	struct client *client = calloc(1, sizeof(*client));
	*socket_context = client;
	if (client == NULL) {
		cut_off(fd);
		return;
	}
	*client = (struct client){
		.api = api,
		.listener = listener,
		.shard = shard,
		.fd = fd,
		.deadline.kind = DEADLINE_NONE,
	};
	api->n_connections++;
	deadline_set(&api->deadlines, &client->deadline, DEADLINE_RECEIVE);
	read_peer(client);
	if (api->n_connections > api->connections_max) {
		log_debug("there are %u connections; one more is cut off", api->connections_max);
		cut_off(fd);
	}
}

/*
 * libmicrohttpd takes a short read for the last one and waits for the next edge, which never comes when the client
 * closed its half right after its request: such a client would wait for the end of the connection for ever.
 */
static void cut_off_half_closed(int fd)
{
	char byte;
	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		cut_off(fd);
}

/* Its client may have none. */
static void request_end(struct client *client, enum MHD_RequestTerminationCode code)
{
	struct request *request = client->request;
	if (request == NULL)
		return;
	if (request->ticket != 0 && !client->api->closing)
		action_withdraw(request);
	if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK) {
		client->shard->has_remains = true;
		lease_was_not_told(request);
	}
	client->request = request_free(request);
	deadline_set(&client->api->deadlines, &client->deadline, DEADLINE_IDLE);
	if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK)
		cut_off_half_closed(client->fd);
}

static void handle_connection(void *context, struct MHD_Connection *connection, void **socket_context,
	enum MHD_ConnectionNotificationCode code)
{
	struct shard *shard = context;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		shard->n_connections++;
		client_begin(shard, connection, socket_context);
		return;
	}
	struct client *client = *socket_context;
	shard->n_connections--;
	if (client == NULL)
		return;
	/* The library does not tell the end of a request whose first line took up all memory of its connection. */
	request_end(client, MHD_REQUEST_TERMINATED_WITH_ERROR);
	client->api->n_connections--;
	deadline_set(&client->api->deadlines, &client->deadline, DEADLINE_NONE);
	free(client->name);
	free(client);
	*socket_context = NULL;
}

/* Requests. */

/*
 * We read the query from our own copy. The library's ends here, so that it finds no parameters in it: the text is in
 * the connection's memory, and parsed after this callback.
 */
static void hide_query(const char *target)
{
	char *mark = strchr(target, '?');
	if (mark != NULL)
		mark[1] = '\0';
}

static void *handle_target(void *context, const char *target, struct MHD_Connection *connection)
{
	(void)context;
	struct client *client = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
	if (client == NULL)
		return NULL;
	deadline_set(&client->api->deadlines, &client->deadline, DEADLINE_RECEIVE);
	client->request = request_new(client->api, client, connection, target);
	hide_query(target);
	return client->request;
}

static void handle_completed(
	void *context, struct MHD_Connection *connection, void **request_context, enum MHD_RequestTerminationCode code)
{
	(void)context;
	(void)connection;
	struct request *request = *request_context;
	*request_context = NULL;
	if (request != NULL)
		request_end(request->client, code);
}

static void log_request(const struct request *request)
{
	char title[256];
	const struct client *client = request->client;
	bool is_quiet = request->route != NULL && (request->route->flags & ROUTE_QUIET) != 0;
	bool is_told = strcmp(request->method, "POST") == 0 && !is_quiet;
	enum log_level level = is_told ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG;
	request_title(request, title, sizeof(title));
	if (client->has_peer)
		log_line(level, "uid %u (pid %d): %s", (unsigned)client->uid, (int)client->pid, title);
	else
		log_line(level, "TCP client: %s", title);
}

/* Where a request ends must not be a matter of opinion; after one of another opinion the connection is closed. */
static bool framing_is_sane(struct request *request)
{
	const struct headers *headers = &request->headers;
	bool is_chunked = headers->transfer_encoding != NULL && strcasecmp(headers->transfer_encoding, "chunked") == 0;
	if (headers->repeated)
		reply_problem(request, "bad_request", "a header that may come only once came twice");
	else if (headers->malformed)
		reply_problem(request, "bad_request",
			"the name of a header must be one word, right before its colon, with the value on the same "
			"line");
	else if (headers->transfer_encoding != NULL && (!is_chunked || headers->content_length != NULL))
		reply_problem(request, "bad_request",
			"Transfer-Encoding must be `chunked`, alone and without Content-Length");
	else
		return true;
	reply_header(request, "Connection", "close");
	return false;
}

static bool body_fits(struct request *request)
{
	const char *length = request->headers.content_length;
	if (length == NULL || strtoull(length, NULL, 10) <= API_BODY_MAX)
		return true;
	reply_problem(request, "too_large", "a body may have %d bytes", API_BODY_MAX);
	return false;
}

/* Whatever can be refused by the headers alone. */
static void check_headers(struct request *request)
{
	if (!guard_admits(&request->api->guard, request))
		return;
	if (request->target_bad) {
		reply_problem(request, "bad_request",
			"the path must begin with `/`, have at most %d segments, whole %%-escapes, and no encoded `/` "
			"or "
			"control characters",
			SEGMENTS_MAX);
		return;
	}
	if (route_find(request))
		body_fits(request);
}

static bool has_json_type(const struct request *request)
{
	static const char json[] = "application/json";
	const char *type = request->headers.content_type;
	return type != NULL && strncasecmp(type, json, strlen(json)) == 0 && strchr("; \t", type[strlen(json)]) != NULL;
}

static bool read_parameters(struct request *request)
{
	struct error err = { 0 };
	const struct route *route = request->route;
	if (request->body_discarded > 0) {
		reply_problem(request, "too_large", "a body may have %d bytes", API_BODY_MAX);
		return false;
	}
	if (request->body_length > 0 && strcmp(route->method, "POST") != 0) {
		reply_problem(request, "bad_request", "%s takes no body; use the query", request->method);
		return false;
	}
	if (request->body_length > 0 && !has_json_type(request)) {
		reply_problem(request, "unsupported_media_type",
			"the body must be JSON and say so: `Content-Type: application/json`");
		return false;
	}
	unsigned in_query = route->flags & ROUTE_NO_QUERY ? 0 : route->parameters;
	int r = parameters_read_query(&request->parameters, in_query, request->query, &err);
	if (r == 0 && (route->flags & ROUTE_OWN_BODY) == 0)
		r = parameters_read_body(
			&request->parameters, route->parameters, request->body, request->body_length, &err);
	if (r == -EINVAL)
		reply_problem(request, "bad_request", "%s", err.message);
	return r == 0;
}

static enum MHD_Result send_answer(struct request *request)
{
	struct api *api = request->api;
	struct MHD_Response *response = TAKE_PTR(request->response);
	if (response == NULL)
		return MHD_NO;
	deadline_set(
		&api->deadlines, &request->client->deadline, request->stream != NULL ? DEADLINE_NONE : DEADLINE_SEND);
	request->stage = REQUEST_ANSWERED;
	metrics_count_answer(&api->metrics, request->status);
	enum MHD_Result result = MHD_queue_response(request->connection, request->status, response);
	if (!request->response_is_shared)
		MHD_destroy_response(response);
	return result;
}

/*
 * Whether a refusal goes out before the body was read, and ends the connection: when the body has no certain end, when
 * it is too long to be read for nothing, or when the client waits to hear whether it is wanted. Else it is read and
 * dropped: a client that is still sending when its connection ends does not get to see why.
 */
static bool refuses_at_once(const struct request *request, bool is_sane)
{
	const struct headers *headers = &request->headers;
	if (request->response == NULL || !request_has_body(request))
		return false;
	return !is_sane || headers->expect != NULL ||
		(headers->content_length != NULL && strtoull(headers->content_length, NULL, 10) > BODY_DISCARD_MAX);
}

/* The headers are there. */
static enum MHD_Result begin(struct request *request, const char *method)
{
	request->method = method;
	request->is_head = strcmp(method, "HEAD") == 0;
	request->stage = REQUEST_RECEIVING;
	request->begun_run = request->client->shard->n_runs;
	request_read_headers(request);
	bool is_sane = framing_is_sane(request);
	if (is_sane)
		check_headers(request);
	log_request(request);
	return refuses_at_once(request, is_sane) ? send_answer(request) : MHD_YES;
}

static enum MHD_Result receive(struct request *request, const char *data, size_t *size)
{
	int r = 0;
	if (request->response != NULL)
		request->body_discarded += *size;
	else
		r = request_add_body(request, data, *size);
	*size = 0;
	return r == -ENOMEM || request->body_discarded > BODY_DISCARD_MAX ? MHD_NO : MHD_YES;
}

/* The request is complete. */
static enum MHD_Result answer(struct request *request)
{
	if (request->api->closing)
		reply_problem(request, "shutting_down", "gpumgrd is shutting down; try again when it is back");
	else if (request->response == NULL && read_parameters(request))
		request->route->handle(request);
	if (request->stage != REQUEST_WAITING)
		return send_answer(request);
	deadline_set(&request->api->deadlines, &request->client->deadline, DEADLINE_NONE);
	api_suspend(request);
	return MHD_YES;
}

static enum MHD_Result go_on(struct request *request)
{
	if (request->gone)
		return MHD_NO;
	if (request->response != NULL)
		return send_answer(request);
	if (request->ticket == 0)
		return MHD_NO; /* no memory for its answer */
	api_suspend(request);
	return MHD_YES;
}

static enum MHD_Result handle_request(void *context, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **request_context)
{
	struct request *request = *request_context;
	(void)context;
	(void)connection;
	(void)url;
	(void)version;
	if (request == NULL)
		return MHD_NO;
	switch (request->stage) {
	case REQUEST_NEW:
		return begin(request, method);
	case REQUEST_RECEIVING:
		return *size > 0 ? receive(request, data, size) : answer(request);
	case REQUEST_WAITING:
		return go_on(request);
	case REQUEST_ANSWERED:
		break;
	}
	*size = 0;
	return MHD_YES;
}

static void handle_library_log(void *context, const char *format, va_list args)
{
	char line[512];
	(void)context;
	vsnprintf(line, sizeof(line), format, args);
	log_debug("libmicrohttpd: %s", line);
}

/* Shards. */

static int shard_start(struct shard *shard, struct error *err)
{
	struct listener *listener = shard->listener;
	struct api *api = listener->api;
	shard->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
		handle_request, NULL, MHD_OPTION_EXTERNAL_LOGGER, handle_library_log, NULL, MHD_OPTION_CONNECTION_LIMIT,
		api->connections_max + 16, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)(listener->is_unix ? POOL_BYTES_UNIX : POOL_BYTES_TCP), MHD_OPTION_URI_LOG_CALLBACK,
		handle_target, NULL, MHD_OPTION_NOTIFY_COMPLETED, handle_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION,
		handle_connection, shard, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	if (shard->daemon == NULL)
		return error_set(err, -ENOMEM, "the HTTP server cannot be started: %s", strerror(errno));
	int r = uv_poll_init(
		api->loop, &shard->poll, MHD_get_daemon_info(shard->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd);
	if (r < 0) {
		MHD_stop_daemon(shard->daemon);
		return error_set(err, r, "the HTTP server cannot be watched: %s", uv_strerror(r));
	}
	return 0;
}

static int shard_open(struct listener *listener, struct shard **ret_shard, struct error *err)
{
	struct api *api = listener->api;
	CLEANUP_FREE struct shard *shard = calloc(1, sizeof(*shard));
	if (shard == NULL)
		return error_set(err, -ENOMEM, "no memory for the HTTP server");
	shard->listener = listener;
	int r = shard_start(shard, err);
	if (r < 0)
		return r;
	uv_timer_init(api->loop, &shard->timer);
	shard->timer.data = shard->poll.data = shard;
	shard->n_handles = 2;
	api_handle_opened(api);
	api_handle_opened(api);
	uv_poll_start(&shard->poll, UV_READABLE, handle_ready);
	*ret_shard = TAKE_PTR(shard);
	return 0;
}

/* Accepting. */

static void handle_acceptable(uv_poll_t *poll, int status, int events);

static void handle_accept_again(uv_timer_t *timer)
{
	struct listener *listener = timer->data;
	uv_poll_start(&listener->poll, UV_READABLE, handle_acceptable);
}

/* Whoever stands in the queue is there again each turn until it can be taken. */
static void accept_later(struct listener *listener)
{
	uv_poll_stop(&listener->poll);
	uv_timer_start(&listener->timer, handle_accept_again, ACCEPT_PAUSE_MS, 0);
}

/* The first that has room, else the one with the fewest. */
static struct shard *choose_shard(struct listener *listener)
{
	struct error err;
	struct shard *least = listener->shards[0];
	for (size_t i = 1; i < LISTENER_SHARDS && least->n_connections >= SHARD_CONNECTIONS; i++) {
		if (listener->shards[i] == NULL)
			shard_open(listener, &listener->shards[i], &err);
		struct shard *shard = listener->shards[i];
		if (shard == NULL)
			break;
		if (shard->n_connections < least->n_connections)
			least = shard;
	}
	return least;
}

/* Into which shard somebody came; NULL: nobody is there. */
static struct shard *accept_one(struct listener *listener)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);
	int fd;
	do
		fd = accept4(listener->fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (fd < 0 && (errno == ECONNABORTED || errno == EINTR));
	if (fd < 0) {
		if (errno != EAGAIN) /* no descriptor is left, or no memory */
			accept_later(listener);
		return NULL;
	}
	struct shard *shard = choose_shard(listener);
	MHD_add_connection(shard->daemon, fd, (const struct sockaddr *)&address, length); /* or closes it */
	return shard;
}

static void handle_acceptable(uv_poll_t *poll, int status, int events)
{
	struct listener *listener = poll->data;
	struct shard *shard = NULL, *last = NULL;
	(void)status;
	(void)events;
	for (unsigned i = 0; i < ACCEPTS_MAX && (shard = accept_one(listener)) != NULL; i++) {
		if (last != NULL && last != shard)
			run(last);
		last = shard;
	}
	if (last != NULL)
		run(last);
}

/* Setting up. */

static int listener_open(struct api *api, int fd, struct error *err)
{
	struct listener *listener = &api->listeners[api->n_listeners++];
	*listener = (struct listener){ .api = api, .fd = fd, .is_unix = listen_is_unix(fd), .port = listen_port(fd) };
	uv_timer_init(api->loop, &listener->timer);
	listener->timer.data = listener;
	api_handle_opened(api);
	int r = shard_open(listener, &listener->shards[0], err);
	if (r < 0)
		return r;
	r = uv_poll_init(api->loop, &listener->poll, fd);
	if (r < 0)
		return error_set(err, r, "a listening socket cannot be watched: %s", uv_strerror(r));
	listener->poll.data = listener;
	api_handle_opened(api);
	/* Nobody is served from here: nothing may be asked of the host before api_create() returned. */
	uv_poll_start(&listener->poll, UV_READABLE, handle_acceptable);
	return 0;
}

/* Every connection takes a descriptor; the limit that the shell left is for other kinds of programs. */
static unsigned raise_fd_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 256;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= API_CONNECTIONS_MAX + FDS_KEPT)
		return API_CONNECTIONS_MAX;
	unsigned most =
		limit.rlim_cur > FDS_KEPT * 2 ? (unsigned)limit.rlim_cur - FDS_KEPT : (unsigned)limit.rlim_cur / 2;
	log_warning("only %u connections at a time: the limit of open files (RLIMIT_NOFILE) is %llu", most,
		(unsigned long long)limit.rlim_cur);
	return most;
}

static int open_unix(struct api *api, const struct api_options *options, struct error *err)
{
	const struct unix_options how = {
		.path = options->socket_path,
		.mode = options->socket_mode,
		.group = options->socket_group,
		.group_required = options->socket_group_required,
	};
	int fd = listen_unix(&how, &api->unix_socket, err);
	return fd < 0 ? fd : listener_open(api, fd, err);
}

static int open_tcp(struct api *api, struct error *err)
{
	const struct string_list *addresses = &api->host->config->listen;
	if (addresses->n > LISTEN_ADDRESSES_MAX)
		return error_set(err, -E2BIG, "listen: at most %d addresses", LISTEN_ADDRESSES_MAX);
	for (size_t i = 0; i < addresses->n; i++) {
		int fd = listen_tcp(addresses->items[i], err);
		int r = fd < 0 ? fd : listener_open(api, fd, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A supervisor's socket: the Unix socket where it is one, else one more TCP address. */
static int adopt_socket(struct api *api, int fd, struct error *err)
{
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_set(err, -errno, "the socket that was handed over cannot be used: %s", strerror(errno));
	return listener_open(api, fd, err);
}

/* TCP first: the Unix socket is what says that the daemon is there. */
static int open_sockets(struct api *api, const struct api_options *options, struct error *err)
{
	int r = open_tcp(api, err);
	if (r == 0 && options->listen_fd >= 0)
		r = adopt_socket(api, options->listen_fd, err);
	if (r == 0 && (options->listen_fd < 0 || !listen_is_unix(options->listen_fd)))
		r = open_unix(api, options, err);
	return r;
}

/* What is no Unix socket may be reached from anywhere. */
static bool opens_tcp(const struct config *config, const struct api_options *options)
{
	return config->listen.n > 0 || (options->listen_fd >= 0 && !listen_is_unix(options->listen_fd));
}

static uint64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void open_timers(struct api *api)
{
	deadlines_init(&api->deadlines, api->loop, handle_deadline);
	for (size_t i = 0; i < DEADLINE_KINDS; i++)
		api_handle_opened(api);
	streams_init(api);
	lease_streams_init(api);
	uv_timer_init(api->loop, &api->log_timer);
	api_handle_opened(api);
}

int api_create(uv_loop_t *loop, const struct api_host *host, const struct api_options *options, struct api **ret_api,
	struct error *err)
{
	struct api *api = calloc(1, sizeof(*api));
	if (api == NULL)
		return error_set(err, -ENOMEM, "no memory for the HTTP API");
	api->loop = loop;
	api->host = host;
	api->ring = ring_create(wall_ms());
	int r = api->ring == NULL ? error_set(err, -ENOMEM, "no memory for the HTTP API")
				  : guard_open(&api->guard, &host->config, opens_tcp(host->config, options), err);
	if (r < 0) {
		api_free(api);
		return r;
	}
	api->connections_max = raise_fd_limit();
	open_timers(api);
	r = open_sockets(api, options, err);
	if (r < 0) {
		api_destroy(api);
		return r;
	}
	*ret_api = api;
	return 0;
}

unsigned api_port(const struct api *api, size_t index)
{
	for (size_t i = 0; i < api->n_listeners; i++)
		if (!api->listeners[i].is_unix && index-- == 0)
			return api->listeners[i].port;
	return 0;
}

/* Ending. */

/* Lets libmicrohttpd send what was answered last; what a client does not take at once is lost. */
static void flush(struct shard *shard)
{
	unsigned long long timeout;
	for (unsigned i = 0; i < CLOSING_RUNS_MAX; i++) {
		MHD_run(shard->daemon);
		if (MHD_get_timeout(shard->daemon, &timeout) != MHD_YES)
			return;
	}
}

static void handle_shard_closed(uv_handle_t *handle)
{
	struct shard *shard = handle->data;
	struct api *api = shard->listener->api;
	if (--shard->n_handles == 0)
		free(shard);
	api_handle_closed(api);
}

static void shard_close(struct shard *shard)
{
	flush(shard);
	uv_close((uv_handle_t *)&shard->timer, handle_shard_closed);
	uv_close((uv_handle_t *)&shard->poll, handle_shard_closed);
	MHD_stop_daemon(shard->daemon);
}

static void listener_close(struct listener *listener)
{
	struct api *api = listener->api;
	api_close_handle(api, (uv_handle_t *)&listener->timer);
	if (listener->poll.data != NULL)
		api_close_handle(api, (uv_handle_t *)&listener->poll);
	close(listener->fd);
	for (size_t i = 0; i < LISTENER_SHARDS && listener->shards[i] != NULL; i++)
		shard_close(listener->shards[i]);
}

struct api *api_destroy(struct api *api)
{
	if (api == NULL)
		return NULL;
	api->closing = true; /* from here on nobody who goes away gives a lease back: they go on after the restart */
	listen_unix_remove(&api->unix_socket);
	action_end_all(api);
	stream_end_all(api);
	for (size_t i = 0; i < api->n_listeners; i++)
		listener_close(&api->listeners[i]);
	if (api->status_cache.response != NULL)
		MHD_destroy_response(api->status_cache.response);
	for (size_t i = 0; i < DEADLINE_KINDS; i++)
		api_close_handle(api, (uv_handle_t *)&api->deadlines.queues[i].timer);
	streams_finish(api);
	lease_streams_finish(api);
	api_close_handle(api, (uv_handle_t *)&api->log_timer);
	return NULL;
}
