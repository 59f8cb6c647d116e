/*
 * The planner against the rules of admission, tried the slow way (every placement, every set of victims), on many
 * small random cases; and by example for what a refusal must say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/plan.h"
#include "sim/admission.h"
#include "sim/choices.h"

#define CASES 500000
#define GPUS 3
#define SERVICES 6

struct scene {
	struct plan_snapshot snapshot;
	struct plan_request request;
	struct plan_gpu gpus[GPUS];
	struct plan_service services[SERVICES];
	struct service_definition definitions[SERVICES];
	char names[SERVICES][24];
	uint32_t committed[SERVICES][GPUS];
	size_t needs[SERVICES];
};

static uint32_t below(uint64_t *random, uint32_t n)
{
	return (uint32_t)(splitmix64(random) >> 32) % n;
}

static bool one_in(uint64_t *random, uint32_t n)
{
	return below(random, n) == 0;
}

static void make_definition(struct scene *scene, size_t s, uint64_t *random)
{
	struct service_definition *definition = &scene->definitions[s];

	snprintf(scene->names[s], sizeof(scene->names[s]), "s%zu", s);
	*definition = (struct service_definition){
		.name = scene->names[s],
		.vram = { .mib = 1000 * (1 + below(random, 8)) },
		.priority = 10 * (int)below(random, 4),
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.yield_after_ms = NEVER_MS,
		.preempt_after_ms = NEVER_MS,
	};
	if (one_in(random, 8))
		definition->vram = (struct size_value){ .percent = 1 + below(random, 100) };
	if (one_in(random, 3))
		definition->allowed = 1 + below(random, (1u << scene->snapshot.n_gpus) - 1);
	if (one_in(random, 4))
		definition->gpu_count = 2;
	definition->pinned = one_in(random, 8);
}

static void make_running(struct scene *scene, size_t s, uint64_t *random)
{
	static const enum service_state states[] = { SERVICE_READY, SERVICE_READY, SERVICE_READY, SERVICE_ERROR,
		SERVICE_STARTING, SERVICE_STOPPING };
	struct plan_service *service = &scene->services[s];

	service->live = true;
	service->state = states[below(random, 6)];
	service->leaving = service->state == SERVICE_STOPPING;
	service->gpus = GPU_BIT(below(random, (uint32_t)scene->snapshot.n_gpus));
	if (one_in(random, 4))
		service->gpus |= GPU_BIT(below(random, (uint32_t)scene->snapshot.n_gpus));
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		if ((service->gpus & GPU_BIT(g)) != 0)
			scene->committed[s][g] = 500 * (1 + below(random, 12));
	}
	service->in_use = service->state == SERVICE_READY && one_in(random, 6);
	if (service->in_use)
		service->state = SERVICE_BUSY;
	else if (service->state == SERVICE_READY)
		service->idle_ms = 1 + below(random, 5000);
	if (one_in(random, 5))
		service->yield_after_ms = 1 + below(random, 4000);
	service->last_used_ms = 1000 + 10 * below(random, 1000) + s; /* all different */
}

/* Most cards are nearly full: that is where choices are hard. */
static void fill_up(struct scene *scene, uint64_t *random)
{
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		struct plan_gpu *gpu = &scene->gpus[g];
		uint32_t held = gpu->reserve_mib + (uint32_t)gpu->foreign_mib + (uint32_t)gpu->unreclaimed_mib;

		if (one_in(random, 4))
			continue;
		for (size_t s = 0; s < scene->snapshot.n_services; s++)
			held += scene->committed[s][g];
		gpu->total_mib = held + below(random, 3000);
	}
}

static void make_scene(struct scene *scene, uint64_t *random)
{
	memset(scene, 0, sizeof(*scene));
	scene->snapshot = (struct plan_snapshot){
		.n_gpus = 1 + below(random, GPUS),
		.gpus = scene->gpus,
		.n_services = 1 + below(random, SERVICES),
		.services = scene->services,
	};
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		scene->gpus[g] = (struct plan_gpu){
			.has_total = !one_in(random, 20),
			.total_mib = 1000 * (4 + below(random, 12)),
			.reserve_mib = one_in(random, 2) ? 1024 : 0,
			.foreign_mib = one_in(random, 3) ? below(random, 6000) : 0,
			.unreclaimed_mib = one_in(random, 6) ? below(random, 4000) : 0,
		};
	}
	for (size_t s = 0; s < scene->snapshot.n_services; s++) {
		make_definition(scene, s, random);
		scene->services[s] = (struct plan_service){
			.definition = &scene->definitions[s],
			.committed_mib = scene->committed[s],
			.state = one_in(random, 5) ? SERVICE_ERROR : SERVICE_STOPPED,
			.yield_after_ms = NEVER_MS,
		};
		if (!one_in(random, 3))
			make_running(scene, s, random);
	}
	fill_up(scene, random);
}

static void make_request(struct scene *scene, uint64_t *random)
{
	struct plan_request *request = &scene->request;
	size_t n = scene->snapshot.n_services;

	request->needs = scene->needs;
	request->usable = GPU_SET_ALL;
	request->is_phase = one_in(random, 2);
	if (!request->is_phase) {
		scene->needs[request->n_needs++] = below(random, (uint32_t)n);
		request->priority = scene->definitions[scene->needs[0]].priority;
		return;
	}
	for (size_t s = 0; s < n; s++) {
		if (!one_in(random, 2))
			continue;
		scene->needs[request->n_needs++] = s;
		if (request->n_needs == 1 || scene->definitions[s].priority > request->priority)
			request->priority = scene->definitions[s].priority;
	}
}

static bool is_needed(const struct scene *scene, size_t s)
{
	for (size_t i = 0; i < scene->request.n_needs; i++) {
		if (scene->needs[i] == s)
			return true;
	}
	return false;
}

/* Whether a service that is needed has to be started: it is not there, or not for long, or broken. */
static bool must_start(const struct scene *scene, size_t s)
{
	const struct plan_service *service = &scene->services[s];

	return !service->live || service->leaving || service->state == SERVICE_ERROR;
}

static bool may_evict(const struct scene *scene, size_t s)
{
	const struct plan_service *service = &scene->services[s];

	if (!service->live || service->leaving || is_needed(scene, s) || service->definition->pinned || service->in_use)
		return false;
	if (scene->request.is_phase || service->definition->priority < scene->request.priority)
		return true;
	return service->yield_after_ms != NEVER_MS && service->state == SERVICE_READY &&
		(int64_t)service->idle_ms >= service->yield_after_ms;
}

static void add_need(const struct scene *scene, struct admission *admission, size_t s)
{
	struct admission_need *need = &admission->needs[admission->n_needs++];

	need->count = scene->definitions[s].gpu_count;
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		need->mib[g] = size_on_card(scene->definitions[s].vram, scene->gpus[g].total_mib);
		if (scene->gpus[g].has_total && (scene->definitions[s].allowed & GPU_BIT(g)) != 0 &&
			(scene->request.usable & GPU_BIT(g)) != 0)
			need->allowed |= GPU_BIT(g);
	}
}

/* The scene in the terms of the other decision, admission.h. */
static void translate(const struct scene *scene, struct admission *admission)
{
	memset(admission, 0, sizeof(*admission));
	admission->n_gpus = scene->snapshot.n_gpus;
	for (size_t g = 0; g < admission->n_gpus; g++)
		admission->room[g] = (int64_t)scene->gpus[g].total_mib - scene->gpus[g].reserve_mib -
			(int64_t)scene->gpus[g].foreign_mib - (int64_t)scene->gpus[g].unreclaimed_mib;
	for (size_t s = 0; s < scene->snapshot.n_services; s++) {
		const struct plan_service *service = &scene->services[s];
		struct admission_candidate *candidate = &admission->candidates[admission->n_candidates];
		bool restarts = is_needed(scene, s) && must_start(scene, s);

		if (!service->live || service->leaving || restarts)
			continue;
		for (size_t g = 0; g < admission->n_gpus; g++)
			admission->room[g] -= scene->committed[s][g];
		if (!may_evict(scene, s))
			continue;
		*candidate = (struct admission_candidate){
			.service = s,
			.broken = service->state == SERVICE_ERROR,
			.priority = service->definition->priority,
			.last_used_ms = service->last_used_ms,
		};
		for (size_t g = 0; g < admission->n_gpus; g++)
			candidate->gives[g] = scene->committed[s][g];
		admission->n_candidates++;
	}
	for (size_t i = 0; i < scene->request.n_needs; i++) {
		if (must_start(scene, scene->needs[i]))
			add_need(scene, admission, scene->needs[i]);
	}
}

static void print_scene(const struct scene *scene)
{
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++)
		print_error("gpu%zu: known %d total %u reserve %u foreign %u unreclaimed %u\n", g,
			scene->gpus[g].has_total, scene->gpus[g].total_mib, scene->gpus[g].reserve_mib,
			(unsigned)scene->gpus[g].foreign_mib, (unsigned)scene->gpus[g].unreclaimed_mib);
	for (size_t s = 0; s < scene->snapshot.n_services; s++) {
		const struct plan_service *service = &scene->services[s];

		print_error("s%zu: %u MiB %u %%, priority %d, allowed %x, count %u, %s%s%s%s%s, idle %u yields %lld,"
			    " committed %u %u %u%s\n",
			s, service->definition->vram.mib, service->definition->vram.percent,
			service->definition->priority, (unsigned)service->definition->allowed,
			service->definition->gpu_count, service_state_name(service->state),
			service->live ? " live" : "", service->leaving ? " leaving" : "",
			service->definition->pinned ? " pinned" : "", service->in_use ? " in use" : "",
			(unsigned)service->idle_ms, (long long)service->yield_after_ms, scene->committed[s][0],
			scene->committed[s][1], scene->committed[s][2], is_needed(scene, s) ? " NEEDED" : "");
	}
	print_error("%s, priority %d\n", scene->request.is_phase ? "phase" : "service", scene->request.priority);
}

#define expect(condition, ...)                                                                                         \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			print_scene(scene);                                                                            \
			fail_msg(__VA_ARGS__);                                                                         \
		}                                                                                                      \
	} while (0)

static void check_start(
	const struct scene *scene, const struct plan_step *step, int64_t *room, unsigned *started, size_t *last_need)
{
	const struct service_definition *definition = &scene->definitions[step->service];
	size_t at = 0;

	expect(is_needed(scene, step->service) && must_start(scene, step->service), "s%zu is started for nothing",
		step->service);
	expect((*started >> step->service & 1) == 0, "s%zu is started twice", step->service);
	while (scene->needs[at] != step->service)
		at++;
	expect(*last_need == SIZE_MAX || at > *last_need, "s%zu is started out of order", step->service);
	*last_need = at;
	*started |= 1u << step->service;
	expect(gpu_set_count(step->gpus) == definition->gpu_count, "s%zu on %u GPUs", step->service,
		gpu_set_count(step->gpus));
	expect((step->gpus & ~definition->allowed) == 0, "s%zu where it may not be", step->service);
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		if ((step->gpus & GPU_BIT(g)) == 0)
			continue;
		expect(scene->gpus[g].has_total, "s%zu on gpu%zu of unknown size", step->service, g);
		room[g] -= size_on_card(definition->vram, scene->gpus[g].total_mib);
		expect(room[g] >= 0, "gpu%zu overflows by %d MiB", g, (int)-room[g]);
	}
}

static void check_stop(const struct scene *scene, const struct plan_step *step, int64_t *room, unsigned *stopped)
{
	const struct plan_service *service = &scene->services[step->service];

	expect((*stopped >> step->service & 1) == 0, "s%zu is stopped twice", step->service);
	*stopped |= 1u << step->service;
	if (step->reason == PLAN_RESTART) {
		expect(is_needed(scene, step->service) && service->live && service->state == SERVICE_ERROR,
			"s%zu is restarted", step->service);
		return;
	}
	expect(may_evict(scene, step->service), "s%zu may not be evicted", step->service);
	expect((step->reason == PLAN_BROKEN) == (service->state == SERVICE_ERROR), "reason %s of s%zu",
		plan_reason_name(step->reason), step->service);
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++)
		room[g] += scene->committed[step->service][g];
}

static void check_plan(const struct scene *scene, const struct plan *plan, const struct admission *admission)
{
	int64_t room[ADMISSION_GPUS];
	unsigned stopped = 0, started = 0;
	uint32_t victims = admission_victims(admission);
	size_t last_need = SIZE_MAX;

	memcpy(room, admission->room, sizeof(room));
	for (size_t i = 0; i < plan->n_steps; i++) {
		if (plan->steps[i].action == PLAN_STOP) {
			expect(started == 0, "a stop after a start");
			check_stop(scene, &plan->steps[i], room, &stopped);
		} else {
			expect(plan->steps[i].action == PLAN_START, "what is step %zu?", i);
			check_start(scene, &plan->steps[i], room, &started, &last_need);
		}
		expect((plan->steps[i].gpus & ~plan->gpus) == 0, "step %zu outside of the plan's GPUs", i);
	}
	for (size_t c = 0; c < admission->n_candidates; c++)
		expect((victims >> c & 1) == (stopped >> admission->candidates[c].service & 1),
			"s%zu should %sbe a victim", admission->candidates[c].service,
			(victims >> c & 1) != 0 ? "" : "not ");
	for (size_t i = 0; i < scene->request.n_needs; i++)
		expect(!must_start(scene, scene->needs[i]) || (started >> scene->needs[i] & 1) != 0,
			"s%zu is not started", scene->needs[i]);
}

/* No GPU would be large enough, or there is none: then who stands there does not matter. */
static bool is_hopeless(const struct plan *plan)
{
	for (size_t b = 0; b < plan->n_blockers; b++) {
		if (plan->blockers[b].reason == BLOCKED_BY_SIZE || plan->blockers[b].reason == BLOCKED_BY_NO_GPU)
			return true;
	}
	return false;
}

static bool stands_on(const struct scene *scene, size_t s, gpu_set wanted)
{
	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		if ((wanted & GPU_BIT(g)) != 0 && scene->gpus[g].has_total && scene->committed[s][g] > 0)
			return true;
	}
	return false;
}

/* Every live service that may not be evicted and stands where the missing one could be is named. */
static void check_refusal(const struct scene *scene, const struct plan *plan)
{
	gpu_set wanted;

	expect(plan->n_steps == 0, "a refusal with %zu steps", plan->n_steps);
	expect(plan->n_blockers > 0, "a refusal without a blocker");
	expect(is_needed(scene, plan->needed_service), "it is not s%zu that is needed", plan->needed_service);
	wanted = scene->definitions[plan->needed_service].allowed;
	for (size_t s = 0; s < scene->snapshot.n_services; s++) {
		const struct plan_service *service = &scene->services[s];
		bool named = false;

		for (size_t b = 0; b < plan->n_blockers; b++)
			named = named || plan->blockers[b].service == s;
		if (!service->live || service->leaving || !stands_on(scene, s, wanted) || is_hopeless(plan) ||
			(is_needed(scene, s) && must_start(scene, s)) || may_evict(scene, s))
			continue;
		expect(named, "s%zu blocks s%zu and is not named", s, plan->needed_service);
	}
}

static void check_foreign_named(const struct scene *scene, const struct plan *plan)
{
	gpu_set wanted = scene->definitions[plan->needed_service].allowed;

	for (size_t g = 0; g < scene->snapshot.n_gpus; g++) {
		bool foreign = false, unknown = false;

		for (size_t b = 0; b < plan->n_blockers; b++) {
			if (plan->blockers[b].gpu != (int)g)
				continue;
			foreign = foreign ||
				(plan->blockers[b].reason == BLOCKED_BY_FOREIGN &&
					plan->blockers[b].mib == scene->gpus[g].foreign_mib);
			unknown = unknown || plan->blockers[b].reason == BLOCKED_BY_NO_TOTAL;
		}
		if ((wanted & GPU_BIT(g)) == 0 || is_hopeless(plan))
			continue;
		if (!scene->gpus[g].has_total)
			expect(unknown, "gpu%zu has no size, and nobody says so", g);
		else if (scene->gpus[g].foreign_mib > 0)
			expect(foreign, "the foreign memory of gpu%zu is not named", g);
	}
}

static void test_random_scenes(void **state)
{
	uint64_t random = 42;
	size_t n_ok = 0, n_evicting = 0, n_refused = 0;

	(void)state;
	for (int i = 0; i < CASES; i++) {
		struct scene made, *scene = &made;
		struct admission admission;
		struct plan plan;
		int r;

		make_scene(scene, &random);
		make_request(scene, &random);
		translate(scene, &admission);
		r = plan_make(&scene->snapshot, &scene->request, &plan);
		expect(r == PLAN_OK || r == PLAN_REFUSED, "plan_make: %d", r);
		expect((r == PLAN_OK) == admission_feasible(&admission), "case %d: the planner says %s", i,
			r == PLAN_OK ? "it fits" : "it does not fit");
		if (r == PLAN_OK) {
			check_plan(scene, &plan, &admission);
			n_ok++;
			n_evicting += admission_victims(&admission) != 0;
		} else {
			check_refusal(scene, &plan);
			check_foreign_named(scene, &plan);
			n_refused++;
		}
		plan_finish(&plan);
	}
	print_message("%zu fit, %zu of them by eviction, %zu refused\n", n_ok, n_evicting, n_refused);
	assert_true(n_ok > CASES / 10 && n_evicting > CASES / 25 && n_refused > CASES / 10);
}

static void test_may_evict_agrees(void **state)
{
	uint64_t random = 4711;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct scene made, *scene = &made;

		make_scene(scene, &random);
		make_request(scene, &random);
		for (size_t s = 0; s < scene->snapshot.n_services; s++) {
			if (!scene->services[s].live || scene->services[s].leaving)
				continue;
			expect(plan_may_evict(&scene->snapshot, &scene->request, s, NULL) == may_evict(scene, s),
				"case %d: whether s%zu may be evicted", i, s);
		}
	}
}

/* By example. */

static void one_card(struct scene *scene, uint32_t total)
{
	memset(scene, 0, sizeof(*scene));
	scene->snapshot = (struct plan_snapshot){ .n_gpus = 1, .gpus = scene->gpus, .services = scene->services };
	scene->gpus[0] = (struct plan_gpu){ .has_total = true, .total_mib = total, .reserve_mib = 1024 };
	scene->request = (struct plan_request){ .needs = scene->needs, .usable = GPU_SET_ALL };
}

static size_t add_service(struct scene *scene, uint32_t mib, int priority, bool runs)
{
	size_t s = scene->snapshot.n_services++;

	snprintf(scene->names[s], sizeof(scene->names[s]), "s%zu", s);
	scene->definitions[s] = (struct service_definition){
		.name = scene->names[s],
		.vram = { .mib = mib },
		.priority = priority,
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.yield_after_ms = NEVER_MS,
		.preempt_after_ms = NEVER_MS,
	};
	scene->services[s] = (struct plan_service){
		.definition = &scene->definitions[s],
		.committed_mib = scene->committed[s],
		.state = runs ? SERVICE_READY : SERVICE_STOPPED,
		.live = runs,
		.gpus = runs ? GPU_BIT(0) : 0,
		.idle_ms = runs ? 1000 : 0,
		.yield_after_ms = NEVER_MS,
		.last_used_ms = 100 + s,
	};
	scene->committed[s][0] = runs ? mib : 0;
	return s;
}

static void need(struct scene *scene, size_t s, bool is_phase)
{
	scene->needs[scene->request.n_needs++] = s;
	scene->request.is_phase = is_phase;
	if (scene->request.n_needs == 1 || scene->definitions[s].priority > scene->request.priority)
		scene->request.priority = scene->definitions[s].priority;
}

static bool has_blocker(const struct plan *plan, enum plan_blocker_reason reason, size_t service, uint32_t mib)
{
	for (size_t b = 0; b < plan->n_blockers; b++) {
		if (plan->blockers[b].reason == reason && plan->blockers[b].service == service &&
			plan->blockers[b].mib == mib)
			return true;
	}
	return false;
}

/* What runs already asks for nothing. */
static void test_running_need_costs_nothing(void **state)
{
	struct scene scene;
	struct plan plan;

	(void)state;
	one_card(&scene, 24576);
	add_service(&scene, 4000, 10, true);
	need(&scene, add_service(&scene, 19000, 100, true), true);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.n_steps, 0);
	plan_finish(&plan);
}

/* What cannot fit evicts nobody, and every blocker is said. */
static void test_refusal_names_every_blocker(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t pinned, busy, above, low;

	(void)state;
	one_card(&scene, 24576);
	pinned = add_service(&scene, 4000, 1, true);
	scene.definitions[pinned].pinned = true;
	busy = add_service(&scene, 3000, 1, true);
	scene.services[busy].in_use = true;
	scene.services[busy].state = SERVICE_BUSY;
	scene.services[busy].idle_ms = 0;
	above = add_service(&scene, 2000, 60, true);
	low = add_service(&scene, 1000, 1, true);
	scene.gpus[0].foreign_mib = 1500;
	scene.gpus[0].unreclaimed_mib = 700;
	need(&scene, add_service(&scene, 20000, 50, false), false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	assert_int_equal(plan.n_steps, 0);
	assert_true(has_blocker(&plan, BLOCKED_BY_PIN, pinned, 4000));
	assert_true(has_blocker(&plan, BLOCKED_BY_USE, busy, 3000));
	assert_true(has_blocker(&plan, BLOCKED_BY_PRIORITY, above, 2000));
	assert_true(has_blocker(&plan, BLOCKED_BY_FOREIGN, PLAN_NO_SERVICE, 1500));
	assert_true(has_blocker(&plan, BLOCKED_BY_UNRECLAIMED, PLAN_NO_SERVICE, 700));
	for (size_t b = 0; b < plan.n_blockers; b++)
		assert_int_not_equal(plan.blockers[b].service, low);
	assert_int_equal(plan.needed_mib, 20000);
	assert_int_equal(plan.best_mib, 24576 - 1024 - 4000 - 3000 - 2000 - 1500 - 700);
	plan_finish(&plan);
}

static void test_larger_than_the_card(void **state)
{
	struct scene scene;
	struct plan plan;
	bool said = false;

	(void)state;
	one_card(&scene, 8192);
	add_service(&scene, 4000, 1, true);
	need(&scene, add_service(&scene, 9000, 50, false), true);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	for (size_t b = 0; b < plan.n_blockers; b++)
		said = said || plan.blockers[b].reason == BLOCKED_BY_SIZE;
	assert_true(said);
	plan_finish(&plan);
}

static void test_no_such_gpu(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t s;

	(void)state;
	one_card(&scene, 8192);
	s = add_service(&scene, 1000, 50, false);
	scene.definitions[s].allowed = GPU_BIT(5);
	need(&scene, s, false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	assert_true(plan.n_blockers > 0);
	assert_int_equal(plan.blockers[0].reason, BLOCKED_BY_NO_GPU);
	plan_finish(&plan);
}

/* The small victim that came first is let off when the large one had to go anyway. */
static void test_earlier_victim_let_off(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t large;

	(void)state;
	one_card(&scene, 24576);
	add_service(&scene, 2000, 10, true);
	large = add_service(&scene, 18000, 20, true);
	need(&scene, add_service(&scene, 18000, 50, false), false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.n_steps, 2);
	assert_int_equal(plan.steps[0].service, large);
	assert_int_equal(plan.steps[0].reason, PLAN_MAKES_ROOM);
	assert_int_equal(plan.steps[0].mib, 18000);
	assert_int_equal(plan.steps[1].action, PLAN_START);
	plan_finish(&plan);
}

/* Leases that may be broken for this request, and the question "would it fit if nobody used anything?". */
static void test_breakable_and_assume_unused(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t used;

	(void)state;
	one_card(&scene, 8192);
	used = add_service(&scene, 6000, 10, true);
	scene.services[used].in_use = true;
	scene.services[used].state = SERVICE_BUSY;
	need(&scene, add_service(&scene, 6000, 50, false), false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	plan_finish(&plan);
	scene.request.assume_unused = true;
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	plan_finish(&plan);
	scene.request.assume_unused = false;
	scene.services[used].breakable = true;
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.steps[0].service, used);
	plan_finish(&plan);
}

/*
 * What is being stopped, and leased, keeps its place for its lease until that ends: no step of the plan would break
 * it, however much it may be broken.
 */
static void test_place_of_a_leased_service_that_is_stopped(void **state)
{
	struct scene scene;
	struct plan plan;
	struct plan_service *leaving;

	(void)state;
	one_card(&scene, 8192);
	leaving = &scene.services[add_service(&scene, 6000, 10, true)];
	leaving->state = SERVICE_STOPPING;
	leaving->leaving = leaving->leased = leaving->in_use = leaving->breakable = true;
	need(&scene, add_service(&scene, 6000, 50, false), false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	plan_finish(&plan);
	scene.request.assume_unused = true;
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.n_steps, 1);
	plan_finish(&plan);
}

/* What is leased may not come up where the leases of others keep its own from: who stands there is in its way. */
static void test_refusal_names_who_stands_where_leases_bar_it(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t other, down;

	(void)state;
	one_card(&scene, 4096);
	scene.snapshot.n_gpus = 2;
	scene.gpus[1] = (struct plan_gpu){ .has_total = true, .total_mib = 16384, .reserve_mib = 1024 };
	other = add_service(&scene, 14000, 50, true);
	scene.services[other].gpus = GPU_BIT(1);
	scene.services[other].in_use = scene.services[other].leased = true;
	scene.committed[other][0] = 0;
	scene.committed[other][1] = 14000;
	down = add_service(&scene, 4000, 50, false);
	scene.services[down].state = SERVICE_ERROR;
	scene.services[down].reserved = scene.services[down].leased = scene.services[down].in_use = true;
	scene.services[down].barred = GPU_BIT(1);
	need(&scene, other, true);
	need(&scene, down, true);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	assert_true(has_blocker(&plan, BLOCKED_BY_NEED, other, 14000));
	plan_finish(&plan);
}

/* Equal priority is not lower; idle past its yield_after is as good as lower. */
static void test_yields(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t idle;

	(void)state;
	one_card(&scene, 8192);
	idle = add_service(&scene, 6000, 90, true);
	scene.services[idle].yield_after_ms = 1000;
	scene.services[idle].idle_ms = 999;
	need(&scene, add_service(&scene, 6000, 50, false), false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	plan_finish(&plan);
	scene.services[idle].idle_ms = 1000;
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.steps[0].reason, PLAN_YIELDS);
	plan_finish(&plan);
}

static void test_percent_of_each_card(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t s;

	(void)state;
	one_card(&scene, 8192);
	scene.snapshot.n_gpus = 2;
	scene.gpus[1] = (struct plan_gpu){ .has_total = true, .total_mib = 24576, .reserve_mib = 1024 };
	scene.gpus[0].foreign_mib = 4000; /* 50 % of it is 4096: only 3168 are left */
	scene.gpus[1].foreign_mib = 11000; /* 50 % of it is 12288: 12552 are left */
	s = add_service(&scene, 0, 50, false);
	scene.definitions[s].vram = (struct size_value){ .percent = 50 };
	assert_int_equal(plan_need_mib(&scene.definitions[s], &scene.gpus[0]), 4096);
	need(&scene, s, false);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.n_steps, 1);
	assert_int_equal(plan.steps[0].gpus, GPU_BIT(1));
	assert_int_equal(plan.steps[0].mib, 12288);
	plan_finish(&plan);
}

/* What may not be touched is neither a place nor a victim, not even partly. */
static void test_usable_gpus_only(void **state)
{
	struct scene scene;
	struct plan plan;
	size_t across;

	(void)state;
	one_card(&scene, 8192);
	scene.snapshot.n_gpus = 2;
	scene.gpus[1] = scene.gpus[0];
	across = add_service(&scene, 6000, 10, true);
	scene.services[across].gpus = GPU_BIT(0) | GPU_BIT(1);
	scene.committed[across][1] = 6000;
	need(&scene, add_service(&scene, 6000, 50, false), true);
	scene.request.usable = GPU_BIT(0);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	assert_true(has_blocker(&plan, BLOCKED_BY_TRANSITION, across, 6000));
	plan_finish(&plan);
	scene.request.usable = GPU_SET_ALL;
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_OK);
	assert_int_equal(plan.gpus, GPU_BIT(0) | GPU_BIT(1));
	plan_finish(&plan);
}

/* A phase: the whole set fits together or not at all. */
static void test_phase_fits_together(void **state)
{
	struct scene scene;
	struct plan plan;

	(void)state;
	one_card(&scene, 16384);
	need(&scene, add_service(&scene, 9000, 50, false), true);
	need(&scene, add_service(&scene, 9000, 50, false), true);
	assert_int_equal(plan_make(&scene.snapshot, &scene.request, &plan), PLAN_REFUSED);
	assert_int_equal(plan.needed_service, 1);
	assert_int_equal(plan.n_steps, 0);
	plan_finish(&plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_running_need_costs_nothing),
		cmocka_unit_test(test_refusal_names_every_blocker),
		cmocka_unit_test(test_larger_than_the_card),
		cmocka_unit_test(test_no_such_gpu),
		cmocka_unit_test(test_earlier_victim_let_off),
		cmocka_unit_test(test_breakable_and_assume_unused),
		cmocka_unit_test(test_place_of_a_leased_service_that_is_stopped),
		cmocka_unit_test(test_refusal_names_who_stands_where_leases_bar_it),
		cmocka_unit_test(test_yields),
		cmocka_unit_test(test_percent_of_each_card),
		cmocka_unit_test(test_usable_gpus_only),
		cmocka_unit_test(test_phase_fits_together),
		cmocka_unit_test(test_may_evict_agrees),
		cmocka_unit_test(test_random_scenes),
	};

	return cmocka_run_group_tests_name("core/plan", tests, NULL, NULL);
}
