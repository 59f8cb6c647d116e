/*
 * A Redis server, which is its own Sentinel as well, that answers with the input of fuzz_redis_answers.c: each command
 * takes the next answer; when there are no more it does what a server would that has the lock's script.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>

#include "fuzz.h"

#define REDIS_SERVER_CONNECTIONS 8
#define REDIS_SERVER_MASTER "studio"

struct redis_server_connection {
	int fd; /* -1: free */
	bool hears; /* it has subscribed to something */
	size_t length;
	char bytes[24 * 1024];
};

struct redis_server {
	int unix_fd, tcp_fd;
	char path[128];
	in_port_t port; /* of 127.0.0.1 */
	struct fuzz_input *answers;
	char value[256]; /* of the key; "": there is none */
	uint64_t counter; /* the last fence */
	unsigned n_others; /* who wait */
	struct redis_server_connection connections[REDIS_SERVER_CONNECTIONS];
};

/* Once; listens from then on. */
void redis_server_open(struct redis_server *server);
void redis_server_begin(struct redis_server *server, struct fuzz_input *answers);
/* Takes connections and answers what has come. Whether anything has. */
bool redis_server_turn(struct redis_server *server);
/* Hangs up on everybody. */
void redis_server_end(struct redis_server *server);
