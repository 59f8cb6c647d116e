/* Admission by trying everything. Must not use the planner that it judges. */
#include "admission.h"

static bool place(const struct admission *admission, int64_t *room, size_t need);

/* All ways to choose the remaining `count` GPUs of one need among those from `first` on. */
static bool place_on(const struct admission *admission, int64_t *room, size_t index, size_t first, unsigned count)
{
	const struct admission_need *need = &admission->needs[index];

	if (count == 0)
		return place(admission, room, index + 1);
	for (size_t g = first; g < admission->n_gpus; g++) {
		bool fits;

		if ((need->allowed & GPU_BIT(g)) == 0 || room[g] < (int64_t)need->mib[g])
			continue;
		room[g] -= need->mib[g];
		fits = place_on(admission, room, index, g + 1, count - 1);
		room[g] += need->mib[g];
		if (fits)
			return true;
	}
	return false;
}

static bool place(const struct admission *admission, int64_t *room, size_t need)
{
	if (need == admission->n_needs)
		return true;
	return place_on(admission, room, need, 0, admission->needs[need].count);
}

bool admission_fits(const struct admission *admission, uint32_t evicted)
{
	int64_t room[ADMISSION_GPUS];

	for (size_t g = 0; g < admission->n_gpus; g++) {
		room[g] = admission->room[g];
		for (size_t c = 0; c < admission->n_candidates; c++) {
			if ((evicted >> c & 1) != 0)
				room[g] += admission->candidates[c].gives[g];
		}
	}
	return place(admission, room, 0);
}

static uint32_t everybody(const struct admission *admission)
{
	return (uint32_t)(((uint64_t)1 << admission->n_candidates) - 1);
}

bool admission_feasible(const struct admission *admission)
{
	return admission_fits(admission, everybody(admission));
}

static bool goes_before(const struct admission_candidate *a, const struct admission_candidate *b)
{
	if (a->broken != b->broken)
		return a->broken;
	if (a->priority != b->priority)
		return a->priority < b->priority;
	return a->last_used_ms < b->last_used_ms;
}

static bool is_let_off_before(const struct admission_candidate *a, const struct admission_candidate *b)
{
	return goes_before(b, a);
}

static void sort(const struct admission *admission, size_t *order,
	bool (*is_before)(const struct admission_candidate *, const struct admission_candidate *))
{
	for (size_t i = 0; i < admission->n_candidates; i++) {
		size_t at = i;

		while (at > 0 && is_before(&admission->candidates[i], &admission->candidates[order[at - 1]])) {
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
	}
}

uint32_t admission_victims(const struct admission *admission)
{
	size_t order[ADMISSION_SERVICES];
	uint32_t victims = 0;

	sort(admission, order, goes_before);
	for (size_t i = 0; i < admission->n_candidates && !admission_fits(admission, victims); i++)
		victims |= (uint32_t)1 << order[i];
	sort(admission, order, is_let_off_before);
	for (size_t i = 0; i < admission->n_candidates; i++) {
		uint32_t fewer = victims & ~((uint32_t)1 << order[i]);

		if (admission_fits(admission, fewer))
			victims = fewer;
	}
	return victims;
}

bool admission_has_ties(const struct admission *admission)
{
	for (size_t a = 0; a < admission->n_candidates; a++) {
		for (size_t b = a + 1; b < admission->n_candidates; b++) {
			const struct admission_candidate *one = &admission->candidates[a];
			const struct admission_candidate *two = &admission->candidates[b];

			if (one->broken == two->broken && one->priority == two->priority &&
				one->last_used_ms == two->last_used_ms)
				return true;
		}
	}
	return false;
}
