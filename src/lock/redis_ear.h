/*
 * The second connection: listens to one channel. What it hears only makes things faster, so it is never waited for, and
 * when it is lost it comes back a second later, without a word.
 */
#pragma once

#include <stdbool.h>

#include "lock/redis_link.h"

struct redis_ear_listener {
	void *context;
	/* "": listening has begun; what was said before was missed. */
	void (*handle_word)(void *context, const char *word);
};

struct redis_ear;

/* What is borrowed must live as long as it does. NULL: no memory. */
struct redis_ear *redis_ear_create(uv_loop_t *loop, const struct redis_url *url, const char *channel,
	struct redis_tls_context *tls, uint64_t limit_ms, const struct redis_ear_listener *listener);

void redis_ear_listen(struct redis_ear *self, const struct redis_place *place);
void redis_ear_stop(struct redis_ear *self);
bool redis_ear_hears(const struct redis_ear *self);

struct redis_ear *redis_ear_destroy(struct redis_ear *self);
