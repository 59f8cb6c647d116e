/* Terms into JSON. Checks what the daemon cannot see any more; everything else is the daemon's to judge. */
#include "client/terms.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/cleanup.h"

static const char *const mode_names[] = {
	[GPUMGR_EXCLUSIVE] = "exclusive",
	[GPUMGR_SHARED] = "shared",
	[GPUMGR_GPU] = "gpu",
};

static int check(struct gpumgr *g, const struct gpumgr_terms *terms)
{
	if (terms->size < sizeof(*terms))
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "the terms are not initialised: begin with GPUMGR_TERMS");
	int n = (terms->service != NULL) + (terms->services != NULL) + (terms->phase != NULL) + (terms->vram != NULL);
	if (n != 1)
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT,
			"a lease is on exactly one of service, services, phase and vram; %d of them are set", n);
	if ((size_t)terms->mode >= ARRAY_SIZE(mode_names))
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "there is no lease mode %d", (int)terms->mode);
	if (!terms->detached && terms->ttl_ms >= 0)
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "an attached lease has no ttl_ms; set `detached' too");
	return GPUMGR_OK;
}

/* False: the text is not UTF-8, or there is no memory. NULL is left out. */
static bool set_text(json_t *body, const char *key, const char *text)
{
	return text == NULL || json_object_set_new(body, key, json_string(text)) == 0;
}

static bool set_texts(json_t *body, const char *key, const char *const *texts)
{
	if (texts == NULL)
		return true;
	json_t *array = json_array();
	for (size_t i = 0; texts[i] != NULL; i++) {
		if (json_array_append_new(array, json_string(texts[i])) < 0) {
			json_decref(array);
			return false;
		}
	}
	return json_object_set_new(body, key, array) == 0;
}

static bool set_seconds(json_t *body, const char *key, int64_t ms)
{
	json_t *value = ms % 1000 == 0 ? json_integer(ms / 1000) : json_real((double)ms / 1000);
	return json_object_set_new(body, key, value) == 0;
}

bool terms_set_wait(json_t *body, int64_t wait_ms)
{
	return wait_ms < 0 || set_seconds(body, "wait_s", wait_ms);
}

/* So that asking again after a broken connection cannot make two leases of one. */
static bool set_request_id(json_t *body)
{
	unsigned char random[12];
	char text[2 * sizeof(random) + 1];
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return true; /* then it is not asked for again */
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	return set_text(body, "request_id", text);
}

static const char *fill(const struct gpumgr_terms *terms, json_t *body)
{
	if (!set_text(body, "service", terms->service) || !set_texts(body, "services", terms->services) ||
		!set_text(body, "phase", terms->phase) || !set_text(body, "vram", terms->vram))
		return "what the lease is on";
	if (!set_text(body, "mode", mode_names[terms->mode]))
		return "mode";
	if (!set_text(body, "owner", terms->owner))
		return "owner";
	if (terms->has_priority && json_object_set_new(body, "priority", json_integer(terms->priority)) < 0)
		return "priority";
	if (!set_text(body, "request_id", terms->request_id) || (terms->request_id == NULL && !set_request_id(body)))
		return "request_id";
	if (!set_texts(body, "holding", terms->holding))
		return "holding";
	if (!terms->detached && json_object_set_new(body, "attach", json_true()) < 0)
		return "attach";
	if (terms->ttl_ms >= 0 && !set_seconds(body, "ttl_s", terms->ttl_ms))
		return "ttl_ms";
	return terms_set_wait(body, terms->wait_ms) ? NULL : "wait_ms";
}

int terms_to_json(struct gpumgr *g, const struct gpumgr_terms *terms, json_t **ret_body)
{
	int r = check(g, terms);
	if (r != GPUMGR_OK)
		return r;
	json_t *body = json_object();
	if (body == NULL)
		return handle_no_memory(g);
	const char *wrong = fill(terms, body);
	if (wrong != NULL) {
		json_decref(body);
		return handle_fail(g, GPUMGR_ERROR_ARGUMENT, "%s: the text is not UTF-8", wrong);
	}
	*ret_body = body;
	return GPUMGR_OK;
}
