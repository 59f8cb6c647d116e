/* An engine with its world played by the test. Decides nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

struct rig *rig_new(size_t n_gpus, uint32_t mib)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->n_gpus = n_gpus;
	for (size_t g = 0; g < n_gpus; g++)
		rig->totals_mib[g] = mib;
	rig->config = (struct engine_config){
		.services = rig->services,
		.phases = rig->phases,
		.reserve = { .mib = 1024 },
		.n_gpus = n_gpus,
		.gpu_totals_mib = rig->totals_mib,
		.wait_ms = 600000,
	};
	rig->now = 1000;
	rig->next_ticket = 1;
	rig->next_fence = 100;
	return rig;
}

struct rig *rig_free(struct rig *rig)
{
	effects_finish(&rig->effects);
	engine_destroy(rig->engine);
	free(rig);
	return NULL;
}

void rig_cleanup(struct rig **rig)
{
	if (*rig != NULL)
		rig_free(*rig);
}

size_t rig_service(struct rig *rig, const char *name, uint32_t mib, int priority)
{
	size_t index = rig->config.n_services++;

	rig->services[index] = (struct service_definition){
		.name = name,
		.vram = { .mib = mib },
		.priority = priority,
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.yield_after_ms = NEVER_MS,
		.preempt_after_ms = NEVER_MS,
		.max_leases = 1000,
		.start_timeout_ms = 120000,
		.stop_timeout_ms = 30000,
		.health_interval_ms = 5000,
		.health_retries = 3,
	};
	return index;
}

size_t rig_phase(struct rig *rig, int number, const size_t *services)
{
	size_t index = rig->config.n_phases++, n = 0;

	for (; services[n] != SIZE_MAX; n++)
		rig->phase_services[index][n] = services[n];
	rig->phases[index] =
		(struct phase_definition){ .number = number, .services = rig->phase_services[index], .n_services = n };
	return index;
}

void rig_create(struct rig *rig)
{
	assert_int_equal(engine_create(&rig->config, &rig->engine), 0);
}

void rig_start(struct rig *rig)
{
	rig_create(rig);
	rig_tick(rig, 0);
	for (size_t s = 0; s < rig->config.n_services; s++)
		rig_found(rig, s, false, false);
	rig_read(rig);
	rig_forget(rig);
}

static void record(struct rig *rig, const struct effect *effect)
{
	struct rig_effect *seen = &rig->seen[rig->n++];

	assert_true(rig->n < RIG_EFFECTS);
	*seen = (struct rig_effect){ .effect = *effect };
	if (effect->kind == EFFECT_START || effect->kind == EFFECT_ADOPT)
		rig->run[effect->service] = effect->run;
	if (effect->kind == EFFECT_PROBE)
		rig->is_probing[effect->service] = true;
	if (effect->kind == EFFECT_LEASE) {
		seen->fence = effect->lease.lease->fence;
		seen->end = effect->lease.lease->end;
	}
	if (effect->kind != EFFECT_PUBLISH)
		return;
	snprintf(seen->type, sizeof(seen->type), "%s", effect->notice->type);
	snprintf(seen->text, sizeof(seen->text), "%s", effect->notice->text);
}

void rig_take(struct rig *rig)
{
	for (size_t i = 0; i < rig->effects.n; i++)
		record(rig, &rig->effects.items[i]);
}

static void handle_one(struct rig *rig, const struct event *event)
{
	effects_clear(&rig->effects);
	assert_int_equal(engine_handle(rig->engine, event, rig->now, &rig->effects), 0);
	rig_take(rig);
}

void rig_handle(struct rig *rig, const struct event *event)
{
	size_t from = rig->n;

	handle_one(rig, event);
	for (size_t i = from; i < rig->n; i++) {
		struct event fence = { .kind = EVENT_FENCE, .text = "the disk is full" };

		if (rig->seen[i].effect.kind != EFFECT_FENCE || rig->fences_are_late)
			continue;
		fence.fence.id = rig->seen[i].effect.answer.id;
		fence.fence.fence = rig->fences_fail ? 0 : rig->next_fence++;
		handle_one(rig, &fence);
	}
}

void rig_lock(struct rig *rig, enum lock_news news, const char *text)
{
	const struct event event = { .kind = EVENT_LOCK, .lock = news, .text = text };

	rig_handle(rig, &event);
}

void rig_tick(struct rig *rig, uint64_t ms)
{
	struct event event = { .kind = EVENT_TICK };

	rig->now += ms;
	rig_handle(rig, &event);
}

void rig_wait(struct rig *rig, uint64_t ms)
{
	uint64_t until = rig->now + ms;

	for (;;) {
		uint64_t deadline = engine_next_deadline(rig->engine);

		if (deadline > until)
			break;
		rig_tick(rig, deadline > rig->now ? deadline - rig->now : 0);
	}
	rig_tick(rig, until - rig->now);
}

void rig_read(struct rig *rig)
{
	struct gpu_facts facts[RIG_GPUS];
	struct event event = { .kind = EVENT_READINGS };

	rig->now++; /* so that it is younger than whatever ended */
	for (size_t g = 0; g < rig->n_gpus; g++) {
		uint32_t used = rig->foreign_mib[g];

		for (size_t s = 0; s < rig->config.n_services; s++)
			used += rig->measured_mib[g][s];
		facts[g] = (struct gpu_facts){
			.has_total = true,
			.has_used = true,
			.has_processes = !rig->totals_only,
			.total_mib = rig->totals_mib[g],
			.used_mib = used,
			.measured_mib = rig->measured_mib[g],
		};
	}
	event.readings.taken_ms = rig->now;
	event.readings.n_gpus = rig->n_gpus;
	event.readings.gpus = facts;
	rig_handle(rig, &event);
}

static uint64_t submit(struct rig *rig, struct request_spec spec)
{
	struct event event = { .kind = EVENT_SUBMIT };

	event.submit.ticket = rig->next_ticket++;
	event.submit.spec = spec;
	rig_handle(rig, &event);
	return event.submit.ticket;
}

uint64_t rig_submit(struct rig *rig, enum request_kind kind, size_t target, int64_t wait_ms)
{
	return submit(rig, (struct request_spec){ .kind = kind, .target = target, .wait_ms = wait_ms });
}

uint64_t rig_submit_force(struct rig *rig, enum request_kind kind, size_t target)
{
	return submit(rig,
		(struct request_spec){ .kind = kind, .target = target, .force = true, .wait_ms = WAIT_DEFAULT_MS });
}

struct lease_terms rig_terms(const size_t *services, size_t n, enum lease_mode mode)
{
	return (struct lease_terms){ .mode = mode,
		.n_services = n,
		.services = services,
		.phase = LEASE_NO_PHASE,
		.ttl_ms = 10000,
		.owner = "test",
		.request_id = "" };
}

struct lease_terms rig_room(uint32_t mib)
{
	struct lease_terms terms = rig_terms(NULL, 0, LEASE_EXCLUSIVE);

	terms.room_mib = mib;
	return terms;
}

uint64_t rig_submit_lease(struct rig *rig, const struct lease_terms *terms, int64_t wait_ms)
{
	return submit(rig, (struct request_spec){ .kind = REQUEST_LEASE, .lease = terms, .wait_ms = wait_ms });
}

void rig_release(struct rig *rig, uint64_t fence)
{
	struct event event = { .kind = EVENT_RELEASE };

	event.lease.fence = fence;
	rig_handle(rig, &event);
}

void rig_renew(struct rig *rig, uint64_t fence, uint64_t ttl_ms)
{
	struct event event = { .kind = EVENT_RENEW };

	event.lease.fence = fence;
	event.lease.ttl_ms = ttl_ms;
	rig_handle(rig, &event);
}

void rig_withdraw(struct rig *rig, uint64_t ticket)
{
	struct event event = { .kind = EVENT_WITHDRAW };

	event.withdraw_ticket = ticket;
	rig_handle(rig, &event);
}

void rig_found(struct rig *rig, size_t service, bool alive, bool healthy)
{
	struct event event = { .kind = EVENT_FOUND, .service = service };

	event.found.alive = alive;
	event.found.healthy = healthy;
	event.found.pid = alive ? 77 : 0;
	rig_handle(rig, &event);
}

void rig_event(struct rig *rig, enum event_kind kind, size_t service, const char *text)
{
	struct event event = { .kind = kind, .service = service, .run = rig->run[service], .text = text };

	if (kind == EVENT_GONE || kind == EVENT_START_FAILED)
		rig->is_probing[service] = false;
	rig_handle(rig, &event);
}

void rig_started(struct rig *rig, size_t service)
{
	struct event event = { .kind = EVENT_STARTED, .service = service, .run = rig->run[service] };

	event.started_pid = 100 + (pid_t)service;
	rig_handle(rig, &event);
}

void rig_start_failed(struct rig *rig, size_t service, const char *text)
{
	rig_event(rig, EVENT_START_FAILED, service, text);
}

void rig_health(struct rig *rig, size_t service, bool healthy)
{
	struct event event = { .kind = EVENT_HEALTH, .service = service, .run = rig->run[service] };
	event.healthy = healthy;
	event.text = healthy ? NULL : "connection refused";
	for (int i = 0; i < 1000 && !rig->is_probing[service]; i++) {
		uint64_t deadline = engine_next_deadline(rig->engine);

		assert_true(deadline != UINT64_MAX);
		rig_tick(rig, deadline > rig->now ? deadline - rig->now : 0);
	}
	assert_true(rig->is_probing[service]);
	rig->is_probing[service] = false;
	rig_handle(rig, &event);
}

void rig_gone(struct rig *rig, size_t service, const char *text)
{
	rig_event(rig, EVENT_GONE, service, text);
}

void rig_up(struct rig *rig, size_t service)
{
	const struct rig_effect *start = rig_last(rig, EFFECT_START, service);

	assert_non_null(start);
	rig_started(rig, service);
	for (size_t g = 0; g < rig->n_gpus; g++) {
		if ((start->effect.gpus & GPU_BIT(g)) != 0)
			rig->measured_mib[g][service] = size_on_card(rig->services[service].vram, rig->totals_mib[g]);
	}
	rig_read(rig);
	rig_health(rig, service, true);
	enum service_state state = rig_status(rig, service)->state;
	/* stopping: the next request in the queue may have evicted it in the same moment; busy: it is leased */
	assert_true(state == SERVICE_READY || state == SERVICE_STOPPING || state == SERVICE_BUSY);
}

void rig_down(struct rig *rig, size_t service)
{
	for (size_t g = 0; g < rig->n_gpus; g++)
		rig->measured_mib[g][service] = 0;
	rig_gone(rig, service, "exit status 0");
	rig_read(rig);
}

void rig_run(struct rig *rig, size_t service)
{
	uint64_t ticket = rig_submit(rig, REQUEST_START, service, 0);

	rig_up(rig, service);
	assert_int_equal(rig_outcome(rig, ticket), OUTCOME_DONE);
	rig_forget(rig);
}

void rig_forget(struct rig *rig)
{
	rig->n = 0;
}

size_t rig_count(const struct rig *rig, enum effect_kind kind, size_t service)
{
	size_t n = 0;

	for (size_t i = 0; i < rig->n; i++)
		n += rig->seen[i].effect.kind == kind && rig->seen[i].effect.service == service;
	return n;
}

const struct rig_effect *rig_last(const struct rig *rig, enum effect_kind kind, size_t service)
{
	for (size_t i = rig->n; i-- > 0;) {
		if (rig->seen[i].effect.kind == kind && rig->seen[i].effect.service == service)
			return &rig->seen[i];
	}
	return NULL;
}

size_t rig_notices(const struct rig *rig, const char *type, const char *part)
{
	size_t n = 0;

	for (size_t i = 0; i < rig->n; i++)
		n += rig->seen[i].effect.kind == EFFECT_PUBLISH && strcmp(rig->seen[i].type, type) == 0 &&
			strstr(rig->seen[i].text, part) != NULL;
	return n;
}

size_t rig_n_leases(struct rig *rig)
{
	return engine_status(rig->engine, rig->now)->n_leases;
}

const struct lease *rig_lease_at(struct rig *rig, size_t index)
{
	const struct status *status = engine_status(rig->engine, rig->now);

	assert_true(index < status->n_leases);
	return status->leases[index];
}

size_t rig_news(const struct rig *rig, uint64_t fence, enum lease_news news)
{
	size_t n = 0;

	for (size_t i = 0; i < rig->n; i++)
		n += rig->seen[i].effect.kind == EFFECT_LEASE && rig->seen[i].effect.lease.news == news &&
			rig->seen[i].fence == fence;
	return n;
}

int rig_end(const struct rig *rig, uint64_t fence)
{
	for (size_t i = 0; i < rig->n; i++)
		if (rig->seen[i].effect.kind == EFFECT_LEASE && rig->seen[i].fence == fence &&
			rig->seen[i].effect.lease.news == LEASE_NEWS_ENDED)
			return (int)rig->seen[i].end;
	return -1;
}

bool rig_granted_before_reply(const struct rig *rig, uint64_t ticket)
{
	bool granted = false;

	for (size_t i = 0; i < rig->n; i++) {
		const struct effect *effect = &rig->seen[i].effect;

		granted |= effect->kind == EFFECT_LEASE && effect->lease.news == LEASE_NEWS_GRANTED;
		if (effect->kind == EFFECT_REPLY && effect->answer.ticket == ticket)
			return granted && effect->answer.lease != NULL;
	}
	return false;
}

int rig_outcome(const struct rig *rig, uint64_t ticket)
{
	for (size_t i = 0; i < rig->n; i++) {
		const struct effect *effect = &rig->seen[i].effect;

		if (effect->kind == EFFECT_REPLY && effect->answer.ticket == ticket)
			return (int)effect->answer.outcome;
	}
	return -1;
}

uint64_t rig_transition(const struct rig *rig, uint64_t ticket)
{
	for (size_t i = 0; i < rig->n; i++) {
		const struct effect *effect = &rig->seen[i].effect;

		if (effect->kind == EFFECT_ACCEPT && effect->answer.ticket == ticket)
			return effect->answer.id;
	}
	return 0;
}

const char *rig_detail(const struct rig *rig, uint64_t ticket)
{
	const struct transition *transition = engine_transition(rig->engine, rig_transition(rig, ticket));

	return transition != NULL ? transition->detail : "";
}

const struct service_status *rig_status(struct rig *rig, size_t service)
{
	return &engine_status(rig->engine, rig->now)->services[service];
}

const struct gpu_account *rig_account(struct rig *rig, size_t gpu)
{
	return &engine_status(rig->engine, rig->now)->gpus[gpu].account;
}
