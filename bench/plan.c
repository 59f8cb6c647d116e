/*
 * How long one decision takes: 1,000 services on 16 GPUs, full of live ones, a start that needs victims, a phase of
 * four services, and a refusal. The floor in the same run is the bare reading of the same table of commitments, since
 * no planner that looks at every service on every GPU can be faster than that.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/plan.h"

#define SERVICES 1000
#define GPUS 16
#define ROUNDS 2000

struct scene {
	struct service_definition definitions[SERVICES];
	struct plan_service services[SERVICES];
	struct plan_gpu gpus[GPUS];
	uint32_t committed[SERVICES][GPUS];
};

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* 20 GiB services at the front that are not live, 992 small live ones behind them, 62 a GPU. */
static void set_scene(struct scene *scene)
{
	for (size_t gpu = 0; gpu < GPUS; gpu++)
		scene->gpus[gpu] = (struct plan_gpu){ .has_total = true, .total_mib = 24576, .reserve_mib = 1024 };
	for (size_t i = 0; i < SERVICES; i++) {
		bool live = i >= 8;
		size_t gpu = i % GPUS;
		scene->definitions[i] = (struct service_definition){
			.name = "service",
			.vram = { .mib = live ? 370 : 20000 },
			.priority = live ? (int)(i * 7919 % 90) : 95,
			.allowed = GPU_SET_ALL,
			.gpu_count = 1,
		};
		scene->committed[i][gpu] = live ? 370 : 0;
		scene->services[i] = (struct plan_service){
			.definition = &scene->definitions[i],
			.committed_mib = scene->committed[i],
			.state = live ? SERVICE_READY : SERVICE_STOPPED,
			.gpus = live ? GPU_BIT(gpu) : 0,
			.live = live,
			.yield_after_ms = NEVER_MS,
			.last_used_ms = i * 31 % 977,
		};
	}
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

static double report(const char *what, double *times, double floor)
{
	qsort(times, ROUNDS, sizeof(times[0]), compare);
	double median = times[ROUNDS / 2];
	printf("%-34s median %8.1f us   p99 %8.1f us", what, median, times[ROUNDS * 99 / 100]);
	if (floor > 0)
		printf("   %6.1f x the floor", median / floor);
	printf("\n");
	return median;
}

static double measure_floor(const struct scene *scene)
{
	static double times[ROUNDS];
	volatile uint64_t sum = 0;
	for (size_t round = 0; round < ROUNDS; round++) {
		double begin = now_us();
		for (size_t i = 0; i < SERVICES; i++)
			for (size_t gpu = 0; gpu < GPUS; gpu++)
				sum += scene->committed[i][gpu];
		times[round] = now_us() - begin;
	}
	(void)sum; /* the reading is the point */
	return report("floor: read every commitment", times, 0);
}

static int measure(
	const char *what, const struct scene *scene, const struct plan_request *request, int expected, double floor)
{
	static double times[ROUNDS];
	const struct plan_snapshot snapshot = { GPUS, scene->gpus, SERVICES, scene->services };
	for (size_t round = 0; round < ROUNDS; round++) {
		struct plan plan;
		double begin = now_us();
		int outcome = plan_make(&snapshot, request, &plan);
		times[round] = now_us() - begin;
		plan_finish(&plan);
		if (outcome != expected) {
			fprintf(stderr, "%s: outcome %d instead of %d\n", what, outcome, expected);
			return 1;
		}
	}
	report(what, times, floor);
	return 0;
}

int main(void)
{
	static struct scene scene;
	static const size_t set[] = { 0, 1, 2, 3 };
	set_scene(&scene);
	printf("%d services on %d GPUs, %d rounds\n", SERVICES, GPUS, ROUNDS);
	double floor = measure_floor(&scene);
	struct plan_request start = { .needs = set, .n_needs = 1, .priority = 95, .usable = GPU_SET_ALL };
	struct plan_request refused = { .needs = set, .n_needs = 1, .priority = 1, .usable = GPU_SET_ALL };
	struct plan_request phase = { .needs = set, .n_needs = 4, .is_phase = true, .usable = GPU_SET_ALL };
	int failed = measure("start that evicts", &scene, &start, PLAN_OK, floor);
	failed |= measure("start that is refused", &scene, &refused, PLAN_REFUSED, floor);
	failed |= measure("phase of four that evicts", &scene, &phase, PLAN_OK, floor);
	return failed;
}
