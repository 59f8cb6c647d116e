/*
 * Events in an order that no driver would bring them in: answers that nobody asked for, ends before beginnings,
 * everything twice. Nothing may crash, every client is answered at most once, and the engine stays usable.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "rig.h"
#include "sim/choices.h"

#define HISTORIES 300
#define EVENTS 400

static void cleanup_rig(struct rig **rig)
{
	if (*rig != NULL)
		rig_free(*rig);
}

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
	}
	rig_phase(rig, 1, (size_t[]){ 0, 1, SIZE_MAX });
	rig_phase(rig, 2, (size_t[]){ 2, SIZE_MAX });
	rig->config.n_gpus = below(random, 3) == 0 ? 0 : rig->n_gpus;
	rig->config.wait_ms = 2000;
	rig_create(rig);
	return rig;
}

static void fill(struct rig *rig, uint64_t *random, struct event *event)
{
	event->kind = (enum event_kind)below(random, EVENT_HEALTH + 1);
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

static void test_nonsense(void **state)
{
	uint64_t random = 20260702;

	(void)state;
	for (int history = 0; history < HISTORIES; history++) {
		CLEANUP(cleanup_rig) struct rig *rig = make_rig(&random);
		unsigned answered[EVENTS + 2] = { 0 };

		for (int i = 0; i < EVENTS; i++) {
			struct event event = { 0 };

			rig->now += below(&random, 4) == 0 ? below(&random, 1500) : 0;
			fill(rig, &random, &event);
			if (event.kind == EVENT_READINGS)
				bring_readings(rig, &random, &event);
			else
				rig_handle(rig, &event);
			assert_true(engine_next_deadline(rig->engine) >= rig->now);
			assert_non_null(engine_status(rig->engine, rig->now));
			check_replies(rig, answered, EVENTS + 2);
			rig_forget(rig);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_nonsense) };

	return cmocka_run_group_tests_name("core/nonsense", tests, NULL, NULL);
}
