/* See wire.h. Must do as little as it can per request, so that what is measured is the server. */
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, errno != 0 ? strerror(errno) : "not as expected");
	exit(1);
}

void wire_init(struct wire *wire, size_t size)
{
	*wire = (struct wire){ .fd = -1, .size = size, .buffer = calloc(1, size) };
	if (wire->buffer == NULL)
		fail("memory");
}

void wire_finish(struct wire *wire)
{
	wire_close(wire);
	free(wire->buffer);
	wire->buffer = NULL;
}

void wire_forget(struct wire *wire)
{
	wire->used = 0;
	wire->buffer[0] = '\0';
}

void wire_open(struct wire *wire, const char *socket_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	errno = ENAMETOOLONG;
	if (strlen(socket_path) >= sizeof(address.sun_path))
		fail(socket_path);
	memcpy(address.sun_path, socket_path, strlen(socket_path));
	wire_forget(wire);
	wire->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (wire->fd < 0 || connect(wire->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail(socket_path);
}

void wire_close(struct wire *wire)
{
	if (wire->fd >= 0)
		close(wire->fd);
	wire->fd = -1;
}

void wire_send(struct wire *wire, const char *method, const char *target, const char *body, bool keep)
{
	char request[1024];
	int length = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, target,
		keep ? "" : "Connection: close\r\n");
	if (body != NULL)
		length += snprintf(request + length, sizeof(request) - (size_t)length,
			"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	else
		length += snprintf(request + length, sizeof(request) - (size_t)length, "\r\n");
	wire_forget(wire);
	errno = 0;
	if (write(wire->fd, request, (size_t)length) != length)
		fail("request");
}

bool wire_read_some(struct wire *wire)
{
	if (wire->used == wire->size - 1)
		wire_forget(wire); /* events that nobody waits for */
	ssize_t got = read(wire->fd, wire->buffer + wire->used, wire->size - 1 - wire->used);
	if (got < 0)
		fail("answer");
	wire->used += (size_t)got;
	wire->buffer[wire->used] = '\0';
	return got > 0;
}

bool wire_has_answer(const struct wire *wire)
{
	const char *end = strstr(wire->buffer, "\r\n\r\n");
	const char *length = end != NULL ? strcasestr(wire->buffer, "\r\ncontent-length:") : NULL;
	if (length == NULL || length > end)
		return false;
	return wire->used >= (size_t)(end + 4 - wire->buffer) + strtoul(length + 17, NULL, 10);
}

unsigned wire_answer(struct wire *wire)
{
	errno = 0;
	while (!wire_has_answer(wire))
		if (!wire_read_some(wire))
			fail("answer");
	return (unsigned)strtoul(wire->buffer + 9, NULL, 10);
}

uint64_t wire_granted(const struct wire *wire)
{
	const char *grant = wire->buffer;
	bool is_answer = strncmp(grant, "HTTP/1.1 201", 12) == 0;
	if (is_answer && !wire_has_answer(wire))
		return 0;
	if (!is_answer)
		grant = strstr(grant, "event: granted");
	const char *id = grant != NULL ? strstr(grant, "\"id\":\"") : NULL;
	bool is_whole = id != NULL && (is_answer || strstr(id, "\n\n") != NULL);
	return is_whole ? strtoull(id + 6, NULL, 10) : 0;
}
