/* The places of GPUs, by UUID. It must not lose a reading: each one that came stands somewhere afterwards. */
#include "gpu/sampler_slots.h"

#include <stdio.h>
#include <string.h>

static bool is_taken(gpu_set taken, unsigned slot)
{
	return (taken & GPU_BIT(slot)) != 0;
}

/* GPU_MAX: it has none. */
static unsigned slot_of(const struct sampler_slots *slots, const char *uuid, gpu_set taken)
{
	for (unsigned i = 0; uuid[0] != '\0' && i < slots->n; i++)
		if (!is_taken(taken, i) && strcmp(slots->slots[i].uuid, uuid) == 0)
			return i;
	return GPU_MAX;
}

/* For a reading that does not say whose it is: its old place if that is free, else the first place that is. */
static unsigned free_slot(const struct sampler_slots *slots, unsigned index, gpu_set taken)
{
	if (!is_taken(taken, index))
		return index;
	for (unsigned i = 0; i < slots->n; i++)
		if (!is_taken(taken, i))
			return i;
	return slots->n;
}

/* For a GPU that was never seen: where its number is nobody's, else at the end, else in place of one that is gone. */
static unsigned new_slot(const struct sampler_slots *slots, unsigned index, gpu_set taken)
{
	bool is_nobodys = index >= slots->n || slots->slots[index].uuid[0] == '\0';
	if (is_nobodys && !is_taken(taken, index))
		return index;
	unsigned slot = slots->n < GPU_MAX ? slots->n : 0;
	while (is_taken(taken, slot))
		slot = (slot + 1) % GPU_MAX;
	return slot;
}

static void remember(struct sampler_slots *slots, unsigned slot, const struct gpu_reading *reading)
{
	if (slot >= slots->n)
		slots->n = slot + 1;
	if (reading->uuid[0] == '\0')
		return;
	memcpy(slots->slots[slot].uuid, reading->uuid, sizeof(reading->uuid));
	memcpy(slots->slots[slot].name, reading->name, sizeof(reading->name));
}

static void leave_empty(
	const struct sampler_slots *slots, unsigned slot, const char *problem, struct gpu_reading *reading)
{
	*reading = (struct gpu_reading){ 0 };
	memcpy(reading->uuid, slots->slots[slot].uuid, sizeof(reading->uuid));
	memcpy(reading->name, slots->slots[slot].name, sizeof(reading->name));
	snprintf(reading->problem, sizeof(reading->problem), "%.*s", (int)sizeof(reading->problem) - 1, problem);
}

/* The places of all readings; those of known GPUs first, so that nobody else gets them. */
static void find_places(struct sampler_slots *slots, const struct gpu_sample *sample, unsigned *places)
{
	gpu_set taken = 0;
	for (int pass = 0; pass < 3; pass++) {
		for (unsigned i = 0; i < sample->n_gpus; i++) {
			const struct gpu_reading *reading = &sample->gpus[i];
			if (pass == 0)
				places[i] = slot_of(slots, reading->uuid, taken);
			else if (places[i] < GPU_MAX || (reading->uuid[0] == '\0') != (pass == 1))
				continue;
			else if (pass == 1)
				places[i] = free_slot(slots, i, taken);
			else
				places[i] = new_slot(slots, i, taken);
			if (places[i] == GPU_MAX)
				continue;
			taken |= GPU_BIT(places[i]);
			remember(slots, places[i], reading);
		}
	}
}

void sampler_slots_arrange(struct sampler_slots *slots, struct gpu_sample *sample)
{
	unsigned places[GPU_MAX];
	gpu_set filled = 0;
	const char *problem = sample->problem[0] != '\0'
		? sample->problem
		: "the driver does not list this GPU any more: it fell off the bus or was taken out; see dmesg";
	find_places(slots, sample, places);
	memcpy(slots->scratch, sample->gpus, sample->n_gpus * sizeof(sample->gpus[0]));
	memset(sample->gpus, 0, sample->n_gpus * sizeof(sample->gpus[0]));
	for (unsigned i = 0; i < sample->n_gpus; i++) {
		sample->gpus[places[i]] = slots->scratch[i];
		filled |= GPU_BIT(places[i]);
		if (slots->scratch[i].uuid[0] != '\0')
			continue;
		memcpy(sample->gpus[places[i]].uuid, slots->slots[places[i]].uuid, sizeof(slots->slots[0].uuid));
		memcpy(sample->gpus[places[i]].name, slots->slots[places[i]].name, sizeof(slots->slots[0].name));
	}
	for (unsigned i = 0; i < slots->n; i++)
		if (!is_taken(filled, i))
			leave_empty(slots, i, problem, &sample->gpus[i]);
	sample->n_gpus = slots->n;
}
