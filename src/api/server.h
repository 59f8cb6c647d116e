/*
 * The inside of the API, shared by the files of this folder and by nobody else.
 *
 * Life of a request: server.c gets it from libmicrohttpd, guard.c lets it in, routes.c finds its row, parameters.c
 * reads what came with it, a handler answers (reply.h), submits (action.h) or opens a stream (stream.h).
 */
#pragma once

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "api/api.h"
#include "api/deadline.h"
#include "api/guard.h"
#include "api/lease_stream.h"
#include "api/listen.h"
#include "api/metrics.h"
#include "api/ring.h"
#include "api/stream.h"
#include "api/tickets.h"

#define API_CONNECTIONS_MAX 24000
#define API_WAITING_MAX 10000
#define API_STREAMS_MAX 256
#define API_BODY_MAX (64 * 1024)

struct request;

/* A part of a listener's connections, with the libmicrohttpd daemon that serves them. */
struct shard {
	struct listener *listener;
	struct MHD_Daemon *daemon;
	unsigned n_connections;
	uv_poll_t poll; /* its epoll descriptor */
	uv_timer_t timer; /* it wants to run again at once */
	uint64_t n_runs; /* of libmicrohttpd */
	bool has_remains; /* it has connections to close in its next run */
	unsigned n_handles; /* of libuv that are not closed yet */
};

/*
 * libmicrohttpd looks at every connection that waits before it goes on with one of them: with ten thousand in a queue
 * that was most of what a hand-over took. So a shard gets only so many. One after the other, and not in turn: requests
 * are to be served in the order in which they came, and shards are not.
 */
#define SHARD_CONNECTIONS 1024
#define LISTENER_SHARDS 24

/* One listening socket. */
struct listener {
	struct api *api;
	int fd;
	bool is_unix;
	unsigned port; /* TCP */
	uv_poll_t poll;
	uv_timer_t timer; /* somebody could not be taken: it tries again */
	struct shard *shards[LISTENER_SHARDS]; /* the first is there, the others when they are needed; owned */
};

/* One connection. */
struct client {
	struct api *api;
	struct listener *listener;
	struct shard *shard;
	int fd;
	struct deadline deadline;
	bool has_peer; /* Unix socket: who it is */
	uid_t uid;
	pid_t pid;
	bool has_shown_token;
	char *name; /* in words, see peer.h; owned, NULL: not asked yet */
	struct request *request; /* what it asks now; owned, NULL: nothing */
};

/* The rendered status page, good for one version and one second. */
struct status_cache {
	struct MHD_Response *response;
	uint64_t version;
	int64_t second;
};

struct api {
	uv_loop_t *loop;
	const struct api_host *host;
	bool open; /* everything was set up */
	bool closing;
	unsigned n_handles; /* handles of libuv that are not closed yet */
	size_t n_listeners; /* those whose socket is open */
	struct listener listeners[LISTEN_MAX];
	struct unix_socket unix_socket;
	struct guard guard;
	struct deadlines deadlines;
	unsigned n_connections;
	unsigned connections_max;
	struct tickets tickets;
	LIST_HEAD(, request) breaking; /* forced stops under way */
	struct ring *ring;
	struct streams streams;
	struct lease_streams lease_streams;
	uv_timer_t log_timer; /* followers of logs look for more */
	struct status_cache status_cache;
	struct metrics metrics;
};

/* A handle of libuv was set up, or is to be closed: the API is freed after the last one. */
void api_handle_opened(struct api *api);
void api_close_handle(struct api *api, uv_handle_t *handle);
void api_handle_closed(struct api *api);

/* Takes the connection from libmicrohttpd. */
void api_suspend(struct request *request);
/* Hands it back; nothing when it was not taken. */
void api_resume(struct request *request);
