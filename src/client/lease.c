/*
 * One lease, from asking for it to its end. An attached one is an event stream; when that breaks off without a word,
 * the lease is tried to be had back with the secret that came with it, and a request that still waited is asked anew.
 * What is handed out as an event was put together here; nothing here waits but gpumgr_lease_next() and what stands on
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "client/stream.h"
#include "client/terms.h"

#define RETRY_FIRST_MS 10
#define RETRY_MAX_MS 1000

struct grant {
	struct arena *arena; /* NULL: not granted yet */
	const char *id;
	uint64_t fence;
	const char *const *services;
	struct gpumgr_numbers gpus;
	const char *const *uuids;
	const char *cuda;
	const char *json;
	char *secret;
	uint64_t expires_ms; /* PUMP_NEVER: attached */
};

struct gpumgr_lease {
	struct flow flow;
	enum gpumgr_lease_state state;
	bool attached;
	bool repeatable; /* asking again cannot make a second lease */
	json_t *body; /* what was asked for */
	int64_t wait_ms;
	uint64_t began_ms;
	uint64_t patience_ms;
	bool was_answered; /* since the last time that it was asked */
	bool is_again; /* this is not the first time */
	unsigned n_tries; /* in a row, in vain */
	uint64_t asked_ms; /* the last time */
	uint64_t retry_ms; /* PUMP_NEVER: nothing is to be tried */
	uint64_t give_up_ms;
	/*
	 * The connection that fell silent, -1: none. Closing it might still reach the daemon, and would end the lease
	 * that is to be had back over another one; so it stays until that is decided.
	 */
	int silent_fd;
	struct grant grant;
	struct gpumgr_lease_event event;
	struct arena *said; /* holds what the event points to */
};

static struct gpumgr *handle_of(const struct gpumgr_lease *lease)
{
	return lease->flow.g;
}

/* ---- events ---- */

/* A fresh event; its words may be made with say(). 0 or -ENOMEM. */
static int new_event(struct gpumgr_lease *lease, enum gpumgr_lease_event_kind kind)
{
	arena_free(lease->said);
	lease->said = arena_new();
	lease->event = (struct gpumgr_lease_event){
		.kind = kind,
		.place = GPUMGR_UNKNOWN,
		.text = "",
		.breaks_in_ms = GPUMGR_UNKNOWN,
	};
	return lease->said != NULL ? 0 : -ENOMEM;
}

static const char *say(struct gpumgr_lease *lease, const char *text)
{
	return text != NULL ? arena_copy(lease->said, text) : NULL;
}

/* What the daemon said, as an event: `keys` name where its text, reason and author are. */
static int event_of_json(
	struct gpumgr_lease *lease, enum gpumgr_lease_event_kind kind, const json_t *json, const char *text_key)
{
	int r = new_event(lease, kind);
	if (r < 0)
		return r;
	const json_t *place = json_object_get(json, "place");
	const json_t *breaks = json_object_get(json, "breaks_in_s");
	const char *text = say(lease, json_string_value(json_object_get(json, text_key)));
	if (text != NULL)
		lease->event.text = text;
	lease->event.reason = say(lease, json_string_value(json_object_get(json, "reason")));
	lease->event.by = say(lease, json_string_value(json_object_get(json, "by")));
	if (json_is_integer(place))
		lease->event.place = json_integer_value(place);
	if (json_is_number(breaks) && json_number_value(breaks) >= 0 && json_number_value(breaks) < 1e12)
		lease->event.breaks_in_ms = (int64_t)(json_number_value(breaks) * 1000);
	char *dumped = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	lease->event.json = say(lease, dumped);
	free(dumped);
	return arena_failed(lease->said) ? -ENOMEM : 1;
}

static int event_of_words(
	struct gpumgr_lease *lease, enum gpumgr_lease_event_kind kind, const char *reason, const char *text)
{
	int r = new_event(lease, kind);
	if (r < 0)
		return r;
	const char *said = say(lease, text);
	lease->event.reason = say(lease, reason);
	lease->event.text = said != NULL ? said : "";
	return arena_failed(lease->said) ? -ENOMEM : 1;
}

static void drop_silent(struct gpumgr_lease *lease)
{
	if (lease->silent_fd >= 0)
		close(lease->silent_fd);
	lease->silent_fd = -1;
}

static void keep_silent(struct gpumgr_lease *lease)
{
	int fd = pump_socket(&lease->flow.pump);
	if (lease->state == GPUMGR_LEASE_HELD && lease->silent_fd < 0 && fd >= 0)
		lease->silent_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void end(struct gpumgr_lease *lease)
{
	drop_silent(lease);
	lease->state = GPUMGR_LEASE_OVER;
	lease->retry_ms = PUMP_NEVER;
	pump_set_due(&lease->flow.pump, PUMP_NEVER);
	pump_shutdown(&lease->flow.pump);
	flow_end(&lease->flow);
}

/* It was not granted, for the reason that is the handle's last error. */
static int refuse(struct gpumgr_lease *lease)
{
	end(lease);
	return event_of_words(
		lease, GPUMGR_LEASE_REFUSED, handle_of(lease)->error.name, handle_of(lease)->error.message);
}

static int refuse_problem(struct gpumgr_lease *lease, int status, json_t *problem)
{
	handle_fail_problem(handle_of(lease), status, problem);
	return refuse(lease);
}

static int lose(struct gpumgr_lease *lease, const char *reason, const char *text)
{
	end(lease);
	return event_of_words(lease, GPUMGR_LEASE_LOST, reason, text);
}

/* ---- asking ---- */

/* How much of wait_ms is left. */
static int64_t wait_left(const struct gpumgr_lease *lease)
{
	uint64_t passed = clock_now_ms() - lease->began_ms;
	if (lease->wait_ms < 0)
		return -1;
	return passed < (uint64_t)lease->wait_ms ? lease->wait_ms - (int64_t)passed : 0;
}

static int ask_for_lease(struct gpumgr_lease *lease)
{
	if (lease->is_again && !terms_set_wait(lease->body, wait_left(lease)))
		return -ENOMEM;
	CLEANUP_FREE char *body = json_dumps(lease->body, JSON_COMPACT | JSON_REAL_PRECISION(15));
	if (body == NULL)
		return -ENOMEM;
	return flow_begin(&lease->flow, lease->attached ? FLOW_EVENTS : 0, "POST", "/gpu/leases", body, NULL);
}

static int ask_for_it_back(struct gpumgr_lease *lease)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *body = NULL;
	CLEANUP_FREE char *id = client_escape(lease->grant.id);
	json_t *json = json_pack("{s:s}", "secret", lease->grant.secret);
	if (json != NULL)
		body = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	if (body == NULL || id == NULL)
		return -ENOMEM;
	if (asprintf(&path, "/gpu/leases/%s/attach", id) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	return flow_begin(&lease->flow, FLOW_EVENTS, "POST", path, body, NULL);
}

static int ask(struct gpumgr_lease *lease)
{
	lease->was_answered = false;
	lease->asked_ms = clock_now_ms();
	lease->retry_ms = PUMP_NEVER;
	if (lease->is_again) /* a lease may last longer than a token */
		client_address_renew_token(&handle_of(lease)->settings, &handle_of(lease)->address);
	return lease->grant.arena != NULL ? ask_for_it_back(lease) : ask_for_lease(lease);
}

/* Later, with pauses that grow. */
static void ask_again(struct gpumgr_lease *lease)
{
	uint64_t pause = RETRY_MAX_MS;
	if (lease->n_tries < 7)
		pause = (uint64_t)RETRY_FIRST_MS << lease->n_tries;
	flow_end(&lease->flow);
	lease->is_again = true;
	lease->n_tries++;
	lease->retry_ms = clock_now_ms() + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
	pump_set_due(&lease->flow.pump, lease->retry_ms);
}

/* ---- the grant ---- */

static bool copy_uuids(struct grant *grant, const json_t *array)
{
	const char **uuids = arena_alloc(grant->arena, (grant->gpus.n + 1) * sizeof(*uuids));
	bool all = grant->gpus.n > 0;
	if (uuids == NULL)
		return false;
	for (size_t i = 0; i < grant->gpus.n; i++) {
		const char *uuid = json_string_value(json_array_get(array, i));
		uuids[i] = uuid != NULL ? uuid : "";
		all &= uuids[i][0] != '\0';
	}
	grant->uuids = uuids;
	return all;
}

/* "GPU-1,GPU-2", or "0,1". */
static const char *list_devices(struct grant *grant, bool by_uuid)
{
	size_t size = 1;
	for (size_t i = 0; i < grant->gpus.n; i++)
		size += (by_uuid ? strlen(grant->uuids[i]) : 20) + 1;
	char *text = arena_alloc(grant->arena, size);
	size_t n = 0;
	for (size_t i = 0; text != NULL && i < grant->gpus.n; i++) {
		const char *comma = i > 0 ? "," : "";
		n += (size_t)(by_uuid ? snprintf(text + n, size - n, "%s%s", comma, grant->uuids[i])
				      : snprintf(text + n, size - n, "%s%" PRId64, comma, grant->gpus.values[i]));
	}
	return text;
}

struct grant_record {
	const char *id;
	int64_t fence;
	const char *const *services;
	struct gpumgr_numbers gpus;
	int64_t expires_in_ms;
	const char *secret;
};

static const struct field grant_fields[] = {
	{ "id", FIELD_TEXT, offsetof(struct grant_record, id) },
	{ "fence", FIELD_NUMBER, offsetof(struct grant_record, fence) },
	{ "services", FIELD_TEXTS, offsetof(struct grant_record, services) },
	{ "gpus", FIELD_NUMBERS, offsetof(struct grant_record, gpus) },
	{ "expires_in_s", FIELD_SECONDS, offsetof(struct grant_record, expires_in_ms) },
	{ "secret", FIELD_TEXT, offsetof(struct grant_record, secret) },
};
static const struct record_type grant_record = { sizeof(struct grant_record), ARRAY_SIZE(grant_fields), grant_fields };

static void forget_grant(struct grant *grant)
{
	arena_free(grant->arena);
	if (grant->secret != NULL)
		explicit_bzero(grant->secret, strlen(grant->secret));
	free(grant->secret);
	*grant = (struct grant){ .expires_ms = PUMP_NEVER };
}

/* The daemon's JSON without the secret: it is for nobody to print. */
static const char *grant_text(struct grant *grant, json_t *json)
{
	json_object_del(json, "secret");
	char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
	const char *copy = text != NULL ? arena_copy(grant->arena, text) : NULL;
	free(text);
	return copy;
}

/* 0, -EBADMSG: that is no grant, -ENOMEM. */
static int take_grant(struct gpumgr_lease *lease, json_t *json)
{
	struct grant_record record = { 0 };
	struct grant grant = { .arena = arena_new(), .expires_ms = PUMP_NEVER };
	if (grant.arena == NULL)
		return -ENOMEM;
	arena_keep_json(grant.arena, json_incref(json));
	record_fill(grant.arena, &grant_record, json, &record);
	if (record.id == NULL || record.id[0] == '\0' || record.fence <= 0 ||
		(lease->attached && record.secret == NULL)) {
		arena_free(grant.arena);
		return -EBADMSG;
	}
	grant.id = record.id;
	grant.fence = (uint64_t)record.fence;
	grant.services = record.services;
	grant.gpus = record.gpus;
	if (!lease->attached && record.expires_in_ms > 0)
		grant.expires_ms = clock_now_ms() + (uint64_t)record.expires_in_ms;
	grant.cuda = list_devices(&grant, copy_uuids(&grant, json_object_get(json, "gpu_uuids")));
	if (record.secret != NULL)
		grant.secret = strdup(record.secret);
	grant.json = grant_text(&grant, json);
	if (arena_failed(grant.arena) || grant.json == NULL || (record.secret != NULL && grant.secret == NULL)) {
		forget_grant(&grant);
		return -ENOMEM;
	}
	forget_grant(&lease->grant);
	lease->grant = grant;
	lease->state = GPUMGR_LEASE_HELD;
	lease->give_up_ms = PUMP_NEVER;
	return 0;
}

static int bad_grant(struct gpumgr_lease *lease)
{
	handle_fail(
		handle_of(lease), GPUMGR_ERROR_BAD_ANSWER, "the daemon's grant is not understood: is that gpumgrd?");
	return refuse(lease);
}

/* ---- what the daemon says ---- */

static int handle_queued(struct gpumgr_lease *lease, json_t *json)
{
	if (lease->state != GPUMGR_LEASE_WAITING)
		return 0;
	lease->give_up_ms = PUMP_NEVER;
	return event_of_json(lease, GPUMGR_LEASE_QUEUED, json, "waits_for");
}

static int handle_regained(struct gpumgr_lease *lease, json_t *json)
{
	const char *id = json_string_value(json_object_get(json, "id"));
	if (id == NULL || strcmp(id, lease->grant.id) != 0)
		return lose(lease, "gone", "the daemon answered with another lease");
	lease->state = GPUMGR_LEASE_HELD;
	lease->give_up_ms = PUMP_NEVER;
	drop_silent(lease);
	return event_of_words(lease, GPUMGR_LEASE_REGAINED, NULL, "the connection to gpumgrd is back");
}

static int handle_granted(struct gpumgr_lease *lease, json_t *json)
{
	if (lease->state == GPUMGR_LEASE_UNSURE)
		return handle_regained(lease, json);
	if (lease->state != GPUMGR_LEASE_WAITING)
		return 0;
	int r = take_grant(lease, json);
	if (r == -EBADMSG)
		return bad_grant(lease);
	return r < 0 ? r : event_of_words(lease, GPUMGR_LEASE_GRANTED, NULL, "granted");
}

static int handle_warning(struct gpumgr_lease *lease, json_t *json)
{
	return event_of_json(lease, GPUMGR_LEASE_WARNING, json, "text");
}

static int handle_lost(struct gpumgr_lease *lease, json_t *json)
{
	end(lease);
	return event_of_json(lease, GPUMGR_LEASE_LOST, json, "text");
}

static bool is_going_down(const json_t *problem)
{
	const char *code = json_string_value(json_object_get(problem, "code"));
	return code != NULL && strcmp(code, "shutting_down") == 0;
}

static int broke_off(struct gpumgr_lease *lease);
static int refused_back(struct gpumgr_lease *lease, int status, json_t *problem);

static int handle_error(struct gpumgr_lease *lease, json_t *json)
{
	json_t *problem = json_object_get(json, "body");
	int status = (int)json_integer_value(json_object_get(json, "status"));
	if (lease->state == GPUMGR_LEASE_HELD)
		return 0;
	if (is_going_down(problem))
		return broke_off(lease);
	if (lease->state == GPUMGR_LEASE_UNSURE)
		return refused_back(lease, status, problem);
	return refuse_problem(lease, status, problem);
}

static const struct {
	const char *type;
	int (*handle)(struct gpumgr_lease *lease, json_t *json);
} handlers[] = {
	{ "queued", handle_queued },
	{ "granted", handle_granted },
	{ "warning", handle_warning },
	{ "lost", handle_lost },
	{ "error", handle_error },
};

/* 1: an event is there, 0: there is none, or a negative errno. */
static int take_part(struct gpumgr_lease *lease, const struct part *part)
{
	int r = 0;
	if (lease->state == GPUMGR_LEASE_OVER)
		return 0;
	lease->was_answered |= part->kind == GPUMGR_PART_OPEN;
	if (part->kind != GPUMGR_PART_EVENT)
		return 0;
	json_t *json = json_loadb(part->data, part->length, 0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (strcmp(part->type, handlers[i].type) == 0 && json_is_object(json)) {
			r = handlers[i].handle(lease, json);
			break;
		}
	}
	json_decref(json);
	return r;
}

/* ---- the end of an exchange ---- */

/* The stream ended without a last word. */
static int broke_off(struct gpumgr_lease *lease)
{
	bool is_news = lease->give_up_ms == PUMP_NEVER;
	if (is_news)
		lease->give_up_ms = clock_now_ms() + lease->patience_ms;
	/* One that answers and hangs up at once is not asked a hundred times a second. */
	if (clock_now_ms() - lease->asked_ms > RETRY_MAX_MS)
		lease->n_tries = 0;
	ask_again(lease);
	if (lease->state == GPUMGR_LEASE_WAITING)
		return !is_news ? 0
				: event_of_words(lease, GPUMGR_LEASE_QUEUED, NULL,
					  "the connection to gpumgrd broke off; it is asked again");
	lease->state = GPUMGR_LEASE_UNSURE;
	return !is_news ? 0
			: event_of_words(lease, GPUMGR_LEASE_BROKE_OFF, NULL,
				  "the connection to gpumgrd broke off; trying to get the lease back");
}

/* The daemon does not give it back: for good, or not just now. */
static int refused_back(struct gpumgr_lease *lease, int status, json_t *problem)
{
	const char *detail = json_string_value(json_object_get(problem, "detail"));
	bool is_final = status == 404 || status == 403 || status == 400 || status == 409;
	if (!is_final)
		return broke_off(lease);
	return lose(lease, "gone", detail != NULL ? detail : "gpumgrd does not know the lease any more");
}

static int give_up(struct gpumgr_lease *lease)
{
	char text[128];
	snprintf(text, sizeof(text), "gpumgrd could not be reached for %g s", (double)lease->patience_ms / 1000);
	if (lease->state != GPUMGR_LEASE_WAITING)
		return lose(lease, "unreachable", text);
	handle_fail(handle_of(lease), GPUMGR_ERROR_NO_DAEMON, "%s", text);
	return refuse(lease);
}

/* No answer at all. */
static int handle_failure(struct gpumgr_lease *lease, int code)
{
	bool goes_on = lease->state == GPUMGR_LEASE_UNSURE || lease->state == GPUMGR_LEASE_HELD || lease->is_again ||
		lease->was_answered || (lease->repeatable && code == GPUMGR_ERROR_BROKEN);
	if (!goes_on || code == GPUMGR_ERROR_NO_MEMORY)
		return lease->state == GPUMGR_LEASE_WAITING ? refuse(lease) : -ENOMEM;
	if (lease->give_up_ms != PUMP_NEVER && clock_now_ms() >= lease->give_up_ms)
		return give_up(lease);
	return broke_off(lease);
}

static json_t *load_answer(const struct gpumgr_lease *lease)
{
	size_t length;
	const char *body = exchange_body(lease->flow.exchange, &length);
	return json_loadb(body, length, 0, NULL);
}

/* A whole answer that is no stream. */
static int handle_answer(struct gpumgr_lease *lease)
{
	int status = exchange_status(lease->flow.exchange);
	int r;
	json_t *json = load_answer(lease);
	bool is_good = status >= 200 && status < 300 && json_is_object(json);
	if (lease->state == GPUMGR_LEASE_UNSURE)
		r = refused_back(lease, status, json);
	else if ((lease->is_again || lease->repeatable) && is_going_down(json))
		r = handle_failure(lease, GPUMGR_ERROR_BROKEN);
	else if (is_good && !lease->attached)
		r = handle_granted(lease, json);
	else if (is_good)
		r = bad_grant(lease);
	else
		r = refuse_problem(lease, status, json);
	if (lease->state == GPUMGR_LEASE_HELD)
		flow_end(&lease->flow);
	json_decref(json);
	return r;
}

static int handle_end(struct gpumgr_lease *lease)
{
	if (lease->state == GPUMGR_LEASE_OVER) {
		flow_end(&lease->flow);
		return 0;
	}
	bool streamed = exchange_was_streamed(lease->flow.exchange);
	int code = handle_fail_exchange(handle_of(lease), lease->flow.exchange);
	if (streamed || code != GPUMGR_OK)
		return handle_failure(lease, code != GPUMGR_OK ? code : GPUMGR_ERROR_BROKEN);
	return handle_answer(lease);
}

/* ---- acquiring ---- */

static int begin(struct gpumgr_lease *lease, const struct gpumgr_terms *terms)
{
	struct gpumgr *g = handle_of(lease);
	lease->state = GPUMGR_LEASE_WAITING;
	lease->silent_fd = -1;
	lease->attached = !terms->detached;
	lease->wait_ms = terms->wait_ms;
	lease->began_ms = clock_now_ms();
	lease->patience_ms = g->patience_ms;
	lease->give_up_ms = PUMP_NEVER;
	lease->grant.expires_ms = PUMP_NEVER;
	int r = terms_to_json(g, terms, &lease->body);
	if (r != GPUMGR_OK)
		return r;
	lease->repeatable = json_object_get(lease->body, "request_id") != NULL;
	r = ask(lease);
	return r < 0 ? handle_errno(g, r, "cannot begin a request") : GPUMGR_OK;
}

int gpumgr_acquire_begin(struct gpumgr *g, const struct gpumgr_terms *terms, struct gpumgr_lease **ret_lease)
{
	*ret_lease = NULL;
	int r = handle_check(g);
	if (r != GPUMGR_OK)
		return r;
	struct gpumgr_lease *lease = calloc(1, sizeof(*lease));
	if (lease == NULL)
		return handle_no_memory(g);
	r = flow_init(&lease->flow, g);
	if (r < 0) {
		free(lease);
		return handle_errno(g, r, "cannot begin a connection");
	}
	r = begin(lease, terms);
	if (r != GPUMGR_OK)
		gpumgr_lease_free(lease);
	else
		*ret_lease = lease;
	return r;
}

/* When the lease itself wants to be looked at. */
static void set_due(struct gpumgr_lease *lease)
{
	uint64_t due = lease->retry_ms;
	if (lease->flow.exchange != NULL && handle_of(lease)->address.url != NULL && lease->attached)
		due = exchange_heard_ms(lease->flow.exchange) + handle_of(lease)->silence_ms;
	pump_set_due(&lease->flow.pump, due);
}

/* 1: an event is there. */
static int retry_when_due(struct gpumgr_lease *lease)
{
	uint64_t now = clock_now_ms();
	if (lease->retry_ms > now)
		return 0;
	return now >= lease->give_up_ms ? give_up(lease) : ask(lease);
}

/* Asked only after all that came was read: it may have come while this program was stopped, or busy. 1: an event. */
static int check_silence(struct gpumgr_lease *lease)
{
	struct gpumgr *g = handle_of(lease);
	const struct exchange *exchange = lease->flow.exchange;
	if (exchange == NULL || !lease->attached || g->address.url == NULL ||
		exchange_heard_ms(exchange) + g->silence_ms > clock_now_ms())
		return 0;
	handle_fail(g, GPUMGR_ERROR_BROKEN, "nothing was heard from %s for %g s", g->address.url,
		(double)g->silence_ms / 1000);
	keep_silent(lease);
	return handle_failure(lease, GPUMGR_ERROR_BROKEN);
}

/* All that can be had without waiting. 1: an event is there, 0: none, or a negative errno. */
static int advance(struct gpumgr_lease *lease)
{
	for (;;) {
		struct part *part = flow_take(&lease->flow);
		int r = 0;
		if (part != NULL)
			r = take_part(lease, part);
		else if (lease->flow.exchange != NULL && flow_is_over(&lease->flow))
			r = handle_end(lease);
		else
			r = retry_when_due(lease);
		bool had_part = part != NULL;
		free(part);
		if (r != 0 || lease->state == GPUMGR_LEASE_OVER)
			return r;
		if (had_part)
			continue;
		r = flow_turn(&lease->flow);
		if (r < 0)
			return r;
		bool is_over = lease->flow.exchange != NULL && flow_is_over(&lease->flow);
		if (lease->flow.first == NULL && !is_over)
			return check_silence(lease);
	}
}

int gpumgr_lease_next(struct gpumgr_lease *lease, int64_t timeout_ms, const struct gpumgr_lease_event **ret_event)
{
	struct gpumgr *g = handle_of(lease);
	uint64_t deadline_ms = deadline_of(timeout_ms);
	*ret_event = NULL;
	int r = handle_check(g);
	if (r != GPUMGR_OK)
		return r;
	for (;;) {
		if (lease->state == GPUMGR_LEASE_OVER)
			return handle_fail(g, GPUMGR_ERROR_ENDED, "the lease is over");
		r = advance(lease);
		if (lease->state != GPUMGR_LEASE_OVER)
			set_due(lease);
		if (r < 0)
			return handle_errno(g, r, "the lease");
		if (r > 0) {
			*ret_event = &lease->event;
			return 1;
		}
		if (lease->state == GPUMGR_LEASE_OVER)
			continue;
		r = timeout_ms == 0 ? 0 : flow_wait(&lease->flow, deadline_ms);
		if (r <= 0)
			return r;
	}
}

/* What is still left of the time, for another gpumgr_lease_next(). */
static int64_t time_left(uint64_t deadline_ms)
{
	uint64_t now = clock_now_ms();
	if (deadline_ms == PUMP_NEVER)
		return -1;
	return deadline_ms > now ? (int64_t)(deadline_ms - now) : 0;
}

static int too_late(struct gpumgr *g, int64_t timeout_ms, const char *waits_for)
{
	return handle_fail(g, GPUMGR_ERROR_TIMED_OUT, "no lease within %g s%s%s", (double)timeout_ms / 1000,
		waits_for[0] != '\0' ? ": " : "", waits_for);
}

int gpumgr_acquire(
	struct gpumgr *g, const struct gpumgr_terms *terms, int64_t timeout_ms, struct gpumgr_lease **ret_lease)
{
	const struct gpumgr_lease_event *event;
	enum gpumgr_lease_event_kind kind;
	char waits_for[256] = "";
	struct gpumgr_lease *lease;
	uint64_t deadline_ms = deadline_of(timeout_ms);
	*ret_lease = NULL;
	int r = gpumgr_acquire_begin(g, terms, &lease);
	if (r != GPUMGR_OK || lease == NULL)
		return r;
	do {
		r = gpumgr_lease_next(lease, time_left(deadline_ms), &event);
		kind = r == 1 && event != NULL ? event->kind : GPUMGR_LEASE_REFUSED;
		if (kind == GPUMGR_LEASE_QUEUED)
			snprintf(waits_for, sizeof(waits_for), "%s", event->text);
	} while (kind != GPUMGR_LEASE_GRANTED && kind != GPUMGR_LEASE_REFUSED);
	if (kind == GPUMGR_LEASE_GRANTED) {
		*ret_lease = lease;
		return GPUMGR_OK;
	}
	if (r == 0)
		r = too_late(g, timeout_ms, waits_for);
	else if (r == 1)
		r = g->error.code;
	gpumgr_lease_free(lease);
	return r;
}

/* ---- what there is to know ---- */

int gpumgr_lease_fd(const struct gpumgr_lease *lease)
{
	return lease->flow.pump.fd;
}

enum gpumgr_lease_state gpumgr_lease_state(const struct gpumgr_lease *lease)
{
	return lease->state;
}

const char *gpumgr_lease_id(const struct gpumgr_lease *lease)
{
	return lease->grant.id;
}

uint64_t gpumgr_lease_fence(const struct gpumgr_lease *lease)
{
	return lease->grant.fence;
}

const char *const *gpumgr_lease_services(const struct gpumgr_lease *lease)
{
	static const char *const none[] = { NULL };
	return lease->grant.services != NULL ? lease->grant.services : none;
}

struct gpumgr_numbers gpumgr_lease_gpus(const struct gpumgr_lease *lease)
{
	return lease->grant.gpus;
}

const char *const *gpumgr_lease_gpu_uuids(const struct gpumgr_lease *lease)
{
	static const char *const none[] = { NULL };
	return lease->grant.uuids != NULL ? lease->grant.uuids : none;
}

const char *gpumgr_lease_cuda_devices(const struct gpumgr_lease *lease)
{
	return lease->grant.cuda != NULL ? lease->grant.cuda : "";
}

int64_t gpumgr_lease_expires_in_ms(const struct gpumgr_lease *lease)
{
	uint64_t now = clock_now_ms();
	if (lease->grant.expires_ms == PUMP_NEVER)
		return GPUMGR_UNKNOWN;
	return lease->grant.expires_ms > now ? (int64_t)(lease->grant.expires_ms - now) : 0;
}

const char *gpumgr_lease_json(const struct gpumgr_lease *lease)
{
	return lease->grant.json;
}

int gpumgr_lease_connection(const struct gpumgr_lease *lease)
{
	return lease->attached ? pump_socket(&lease->flow.pump) : -1;
}

/* ---- renewing and ending ---- */

int gpumgr_lease_renew(struct gpumgr_lease *lease, int64_t ttl_ms, int64_t timeout_ms)
{
	struct gpumgr *g = handle_of(lease);
	struct grant *grant = &lease->grant;
	int64_t expires_in_ms = GPUMGR_UNKNOWN;
	if (lease->state != GPUMGR_LEASE_HELD)
		return handle_fail(g, GPUMGR_ERROR_ENDED, "there is no lease to be renewed");
	uint64_t asked_ms = clock_now_ms();
	int r = renew_lease(g, grant->id, grant->fence, ttl_ms, timeout_ms, &expires_in_ms);
	if (r == GPUMGR_OK && expires_in_ms != GPUMGR_UNKNOWN)
		grant->expires_ms = asked_ms + (uint64_t)expires_in_ms;
	if (r == GPUMGR_ERROR_UNKNOWN)
		end(lease);
	return r;
}

int gpumgr_lease_release(struct gpumgr_lease *lease, int64_t timeout_ms)
{
	struct gpumgr *g = handle_of(lease);
	int r = handle_check(g);
	if (r != GPUMGR_OK)
		return r;
	if (lease->state == GPUMGR_LEASE_HELD || lease->state == GPUMGR_LEASE_UNSURE)
		r = gpumgr_release(g, lease->grant.id, lease->grant.fence, timeout_ms);
	end(lease);
	return r == GPUMGR_ERROR_UNKNOWN ? GPUMGR_OK : r;
}

void gpumgr_lease_free(struct gpumgr_lease *lease)
{
	if (lease == NULL)
		return;
	if (handle_of(lease)->pid == getpid())
		end(lease);
	drop_silent(lease);
	forget_grant(&lease->grant);
	json_decref(lease->body);
	arena_free(lease->said);
	flow_finish(&lease->flow);
	free(lease);
}
