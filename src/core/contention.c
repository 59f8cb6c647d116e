/*
 * Who stands in whose way by a lease: what a request has to wait for, whose holder is warned of that, what may be
 * broken for it and when, and who waits for himself in the end. Must not end or grant anything by itself, but for what
 * is broken when a request begins.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

/* ---- rights ---- */

static const struct lease_terms *terms_of(const struct request *request)
{
	return request->record.spec.kind == REQUEST_LEASE ? request->record.spec.lease : NULL;
}

static bool is_entitled(const struct engine *engine, const struct lease *lease, const struct request *request)
{
	const struct request_spec *spec = &request->record.spec;
	if (!locking_permits(engine, request))
		return false; /* it could not begin in its place */
	if (spec->kind == REQUEST_PHASE)
		return true;
	return !request_is_stop(spec) && request->record.priority > lease->priority;
}

/* How long a lease is spared once somebody entitled waits for `service`; for all that it holds with CONTENTION_WHOLE.
 */
#define CONTENTION_WHOLE SIZE_MAX

static int64_t grace(const struct engine *engine, const struct lease *lease, size_t service)
{
	if (service != CONTENTION_WHOLE)
		return engine->services[service].definition.preempt_after_ms;
	int64_t longest = lease->n_services > 0 ? 0 : NEVER_MS;
	for (size_t i = 0; i < lease->n_services; i++) {
		int64_t after = engine->services[lease->services[i]].definition.preempt_after_ms;
		if (after > longest)
			longest = after;
	}
	return longest;
}

/*
 * When the next service of it may be taken from its holder, be that another one than somebody waits for now: then there
 * is another plan.
 */
static uint64_t next_break(const struct engine *engine, const struct tenure *tenure, uint64_t from_ms)
{
	uint64_t next = DEADLINE_NONE;
	for (size_t i = 0; tenure->entitled_ms != DEADLINE_NONE && i < tenure->lease.n_services; i++) {
		int64_t after = grace(engine, &tenure->lease, tenure->lease.services[i]);
		uint64_t at = tenure->entitled_ms + (uint64_t)after;
		if (after != NEVER_MS && at >= from_ms && at < next)
			next = at;
	}
	return next;
}

static bool may_break(
	const struct engine *engine, const struct lease *lease, const struct request *request, size_t service)
{
	const struct tenure *tenure = (const struct tenure *)lease;
	int64_t after = grace(engine, lease, service);
	return after != NEVER_MS && is_entitled(engine, lease, request) && tenure->entitled_ms != DEADLINE_NONE &&
		engine->now_ms - tenure->entitled_ms >= (uint64_t)after;
}

/* Whether all leases there, claims among them, may be broken. */
static bool may_break_on_service(const struct engine *engine, const struct request *request, size_t service)
{
	unsigned n = 0;
	if (engine->services[service].definition.preempt_after_ms == NEVER_MS)
		return false;
	for (size_t i = 0; i < engine->n_leases; i++)
		if (lease_has_service(engine->leases[i], service) &&
			may_break(engine, engine->leases[i], request, service))
			n++;
	return n == engine->services[service].leases;
}

static bool meets_on_gpu(const struct lease *lease, const struct lease_terms *terms, gpu_set gpus)
{
	return (lease->gpus & gpus) != 0 && (lease->mode == LEASE_GPU || terms->mode == LEASE_GPU);
}

static bool may_break_on_gpu(const struct engine *engine, const struct request *request, size_t gpu)
{
	const struct lease_terms *terms = terms_of(request);
	const struct card *card = &engine->cards[gpu];
	unsigned n = 0;
	for (size_t i = 0; i < engine->n_leases; i++)
		if (meets_on_gpu(engine->leases[i], terms, GPU_BIT(gpu)) &&
			may_break(engine, engine->leases[i], request, CONTENTION_WHOLE))
			n++;
	return n == (terms->mode == LEASE_GPU ? card->n_leases : card->n_gpu_leases);
}

/* ---- what is in the way ---- */

/* As many share it as may; one of them has to end. */
static bool is_full(const struct service *service, const struct lease_terms *terms)
{
	return terms->mode == LEASE_SHARED && service->leases >= service->definition.max_leases;
}

static bool is_excluded(const struct service *service, const struct lease_terms *terms)
{
	return terms->mode == LEASE_SHARED ? service->sole_leases > 0 : service->leases > 0;
}

bool contention_blocks(const struct engine *engine, const struct request *request)
{
	const struct lease_terms *terms = terms_of(request);
	for (size_t i = 0; terms != NULL && i < terms->n_services; i++) {
		size_t service = terms->services[i];
		if (is_full(&engine->services[service], terms))
			return true;
		if (is_excluded(&engine->services[service], terms) && !may_break_on_service(engine, request, service))
			return true;
	}
	return false;
}

gpu_set contention_gpus(const struct engine *engine, const struct request *request)
{
	const struct lease_terms *terms = terms_of(request);
	gpu_set excluded = 0;
	for (gpu_set rest = terms != NULL ? engine->leased_gpus : 0; rest != 0; rest &= rest - 1) {
		size_t gpu = (size_t)__builtin_ctzll(rest);
		const struct card *card = &engine->cards[gpu];
		unsigned n = terms->mode == LEASE_GPU ? card->n_leases : card->n_gpu_leases;
		if (n > 0 && !may_break_on_gpu(engine, request, gpu))
			excluded |= GPU_BIT(gpu);
	}
	return excluded;
}

static bool holds(const struct request *request, uint64_t fence)
{
	const struct lease_terms *terms = terms_of(request);
	for (size_t i = 0; terms != NULL && i < terms->n_holding; i++)
		if (terms->holding[i] == fence)
			return true;
	return false;
}

static bool is_own(const struct engine *engine, const struct request *request, size_t service)
{
	const struct lease_terms *terms = terms_of(request);
	for (size_t i = 0; terms != NULL && i < terms->n_holding; i++) {
		const struct lease *lease = lease_find(engine, terms->holding[i]);
		if (lease != NULL && lease_has_service(lease, service))
			return true;
	}
	return false;
}

/* Whoever says twice that he holds it holds it once. */
static bool is_named_before(const struct lease_terms *terms, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (terms->holding[i] == terms->holding[index])
			return true;
	return false;
}

static void describe_own_room(struct engine *engine, const struct lease_terms *terms)
{
	for (size_t i = 0; i < terms->n_holding; i++) {
		const struct lease *lease = lease_find(engine, terms->holding[i]);
		if (lease == NULL || lease->room_mib == 0 || is_named_before(terms, i))
			continue;
		for (gpu_set rest = lease->gpus; rest != 0; rest &= rest - 1)
			engine->plan_gpus[__builtin_ctzll(rest)].own_room_mib += lease->room_mib;
	}
}

void contention_describe(struct engine *engine, const struct request *request)
{
	if (terms_of(request) != NULL)
		describe_own_room(engine, terms_of(request));
	for (size_t i = 0; i < engine->n_services; i++) {
		if (engine->services[i].leases == 0)
			continue;
		engine->plan_services[i].breakable = may_break_on_service(engine, request, i);
		engine->plan_services[i].own = is_own(engine, request, i);
	}
}

#define CIRCLE_STEPS_MAX 100000 /* of one look down the queue; a circle beyond that ends when somebody's wait does */

/* ---- who is waited for ---- */

void contention_begin_pass(struct engine *engine)
{
	engine->look++;
	engine->is_look_over = false;
	engine->circle_steps = CIRCLE_STEPS_MAX;
	for (size_t i = 0; i < engine->n_leases; i++) {
		struct tenure *tenure = (struct tenure *)engine->leases[i];
		tenure->waiter = NULL;
		tenure->breaker = NULL;
	}
}

static void warn(struct engine *engine, struct lease *lease, const struct request *by)
{
	explain_request(&engine->names, &by->record.spec, lease->wanted_by, sizeof(lease->wanted_by));
	lease_tell_wanted(engine, lease);
}

/*
 * Nobody waits for it any more, or nobody who may break it: the next one who does begins anew. Its holder is warned
 * when somebody begins to wait, and once more when somebody does who may break it.
 */
static void settle(struct engine *engine, struct tenure *tenure)
{
	struct lease *lease = &tenure->lease;
	bool is_wanted = tenure->waiter != NULL;
	bool is_threat = tenure->breaker != NULL && lease->breaks_ms == DEADLINE_NONE;
	bool is_news = is_threat || (is_wanted && !lease->is_wanted);
	if (lease->is_wanted != is_wanted) {
		lease->is_wanted = is_wanted;
		lease->wanted_ms = engine->now_ms;
		engine->version++;
	}
	lease->breaks_ms = tenure->breaker != NULL ? tenure->breaker_ms : DEADLINE_NONE;
	if (tenure->breaker == NULL)
		tenure->entitled_ms = DEADLINE_NONE;
	if (is_news)
		warn(engine, lease, is_threat ? tenure->breaker : tenure->waiter);
}

void contention_end_pass(struct engine *engine)
{
	engine->last_look = engine->look;
	engine->is_look_over = true;
}

/* Not at the end of each look: of who comes and goes within one event nobody needs to hear. */
void contention_settle(struct engine *engine)
{
	if (!engine->is_look_over)
		return;
	engine->is_look_over = false;
	engine->break_deadline_ms = DEADLINE_NONE;
	engine->n_wanted = 0;
	for (size_t i = 0; i < engine->n_leases; i++) {
		const struct lease *lease = engine->leases[i];
		settle(engine, (struct tenure *)engine->leases[i]);
		engine->n_wanted += lease->is_wanted;
		uint64_t next = next_break(engine, (struct tenure *)engine->leases[i], engine->now_ms + 1);
		if (next < engine->break_deadline_ms)
			engine->break_deadline_ms = next;
	}
}

static void note_entitled(struct engine *engine, struct tenure *tenure, const struct request *request, int64_t after)
{
	if (tenure->entitled_ms == DEADLINE_NONE) {
		tenure->entitled_ms = engine->now_ms;
		/* No clock will come back to it. */
		engine->break_at_once |= next_break(engine, tenure, engine->now_ms) == engine->now_ms;
	}
	uint64_t breaks_ms = tenure->entitled_ms + (uint64_t)after;
	if (tenure->breaker != NULL && breaks_ms >= tenure->breaker_ms)
		return;
	tenure->breaker = request;
	tenure->breaker_ms = breaks_ms;
}

static void want(struct engine *engine, const struct request *request, struct lease *lease, size_t service)
{
	struct tenure *tenure = (struct tenure *)lease;
	int64_t after = is_entitled(engine, lease, request) ? grace(engine, lease, service) : NEVER_MS;
	if (tenure->waiter == NULL)
		tenure->waiter = request;
	if (after != NEVER_MS)
		note_entitled(engine, tenure, request, after);
}

/* What is leased stays, and what is leased and down comes up where it stood, or not at all. */
static bool is_given_up(const struct engine *engine, const struct plan_step *step)
{
	const struct service *service = &engine->services[step->service];
	if (service->leases == 0)
		return false;
	return step->action != PLAN_START || (!service->alive && (step->gpus & ~service->gpus) != 0);
}

/* Which service of the lease the plan cannot leave to it, SIZE_MAX: none. */
static size_t find_victim(const struct engine *engine, const struct lease *lease, const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_steps; i++) {
		const struct plan_step *step = &plan->steps[i];
		if (is_given_up(engine, step) && lease_has_service(lease, step->service))
			return step->service;
	}
	return SIZE_MAX;
}

/* Which service both name, where that excludes one of them; SIZE_MAX: none. */
static size_t find_rivalry(const struct engine *engine, const struct lease *lease, const struct lease_terms *terms)
{
	bool go_together = lease->mode == LEASE_SHARED && terms->mode == LEASE_SHARED;
	for (size_t i = 0; i < terms->n_services; i++) {
		const struct service *service = &engine->services[terms->services[i]];
		if (service->leases > 0 && (!go_together || is_full(service, terms)) &&
			lease_has_service(lease, terms->services[i]))
			return terms->services[i];
	}
	return SIZE_MAX;
}

/* Where the plan puts something; what it makes room around stays where it is. */
static gpu_set places(const struct request *request, const struct plan *plan)
{
	gpu_set gpus = plan->room_gpu;
	if (request->record.spec.kind == REQUEST_MAKE_ROOM)
		return plan->gpus;
	for (size_t i = 0; i < plan->n_steps; i++)
		if (plan->steps[i].action == PLAN_START)
			gpus |= plan->steps[i].gpus;
	return gpus;
}

static bool is_in_the_way(const struct engine *engine, const struct lease *lease, const struct request *request,
	const struct plan *plan, bool needs_rooms, size_t *ret_service)
{
	const struct lease_terms *terms = terms_of(request);
	*ret_service = find_victim(engine, lease, plan);
	if (*ret_service == SIZE_MAX && terms != NULL)
		*ret_service = find_rivalry(engine, lease, terms);
	if (*ret_service != SIZE_MAX)
		return true;
	*ret_service = CONTENTION_WHOLE;
	/* The plan fits beside his own room. */
	if (needs_rooms && lease->room_mib > 0 && (lease->gpus & places(request, plan)) != 0 &&
		!holds(request, lease->fence))
		return true;
	return terms != NULL && meets_on_gpu(lease, terms, plan->gpus);
}

static bool reserve_waits(const struct engine *engine, struct request *request)
{
	if (request->waits_capacity >= engine->n_leases)
		return true;
	size_t capacity = engine->n_leases + engine->n_leases / 4 + 4;
	uint64_t *waits = realloc(request->waits, capacity * sizeof(waits[0]));
	if (waits == NULL)
		return false;
	request->waits = waits;
	request->waits_capacity = capacity;
	return true;
}

void contention_collect(const struct engine *engine, struct request *request, const struct plan *plan, bool needs_rooms)
{
	size_t service;
	request->n_waits = 0;
	if (!reserve_waits(engine, request))
		return; /* warned at the next look */
	for (size_t i = 0; i < engine->n_leases; i++) {
		struct tenure *tenure = (struct tenure *)engine->leases[i];
		if (!is_in_the_way(engine, &tenure->lease, request, plan, needs_rooms, &service))
			continue;
		request->waits[request->n_waits++] = tenure->lease.fence;
		tenure->awaited_look = engine->look;
	}
}

void contention_warn(struct engine *engine, const struct request *request, const struct plan *plan, bool needs_rooms,
	char *why, size_t size)
{
	size_t service, n = 0;
	for (size_t i = 0; i < engine->n_leases; i++) {
		struct lease *lease = engine->leases[i];
		if (!is_in_the_way(engine, lease, request, plan, needs_rooms, &service))
			continue;
		if (n++ == 0)
			snprintf(why, size, "waits for lease %" PRIu64 " of %.120s", lease->fence, lease->owner);
		want(engine, request, lease, service);
	}
	size_t used = strlen(why);
	if (n > 1)
		snprintf(why + used, size - used, " and %zu more", n - 1);
}

/* Whoever loses it hears first for whom, even where no time is left to him. */
static void threaten(struct engine *engine, struct tenure *tenure, const struct request *request, size_t service)
{
	struct lease *lease = &tenure->lease;
	if (lease->breaks_ms != DEADLINE_NONE)
		return;
	lease->is_wanted = true;
	lease->wanted_ms = engine->now_ms;
	lease->breaks_ms = tenure->entitled_ms + (uint64_t)grace(engine, lease, service);
	warn(engine, lease, request);
}

void contention_break(struct engine *engine, const struct request *request, const struct plan *plan)
{
	size_t service;
	for (size_t i = 0; i < engine->n_leases;) {
		struct lease *lease = engine->leases[i];
		if (!is_in_the_way(engine, lease, request, plan, false, &service) ||
			!may_break(engine, lease, request, service)) {
			i++;
			continue;
		}
		threaten(engine, (struct tenure *)lease, request, service);
		/* Effects outlive this call; the record of the lease does so, too. */
		explain_request(&engine->names, &request->record.spec, lease->wanted_by, sizeof(lease->wanted_by));
		lease_end(engine, lease, LEASE_BROKEN, lease->wanted_by);
	}
}

/* ---- circles ---- */

static void visit(struct engine *engine, struct request *request, size_t *n)
{
	if (request->visit == engine->visits)
		return;
	request->visit = engine->visits;
	engine->worklist[(*n)++] = request;
}

/* Who holds what `from` waits for; true when that is `origin`. */
static bool follow_leases(struct engine *engine, const struct request *from, const struct request *origin, size_t *n)
{
	for (size_t i = 0; i < from->n_waits; i++) {
		if (holds(origin, from->waits[i]))
			return true;
		for (size_t j = 0; j < engine->n_queue && engine->circle_steps > 0; j++, engine->circle_steps--)
			if (engine->slots[j].holds && holds(engine->queue[j], from->waits[i]))
				visit(engine, engine->queue[j], n);
	}
	return false;
}

/* Who waits before `from` for the same service, or for it to go: he has to be done first, whatever GPUs he waits for.
 */
static void follow_marks(struct engine *engine, const struct request *from, size_t *n)
{
	const struct lease_terms *terms = terms_of(from);
	for (size_t i = 0; terms != NULL && i < terms->n_services; i++) {
		struct request *before = engine->marked[terms->services[i]];
		if (before != NULL)
			visit(engine, before, n);
	}
}

/* Who has its turn before `from`. Who only stays behind one of these himself adds nobody. */
static void follow_queue(struct engine *engine, const struct request *from, size_t *n)
{
	follow_marks(engine, from, n);
	for (size_t i = 0; i < engine->n_queue && engine->queue[i] != from && engine->circle_steps > 0; i++) {
		struct request *before = engine->queue[i];
		engine->circle_steps--;
		if (engine->slots[i].behind != 0)
			continue;
		if ((before->gates & from->gates) != 0 || queue_want_same_service(before, from))
			visit(engine, before, n);
	}
}

bool contention_is_awaited(const struct engine *engine, const struct request *origin)
{
	const struct lease_terms *terms = terms_of(origin);
	for (size_t i = 0; terms != NULL && i < terms->n_holding; i++) {
		const struct tenure *tenure = (const struct tenure *)lease_find(engine, terms->holding[i]);
		if (tenure != NULL && tenure->awaited_look >= engine->last_look)
			return true;
	}
	return false;
}

bool contention_is_circular(struct engine *engine, struct request *origin)
{
	size_t n = 0;
	if (!contention_is_awaited(engine, origin))
		return false;
	engine->visits++;
	visit(engine, origin, &n);
	for (size_t i = 0; i < n; i++) {
		const struct request *from = engine->worklist[i];
		if (follow_leases(engine, from, origin, &n))
			return true;
		if (from->waits_turn)
			follow_queue(engine, from, &n);
	}
	return false;
}
