/*
 * The sockets that the API listens on. A Unix socket appears under its name only when it is ready and has its mode
 * and group; a stale one is replaced, one that is in use is not, and what is no socket is never removed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"
#include "config/config.h"

#define LISTEN_ADDRESSES_MAX 16 /* of a configuration */
#define LISTEN_MAX (LISTEN_ADDRESSES_MAX + 2) /* and the Unix socket, and one that a supervisor hands over */

struct unix_socket {
	char *path; /* owned; NULL: none is ours */
	dev_t device; /* the file as we made it, so that no other is removed */
	ino_t inode;
};

struct unix_options {
	const char *path;
	unsigned mode;
	const char *group; /* NULL: leave it */
	bool group_required;
};

/* A listening socket, or a negative errno with a message. */
int listen_unix(const struct unix_options *options, struct unix_socket *ret_socket, struct error *err);

/* Removes the file if it is still the one that was made. */
void listen_unix_remove(struct unix_socket *socket);

/* "127.0.0.1:8700", "[::1]:8700", ":8700" (every address). A listening socket, or a negative errno with a message. */
int listen_tcp(const char *address, struct error *err);

/* The port of a TCP socket, 0 for any other. */
unsigned listen_port(int fd);
bool listen_is_unix(int fd);
