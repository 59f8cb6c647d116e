/*
 * Host names to addresses without ever blocking the loop. Numbers and `localhost` (RFC 6761: always loopback) need no
 * lookup; everything else goes through uv_getaddrinfo.
 */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define ADDRESSES_MAX 8

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct address_list {
	size_t n; /* what a name has beyond ADDRESSES_MAX is left out */
	union address items[ADDRESSES_MAX];
};

enum resolve_outcome {
	RESOLVE_DONE = 0,
	RESOLVE_NEEDS_LOOKUP = 1,
};

enum resolve_outcome resolve_now(const char *host, uint16_t port, struct address_list *ret_addresses);

struct lookup;

/* `status`: 0, or a libuv error. From the loop, exactly once unless cancelled; the lookup is gone afterwards. */
typedef void (*lookup_handler)(void *context, int status, const struct address_list *addresses);

/* 0 or a negative errno. */
int lookup_start(uv_loop_t *loop, const char *host, uint16_t port, lookup_handler handler, void *context,
	struct lookup **ret_lookup);

/* The handler is not called any more. libuv may hold on to it for as long as the resolver takes. NULL is fine. */
struct lookup *lookup_cancel(struct lookup *lookup);
