/*
 * A container engine that answers with the input of fuzz_docker_engine.c, on a Unix socket: each request takes the next
 * answer; when there are no more it behaves like an engine with one container.
 */
#pragma once

#include <stdbool.h>
#include <sys/un.h>

#include "fuzz.h"

#define ENGINE_CONNECTIONS 16
#define ENGINE_ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ENGINE_BORN "2026-11-23T16:43:38.962351072Z" /* its container's life, unless the input says otherwise */
#define ENGINE_BORN_BEFORE "2026-11-22T16:43:38.962351072Z"

struct engine_connection {
	int fd; /* -1: free */
	size_t length;
	char request[2048];
};

struct engine {
	int fd;
	char address[128]; /* unix:///... */
	struct fuzz_input *answers;
	bool is_running; /* the container */
	unsigned n_requests;
	struct engine_connection connections[ENGINE_CONNECTIONS];
};

/* Once; listens from then on. */
void engine_open(struct engine *engine);
void engine_begin(struct engine *engine, struct fuzz_input *answers);
/* Takes connections and answers what has come. Whether anything has. */
bool engine_turn(struct engine *engine);
/* Hangs up on everybody. */
void engine_end(struct engine *engine);
