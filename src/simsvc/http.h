/*
 * A small HTTP/1.1 server for one poll loop: GET and HEAD, one request a connection, everything bounded. It can answer
 * wrongly on purpose.
 */
#pragma once

#include <poll.h>
#include <stdint.h>

#include "base/error.h"

#define HTTP_POLLFDS 65 /* the listener and each connection */

enum http_form {
	HTTP_PLAIN, /* status and text */
	HTTP_REDIRECT, /* 302, to `text` */
	HTTP_RUBBISH, /* what is not HTTP */
	HTTP_ENDLESS, /* 200 and a body without an end */
	HTTP_SILENT, /* nothing, ever */
};

struct http_answer {
	enum http_form form;
	int status;
	char text[256];
};

struct http_listener {
	void *context;
	/* `path` is without the query. */
	void (*handle_request)(void *context, const char *path, struct http_answer *ret_answer);
};

struct http_server;

/* Listens on a numeric address. 0 or a negative errno with a message. `ret_port`: the port, also when 0 was asked. */
int http_server_create(const char *address, unsigned port, const struct http_listener *listener,
	struct http_server **ret_server, unsigned *ret_port, struct error *err);
struct http_server *http_server_free(struct http_server *server);

/* Fills what is to be polled, and lowers `*timeout_ms` (-1: none) where a connection has a deadline. Returns how many.
 */
nfds_t http_server_prepare(const struct http_server *server, struct pollfd fds[HTTP_POLLFDS], int *timeout_ms);

/* Deals with what poll() said of the descriptors that prepare gave. */
void http_server_handle(struct http_server *server, const struct pollfd *fds, nfds_t n);
