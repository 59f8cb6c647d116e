/* The HTTP server of the stand-in service. It must not block, nor trust what comes in. */
#include "simsvc/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define CONNECTIONS_MAX (HTTP_POLLFDS - 1)
#define REQUEST_MAX 4096
#define REQUEST_MS 10000
#define DRAIN_MS 1000
#define NEVER UINT64_MAX

enum stage {
	STAGE_READING,
	STAGE_WRITING,
	STAGE_DRAINING, /* the answer is out; what still comes in is thrown away, so that no reset overtakes it */
	STAGE_SILENT,
};

struct connection {
	int fd; /* -1: free */
	enum stage stage;
	bool is_endless;
	uint64_t deadline_ms;
	size_t n_in;
	size_t out_at, n_out;
	char in[REQUEST_MAX];
	char out[REQUEST_MAX];
};

struct http_server {
	int fd;
	struct http_listener listener;
	struct connection connections[CONNECTIONS_MAX];
};

/* Listening */

static socklen_t make_address(const char *address, unsigned port, struct sockaddr_storage *ret_storage)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret_storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_storage;
	*ret_storage = (struct sockaddr_storage){ 0 };
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		return sizeof(*v6);
	}
	return 0;
}

static int listen_on(const struct sockaddr_storage *storage, socklen_t length, unsigned *ret_port)
{
	CLEANUP_CLOSE int fd = socket(storage->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)storage, length) < 0 || listen(fd, CONNECTIONS_MAX) < 0)
		return -errno;
	struct sockaddr_storage bound;
	socklen_t size = sizeof(bound);
	if (getsockname(fd, (struct sockaddr *)&bound, &size) < 0)
		return -errno;
	*ret_port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
						     : ((struct sockaddr_in6 *)&bound)->sin6_port);
	return TAKE_FD(fd);
}

int http_server_create(const char *address, unsigned port, const struct http_listener *listener,
	struct http_server **ret_server, unsigned *ret_port, struct error *err)
{
	struct sockaddr_storage storage;
	socklen_t length = make_address(address, port, &storage);
	if (length == 0)
		return error_set(err, -EINVAL, "--address %s: not a numeric IPv4 or IPv6 address", address);
	CLEANUP_FREE struct http_server *server = malloc(sizeof(*server));
	if (server == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	server->listener = *listener;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		server->connections[i].fd = -1;
	server->fd = listen_on(&storage, length, ret_port);
	if (server->fd < 0)
		return error_set(
			err, server->fd, "cannot listen on %s port %u: %s", address, port, strerror(-server->fd));
	*ret_server = TAKE_PTR(server);
	return 0;
}

static void end_connection(struct connection *connection)
{
	close(connection->fd);
	connection->fd = -1;
}

struct http_server *http_server_free(struct http_server *server)
{
	if (server == NULL)
		return NULL;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (server->connections[i].fd >= 0)
			end_connection(&server->connections[i]);
	close(server->fd);
	free(server);
	return NULL;
}

/* Answering */

static const char *phrase(int status)
{
	static const struct {
		int status;
		const char *phrase;
	} phrases[] = {
		{ 200, "OK" },
		{ 302, "Found" },
		{ 400, "Bad Request" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 503, "Service Unavailable" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(phrases); i++)
		if (phrases[i].status == status)
			return phrases[i].phrase;
	return "Unknown";
}

static void write_plain(struct connection *connection, const struct http_answer *answer, bool with_body)
{
	size_t length = strlen(answer->text);
	bool has_allow = answer->status == 405;
	connection->n_out = (size_t)snprintf(connection->out, sizeof(connection->out),
		"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n%s%s",
		answer->status, phrase(answer->status), length + 1, has_allow ? "Allow: GET, HEAD\r\n" : "",
		with_body ? answer->text : "", with_body ? "\n" : "");
}

static void set_answer(struct connection *connection, const struct http_answer *answer, bool with_body)
{
	static const char rubbish[] = "\x00\x01\x02 this is not HTTP at all \xff\xfe\r\n\r\n";
	connection->stage = STAGE_WRITING;
	connection->out_at = 0;
	connection->deadline_ms = clock_now_ms() + REQUEST_MS;
	switch (answer->form) {
	case HTTP_PLAIN:
		write_plain(connection, answer, with_body);
		break;
	case HTTP_REDIRECT:
		connection->n_out = (size_t)snprintf(connection->out, sizeof(connection->out),
			"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			answer->text);
		break;
	case HTTP_RUBBISH:
		memcpy(connection->out, rubbish, sizeof(rubbish) - 1);
		connection->n_out = sizeof(rubbish) - 1;
		break;
	case HTTP_ENDLESS:
		connection->is_endless = true;
		connection->deadline_ms = NEVER;
		connection->n_out = (size_t)snprintf(connection->out, sizeof(connection->out),
			"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
		break;
	case HTTP_SILENT:
		connection->stage = STAGE_SILENT;
		connection->deadline_ms = NEVER;
		break;
	}
}

static void refuse(struct connection *connection, int status, const char *text)
{
	struct http_answer answer = { .form = HTTP_PLAIN, .status = status };
	snprintf(answer.text, sizeof(answer.text), "%s", text);
	set_answer(connection, &answer, true);
}

/* "GET /path?query HTTP/1.1"; cuts `line` into pieces. */
static bool parse_line(char *line, char **ret_method, char **ret_path)
{
	line[strcspn(line, "\r\n")] = '\0';
	char *rest = line;
	*ret_method = strsep(&rest, " ");
	*ret_path = strsep(&rest, " ");
	if (*ret_path == NULL || rest == NULL || (*ret_path)[0] != '/' || strncmp(rest, "HTTP/1.", 7) != 0)
		return false;
	(*ret_path)[strcspn(*ret_path, "?")] = '\0';
	return true;
}

static void answer_request(struct http_server *server, struct connection *connection)
{
	char *method, *path;
	if (strlen(connection->in) < connection->n_in || !parse_line(connection->in, &method, &path)) {
		refuse(connection, 400, "this is not an HTTP/1.1 request");
		return;
	}
	bool is_head = strcmp(method, "HEAD") == 0;
	if (!is_head && strcmp(method, "GET") != 0) {
		refuse(connection, 405, "only GET and HEAD are served here");
		return;
	}
	struct http_answer answer = { .form = HTTP_PLAIN, .status = 404, .text = "there is nothing here" };
	server->listener.handle_request(server->listener.context, path, &answer);
	set_answer(connection, &answer, !is_head);
}

/* Connections */

static void read_request(struct http_server *server, struct connection *connection)
{
	size_t room = sizeof(connection->in) - 1 - connection->n_in;
	ssize_t n = recv(connection->fd, connection->in + connection->n_in, room, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_connection(connection);
		return;
	}
	connection->n_in += (size_t)n;
	connection->in[connection->n_in] = '\0';
	if (memmem(connection->in, connection->n_in, "\r\n\r\n", 4) != NULL ||
		memmem(connection->in, connection->n_in, "\n\n", 2) != NULL)
		answer_request(server, connection);
	else if (connection->n_in == sizeof(connection->in) - 1)
		refuse(connection, 431, "the request's head is too large");
}

static void write_answer(struct connection *connection)
{
	ssize_t n = send(connection->fd, connection->out + connection->out_at, connection->n_out - connection->out_at,
		MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		end_connection(connection);
		return;
	}
	connection->out_at += (size_t)n;
	if (connection->out_at < connection->n_out)
		return;
	if (connection->is_endless) {
		memset(connection->out, 'x', sizeof(connection->out));
		connection->out_at = 0;
		connection->n_out = sizeof(connection->out);
		return;
	}
	shutdown(connection->fd, SHUT_WR);
	connection->stage = STAGE_DRAINING;
	connection->deadline_ms = clock_now_ms() + DRAIN_MS;
}

static void throw_away(struct connection *connection)
{
	char rubbish[4096];
	ssize_t n = recv(connection->fd, rubbish, sizeof(rubbish), 0);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		end_connection(connection);
}

static void handle_connection(struct http_server *server, struct connection *connection)
{
	switch (connection->stage) {
	case STAGE_READING:
		read_request(server, connection);
		if (connection->fd >= 0 && connection->stage == STAGE_WRITING)
			write_answer(connection); /* it fits into the socket: saves a turn */
		break;
	case STAGE_WRITING:
		write_answer(connection);
		break;
	case STAGE_DRAINING:
	case STAGE_SILENT:
		throw_away(connection);
		break;
	}
}

static struct connection *find_free(const struct http_server *server)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (server->connections[i].fd < 0)
			return (struct connection *)&server->connections[i];
	return NULL;
}

static void accept_all(struct http_server *server)
{
	for (struct connection *connection; (connection = find_free(server)) != NULL;) {
		int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		connection->fd = fd;
		connection->stage = STAGE_READING;
		connection->is_endless = false;
		connection->n_in = 0;
		connection->deadline_ms = clock_now_ms() + REQUEST_MS;
	}
}

nfds_t http_server_prepare(const struct http_server *server, struct pollfd fds[HTTP_POLLFDS], int *timeout_ms)
{
	nfds_t n = 0;
	uint64_t now = clock_now_ms();
	if (find_free(server) != NULL)
		fds[n++] = (struct pollfd){ .fd = server->fd, .events = POLLIN };
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *connection = &server->connections[i];
		if (connection->fd < 0)
			continue;
		short events = connection->stage == STAGE_WRITING ? POLLOUT : POLLIN;
		fds[n++] = (struct pollfd){ .fd = connection->fd, .events = events };
		if (connection->deadline_ms == NEVER)
			continue;
		int left = connection->deadline_ms > now ? (int)(connection->deadline_ms - now) : 0;
		if (*timeout_ms < 0 || left < *timeout_ms)
			*timeout_ms = left;
	}
	return n;
}

static struct connection *find_connection(struct http_server *server, int fd)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (server->connections[i].fd == fd)
			return &server->connections[i];
	return NULL;
}

void http_server_handle(struct http_server *server, const struct pollfd *fds, nfds_t n)
{
	bool has_callers = false;
	for (nfds_t i = 0; i < n; i++) {
		if (fds[i].revents == 0)
			continue;
		struct connection *connection = find_connection(server, fds[i].fd);
		if (connection != NULL)
			handle_connection(server, connection);
		else
			has_callers = true;
	}
	uint64_t now = clock_now_ms();
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (server->connections[i].fd >= 0 && server->connections[i].deadline_ms <= now)
			end_connection(&server->connections[i]);
	if (has_callers)
		accept_all(server);
}
