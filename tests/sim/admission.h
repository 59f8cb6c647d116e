/*
 * The rules of admission once more, written the slow and obvious way: every placement, every set of victims.
 * The planner and the simulator are judged by it, so it must not use anything of the planner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gpu.h"

#define ADMISSION_GPUS 8
#define ADMISSION_SERVICES 16

/* One service that has to find a place. */
struct admission_need {
	gpu_set allowed; /* present, known and usable ones only */
	unsigned count;
	uint32_t mib[ADMISSION_GPUS];
};

/* One service that may be evicted. */
struct admission_candidate {
	size_t service;
	int64_t gives[ADMISSION_GPUS];
	bool broken; /* in error, and holds memory */
	int priority;
	uint64_t last_used_ms;
};

struct admission {
	size_t n_gpus;
	int64_t room[ADMISSION_GPUS]; /* admissible while nobody is evicted */
	size_t n_needs;
	struct admission_need needs[ADMISSION_SERVICES];
	size_t n_candidates;
	struct admission_candidate candidates[ADMISSION_SERVICES];
};

/* Whether all needs find a place together when the candidates in `evicted` (bits) are gone. */
bool admission_fits(const struct admission *admission, uint32_t evicted);

/* Whether evicting every candidate would do. */
bool admission_feasible(const struct admission *admission);

/*
 * Who has to go, as bits over the candidates: the broken first, then the lowest priority, then the least recently
 * used, until it fits; then, from the highest priority down (the broken last: nobody misses them), each one without
 * whom it fits too is let off again.
 */
uint32_t admission_victims(const struct admission *admission);

/* Whether the rule leaves the choice open: two candidates that it does not tell apart. */
bool admission_has_ties(const struct admission *admission);
