/*
 * One HTTP request and its answer on a pump: begun, turned until it is over, read, freed. Knows how to ask, not what
 * the answers mean. Never follows a redirect, never uses a proxy: the token is for the daemon alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "client/address.h"
#include "client/pump.h"
#include "client/sse.h"

struct exchange_request {
	const char *method;
	const char *path; /* with its query, "/gpu/status" */
	const char *body; /* JSON, NULL */
	const char *last_event_id; /* NULL */
	/* An event stream is asked for, and its events come here. An answer of another type is kept as usual. */
	sse_handler handle_event;
	/* The body of a 2xx answer that is text/plain comes here piece by piece, as it is; false gives up. */
	bool (*handle_bytes)(void *context, const char *bytes, size_t n);
	/* The headers are there, and one of the handlers gets the body. */
	bool (*handle_open)(void *context);
	void *context;
	bool connects_anew; /* never a connection of before */
};

struct exchange;

/* `address` and `pump` are borrowed until the end. -ENOMEM. */
int exchange_begin(struct pump *pump, const struct client_address *address, const struct exchange_request *request,
	struct exchange **ret_exchange);
/* Ends it, whatever its state. Returns NULL. */
struct exchange *exchange_free(struct exchange *exchange);

/* For pump_turn(). */
void exchange_done(void *exchange, CURLcode result);

bool exchange_is_over(const struct exchange *exchange);
/* Once over: GPUMGR_OK when there was a whole answer, else an enum gpumgr_code, and the words in `err`. */
int exchange_outcome(const struct exchange *exchange, struct error *err);
/* Whether anything of an answer came. */
bool exchange_was_answered(const struct exchange *exchange);
/* When the last byte came, or when it began: clock_now_ms(). */
uint64_t exchange_heard_ms(const struct exchange *exchange);

/* The status; 0 before the headers are there. */
int exchange_status(const struct exchange *exchange);
/* The handlers had the body. */
bool exchange_was_streamed(const struct exchange *exchange);
/* What was kept of the body, with a 0 behind its end; never NULL. Good until the exchange is freed. */
const char *exchange_body(const struct exchange *exchange, size_t *ret_length);
/* The Content-Type in lower case and without parameters, "" without one. */
const char *exchange_type(const struct exchange *exchange);
