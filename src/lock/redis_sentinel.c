/* The protocol of Sentinel, as far as a client needs it. Knows nothing of locks. */
#include "lock/redis_sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/address.h"
#include "lock/redis_explain.h"

#define LISTEN_AGAIN_MS 2000

enum step { STEP_NONE, STEP_ASK, STEP_AUTHENTICATE, STEP_ASK_AGAIN, STEP_LISTEN };

struct redis_sentinel {
	uv_loop_t *loop;
	const struct redis_url *url;
	uint64_t limit_ms;
	struct redis_sentinel_listener listener;
	struct redis_link *link;
	uv_timer_t timer; /* to tell from the loop that nobody answered; or to listen to another one */
	enum step step;
	bool is_asked; /* an answer is owed */
	size_t n_tried;
	size_t place; /* the next one to be asked: whoever answered last stays the first */
	char problem[256];
};

static void try_next(struct redis_sentinel *self);
static void handle_listen_again(uv_timer_t *timer);

static const struct redis_place *place_of(const struct redis_sentinel *self)
{
	return &self->url->places[self->place];
}

static void give_up_this(struct redis_sentinel *self, const char *text)
{
	char name[REDIS_HOST_MAX + 16];
	snprintf(self->problem, sizeof(self->problem), "Sentinel at %.80s: %.150s",
		redis_place_name(place_of(self), name, sizeof(name)), text);
	self->link = redis_link_close(self->link);
	self->step = STEP_NONE;
	self->place = (self->place + 1) % self->url->n_places;
	if (self->is_asked)
		try_next(self);
	else
		uv_timer_start(&self->timer, handle_listen_again, LISTEN_AGAIN_MS, 0);
}

static void handle_down(void *context, const char *text)
{
	give_up_this(context, text);
}

static void ask(struct redis_sentinel *self, enum step step)
{
	const char *const argv[] = { "SENTINEL", "get-master-addr-by-name", self->url->master };
	self->step = step;
	redis_link_send(self->link, ARRAY_SIZE(argv), argv);
}

static void authenticate(struct redis_sentinel *self)
{
	self->step = STEP_AUTHENTICATE;
	redis_link_authenticate(self->link, self->url);
}

static void listen_to(struct redis_sentinel *self)
{
	const char *const argv[] = { "SUBSCRIBE", "+switch-master" };
	self->step = STEP_LISTEN;
	redis_link_take_messages(self->link);
	redis_link_send(self->link, ARRAY_SIZE(argv), argv);
}

static bool is_text(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS;
}

/* [HOST, PORT] */
static bool take_master(const redisReply *reply, struct redis_place *master)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || !is_text(reply->element[0]) ||
		!is_text(reply->element[1]))
		return false;
	const redisReply *host = reply->element[0];
	char *end;
	unsigned long port = strtoul(reply->element[1]->str, &end, 10);
	if (!address_is_host(host->str, (size_t)host->len) || *end != '\0' || port < 1 || port > UINT16_MAX)
		return false;
	snprintf(master->host, sizeof(master->host), "%s", host->str);
	master->port = (uint16_t)port;
	return true;
}

static void explain(const struct redis_sentinel *self, const char *said, char *text, size_t size)
{
	const struct redis_subject subject = {
		.server = "it", .key = "", .user = self->url->user, .password = self->url->password
	};
	redis_explain(&subject, said, text, size);
}

static void take_answer(struct redis_sentinel *self, const redisReply *reply)
{
	struct redis_place master = { 0 };
	char text[200];
	if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOAUTH", 6) == 0 && self->step == STEP_ASK &&
		redis_url_has_login(self->url)) {
		authenticate(self);
	} else if (reply->type == REDIS_REPLY_NIL) {
		snprintf(text, sizeof(text),
			"it knows no master \"%s\"; compare lock.url with `sentinel monitor` there", self->url->master);
		give_up_this(self, text);
	} else if (reply->type == REDIS_REPLY_ERROR) {
		explain(self, reply->str, text, sizeof(text));
		give_up_this(self, text);
	} else if (!take_master(reply, &master)) {
		give_up_this(self, "it tells an address that is none");
	} else {
		listen_to(self);
		self->is_asked = false;
		self->listener.handle_found(self->listener.context, &master);
	}
}

/* [message, +switch-master, "NAME OLD_HOST OLD_PORT NEW_HOST NEW_PORT"] */
static bool is_our_switch(const struct redis_sentinel *self, const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 || !is_text(reply->element[2]))
		return false;
	size_t length = strlen(self->url->master);
	const char *said = reply->element[2]->str;
	return strncmp(said, self->url->master, length) == 0 && said[length] == ' ';
}

static void handle_reply(void *context, const redisReply *reply)
{
	struct redis_sentinel *self = context;
	if (self->step == STEP_AUTHENTICATE && reply->type == REDIS_REPLY_ERROR)
		give_up_this(self, "it does not accept the user or the password of lock.url");
	else if (self->step == STEP_AUTHENTICATE)
		ask(self, STEP_ASK_AGAIN);
	else if (self->step == STEP_ASK || self->step == STEP_ASK_AGAIN)
		take_answer(self, reply);
	else if (is_our_switch(self, reply))
		self->listener.handle_switch(self->listener.context);
}

static void handle_up(void *context)
{
	ask(context, STEP_ASK);
}

static void handle_timer(uv_timer_t *timer)
{
	struct redis_sentinel *self = timer->data;
	self->is_asked = false;
	uv_timer_start(&self->timer, handle_listen_again, LISTEN_AGAIN_MS, 0);
	self->listener.handle_not_found(self->listener.context, self->problem);
}

static void try_next(struct redis_sentinel *self)
{
	const struct redis_link_listener listener = {
		.context = self, .handle_up = handle_up, .handle_reply = handle_reply, .handle_down = handle_down
	};
	struct error err;
	while (self->n_tried++ < self->url->n_places) {
		if (redis_link_open(self->loop, place_of(self), NULL, self->limit_ms, &listener, &self->link, &err) ==
			0)
			return;
		snprintf(self->problem, sizeof(self->problem), "Sentinel: %.200s", err.message);
		self->place = (self->place + 1) % self->url->n_places;
	}
	uv_timer_start(&self->timer, handle_timer, 0, 0);
}

void redis_sentinel_find(struct redis_sentinel *self, bool is_in_doubt)
{
	self->is_asked = true;
	self->n_tried = 0;
	if (is_in_doubt)
		self->place = (self->place + 1) % self->url->n_places;
	uv_timer_stop(&self->timer);
	self->link = redis_link_close(self->link);
	try_next(self);
}

/* Whoever was listened to is gone. What it would have said meanwhile is in the answer of the next one. */
static void handle_listen_again(uv_timer_t *timer)
{
	redis_sentinel_find(timer->data, false);
}

static void handle_closed(uv_handle_t *handle)
{
	free(handle->data);
}

struct redis_sentinel *redis_sentinel_create(
	uv_loop_t *loop, const struct redis_url *url, uint64_t limit_ms, const struct redis_sentinel_listener *listener)
{
	struct redis_sentinel *self = calloc(1, sizeof(*self));
	if (self == NULL)
		return NULL;
	self->loop = loop;
	self->url = url;
	self->limit_ms = limit_ms;
	self->listener = *listener;
	uv_timer_init(loop, &self->timer);
	uv_unref((uv_handle_t *)&self->timer);
	self->timer.data = self;
	return self;
}

struct redis_sentinel *redis_sentinel_destroy(struct redis_sentinel *self)
{
	if (self == NULL)
		return NULL;
	self->is_asked = false;
	self->link = redis_link_close(self->link);
	uv_close((uv_handle_t *)&self->timer, handle_closed);
	return NULL;
}
