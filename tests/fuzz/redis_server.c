/* Speaks as much of Redis as the lock needs to be satisfied, or whatever the input wants it to say. */
#include "redis_server.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "scratch.h"

#define ARGUMENTS_MAX 20
#define FIELDS 7 /* of what the script answers */

/* What an answer of the input begins with. */
enum how {
	HOW_PROPER, /* as a server would */
	HOW_RAW, /* these bytes */
	HOW_RAW_END, /* these bytes, and the end of the connection */
	HOW_CLOSE,
	HOW_SILENCE,
	HOW_FIELDS, /* as the script answers, with these fields: a line each, a number when it begins with ':' */
	HOW_DAMAGED, /* as a server would, but for one byte */
	HOW_NEWS, /* as a server would, and everybody who listens hears this word */
	HOWS,
};

/* Where the script's arguments stand behind EVALSHA. */
enum { JOB = 7, MINE, OLD, ME, TTL, FLOOR, N_FENCES, MAY_TAKE, CHANNEL, DIGEST, ARGUMENTS };

struct command {
	size_t n;
	char *words[ARGUMENTS_MAX];
};

void redis_server_open(struct redis_server *server)
{
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	snprintf(server->path, sizeof(server->path), "%s/redis", scratch_folder());
	snprintf(path.sun_path, sizeof(path.sun_path), "%s", server->path);
	server->unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	server->tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_CHECK(bind(server->unix_fd, (struct sockaddr *)&path, sizeof(path)) == 0);
	FUZZ_CHECK(bind(server->tcp_fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	FUZZ_CHECK(listen(server->unix_fd, 32) == 0 && listen(server->tcp_fd, 32) == 0);
	FUZZ_CHECK(getsockname(server->tcp_fd, (struct sockaddr *)&address, &size) == 0);
	server->port = ntohs(address.sin_port);
	for (size_t i = 0; i < REDIS_SERVER_CONNECTIONS; i++)
		server->connections[i].fd = -1;
}

void redis_server_begin(struct redis_server *server, struct fuzz_input *answers)
{
	server->answers = answers;
	server->value[0] = '\0';
	server->counter = 1000;
	server->n_others = 0;
}

static void hang_up(struct redis_server_connection *connection)
{
	/* At once, or so many connections would linger that there is no room for new ones. */
	const struct linger linger = { .l_onoff = 1 };
	if (connection->fd >= 0) {
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		close(connection->fd);
	}
	connection->fd = -1;
	connection->length = 0;
	connection->hears = false;
}

static void say(struct redis_server_connection *connection, const char *bytes, size_t length)
{
	/* What does not fit into the socket is lost: the answer is broken off then, which is as good. */
	if (connection->fd >= 0)
		send(connection->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- what a server would say; the buffer has room for all of it ---- */

static size_t put_text(char *buffer, size_t size, const char *text)
{
	return (size_t)snprintf(buffer, size, "$%zu\r\n%s\r\n", strlen(text), text);
}

static size_t put_fence(char *buffer, size_t size, uint64_t fence)
{
	char text[24] = "";
	if (fence != 0)
		snprintf(text, sizeof(text), "%" PRIu64, fence);
	return put_text(buffer, size, text);
}

static size_t report(const struct redis_server *server, const struct command *command, const char *word, uint64_t fence,
	char *buffer, size_t size)
{
	bool is_free = server->value[0] == '\0';
	bool is_ours = !is_free && strcmp(server->value, command->words[MINE]) == 0;
	size_t n = (size_t)snprintf(buffer, size, "*%d\r\n", FIELDS);
	n += put_text(buffer + n, size - n, word);
	n += put_text(buffer + n, size - n, server->value);
	n += (size_t)snprintf(buffer + n, size - n, ":%s\r\n:%u\r\n",
		is_free           ? "-2"
			: is_ours ? command->words[TTL]
				  : "600000",
		server->n_others);
	n += put_fence(buffer + n, size - n, fence);
	n += put_text(buffer + n, size - n, is_free || is_ours ? "" : "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	return n + put_fence(buffer + n, size - n, server->counter);
}

static uint64_t give_fences(struct redis_server *server, const struct command *command, uint64_t n)
{
	uint64_t floor = strtoull(command->words[FLOOR], NULL, 10);
	uint64_t first = (floor > server->counter ? floor : server->counter) + 1;
	server->counter = first + n - 1;
	return first;
}

static size_t run_script(struct redis_server *server, const struct command *command, char *buffer, size_t size)
{
	const char *job = command->words[JOB], *mine = command->words[MINE];
	uint64_t n = strtoull(command->words[N_FENCES], NULL, 10);
	bool may_take = command->words[MAY_TAKE][0] == '1', is_acquire = strcmp(job, "acquire") == 0;
	if (is_acquire && server->value[0] != '\0' && strcmp(server->value, command->words[OLD]) == 0)
		server->value[0] = '\0';
	bool is_ours = mine[0] != '\0' && strcmp(server->value, mine) == 0;
	if (is_ours && strcmp(job, "release") == 0)
		server->value[0] = '\0';
	if ((strcmp(job, "restore") == 0 || (is_acquire && may_take)) && server->value[0] == '\0') {
		snprintf(server->value, sizeof(server->value), "%s", mine);
		is_ours = true;
	}
	if (is_acquire || strcmp(job, "renew") == 0 || strcmp(job, "restore") == 0) {
		n = is_acquire ? 1 : n;
		const char *word = is_ours         ? "held"
			: server->value[0] != '\0' ? "foreign"
			: is_acquire               ? "free"
						   : "gone";
		return report(
			server, command, word, is_ours && n > 0 ? give_fences(server, command, n) : 0, buffer, size);
	}
	bool is_force = strcmp(job, "force") == 0, is_taken = is_force && server->value[0] != '\0' && !is_ours;
	size_t length = report(server, command, is_taken ? "forced" : is_force ? "kept" : "done", 0, buffer, size);
	if (is_taken)
		server->value[0] = '\0';
	return length;
}

static size_t tell_master(const struct redis_server *server, char *buffer, size_t size)
{
	char port[16];
	snprintf(port, sizeof(port), "%u", server->port);
	size_t n = (size_t)snprintf(buffer, size, "*2\r\n");
	n += put_text(buffer + n, size - n, "127.0.0.1");
	return n + put_text(buffer + n, size - n, port);
}

static size_t subscribe(const struct command *command, char *buffer, size_t size)
{
	size_t n = (size_t)snprintf(buffer, size, "*3\r\n");
	n += put_text(buffer + n, size - n, "subscribe");
	n += put_text(buffer + n, size - n, command->words[1]);
	return n + (size_t)snprintf(buffer + n, size - n, ":1\r\n");
}

static size_t proper_answer(struct redis_server *server, const struct command *command, char *buffer, size_t size)
{
	const char *name = command->words[0];
	if (strncmp(name, "EVAL", 4) == 0)
		return run_script(server, command, buffer, size);
	if (strcmp(name, "INFO") == 0)
		return put_text(buffer, size,
			strcmp(command->words[1], "server") == 0
				? "# Server\r\nrun_id:0123456789abcdef\r\nuptime_in_seconds:86400\r\n"
				: "# Replication\r\nrole:master\r\nmaster_replid:fedcba9876543210\r\n");
	if (strcmp(name, "SCRIPT") == 0)
		return put_text(buffer, size, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	if (strcmp(name, "SENTINEL") == 0)
		return tell_master(server, buffer, size);
	if (strcmp(name, "SUBSCRIBE") == 0)
		return subscribe(command, buffer, size);
	FUZZ_CHECK(strcmp(name, "AUTH") == 0 || strcmp(name, "SELECT") == 0);
	return (size_t)snprintf(buffer, size, "+OK\r\n");
}

/* ---- what the input says ---- */

static void say_fields(struct redis_server *server, struct redis_server_connection *connection)
{
	char buffer[64];
	say(connection, "*7\r\n", 4);
	for (size_t i = 0; i < FIELDS; i++) {
		size_t length;
		char *text = fuzz_text(server->answers, '\n', &length);
		if (text[0] == ':') {
			say(connection, text, length);
		} else {
			int n = snprintf(buffer, sizeof(buffer), "$%zu\r\n", length);
			say(connection, buffer, (size_t)n);
			say(connection, text, length);
		}
		say(connection, "\r\n", 2);
		free(text);
	}
}

static void say_news(struct redis_server *server)
{
	char *word = fuzz_text(server->answers, '\0', NULL), buffer[512];
	size_t n = (size_t)snprintf(buffer, sizeof(buffer), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n");
	if (strlen(word) < 256) {
		n += put_text(buffer + n, sizeof(buffer) - n, word);
		for (size_t i = 0; i < REDIS_SERVER_CONNECTIONS; i++)
			if (server->connections[i].hears)
				say(&server->connections[i], buffer, n);
	}
	free(word);
}

static void answer(
	struct redis_server *server, struct redis_server_connection *connection, const struct command *command)
{
	char proper[2048];
	uint8_t how = fuzz_u8(server->answers);
	if (how & 0x40)
		snprintf(server->value, sizeof(server->value), "%s", how & 0x20 ? "render" : "a:b:0123456789abcdef");
	if (how & 0x10)
		server->n_others = how >> 7;
	bool has_text = how % HOWS == HOW_RAW || how % HOWS == HOW_RAW_END;
	size_t length = 0, proper_length = proper_answer(server, command, proper, sizeof(proper));
	char *text = has_text ? fuzz_text(server->answers, '\0', &length) : NULL;
	switch ((enum how)(how % HOWS)) {
	case HOW_DAMAGED:
		length = fuzz_u16(server->answers) % proper_length;
		proper[length] = (char)fuzz_u8(server->answers);
		say(connection, proper, proper_length);
		break;
	case HOW_PROPER:
	case HOW_NEWS:
		say(connection, proper, proper_length);
		connection->hears |= strcmp(command->words[0], "SUBSCRIBE") == 0;
		if (how % HOWS == HOW_NEWS)
			say_news(server);
		break;
	case HOW_RAW:
		say(connection, text, length);
		break;
	case HOW_RAW_END:
		say(connection, text, length);
		hang_up(connection);
		break;
	case HOW_CLOSE:
		hang_up(connection);
		break;
	case HOW_FIELDS:
		say_fields(server, connection);
		break;
	case HOW_SILENCE:
	case HOWS:
		break;
	}
	free(text);
}

/* ---- what it hears ---- */

static char *read_number(char *at, char kind, size_t *ret_number)
{
	char *end = strstr(at, "\r\n");
	if (end == NULL)
		return NULL;
	FUZZ_CHECK(*at == kind);
	*ret_number = strtoul(at + 1, NULL, 10);
	return end + 2;
}

/* How many bytes it takes; 0: it is not whole yet. Its words are ended by zeros when it is. */
static size_t read_command(struct redis_server_connection *connection, struct command *command)
{
	char *at = connection->bytes, *end = connection->bytes + connection->length;
	char *ends[ARGUMENTS_MAX];
	*end = '\0';
	at = read_number(at, '*', &command->n);
	if (at == NULL)
		return 0;
	FUZZ_CHECK(command->n > 0 && command->n <= ARGUMENTS_MAX);
	for (size_t i = 0; i < command->n; i++) {
		size_t length;
		at = read_number(at, '$', &length);
		if (at == NULL || (size_t)(end - at) < length + 2)
			return 0;
		command->words[i] = at;
		ends[i] = at + length;
		at += length + 2;
	}
	for (size_t i = 0; i < command->n; i++)
		*ends[i] = '\0';
	FUZZ_CHECK(strncmp(command->words[0], "EVAL", 4) != 0 || command->n == ARGUMENTS);
	return (size_t)(at - connection->bytes);
}

static bool read_commands(struct redis_server *server, struct redis_server_connection *connection)
{
	struct command command;
	size_t used;
	ssize_t n = recv(connection->fd, connection->bytes + connection->length,
		sizeof(connection->bytes) - connection->length - 1, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0)
			hang_up(connection);
		return false;
	}
	connection->length += (size_t)n;
	FUZZ_CHECK(connection->length + 1 < sizeof(connection->bytes));
	while (connection->length > 0 && (used = read_command(connection, &command)) > 0) {
		answer(server, connection, &command);
		if (connection->fd < 0)
			break;
		connection->length -= used;
		memmove(connection->bytes, connection->bytes + used, connection->length);
	}
	return true;
}

static void take_connections(struct redis_server *server, int listener)
{
	for (size_t i = 0; i < REDIS_SERVER_CONNECTIONS; i++) {
		if (server->connections[i].fd >= 0)
			continue;
		server->connections[i].fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (server->connections[i].fd < 0)
			return;
	}
}

bool redis_server_turn(struct redis_server *server)
{
	bool any = false;
	take_connections(server, server->unix_fd);
	take_connections(server, server->tcp_fd);
	for (size_t i = 0; i < REDIS_SERVER_CONNECTIONS; i++)
		if (server->connections[i].fd >= 0)
			any |= read_commands(server, &server->connections[i]);
	return any;
}

void redis_server_end(struct redis_server *server)
{
	int fd;
	for (size_t i = 0; i < REDIS_SERVER_CONNECTIONS; i++)
		hang_up(&server->connections[i]);
	while ((fd = accept4(server->unix_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
	while ((fd = accept4(server->tcp_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
}
