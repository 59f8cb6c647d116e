/*
 * libmicrohttpd does not look at suspended connections, so it does not notice when their client goes away. A watch
 * does: it lies on the connection's own descriptor in the daemon's loop and must be stopped before that is closed
 * (libmicrohttpd tells, see NOTIFY_COMPLETED). A client that closes its sending half counts as gone.
 */
#pragma once

#include <uv.h>

struct api;
struct request;

struct watch {
	uv_poll_t poll;
	struct api *api;
	struct request *request; /* NULL: stopped */
};

/* 0 or a negative errno. Harmless when there is one already. */
int watch_start(struct request *request);
void watch_stop(struct request *request);
