/*
 * Finds the master through Sentinels: each is asked in turn, and the one that answered is listened to, for the news
 * that the master is another one now.
 *
 * Handlers are called from the loop. https://redis.io/docs/latest/develop/reference/sentinel-clients/
 */
#pragma once

#include "lock/redis_link.h"

struct redis_sentinel_listener {
	void *context;
	/* The answer; and, unasked, when it listens to another Sentinel: it may be another master than before. */
	void (*handle_found)(void *context, const struct redis_place *master);
	/* No Sentinel could tell, the last one's reason. It goes on asking every two seconds. */
	void (*handle_not_found)(void *context, const char *text);
	/* Another master was elected. */
	void (*handle_switch)(void *context);
};

struct redis_sentinel;

/* `url` must live as long as it does. NULL: no memory. */
struct redis_sentinel *redis_sentinel_create(uv_loop_t *loop, const struct redis_url *url, uint64_t limit_ms,
	const struct redis_sentinel_listener *listener);

/* Now: found or not_found follows. `is_in_doubt`: another Sentinel first, for what the last one told was of no use. */
void redis_sentinel_find(struct redis_sentinel *self, bool is_in_doubt);

struct redis_sentinel *redis_sentinel_destroy(struct redis_sentinel *self);
