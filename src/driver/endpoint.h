/*
 * Where a service answers its health check, if that is on this host, and who listens there.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "driver/proc.h"

struct endpoint {
	bool has_v4, has_v6; /* localhost is both */
	struct in_addr v4;
	struct in6_addr v6;
	uint16_t port;
};

/*
 * The endpoint of an http or tcp check. -ENOENT: it has none, or its host is not this one as far as can be said without
 * asking a name server.
 */
int endpoint_of_probe(const struct probe_config *probe, struct endpoint *ret_endpoint);

/* Splits "HOST:PORT" or "http://HOST:PORT/..." into host and port. -EINVAL: it is neither. */
int endpoint_split(const char *address, char *host, size_t size, uint16_t *ret_port);

/*
 * The inode of the socket that listens there, the one bound to exactly that address before one bound to all; 0: nobody
 * listens. Negative errno: cannot be told.
 */
int64_t endpoint_listener(const struct endpoint *endpoint);

/* One line of /proc/net/tcp or tcp6. 2: listens exactly there, 1: on all addresses, 0: neither. -EINVAL: no such line.
 */
int endpoint_match_line(const struct endpoint *endpoint, const char *line, bool is_v6, uint64_t *ret_inode);

/* The process that holds the socket, the oldest if several do. -ESRCH: none can be seen. */
int endpoint_holder(uint64_t inode, struct proc_stat *ret_holder);
