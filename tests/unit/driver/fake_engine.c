/* A container engine that only pretends. */
#include "fake_engine.h"

#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

struct fake_connection {
	uv_pipe_t pipe;
	struct fake_engine *engine;
	struct fake_connection *previous, *next;
	char input[8192];
	size_t length;
	bool is_stream, is_closing, is_held;
	char held[512];
	size_t held_length;
	const char *again;
	size_t again_length;
	uv_timer_t *more;
};

struct output {
	uv_write_t request;
	bool then_close;
	char bytes[];
};

/* ---- connections ---- */

static void handle_connection_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void handle_timer_closed(uv_handle_t *handle)
{
	free(handle);
}

static void close_connection(struct fake_connection *connection)
{
	if (connection->is_closing)
		return;
	connection->is_closing = true;
	if (connection->next != NULL)
		connection->next->previous = connection->previous;
	if (connection->previous != NULL)
		connection->previous->next = connection->next;
	else
		connection->engine->connections = connection->next;
	if (connection->more != NULL)
		uv_close((uv_handle_t *)connection->more, handle_timer_closed);
	uv_close((uv_handle_t *)&connection->pipe, handle_connection_closed);
}

static void handle_written(uv_write_t *request, int status)
{
	struct output *output = (struct output *)request;
	struct fake_connection *connection = request->handle->data;
	if ((output->then_close || status < 0) && !uv_is_closing((uv_handle_t *)request->handle))
		close_connection(connection);
	free(output);
}

static void send_bytes(struct fake_connection *connection, const char *bytes, size_t length, bool then_close)
{
	if (connection->is_held) {
		assert_true(connection->held_length + length <= sizeof(connection->held));
		memcpy(connection->held + connection->held_length, bytes, length);
		connection->held_length += length;
		return;
	}
	struct output *output = malloc(sizeof(*output) + length);
	memset(output, 0, sizeof(*output));
	output->then_close = then_close;
	memcpy(output->bytes, bytes, length);
	uv_buf_t buffer = uv_buf_init(output->bytes, (unsigned)length);
	if (uv_write(&output->request, (uv_stream_t *)&connection->pipe, &buffer, 1, handle_written) < 0)
		free(output);
}

static void send_answer(struct fake_connection *connection, int status, const char *body)
{
	char *text = NULL;
	int length = asprintf(&text,
		"HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
		strlen(body), body);
	assert_true(length > 0);
	send_bytes(connection, text, (size_t)length, true);
	free(text);
}

static void send_error(struct fake_connection *connection, int status, const char *message)
{
	char body[256];
	snprintf(body, sizeof(body), "{\"message\":\"%s\"}", message);
	send_answer(connection, status, body);
}

static void handle_more(uv_timer_t *timer)
{
	struct fake_connection *connection = timer->data;
	if (uv_stream_get_write_queue_size((uv_stream_t *)&connection->pipe) == 0)
		send_bytes(connection, connection->again, connection->again_length, false);
}

static void send_endlessly(struct fake_connection *connection, const char *bytes, size_t length)
{
	connection->again = bytes;
	connection->again_length = length;
	connection->more = calloc(1, sizeof(uv_timer_t));
	uv_timer_init(connection->engine->loop, connection->more);
	connection->more->data = connection;
	uv_timer_start(connection->more, handle_more, 0, 1);
	uv_unref((uv_handle_t *)connection->more);
}

/* ---- what it knows ---- */

static const char *state_word(const struct fake_container *container)
{
	static const char *const words[] = { "created", "running", "paused", "restarting", "exited" };
	return container->is_dead ? "dead" : words[container->state];
}

static bool is_up(const struct fake_container *container)
{
	return container->state == FAKE_RUNNING || container->state == FAKE_PAUSED;
}

static struct fake_container *find(struct fake_engine *engine, const char *name, size_t length)
{
	for (size_t i = 0; i < FAKE_CONTAINERS; i++) {
		struct fake_container *container = &engine->containers[i];
		bool is_name = strlen(container->name) == length && memcmp(container->name, name, length) == 0;
		bool is_id = length >= 4 && strncmp(container->id, name, length) == 0; /* also of its beginning */
		if (container->id[0] != '\0' && (is_name || is_id))
			return container;
	}
	return NULL;
}

static void labels(const struct fake_container *container, char *buffer, size_t size)
{
	if (container->project == NULL)
		snprintf(buffer, size, "\"x\":\"y\"");
	else
		snprintf(buffer, size,
			"\"com.docker.compose.project\":\"%s\",\"com.docker.compose.service\":\"%s\",\"com.docker."
			"compose."
			"replace\":\"%s\"",
			container->project, container->service, container->replaces != NULL ? container->replaces : "");
}

static void inspect(struct fake_connection *connection, const struct fake_container *container)
{
	char body[4096], health[512] = "";
	connection->engine->n_inspections++;
	if (container->health != NULL)
		snprintf(health, sizeof(health), ",\"Health\":{\"Status\":\"%s\",\"Log\":[{\"Output\":\"%s\"}]}",
			container->health, container->health_output != NULL ? container->health_output : "");
	snprintf(body, sizeof(body),
		"{\"Id\":\"%s\",\"Name\":\"/%s\",\"State\":{\"Status\":\"%s\",\"Running\":%s,\"Paused\":%s,"
		"\"Restarting\":%s,\"OOMKilled\":%s,\"Dead\":%s,\"Pid\":%d,\"ExitCode\":%d,\"Error\":\"%s\","
		"\"StartedAt\":\"2026-01-01T00:00:%02u.5Z\"%s},\"Config\":{\"Tty\":%s},\"HostConfig\":{\"NetworkMode\":"
		"\"%s\",\"AutoRemove\":false,\"RestartPolicy\":{\"Name\":\"no\"}},\"NetworkSettings\":{\"Networks\":{"
		"\"n\":{\"IPAddress\":\"%s\"}}}}",
		container->id, container->name, state_word(container),
		is_up(container) || container->state == FAKE_RESTARTING ? "true" : "false",
		container->state == FAKE_PAUSED ? "true" : "false",
		container->state == FAKE_RESTARTING ? "true" : "false", container->is_oom ? "true" : "false",
		container->is_dead ? "true" : "false", is_up(container) ? container->pid : 0, container->exit_code,
		container->error != NULL ? container->error : "", container->n_starts, health,
		container->has_terminal ? "true" : "false", container->address == NULL ? "host" : "bridge",
		container->address != NULL ? container->address : "");
	send_answer(connection, 200, body);
}

static void list(struct fake_connection *connection, const char *path)
{
	struct fake_engine *engine = connection->engine;
	char body[4096] = "[";
	for (size_t i = 0; i < FAKE_CONTAINERS; i++) {
		const struct fake_container *container = &engine->containers[i];
		char text[512];
		bool is_asked = container->id[0] != '\0' && container->project != NULL &&
			strstr(path, container->project) != NULL && strstr(path, container->service) != NULL;
		if (!is_asked)
			continue;
		labels(container, text, sizeof(text));
		size_t used = strlen(body);
		snprintf(body + used, sizeof(body) - used,
			"%s{\"Id\":\"%s\",\"Names\":[\"/%s\"],\"State\":\"%s\",\"Labels\":{%s}}", used > 1 ? "," : "",
			container->id, container->name, state_word(container), text);
	}
	strncat(body, "]", sizeof(body) - strlen(body) - 1);
	send_answer(connection, 200, body);
}

/* ---- what it does ---- */

void fake_engine_say(struct fake_engine *engine, const char *bytes, size_t length)
{
	char header[32];
	for (struct fake_connection *connection = engine->connections; connection != NULL;
		connection = connection->next) {
		if (!connection->is_stream || strstr(connection->input, "/events") == NULL)
			continue;
		int n = snprintf(header, sizeof(header), "%zx\r\n", length);
		send_bytes(connection, header, (size_t)n, false);
		send_bytes(connection, bytes, length, false);
		send_bytes(connection, "\r\n", 2, false);
	}
}

static void tell(struct fake_engine *engine, const struct fake_container *container, const char *action, int signal)
{
	char text[1024], attributes[512];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	labels(container, attributes, sizeof(attributes));
	int length = snprintf(text, sizeof(text),
		"{\"Type\":\"container\",\"Action\":\"%s\",\"Actor\":{\"ID\":\"%s\",\"Attributes\":{\"name\":\"%s\",%s,"
		"\"signal\":\"%d\"}},\"timeNano\":%lld}\n",
		action, container->id, container->name, attributes, signal,
		(long long)now.tv_sec * 1000000000 + now.tv_nsec);
	if (!engine->tells_no_events)
		fake_engine_say(engine, text, (size_t)length);
}

void fake_engine_event(struct fake_engine *engine, const struct fake_container *container, const char *action)
{
	tell(engine, container, action, 0);
}

void fake_engine_signal(struct fake_engine *engine, const struct fake_container *container, int signal)
{
	tell(engine, container, "kill", signal);
}

void fake_engine_start(struct fake_engine *engine, struct fake_container *container)
{
	container->n_starts++;
	container->state = FAKE_RUNNING;
	fake_engine_event(engine, container, "start");
	if (container->ends_at_once)
		fake_engine_end(engine, container, container->exit_code);
}

void fake_engine_end_output(struct fake_engine *engine, const struct fake_container *container)
{
	for (struct fake_connection *connection = engine->connections, *next; connection != NULL; connection = next) {
		next = connection->next;
		if (connection->is_stream && strstr(connection->input, container->id) != NULL)
			send_bytes(connection, "0\r\n\r\n", 5, true);
	}
}

void fake_engine_end(struct fake_engine *engine, struct fake_container *container, int exit_code)
{
	container->state = container->will_restart ? FAKE_RESTARTING : FAKE_EXITED;
	container->exit_code = exit_code;
	fake_engine_event(engine, container, "die");
	fake_engine_end_output(engine, container);
}

void fake_engine_remove(struct fake_engine *engine, struct fake_container *container)
{
	if (is_up(container))
		fake_engine_end(engine, container, 137);
	struct fake_container copy = *container;
	container->id[0] = '\0';
	fake_engine_event(engine, &copy, "destroy");
}

static void do_start(struct fake_connection *connection, struct fake_container *container)
{
	if (container->state == FAKE_RUNNING || container->state == FAKE_RESTARTING) {
		send_answer(connection, 304, "");
		return;
	}
	struct fake_engine *engine = connection->engine;
	if (engine->spoils_after_start)
		fake_engine_fault(engine, "/json", FAULT_RAW, 0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
	engine->spoils_after_start = false;
	fake_engine_start(engine, container);
	send_answer(connection, 204, "");
}

static void do_stop(struct fake_connection *connection, struct fake_container *container)
{
	container->n_stops++;
	if (container->state == FAKE_PAUSED || container->ignores_stop)
		return; /* the call waits, and so does its answer */
	if (container->state == FAKE_RESTARTING) {
		container->state = FAKE_EXITED;
		fake_engine_event(connection->engine, container, "stop");
	} else if (is_up(container)) {
		fake_engine_end(connection->engine, container, 143);
	} else {
		send_answer(connection, 304, "");
		return;
	}
	send_answer(connection, 204, "");
}

static void do_kill(struct fake_connection *connection, struct fake_container *container)
{
	container->n_kills++;
	if (!is_up(container)) {
		send_error(connection, 409, "container is not running");
		return;
	}
	fake_engine_end(connection->engine, container, 137);
	send_answer(connection, 204, "");
}

static void do_unpause(struct fake_connection *connection, struct fake_container *container)
{
	container->state = FAKE_RUNNING;
	fake_engine_event(connection->engine, container, "unpause");
	send_answer(connection, 204, "");
}

static void do_restart(struct fake_connection *connection, struct fake_container *container)
{
	fake_engine_start(connection->engine, container);
	send_answer(connection, 204, "");
}

static void begin_stream(struct fake_connection *connection)
{
	const char *headers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	connection->is_stream = true;
	connection->engine->n_streams++;
	if (!connection->engine->sends_no_headers)
		send_bytes(connection, headers, strlen(headers), false);
}

static void do_logs(struct fake_connection *connection, struct fake_container *container)
{
	char header[32];
	begin_stream(connection);
	if (container->output != NULL) {
		int n = snprintf(header, sizeof(header), "%zx\r\n", container->output_length);
		send_bytes(connection, header, (size_t)n, false);
		send_bytes(connection, container->output, container->output_length, false);
		send_bytes(connection, "\r\n", 2, false);
	}
	if (!is_up(container))
		send_bytes(connection, "0\r\n\r\n", 5, true);
}

static void do_inspect(struct fake_connection *connection, struct fake_container *container)
{
	inspect(connection, container);
}

static const struct {
	const char *verb;
	void (*act)(struct fake_connection *connection, struct fake_container *container);
} verbs[] = {
	{ "/json", do_inspect },
	{ "/start", do_start },
	{ "/stop", do_stop },
	{ "/kill", do_kill },
	{ "/unpause", do_unpause },
	{ "/restart", do_restart },
	{ "/logs", do_logs },
};

static void act_on_container(struct fake_connection *connection, const char *rest)
{
	size_t length = strcspn(rest, "/");
	struct fake_container *container = find(connection->engine, rest, length);
	if (container == NULL) {
		send_error(connection, 404, "No such container");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strncmp(rest + length, verbs[i].verb, strlen(verbs[i].verb)) == 0) {
			verbs[i].act(connection, container);
			return;
		}
	send_error(connection, 404, "page not found");
}

static void tell_version(struct fake_connection *connection)
{
	const struct fake_engine *engine = connection->engine;
	char body[512];
	connection->engine->n_versions++;
	snprintf(body, sizeof(body),
		"{\"ApiVersion\":\"%s\",\"MinAPIVersion\":\"%s\",\"Components\":[{\"Name\":\"%s\"}]}", engine->version,
		engine->least, engine->is_podman ? "Podman Engine" : "Engine");
	send_answer(connection, 200, body);
}

static void act(struct fake_connection *connection, const char *path)
{
	struct fake_engine *engine = connection->engine;
	if (strcmp(path, "/version") == 0) {
		tell_version(connection);
		return;
	}
	if (strcmp(path, "/_ping") == 0) {
		send_answer(connection, 200, "OK");
		return;
	}
	size_t length = strcspn(path + 1, "/") + 1;
	snprintf(engine->last_version, sizeof(engine->last_version), "%.*s", (int)length - 2, path + 2);
	path += length;
	if (strncmp(path, "/events", 7) == 0)
		begin_stream(connection);
	else if (strncmp(path, "/containers/json?", 17) == 0)
		list(connection, path);
	else if (strncmp(path, "/containers/", 12) == 0)
		act_on_container(connection, path + 12);
	else
		send_error(connection, 404, "page not found");
}

/* ---- faults ---- */

void fake_engine_fault(
	struct fake_engine *engine, const char *path, enum fake_fault_kind kind, unsigned n, const char *bytes)
{
	for (size_t i = 0; i < FAKE_FAULTS; i++)
		if (engine->faults[i].path == NULL) {
			engine->faults[i] = (struct fake_fault){ .path = path, .kind = kind, .n = n, .bytes = bytes };
			return;
		}
	fail_msg("too many faults");
}

void fake_engine_release(struct fake_engine *engine)
{
	for (struct fake_connection *connection = engine->connections; connection != NULL;
		connection = connection->next) {
		if (!connection->is_held)
			continue;
		connection->is_held = false;
		send_bytes(connection, connection->held, connection->held_length, true);
	}
}

void fake_engine_heal(struct fake_engine *engine)
{
	memset(engine->faults, 0, sizeof(engine->faults));
}

static enum fake_fault_kind take_fault(struct fake_engine *engine, const char *line, struct fake_fault *ret_fault)
{
	for (size_t i = 0; i < FAKE_FAULTS; i++) {
		struct fake_fault *fault = &engine->faults[i];
		if (fault->path == NULL || strstr(line, fault->path) == NULL)
			continue;
		*ret_fault = *fault;
		if (fault->n > 0 && --fault->n == 0)
			fault->path = NULL;
		return ret_fault->kind;
	}
	return FAULT_NONE;
}

static void handle_request(struct fake_connection *connection, const char *method, const char *path)
{
	struct fake_engine *engine = connection->engine;
	struct fake_fault fault = { 0 };
	char *line = NULL, *log = NULL;
	assert_true(asprintf(&line, "%s %s", method, path) > 0);
	assert_true(asprintf(&log, "%s%s\n", engine->log, line) > 0);
	free(engine->log);
	engine->log = log;
	engine->n_requests++;
	enum fake_fault_kind kind = take_fault(engine, line, &fault);
	size_t length = fault.bytes == NULL ? 0 : fault.length > 0 ? fault.length : strlen(fault.bytes);
	free(line);
	connection->is_held = kind == FAULT_HOLD;
	if (kind == FAULT_NONE || kind == FAULT_LOSE || kind == FAULT_HOLD)
		act(connection, path);
	if (kind == FAULT_CLOSE || kind == FAULT_LOSE)
		close_connection(connection);
	else if (kind == FAULT_RAW)
		send_bytes(connection, fault.bytes, length, true);
	else if (kind == FAULT_ENDLESS)
		send_endlessly(connection, fault.bytes, length);
}

/* ---- the socket ---- */

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct fake_connection *connection = handle->data;
	(void)suggested;
	*buffer = uv_buf_init(
		connection->input + connection->length, (unsigned)(sizeof(connection->input) - 1 - connection->length));
}

static void handle_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct fake_connection *connection = stream->data;
	char method[16], path[4096];
	(void)buffer;
	if (n < 0) {
		close_connection(connection);
		return;
	}
	connection->length += (size_t)n;
	connection->input[connection->length] = '\0';
	if (strstr(connection->input, "\r\n\r\n") == NULL)
		return;
	assert_int_equal(sscanf(connection->input, "%15s %4095s", method, path), 2);
	connection->length = 0;
	handle_request(connection, method, path);
}

static void handle_connection(uv_stream_t *listener, int status)
{
	struct fake_engine *engine = listener->data;
	struct fake_connection *connection = calloc(1, sizeof(*connection));
	assert_int_equal(status, 0);
	uv_pipe_init(engine->loop, &connection->pipe, 0);
	connection->pipe.data = connection;
	connection->engine = engine;
	assert_int_equal(uv_accept(listener, (uv_stream_t *)&connection->pipe), 0);
	connection->next = engine->connections;
	if (connection->next != NULL)
		connection->next->previous = connection;
	engine->connections = connection;
	engine->n_connections++;
	uv_unref((uv_handle_t *)&connection->pipe); /* the loop of the test ends when the driver has let go */
	uv_read_start((uv_stream_t *)&connection->pipe, allocate, handle_read);
}

static void handle_listener_closed(uv_handle_t *handle)
{
	free(handle);
}

void fake_engine_come(struct fake_engine *engine)
{
	engine->listener = calloc(1, sizeof(uv_pipe_t));
	uv_pipe_init(engine->loop, engine->listener, 0);
	engine->listener->data = engine;
	unlink(engine->path);
	assert_int_equal(uv_pipe_bind(engine->listener, engine->path), 0);
	assert_int_equal(uv_listen((uv_stream_t *)engine->listener, 64, handle_connection), 0);
	uv_unref((uv_handle_t *)engine->listener);
}

void fake_engine_go(struct fake_engine *engine)
{
	while (engine->connections != NULL)
		close_connection(engine->connections);
	if (engine->listener != NULL)
		uv_close((uv_handle_t *)engine->listener, handle_listener_closed);
	engine->listener = NULL;
	unlink(engine->path);
}

void fake_engine_break_streams(struct fake_engine *engine)
{
	for (struct fake_connection *connection = engine->connections, *next; connection != NULL; connection = next) {
		next = connection->next;
		if (connection->is_stream)
			close_connection(connection);
	}
}

struct fake_container *fake_engine_add(struct fake_engine *engine, const char *name)
{
	for (size_t i = 0; i < FAKE_CONTAINERS; i++) {
		struct fake_container *container = &engine->containers[i];
		if (container->id[0] != '\0')
			continue;
		*container = (struct fake_container){ .pid = 999999000 + (int)i };
		snprintf(container->id, sizeof(container->id), "%zx%063zx", i + 10, i);
		snprintf(container->name, sizeof(container->name), "%s", name);
		return container;
	}
	fail_msg("too many containers");
	return NULL;
}

unsigned fake_engine_count(const struct fake_engine *engine, const char *text)
{
	unsigned n = 0;
	for (const char *c = engine->log; (c = strstr(c, text)) != NULL; c++)
		n++;
	return n;
}

struct fake_engine *fake_engine_create(struct bench *bench)
{
	struct fake_engine *engine = calloc(1, sizeof(*engine));
	engine->loop = &bench->loop;
	engine->version = "1.43";
	engine->least = "1.24";
	engine->log = calloc(1, 1);
	snprintf(engine->path, sizeof(engine->path), "%s/engine.sock", bench->dir);
	snprintf(engine->url, sizeof(engine->url), "unix://%s", engine->path);
	fake_engine_come(engine);
	return engine;
}

void fake_engine_destroy(struct fake_engine *engine)
{
	fake_engine_go(engine);
	uv_run(engine->loop, UV_RUN_NOWAIT);
	uv_run(engine->loop, UV_RUN_NOWAIT);
	free(engine->log);
	free(engine);
}
