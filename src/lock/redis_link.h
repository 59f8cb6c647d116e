/*
 * One connection to a Redis server or a Sentinel: commands go out in order, replies come in order. Speaks RESP2 with
 * hiredis' reader and formatter, on libuv's own streams: hiredis' asynchronous part ends the process (an assertion)
 * when a server sends something that nobody asked for, connects with a blocking getaddrinfo(), knows no time limits,
 * and its sockets would be inherited by the services that the daemon starts.
 *
 * Every handler is called from the loop, never from inside these calls. What a server may send is bounded: a reply of
 * more than 64 KiB or 64 elements is no reply.
 */
#pragma once

#include <hiredis/hiredis.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "lock/redis_tls.h"
#include "lock/redis_url.h"

struct redis_link_listener {
	void *context;
	void (*handle_up)(void *context);
	/* Of the oldest command without one, or (see redis_link_take_messages) unasked. Borrowed for the call. */
	void (*handle_reply)(void *context, const redisReply *reply);
	/* The end, with the reason: "connection refused". Nothing follows; close it. */
	void (*handle_down)(void *context, const char *text);
};

struct redis_link;

/*
 * `tls`: for places that want it, else NULL. `limit_ms`: for the connection, and for each reply. 0, or a negative errno
 * with a message.
 */
int redis_link_open(uv_loop_t *loop, const struct redis_place *place, struct redis_tls_context *tls, uint64_t limit_ms,
	const struct redis_link_listener *listener, struct redis_link **ret_link, struct error *err);

/* When it cannot be sent the link goes down, a moment later. */
void redis_link_send(struct redis_link *link, int argc, const char *const *argv);

/* AUTH with the user and the password of `url`. */
void redis_link_authenticate(struct redis_link *link, const struct redis_url *url);

/* From now on the server may send what nobody asked for: it was asked to, by SUBSCRIBE. */
void redis_link_take_messages(struct redis_link *link);

/* No handler is called any more. The memory goes when the loop has closed its handles. NULL is fine. */
struct redis_link *redis_link_close(struct redis_link *link);
