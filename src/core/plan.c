/*
 * Admission and victim choice. Pure: a snapshot and a request go in, a plan or a refusal comes out. Must not know
 * where the figures come from, nor carry anything out.
 */
#include "core/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/*
 * Placing a set of services is bin packing; sets are small and the search ends at once in practice. The bound keeps
 * a hostile configuration from stalling the daemon: past it a set counts as not fitting.
 */
#define SEARCH_NODES_MAX 20000
#define PLAN_NODES_MAX 200000 /* of all searches of one plan; then victims that may be unnecessary are kept */

/* A needed service that has to be placed. */
struct item {
	size_t service; /* PLAN_NO_SERVICE: the room that was asked for */
	gpu_set candidates; /* allowed, usable and present */
	unsigned count;
	gpu_set placed; /* the result of a successful search */
};

struct search {
	const struct plan_snapshot *snapshot;
	uint32_t room_mib;
	size_t n_items;
	struct item *items; /* the largest first */
	int64_t room[GPU_MAX];
	unsigned nodes; /* of this search */
	unsigned plan_nodes; /* of all so far */
};

struct planner {
	const struct plan_snapshot *snapshot;
	const struct plan_request *request;
	struct search search;
	bool *is_needed; /* [services] */
	bool *is_renewed; /* [services] needed and live, but started anew */
	size_t n_victims;
	size_t *victims; /* in the order of choice */
	gpu_set relied; /* where needed services stand that stay as they are */
};

uint32_t plan_need_mib(const struct service_definition *definition, const struct plan_gpu *gpu)
{
	return size_on_card(definition->vram, gpu->total_mib);
}

const char *plan_action_name(enum plan_action action)
{
	static const char *const names[] = { [PLAN_STOP] = "stop", [PLAN_SLEEP] = "sleep", [PLAN_START] = "start" };
	return names[action];
}

const char *plan_reason_name(enum plan_reason reason)
{
	static const char *const names[] = {
		[PLAN_NEEDED] = "needed",
		[PLAN_MAKES_ROOM] = "makes_room",
		[PLAN_BROKEN] = "broken",
		[PLAN_YIELDS] = "yields",
		[PLAN_RESTART] = "restart",
		[PLAN_ASKED] = "asked",
	};
	return names[reason];
}

/* ---- who may be evicted ---- */

/* Whether its use is taken to end before this request is carried out. */
static bool falls_idle(const struct plan_request *request, const struct plan_service *service)
{
	return service->own ? request->assume_own_ended : request->assume_unused;
}

static bool is_in_use(const struct plan_request *request, const struct plan_service *service)
{
	return service->in_use && !service->breakable && !falls_idle(request, service);
}

static bool yields(const struct plan_request *request, const struct plan_service *service)
{
	if (request->assume_yielded)
		return service->would_yield && (!service->in_use || falls_idle(request, service));
	return !service->in_use && service->yield_after_ms != NEVER_MS &&
		service->idle_ms >= (uint64_t)service->yield_after_ms;
}

/* Its place is kept for its leases alone, and they are taken to end: then it is nobody's. */
static bool gives_place_back(const struct plan_request *request, const struct plan_service *service)
{
	return service->reserved && service->leased && falls_idle(request, service);
}

static bool is_needed_by(const struct plan_request *request, size_t service)
{
	for (size_t i = 0; i < request->n_needs; i++)
		if (request->needs[i] == service)
			return true;
	return false;
}

static bool refuse_victim(enum plan_blocker_reason *ret_why, enum plan_blocker_reason why)
{
	if (ret_why != NULL)
		*ret_why = why;
	return false;
}

/* The rules, but for "what the same request needs", which the caller has looked up. */
static bool may_evict_unneeded(
	const struct plan_request *request, const struct plan_service *service, enum plan_blocker_reason *ret_why)
{
	bool is_free = gives_place_back(request, service);
	if (service->definition->pinned && !is_free)
		return refuse_victim(ret_why, BLOCKED_BY_PIN);
	if (is_in_use(request, service))
		return refuse_victim(ret_why, BLOCKED_BY_USE);
	if (!request->is_phase && service->definition->priority >= request->priority && !is_free &&
		!yields(request, service))
		return refuse_victim(ret_why, BLOCKED_BY_PRIORITY);
	if ((service->gpus & ~request->usable) != 0 || (service->engaged && !request->later))
		return refuse_victim(ret_why, BLOCKED_BY_TRANSITION);
	return true;
}

bool plan_may_evict(const struct plan_snapshot *snapshot, const struct plan_request *request, size_t service,
	enum plan_blocker_reason *ret_why)
{
	if (is_needed_by(request, service))
		return refuse_victim(ret_why, BLOCKED_BY_NEED);
	return may_evict_unneeded(request, &snapshot->services[service], ret_why);
}

static enum plan_reason eviction_reason(const struct plan_request *request, const struct plan_service *service)
{
	if (service->state == SERVICE_ERROR)
		return PLAN_BROKEN;
	if (!request->is_phase && service->definition->priority >= request->priority)
		return PLAN_YIELDS;
	return PLAN_MAKES_ROOM;
}

/* ---- where needed services fit ---- */

static int64_t empty_room(const struct plan_gpu *gpu)
{
	return (int64_t)gpu->total_mib - gpu->reserve_mib;
}

static bool is_kept(const struct plan_request *request, const struct plan_service *service)
{
	if (request->relieve)
		return service->live;
	return service->live && !service->leaving && !service->reserved && service->state != SERVICE_ERROR &&
		!request->restart;
}

static uint32_t item_need(const struct search *search, const struct item *item, unsigned gpu)
{
	if (item->service == PLAN_NO_SERVICE)
		return search->room_mib;
	return plan_need_mib(search->snapshot->services[item->service].definition, &search->snapshot->gpus[gpu]);
}

static bool place_from(struct search *search, size_t position);

/* Chooses `count` more GPUs for an item among its candidates that were not tried yet, the tightest fit first. */
static bool place_item(struct search *search, size_t position, gpu_set tried, unsigned count)
{
	struct item *item = &search->items[position];
	if (count == 0)
		return place_from(search, position + 1);
	for (;;) {
		int best = -1;
		int64_t best_left = 0;
		for (gpu_set rest = item->candidates & ~tried & ~item->placed; rest != 0; rest &= rest - 1) {
			unsigned gpu = (unsigned)__builtin_ctzll(rest);
			int64_t left = search->room[gpu] - item_need(search, item, gpu);
			if (left >= 0 && (best < 0 || left < best_left)) {
				best = (int)gpu;
				best_left = left;
			}
		}
		if (best < 0 || ++search->nodes > SEARCH_NODES_MAX || ++search->plan_nodes > PLAN_NODES_MAX)
			return false;
		int64_t before = search->room[best];
		search->room[best] = best_left;
		item->placed |= GPU_BIT(best);
		if (place_item(search, position, tried, count - 1))
			return true;
		item->placed &= ~GPU_BIT(best);
		search->room[best] = before;
		tried |= GPU_BIT(best); /* combinations without it remain */
	}
}

static bool place_from(struct search *search, size_t position)
{
	if (position == search->n_items)
		return true;
	search->items[position].placed = 0;
	return place_item(search, position, 0, search->items[position].count);
}

static void add_room(struct planner *planner, size_t service, int sign)
{
	const struct plan_service *there = &planner->snapshot->services[service];
	for (gpu_set rest = there->gpus; rest != 0; rest &= rest - 1) {
		unsigned gpu = (unsigned)__builtin_ctzll(rest);
		planner->search.room[gpu] += sign * (int64_t)there->committed_mib[gpu];
	}
}

/* Whether what stays where it is does so without taking more than there is. */
static bool is_relieved(const struct planner *planner)
{
	for (gpu_set rest = planner->request->relieve ? planner->relied : 0; rest != 0; rest &= rest - 1)
		if (planner->search.room[__builtin_ctzll(rest)] < 0)
			return false;
	return true;
}

/* Whether everything fits with the room there is now; leaves the room as it was. */
static bool fits(struct planner *planner)
{
	if (!is_relieved(planner))
		return false;
	int64_t room[GPU_MAX];
	memcpy(room, planner->search.room, sizeof(room));
	planner->search.nodes = 0;
	bool placed = place_from(&planner->search, 0);
	memcpy(planner->search.room, room, sizeof(room));
	return placed;
}

/* ---- preparation ---- */

/* Room that is leased, and that will not come free before this request is carried out. */
static uint64_t leased_room(const struct planner *planner, size_t gpu)
{
	const struct plan_gpu *there = &planner->snapshot->gpus[gpu];
	const struct plan_request *request = planner->request;
	return (request->assume_vacated ? 0 : there->room_mib - there->own_room_mib) +
		(request->assume_own_ended ? 0 : there->own_room_mib);
}

/*
 * Whether what it is committed to stays so: what ends gives it back, unless a lease keeps it. One that may be broken
 * keeps it, too: a plan breaks by its steps, and there is none for what is on its way out.
 */
static bool keeps_commitment(const struct planner *planner, size_t index)
{
	const struct plan_service *service = &planner->snapshot->services[index];
	if (!service->leaving)
		return true;
	return service->leased && !planner->is_needed[index] && !falls_idle(planner->request, service);
}

static void find_initial_room(struct planner *planner)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++) {
		const struct plan_gpu *there = &snapshot->gpus[gpu];
		planner->search.room[gpu] = empty_room(there) - (int64_t)there->foreign_mib -
			(int64_t)there->unreclaimed_mib - (int64_t)leased_room(planner, gpu);
	}
	for (size_t i = 0; i < snapshot->n_services; i++) {
		const struct plan_service *service = &snapshot->services[i];
		if (service->live && !planner->is_renewed[i] && keeps_commitment(planner, i))
			add_room(planner, i, -1);
	}
}

static gpu_set present_gpus(const struct plan_snapshot *snapshot)
{
	gpu_set present = 0;
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++)
		if (snapshot->gpus[gpu].has_total)
			present |= GPU_BIT(gpu);
	return present;
}

static uint64_t item_weight(const struct search *search, const struct item *item)
{
	uint64_t largest = 0;
	for (gpu_set rest = item->candidates; rest != 0; rest &= rest - 1) {
		uint64_t need = item_need(search, item, (unsigned)__builtin_ctzll(rest));
		if (need > largest)
			largest = need;
	}
	return largest * item->count;
}

/* The largest first, since they are the hardest to place; insertion sort, for sets are small and order must be stable.
 */
static void sort_items(struct search *search)
{
	for (size_t i = 1; i < search->n_items; i++) {
		struct item item = search->items[i];
		uint64_t weight = item_weight(search, &item);
		size_t j = i;
		for (; j > 0 && item_weight(search, &search->items[j - 1]) < weight; j--)
			search->items[j] = search->items[j - 1];
		search->items[j] = item;
	}
}

/*
 * What is leased is started anew where it stood, for its lease may be for those GPUs, too; but not where it can never
 * fit: such a place was only a guess.
 */
static gpu_set places_for(const struct planner *planner, const struct plan_service *service, gpu_set present)
{
	gpu_set allowed = service->definition->allowed & present, stays = 0;
	bool is_kept = service->reserved || (service->leased && service->leaving);
	if (!is_kept || (service->leased && falls_idle(planner->request, service)))
		return allowed;
	allowed &= ~service->barred;
	for (gpu_set rest = service->gpus & allowed; rest != 0; rest &= rest - 1) {
		const struct plan_gpu *gpu = &planner->snapshot->gpus[__builtin_ctzll(rest)];
		if (empty_room(gpu) >= plan_need_mib(service->definition, gpu))
			stays |= rest & -rest;
	}
	return gpu_set_count(stays) >= service->definition->gpu_count ? stays : allowed;
}

static void sort_needs(struct planner *planner)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	const struct plan_request *request = planner->request;
	gpu_set present = present_gpus(snapshot);
	for (size_t i = 0; i < request->n_needs; i++) {
		size_t index = request->needs[i];
		const struct plan_service *service = &snapshot->services[index];
		planner->is_needed[index] = true;
		if (is_kept(request, service)) {
			planner->relied |= service->gpus;
			continue;
		}
		planner->is_renewed[index] = service->live && !service->leaving;
		planner->search.items[planner->search.n_items++] = (struct item){
			.service = index,
			.candidates = places_for(planner, service, present) & request->usable,
			.count = service->definition->gpu_count,
		};
	}
	if (request->room_mib > 0)
		planner->search.items[planner->search.n_items++] = (struct item){
			.service = PLAN_NO_SERVICE,
			.candidates = request->usable & present,
			.count = 1,
		};
	sort_items(&planner->search);
}

/* ---- victims ---- */

static int rank_victims(const void *a, const void *b, void *context)
{
	const struct plan_service *services = context;
	const struct plan_service *left = &services[*(const size_t *)a];
	const struct plan_service *right = &services[*(const size_t *)b];
	/* A lease is broken only where nothing else helps. */
	if (left->in_use != right->in_use)
		return left->in_use ? 1 : -1;
	if ((left->state == SERVICE_ERROR) != (right->state == SERVICE_ERROR))
		return left->state == SERVICE_ERROR ? -1 : 1;
	if (left->definition->priority != right->definition->priority)
		return left->definition->priority < right->definition->priority ? -1 : 1;
	if (left->last_used_ms != right->last_used_ms)
		return left->last_used_ms < right->last_used_ms ? -1 : 1;
	return *(const size_t *)a < *(const size_t *)b ? -1 : 1;
}

static void collect_victims(struct planner *planner)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	for (size_t i = 0; i < snapshot->n_services; i++) {
		const struct plan_service *service = &snapshot->services[i];
		if (!service->live || service->leaving || planner->is_needed[i])
			continue;
		if (may_evict_unneeded(planner->request, service, NULL))
			planner->victims[planner->n_victims++] = i;
	}
	qsort_r(planner->victims, planner->n_victims, sizeof(planner->victims[0]), rank_victims,
		(void *)snapshot->services);
}

static void take_victims(struct planner *planner, size_t from, size_t to, int sign)
{
	for (size_t i = from; i < to; i++)
		add_room(planner, planner->victims[i], sign);
}

/* The shortest beginning of the victims that makes room; all of them are taken and known to suffice. */
static void choose_beginning(struct planner *planner)
{
	size_t enough = planner->n_victims;
	size_t too_few = 0; /* victims [0, enough) are taken all the time */
	take_victims(planner, 0, enough, -1);
	if (fits(planner)) {
		planner->n_victims = 0;
		return;
	}
	take_victims(planner, 0, enough, 1);
	while (enough - too_few > 1) {
		size_t middle = too_few + (enough - too_few) / 2;
		take_victims(planner, middle, enough, -1);
		if (fits(planner)) {
			enough = middle;
		} else {
			take_victims(planner, middle, enough, 1);
			too_few = middle;
		}
	}
	planner->n_victims = enough;
}

/* An early victim may prove unnecessary once a later one is taken: spare each one that can be, the last chosen first.
 */
static void spare_unnecessary(struct planner *planner)
{
	for (size_t i = planner->n_victims; i-- > 0;) {
		add_room(planner, planner->victims[i], -1);
		if (fits(planner)) {
			memmove(&planner->victims[i], &planner->victims[i + 1],
				(planner->n_victims - i - 1) * sizeof(planner->victims[0]));
			planner->n_victims--;
		} else {
			add_room(planner, planner->victims[i], 1);
		}
	}
}

/* ---- results ---- */

static uint32_t most_committed(const struct plan_service *service)
{
	uint32_t most = 0;
	for (gpu_set rest = service->gpus; rest != 0; rest &= rest - 1) {
		uint32_t mib = service->committed_mib[__builtin_ctzll(rest)];
		if (mib > most)
			most = mib;
	}
	return most;
}

static void add_stop(struct planner *planner, struct plan *plan, size_t service, enum plan_reason reason)
{
	const struct plan_service *there = &planner->snapshot->services[service];
	plan->steps[plan->n_steps++] = (struct plan_step){
		.action = PLAN_STOP,
		.reason = reason,
		.service = service,
		.gpus = there->gpus,
		.mib = most_committed(there),
	};
	plan->gpus |= there->gpus;
}

static const struct item *find_item(const struct planner *planner, size_t service)
{
	for (size_t i = 0; i < planner->search.n_items; i++)
		if (planner->search.items[i].service == service)
			return &planner->search.items[i];
	return NULL;
}

static void add_start(struct planner *planner, struct plan *plan, const struct item *item)
{
	uint32_t most = 0;
	for (gpu_set rest = item->placed; rest != 0; rest &= rest - 1) {
		uint32_t need = item_need(&planner->search, item, (unsigned)__builtin_ctzll(rest));
		if (need > most)
			most = need;
	}
	plan->steps[plan->n_steps++] = (struct plan_step){
		.action = PLAN_START,
		.reason = PLAN_NEEDED,
		.service = item->service,
		.gpus = item->placed,
		.mib = most,
	};
	plan->gpus |= item->placed;
}

static int write_plan(struct planner *planner, struct plan *plan)
{
	const struct plan_request *request = planner->request;
	plan->steps = calloc(planner->n_victims + 2 * request->n_needs + 1, sizeof(plan->steps[0]));
	if (plan->steps == NULL)
		return -ENOMEM;
	plan->gpus = planner->relied;
	for (size_t i = 0; i < planner->n_victims; i++) {
		size_t victim = planner->victims[i];
		add_stop(planner, plan, victim, eviction_reason(request, &planner->snapshot->services[victim]));
	}
	for (size_t i = 0; i < request->n_needs; i++)
		if (planner->is_renewed[request->needs[i]] && !planner->snapshot->services[request->needs[i]].reserved)
			add_stop(planner, plan, request->needs[i], request->restart ? PLAN_ASKED : PLAN_RESTART);
	for (size_t i = 0; i < request->n_needs; i++) {
		const struct item *item = find_item(planner, request->needs[i]);
		if (item != NULL)
			add_start(planner, plan, item);
	}
	const struct item *room = request->room_mib > 0 ? find_item(planner, PLAN_NO_SERVICE) : NULL;
	if (room != NULL) {
		plan->room_gpu = room->placed;
		plan->gpus |= room->placed;
	}
	return PLAN_OK;
}

/* ---- refusals ---- */

static void add_blocker(
	struct plan *plan, enum plan_blocker_reason reason, size_t service, int gpu, uint64_t mib, int priority)
{
	plan->blockers[plan->n_blockers++] = (struct plan_blocker){
		.reason = reason,
		.service = service,
		.gpu = gpu,
		.mib = mib > UINT32_MAX ? UINT32_MAX : (uint32_t)mib,
		.priority = priority,
	};
}

/* The first service (the largest ones are placed first) that finds no place even with everything evicted. */
static const struct item *find_unplaced(struct planner *planner)
{
	size_t n_items = planner->search.n_items;
	const struct item *unplaced = &planner->search.items[n_items - 1];
	for (size_t n = 1; n <= n_items; n++) {
		planner->search.n_items = n;
		if (!fits(planner)) {
			unplaced = &planner->search.items[n - 1];
			break;
		}
	}
	planner->search.n_items = n_items;
	return unplaced;
}

static void describe_unplaced(struct planner *planner, const struct item *item, struct plan *plan)
{
	bool is_room = item->service == PLAN_NO_SERVICE;
	plan->needed_service = item->service;
	plan->needed_mib =
		is_room ? planner->request->room_mib : planner->snapshot->services[item->service].definition->vram.mib;
	plan->best_mib = INT64_MIN;
	for (gpu_set rest = item->candidates; rest != 0; rest &= rest - 1) {
		unsigned gpu = (unsigned)__builtin_ctzll(rest);
		if (planner->search.room[gpu] <= plan->best_mib)
			continue;
		plan->best_mib = planner->search.room[gpu];
		plan->needed_mib = item_need(&planner->search, item, gpu);
	}
	if (plan->best_mib < 0)
		plan->best_mib = 0;
}

/* What is wrong with the GPUs themselves, before anybody stands on them. */
static void add_gpu_blockers(struct planner *planner, const struct item *item, struct plan *plan)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	bool is_room = item->service == PLAN_NO_SERVICE;
	gpu_set allowed = is_room ? GPU_SET_ALL : snapshot->services[item->service].definition->allowed;
	unsigned n_allowed = 0, n_large = 0;
	int64_t largest = 0;
	for (size_t gpu = 0; gpu < snapshot->n_gpus; gpu++) {
		const struct plan_gpu *there = &snapshot->gpus[gpu];
		if ((allowed & GPU_BIT(gpu)) == 0)
			continue;
		n_allowed++;
		if (!there->has_total) {
			add_blocker(plan, BLOCKED_BY_NO_TOTAL, PLAN_NO_SERVICE, (int)gpu, 0, 0);
			continue;
		}
		int64_t empty = empty_room(there);
		if (empty > largest)
			largest = empty;
		if (empty >= item_need(&planner->search, item, (unsigned)gpu))
			n_large++;
	}
	if (n_allowed < item->count)
		add_blocker(plan, BLOCKED_BY_NO_GPU, item->service, -1, 0, 0);
	else if (n_large < item->count)
		add_blocker(plan, BLOCKED_BY_SIZE, item->service, -1, (uint64_t)largest, 0);
}

static void add_memory_blockers(struct planner *planner, gpu_set gpus, struct plan *plan)
{
	for (gpu_set rest = gpus; rest != 0; rest &= rest - 1) {
		int gpu = __builtin_ctzll(rest);
		const struct plan_gpu *there = &planner->snapshot->gpus[gpu];
		if (leased_room(planner, (size_t)gpu) > 0)
			add_blocker(plan, BLOCKED_BY_ROOM, PLAN_NO_SERVICE, gpu, leased_room(planner, (size_t)gpu), 0);
		if (there->foreign_mib > 0)
			add_blocker(plan, BLOCKED_BY_FOREIGN, PLAN_NO_SERVICE, gpu, there->foreign_mib, 0);
		if (there->unreclaimed_mib > 0)
			add_blocker(plan, BLOCKED_BY_UNRECLAIMED, PLAN_NO_SERVICE, gpu, there->unreclaimed_mib, 0);
	}
}

static void add_service_blockers(struct planner *planner, gpu_set gpus, struct plan *plan)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	for (size_t i = 0; i < snapshot->n_services; i++) {
		const struct plan_service *service = &snapshot->services[i];
		enum plan_blocker_reason why = BLOCKED_BY_NEED;
		gpu_set shared = service->gpus & gpus;
		bool is_itself = planner->request->relieve && planner->is_needed[i];
		bool ends = service->leaving && !keeps_commitment(planner, i);
		if (!service->live || ends || planner->is_renewed[i] || is_itself || shared == 0)
			continue;
		if (!planner->is_needed[i] && may_evict_unneeded(planner->request, service, &why))
			continue;
		add_blocker(
			plan, why, i, __builtin_ctzll(shared), most_committed(service), service->definition->priority);
	}
	for (size_t i = 0; i < planner->search.n_items; i++) {
		const struct item *item = &planner->search.items[i];
		if (item->service != plan->needed_service && item->service != PLAN_NO_SERVICE &&
			(item->candidates & gpus) != 0)
			add_blocker(plan, BLOCKED_BY_NEED, item->service, -1,
				snapshot->services[item->service].definition->vram.mib,
				snapshot->services[item->service].definition->priority);
	}
}

/* What runs there already takes more than there is, whatever may be evicted. */
static int write_overfull(struct planner *planner, struct plan *plan)
{
	size_t service = planner->request->needs[0];
	const struct plan_service *there = &planner->snapshot->services[service];
	plan->needed_service = service;
	plan->needed_mib = most_committed(there);
	plan->best_mib = INT64_MAX;
	for (gpu_set rest = planner->relied; rest != 0; rest &= rest - 1) {
		unsigned gpu = (unsigned)__builtin_ctzll(rest);
		int64_t left = planner->search.room[gpu] + there->committed_mib[gpu];
		if (left < plan->best_mib)
			plan->best_mib = left;
	}
	add_service_blockers(planner, planner->relied, plan);
	add_memory_blockers(planner, planner->relied, plan);
	return PLAN_REFUSED;
}

/* No card could hold it even when empty. */
static bool is_hopeless(const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_blockers; i++)
		if (plan->blockers[i].reason == BLOCKED_BY_SIZE || plan->blockers[i].reason == BLOCKED_BY_NO_GPU)
			return true;
	return false;
}

/* Where it might stand, were nobody there; also where only others' leases keep it from. */
static gpu_set places_of_blockers(const struct planner *planner, const struct item *item)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	const struct plan_service *service =
		item->service == PLAN_NO_SERVICE ? NULL : &snapshot->services[item->service];
	gpu_set barred = service == NULL ? 0 : service->barred & service->definition->allowed;
	return item->candidates | (barred & present_gpus(snapshot));
}

/* With every permitted victim already taken out of the room. */
static int write_refusal(struct planner *planner, struct plan *plan)
{
	const struct plan_snapshot *snapshot = planner->snapshot;
	plan->blockers = calloc(
		snapshot->n_services + 4 * snapshot->n_gpus + planner->request->n_needs + 2, sizeof(plan->blockers[0]));
	if (plan->blockers == NULL)
		return -ENOMEM;
	if (planner->search.n_items == 0)
		return write_overfull(planner, plan);
	const struct item *item = find_unplaced(planner);
	describe_unplaced(planner, item, plan);
	add_gpu_blockers(planner, item, plan);
	if (is_hopeless(plan))
		return PLAN_REFUSED; /* whose going would help, if nobody's does? */
	gpu_set places = places_of_blockers(planner, item);
	add_service_blockers(planner, places, plan);
	add_memory_blockers(planner, places, plan);
	return PLAN_REFUSED;
}

/* What the request relies on stands where another transition is at work. */
static int write_locked(struct planner *planner, struct plan *plan)
{
	plan->blockers = calloc(planner->request->n_needs, sizeof(plan->blockers[0]));
	if (plan->blockers == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < planner->request->n_needs; i++) {
		size_t index = planner->request->needs[i];
		const struct plan_service *service = &planner->snapshot->services[index];
		if ((service->gpus & ~planner->request->usable) != 0)
			add_blocker(plan, BLOCKED_BY_TRANSITION, index, __builtin_ctzll(service->gpus),
				most_committed(service), service->definition->priority);
	}
	plan->needed_service = planner->request->needs[0];
	return PLAN_REFUSED;
}

/* Whether something that must stay or be restarted stands on GPUs that may not be touched now. */
static bool relies_on_unusable(const struct planner *planner)
{
	for (size_t i = 0; i < planner->request->n_needs; i++) {
		const struct plan_service *service = &planner->snapshot->services[planner->request->needs[i]];
		if (service->live && (service->gpus & ~planner->request->usable) != 0)
			return true;
	}
	return false;
}

/* What is to be started anew is stopped first, and that nobody does to what is in use, or kept by somebody. */
static bool is_renewal_barred(const struct planner *planner, size_t need, enum plan_blocker_reason *ret_why)
{
	const struct plan_service *service = &planner->snapshot->services[need];
	bool is_kept_back = service->hindered && !planner->request->restart;
	*ret_why = is_kept_back ? BLOCKED_BY_HINDRANCE : BLOCKED_BY_USE;
	return planner->is_renewed[need] && !service->reserved &&
		(is_kept_back || is_in_use(planner->request, service));
}

static int write_barred(struct planner *planner, struct plan *plan)
{
	enum plan_blocker_reason why;
	plan->blockers = calloc(planner->request->n_needs, sizeof(plan->blockers[0]));
	if (plan->blockers == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < planner->request->n_needs; i++) {
		size_t index = planner->request->needs[i];
		const struct plan_service *service = &planner->snapshot->services[index];
		if (!is_renewal_barred(planner, index, &why))
			continue;
		add_blocker(plan, why, index, service->gpus != 0 ? __builtin_ctzll(service->gpus) : -1,
			most_committed(service), service->definition->priority);
		plan->needed_service = index;
	}
	return PLAN_REFUSED;
}

static int decide(struct planner *planner, struct plan *plan)
{
	enum plan_blocker_reason why;
	sort_needs(planner);
	if (relies_on_unusable(planner))
		return write_locked(planner, plan);
	for (size_t i = 0; i < planner->request->n_needs; i++)
		if (is_renewal_barred(planner, planner->request->needs[i], &why))
			return write_barred(planner, plan);
	find_initial_room(planner);
	if (planner->search.n_items == 0 && !planner->request->relieve)
		return write_plan(planner, plan);
	collect_victims(planner);
	take_victims(planner, 0, planner->n_victims, 1);
	if (!fits(planner))
		return write_refusal(planner, plan);
	choose_beginning(planner);
	spare_unnecessary(planner);
	planner->search.plan_nodes = 0;
	if (!fits(planner)) /* leaves the placement of every item behind; it fitted a moment ago */
		return write_refusal(planner, plan);
	return write_plan(planner, plan);
}

int plan_make(const struct plan_snapshot *snapshot, const struct plan_request *request, struct plan *ret_plan)
{
	size_t n_services = snapshot->n_services;
	CLEANUP_FREE bool *is_needed = calloc(n_services + 1, sizeof(bool));
	CLEANUP_FREE bool *is_renewed = calloc(n_services + 1, sizeof(bool));
	CLEANUP_FREE size_t *victims = calloc(n_services + 1, sizeof(size_t));
	CLEANUP_FREE struct item *items = calloc(request->n_needs + 2, sizeof(struct item));
	if (is_needed == NULL || is_renewed == NULL || victims == NULL || items == NULL)
		return -ENOMEM;
	struct planner planner = {
		.snapshot = snapshot,
		.request = request,
		.search = { .snapshot = snapshot, .room_mib = request->room_mib, .items = items },
		.is_needed = is_needed,
		.is_renewed = is_renewed,
		.victims = victims,
	};
	struct plan plan = { .needed_service = PLAN_NO_SERVICE };
	int result = decide(&planner, &plan);
	if (result < 0)
		plan_finish(&plan);
	else
		*ret_plan = plan;
	return result;
}

void plan_finish(struct plan *plan)
{
	free(plan->steps);
	free(plan->blockers);
	*plan = (struct plan){ .needed_service = PLAN_NO_SERVICE };
}
