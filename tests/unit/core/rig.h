/*
 * An engine under test: events by hand, effects recorded, time as the test says. Memory is whatever the test puts
 * into `measured_mib` and `foreign_mib`; rig_read() tells the engine about it.
 */
#pragma once

#include "base/cleanup.h"
#include "core/engine.h"

#define RIG_SERVICES 6
#define RIG_GPUS 4
#define RIG_EFFECTS 4096

#define CARD 24576 /* MiB, of a GPU as most tests want it */
#define WAIT 60000 /* ms, of a request that is to wait */

struct rig_effect {
	struct effect effect;
	char type[32]; /* of a notice */
	char text[512];
	uint64_t fence; /* of a lease, which is gone later */
	enum lease_end end;
};

struct rig {
	struct engine_config config;
	struct service_definition services[RIG_SERVICES];
	struct phase_definition phases[RIG_SERVICES];
	size_t phase_services[RIG_SERVICES][RIG_SERVICES];
	uint32_t totals_mib[RIG_GPUS];
	size_t n_gpus; /* that readings show */
	struct engine *engine;
	struct effects effects;
	uint64_t now;
	uint32_t measured_mib[RIG_GPUS][RIG_SERVICES];
	uint32_t foreign_mib[RIG_GPUS];
	bool totals_only;
	uint64_t run[RIG_SERVICES];
	bool is_probing[RIG_SERVICES]; /* a probe is under way */
	uint64_t next_ticket;
	uint64_t next_fence; /* fences are given at once */
	bool fences_fail;
	bool fences_are_late; /* never given */
	size_t n;
	struct rig_effect seen[RIG_EFFECTS];
};

/* A rig with `n` GPUs of `mib` each, 1024 MiB of them reserved; then add services and phases; then rig_start(). */
struct rig *rig_new(size_t n_gpus, uint32_t mib);
struct rig *rig_free(struct rig *rig);
void rig_cleanup(struct rig **rig);
#define RIG CLEANUP(rig_cleanup) struct rig *
size_t rig_service(struct rig *rig, const char *name, uint32_t mib, int priority);
/* `services` ends with SIZE_MAX. */
size_t rig_phase(struct rig *rig, int number, const size_t *services);
void rig_create(struct rig *rig); /* the engine alone: nothing was told yet */
void rig_start(struct rig *rig); /* and the first tick, nothing found, one reading */

void rig_handle(struct rig *rig, const struct event *event);
void rig_take(struct rig *rig); /* what stands in `effects` came of something that is no event */
void rig_tick(struct rig *rig, uint64_t ms); /* that much later */
/* Ticks at each deadline until so much time is over. */
void rig_wait(struct rig *rig, uint64_t ms);
void rig_read(struct rig *rig);
uint64_t rig_submit(struct rig *rig, enum request_kind kind, size_t target, int64_t wait_ms);
uint64_t rig_submit_force(struct rig *rig, enum request_kind kind, size_t target);
/* A lease of 10 s on `n` services, or of room. */
struct lease_terms rig_terms(const size_t *services, size_t n, enum lease_mode mode);
struct lease_terms rig_room(uint32_t mib);
uint64_t rig_submit_lease(struct rig *rig, const struct lease_terms *terms, int64_t wait_ms);
void rig_release(struct rig *rig, uint64_t fence);
void rig_renew(struct rig *rig, uint64_t fence, uint64_t ttl_ms);
void rig_withdraw(struct rig *rig, uint64_t ticket);
void rig_lock(struct rig *rig, enum lock_news news, const char *text);

/* What drivers and probes say. */
void rig_found(struct rig *rig, size_t service, bool alive, bool healthy);
void rig_started(struct rig *rig, size_t service);
void rig_start_failed(struct rig *rig, size_t service, const char *text);
void rig_health(struct rig *rig, size_t service, bool healthy); /* waits for the probe first */
void rig_gone(struct rig *rig, size_t service, const char *text);
void rig_event(struct rig *rig, enum event_kind kind, size_t service, const char *text);

/* The whole way: started, its memory taken and read, healthy. */
void rig_up(struct rig *rig, size_t service);
/* The whole way down: gone, its memory back and read. */
void rig_down(struct rig *rig, size_t service);
/* Submits a start and carries it through. */
void rig_run(struct rig *rig, size_t service);

/* What was ordered since the last rig_forget(). */
void rig_forget(struct rig *rig);
size_t rig_count(const struct rig *rig, enum effect_kind kind, size_t service);
const struct rig_effect *rig_last(const struct rig *rig, enum effect_kind kind, size_t service);
size_t rig_notices(const struct rig *rig, const char *type, const char *part);
size_t rig_n_leases(struct rig *rig);
const struct lease *rig_lease_at(struct rig *rig, size_t index);
/* News of a lease, and how it ended; -1: it did not. */
size_t rig_news(const struct rig *rig, uint64_t fence, enum lease_news news);
int rig_end(const struct rig *rig, uint64_t fence);
/* Who keeps leases hears of a grant before its client does. */
bool rig_granted_before_reply(const struct rig *rig, uint64_t ticket);
/* -1: not answered yet. */
int rig_outcome(const struct rig *rig, uint64_t ticket);
uint64_t rig_transition(const struct rig *rig, uint64_t ticket);
const char *rig_detail(const struct rig *rig, uint64_t ticket);
const struct service_status *rig_status(struct rig *rig, size_t service);
const struct gpu_account *rig_account(struct rig *rig, size_t gpu);
