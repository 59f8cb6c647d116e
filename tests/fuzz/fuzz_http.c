/*
 * Whole HTTP requests into the real server: its sockets, libmicrohttpd, the guard, the router and every handler, over a
 * made-up host (http_host.h). Input: two bytes of modes, then what a client sends. Whatever that is, the client gets
 * whole answers or a closed connection, and nothing of it stays behind.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/server.h"
#include "base/log.h"
#include "fuzz.h"
#include "http_answers.h"
#include "http_host.h"
#include "scratch.h"

#define TURNS_MAX 4000
#define QUIET_TURNS 3 /* nothing came in so many: it waits for us, or for its host */
#define PIECES 3
#define FIRST_EVENT 1000

static uv_loop_t loop;
static struct http_host host;
/* The API of the machine's own clients, and that of the network's. */
static struct door {
	struct api *api;
	struct sockaddr_un address;
} doors[2];

struct connection {
	int fd;
	char *text;
	size_t length, size;
	bool has_ended;
};

/* ---- once ---- */

static int listen_at(struct sockaddr_un *address, const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s", scratch_folder(), name);
	FUZZ_CHECK(fd >= 0 && bind(fd, (struct sockaddr *)address, sizeof(*address)) == 0 && listen(fd, 64) == 0);
	return fd;
}

static void open_door(struct door *door, const char *name)
{
	struct error err = { 0 };
	const struct api_options options = { .listen_fd = listen_at(&door->address, name) };
	if (api_create(&loop, &host.ops, &options, &door->api, &err) < 0)
		fprintf(stderr, "%s\n", err.message);
	FUZZ_CHECK(door->api != NULL);
}

/* What tells a client of the network from others is the listener that it came through, and the token that it needs. */
static void open_to_network(struct door *door)
{
	static char listen_text[] = "127.0.0.1:1";
	static char *listen_items[] = { listen_text };
	static char token_path[256];
	snprintf(token_path, sizeof(token_path), "%s/token", scratch_folder());
	FILE *file = fopen(token_path, "we");
	FUZZ_CHECK(file != NULL && fputs("0123456789abcdef0123456789abcdef\n", file) >= 0 && fclose(file) == 0);
	FUZZ_CHECK(chmod(token_path, 0600) == 0);
	open_door(door, "network");
	host.config.listen = (struct string_list){ .n = 1, .items = listen_items };
	host.config.token_file = token_path;
	struct error err = { 0 };
	guard_finish(&door->api->guard);
	FUZZ_CHECK(guard_open(&door->api->guard, &host.ops.config, true, &err) == 0);
	for (size_t i = 0; i < door->api->n_listeners; i++)
		door->api->listeners[i].is_unix = false;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup(LOG_LEVEL_ERROR, false);
	FUZZ_CHECK(uv_loop_init(&loop) == 0);
	http_host_init(&host);
	open_door(&doors[0], "own");
	open_to_network(&doors[1]);
	return 0;
}

/* ---- one connection ---- */

static void drain(struct connection *connection)
{
	for (;;) {
		if (connection->size - connection->length < 4096) {
			connection->size = 2 * connection->size + 8192;
			connection->text = realloc(connection->text, connection->size);
			FUZZ_CHECK(connection->text != NULL);
		}
		ssize_t n = recv(connection->fd, connection->text + connection->length,
			connection->size - connection->length - 1, MSG_DONTWAIT);
		if (n > 0) {
			connection->length += (size_t)n;
			continue;
		}
		/* The other end closed before it had read all that we sent. */
		connection->has_ended |= n == 0 || (n < 0 && errno == ECONNRESET);
		return;
	}
}

static bool turn(struct connection *connection)
{
	size_t before = connection->length;
	uv_run(&loop, UV_RUN_NOWAIT);
	http_host_turn(&host);
	if (!connection->has_ended)
		drain(connection);
	return connection->length != before;
}

/* Until nothing comes any more. */
static void settle(struct connection *connection)
{
	unsigned quiet = 0;
	for (unsigned i = 0; i < TURNS_MAX && quiet < QUIET_TURNS && !connection->has_ended; i++)
		quiet = turn(connection) ? 0 : quiet + 1;
}

static void send_piece(struct connection *connection, const uint8_t *data, size_t size)
{
	while (size > 0 && !connection->has_ended) {
		ssize_t n = send(connection->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN) {
			turn(connection);
			return;
		}
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
		turn(connection);
	}
}

/* As if it had been a while: what waits for a moment gets it. */
static void pass_time(struct api *api)
{
	uv_timer_t *const timers[] = { &api->lease_streams.timer, &api->log_timer, &api->streams.ping_timer,
		&api->streams.stalled_timer };
	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
		if (uv_is_active((uv_handle_t *)timers[i]))
			timers[i]->timer_cb(timers[i]);
}

static void talk(struct connection *connection, const uint8_t *data, size_t size)
{
	size_t n_pieces = host.mode & MODE_PIECES ? PIECES : 1;
	for (size_t i = 0, at = 0; i < n_pieces; i++) {
		size_t n = i + 1 < n_pieces ? size / n_pieces : size - at;
		send_piece(connection, data + at, n);
		at += n;
	}
	settle(connection);
	if (host.mode & MODE_NEWS) {
		http_host_tell(&host);
		pass_time(host.api);
		settle(connection);
	}
}

static void hang_up(struct connection *connection)
{
	shutdown(connection->fd, SHUT_WR);
	for (unsigned i = 0; i < TURNS_MAX && !connection->has_ended; i++)
		turn(connection);
	FUZZ_CHECK(connection->has_ended);
}

/* ---- afterwards ---- */

static void check_nothing_is_left(const struct api *api, struct connection *connection)
{
	for (unsigned i = 0; i < TURNS_MAX && api->n_connections > 0; i++)
		turn(connection);
	FUZZ_CHECK(api->n_connections == 0 && api->tickets.n == 0);
	FUZZ_CHECK(api->lease_streams.n_waiting == 0 && LIST_EMPTY(&api->streams.stalled));
	for (size_t i = 0; i < STREAM_KINDS; i++)
		FUZZ_CHECK(api->streams.n[i] == 0 && TAILQ_EMPTY(&api->streams.queues[i]));
	for (size_t i = 0; i < LEASE_STREAM_BUCKETS; i++)
		FUZZ_CHECK(LIST_EMPTY(&api->lease_streams.waiting[i]) && LIST_EMPTY(&api->lease_streams.holding[i]));
}

/* What happened before is nothing to this input. */
static void begin(const struct door *door, uint8_t mode, uint8_t outcome)
{
	door->api->ring = ring_destroy(door->api->ring);
	door->api->ring = ring_create(FIRST_EVENT);
	FUZZ_CHECK(door->api->ring != NULL);
	door->api->guard.attempts = (struct attempts){ 0 };
	host.api = door->api;
	http_host_begin(&host, mode, outcome);
	http_host_tell(&host);
}

static size_t count(const uint8_t *data, size_t size, char byte)
{
	size_t n = 0;
	for (size_t i = 0; i < size; i++)
		n += data[i] == (uint8_t)byte;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct connection connection = { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t mode = fuzz_u8(&input), outcome = fuzz_u8(&input);
	const struct door *door = &doors[mode & MODE_NETWORK ? 1 : 0];
	begin(door, mode, outcome);
	FUZZ_CHECK(connection.fd >= 0);
	FUZZ_CHECK(connect(connection.fd, (const struct sockaddr *)&door->address, sizeof(door->address)) == 0);
	talk(&connection, input.at, fuzz_left(&input));
	bool hung_up = !connection.has_ended;
	if (hung_up)
		hang_up(&connection);
	close(connection.fd);
	connection.fd = -1;
	check_nothing_is_left(door->api, &connection);
	host.mode |= MODE_ANSWERS; /* what was withdrawn too late */
	http_host_turn(&host);
	http_host_end_leases(&host);
	http_host_end(&host);
	if (getenv("FUZZ_PRINT") != NULL)
		fprintf(stderr, "%.*s\n", (int)connection.length, connection.text);
	bool has_head = memmem(input.at, fuzz_left(&input), "HEAD ", 5) != NULL;
	unsigned n = http_answers_check(connection.text, connection.length, hung_up, has_head);
	/* Each request takes a line at least. */
	FUZZ_CHECK(n <= count(input.at, fuzz_left(&input), '\n') + 1);
	free(connection.text);
	return 0;
}
