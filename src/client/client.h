/*
 * A small client of the HTTP API: blocking requests, with or without a stream of events, over the Unix socket or a
 * URL. It knows how to ask, not what the answers mean.
 */
#pragma once

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "client/address.h"
#include "client/sse.h"

enum client_outcome {
	CLIENT_ANSWERED = 0, /* an HTTP answer, whatever its status */
	CLIENT_NO_DAEMON, /* no socket, or nobody listens */
	CLIENT_FORBIDDEN, /* the socket may not be opened */
	CLIENT_TIMED_OUT, /* no answer before the deadline */
	CLIENT_BAD_ANSWER, /* not HTTP, not JSON where it should be, too long, or broken off */
	CLIENT_STOPPED, /* a callback or `interrupted` said so */
};

struct client;

/* `address` is borrowed. NULL: no memory. */
struct client *client_new(const struct client_address *address);
struct client *client_free(struct client *client);

struct client_request {
	const char *method;
	const char *path; /* with its query, "/gpu/status" */
	uint64_t deadline_ms; /* for the whole; 0: none */
	const char *last_event_id; /* NULL */
	/* Set: an event stream is asked for, and its events come here. An answer of another type is kept as usual. */
	sse_handler handle_event;
	/* Set: the body of a 2xx answer comes here piece by piece, as it is. false stops. */
	bool (*handle_bytes)(void *context, const char *bytes, size_t n);
	/* The headers of a 2xx answer are there: the daemon has begun to answer. */
	void (*handle_open)(void *context);
	/* Called about every 80 ms while waiting. false stops. */
	bool (*handle_tick)(void *context);
	void *context;
	const volatile sig_atomic_t *interrupted; /* looked at whenever a signal may have come; NULL */
};

struct client_answer {
	long status;
	bool streamed; /* a callback had the body */
	char *body; /* else: the whole, with an ending 0 */
	size_t length;
	json_t *json; /* of a JSON body, else NULL */
};

/*
 * CLIENT_ANSWERED fills `ret_answer` (ended by client_answer_finish()); every other outcome leaves words in `err`.
 * May be called from handle_tick() of another request, not from its other callbacks.
 */
enum client_outcome client_ask(struct client *client, const struct client_request *request,
	struct client_answer *ret_answer, struct error *err);
void client_answer_finish(struct client_answer *answer);
