/* The checker's books on memory: what a card holds as far as the engine could know. Must not read the engine's. */
#include <string.h>

#include "checker.h"

#define WIDE INT64_MAX

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static const struct gpu_facts *facts_of(const struct checker *checker, size_t gpu)
{
	const struct gpu_facts *facts = &checker->reading.gpus[gpu];

	if (!checker->has_reading || gpu >= checker->reading.n_gpus || !facts->has_used)
		return NULL;
	return checker->now - checker->reading.taken_ms > STALE_MS ? NULL : facts;
}

enum accounting_mode account_mode(const struct checker *checker, size_t gpu)
{
	const struct gpu_facts *facts = facts_of(checker, gpu);

	if (facts == NULL)
		return ACCOUNTING_LEDGER;
	return facts->has_processes ? ACCOUNTING_PROCESS : ACCOUNTING_TOTAL;
}

bool account_total(const struct checker *checker, size_t gpu, uint32_t *ret_mib)
{
	const struct gpu_facts *facts = facts_of(checker, gpu);

	if (facts != NULL && facts->has_total)
		*ret_mib = facts->total_mib;
	else if (gpu < checker->setup.config.n_gpus)
		*ret_mib = checker->setup.totals_mib[gpu];
	else
		return false;
	return true;
}

uint32_t account_reserve(const struct checker *checker, size_t gpu)
{
	uint32_t total = 0;

	account_total(checker, gpu, &total);
	return size_on_card(checker->setup.config.reserve, total);
}

uint32_t account_declared(const struct checker *checker, size_t service, size_t gpu)
{
	struct size_value vram = checker->setup.services[service].vram;
	uint32_t total = 0;

	if (!account_total(checker, gpu, &total) && vram.percent != 0)
		return 0;
	return size_on_card(vram, total);
}

struct range account_commitment(const struct checker *checker, size_t service, size_t gpu)
{
	const struct told *told = &checker->told[service];
	uint32_t declared = account_declared(checker, service, gpu);
	struct range range = { 0, 0 };

	if (told->alive) {
		int64_t base = (told->gpus & GPU_BIT(gpu)) != 0 ? declared : 0;

		range.lo = larger(base, told->peak_lo_mib[gpu]);
		range.hi = larger(base, told->peak_hi_mib[gpu]);
	}
	if (told->planned != 0 && (told->planned_gpus & GPU_BIT(gpu)) != 0) {
		range.hi = told->alive ? range.hi + declared : declared;
		if (!told->alive)
			range.lo = declared;
	} else if (!told->alive && told->planned == 0 && (told->gpus & GPU_BIT(gpu)) != 0) {
		/* kept for those who lease it, while it is down */
		range.hi = leases_uses(checker, service, 0, false) > 0 ? declared : 0;
		range.lo = leases_uses(checker, service, 0, true) > 0 ? declared : 0;
	}
	return range;
}

static bool is_unsettled(const struct checker *checker, const struct pending *pending)
{
	return !checker->has_reading || !checker->reading.gpus[0].has_used ||
		checker->reading.taken_ms <= pending->end_ms;
}

/* What ended services may still hold although the reading in force cannot say so. */
static int64_t unsettled_mib(const struct checker *checker, size_t gpu, bool surely)
{
	int64_t sum = 0;

	for (size_t i = 0; i < checker->n_pending; i++) {
		const struct pending *pending = &checker->pending[i];

		if (checker->now - pending->end_ms >= RECLAIM_MS)
			continue;
		if (surely && (pending->is_doubtful || checker->reading.taken_ms == pending->end_ms))
			continue; /* at the same millisecond: both readings of "younger" are right */
		if (is_unsettled(checker, pending))
			sum += (int64_t)pending->mib[gpu];
	}
	return sum;
}

/* All that ended lately, come back or not; where a service ends again and again, its debts may be counted as one. */
static int64_t ended_mib(const struct checker *checker, size_t gpu)
{
	int64_t sum = 0;

	for (size_t i = 0; i < checker->n_pending; i++) {
		if (checker->now - checker->pending[i].end_ms <= 2 * RECLAIM_MS)
			sum += (int64_t)checker->pending[i].most_mib[gpu];
	}
	return sum;
}

/* For a moment more may be counted than has to be, on any GPU. */
static bool has_unsettled(const struct checker *checker)
{
	for (size_t i = 0; i < checker->n_pending; i++) {
		if (checker->now - checker->pending[i].end_ms <= RECLAIM_MS &&
			is_unsettled(checker, &checker->pending[i]))
			return true;
	}
	return false;
}

/* What appeared since room was leased there may be its filling. */
static int64_t unfilled(const struct checker *checker, size_t gpu, int64_t rest)
{
	return rest - smaller(leases_rooms(checker, gpu).hi, larger(0, rest - checker->room_base[gpu]));
}

static struct range others_by_process(const struct checker *checker, size_t gpu)
{
	const struct gpu_facts *facts = &checker->reading.gpus[gpu];
	int64_t measured = 0, surely = 0, leaving = 0; /* surely: by this run, not by one before it */
	struct range range;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (!checker->told[s].alive)
			continue;
		measured += checker->reading.measured_mib[gpu][s];
		if (checker->states[s] == SERVICE_STOPPING) /* what it holds no more is booked on it all the same */
			leaving += larger(
				0, account_commitment(checker, s, gpu).hi - checker->reading.measured_mib[gpu][s]);
		if (checker->reading.taken_ms > checker->told[s].start_ms)
			surely += checker->reading.measured_mib[gpu][s];
	}
	range.lo = unfilled(checker, gpu, larger(0, facts->used_mib - measured - leaving));
	range.hi = larger(0, facts->used_mib - surely);
	if (!has_unsettled(checker))
		return range;
	range.lo = larger(range.lo, unsettled_mib(checker, gpu, true));
	range.hi = WIDE;
	return range;
}

/* Whether processes of it are there, as far as anybody knows; a promise is not enough. */
static bool lives_on(const struct checker *checker, size_t service, size_t gpu)
{
	const struct told *told = &checker->told[service];

	return told->alive && ((told->gpus & GPU_BIT(gpu)) != 0 || told->peak_hi_mib[gpu] > 0);
}

static struct range others_by_total(const struct checker *checker, size_t gpu)
{
	int64_t used = checker->reading.gpus[gpu].used_mib, most = 0, least = 0;
	int64_t baseline = checker->baseline_lo[gpu];
	bool is_inhabited = false;
	struct range range;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		struct range commitment = account_commitment(checker, s, gpu);

		most += commitment.hi;
		least += checker->told[s].alive ? commitment.lo : 0;
		is_inhabited = is_inhabited || lives_on(checker, s, gpu);
	}
	is_inhabited = is_inhabited || leases_rooms(checker, gpu).lo > 0;
	if (!is_inhabited && used < baseline)
		baseline = used;
	range.lo = larger(baseline, unfilled(checker, gpu, larger(used - most, 0)));
	/* sums cannot tell whose a change was: at the most, all of it is foreign */
	range.hi = larger(larger(larger(checker->baseline_hi[gpu], checker->last_foreign[gpu]), used - least), used);
	if (has_unsettled(checker)) {
		range.lo = baseline + unsettled_mib(checker, gpu, true);
		range.hi = WIDE;
	}
	return range;
}

struct range account_others(const struct checker *checker, size_t gpu)
{
	switch (account_mode(checker, gpu)) {
	case ACCOUNTING_PROCESS:
		return others_by_process(checker, gpu);
	case ACCOUNTING_TOTAL:
		return others_by_total(checker, gpu);
	default:
		return (struct range){ 0, ended_mib(checker, gpu) };
	}
}

int64_t account_strangers(const struct checker *checker, size_t gpu)
{
	return larger(0, account_others(checker, gpu).lo - ended_mib(checker, gpu));
}

bool account_is_settling(const struct checker *checker)
{
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		if (checker->last_end_ms[g] != SIM_NEVER && checker->now - checker->last_end_ms[g] < RECLAIM_MS)
			return true;
	}
	return false;
}

bool account_is_exact(const struct checker *checker)
{
	if (leases_are_doubtful(checker))
		return false;
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		struct range others = account_others(checker, g);

		if (others.lo != others.hi || leases_rooms(checker, g).lo != leases_rooms(checker, g).hi)
			return false;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			struct range commitment = account_commitment(checker, s, g);

			if (commitment.lo != commitment.hi)
				return false;
		}
	}
	return true;
}

/* What is used without live services, for cards that tell totals only. */
static void note_baseline(struct checker *checker, size_t gpu)
{
	int64_t used = checker->reading.gpus[gpu].used_mib;
	bool alive = false, planned = false;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		alive = alive || lives_on(checker, s, gpu);
		/* or it is not known yet that it does not live */
		planned = planned || checker->told[s].planned != 0 || !checker->told[s].looked ||
			leases_uses(checker, s, 0, false) > 0;
	}
	alive = alive || leases_rooms(checker, gpu).lo > 0;
	planned = planned || leases_rooms(checker, gpu).hi > 0; /* there, or on another GPU of the same claim */
	if (alive) { /* sums cannot tell whose it is */
		checker->baseline_hi[gpu] = larger(checker->baseline_hi[gpu], used);
		return;
	}
	if (!planned && !account_is_settling(checker) && !has_unsettled(checker)) {
		checker->baseline_lo[gpu] = checker->baseline_hi[gpu] = used;
		checker->last_foreign[gpu] = 0;
		return;
	}
	checker->baseline_lo[gpu] = smaller(checker->baseline_lo[gpu], used);
	checker->baseline_hi[gpu] = larger(checker->baseline_hi[gpu], used);
}

static void note_peaks(struct checker *checker, size_t service, size_t gpu)
{
	struct told *told = &checker->told[service];
	uint32_t mib = checker->reading.measured_mib[gpu][service];

	if (!told->alive)
		return;
	if (mib > 0 && (told->gpus & GPU_BIT(gpu)) == 0)
		checker->baseline_lo[gpu] = 0; /* whose it was before is anybody's guess */
	if (mib > told->peak_hi_mib[gpu])
		told->peak_hi_mib[gpu] = mib;
	if (mib > told->peak_lo_mib[gpu] && checker->reading.taken_ms > told->start_ms)
		told->peak_lo_mib[gpu] = mib;
}

/* What is given up as foreign may be foreign until nobody lives there: the sums cannot tell whose a drop was. */
static void give_up(struct checker *checker, const struct pending *pending)
{
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		int64_t most = checker->baseline_hi[g] + (int64_t)pending->most_mib[g];

		if (pending->most_mib[g] > 0)
			checker->baseline_hi[g] = most;
	}
}

static void forget_old(struct checker *checker)
{
	size_t kept = 0;

	for (size_t i = 0; i < checker->n_pending; i++) {
		struct pending *pending = &checker->pending[i];
		uint64_t age = checker->now - pending->end_ms;

		if (age >= RECLAIM_MS && !pending->is_given_up) {
			give_up(checker, pending);
			pending->is_given_up = true;
		}
		if (age <= 2 * RECLAIM_MS)
			checker->pending[kept++] = *pending;
	}
	checker->n_pending = kept;
}

void account_time(struct checker *checker)
{
	forget_old(checker);
}

/* Without a new reading: nobody lives there any more, and the reading in force may be taken for what is used then. */
void account_settle(struct checker *checker)
{
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		const struct gpu_facts *facts = facts_of(checker, g);
		bool is_inhabited = false;

		for (size_t s = 0; s < checker->setup.config.n_services; s++)
			is_inhabited = is_inhabited || lives_on(checker, s, g);
		is_inhabited = is_inhabited || leases_rooms(checker, g).lo > 0;
		if (facts == NULL || is_inhabited)
			continue;
		checker->baseline_lo[g] = smaller(checker->baseline_lo[g], facts->used_mib);
		checker->baseline_hi[g] = larger(checker->baseline_hi[g], facts->used_mib);
	}
}

void account_reading(struct checker *checker, const struct event *event)
{
	checker->has_reading = true;
	checker->had_used = checker->had_used || event->readings.gpus[0].has_used;
	checker->reading.taken_ms = event->readings.taken_ms;
	checker->reading.n_gpus = event->readings.n_gpus;
	for (size_t g = 0; g < event->readings.n_gpus; g++) {
		checker->reading.gpus[g] = event->readings.gpus[g];
		memset(checker->reading.measured_mib[g], 0, sizeof(checker->reading.measured_mib[g]));
		if (!event->readings.gpus[g].has_processes)
			continue;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			checker->reading.measured_mib[g][s] = event->readings.gpus[g].measured_mib[s];
			note_peaks(checker, s, g);
		}
	}
	forget_old(checker);
	for (size_t g = 0; g < event->readings.n_gpus; g++) {
		if (!event->readings.gpus[g].has_used)
			continue;
		note_baseline(checker, g);
		if (!event->readings.gpus[g].has_processes)
			continue;
		checker->baseline_lo[g] = smaller(checker->baseline_lo[g], others_by_process(checker, g).lo);
		checker->last_foreign[g] =
			smaller(others_by_process(checker, g).hi, (int64_t)event->readings.gpus[g].used_mib);
	}
}

void account_ended(struct checker *checker, size_t service, bool is_doubtful)
{
	struct pending *pending;

	forget_old(checker);
	if (checker->n_pending == MAX_PENDING)
		return;
	pending = &checker->pending[checker->n_pending++];
	*pending = (struct pending){
		.end_ms = checker->now, .is_doubtful = is_doubtful || !checker->had_used, .service = service
	};
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		int64_t mib =
			account_commitment(checker, service, g).lo; /* it is still alive: without what is planned */

		pending->mib[g] = (uint64_t)mib;
		pending->most_mib[g] = (uint64_t)account_commitment(checker, service, g).hi;
		if (pending->most_mib[g] > 0) /* a share of a card whose size nobody knows may be anything */
			checker->last_end_ms[g] = checker->now;
	}
}

/* It ran before anybody knew, so that what was used without live services may have been its own. */
void account_adopted(struct checker *checker, size_t service)
{
	for (size_t g = 0; g < checker->setup.n_gpus; g++) {
		int64_t most = checker->baseline_lo[g];

		if (checker->has_reading && g < checker->reading.n_gpus && account_declared(checker, service, g) < most)
			most = account_declared(checker, service, g);
		checker->baseline_lo[g] -= most;
	}
}
