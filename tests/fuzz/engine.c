/* Speaks as much HTTP as libcurl needs to be satisfied, or whatever the input wants it to say. */
#include "engine.h"

#include <sys/socket.h>
#include <unistd.h>

#include "scratch.h"

/* What an answer of the input begins with. */
enum how {
	HOW_PROPER, /* as an engine would */
	HOW_RAW, /* these bytes, and the end of the connection */
	HOW_BODY, /* these as the body of a 200 */
	HOW_STATUS, /* a status, and these as its body */
	HOW_CLOSE,
	HOW_SILENCE,
	HOW_STREAM, /* these as chunks, and more may come */
	HOW_DAMAGED, /* as an engine would, but for one byte */
	HOWS,
};

static const unsigned statuses[] = { 204, 304, 404, 409, 500, 301, 101, 400 };

void engine_open(struct engine *engine)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/engine", scratch_folder());
	snprintf(engine->address, sizeof(engine->address), "unix://%s", address.sun_path);
	engine->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_CHECK(engine->fd >= 0);
	FUZZ_CHECK(bind(engine->fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(engine->fd, 32) == 0);
	for (size_t i = 0; i < ENGINE_CONNECTIONS; i++)
		engine->connections[i].fd = -1;
}

void engine_begin(struct engine *engine, struct fuzz_input *answers)
{
	engine->answers = answers;
	engine->is_running = false;
	engine->n_requests = 0;
}

static void hang_up(struct engine_connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
	connection->length = 0;
}

static void say(struct engine_connection *connection, const char *bytes, size_t length)
{
	/* What does not fit into the socket is lost: the answer is broken off then, which is as good. */
	send(connection->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say_text(struct engine_connection *connection, const char *text)
{
	say(connection, text, strlen(text));
}

static void say_body(struct engine_connection *connection, unsigned status, const char *body, size_t length)
{
	char head[128];
	snprintf(head, sizeof(head), "HTTP/1.1 %u Whatever\r\nContent-Length: %zu\r\n\r\n", status, length);
	say_text(connection, head);
	say(connection, body, length);
}

static void say_chunk(struct engine_connection *connection, const char *bytes, size_t length)
{
	char head[32];
	snprintf(head, sizeof(head), "%zx\r\n", length);
	say_text(connection, head);
	say(connection, bytes, length);
	say_text(connection, "\r\n");
}

static const char *inspection(const struct engine *engine)
{
	return engine->is_running
		? "{\"Id\":\"" ENGINE_ID "\",\"Name\":\"/box\",\"State\":{\"Status\":\"running\",\"Running\":true,"
		  "\"Paused\":false,\"Restarting\":false,\"Dead\":false,\"Pid\":0,\"ExitCode\":0,\"Error\":\"\","
		  "\"StartedAt\":\"" ENGINE_BORN "\",\"Health\":{\"Status\":\"healthy\",\"Log\":[]}},"
		  "\"HostConfig\":{\"NetworkMode\":\"host\",\"RestartPolicy\":{\"Name\":\"no\"}},"
		  "\"Config\":{\"Tty\":false}}"
		: "{\"Id\":\"" ENGINE_ID "\",\"Name\":\"/box\",\"State\":{\"Status\":\"exited\",\"Running\":false,"
		  "\"Pid\":0,\"ExitCode\":3,\"StartedAt\":\"" ENGINE_BORN "\"},\"HostConfig\":{}}";
}

/* The body of a proper answer, "" for none; `*ret_status` is its status. */
static const char *proper_body(struct engine *engine, const char *request, unsigned *ret_status)
{
	*ret_status = 200;
	if (strstr(request, "/version") != NULL)
		return "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Components\":[{\"Name\":\"Engine\"}]}";
	if (strstr(request, "/containers/json") != NULL)
		return "[{\"Id\":\"" ENGINE_ID "\",\"Names\":[\"/box\"],\"State\":\"exited\",\"Labels\":{}}]";
	if (strstr(request, "/json") != NULL)
		return inspection(engine);
	if (strncmp(request, "POST ", 5) == 0) {
		*ret_status = 204;
		engine->is_running = strstr(request, "/start") != NULL;
		return "";
	}
	return strstr(request, "/_ping") != NULL ? "OK" : "";
}

static bool is_stream(const char *request)
{
	return strstr(request, "/events") != NULL || strstr(request, "/logs") != NULL;
}

static void answer_stream(struct engine_connection *connection, const char *bytes, size_t length, bool goes_on)
{
	say_text(connection, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	if (length > 0)
		say_chunk(connection, bytes, length);
	if (!goes_on)
		say_text(connection, "0\r\n\r\n");
}

static void answer_properly(struct engine *engine, struct engine_connection *connection, size_t place, char damage)
{
	unsigned status;
	char body[1024];
	if (is_stream(connection->request)) {
		answer_stream(connection, "", 0, strstr(connection->request, "/events") != NULL);
		return;
	}
	int length = snprintf(body, sizeof(body), "%s", proper_body(engine, connection->request, &status));
	if (damage != '\0' && length > 0)
		body[place % (size_t)length] = damage;
	say_body(connection, status, body, (size_t)length);
}

static void answer(struct engine *engine, struct engine_connection *connection)
{
	uint8_t how = fuzz_u8(engine->answers);
	uint16_t place = how % HOWS == HOW_DAMAGED ? fuzz_u16(engine->answers) : 0;
	bool has_text = how % HOWS != HOW_PROPER && how % HOWS != HOW_CLOSE && how % HOWS != HOW_SILENCE;
	size_t length = 0;
	char *text = has_text ? fuzz_text(engine->answers, '\0', &length) : NULL;
	switch ((enum how)(how % HOWS)) {
	case HOW_PROPER:
		answer_properly(engine, connection, 0, '\0');
		break;
	case HOW_RAW:
		say(connection, text, length);
		hang_up(connection);
		break;
	case HOW_BODY:
		say_body(connection, 200, text, length);
		break;
	case HOW_STATUS:
		say_body(connection, statuses[(how >> 4) % 8], text, length);
		break;
	case HOW_CLOSE:
		hang_up(connection);
		break;
	case HOW_SILENCE:
		break;
	case HOW_STREAM:
		answer_stream(connection, text, length, how & 0x80);
		break;
	case HOW_DAMAGED:
		answer_properly(engine, connection, place, length > 0 ? text[0] : '"');
		break;
	case HOWS:
		break;
	}
	free(text);
}

/* Requests have no bodies. */
static bool read_request(struct engine *engine, struct engine_connection *connection)
{
	ssize_t n = recv(connection->fd, connection->request + connection->length,
		sizeof(connection->request) - connection->length - 1, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0)
			hang_up(connection);
		return false;
	}
	connection->length += (size_t)n;
	connection->request[connection->length] = '\0';
	FUZZ_CHECK(connection->length + 1 < sizeof(connection->request));
	if (strstr(connection->request, "\r\n\r\n") == NULL)
		return true;
	FUZZ_CHECK(strncmp(connection->request, "GET /", 5) == 0 || strncmp(connection->request, "POST /", 6) == 0);
	engine->n_requests++;
	connection->length = 0;
	answer(engine, connection);
	return true;
}

static void take_connections(struct engine *engine)
{
	for (size_t i = 0; i < ENGINE_CONNECTIONS; i++) {
		if (engine->connections[i].fd >= 0)
			continue;
		engine->connections[i].fd = accept4(engine->fd, NULL, NULL, SOCK_CLOEXEC);
		engine->connections[i].length = 0;
		if (engine->connections[i].fd < 0)
			return;
	}
}

bool engine_turn(struct engine *engine)
{
	bool any = false;
	take_connections(engine);
	for (size_t i = 0; i < ENGINE_CONNECTIONS; i++)
		if (engine->connections[i].fd >= 0)
			any |= read_request(engine, &engine->connections[i]);
	return any;
}

void engine_end(struct engine *engine)
{
	int fd;
	for (size_t i = 0; i < ENGINE_CONNECTIONS; i++)
		hang_up(&engine->connections[i]);
	while ((fd = accept4(engine->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
}
