/*
 * Who is at the other end of a connection, whether it is still there, and how much it takes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

/*
 * "uid 0 pid 4711 (python3)" on the Unix socket, "10.0.0.7" on TCP: the owner of a lease that names none. Found out
 * once and kept with the connection.
 */
const char *peer_name(struct client *client);

/*
 * TCP: a peer that does not answer for PEER_TIMEOUT_MS is taken for gone, also while it owes nothing. With something
 * sent to it every ten seconds at most, a host that vanished is noticed within 30 s.
 */
#define PEER_TIMEOUT_MS 20000
void peer_expect_life(const struct client *client);

/*
 * How many bytes can be written so that the peer's kernel takes them although nobody reads there; SIZE_MAX on a Unix
 * socket, where waiting harms nobody. On TCP data that finds no room ends the connection after PEER_TIMEOUT_MS
 * (tcp(7), TCP_USER_TIMEOUT), and it must not do so only because the client does not read. `*largest` keeps the
 * largest window that was seen; a quarter of it is left free.
 */
size_t peer_room(const struct client *client, uint32_t *largest);

/* Whether something that was written is still on its way, or unread on a Unix socket. */
bool peer_has_unread(const struct client *client);
