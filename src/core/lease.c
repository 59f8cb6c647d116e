/*
 * Leases from their claim to their end: who has what, for how long, and who is told. Must not decide whose turn it is
 * (turn.c) nor who may break what (contention.c).
 */
#include "core/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

const char *lease_mode_name(enum lease_mode mode)
{
	static const char *const names[] = {
		[LEASE_EXCLUSIVE] = "exclusive",
		[LEASE_SHARED] = "shared",
		[LEASE_GPU] = "gpu",
	};
	return names[mode];
}

const char *lease_end_name(enum lease_end end)
{
	static const char *const names[] = {
		[LEASE_RELEASED] = "released",
		[LEASE_DETACHED] = "detached",
		[LEASE_EXPIRED] = "expired",
		[LEASE_BROKEN] = "broken",
		[LEASE_FORCED] = "forced",
		[LEASE_ABANDONED] = "abandoned",
		[LEASE_LOCK_LOST] = "lock_lost",
		[LEASE_UNCLAIMED] = "unclaimed",
		[LEASE_UNCONFIGURED] = "unconfigured",
	};
	return names[end];
}

/* ---- records ---- */

static struct tenure *tenure_free(struct tenure *tenure)
{
	if (tenure == NULL)
		return NULL;
	free(tenure->lease.services);
	free(tenure);
	return NULL;
}

/* Room for one more in both lists, so that nothing can go wrong when a lease begins or ends. */
static int reserve(struct engine *engine)
{
	size_t wanted = engine->n_leases + engine->n_claims + engine->n_ended + 1;
	if (wanted <= engine->leases_capacity)
		return 0;
	size_t capacity = 2 * wanted + 16;
	struct lease **held = realloc(engine->leases, capacity * sizeof(held[0]));
	if (held == NULL)
		return -ENOMEM;
	engine->leases = held;
	struct lease **ended = realloc(engine->ended, capacity * sizeof(ended[0]));
	if (ended == NULL)
		return -ENOMEM;
	engine->ended = ended;
	engine->leases_capacity = capacity;
	return 0;
}

static struct tenure *tenure_new(struct engine *engine, size_t n_services, const size_t *services)
{
	if (reserve(engine) < 0)
		return NULL;
	struct tenure *tenure = calloc(1, sizeof(*tenure));
	if (tenure == NULL)
		return NULL;
	tenure->lease.services = calloc(n_services + 1, sizeof(tenure->lease.services[0]));
	if (tenure->lease.services == NULL)
		return tenure_free(tenure);
	if (n_services > 0)
		memcpy(tenure->lease.services, services, n_services * sizeof(services[0]));
	tenure->lease.n_services = n_services;
	tenure->lease.room_base_mib = GPU_MIB_UNKNOWN;
	tenure->lease.expires_ms = DEADLINE_NONE;
	tenure->lease.breaks_ms = DEADLINE_NONE;
	tenure->entitled_ms = DEADLINE_NONE;
	return tenure;
}

void lease_free_all(struct engine *engine)
{
	lease_free_ended(engine);
	for (size_t i = 0; i < engine->n_running; i++)
		tenure_free((struct tenure *)engine->running[i]->claim);
	for (size_t i = 0; i < engine->n_leases; i++)
		tenure_free((struct tenure *)engine->leases[i]);
	free(engine->leases);
	free(engine->ended);
}

void lease_free_ended(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_ended; i++)
		tenure_free((struct tenure *)engine->ended[i]);
	engine->n_ended = 0;
}

/* The held ones are in the order of their fences. */
static size_t find_place(const struct engine *engine, uint64_t fence)
{
	size_t low = 0, high = engine->n_leases;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (engine->leases[middle]->fence < fence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct lease *lease_find(const struct engine *engine, uint64_t fence)
{
	size_t place = find_place(engine, fence);
	bool is_there = place < engine->n_leases && engine->leases[place]->fence == fence;
	return is_there ? engine->leases[place] : NULL;
}

bool lease_has_service(const struct lease *lease, size_t service)
{
	for (size_t i = 0; i < lease->n_services; i++)
		if (lease->services[i] == service)
			return true;
	return false;
}

gpu_set lease_gpus(const struct engine *engine, const struct service *service)
{
	gpu_set gpus = 0;
	for (size_t i = 0; service->leases > 0 && i < engine->n_leases; i++)
		if (lease_has_service(engine->leases[i], service->index))
			gpus |= engine->leases[i]->gpus;
	return gpus;
}

/* ---- what it takes and gives back ---- */

static void count_in(struct engine *engine, const struct lease *lease, int sign)
{
	engine->n_leased += (size_t)sign * lease->n_services;
	for (size_t i = 0; i < lease->n_services; i++) {
		struct service *service = &engine->services[lease->services[i]];
		service->leases += (unsigned)sign;
		if (lease->mode != LEASE_SHARED)
			service->sole_leases += (unsigned)sign;
	}
	for (gpu_set rest = lease->gpus; rest != 0; rest &= rest - 1) {
		struct card *card = &engine->cards[__builtin_ctzll(rest)];
		card->n_leases += (unsigned)sign;
		if (lease->mode == LEASE_GPU)
			card->n_gpu_leases += (unsigned)sign;
		if (card->n_leases > 0)
			engine->leased_gpus |= rest & -rest;
		else
			engine->leased_gpus &= ~(rest & -rest);
	}
}

static void take(struct engine *engine, struct lease *lease)
{
	count_in(engine, lease, 1);
	for (gpu_set rest = lease->room_mib > 0 ? lease->gpus : 0; rest != 0; rest &= rest - 1)
		ledger_take_room(engine, (size_t)__builtin_ctzll(rest), lease);
	for (size_t i = 0; i < lease->n_services; i++)
		lifecycle_settle_use(engine, &engine->services[lease->services[i]]);
}

static void give_back(struct engine *engine, struct lease *lease)
{
	count_in(engine, lease, -1);
	for (gpu_set rest = lease->room_mib > 0 ? lease->gpus : 0; rest != 0; rest &= rest - 1)
		ledger_give_room(engine, (size_t)__builtin_ctzll(rest), lease->room_mib);
	for (size_t i = 0; i < lease->n_services; i++) {
		struct service *service = &engine->services[lease->services[i]];
		service->last_used_ms = engine->now_ms;
		/* It was kept for the lease although nothing of it runs; what is about to be started is another's. */
		if (service->leases == 0 && !service->alive && !transition_will_start(engine, service))
			service->committed = false;
		lifecycle_settle_use(engine, service);
	}
}

/* Of a claim nobody keeps anything yet. */
static void note_move(struct engine *engine, struct lease *lease)
{
	bool is_held = lease->fence != 0;
	((struct tenure *)lease)->has_moved |= is_held;
	engine->have_moved |= is_held;
}

static void move_to(struct engine *engine, struct lease *lease, gpu_set gpus)
{
	if (gpus == lease->gpus)
		return;
	count_in(engine, lease, -1);
	lease->gpus = gpus;
	count_in(engine, lease, 1);
	note_move(engine, lease);
}

static void learn_base(struct engine *engine, struct lease *lease, size_t gpu, uint32_t mib)
{
	if (lease->room_mib == 0 || lease->room_base_mib != GPU_MIB_UNKNOWN || (lease->gpus & GPU_BIT(gpu)) == 0)
		return;
	lease->room_base_mib = mib;
	note_move(engine, lease);
}

void lease_learn_base(struct engine *engine, size_t gpu, uint32_t mib)
{
	for (size_t i = 0; i < engine->n_leases; i++)
		learn_base(engine, engine->leases[i], gpu, mib);
	for (size_t i = 0; i < engine->n_running; i++)
		if (engine->running[i]->claim != NULL)
			learn_base(engine, engine->running[i]->claim, gpu, mib);
}

/* Where the services of a claim stand or will; what is started anew elsewhere gives its old place up. */
static gpu_set claimed_gpus(const struct engine *engine, const struct request *request)
{
	const struct lease *claim = request->claim;
	gpu_set gpus = 0;
	for (size_t i = 0; i < claim->n_services; i++) {
		const struct service *service = &engine->services[claim->services[i]];
		if (service->alive || service->committed)
			gpus |= ledger_gpus(engine, service);
	}
	for (size_t i = 0; i < request->record.n_steps; i++)
		if (request->record.steps[i].plan.action == PLAN_START)
			gpus |= request->record.steps[i].plan.gpus;
	return gpus;
}

void lease_follow_service(struct engine *engine, const struct service *service)
{
	/* Its holder was told of the GPUs and may count on them: a lease never gives one up. */
	for (size_t i = 0; service->leases > 0 && i < engine->n_leases; i++)
		if (lease_has_service(engine->leases[i], service->index))
			move_to(engine, engine->leases[i], engine->leases[i]->gpus | service->gpus);
	for (size_t i = 0; service->leases > 0 && i < engine->n_running; i++) {
		struct lease *claim = engine->running[i]->claim;
		if (claim != NULL && lease_has_service(claim, service->index))
			move_to(engine, claim, claimed_gpus(engine, engine->running[i]));
	}
}

/* ---- claims ---- */

int lease_claim(struct engine *engine, struct request *request, const struct plan *plan)
{
	const struct lease_terms *terms = request->record.spec.lease;
	struct tenure *tenure = tenure_new(engine, terms->n_services, terms->services);
	if (tenure == NULL)
		return -ENOMEM;
	struct lease *lease = &tenure->lease;
	lease->mode = terms->mode;
	lease->phase = terms->phase;
	lease->gpus = plan->room_gpu;
	for (size_t i = 0; i < plan->n_steps; i++)
		if (plan->steps[i].action == PLAN_START)
			lease->gpus |= plan->steps[i].gpus;
	for (size_t i = 0; i < terms->n_services; i++) {
		const struct service *service = &engine->services[terms->services[i]];
		if (service->alive)
			lease->gpus |= ledger_gpus(engine, service);
	}
	lease->room_mib = terms->room_mib;
	lease->priority = request->record.priority;
	lease->attached = terms->attached;
	lease->ttl_ms = terms->attached ? 0 : terms->ttl_ms;
	snprintf(lease->owner, sizeof(lease->owner), "%s", terms->owner);
	snprintf(lease->request_id, sizeof(lease->request_id), "%s", terms->request_id);
	request->claim = lease;
	engine->n_claims++;
	take(engine, lease);
	return 0;
}

void lease_drop_claim(struct engine *engine, struct request *request)
{
	struct lease *lease = request->claim;
	if (lease == NULL)
		return;
	request->claim = NULL;
	engine->n_claims--;
	give_back(engine, lease);
	engine->ended[engine->n_ended++] = lease;
}

/* ---- news ---- */

static void tell(struct engine *engine, const struct lease *lease, enum lease_news news, const char *text)
{
	struct effect *effect = effect_add(engine, EFFECT_LEASE);
	effect->lease.lease = lease;
	effect->lease.news = news;
	effect->lease.text = text;
	engine->version++;
}

const char *lease_describe(const struct engine *engine, const struct lease *lease, char *buffer, size_t size)
{
	int used = snprintf(buffer, size, "%s lease", lease_mode_name(lease->mode));
	const char *separator = " on ";
	for (size_t i = 0; i < lease->n_services && used > 0 && (size_t)used < size; i++) {
		used += snprintf(buffer + used, size - (size_t)used, "%s%s", separator,
			engine->services[lease->services[i]].definition.name);
		separator = ", ";
	}
	if (lease->room_mib > 0 && used > 0 && (size_t)used < size)
		snprintf(buffer + used, size - (size_t)used, " of %" PRIu32 " MiB", lease->room_mib);
	return buffer;
}

static struct notice *begin_notice(struct engine *engine, const struct lease *lease, const char *state)
{
	char id[24];
	struct notice *notice = notice_begin(engine, "lease", lease->owner);
	if (notice == NULL)
		return NULL;
	snprintf(id, sizeof(id), "%" PRIu64, lease->fence);
	notice_add_text(notice, "id", id);
	notice_add_text(notice, "state", state);
	notice_add_text(notice, "mode", lease_mode_name(lease->mode));
	return notice;
}

static void publish_grant(struct engine *engine, const struct lease *lease)
{
	char what[160];
	struct notice *notice = begin_notice(engine, lease, "granted");
	if (notice == NULL)
		return;
	snprintf(notice->text, sizeof(notice->text), "lease %" PRIu64 ": %s granted to %s", lease->fence,
		lease_describe(engine, lease, what, sizeof(what)), lease->owner);
}

static void publish_end(struct engine *engine, const struct lease *lease, const char *text)
{
	struct notice *notice = begin_notice(engine, lease, "ended");
	if (notice == NULL)
		return;
	notice->is_problem = lease->end != LEASE_RELEASED && lease->end != LEASE_DETACHED;
	notice_add_text(notice, "reason", lease_end_name(lease->end));
	snprintf(notice->text, sizeof(notice->text), "lease %" PRIu64 " of %s: %s%s%s", lease->fence, lease->owner,
		lease_end_name(lease->end), text[0] != '\0' ? ": " : "", text);
}

void lease_tell_moved(struct engine *engine)
{
	for (size_t i = 0; engine->have_moved && i < engine->n_leases; i++) {
		struct tenure *tenure = (struct tenure *)engine->leases[i];
		if (tenure->has_moved)
			tell(engine, &tenure->lease, LEASE_NEWS_MOVED, "");
		tenure->has_moved = false;
	}
	engine->have_moved = false;
}

void lease_tell_wanted(struct engine *engine, const struct lease *lease)
{
	tell(engine, lease, LEASE_NEWS_WANTED, "somebody waits for it");
	struct notice *notice = begin_notice(engine, lease, "wanted");
	if (notice == NULL)
		return;
	notice_add_text(notice, "by", lease->wanted_by);
	snprintf(notice->text, sizeof(notice->text), "lease %" PRIu64 " of %s is wanted by %s", lease->fence,
		lease->owner, lease->wanted_by);
}

void lease_tell_failed(struct engine *engine, const struct service *service)
{
	for (size_t i = 0; service->leases > 0 && i < engine->n_leases; i++)
		if (lease_has_service(engine->leases[i], service->index))
			tell(engine, engine->leases[i], LEASE_NEWS_SERVICE_FAILED, service->definition.name);
}

/* ---- life ---- */

static void note_deadline(struct engine *engine, const struct lease *lease)
{
	if (lease->expires_ms < engine->lease_deadline_ms)
		engine->lease_deadline_ms = lease->expires_ms;
}

/* The time that a TTL gives from now on. */
static uint64_t expiry(const struct engine *engine, uint64_t ttl_ms)
{
	uint64_t most = DEADLINE_NONE - 1 - engine->now_ms;
	return engine->now_ms + (ttl_ms < most ? ttl_ms : most);
}

static void insert(struct engine *engine, struct lease *lease)
{
	size_t place = find_place(engine, lease->fence);
	memmove(&engine->leases[place + 1], &engine->leases[place],
		(engine->n_leases - place) * sizeof(engine->leases[0]));
	engine->leases[place] = lease;
	engine->n_leases++;
	note_deadline(engine, lease);
}

const struct lease *lease_grant(struct engine *engine, struct request *request, uint64_t fence)
{
	struct lease *lease = request->claim;
	request->claim = NULL;
	engine->n_claims--;
	lease->fence = fence;
	lease->granted_ms = engine->now_ms;
	if (!lease->attached)
		lease->expires_ms = expiry(engine, lease->ttl_ms);
	for (size_t i = 0; i < lease->n_services; i++) {
		struct service *service = &engine->services[lease->services[i]];
		service->was_leased = true;
		service->last_used_ms = engine->now_ms;
	}
	insert(engine, lease);
	publish_grant(engine, lease);
	tell(engine, lease, LEASE_NEWS_GRANTED, "");
	return lease;
}

void lease_end(struct engine *engine, struct lease *lease, enum lease_end end, const char *text)
{
	size_t place = find_place(engine, lease->fence);
	memmove(&engine->leases[place], &engine->leases[place + 1],
		(engine->n_leases - place - 1) * sizeof(engine->leases[0]));
	engine->n_leases--;
	engine->ended[engine->n_ended++] = lease;
	lease->end = end;
	tell(engine, lease, LEASE_NEWS_ENDED, text);
	publish_end(engine, lease, text);
	give_back(engine, lease);
}

void lease_end_all(struct engine *engine, enum lease_end end, const char *text)
{
	while (engine->n_leases > 0)
		lease_end(engine, engine->leases[0], end, text);
}

void lease_end_on_service(struct engine *engine, const struct service *service, enum lease_end end, const char *text)
{
	for (size_t i = 0; service->leases > 0 && i < engine->n_leases;) {
		struct lease *lease = engine->leases[i];
		if (lease_has_service(lease, service->index))
			lease_end(engine, lease, end, text);
		else
			i++;
	}
}

static void renew(struct engine *engine, struct lease *lease, uint64_t ttl_ms)
{
	if (lease->attached)
		return;
	if (ttl_ms != 0)
		lease->ttl_ms = ttl_ms < LEASE_TTL_MAX_MS ? ttl_ms : LEASE_TTL_MAX_MS;
	lease->expires_ms = expiry(engine, lease->ttl_ms);
	note_deadline(engine, lease);
	tell(engine, lease, LEASE_NEWS_RENEWED, "");
}

/* Nothing of it is left; it was kept so that its holder hears why. */
static bool is_void(const struct lease *lease)
{
	return lease->n_services == 0 && lease->room_mib == 0;
}

static void come_back(struct engine *engine, struct lease *lease)
{
	lease->awaits_holder = false;
	lease->expires_ms = DEADLINE_NONE;
	if (is_void(lease)) {
		lease_end(engine, lease, LEASE_UNCONFIGURED, "none of its services is configured any more");
		return;
	}
	tell(engine, lease, LEASE_NEWS_RENEWED, "");
	if (lease->gone[0] != '\0')
		tell(engine, lease, LEASE_NEWS_SERVICES_GONE, lease->gone);
}

void lease_handle(struct engine *engine, const struct event *event)
{
	if (event->kind == EVENT_UNLOCK) {
		lease_end_all(engine, LEASE_FORCED, "all leases were ended by force");
		return;
	}
	struct lease *lease = lease_find(engine, event->lease.fence);
	if (lease == NULL)
		return; /* it ended meanwhile */
	switch (event->kind) {
	case EVENT_RELEASE:
		lease_end(engine, lease, LEASE_RELEASED, "");
		break;
	case EVENT_DETACH:
		if (lease->attached)
			lease_end(engine, lease, LEASE_DETACHED, "its connection closed");
		break;
	case EVENT_RENEW:
		renew(engine, lease, event->lease.ttl_ms);
		break;
	case EVENT_ATTACH:
		if (lease->awaits_holder)
			come_back(engine, lease);
		break;
	default:
		break;
	}
}

void lease_tick(struct engine *engine)
{
	if (engine->now_ms < engine->lease_deadline_ms)
		return;
	engine->lease_deadline_ms = DEADLINE_NONE;
	for (size_t i = 0; i < engine->n_leases;) {
		struct lease *lease = engine->leases[i];
		if (lease->expires_ms > engine->now_ms) {
			note_deadline(engine, lease);
			i++;
		} else if (lease->awaits_holder) {
			lease_end(engine, lease, LEASE_ABANDONED, "its holder did not come back after a restart");
		} else {
			lease_end(engine, lease, LEASE_EXPIRED, "its time was over and it was not renewed");
		}
	}
}

/* ---- after a restart ---- */

static bool fits_configuration(const struct engine *engine, const struct lease *lease)
{
	for (size_t i = 0; i < lease->n_services; i++)
		if (lease->services[i] >= engine->n_services)
			return false;
	bool is_for_its_holder = lease->attached && lease->gone[0] != '\0';
	return lease->fence != 0 && (!is_void(lease) || is_for_its_holder);
}

/*
 * Which of a lease's GPUs each of several services had is not kept, so the first ones that it may use; all of them as
 * long as it is not known which these are.
 */
static gpu_set choose_gpus(const struct service *service, gpu_set gpus)
{
	const struct service_definition *definition = &service->definition;
	return definition->allowed == 0 ? gpus : gpu_set_first(gpus & definition->allowed, definition->gpu_count);
}

static void reserve_service(struct service *service, gpu_set gpus)
{
	service->committed = true;
	service->was_leased = true;
	service->gpus |= choose_gpus(service, gpus);
}

void lease_place_service(struct engine *engine, struct service *service, gpu_set allowed_before)
{
	bool is_of_before = !service->alive || service->adopted;
	bool is_vague = allowed_before == 0 || gpu_set_count(service->gpus) < service->definition.gpu_count;
	if (service->leases == 0 || !is_of_before || !is_vague)
		return;
	service->gpus = choose_gpus(service, service->gpus | lease_gpus(engine, service));
	engine->version++;
}

int engine_restore_lease(struct engine *engine, const struct lease *lease, uint64_t now_ms, uint64_t grace_ms)
{
	if (!fits_configuration(engine, lease) || lease_find(engine, lease->fence) != NULL)
		return -EINVAL;
	struct tenure *tenure = tenure_new(engine, lease->n_services, lease->services);
	if (tenure == NULL)
		return -ENOMEM;
	struct lease *restored = &tenure->lease;
	size_t *services = restored->services;
	*restored = *lease;
	restored->services = services;
	restored->is_wanted = false;
	restored->breaks_ms = DEADLINE_NONE;
	restored->awaits_holder = lease->attached;
	if (lease->attached)
		restored->expires_ms = now_ms + grace_ms;
	engine->now_ms = now_ms;
	for (size_t i = 0; i < restored->n_services; i++)
		reserve_service(&engine->services[services[i]], lease->gpus);
	take(engine, restored);
	insert(engine, restored);
	return 0;
}

const struct lease *engine_lease(const struct engine *engine, uint64_t fence)
{
	return lease_find(engine, fence);
}
