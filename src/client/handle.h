/*
 * The handle behind the public functions, and what they share: its checks, its last error, its blocking requests.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "client/address.h"
#include "client/exchange.h"
#include "client/pump.h"
#include "client/records.h"
#include "gpumgr.h"

#define PATIENCE_DEFAULT_MS 60000
/* Over TCP the daemon sends a ping every 10 s; after this long without a byte a stream is dead. */
#define SILENCE_DEFAULT_MS 45000

struct gpumgr {
	unsigned users; /* itself, and each lease and stream made from it */
	pid_t pid;
	struct client_settings settings; /* what was set by hand */
	struct client_address address;
	bool is_found; /* the address is */
	bool has_pump;
	struct pump pump; /* of requests that are waited for */
	int interrupt_fd;
	uint64_t patience_ms;
	uint64_t silence_ms;
	struct gpumgr_error error;
	struct error words; /* error.message */
	struct arena *problem; /* holds what else `error` points to; NULL */
};

struct gpumgr *handle_ref(struct gpumgr *g);
void handle_unref(struct gpumgr *g);

/* GPUMGR_OK when the handle may be used here, and its address is known. */
int handle_check(struct gpumgr *g);

/* Sets the last error; returns `code`. */
int handle_fail(struct gpumgr *g, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int handle_no_memory(struct gpumgr *g);
/* Of a negative errno. */
int handle_errno(struct gpumgr *g, int r, const char *what);
/* Of an exchange that is over: GPUMGR_OK, or why it failed. */
int handle_fail_exchange(struct gpumgr *g, const struct exchange *exchange);
/* What an answer that is no 2xx means. `json` is a problem document or whatever else it is, NULL for none. */
int handle_fail_problem(struct gpumgr *g, int status, json_t *json);

/* "now + timeout_ms", PUMP_NEVER for -1. */
uint64_t deadline_of(int64_t timeout_ms);

/* An answer that came whole. */
struct reply {
	int status;
	struct exchange *exchange; /* owns the body */
	json_t *json; /* of a JSON body, else NULL */
};
void reply_finish(struct reply *reply);

/* Asks and waits: GPUMGR_OK is any answer. */
int handle_ask(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct reply *ret_reply);
/* The same, but only a 2xx with a JSON object is GPUMGR_OK. */
int handle_ask_object(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct reply *ret_reply);

/* gpumgr_renew(); `ret_expires_in_ms` may become GPUMGR_UNKNOWN. */
int renew_lease(struct gpumgr *g, const char *id, uint64_t fence, int64_t ttl_ms, int64_t timeout_ms,
	int64_t *ret_expires_in_ms);
