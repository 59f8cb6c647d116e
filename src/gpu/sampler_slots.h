/*
 * Which GPU is which from sample to sample. A driver numbers the GPUs that it finds: when one falls off the bus and the
 * library is initialised again, those behind it move up. Services stand on GPUs by number, so the daemon keeps the
 * numbers of the first sample, by UUID: a GPU that is not listed any more keeps its place with nothing known of it, and
 * a new one comes at the end. After a restart of the daemon the driver's order holds again.
 */
#pragma once

#include "core/gpu.h"

/* All zero is one that knows no GPU. */
struct sampler_slots {
	unsigned n;
	struct {
		char uuid[sizeof(((struct gpu_reading *)0)->uuid)];
		char name[sizeof(((struct gpu_reading *)0)->name)];
	} slots[GPU_MAX];
	struct gpu_reading scratch[GPU_MAX];
};

/* Puts the readings in their places, and readings without anything valid where a GPU is missing. */
void sampler_slots_arrange(struct sampler_slots *slots, struct gpu_sample *sample);
