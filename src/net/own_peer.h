/*
 * Sockets that are connected to themselves. Who connects to a port of this host on which nobody listens, and is given
 * that very port for its own end, meets itself (simultaneous open, RFC 9293 section 3.5): to the caller it looks like
 * a connection that somebody accepted. With a port out of net.ipv4.ip_local_port_range some attempt in ten thousand
 * ends so.
 */
#pragma once

#include <stdbool.h>

/*
 * Whether the TCP socket is its own peer. If so, its close is made a reset: else the port could not be bound for a
 * minute, not even by the service whose it is.
 */
bool own_peer_reset(int fd);
