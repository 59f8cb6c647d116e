/*
 * Who may ask. On TCP a bearer token, unless the configuration says `open`; and the names in Host and Origin must be
 * this machine's, so that no web page can drive the daemon, not even one whose name was made to point here.
 */
#pragma once

#include <ifaddrs.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/attempts.h"
#include "api/token.h"
#include "base/error.h"
#include "config/config.h"

struct request;

struct guard {
	const struct config *const *config; /* that in force: it may be another one later */
	bool needs_token;
	struct token token;
	struct attempts attempts; /* at it */
	struct ifaddrs *addresses; /* of this machine, lately */
	uint64_t addresses_ms; /* when they were asked for, CLOCK_MONOTONIC */
};

/*
 * `has_tcp`: somebody can come over TCP, wherever its socket is from. -EINVAL when that is so and the configuration
 * names neither a token nor `open`; what token_open() says.
 */
int guard_open(struct guard *guard, const struct config *const *config, bool has_tcp, struct error *err);
void guard_finish(struct guard *guard);

/* True, or the request has its refusal as an answer. */
bool guard_admits(struct guard *guard, struct request *request);

/* Whether `host` ("name", "name:port", "1.2.3.4:80", "[::1]:80") means this machine, or is allowed by name. */
bool guard_host_is_ours(struct guard *guard, const char *host);
/* The same for "http://name:port". "null" is not ours. */
bool guard_origin_is_ours(struct guard *guard, const char *origin);
