/* Listens to a channel. Knows nothing of what is said there. */
#include "lock/redis_ear.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define AGAIN_MS 1000

enum step { STEP_AUTHENTICATE, STEP_SUBSCRIBE, STEP_HEAR };

struct redis_ear {
	uv_loop_t *loop;
	const struct redis_url *url;
	const char *channel;
	struct redis_tls_context *tls;
	uint64_t limit_ms;
	struct redis_ear_listener listener;
	struct redis_place place;
	struct redis_link *link;
	enum step step;
	uv_timer_t timer; /* until the next attempt */
};

static void open_link(struct redis_ear *self);

static void handle_timer(uv_timer_t *timer)
{
	open_link(timer->data);
}

static void try_later(struct redis_ear *self)
{
	self->link = redis_link_close(self->link);
	uv_timer_start(&self->timer, handle_timer, AGAIN_MS, 0);
}

static void handle_down(void *context, const char *text)
{
	(void)text;
	try_later(context);
}

static void subscribe(struct redis_ear *self)
{
	const char *const argv[] = { "SUBSCRIBE", self->channel };
	self->step = STEP_SUBSCRIBE;
	redis_link_take_messages(self->link);
	redis_link_send(self->link, ARRAY_SIZE(argv), argv);
}

static void handle_up(void *context)
{
	struct redis_ear *self = context;
	self->step = STEP_AUTHENTICATE;
	if (redis_url_has_login(self->url))
		redis_link_authenticate(self->link, self->url);
	else
		subscribe(self);
}

static bool is_string(const redisReply *reply, const char *text)
{
	return reply->type == REDIS_REPLY_STRING && (text == NULL || strcmp(reply->str, text) == 0);
}

/* [message, CHANNEL, WORD] */
static const char *word_of(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 || !is_string(reply->element[0], "message") ||
		!is_string(reply->element[2], NULL))
		return NULL;
	return reply->element[2]->str;
}

/* What was said until now was missed. */
static void begin_to_hear(struct redis_ear *self)
{
	self->step = STEP_HEAR;
	self->listener.handle_word(self->listener.context, "");
}

static void handle_reply(void *context, const redisReply *reply)
{
	struct redis_ear *self = context;
	const char *word;
	if (reply->type == REDIS_REPLY_ERROR)
		try_later(self);
	else if (self->step == STEP_AUTHENTICATE)
		subscribe(self);
	else if (self->step == STEP_SUBSCRIBE)
		begin_to_hear(self);
	else if ((word = word_of(reply)) != NULL)
		self->listener.handle_word(self->listener.context, word);
}

static void open_link(struct redis_ear *self)
{
	const struct redis_link_listener listener = {
		.context = self, .handle_up = handle_up, .handle_reply = handle_reply, .handle_down = handle_down
	};
	self->step = STEP_AUTHENTICATE;
	if (redis_link_open(self->loop, &self->place, self->tls, self->limit_ms, &listener, &self->link, NULL) < 0)
		try_later(self);
}

void redis_ear_listen(struct redis_ear *self, const struct redis_place *place)
{
	redis_ear_stop(self);
	self->place = *place;
	open_link(self);
}

void redis_ear_stop(struct redis_ear *self)
{
	uv_timer_stop(&self->timer);
	self->link = redis_link_close(self->link);
}

bool redis_ear_hears(const struct redis_ear *self)
{
	return self->link != NULL && self->step == STEP_HEAR;
}

struct redis_ear *redis_ear_create(uv_loop_t *loop, const struct redis_url *url, const char *channel,
	struct redis_tls_context *tls, uint64_t limit_ms, const struct redis_ear_listener *listener)
{
	struct redis_ear *self = calloc(1, sizeof(*self));
	if (self == NULL)
		return NULL;
	self->loop = loop;
	self->url = url;
	self->channel = channel;
	self->tls = tls;
	self->limit_ms = limit_ms;
	self->listener = *listener;
	uv_timer_init(loop, &self->timer);
	uv_unref((uv_handle_t *)&self->timer);
	self->timer.data = self;
	return self;
}

static void handle_closed(uv_handle_t *handle)
{
	free(handle->data);
}

struct redis_ear *redis_ear_destroy(struct redis_ear *self)
{
	if (self == NULL)
		return NULL;
	redis_ear_stop(self);
	uv_close((uv_handle_t *)&self->timer, handle_closed);
	return NULL;
}
