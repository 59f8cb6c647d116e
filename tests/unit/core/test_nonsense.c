/*
 * Events in an order that no driver would bring them in: answers that nobody asked for, ends before beginnings,
 * everything twice, fences from the middle of nowhere. Nothing may crash, every client is answered at most once, every
 * lease is told to begin and to end at most once, and the engine stays usable.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"
#include "sim/choices.h"

#define HISTORIES 300
#define EVENTS 400
#define LEASES 4096

static uint32_t below(uint64_t *random, uint32_t n)
{
	return (uint32_t)(splitmix64(random) >> 32) % n;
}

static struct rig *make_rig(uint64_t *random)
{
	struct rig *rig = rig_new(1 + below(random, RIG_GPUS), 8192);

	for (size_t s = 0; s < 4; s++) {
		size_t index = rig_service(rig, (const char *[]){ "a", "b", "c", "d" }[s],
			1000 * (1 + below(random, 7)), 10 * (int)below(random, 4));

		rig->services[index].start_timeout_ms = 500;
		rig->services[index].stop_timeout_ms = below(random, 2) * 200;
		rig->services[index].pinned = below(random, 6) == 0;
		rig->services[index].stop_external = below(random, 4) == 0;
		rig->services[index].has_busy_probe = below(random, 3) == 0;
		rig->services[index].max_leases = 1 + below(random, 3);
		rig->services[index].preempt_after_ms = below(random, 2) == 0 ? NEVER_MS : below(random, 3) * 200;
		rig->services[index].yield_set = below(random, 3) == 0;
		rig->services[index].yield_after_ms = below(random, 2) == 0 ? NEVER_MS : below(random, 3) * 200;
	}
	rig_phase(rig, 1, (size_t[]){ 0, 1, SIZE_MAX });
	rig_phase(rig, 2, (size_t[]){ 2, SIZE_MAX });
	rig->config.n_gpus = below(random, 3) == 0 ? 0 : rig->n_gpus;
	rig->config.wait_ms = 2000;
	rig->config.leases_max = below(random, 3) == 0 ? 1 + below(random, 4) : 0;
	rig_create(rig);
	return rig;
}

/* What a history remembers: terms have to live as long as the event that brings them. */
struct lease_memory {
	size_t services[4];
	uint64_t holding[3];
	struct lease_terms terms;
	uint64_t last_fence;
	bool granted[LEASES], ended[LEASES];
	unsigned answered[EVENTS + 2];
};

static uint64_t some_fence(struct lease_memory *memory, uint64_t *random)
{
	static const uint64_t odd[] = { 0, 1, UINT64_MAX, LEASES };
	return below(random, 5) == 0 ? odd[below(random, 4)] : below(random, (uint32_t)memory->last_fence + 2);
}

static const struct lease_terms *make_terms(struct rig *rig, struct lease_memory *memory, uint64_t *random)
{
	static const uint64_t ttls[] = { 1, 100, 1000, LEASE_TTL_MAX_MS, 0, LEASE_TTL_MAX_MS + 1, UINT64_MAX };
	static const char *const ids[] = { "", "", "", "a", "b" };
	size_t n = 0;

	for (size_t s = 0; s < rig->config.n_services; s++)
		if (below(random, 3) == 0)
			memory->services[n++] = s;
	if (below(random, 40) == 0 && n > 0)
		memory->services[0] = rig->config.n_services;
	for (size_t i = 0; i < 3; i++)
		memory->holding[i] = some_fence(memory, random);
	memory->terms = (struct lease_terms){
		.mode = (enum lease_mode)below(random, LEASE_GPU + 1),
		.n_services = n,
		.services = memory->services,
		.phase = LEASE_NO_PHASE,
		.room_mib = n == 0 ? 500 * below(random, 20) : below(random, 40) == 0,
		.attached = below(random, 2) == 0,
		.ttl_ms = ttls[below(random, below(random, 5) == 0 ? 7 : 4)],
		.has_priority = below(random, 3) == 0,
		.priority = (int)below(random, 60) - 10,
		.owner = "nobody in particular",
		.request_id = ids[below(random, 5)],
		.n_holding = below(random, 4),
		.holding = memory->holding,
	};
	return &memory->terms;
}

static bool is_sound(const struct rig *rig, const struct lease_terms *terms)
{
	for (size_t i = 0; i < terms->n_services; i++)
		if (terms->services[i] >= rig->config.n_services)
			return false;
	return (terms->n_services > 0) != (terms->room_mib > 0) &&
		(terms->attached || (terms->ttl_ms > 0 && terms->ttl_ms <= LEASE_TTL_MAX_MS));
}

static void restore_some(struct rig *rig, struct lease_memory *memory, uint64_t *random)
{
	for (size_t i = below(random, 4); i-- > 0;) {
		const struct lease_terms *terms = make_terms(rig, memory, random);
		const struct lease lease = {
			.fence = below(random, 4),
			.mode = terms->mode,
			.n_services = terms->n_services,
			.services = memory->services,
			.phase = LEASE_NO_PHASE,
			.gpus = below(random, 16),
			.room_mib = terms->room_mib,
			.attached = terms->attached,
			.ttl_ms = terms->ttl_ms,
			.expires_ms = rig->now + below(random, 2000),
			.owner = "from before",
		};
		int r = engine_restore_lease(rig->engine, &lease, rig->now, below(random, 1000));

		assert_true(r == 0 || r == -EINVAL);
		if (r != 0)
			continue;
		memory->granted[lease.fence] = true;
		if (lease.fence > memory->last_fence)
			memory->last_fence = lease.fence;
	}
}

static void fill_lease(struct rig *rig, struct lease_memory *memory, uint64_t *random, struct event *event)
{
	static const uint64_t ttls[] = { 0, 1, 500, UINT64_MAX };

	if (event->kind == EVENT_SUBMIT && below(random, 2) == 0) {
		event->submit.spec.kind = REQUEST_LEASE;
		event->submit.spec.force = false;
		event->submit.spec.lease = make_terms(rig, memory, random);
	} else if (event->kind == EVENT_FENCE) {
		event->fence.id = below(random, (uint32_t)rig->next_ticket + 1);
		event->fence.fence = below(random, 6) == 0 ? 0 : ++memory->last_fence;
	} else if (event->kind >= EVENT_RELEASE && event->kind <= EVENT_ATTACH) {
		event->lease.fence = some_fence(memory, random);
		event->lease.ttl_ms = ttls[below(random, 4)];
	} else if (event->kind == EVENT_UNLOCK && below(random, 10) != 0) {
		event->kind = EVENT_TICK;
	} else if (event->kind == EVENT_BUSY) {
		event->busy.known = below(random, 3) != 0;
		event->busy.busy = below(random, 2) == 0;
	}
}

static void fill(struct rig *rig, uint64_t *random, struct event *event)
{
	event->kind = (enum event_kind)below(random, EVENT_BUSY + 1);
	event->service = below(random, (uint32_t)rig->config.n_services);
	event->run = rig->run[event->service] + below(random, 3) - 1;
	event->text = below(random, 2) == 0 ? NULL : "nonsense";
	if (event->kind == EVENT_SUBMIT) {
		event->submit.ticket = rig->next_ticket++;
		event->submit.spec.kind = (enum request_kind)below(random, REQUEST_RELEASE_ALL + 1);
		event->submit.spec.target = below(random, 2);
		event->submit.spec.force = below(random, 3) == 0;
		event->submit.spec.wait_ms = (int64_t)below(random, 3000) - 1;
	} else if (event->kind == EVENT_WITHDRAW) {
		event->withdraw_ticket = 1 + below(random, (uint32_t)rig->next_ticket + 1);
	} else if (event->kind == EVENT_ALLOWED) {
		event->allowed = splitmix64(random);
	} else if (event->kind == EVENT_FOUND) {
		event->found.alive = below(random, 2) == 0;
		event->found.healthy = below(random, 2) == 0;
		event->found.external = below(random, 2) == 0;
	} else if (event->kind == EVENT_HEALTH) {
		event->healthy = below(random, 2) == 0;
	}
}

static void bring_readings(struct rig *rig, uint64_t *random, struct event *event)
{
	static const uint32_t odd[] = { 0, 1, 8192, UINT32_MAX };
	struct gpu_facts facts[RIG_GPUS];

	for (size_t g = 0; g < RIG_GPUS; g++) {
		facts[g] = (struct gpu_facts){
			.has_total = below(random, 2) == 0,
			.has_used = below(random, 2) == 0,
			.has_processes = below(random, 2) == 0,
			.total_mib = odd[below(random, 4)],
			.used_mib = odd[below(random, 4)],
			.measured_mib = rig->measured_mib[g],
		};
		for (size_t s = 0; s < RIG_SERVICES; s++)
			rig->measured_mib[g][s] = odd[below(random, 4)];
	}
	event->readings.taken_ms = rig->now - below(random, 1000);
	event->readings.n_gpus = below(random, (uint32_t)rig->n_gpus + 1);
	event->readings.gpus = facts;
	rig_handle(rig, event);
}

/* A lease begins once and ends once, and what is answered is held. */
static void check_leases(const struct rig *rig, struct lease_memory *memory)
{
	for (size_t i = 0; i < rig->n; i++) {
		const struct effect *effect = &rig->seen[i].effect;

		if (effect->kind != EFFECT_LEASE)
			continue;
		uint64_t fence = rig->seen[i].fence;
		assert_true(fence > 0 && fence < LEASES);
		if (effect->lease.news == LEASE_NEWS_GRANTED)
			assert_false(memory->granted[fence]);
		else
			assert_true(memory->granted[fence]);
		assert_false(memory->ended[fence]);
		memory->granted[fence] = true;
		memory->ended[fence] = effect->lease.news == LEASE_NEWS_ENDED;
	}
}

static void check_held(struct rig *rig, const struct lease_memory *memory)
{
	const struct status *status = engine_status(rig->engine, rig->now);
	unsigned n[RIG_SERVICES] = { 0 };

	for (size_t i = 0; i < status->n_leases; i++) {
		const struct lease *lease = status->leases[i];

		assert_true(memory->granted[lease->fence] && !memory->ended[lease->fence]);
		assert_true(lease->expires_ms > rig->now);
		assert_true(i == 0 || status->leases[i - 1]->fence < lease->fence);
		for (size_t j = 0; j < lease->n_services; j++)
			n[lease->services[j]]++;
	}
	for (size_t s = 0; s < status->n_services; s++)
		assert_true(status->services[s].n_leases >= n[s]); /* claims count, too */
}

static void check_replies(const struct rig *rig, unsigned *answered, size_t n)
{
	for (size_t i = 0; i < rig->n; i++) {
		const struct effect *effect = &rig->seen[i].effect;

		if (effect->kind != EFFECT_REPLY)
			continue;
		assert_true(effect->answer.ticket < n);
		answered[effect->answer.ticket]++;
		assert_int_equal(answered[effect->answer.ticket], 1);
	}
}

static void bring_nonsense(struct rig *rig, struct lease_memory *memory, uint64_t *random)
{
	struct event event = { 0 };

	fill(rig, random, &event);
	fill_lease(rig, memory, random, &event);
	if (event.kind == EVENT_READINGS) {
		bring_readings(rig, random, &event);
	} else if (event.kind == EVENT_SUBMIT && event.submit.spec.kind == REQUEST_LEASE &&
		!is_sound(rig, event.submit.spec.lease)) {
		effects_clear(&rig->effects);
		assert_int_equal(engine_handle(rig->engine, &event, rig->now, &rig->effects), -EINVAL);
		assert_int_equal(rig->effects.n, 0);
		return; /* as if it had not been brought: no time passed either */
	} else {
		rig_handle(rig, &event);
	}
	assert_true(engine_next_deadline(rig->engine) >= rig->now);
	check_leases(rig, memory);
	check_held(rig, memory);
	check_replies(rig, memory->answered, ARRAY_SIZE(memory->answered));
	rig_forget(rig);
}

static void test_nonsense(void **state)
{
	uint64_t random = 20260702;

	(void)state;
	for (int history = 0; history < HISTORIES; history++) {
		RIG rig = make_rig(&random);
		struct lease_memory memory = { 0 };

		restore_some(rig, &memory, &random);
		for (int i = 0; i < EVENTS; i++) {
			rig->now += below(&random, 4) == 0 ? below(&random, 1500) : 0;
			bring_nonsense(rig, &memory, &random);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_nonsense) };

	return cmocka_run_group_tests_name("core/nonsense", tests, NULL, NULL);
}
