/*
 * The way to the master: finds it, connects, authenticates, learns which data set it is talking to, and does all that
 * anew when the connection is lost, after 50 ms first, doubling up to 2 s. Runs the lock's script there, one run at a
 * time, and listens on a second connection to what others tell each other.
 *
 * Handlers are called from the loop, never from inside these calls.
 */
#pragma once

#include <stdbool.h>

#include "lock/redis_explain.h"
#include "lock/redis_link.h"

#define REDIS_TEXT_MAX 255

/* One run of redis_script.lua; see there. NULL is "". */
struct redis_job {
	const char *name;
	const char *mine, *old, *me, *digest;
	uint64_t ttl_ms, floor;
	size_t n_fences;
	bool may_take;
};

struct redis_session_listener {
	void *context;
	/* Connected: redis_session_server() and its neighbours tell to what. */
	void (*handle_up)(void *context);
	/* Of the one job that runs. False: it makes no sense; handle_down follows, as if there had been none. */
	bool (*handle_answer)(void *context, const redisReply *reply);
	/* It refused the job. */
	void (*handle_refusal)(void *context, const char *text);
	/* Not connected (any more), or still not: redis_session_problem(). A job that ran has no answer. */
	void (*handle_down)(void *context);
	/* Somebody told the others: "released", "waiting", "forced"; "": it is heard from now on, what came before was
	 * not. */
	void (*handle_word)(void *context, const char *word);
};

struct redis_session;

/* All but the listener's context is copied. -ENOTSUP: TLS where it is not built in. */
int redis_session_create(uv_loop_t *loop, const struct redis_url *url, const char *key, uint64_t limit_ms,
	const struct redis_session_listener *listener, struct redis_session **ret_session, struct error *err);

bool redis_session_is_up(const struct redis_session *session);
/* Whether words of others arrive. */
bool redis_session_hears(const struct redis_session *session);

/* Of the server that it is, or was last, connected to. */
const char *redis_session_server(const struct redis_session *session); /* identity of the data set */
uint64_t redis_session_uptime_ms(const struct redis_session *session);
bool redis_session_is_elected(const struct redis_session *session); /* found through a Sentinel */

/* Why it is not connected, with the remedy; "" when that is not known yet. */
const char *redis_session_problem(const struct redis_session *session);
/* How many attempts failed since a job was last answered. */
unsigned redis_session_failures(const struct redis_session *session);
/* "Redis at HOST:PORT", for people. */
const char *redis_session_name(const struct redis_session *session);

/* Only while it is up and no job runs. */
void redis_session_run(struct redis_session *session, const struct redis_job *job);

struct redis_session *redis_session_destroy(struct redis_session *session);
