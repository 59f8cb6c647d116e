/*
 * The parts of lock.url. Pure.
 *
 *   redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]              rediss:// the same over TLS
 *   unix:///PATH[?db=N&username=USER&password=PASSWORD]
 *   redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]]/MASTER[/DB]
 *
 * User, password and path are percent-decoded. Messages never hold any of the three, nor the URL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define REDIS_PORT 6379
#define REDIS_SENTINEL_PORT 26379
#define REDIS_HOST_MAX 253
#define REDIS_PATH_MAX 107 /* what a Unix socket's address holds */
#define REDIS_PLACES_MAX 8
#define REDIS_SECRET_MAX 512

/* One server: a Unix socket (`path` is not ""), or a host and a port. */
struct redis_place {
	char path[REDIS_PATH_MAX + 1];
	char host[REDIS_HOST_MAX + 1];
	uint16_t port;
	bool tls;
};

struct redis_url {
	size_t n_places; /* one, but for Sentinels */
	struct redis_place places[REDIS_PLACES_MAX];
	char master[128]; /* "" unless the places are Sentinels */
	char user[REDIS_SECRET_MAX + 1]; /* "" when there is none */
	char password[REDIS_SECRET_MAX + 1];
	unsigned database;
};

/* 0, or -EINVAL. */
int redis_url_parse(const char *text, struct redis_url *ret_url, struct error *err);

/* Whether there is somebody to authenticate as. A user may have no password: Redis has such ones (ACL, `nopass`). */
bool redis_url_has_login(const struct redis_url *url);

/* "HOST:PORT", "[::1]:PORT" or the path: for people. Returns `buffer`. */
const char *redis_place_name(const struct redis_place *place, char *buffer, size_t size);
