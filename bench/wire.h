/* The least HTTP client over a Unix socket that measuring needs: it trusts the server, and is no example. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire {
	int fd; /* -1: closed */
	size_t used, size;
	char *buffer; /* always ends with a 0 */
	bool is_served; /* the user's own: it had a grant */
};

/* Errors end the program: a benchmark that lost its server has nothing to say. */
void wire_init(struct wire *wire, size_t size);
void wire_finish(struct wire *wire);
void wire_open(struct wire *wire, const char *socket_path);
void wire_close(struct wire *wire);
/* `body` NULL: none. */
void wire_send(struct wire *wire, const char *method, const char *target, const char *body, bool keep);
/* What was read so far. */
void wire_forget(struct wire *wire);
/* Waits for one whole answer with Content-Length; its status. It stands in the buffer until the next call. */
unsigned wire_answer(struct wire *wire);
/* Takes what is there. False: the server closed the connection. */
bool wire_read_some(struct wire *wire);
/* Whether the buffer holds one whole answer with Content-Length. */
bool wire_has_answer(const struct wire *wire);
/* The lease that what the buffer holds grants; 0: none (yet). */
uint64_t wire_granted(const struct wire *wire);
