/* What is asked for and answered in one piece: status, requests that change something, plans, logs, any route. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "client/handle.h"

/* ---- any route ---- */

struct answer {
	struct gpumgr_answer public; /* first: it is what the caller holds */
	struct gpumgr *g;
	struct reply reply;
};

int gpumgr_ask(struct gpumgr *g, const char *method, const char *path, const char *body, int64_t timeout_ms,
	struct gpumgr_answer **ret_answer)
{
	struct reply reply;
	*ret_answer = NULL;
	int r = handle_ask(g, method, path, body, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	struct answer *answer = calloc(1, sizeof(*answer));
	if (answer == NULL) {
		reply_finish(&reply);
		return handle_no_memory(g);
	}
	answer->g = handle_ref(g);
	answer->reply = reply;
	answer->public.status = reply.status;
	answer->public.type = exchange_type(reply.exchange);
	answer->public.body = exchange_body(reply.exchange, &answer->public.length);
	*ret_answer = &answer->public;
	return GPUMGR_OK;
}

void gpumgr_answer_free(struct gpumgr_answer *public)
{
	struct answer *answer = (struct answer *)public;
	if (answer == NULL)
		return;
	reply_finish(&answer->reply);
	handle_unref(answer->g);
	free(answer);
}

/* ---- version, status ---- */

static int copy_text(struct gpumgr *g, const char *text, char **ret_text)
{
	*ret_text = strdup(text);
	return *ret_text != NULL ? GPUMGR_OK : handle_no_memory(g);
}

int gpumgr_version(struct gpumgr *g, int64_t timeout_ms, char **ret_version)
{
	struct reply reply;
	*ret_version = NULL;
	int r = handle_ask_object(g, "GET", "/gpu/version", NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	const char *version = json_string_value(json_object_get(reply.json, "version"));
	r = version != NULL ? copy_text(g, version, ret_version)
			    : handle_fail(g, GPUMGR_ERROR_BAD_ANSWER, "the answer has no version: is that gpumgrd?");
	reply_finish(&reply);
	return r;
}

int gpumgr_connect(struct gpumgr *g, int64_t timeout_ms)
{
	char *version;
	int r = gpumgr_version(g, timeout_ms, &version);
	free(version);
	return r;
}

int gpumgr_get_status_json(struct gpumgr *g, int64_t timeout_ms, char **ret_json)
{
	struct reply reply;
	size_t length;
	*ret_json = NULL;
	int r = handle_ask_object(g, "GET", "/gpu/status", NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	r = copy_text(g, exchange_body(reply.exchange, &length), ret_json);
	reply_finish(&reply);
	return r;
}

/* What is handed out: the caller's struct first, and the arena that it and all in it came from. */
struct handed_out {
	struct arena *arena;
	max_align_t record[];
};

static void *hand_out(struct gpumgr *g, const struct record_type *type, struct reply *reply)
{
	struct handed_out *out = calloc(1, sizeof(*out) + type->size);
	struct arena *arena = arena_new();
	if (out == NULL || arena == NULL) {
		free(out);
		arena_free(arena);
		handle_no_memory(g);
		return NULL;
	}
	out->arena = arena;
	arena_keep_json(arena, json_incref(reply->json));
	record_fill(arena, type, reply->json, out->record);
	return out->record;
}

static struct handed_out *handed_out(const void *record)
{
	return (struct handed_out *)((const char *)record - offsetof(struct handed_out, record));
}

static void take_back(const void *record)
{
	if (record == NULL)
		return;
	struct handed_out *out = handed_out(record);
	arena_free(out->arena);
	free(out);
}

/* NULL, and the error set, when there was no memory for all of it. */
static void *unless_failed(struct gpumgr *g, void *record)
{
	if (record == NULL || !arena_failed(handed_out(record)->arena))
		return record;
	take_back(record);
	handle_no_memory(g);
	return NULL;
}

int gpumgr_get_status(struct gpumgr *g, int64_t timeout_ms, struct gpumgr_status **ret_status)
{
	struct reply reply;
	*ret_status = NULL;
	int r = handle_ask_object(g, "GET", "/gpu/status", NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	*ret_status = unless_failed(g, hand_out(g, &status_record, &reply));
	reply_finish(&reply);
	return *ret_status != NULL ? GPUMGR_OK : GPUMGR_ERROR_NO_MEMORY;
}

void gpumgr_status_free(struct gpumgr_status *status)
{
	take_back(status);
}

/* ---- requests that change something, and plans ---- */

void gpumgr_result_free(struct gpumgr_result *result)
{
	take_back(result);
}

static int make_result(struct gpumgr *g, struct reply *reply, struct gpumgr_result **ret_result)
{
	size_t length;
	struct gpumgr_result *result = hand_out(g, &result_record, reply);
	if (result != NULL)
		result->json = arena_copy(handed_out(result)->arena, exchange_body(reply->exchange, &length));
	*ret_result = unless_failed(g, result);
	return *ret_result != NULL ? GPUMGR_OK : GPUMGR_ERROR_NO_MEMORY;
}

static int ask_result(
	struct gpumgr *g, const char *method, const char *path, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	struct reply reply;
	if (ret_result != NULL)
		*ret_result = NULL;
	int r = handle_ask_object(g, method, path, NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	if (ret_result != NULL)
		r = make_result(g, &reply, ret_result);
	reply_finish(&reply);
	return r;
}

/* "BEFORE" name "AFTER" and the query; the caller frees it. NULL: no memory. */
static char *make_path(const char *before, const char *name, const char *after, const char *query, int64_t wait_ms)
{
	char wait[48] = "";
	char *path = NULL;
	CLEANUP_FREE char *escaped = client_escape(name);
	if (escaped == NULL)
		return NULL;
	if (wait_ms >= 0)
		snprintf(wait, sizeof(wait), "%cwait_s=%" PRId64 ".%03d", query[0] == '\0' ? '?' : '&', wait_ms / 1000,
			(int)(wait_ms % 1000));
	return asprintf(&path, "%s%s%s%s%s", before, escaped, after, query, wait) < 0 ? NULL : path;
}

static int act(struct gpumgr *g, char *path, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	CLEANUP_FREE char *owned = path;
	if (ret_result != NULL)
		*ret_result = NULL;
	return owned != NULL ? ask_result(g, "POST", owned, timeout_ms, ret_result) : handle_no_memory(g);
}

int gpumgr_phase(
	struct gpumgr *g, const char *phase, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return act(g, make_path("/gpu/prepare-phase/", phase, "", "", wait_ms), timeout_ms, ret_result);
}

int gpumgr_phase_number(
	struct gpumgr *g, unsigned phase, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	char number[16];
	snprintf(number, sizeof(number), "%u", phase);
	return gpumgr_phase(g, number, wait_ms, timeout_ms, ret_result);
}

int gpumgr_start(
	struct gpumgr *g, const char *service, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return act(g, make_path("/gpu/service/", service, "/start", "", wait_ms), timeout_ms, ret_result);
}

int gpumgr_stop(struct gpumgr *g, const char *service, int force, int64_t wait_ms, int64_t timeout_ms,
	struct gpumgr_result **ret_result)
{
	const char *query = force ? "?force=1" : "";
	return act(g, make_path("/gpu/service/", service, "/stop", query, wait_ms), timeout_ms, ret_result);
}

int gpumgr_restart(
	struct gpumgr *g, const char *service, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return act(g, make_path("/gpu/service/", service, "/restart", "", wait_ms), timeout_ms, ret_result);
}

int gpumgr_release_all(struct gpumgr *g, int64_t wait_ms, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return act(g, make_path("/gpu/release-all", "", "", "", wait_ms), timeout_ms, ret_result);
}

static int plan(
	struct gpumgr *g, const char *query, const char *name, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	CLEANUP_FREE char *path = make_path(query, name, "", "", -1);
	if (ret_result != NULL)
		*ret_result = NULL;
	return path != NULL ? ask_result(g, "GET", path, timeout_ms, ret_result) : handle_no_memory(g);
}

int gpumgr_plan_phase(struct gpumgr *g, const char *phase, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return plan(g, "/gpu/plan?phase=", phase, timeout_ms, ret_result);
}

int gpumgr_plan_start(struct gpumgr *g, const char *service, int64_t timeout_ms, struct gpumgr_result **ret_result)
{
	return plan(g, "/gpu/plan?start=", service, timeout_ms, ret_result);
}

/* ---- logs ---- */

int gpumgr_logs(struct gpumgr *g, const char *service, unsigned n_lines, int64_t timeout_ms, char **ret_text)
{
	struct reply reply;
	size_t length;
	char tail[32];
	snprintf(tail, sizeof(tail), "/logs?tail=%u", n_lines);
	CLEANUP_FREE char *path = make_path("/gpu/service/", service, tail, "", -1);
	*ret_text = NULL;
	if (path == NULL)
		return handle_no_memory(g);
	int r = handle_ask(g, "GET", path, NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	if (reply.status < 200 || reply.status > 299)
		r = handle_fail_problem(g, reply.status, reply.json);
	else
		r = copy_text(g, exchange_body(reply.exchange, &length), ret_text);
	reply_finish(&reply);
	return r;
}

/* ---- leases of whoever ---- */

/* The list of an object's member, in the form in which it is handed out. */
struct list_record {
	const struct gpumgr_lease_info *const *list;
};

static const struct field leases_fields[] = { { "leases", FIELD_LIST, 0, &lease_record } };
static const struct field broken_fields[] = { { "broken", FIELD_LIST, 0, &lease_record } };
static const struct record_type leases_record = { sizeof(struct list_record), 1, leases_fields };
static const struct record_type broken_record = { sizeof(struct list_record), 1, broken_fields };

/*
 * The caller holds the list itself, and gives it back: where the arena is stands in front of it.
 */
static int hand_out_list(struct gpumgr *g, const struct record_type *type, struct reply *reply,
	const struct gpumgr_lease_info *const **ret_list)
{
	struct list_record *all = unless_failed(g, hand_out(g, type, reply));
	if (all == NULL)
		return GPUMGR_ERROR_NO_MEMORY;
	size_t n = 0;
	while (all->list[n] != NULL)
		n++;
	const void **list = calloc(n + 2, sizeof(*list));
	if (list == NULL) {
		take_back(all);
		return handle_no_memory(g);
	}
	list[0] = all;
	memcpy(&list[1], all->list, n * sizeof(*list));
	*ret_list = (const struct gpumgr_lease_info *const *)&list[1];
	return GPUMGR_OK;
}

void gpumgr_lease_list_free(const struct gpumgr_lease_info *const *leases)
{
	if (leases == NULL)
		return;
	const void **list = (const void **)leases - 1;
	take_back(list[0]);
	free(list);
}

int gpumgr_list_leases(struct gpumgr *g, int64_t timeout_ms, const struct gpumgr_lease_info *const **ret_leases)
{
	struct reply reply;
	*ret_leases = NULL;
	int r = handle_ask_object(g, "GET", "/gpu/leases", NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	r = hand_out_list(g, &leases_record, &reply, ret_leases);
	reply_finish(&reply);
	return r;
}

int gpumgr_unlock(struct gpumgr *g, int64_t timeout_ms, const struct gpumgr_lease_info *const **ret_broken)
{
	struct reply reply;
	if (ret_broken != NULL)
		*ret_broken = NULL;
	int r = handle_ask_object(g, "POST", "/gpu/lock/release", NULL, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	if (ret_broken != NULL)
		r = hand_out_list(g, &broken_record, &reply, ret_broken);
	reply_finish(&reply);
	return r;
}

int gpumgr_release(struct gpumgr *g, const char *id, uint64_t fence, int64_t timeout_ms)
{
	struct reply reply;
	char query[48] = "";
	if (fence != 0)
		snprintf(query, sizeof(query), "?fence=%" PRIu64, fence);
	CLEANUP_FREE char *path = make_path("/gpu/leases/", id, "", query, -1);
	if (path == NULL)
		return handle_no_memory(g);
	int r = handle_ask_object(g, "DELETE", path, NULL, timeout_ms, &reply);
	if (r == GPUMGR_OK)
		reply_finish(&reply);
	return r;
}

int renew_lease(struct gpumgr *g, const char *id, uint64_t fence, int64_t ttl_ms, int64_t timeout_ms,
	int64_t *ret_expires_in_ms)
{
	struct reply reply;
	char body[96];
	struct gpumgr_lease_info *lease;
	CLEANUP_FREE char *path = make_path("/gpu/leases/", id, "/renew", "", -1);
	if (path == NULL)
		return handle_no_memory(g);
	size_t n = (size_t)snprintf(body, sizeof(body), "{");
	if (ttl_ms >= 0)
		n += (size_t)snprintf(body + n, sizeof(body) - n, "\"ttl_s\":%" PRId64 ".%03d%s", ttl_ms / 1000,
			(int)(ttl_ms % 1000), fence != 0 ? "," : "");
	if (fence != 0)
		n += (size_t)snprintf(body + n, sizeof(body) - n, "\"fence\":%" PRIu64, fence);
	snprintf(body + n, sizeof(body) - n, "}");
	int r = handle_ask_object(g, "POST", path, body, timeout_ms, &reply);
	if (r != GPUMGR_OK)
		return r;
	lease = unless_failed(g, hand_out(g, &lease_record, &reply));
	reply_finish(&reply);
	if (lease == NULL)
		return GPUMGR_ERROR_NO_MEMORY;
	*ret_expires_in_ms = lease->expires_in_ms;
	take_back(lease);
	return GPUMGR_OK;
}

int gpumgr_renew(struct gpumgr *g, const char *id, uint64_t fence, int64_t ttl_ms, int64_t timeout_ms)
{
	int64_t ignored;
	return renew_lease(g, id, fence, ttl_ms, timeout_ms, &ignored);
}
