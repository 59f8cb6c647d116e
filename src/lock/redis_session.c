/* Connected to the master, or on the way there. Knows how the script is called, not what it is for. */
#include "lock/redis_session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "lock/redis_ear.h"
#include "lock/redis_record.h"
#include "lock/redis_sentinel.h"
#include "lock/redis_value.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
#define SHA_SIZE 41

static const char script[] =
#include "redis_script.inc"
	;

/* In their order; those that are not needed are left out. */
enum step { STEP_AUTHENTICATE, STEP_SELECT, STEP_SERVER, STEP_REPLICATION, STEP_LOAD, STEP_READY };

struct redis_session {
	uv_loop_t *loop;
	struct redis_url url;
	uint64_t limit_ms;
	struct redis_session_listener listener;
	char *key, *keys[3], *channel; /* the keys beside it */
	struct redis_sentinel *sentinel; /* NULL: the URL names the server */
	struct redis_ear *ear;
	struct redis_tls_context *tls; /* NULL: none */
	struct redis_link *link;
	struct redis_place place;
	uv_timer_t timer; /* until the next attempt */
	enum step step;
	bool is_running; /* a job */
	bool must_send_script, has_sent_script; /* with the next job; with the last one */
	uint64_t backoff_ms;
	unsigned n_failures;
	char sha[SHA_SIZE];
	char run_id[64];
	char server[REDIS_SERVER_MAX + 1];
	uint64_t uptime_ms;
	char name[120];
	char problem[REDIS_TEXT_MAX + 1];
};

static void connect_now(struct redis_session *self);

/* ---- down ---- */

static void handle_timer(uv_timer_t *timer)
{
	connect_now(timer->data);
}

static void go_down(struct redis_session *self, const char *text)
{
	snprintf(self->problem, sizeof(self->problem), "%s", text);
	self->link = redis_link_close(self->link);
	redis_ear_stop(self->ear);
	self->is_running = false;
	self->step = STEP_AUTHENTICATE;
	self->n_failures++;
	uv_update_time(self->loop);
	uv_timer_start(&self->timer, handle_timer, self->backoff_ms, 0);
	self->backoff_ms = self->backoff_ms * 2 < BACKOFF_MAX_MS ? self->backoff_ms * 2 : BACKOFF_MAX_MS;
	self->listener.handle_down(self->listener.context);
}

static void handle_link_down(void *context, const char *text)
{
	struct redis_session *self = context;
	char whole[REDIS_TEXT_MAX + 1];
	snprintf(whole, sizeof(whole), "%s: %.110s; it is tried again", self->name, text);
	go_down(self, whole);
}

static enum redis_verdict explain(const struct redis_session *self, const char *said, char *text, size_t size)
{
	char key[64];
	redis_value_print(key, sizeof(key), self->key, strlen(self->key));
	const struct redis_subject subject = {
		.server = self->name, .key = key, .user = self->url.user, .password = self->url.password
	};
	return redis_explain(&subject, said, text, size);
}

/* ---- what is said first ---- */

static bool is_needed(const struct redis_session *self, enum step step)
{
	if (step == STEP_AUTHENTICATE)
		return redis_url_has_login(&self->url);
	return step != STEP_SELECT || self->url.database != 0;
}

static void begin_step(struct redis_session *self)
{
	char number[16];
	const char *const select[] = { "SELECT", number };
	const char *const server[] = { "INFO", "server" };
	const char *const replication[] = { "INFO", "replication" };
	const char *const load[] = { "SCRIPT", "LOAD", script };
	while (!is_needed(self, self->step))
		self->step++;
	snprintf(number, sizeof(number), "%u", self->url.database);
	switch (self->step) {
	case STEP_AUTHENTICATE:
		redis_link_authenticate(self->link, &self->url);
		break;
	case STEP_SELECT:
		redis_link_send(self->link, ARRAY_SIZE(select), select);
		break;
	case STEP_SERVER:
		redis_link_send(self->link, ARRAY_SIZE(server), server);
		break;
	case STEP_REPLICATION:
		redis_link_send(self->link, ARRAY_SIZE(replication), replication);
		break;
	case STEP_LOAD:
		redis_link_send(self->link, ARRAY_SIZE(load), load);
		break;
	case STEP_READY:
		redis_ear_listen(self->ear, &self->place);
		self->listener.handle_up(self->listener.context);
		break;
	}
}

/* A line `NAME:VALUE` of what INFO answers. */
static bool find_field(const redisReply *reply, const char *name, char *buffer, size_t size)
{
	size_t length = strlen(name);
	if (reply->type != REDIS_REPLY_STRING)
		return false;
	for (const char *line = reply->str; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) != 0 || line[length] != ':')
			continue;
		int n = (int)strcspn(line + length + 1, "\r\n");
		redis_value_print(buffer, size, line + length + 1, (size_t)n);
		return n > 0;
	}
	return false;
}

static bool take_server(struct redis_session *self, const redisReply *reply)
{
	char uptime[32];
	if (!find_field(reply, "run_id", self->run_id, sizeof(self->run_id)) ||
		!find_field(reply, "uptime_in_seconds", uptime, sizeof(uptime)))
		return false;
	/* The server takes the difference of two clocks of whole seconds: it may say one too many. */
	unsigned long long seconds = strtoull(uptime, NULL, 10);
	self->uptime_ms = seconds > 0 ? (seconds - 1) * 1000 : 0;
	return true;
}

/* The process may stay the same while it follows another master for a while: then the second number changes. */
static bool take_replication(struct redis_session *self, const redisReply *reply, bool *ret_is_master)
{
	char role[16], history[64];
	if (!find_field(reply, "role", role, sizeof(role)) ||
		!find_field(reply, "master_replid", history, sizeof(history)))
		return false;
	snprintf(self->server, sizeof(self->server), "%.63s/%.63s", self->run_id, history);
	*ret_is_master = strcmp(role, "master") == 0;
	return true;
}

static void fail_step(struct redis_session *self, const char *text)
{
	handle_link_down(self, text);
}

static void end_step(struct redis_session *self, const redisReply *reply)
{
	bool is_master = true;
	char text[REDIS_TEXT_MAX + 1];
	if (reply->type == REDIS_REPLY_ERROR) {
		explain(self, reply->str, text, sizeof(text));
		go_down(self, text);
		return;
	}
	if (self->step == STEP_SERVER && !take_server(self, reply)) {
		fail_step(self, "it does not tell its run_id; is it a Redis server?");
		return;
	}
	if (self->step == STEP_REPLICATION && !take_replication(self, reply, &is_master)) {
		fail_step(self, "it does not tell its role; is it a Redis server?");
		return;
	}
	if (!is_master) {
		explain(self, "READONLY", text, sizeof(text));
		go_down(self, text);
		return;
	}
	if (self->step == STEP_LOAD) {
		if (reply->type != REDIS_REPLY_STRING || reply->len != SHA_SIZE - 1) {
			fail_step(self, "it does not know SCRIPT LOAD; is it a Redis server?");
			return;
		}
		memcpy(self->sha, reply->str, SHA_SIZE);
	}
	self->step++;
	begin_step(self);
}

/* ---- jobs ---- */

static const char *or_empty(const char *text)
{
	return text == NULL ? "" : text;
}

void redis_session_run(struct redis_session *self, const struct redis_job *job)
{
	char ttl[24], floor[24], n_fences[24];
	snprintf(ttl, sizeof(ttl), "%" PRIu64, job->ttl_ms);
	snprintf(floor, sizeof(floor), "%" PRIu64, job->floor);
	snprintf(n_fences, sizeof(n_fences), "%zu", job->n_fences);
	const char *const argv[] = {
		self->must_send_script ? "EVAL" : "EVALSHA",
		self->must_send_script ? script : self->sha,
		"4",
		self->key,
		self->keys[0],
		self->keys[1],
		self->keys[2],
		job->name,
		or_empty(job->mine),
		or_empty(job->old),
		or_empty(job->me),
		ttl,
		floor,
		n_fences,
		job->may_take ? "1" : "0",
		self->channel,
		or_empty(job->digest),
	};
	self->is_running = true;
	self->has_sent_script = self->must_send_script;
	self->must_send_script = false;
	redis_link_send(self->link, ARRAY_SIZE(argv), argv);
}

/* What makes no sense is no success: else such a server would be connected to anew twenty times a second. */
static void take_success(struct redis_session *self, const redisReply *reply)
{
	uint64_t backoff_ms = self->backoff_ms;
	unsigned n_failures = self->n_failures;
	self->backoff_ms = BACKOFF_FIRST_MS;
	self->n_failures = 0;
	self->problem[0] = '\0';
	if (self->listener.handle_answer(self->listener.context, reply))
		return;
	self->backoff_ms = backoff_ms;
	self->n_failures = n_failures;
	handle_link_down(self, "its answer makes no sense; is it a Redis server, and of version 3.2 or newer?");
}

static void take_answer(struct redis_session *self, const redisReply *reply)
{
	char text[REDIS_TEXT_MAX + 1];
	self->is_running = false;
	if (reply->type != REDIS_REPLY_ERROR) {
		take_success(self, reply);
		return;
	}
	enum redis_verdict verdict = explain(self, reply->str, text, sizeof(text));
	if (verdict == REDIS_WRONG_SERVER) {
		go_down(self, text);
		return;
	}
	/* Who does not know it though it came along is not sent it again and again. */
	self->must_send_script = verdict == REDIS_NO_SCRIPT && !self->has_sent_script;
	self->listener.handle_refusal(self->listener.context, self->must_send_script ? "" : text);
}

static void handle_reply(void *context, const redisReply *reply)
{
	struct redis_session *self = context;
	if (self->step == STEP_READY)
		take_answer(self, reply);
	else
		end_step(self, reply);
}

/* ---- connecting ---- */

static void handle_link_up(void *context)
{
	struct redis_session *self = context;
	self->step = STEP_AUTHENTICATE;
	begin_step(self);
}

static void open_link(struct redis_session *self)
{
	char place[REDIS_HOST_MAX + 16];
	struct error err;
	const struct redis_link_listener listener = {
		.context = self,
		.handle_up = handle_link_up,
		.handle_reply = handle_reply,
		.handle_down = handle_link_down,
	};
	redis_place_name(&self->place, place, sizeof(place));
	snprintf(self->name, sizeof(self->name), "Redis at %.100s", place);
	if (redis_link_open(self->loop, &self->place, self->tls, self->limit_ms, &listener, &self->link, &err) < 0)
		handle_link_down(self, err.message);
}

static void connect_now(struct redis_session *self)
{
	if (self->sentinel != NULL)
		/* A Sentinel that was cut off from the others goes on naming a master that is gone. */
		redis_sentinel_find(self->sentinel, self->n_failures > 1);
	else
		open_link(self);
}

static void handle_found(void *context, const struct redis_place *master)
{
	struct redis_session *self = context;
	bool is_same = strcmp(master->host, self->place.host) == 0 && master->port == self->place.port;
	if (self->link != NULL && is_same)
		return;
	uv_timer_stop(&self->timer);
	self->place = *master;
	if (self->link != NULL)
		handle_link_down(self, "the Sentinels have made another server the master");
	else
		open_link(self);
}

static void handle_not_found(void *context, const char *text)
{
	struct redis_session *self = context;
	if (self->link == NULL)
		go_down(self, text);
}

static void handle_switch(void *context)
{
	struct redis_session *self = context;
	if (self->link != NULL)
		handle_link_down(self, "the Sentinels have made another server the master");
}

static void handle_word(void *context, const char *word)
{
	struct redis_session *self = context;
	self->listener.handle_word(self->listener.context, word);
}

/* ---- beginning and end ---- */

static bool make_keys(struct redis_session *self, const char *key)
{
	self->key = strdup(key);
	self->keys[0] = redis_key_beside(key, "fence");
	self->keys[1] = redis_key_beside(key, "waiting");
	self->keys[2] = redis_key_beside(key, "seen");
	self->channel = redis_key_beside(key, "released");
	return self->key != NULL && self->keys[0] != NULL && self->keys[1] != NULL && self->keys[2] != NULL &&
		self->channel != NULL;
}

static bool make_parts(struct redis_session *self)
{
	const struct redis_ear_listener words = { .context = self, .handle_word = handle_word };
	const struct redis_sentinel_listener masters = {
		.context = self,
		.handle_found = handle_found,
		.handle_not_found = handle_not_found,
		.handle_switch = handle_switch,
	};
	self->ear = redis_ear_create(self->loop, &self->url, self->channel, self->tls, self->limit_ms, &words);
	if (self->url.master[0] != '\0') {
		self->sentinel = redis_sentinel_create(self->loop, &self->url, self->limit_ms, &masters);
		return self->ear != NULL && self->sentinel != NULL;
	}
	self->place = self->url.places[0];
	return self->ear != NULL;
}

static void handle_closed(uv_handle_t *handle)
{
	struct redis_session *self = handle->data;
	free(self->key);
	for (size_t i = 0; i < ARRAY_SIZE(self->keys); i++)
		free(self->keys[i]);
	free(self->channel);
	redis_tls_context_destroy(self->tls);
	free(self);
}

struct redis_session *redis_session_destroy(struct redis_session *self)
{
	if (self == NULL)
		return NULL;
	self->link = redis_link_close(self->link);
	self->sentinel = redis_sentinel_destroy(self->sentinel);
	self->ear = redis_ear_destroy(self->ear);
	uv_close((uv_handle_t *)&self->timer, handle_closed);
	return NULL;
}

int redis_session_create(uv_loop_t *loop, const struct redis_url *url, const char *key, uint64_t limit_ms,
	const struct redis_session_listener *listener, struct redis_session **ret_session, struct error *err)
{
	struct redis_session *self = calloc(1, sizeof(*self));
	if (self == NULL)
		return error_set(err, -ENOMEM, "lock: there is no memory");
	self->loop = loop;
	self->url = *url;
	self->limit_ms = limit_ms;
	self->listener = *listener;
	self->backoff_ms = BACKOFF_FIRST_MS;
	uv_timer_init(loop, &self->timer);
	uv_unref((uv_handle_t *)&self->timer);
	self->timer.data = self;
	snprintf(self->name, sizeof(self->name), "Redis (%.100s)", url->master);
	int r = url->places[0].tls ? redis_tls_context_create(&self->tls, err) : 0;
	if (r == 0 && (!make_keys(self, key) || !make_parts(self)))
		r = error_set(err, -ENOMEM, "lock: there is no memory");
	if (r < 0) {
		redis_session_destroy(self);
		return r;
	}
	uv_timer_start(&self->timer, handle_timer, 0, 0);
	*ret_session = self;
	return 0;
}

/* ---- what is known ---- */

bool redis_session_is_up(const struct redis_session *self)
{
	return self->link != NULL && self->step == STEP_READY;
}

bool redis_session_hears(const struct redis_session *self)
{
	return redis_ear_hears(self->ear);
}

const char *redis_session_server(const struct redis_session *self)
{
	return self->server;
}

uint64_t redis_session_uptime_ms(const struct redis_session *self)
{
	return self->uptime_ms;
}

bool redis_session_is_elected(const struct redis_session *self)
{
	return self->sentinel != NULL;
}

const char *redis_session_problem(const struct redis_session *self)
{
	return self->problem;
}

unsigned redis_session_failures(const struct redis_session *self)
{
	return self->n_failures;
}

const char *redis_session_name(const struct redis_session *self)
{
	return self->name;
}
