/* Leases, grants and the lock as JSON. Changes nothing, and asks the host only for what it knows already. */
#include "api/lease_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/json.h"

#define LOCK_NOBODY (-2)
#define LOCK_WITHOUT_TTL (-1)

static void put_room(struct writer *writer, uint32_t room_mib)
{
	writer_integer_or_null(writer, "vram_mb", room_mib > 0, room_mib);
}

/* From `now` to `then`, never less than nothing; null for never. */
static void put_seconds_until(struct writer *writer, const char *key, uint64_t now_ms, uint64_t then_ms)
{
	if (then_ms == UINT64_MAX)
		writer_null(writer, key);
	else
		writer_seconds(writer, key, then_ms > now_ms ? then_ms - now_ms : 0);
}

/* What a lease and a grant have in common. */
static void begin(struct writer *writer, const struct api_host *host, const struct lease *lease)
{
	char id[24];
	bool is_phase = lease->phase < host->names->n_phases;
	snprintf(id, sizeof(id), "%" PRIu64, lease->fence);
	writer_open(writer, NULL, '{');
	writer_text(writer, "id", id);
	writer_integer(writer, "fence", (int64_t)lease->fence);
	writer_text(writer, "mode", lease_mode_name(lease->mode));
	json_service_names(writer, "services", host, lease->services, lease->n_services);
	writer_integer_or_null(writer, "phase", is_phase, is_phase ? host->names->phases[lease->phase].number : 0);
	json_gpu_set(writer, "gpus", lease->gpus, GPU_MAX);
	put_room(writer, lease->room_mib);
	writer_text(writer, "owner", lease->owner);
	put_seconds_until(writer, "ttl_s", 0, lease->attached ? UINT64_MAX : lease->ttl_ms);
}

static void put_wanted(struct writer *writer, const struct api_host *host, const struct lease *lease, uint64_t now_ms)
{
	if (!lease->is_wanted) {
		writer_null(writer, "wanted");
		return;
	}
	writer_open(writer, "wanted", '{');
	writer_text(writer, "by", lease->wanted_by);
	json_engine_time(writer, "since", host, lease->wanted_ms);
	put_seconds_until(writer, "breaks_in_s", now_ms, lease->breaks_ms);
	writer_close(writer, '}');
}

void json_lease_begin(struct writer *writer, const struct api_host *host, const struct lease *lease, uint64_t now_ms)
{
	begin(writer, host, lease);
	put_seconds_until(writer, "expires_in_s", now_ms, lease->expires_ms);
	writer_integer(writer, "priority", lease->priority);
	writer_bool(writer, "attached", lease->attached);
	writer_text(writer, "state", lease->awaits_holder ? "awaits_holder" : "held");
	json_engine_time(writer, "since", host, lease->granted_ms);
	put_seconds_until(writer, "age_s", lease->granted_ms, now_ms);
	put_wanted(writer, host, lease, now_ms);
}

void json_leases(struct writer *writer, const char *key, const struct api_host *host, const struct status *status)
{
	writer_open(writer, key, '[');
	for (size_t i = 0; i < status->n_leases; i++) {
		json_lease_begin(writer, host, status->leases[i], status->now_ms);
		writer_close(writer, '}');
	}
	writer_close(writer, ']');
}

static void put_uuids(struct writer *writer, const struct api_host *host, gpu_set gpus)
{
	const struct gpu_sample *sample = host->sample(host->context);
	writer_open(writer, "gpu_uuids", '[');
	for (gpu_set rest = gpus; rest != 0; rest &= rest - 1) {
		unsigned index = (unsigned)__builtin_ctzll(rest);
		bool is_known = sample != NULL && index < sample->n_gpus;
		writer_text_or_null(writer, NULL, is_known ? sample->gpus[index].uuid : NULL);
	}
	writer_close(writer, ']');
}

/* When it ends by time. Of one that was just granted the time is whole; an attached one has none: its holder is here.
 */
static void put_expiry(struct writer *writer, const struct api_host *host, const struct lease *lease, bool is_new)
{
	if (lease->attached)
		writer_null(writer, "expires_in_s");
	else
		put_seconds_until(writer, "expires_in_s",
			is_new ? lease->granted_ms : host->status(host->context)->now_ms, lease->expires_ms);
}

void json_grant_begin(struct writer *writer, const struct api_host *host, const struct lease *lease,
	const struct transition *transition)
{
	begin(writer, host, lease);
	put_expiry(writer, host, lease, transition != NULL);
	writer_bool(writer, "success", true);
	put_uuids(writer, host, lease->gpus);
	writer_integer_or_null(
		writer, "transition", transition != NULL, transition != NULL ? (int64_t)transition->id : 0);
	if (transition != NULL) {
		json_steps(writer, "steps", host, transition);
		return;
	}
	writer_open(writer, "steps", '[');
	writer_close(writer, ']');
}

void json_lease_terms(
	struct writer *writer, const char *key, const struct api_host *host, const struct lease_terms *terms)
{
	writer_open(writer, key, '{');
	writer_text(writer, "mode", lease_mode_name(terms->mode));
	json_service_names(writer, "services", host, terms->services, terms->n_services);
	put_room(writer, terms->room_mib);
	writer_text(writer, "owner", terms->owner);
	writer_close(writer, '}');
}

/* The oldest lease on whole GPUs; without one the oldest on services, then the oldest. NULL: there is none. */
static const struct lease *lock_of(const struct status *status)
{
	const struct lease *on_services = NULL;
	for (size_t i = 0; i < status->n_leases; i++) {
		const struct lease *lease = status->leases[i];
		if (lease->mode == LEASE_GPU)
			return lease;
		if (on_services == NULL && lease->n_services > 0)
			on_services = lease;
	}
	return on_services != NULL || status->n_leases == 0 ? on_services : status->leases[0];
}

static const char *holder_of(const struct api_host *host, const struct lease *lease)
{
	if (lease == NULL)
		return NULL;
	return lease->n_services > 0 ? host->names->services[lease->services[0]].name : lease->owner;
}

static int64_t lock_ttl(const struct status *status, const struct lease *lease)
{
	if (lease == NULL)
		return LOCK_NOBODY;
	if (lease->attached)
		return LOCK_WITHOUT_TTL;
	return lease->expires_ms > status->now_ms ? (int64_t)((lease->expires_ms - status->now_ms) / 1000) : 0;
}

/* By name alone: managers of this kind write SERVICE:HOST:NONCE into the key, older ones the service. */
static void put_foreign_holder(struct writer *writer, const struct lock_status *lock)
{
	char name[LOCK_HOLDER_MAX + 1];
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(lock->holder, ":"), lock->holder);
	writer_text(writer, "holder", name);
	writer_integer(writer, "ttl", lock->holder_ttl_ms < 0 ? LOCK_WITHOUT_TTL : lock->holder_ttl_ms / 1000);
}

static void put_shared(struct writer *writer, const struct lock_status *lock)
{
	bool is_held = lock->state == LOCK_STATE_OURS || lock->state == LOCK_STATE_FOREIGN;
	if (lock->state == LOCK_STATE_LOCAL) {
		writer_null(writer, "shared");
		return;
	}
	writer_open(writer, "shared", '{');
	writer_text(writer, "key", lock->key);
	writer_text(writer, "state", lock_state_name(lock->state));
	writer_text_or_null(writer, "holder", is_held ? lock->holder : NULL);
	if (lock->state == LOCK_STATE_FOREIGN && lock->holder_ttl_ms >= 0)
		writer_seconds(writer, "expires_in_s", (uint64_t)lock->holder_ttl_ms);
	else
		writer_null(writer, "expires_in_s");
	writer_integer(writer, "waiting", (int64_t)lock->n_waiting);
	writer_text_or_null(writer, "problem", lock->problem[0] != '\0' ? lock->problem : NULL);
	writer_close(writer, '}');
}

void json_lock(struct writer *writer, const char *key, const struct api_host *host, const struct status *status)
{
	const struct lease *lease = lock_of(status);
	struct lock_status lock;
	host->lock_status(host->context, &lock);
	writer_open(writer, key, '{');
	if (lease == NULL && lock.state == LOCK_STATE_FOREIGN) {
		put_foreign_holder(writer, &lock);
	} else {
		writer_text_or_null(writer, "holder", holder_of(host, lease));
		writer_integer(writer, "ttl", lock_ttl(status, lease));
	}
	put_shared(writer, &lock);
	writer_close(writer, '}');
}
