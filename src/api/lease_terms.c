/* Reading what a client wants to lease. Strict: nothing is guessed, and nothing is asked of the host but its names. */
#include "api/lease_terms.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/action.h"
#include "api/parameters.h"
#include "api/peer.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/server.h"
#include "base/cleanup.h"
#include "base/distance.h"
#include "base/units.h"

#define PRIORITY_MAX 1000000 /* as in the configuration */

#define refuse(request, ...) (reply_problem(request, "bad_request", __VA_ARGS__), false)

uint64_t lease_id_parse(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 18 || text[digits] != '\0' || text[0] == '0')
		return 0;
	return strtoull(text, NULL, 10);
}

/* What is leased. */

static bool add_service(struct request *request, struct lease_body *body, const char *key, const json_t *name)
{
	if (!json_is_string(name))
		return refuse(request, "`%s` must hold names of services, such as \"comfyui\"", key);
	size_t service = action_find_service(request, json_string_value(name));
	if (service == SIZE_MAX)
		return false;
	for (size_t i = 0; i < body->terms.n_services; i++)
		if (body->services[i] == service)
			return refuse(request, "`%s` names %.128s twice", key, json_string_value(name));
	body->services[body->terms.n_services++] = service;
	return true;
}

static bool make_services(struct lease_body *body, size_t n)
{
	free(body->services); /* of another key; that there were two is refused in the end */
	body->terms.n_services = 0;
	body->services = calloc(n, sizeof(body->services[0]));
	body->n_subjects++;
	return body->services != NULL;
}

static bool read_service(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	return make_services(body, 1) && add_service(request, body, key, value);
}

static bool read_services(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	size_t n = json_array_size(value), known = request->api->host->names->n_services;
	if (n == 0)
		return refuse(request, "`%s` must be a list of names of services, with at least one", key);
	if (n > known)
		return refuse(request, "`%s` lists %zu services; there are only %zu", key, n, known);
	if (!make_services(body, n))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!add_service(request, body, key, json_array_get(value, i)))
			return false;
	return true;
}

static bool read_phase(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	char number[32];
	const char *name = json_string_value(value);
	if (json_is_integer(value)) {
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		name = number;
	}
	if (name == NULL)
		return refuse(request, "`%s` must be the number of a phase or its name", key);
	body->terms.phase = action_find_phase(request, name);
	if (body->terms.phase == SIZE_MAX)
		return false;
	const struct phase_definition *phase = &request->api->host->names->phases[body->terms.phase];
	if (phase->n_services == 0)
		return refuse(
			request, "`%s`: phase %d needs no services, so there is nothing to lease", key, phase->number);
	if (!make_services(body, phase->n_services))
		return false;
	memcpy(body->services, phase->services, phase->n_services * sizeof(body->services[0]));
	body->terms.n_services = phase->n_services;
	return true;
}

static bool read_vram(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	char number[32];
	struct size_value size = { 0 };
	const char *text = json_string_value(value);
	if (json_is_integer(value)) {
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		text = number;
	}
	if (text == NULL || parse_size(text, &size) < 0 || size.percent != 0)
		return refuse(
			request, "`%s` must be an amount of memory, such as \"2GiB\", or 2000 for so many MiB", key);
	if (size.mib < LEASE_ROOM_MIN_MIB)
		return refuse(request, "`%s` is %u MiB; at least %d MiB (did you mean \"%uGiB\"?)", key,
			(unsigned)size.mib, LEASE_ROOM_MIN_MIB, size.mib > 0 ? (unsigned)size.mib : 1);
	body->n_subjects++;
	body->terms.room_mib = size.mib;
	return true;
}

/* How. */

static bool read_mode(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	const char *name = json_string_value(value);
	for (int mode = LEASE_EXCLUSIVE; name != NULL && mode <= LEASE_GPU; mode++) {
		if (strcmp(lease_mode_name((enum lease_mode)mode), name) != 0)
			continue;
		body->terms.mode = (enum lease_mode)mode;
		return true;
	}
	return refuse(request, "`%s` must be \"exclusive\", \"shared\" or \"gpu\"", key);
}

/* Seconds, to the millisecond. False: not such a number, or out of bounds. */
static bool read_seconds(const json_t *value, uint64_t least_ms, uint64_t most_ms, uint64_t *ret_ms)
{
	double ms = json_number_value(value) * 1000 + 0.5;
	if (!json_is_number(value) || !(ms >= (double)least_ms) || !(ms < (double)most_ms + 1))
		return false;
	*ret_ms = (uint64_t)ms;
	return true;
}

static bool read_ttl(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	body->has_ttl = true;
	if (read_seconds(value, 1, LEASE_TTL_MAX_MS, &body->terms.ttl_ms))
		return true;
	return refuse(request, "`%s` must be a number of seconds above 0 and at most %llu (7 days)", key,
		LEASE_TTL_MAX_MS / 1000);
}

static bool read_wait(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	uint64_t wait_ms;
	if (!read_seconds(value, 0, LEASE_WAIT_MAX_MS, &wait_ms))
		return refuse(request, "`%s` must be a number of seconds from 0 to %llu (7 days)", key,
			LEASE_WAIT_MAX_MS / 1000);
	body->wait_ms = (int64_t)wait_ms;
	return true;
}

static bool read_attach(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	struct error err;
	if (parameters_json_bool(key, value, &body->terms.attached, &err) < 0)
		return refuse(request, "%s", err.message);
	return true;
}

/* For whom. */

/*
 * What would garble a terminal or a log, or turn its text around: C0, DEL, C1, line and paragraph separators, and what
 * sets the direction of writing. jansson has seen to it that it is UTF-8 without NUL.
 */
static bool is_printable(const char *text)
{
	static const struct {
		const char *bytes;
		size_t length;
	} hidden[] = { { "\xe2\x80\xa8", 3 }, { "\xe2\x80\xa9", 3 }, { "\xe2\x80\xaa", 3 }, { "\xe2\x80\xab", 3 },
		{ "\xe2\x80\xac", 3 }, { "\xe2\x80\xad", 3 }, { "\xe2\x80\xae", 3 }, { "\xe2\x81\xa6", 3 },
		{ "\xe2\x81\xa7", 3 }, { "\xe2\x81\xa8", 3 }, { "\xe2\x81\xa9", 3 } };
	for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
		if (*c < ' ' || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0))
			return false;
		for (size_t i = 0; *c == 0xe2 && i < ARRAY_SIZE(hidden); i++)
			if (strncmp((const char *)c, hidden[i].bytes, hidden[i].length) == 0)
				return false;
	}
	return true;
}

static bool read_owner(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	if (!json_is_string(value) || json_string_length(value) > LEASE_OWNER_MAX ||
		!is_printable(json_string_value(value)))
		return refuse(request, "`%s` must be text of at most %d bytes without control characters", key,
			LEASE_OWNER_MAX);
	body->terms.owner = json_string_value(value);
	return true;
}

static bool read_priority(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	json_int_t priority = json_integer_value(value);
	if (!json_is_integer(value) || priority < -PRIORITY_MAX || priority > PRIORITY_MAX)
		return refuse(request, "`%s` must be a whole number from %d to %d", key, -PRIORITY_MAX, PRIORITY_MAX);
	body->terms.has_priority = true;
	body->terms.priority = (int)priority;
	return true;
}

static bool read_request_id(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);
	bool is_printable_ascii = length > 0;
	for (size_t i = 0; i < length; i++)
		is_printable_ascii = is_printable_ascii && text[i] >= ' ' && text[i] <= '~';
	if (!is_printable_ascii || length > LEASE_REQUEST_ID_MAX)
		return refuse(request, "`%s` must be 1 to %d printable ASCII characters", key, LEASE_REQUEST_ID_MAX);
	body->terms.request_id = text;
	return true;
}

static bool read_holding(struct request *request, struct lease_body *body, const char *key, json_t *value)
{
	size_t n = json_array_size(value);
	if (!json_is_array(value))
		return refuse(request, "`%s` must be a list of ids of leases, such as [\"1042\"]", key);
	if (n > LEASE_HOLDING_MAX)
		return refuse(request, "`%s` lists %zu leases; at most %d", key, n, LEASE_HOLDING_MAX);
	body->holding = calloc(n + 1, sizeof(body->holding[0]));
	if (body->holding == NULL)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *id = json_string_value(json_array_get(value, i));
		body->holding[i] = id != NULL ? lease_id_parse(id) : 0;
		if (body->holding[i] == 0)
			return refuse(
				request, "`%s` must hold ids of leases, as strings: number %zu is none", key, i + 1);
	}
	body->terms.n_holding = n;
	return true;
}

static const struct key {
	const char *name;
	bool (*read)(struct request *request, struct lease_body *body, const char *key, json_t *value);
} keys[] = {
	{ "attach", read_attach },
	{ "holding", read_holding },
	{ "mode", read_mode },
	{ "owner", read_owner },
	{ "phase", read_phase },
	{ "priority", read_priority },
	{ "request_id", read_request_id },
	{ "service", read_service },
	{ "services", read_services },
	{ "ttl_s", read_ttl },
	{ "vram", read_vram },
	{ "wait_s", read_wait },
};

static bool refuse_unknown(struct request *request, const char *name)
{
	const char *nearest = NULL;
	char accepted[160] = "";
	size_t used = 0;
	unsigned least = 3;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		unsigned distance = edit_distance(keys[i].name, name);
		if (distance < least) {
			least = distance;
			nearest = keys[i].name;
		}
		used += (size_t)snprintf(
			accepted + used, sizeof(accepted) - used, "%s%s", i > 0 ? ", " : "", keys[i].name);
	}
	if (nearest != NULL)
		return refuse(request, "`%.64s` is not known here; did you mean `%s`?", name, nearest);
	return refuse(request, "`%.64s` is not known here; accepted: %s", name, accepted);
}

static bool read_key(struct request *request, struct lease_body *body, const char *name, json_t *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].name, name) == 0)
			return keys[i].read(request, body, keys[i].name, value);
	return refuse_unknown(request, name);
}

/* What no key says alone. */
static bool check(struct request *request, const struct lease_body *body)
{
	const struct lease_terms *terms = &body->terms;
	if (body->n_subjects != 1)
		return refuse(request,
			"say what is to be leased by exactly one of `service`, `services`, `phase` and `vram`");
	if (terms->room_mib > 0 && terms->mode == LEASE_SHARED)
		return refuse(request, "`mode`: room (`vram`) is never shared; use \"exclusive\" or \"gpu\"");
	if (terms->attached && body->has_ttl)
		return refuse(request,
			"`ttl_s` and `attach` exclude each other: an attached lease lasts as long as its connection");
	return true;
}

static void complete(struct request *request, struct lease_body *body)
{
	struct lease_terms *terms = &body->terms;
	terms->services = body->services;
	terms->holding = body->holding;
	if (terms->owner == NULL || terms->owner[0] == '\0')
		terms->owner = peer_name(request->client);
	if (!terms->attached && !body->has_ttl)
		terms->ttl_ms = request->api->host->config->lease.ttl_ms;
}

bool lease_terms_read(struct request *request, struct lease_body *ret_body)
{
	struct error err;
	struct lease_body *body = ret_body;
	const char *key;
	json_t *value;
	*body = (struct lease_body){
		.terms = { .mode = LEASE_EXCLUSIVE, .phase = LEASE_NO_PHASE, .request_id = "" },
		.wait_ms = WAIT_DEFAULT_MS,
	};
	if (request->body_length > 0 &&
		parameters_load_body(request->body, request->body_length, &body->root, &err) < 0)
		return refuse(request, "%s", err.message);
	json_object_foreach(body->root, key, value)
	{
		if (!read_key(request, body, key, value))
			return false;
	}
	if (!check(request, body))
		return false;
	complete(request, body);
	return true;
}

void lease_terms_finish(struct lease_body *body)
{
	json_decref(body->root);
	free(body->services);
	free(body->holding);
	*body = (struct lease_body){ 0 };
}
