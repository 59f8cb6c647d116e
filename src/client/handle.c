/* The handle: where the daemon is, requests that are waited for, and what went wrong last. */
#include "client/handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

static const struct gpumgr_blocker *const no_blockers[] = { NULL };

/* ---- life ---- */

struct gpumgr *gpumgr_new(void)
{
	struct gpumgr *g = pump_prepare() ? calloc(1, sizeof(*g)) : NULL;
	if (g == NULL)
		return NULL;
	g->users = 1;
	g->pid = getpid();
	g->patience_ms = PATIENCE_DEFAULT_MS;
	g->silence_ms = SILENCE_DEFAULT_MS;
	g->error = (struct gpumgr_error){ .name = "", .message = "", .blocking = no_blockers };
	g->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->interrupt_fd < 0) {
		free(g);
		return NULL;
	}
	return g;
}

static void clear_problem(struct gpumgr *g)
{
	g->error.name = "";
	g->error.blocking = no_blockers;
	g->error.json = NULL;
	g->error.http_status = 0;
	g->problem = arena_free(g->problem);
}

struct gpumgr *handle_ref(struct gpumgr *g)
{
	g->users++;
	return g;
}

void handle_unref(struct gpumgr *g)
{
	if (--g->users > 0)
		return;
	if (g->has_pump)
		pump_finish(&g->pump);
	close(g->interrupt_fd);
	client_address_finish(&g->address);
	client_settings_finish(&g->settings);
	clear_problem(g);
	free(g);
}

void gpumgr_free(struct gpumgr *g)
{
	if (g != NULL)
		handle_unref(g);
}

const char *gpumgr_library_version(void)
{
	return GPUMGR_VERSION;
}

void gpumgr_interrupt(struct gpumgr *g)
{
	static const uint64_t one = 1;
	int before = errno;
	if (write(g->interrupt_fd, &one, sizeof(one)) < 0)
		errno = before; /* it is full: it was interrupted already */
}

/* ---- errors ---- */

const struct gpumgr_error *gpumgr_last_error(const struct gpumgr *g)
{
	return &g->error;
}

int handle_fail(struct gpumgr *g, int code, const char *format, ...)
{
	struct error words; /* what is said may be made of what was said before */
	va_list args;
	va_start(args, format);
	vsnprintf(words.message, sizeof(words.message), format, args);
	va_end(args);
	clear_problem(g);
	g->words = words;
	g->error.code = code;
	g->error.message = g->words.message;
	return code;
}

int handle_no_memory(struct gpumgr *g)
{
	return handle_fail(g, GPUMGR_ERROR_NO_MEMORY, "out of memory");
}

int handle_errno(struct gpumgr *g, int r, const char *what)
{
	if (r == -ENOMEM)
		return handle_no_memory(g);
	return handle_fail(g, GPUMGR_ERROR_SYSTEM, "%s: %s", what, strerror(-r));
}

int handle_fail_exchange(struct gpumgr *g, const struct exchange *exchange)
{
	struct error err;
	int code = exchange_outcome(exchange, &err);
	return code == GPUMGR_OK ? code : handle_fail(g, code, "%s", err.message);
}

static const struct {
	const char *name;
	int code;
} problem_codes[] = {
	{ "insufficient_vram", GPUMGR_ERROR_NO_FIT },
	{ "lease_timeout", GPUMGR_ERROR_WAIT_TIMEOUT },
	{ "wait_timeout", GPUMGR_ERROR_WAIT_TIMEOUT },
	{ "unknown_service", GPUMGR_ERROR_UNKNOWN },
	{ "unknown_phase", GPUMGR_ERROR_UNKNOWN },
	{ "unknown_lease", GPUMGR_ERROR_UNKNOWN },
	{ "unknown_transition", GPUMGR_ERROR_UNKNOWN },
};

static int problem_code(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(problem_codes); i++)
		if (strcmp(problem_codes[i].name, name) == 0)
			return problem_codes[i].code;
	return GPUMGR_ERROR_REFUSED;
}

static const char *target(const struct gpumgr *g)
{
	return g->address.url != NULL ? g->address.url : g->address.socket;
}

/* What `error` points to besides the message. A daemon that says nothing useful is said so. */
static void keep_problem(struct gpumgr *g, json_t *json)
{
	const char *name = json_string_value(json_object_get(json, "code"));
	struct arena *arena = arena_new();
	if (arena == NULL)
		return;
	char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
	arena_keep_json(arena, json_incref(json));
	const char *kept = text != NULL ? arena_copy(arena, text) : NULL;
	const void *const *blocking = record_list(arena, &blocker_record, json_object_get(json, "blocking"));
	free(text);
	g->problem = arena;
	if (arena_failed(arena))
		return;
	g->error.name = name != NULL ? name : "";
	g->error.json = kept;
	g->error.blocking = (const struct gpumgr_blocker *const *)blocking;
}

int handle_fail_problem(struct gpumgr *g, int status, json_t *json)
{
	const char *name = json_string_value(json_object_get(json, "code"));
	const char *detail = json_string_value(json_object_get(json, "detail"));
	const char *title = json_string_value(json_object_get(json, "title"));
	int code;
	if (!json_is_object(json))
		code = handle_fail(g, GPUMGR_ERROR_BAD_ANSWER,
			"%s answered with status %d, but not with JSON: is that gpumgrd?", target(g), status);
	else if (detail != NULL || title != NULL)
		code = handle_fail(g, problem_code(name != NULL ? name : ""), "%s", detail != NULL ? detail : title);
	else
		code = handle_fail(
			g, problem_code(name != NULL ? name : ""), "the daemon answered with status %d", status);
	if (json_is_object(json))
		keep_problem(g, json);
	g->error.http_status = status;
	return code;
}

/* ---- where the daemon is ---- */

static int set_setting(struct gpumgr *g, char **setting, const char *value)
{
	if (g->pid != getpid())
		return handle_check(g);
	if (g->is_found)
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT,
			"the daemon is known already: set where it is before the "
			"first request");
	char *copy = value != NULL ? strdup(value) : NULL;
	if (copy == NULL && value != NULL)
		return handle_no_memory(g);
	free(*setting);
	*setting = copy;
	return GPUMGR_OK;
}

static int exclusive(struct gpumgr *g)
{
	return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "a socket and a URL exclude each other");
}

int gpumgr_set_socket(struct gpumgr *g, const char *path)
{
	return g->settings.url != NULL && path != NULL ? exclusive(g) : set_setting(g, &g->settings.socket, path);
}

int gpumgr_set_url(struct gpumgr *g, const char *url)
{
	return g->settings.socket != NULL && url != NULL ? exclusive(g) : set_setting(g, &g->settings.url, url);
}

int gpumgr_set_token(struct gpumgr *g, const char *token)
{
	struct error err;
	if (token != NULL && client_token_check(token, "the token", &err) < 0)
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "%s", err.message);
	return set_setting(g, &g->settings.token, token);
}

int gpumgr_set_token_file(struct gpumgr *g, const char *path)
{
	return set_setting(g, &g->settings.token_file, path);
}

int gpumgr_set_patience(struct gpumgr *g, int64_t patience_ms)
{
	if (patience_ms < 0)
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "patience is not negative: %" PRId64 " ms", patience_ms);
	g->patience_ms = (uint64_t)patience_ms;
	return GPUMGR_OK;
}

static int find_daemon(struct gpumgr *g)
{
	struct error err;
	int r = client_address_find(&g->settings, &g->address, &err);
	if (r < 0) {
		client_address_finish(&g->address);
		int code = r == -ENOMEM ? GPUMGR_ERROR_NO_MEMORY
			: r == -EINVAL  ? GPUMGR_ERROR_ARGUMENT
					: GPUMGR_ERROR_SYSTEM;
		return handle_fail(g, code, "%s", err.message);
	}
	g->is_found = true;
	return GPUMGR_OK;
}

int handle_check(struct gpumgr *g)
{
	if (g->pid != getpid())
		return handle_fail(g, GPUMGR_ERROR_FORKED,
			"this handle belongs to the process that made it: a child "
			"needs one of its own");
	return g->is_found ? GPUMGR_OK : find_daemon(g);
}

const char *gpumgr_socket(struct gpumgr *g)
{
	return handle_check(g) == GPUMGR_OK ? g->address.socket : NULL;
}

const char *gpumgr_url(struct gpumgr *g)
{
	return handle_check(g) == GPUMGR_OK ? g->address.url : NULL;
}

/* ---- requests that are waited for ---- */

uint64_t deadline_of(int64_t timeout_ms)
{
	uint64_t now = clock_now_ms();
	if (timeout_ms < 0 || (uint64_t)timeout_ms >= PUMP_NEVER - now)
		return PUMP_NEVER;
	return now + (uint64_t)timeout_ms;
}

void reply_finish(struct reply *reply)
{
	json_decref(reply->json);
	exchange_free(reply->exchange);
	*reply = (struct reply){ 0 };
}

static int wait_for(struct gpumgr *g, struct exchange *exchange, int64_t timeout_ms)
{
	uint64_t deadline_ms = deadline_of(timeout_ms);
	for (;;) {
		int r = pump_turn(&g->pump, exchange_done);
		if (r < 0)
			return handle_errno(g, r, "libcurl");
		if (exchange_is_over(exchange))
			return GPUMGR_OK;
		r = pump_wait(&g->pump, g->interrupt_fd, deadline_ms);
		if (r == -ECANCELED)
			return handle_fail(g, GPUMGR_ERROR_INTERRUPTED, "interrupted");
		if (r == 0)
			return handle_fail(g, GPUMGR_ERROR_TIMED_OUT, "no answer from %s within %g s", target(g),
				(double)timeout_ms / 1000);
	}
}

static int take_json(struct gpumgr *g, struct reply *reply)
{
	json_error_t where;
	size_t length;
	const char *body = exchange_body(reply->exchange, &length);
	const char *type = exchange_type(reply->exchange);
	if (strcmp(type, "application/json") != 0 && strcmp(type, "application/problem+json") != 0)
		return GPUMGR_OK;
	reply->json = json_loadb(body, length, 0, &where);
	if (reply->json != NULL)
		return GPUMGR_OK;
	return handle_fail(g, GPUMGR_ERROR_BAD_ANSWER, "%s: the answer is broken JSON: %s (is that gpumgrd?)",
		target(g), where.text);
}

static int ask(struct gpumgr *g, const struct exchange_request *request, int64_t timeout_ms, struct reply *reply)
{
	int r = g->has_pump ? 0 : pump_init(&g->pump);
	if (r < 0)
		return handle_errno(g, r, "cannot begin a connection");
	g->has_pump = true;
	r = exchange_begin(&g->pump, &g->address, request, &reply->exchange);
	if (r < 0)
		return handle_errno(g, r, "cannot begin a request");
	r = wait_for(g, reply->exchange, timeout_ms);
	if (r != GPUMGR_OK)
		return r;
	r = handle_fail_exchange(g, reply->exchange);
	if (r != GPUMGR_OK)
		return r;
	reply->status = exchange_status(reply->exchange);
	return take_json(g, reply);
}

int handle_ask(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct reply *ret_reply)
{
	struct exchange_request request = { .method = method, .path = path, .body = body };
	*ret_reply = (struct reply){ 0 };
	int r = handle_check(g);
	if (r == GPUMGR_OK)
		r = ask(g, &request, timeout_ms, ret_reply);
	if (r != GPUMGR_OK)
		reply_finish(ret_reply);
	return r;
}

int handle_ask_object(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct reply *ret_reply)
{
	int r = handle_ask(g, method, path, body, timeout_ms, ret_reply);
	if (r != GPUMGR_OK)
		return r;
	if (ret_reply->status < 200 || ret_reply->status > 299 || !json_is_object(ret_reply->json)) {
		r = handle_fail_problem(g, ret_reply->status, ret_reply->json);
		reply_finish(ret_reply);
	}
	return r;
}
