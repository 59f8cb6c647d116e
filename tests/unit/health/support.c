/* The misbehaving server, and the bench. */
#include "support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

#define THREADS 8

struct server {
	int listener;
	int stop[2]; /* a pipe: the read end becomes readable when the server is to end */
	uint16_t port;
	atomic_int n_accepted;
	pthread_mutex_t body_lock;
	char *body; /* what /body answers with */
	size_t body_size;
	pthread_t threads[THREADS];
};

uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

void bench_begin(struct bench *bench)
{
	/* libuv keeps a pipe of its own from the first loop on. */
	assert_int_equal(uv_loop_init(&bench->loop), 0);
	assert_int_equal(uv_loop_close(&bench->loop), 0);
	bench->n_fds = count_fds();
	assert_int_equal(uv_loop_init(&bench->loop), 0);
	assert_int_equal(prober_create(&bench->loop, &bench->prober), 0);
}

void bench_end(struct bench *bench)
{
	bench->prober = prober_destroy(bench->prober);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&bench->loop), 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(count_fds(), bench->n_fds);
}

void take_answer(void *context, bool passed, const char *text)
{
	struct answer *answer = context;
	answer->n++;
	answer->passed = passed;
	snprintf(answer->text, sizeof(answer->text), "%s", text);
}

static void make_command(const struct probe_config *config, struct command *ret_command)
{
	static const struct driver_environment environment = { 0 };
	static char name[] = "probed";
	const struct service_config service = { .name = name };
	const struct command_options options = { .words = &config->command, .is_probe = true };
	struct error err = { "" };
	*ret_command = (struct command){ 0 };
	if (config->kind == PROBE_COMMAND && config->command.n > 0 &&
		command_prepare(&environment, &service, &options, ret_command, &err) < 0)
		fail_msg("%s", err.message);
}

int bench_start(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms, probe_handler handler,
	void *context, struct probe **ret_probe)
{
	CLEANUP(command_finish) struct command command;
	make_command(config, &command);
	const struct probe_runner runner = { .command = &command };
	return probe_start(prober, config, &runner, timeout_ms, handler, context, ret_probe);
}

int bench_start_busy(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms,
	busy_handler handler, void *context, struct probe **ret_probe)
{
	CLEANUP(command_finish) struct command command;
	make_command(config, &command);
	const struct probe_runner runner = { .command = &command };
	return busy_start(prober, config, &runner, timeout_ms, handler, context, ret_probe);
}

struct answer ask(struct bench *bench, const struct probe_config *config, uint64_t timeout_ms)
{
	struct answer answer = { 0 };
	uint64_t begin = now_ms();
	assert_int_equal(bench_start(bench->prober, config, timeout_ms, take_answer, &answer, NULL), 0);
	assert_int_equal(answer.n, 0);
	while (answer.n == 0)
		uv_run(&bench->loop, UV_RUN_ONCE);
	answer.took_ms = now_ms() - begin;
	for (int i = 0; i < 3; i++)
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	assert_int_equal(answer.n, 1);
	return answer;
}

int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 128), 0);
	getsockname(fd, (struct sockaddr *)&address, &size);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

bool is_free_port(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port),
	};
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

/* Waits; true when the server is to end, or the client has gone (fd >= 0). */
static bool pause_is_over(struct server *server, int fd, int ms)
{
	struct pollfd wait[2] = { { .fd = server->stop[0], .events = POLLIN }, { .fd = fd, .events = POLLRDHUP } };
	return poll(wait, 2, ms) > 0;
}

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static void drip(struct server *server, int fd, const char *text, int ms)
{
	while (say(fd, text) && !pause_is_over(server, fd, ms))
		;
}

static void behave_hang(struct server *server, int fd)
{
	pause_is_over(server, fd, 5000);
}

static void behave_drip(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n");
	drip(server, fd, "X: y\r\n", 5);
}

static void behave_drip_body(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	drip(server, fd, "x", 5);
}

static void behave_endless_body(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	drip(server, fd, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n", 0);
}

static void behave_endless_error(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 503 Busy\r\n\r\n");
	drip(server, fd, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n", 0);
}

static void behave_endless_headers(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n");
	drip(server, fd, "X-Header: 0123456789abcdef0123456789abcdef0123456789abcdef\r\n", 0);
}

static void behave_endless_line(struct server *server, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nX: ");
	drip(server, fd, "0123456789abcdef0123456789abcdef0123456789abcdef", 0);
}

static void behave_continue(struct server *server, int fd)
{
	drip(server, fd, "HTTP/1.1 100 Continue\r\n\r\n", 0);
}

static void behave_rubbish(struct server *server, int fd)
{
	drip(server, fd, "\x16\x03\x01\xff rubbish \n", 0);
}

static void behave_reset(struct server *server, int fd)
{
	(void)server;
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void behave_body(struct server *server, int fd)
{
	char head[128];
	pthread_mutex_lock(&server->body_lock);
	size_t size = server->body_size, sent = 0;
	CLEANUP_FREE char *body = malloc(size + 1);
	memcpy(body, server->body, size);
	pthread_mutex_unlock(&server->body_lock);
	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
	say(fd, head);
	for (ssize_t n = 1; n > 0 && sent<size; sent += n> 0 ? (size_t)n : 0)
		n = send(fd, body + sent, size - sent, MSG_NOSIGNAL);
}

static const struct behaviour {
	const char *path;
	const char *text; /* sent and closed */
	void (*act)(struct server *server, int fd);
} behaviours[] = {
	{ "/ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" },
	{ "/created", "HTTP/1.1 201 Created\r\n\r\n" },
	{ "/nothing", "HTTP/1.1 204 No Content\r\n\r\n" },
	{ "/299", "HTTP/1.1 299 Odd\r\n\r\n" },
	{ "/interim", "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
	{ "/interim-only", "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" },
	{ "/trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n" },
	{ "/moved", "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n" },
	{ "/lost", "HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n" },
	{ "/hostile", "HTTP/1.1 302 Found\r\nLocation: http://x/\x1b[2J\x9b\r\nContent-Length: 0\r\n\r\n" },
	{ "/503", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n" },
	{ "/404", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" },
	{ "/401", "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n" },
	{ "/ssh", "SSH-2.0-OpenSSH_9.2\r\n" },
	{ "/http9", "<html>hello</html>" },
	{ "/short", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes." },
	{ "/half", "HTTP/1.1 200 OK\r\nContent-Le" },
	{ "/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrubbish" },
	{ "/length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" },
	{ "/close", "" },
	{ "/body", NULL, behave_body },
	{ "/reset", NULL, behave_reset },
	{ "/hang", NULL, behave_hang },
	{ "/drip", NULL, behave_drip },
	{ "/drip-body", NULL, behave_drip_body },
	{ "/endless-body", NULL, behave_endless_body },
	{ "/endless-error", NULL, behave_endless_error },
	{ "/endless-headers", NULL, behave_endless_headers },
	{ "/endless-line", NULL, behave_endless_line },
	{ "/continue", NULL, behave_continue },
	{ "/rubbish", NULL, behave_rubbish },
};

static void serve(struct server *server, int fd)
{
	char request[4096];
	size_t used = 0;
	ssize_t n;
	while (used < sizeof(request) - 1 && (n = recv(fd, request + used, sizeof(request) - 1 - used, 0)) > 0) {
		used += (size_t)n;
		request[used] = '\0';
		if (strstr(request, "\r\n\r\n") != NULL)
			break;
	}
	request[used] = '\0';
	char path[64] = "";
	sscanf(request, "GET %63s", path);
	for (size_t i = 0; i < ARRAY_SIZE(behaviours); i++) {
		if (strcmp(path, behaviours[i].path) != 0)
			continue;
		if (behaviours[i].text != NULL)
			say(fd, behaviours[i].text);
		else
			behaviours[i].act(server, fd);
		return;
	}
}

static void *server_main(void *argument)
{
	struct server *server = argument;
	for (;;) {
		struct pollfd wait[2] = { { .fd = server->stop[0], .events = POLLIN },
			{ .fd = server->listener, .events = POLLIN } };
		poll(wait, 2, -1);
		if (wait[0].revents != 0)
			return NULL;
		int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		struct timeval limit = { .tv_sec = 2 };
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		atomic_fetch_add(&server->n_accepted, 1);
		serve(server, fd);
		close(fd);
	}
}

struct server *server_start(void)
{
	struct server *server = calloc(1, sizeof(*server));
	pthread_mutex_init(&server->body_lock, NULL);
	server_set_body(server, "", 0);
	server->listener = listen_somewhere(&server->port);
	assert_int_equal(pipe2(server->stop, O_CLOEXEC), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&server->threads[i], NULL, server_main, server), 0);
	return server;
}

void server_stop(struct server *server)
{
	close(server->stop[1]);
	shutdown(server->listener, SHUT_RDWR);
	for (int i = 0; i < THREADS; i++)
		pthread_join(server->threads[i], NULL);
	close(server->stop[0]);
	close(server->listener);
	pthread_mutex_destroy(&server->body_lock);
	free(server->body);
	free(server);
}

uint16_t server_port(const struct server *server)
{
	return server->port;
}

void server_set_body(struct server *server, const void *body, size_t size)
{
	char *copy = malloc(size + 1);
	memcpy(copy, body, size);
	pthread_mutex_lock(&server->body_lock);
	free(server->body);
	server->body = copy;
	server->body_size = size;
	pthread_mutex_unlock(&server->body_lock);
}

int server_count(const struct server *server)
{
	return atomic_load(&server->n_accepted);
}
