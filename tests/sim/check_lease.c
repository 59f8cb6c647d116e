/*
 * Judges leases: who holds what, who is told what of it and when, and whether anybody waits for nothing. Its books are
 * what was told and ordered; it must not ask the engine who holds what.
 */
#include <string.h>

#include "checker.h"

#define BUSY_FRESH_MS 1000
#define BUSY_LOST_MS 4000

/* ---- the books ---- */

struct held *find_held(struct checker *checker, uint64_t fence)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		if (checker->held[i].lease.fence == fence)
			return &checker->held[i];
	}
	return NULL;
}

const struct claim *find_claim(const struct checker *checker, uint64_t id)
{
	for (size_t i = 0; i < checker->n_claims; i++) {
		if (checker->claims[i].id == id)
			return &checker->claims[i];
	}
	return NULL;
}

void leases_drop_claim(struct checker *checker, uint64_t id)
{
	for (size_t i = 0; i < checker->n_claims; i++) {
		if (checker->claims[i].id != id)
			continue;
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			if ((checker->claims[i].spec.services & GPU_BIT(s)) != 0)
				checker->told[s].last_used_ms = checker->now;
		}
		checker->claims[i] = checker->claims[--checker->n_claims];
		return;
	}
}

void leases_await_fence(struct checker *checker, uint64_t id)
{
	for (size_t i = 0; i < checker->n_claims; i++) {
		if (checker->claims[i].id == id)
			checker->claims[i].awaits_fence = true;
	}
}

/* Of what it takes room on, and of where its victims stand, it is not said which is which. */
static void note_room_base(struct checker *checker, const struct seen_transition *adopted, size_t gpu)
{
	bool is_open = gpu_set_count(adopted->gpus) > 1 && leases_rooms(checker, gpu).hi > 0;
	int64_t base = account_strangers(checker, gpu);

	if ((adopted->gpus & GPU_BIT(gpu)) != 0 && (!is_open || base < checker->room_base[gpu]))
		checker->room_base[gpu] = base;
}

void leases_claim(struct checker *checker, const struct seen_transition *adopted)
{
	if (adopted->spec.kind != REQUEST_LEASE || find_claim(checker, adopted->id) != NULL ||
		checker->n_claims == SEEN_TRANSITIONS)
		return;
	checker->claims[checker->n_claims++] =
		(struct claim){ .id = adopted->id, .spec = adopted->spec, .gpus = adopted->gpus };
	checker->n_claims--; /* what was there before the room was taken is not its filling */
	for (size_t g = 0; g < checker->setup.n_gpus && adopted->spec.room_mib > 0; g++) {
		note_room_base(checker, adopted, g);
		checker->claims[checker->n_claims].room_base[g] = checker->room_base[g];
	}
	checker->n_claims++;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((adopted->spec.services & GPU_BIT(s)) != 0)
			checker->told[s].was_used = true;
	}
	if (checker->stats != NULL)
		checker->stats->warm += adopted->n_steps == 0;
}

/* Where its services stand, as was told, or its room. */
static gpu_set where(const struct checker *checker, const struct seen_lease *lease)
{
	gpu_set gpus = lease->services == 0 ? lease->gpus : 0;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((lease->services & GPU_BIT(s)) != 0)
			gpus |= checker->told[s].gpus;
	}
	return gpus;
}

static gpu_set where_claimed(const struct checker *checker, const struct claim *claim)
{
	gpu_set gpus = 0;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((claim->spec.services & GPU_BIT(s)) == 0)
			continue;
		gpus |= checker->told[s].alive ? checker->told[s].gpus : 0;
		gpus |= checker->told[s].planned == claim->id ? checker->told[s].planned_gpus : 0;
	}
	return gpus;
}

static bool is_sure(const struct checker *checker, const struct claim *claim)
{
	return open_tickets(checker, claim->id) > 0;
}

unsigned leases_uses(const struct checker *checker, size_t service, uint64_t but, bool surely)
{
	unsigned n = 0;

	for (size_t i = 0; i < checker->n_held; i++)
		n += (checker->held[i].lease.services & GPU_BIT(service)) != 0;
	for (size_t i = 0; i < checker->n_claims; i++) {
		const struct claim *claim = &checker->claims[i];

		n += claim->id != but && (claim->spec.services & GPU_BIT(service)) != 0 &&
			(!surely || is_sure(checker, claim));
	}
	return n;
}

struct range leases_rooms(const struct checker *checker, size_t gpu)
{
	struct range rooms = { 0, 0 };

	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (lease->room_mib == 0 || (lease->gpus & GPU_BIT(gpu)) == 0)
			continue;
		rooms.lo += lease->room_mib;
		rooms.hi += lease->room_mib;
	}
	for (size_t i = 0; i < checker->n_claims; i++) {
		const struct claim *claim = &checker->claims[i];

		if (claim->spec.room_mib == 0 || (claim->gpus & GPU_BIT(gpu)) == 0)
			continue;
		rooms.hi += claim->spec.room_mib;
		if (claim->gpus == GPU_BIT(gpu) && is_sure(checker, claim))
			rooms.lo += claim->spec.room_mib;
	}
	return rooms;
}

bool leases_are_full(const struct checker *checker)
{
	size_t most = checker->setup.config.leases_max;

	return most != 0 && checker->n_held + checker->n_claims >= most;
}

bool leases_are_doubtful(const struct checker *checker)
{
	for (size_t i = 0; i < checker->n_claims; i++) {
		if (!is_sure(checker, &checker->claims[i]))
			return true;
	}
	return false;
}

/* ---- what is told ---- */

static bool is_meant(const struct checker *checker, const struct asked *spec, size_t service)
{
	return spec->kind == REQUEST_STOP ? spec->target == service : !checker->setup.services[service].pinned;
}

static void end_by(struct held *held, enum lease_end why)
{
	held->must_end = true;
	held->why = why;
}

static void tell_force(struct checker *checker, const struct asked *spec)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		for (size_t s = 0; s < checker->setup.config.n_services; s++) {
			if ((checker->held[i].lease.services & GPU_BIT(s)) != 0 && is_meant(checker, spec, s))
				end_by(&checker->held[i], LEASE_FORCED);
		}
	}
}

static bool are_same_terms(
	const struct asked *a, enum lease_mode mode, gpu_set services, uint32_t room_mib, bool attached)
{
	return a->mode == mode && a->services == services && a->room_mib == room_mib && a->attached == attached;
}

/* Whether something of this request_id waits, runs or is held. */
static void find_same(struct checker *checker, struct ticket *ticket)
{
	const struct asked *spec = &ticket->spec;

	for (size_t i = 0; i < checker->n_held && spec->request_id != 0; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (lease->request_id != spec->request_id)
			continue;
		ticket->same_fence = lease->fence;
		ticket->is_same = are_same_terms(spec, lease->mode, lease->services, lease->room_mib, lease->attached);
	}
	for (size_t i = 0; i < checker->n_known && spec->request_id != 0 && ticket->same_fence == 0; i++) {
		const struct known *known = &checker->known[i];

		if (known->ended || known->spec.kind != REQUEST_LEASE || known->spec.request_id != spec->request_id)
			continue;
		ticket->same_id = known->id;
		ticket->is_same = are_same_terms(
			spec, known->spec.mode, known->spec.services, known->spec.room_mib, known->spec.attached);
	}
}

static void tell_submit(struct checker *checker, const struct event *event)
{
	struct ticket *ticket = find_ticket(checker, event->submit.ticket);

	if (ticket == NULL)
		return;
	if (ticket->spec.kind == REQUEST_LEASE)
		find_same(checker, ticket);
	if (ticket->spec.force && (ticket->spec.kind == REQUEST_STOP || ticket->spec.kind == REQUEST_RELEASE_ALL))
		tell_force(checker, &ticket->spec);
}

static void tell_renewal(struct checker *checker, struct held *held, uint64_t ttl_ms)
{
	if (held->lease.attached)
		return;
	if (ttl_ms != 0)
		held->lease.ttl_ms = ttl_ms < LEASE_TTL_MAX_MS ? ttl_ms : LEASE_TTL_MAX_MS;
	held->lease.expires_ms = checker->now + held->lease.ttl_ms;
	held->must_renew = true;
}

static void tell_attached(struct checker *checker, struct held *held)
{
	if (!held->lease.awaits_holder)
		return;
	held->lease.awaits_holder = false;
	held->lease.expires_ms = SIM_NEVER;
	held->must_renew = true;
	if (checker->stats != NULL)
		checker->stats->came_back++;
}

static void tell_busy(struct checker *checker, const struct event *event)
{
	struct told *told = &checker->told[event->service];

	if (!told->alive || told->run != event->run || !told->busy_out)
		return;
	told->busy_out = false;
	told->was_asked = true;
	told->busy_answer_ms = checker->now;
	told->n_unknown = event->busy.known ? 0 : told->n_unknown + 1;
	if (event->busy.known)
		told->says_busy = event->busy.busy;
	else if (told->n_unknown >= checker->setup.services[event->service].health_retries)
		told->says_busy = false;
	if (checker->stats != NULL)
		checker->stats->said_busy += told->says_busy;
}

/* What is not well is not asked, and what it said counts no more. */
void leases_forget_busy(struct checker *checker, size_t service)
{
	struct told *told = &checker->told[service];

	told->says_busy = told->busy_out = told->was_asked = false;
	told->n_unknown = 0;
}

/* Who does not answer for so long has failed to. */
static void let_questions_pass(struct checker *checker)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		struct told *told = &checker->told[s];

		if (!told->busy_out || checker->now - told->busy_ms < BUSY_LOST_MS)
			continue;
		told->busy_out = false;
		told->was_asked = true;
		told->busy_answer_ms = checker->now;
		if (++told->n_unknown >= checker->setup.services[s].health_retries)
			told->says_busy = false;
	}
}

/* Granted or not, the claim has come to its end. */
static void tell_fence(struct checker *checker, const struct event *event)
{
	const struct claim *claim = find_claim(checker, event->fence.id);

	checker->fence_id = event->fence.id;
	checker->fence = event->fence.fence;
	if (claim == NULL || !claim->awaits_fence)
		return;
	checker->fenced = *claim;
	leases_drop_claim(checker, claim->id);
}

void leases_tell(struct checker *checker, const struct event *event)
{
	struct held *held = find_held(checker, event->lease.fence);

	checker->fence_id = 0;
	checker->fenced.id = 0;
	if (event->kind == EVENT_FENCE) {
		tell_fence(checker, event);
	} else if (event->kind == EVENT_SUBMIT) {
		tell_submit(checker, event);
	} else if (event->kind == EVENT_BUSY) {
		tell_busy(checker, event);
	} else if (event->kind == EVENT_UNLOCK) {
		for (size_t i = 0; i < checker->n_held; i++)
			end_by(&checker->held[i], LEASE_FORCED);
	} else if (event->kind == EVENT_RELEASE && held != NULL) {
		end_by(held, LEASE_RELEASED);
	} else if (event->kind == EVENT_DETACH && held != NULL && held->lease.attached) {
		end_by(held, LEASE_DETACHED);
	} else if (event->kind == EVENT_RENEW && held != NULL) {
		tell_renewal(checker, held, event->lease.ttl_ms);
	} else if (event->kind == EVENT_ATTACH && held != NULL) {
		tell_attached(checker, held);
	}
	let_questions_pass(checker);
}

/* ---- who excludes whom ---- */

static bool modes_exclude(
	enum lease_mode a, gpu_set services_a, gpu_set gpus_a, enum lease_mode b, gpu_set services_b, gpu_set gpus_b)
{
	bool both_share = a == LEASE_SHARED && b == LEASE_SHARED;

	if ((services_a & services_b) != 0 && !both_share)
		return true;
	return (gpus_a & gpus_b) != 0 && (a == LEASE_GPU || b == LEASE_GPU);
}

/* What was found running may turn out to stand elsewhere than anybody thought, and what may not stand any more where it
 * stood is started elsewhere. */
static bool is_certain(const struct checker *checker, gpu_set services)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		bool is_moved = checker->told[s].adopted || (checker->moved & GPU_BIT(s)) != 0;

		if ((services & GPU_BIT(s)) != 0 && is_moved)
			return false;
	}
	return true;
}

static void check_pair(struct checker *checker, const struct seen_lease *a, const struct seen_lease *b)
{
	bool is_known = is_certain(checker, a->services | b->services);

	require(!modes_exclude(a->mode, a->services, is_known ? where(checker, a) : 0, b->mode, b->services,
			is_known ? where(checker, b) : 0),
		"two-holders", "leases %llu (%s) and %llu (%s) exclude each other", (unsigned long long)a->fence,
		lease_mode_name(a->mode), (unsigned long long)b->fence, lease_mode_name(b->mode));
}

static void check_claimed(struct checker *checker, const struct claim *claim)
{
	gpu_set gpus = claim->spec.services != 0 ? where_claimed(checker, claim) : 0;

	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;
		bool is_known = is_certain(checker, lease->services | claim->spec.services);

		require(!modes_exclude(claim->spec.mode, claim->spec.services, is_known ? gpus : 0, lease->mode,
				lease->services, is_known ? where(checker, lease) : 0),
			"claims-held", "#%llu claims what lease %llu excludes it from", (unsigned long long)claim->id,
			(unsigned long long)lease->fence);
	}
	for (size_t i = 0; i < checker->n_claims && &checker->claims[i] != claim; i++) {
		const struct claim *other = &checker->claims[i];
		bool is_known = is_certain(checker, other->spec.services | claim->spec.services);

		require(!modes_exclude(claim->spec.mode, claim->spec.services, is_known ? gpus : 0, other->spec.mode,
				other->spec.services, is_known ? where_claimed(checker, other) : 0),
			"claims-claimed", "#%llu and #%llu claim what excludes one of them",
			(unsigned long long)claim->id, (unsigned long long)other->id);
	}
}

static void check_exclusion(struct checker *checker)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		for (size_t j = 0; j < i; j++)
			check_pair(checker, &checker->held[i].lease, &checker->held[j].lease);
	}
	for (size_t i = 0; i < checker->n_claims; i++)
		check_claimed(checker, &checker->claims[i]);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		unsigned n = leases_uses(checker, s, 0, false);

		require(n <= checker->setup.services[s].max_leases || n == 1, "max-leases",
			"%u leases on %s, which takes %u", n, checker->setup.names[s],
			checker->setup.services[s].max_leases);
		if (checker->stats != NULL)
			checker->stats->full_shares += n > 1 && n == checker->setup.services[s].max_leases;
	}
}

/* ---- news ---- */

static void check_grant_terms(struct checker *checker, const struct seen_lease *lease, const struct claim *claim)
{
	const struct asked *spec = &claim->spec;
	unsigned long long fence = lease->fence;

	require(are_same_terms(spec, lease->mode, lease->services, lease->room_mib, lease->attached) &&
			lease->client == spec->client && lease->request_id == spec->request_id,
		"grant-terms", "lease %llu is not what #%llu asked for", fence, (unsigned long long)claim->id);
	require(lease->priority == request_priority(checker, spec), "grant-terms", "lease %llu has priority %d", fence,
		lease->priority);
	require(lease->expires_ms == (spec->attached ? SIM_NEVER : checker->now + spec->ttl_ms), "grant-terms",
		"lease %llu ends at %llu", fence, (unsigned long long)lease->expires_ms);
	require(!lease->awaits_holder && lease->granted_ms == checker->now, "grant-terms",
		"lease %llu was not granted now", fence);
}

static void check_grant_services(struct checker *checker, const struct seen_lease *lease)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		const struct told *told = &checker->told[s];
		enum service_state state = checker->states[s];

		if ((lease->services & GPU_BIT(s)) == 0)
			continue;
		require(told->alive && told->was_ready &&
				(state == SERVICE_READY || state == SERVICE_BUSY || checker->fault_ms == checker->now),
			"grant-ready", "lease %llu is granted and %s is %s", (unsigned long long)lease->fence,
			checker->setup.names[s], service_state_name(state));
		require((told->gpus & ~lease->gpus) == 0 || told->adopted, "lease-gpus",
			"lease %llu is on gpus %llx and %s stands on %llx", (unsigned long long)lease->fence,
			(unsigned long long)lease->gpus, checker->setup.names[s], (unsigned long long)told->gpus);
	}
	require(lease->room_mib == 0 || gpu_set_count(lease->gpus) == 1, "lease-gpus", "room %llu is on %u GPUs",
		(unsigned long long)lease->fence, gpu_set_count(lease->gpus));
}

static void count_grant(struct checker *checker, const struct seen_lease *lease)
{
	struct checker_stats *stats = checker->stats;

	if (stats == NULL)
		return;
	stats->granted[lease->mode]++;
	stats->rooms += lease->room_mib > 0;
	stats->several += gpu_set_count(lease->services) > 1;
	stats->attached += lease->attached;
}

static void take_grant(struct checker *checker, const struct seen_lease *lease)
{
	const struct claim *claim = checker->fenced.id != 0 ? &checker->fenced : NULL;
	unsigned long long fence = lease->fence;

	require(claim != NULL, "grant", "lease %llu is granted to no transition", fence);
	require(lease->fence == checker->fence && lease->fence > checker->last_fence, "fence",
		"lease %llu is granted with fence %llu after %llu", fence, (unsigned long long)checker->fence,
		(unsigned long long)checker->last_fence);
	if (claim == NULL || find_held(checker, lease->fence) != NULL || checker->n_held == SEEN_LEASES)
		return;
	for (size_t i = 0; i < checker->n_held; i++)
		check_pair(checker, lease, &checker->held[i].lease);
	require(open_tickets(checker, claim->id) > 0, "grant-nobody", "lease %llu is granted and nobody waits", fence);
	lock_check_grant(checker, claim);
	check_grant_terms(checker, lease, claim);
	check_grant_services(checker, lease);
	checker->fenced.id = 0;
	checker->last_fence = lease->fence;
	checker->held[checker->n_held] = (struct held){ .lease = *lease };
	if (lease->room_mib > 0 && lease->gpus != 0)
		checker->held[checker->n_held].room_base = claim->room_base[__builtin_ctzll(lease->gpus)];
	checker->held[checker->n_held].lease.is_wanted = false;
	checker->held[checker->n_held++].lease.ttl_ms = lease->ttl_ms;
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((lease->services & GPU_BIT(s)) == 0)
			continue;
		checker->told[s].was_leased = true;
		checker->told[s].was_used = true;
		checker->told[s].last_used_ms = checker->now;
	}
	count_grant(checker, lease);
}

/* ---- breaking ---- */

static bool is_entitled(const struct checker *checker, const struct asked *spec, const struct seen_lease *lease)
{
	if (spec->kind == REQUEST_PHASE)
		return true;
	if (spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL)
		return false;
	return request_priority(checker, spec) > lease->priority;
}

static bool has_new_turn(struct checker *checker, uint64_t id)
{
	const struct known *known = find_known(checker, id);

	return known == NULL || !known->adopted;
}

/* Nobody asked for it, and it was never seen waiting: its name is all that is known of it. */
static bool makes_room_for_entitled(
	const struct checker *checker, const struct notice *notice, const struct seen_lease *lease)
{
	static const char words[] = "make room for ";
	struct asked spec = { .kind = REQUEST_MAKE_ROOM };

	if (strncmp(notice->subject, words, strlen(words)) != 0)
		return false;
	for (; spec.target < checker->setup.config.n_services; spec.target++) {
		if (strcmp(notice->subject + strlen(words), checker->setup.names[spec.target]) == 0)
			return is_entitled(checker, &spec, lease);
	}
	return false;
}

/* It has its turn in this event, and perhaps is done, too; nobody is told so who did not ask for it. */
static bool has_begun(struct checker *checker, const struct observation *seen, const struct seen_lease *lease)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct notice *notice = seen->effects[i].begins ? seen->effects[i].effect.notice : NULL;
		const struct known *known = notice != NULL ? find_known(checker, notice->transition) : NULL;

		if (known != NULL && is_entitled(checker, &known->spec, lease))
			return true;
		if (notice != NULL && known == NULL && makes_room_for_entitled(checker, notice, lease))
			return true;
	}
	return false;
}

/* Somebody who may have his turn by it in this event. */
static bool has_breaker(struct checker *checker, const struct observation *seen, const struct seen_lease *lease)
{
	if (has_begun(checker, seen, lease))
		return true;
	for (size_t i = 0; i < seen->n_running; i++) {
		if (has_new_turn(checker, seen->running[i].id) && is_entitled(checker, &seen->running[i].spec, lease))
			return true;
	}
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct seen_transition *answer = &seen->effects[i].answer;

		if (seen->effects[i].effect.kind == EFFECT_REPLY && answer->id != 0 &&
			has_new_turn(checker, answer->id) && is_entitled(checker, &answer->spec, lease))
			return true;
	}
	return false;
}

static int64_t least_grace(const struct checker *checker, const struct seen_lease *lease)
{
	int64_t least = NEVER_MS;

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		int64_t after = checker->setup.services[s].preempt_after_ms;

		if ((lease->services & GPU_BIT(s)) != 0 && after < least)
			least = after;
	}
	return least;
}

static void check_broken(struct checker *checker, const struct held *held, const struct observation *seen)
{
	int64_t grace = least_grace(checker, &held->lease);
	unsigned long long fence = held->lease.fence;

	require(grace != NEVER_MS, "broken-never", "lease %llu is broken and may never be", fence);
	require(held->is_threatened, "broken-unwarned", "lease %llu is broken and its holder was not warned", fence);
	require(!held->is_threatened || checker->now - held->threatened_ms >= (uint64_t)grace, "broken-early",
		"lease %llu is broken %llu ms after the warning, not %lld", fence,
		(unsigned long long)(checker->now - held->threatened_ms), (long long)grace);
	require(has_breaker(checker, seen, &held->lease), "broken-for-nobody",
		"lease %llu is broken and nobody who may gains by it", fence);
}

/* What was granted after a forced stop was asked for, and before its turn, ends with that. */
static bool has_forced_turn(struct checker *checker, const struct observation *seen, const struct seen_lease *lease)
{
	for (size_t i = 0; i < checker->before.n_queue; i++) {
		const struct asked *spec = &checker->before.queue[i].spec;

		for (size_t s = 0; s < seen->n_services && is_forced_stop(&checker->before.queue[i]); s++) {
			if ((lease->services & GPU_BIT(s)) != 0 && is_meant(checker, spec, s))
				return true;
		}
	}
	return false;
}

static void check_end(
	struct checker *checker, const struct held *held, enum lease_end end, const struct observation *seen)
{
	unsigned long long fence = held->lease.fence;
	bool is_due = checker->now >= held->lease.expires_ms;

	switch (end) {
	case LEASE_BROKEN:
		check_broken(checker, held, seen);
		break;
	case LEASE_EXPIRED:
		require(is_due && !held->lease.attached, "expired-early", "lease %llu expires at %llu, not %llu", fence,
			(unsigned long long)checker->now, (unsigned long long)held->lease.expires_ms);
		break;
	case LEASE_ABANDONED:
		require(is_due && held->lease.awaits_holder, "abandoned-early", "lease %llu is abandoned at %llu",
			fence, (unsigned long long)checker->now);
		break;
	case LEASE_FORCED:
		require((held->must_end && held->why == end) || has_forced_turn(checker, seen, &held->lease),
			"end-reason", "lease %llu is ended by force that nobody used", fence);
		break;
	default:
		require(held->must_end && held->why == end, "end-reason", "lease %llu ends for the reason %s", fence,
			lease_end_name(end));
		break;
	}
}

static void take_end(struct checker *checker, const struct seen_lease *lease, const struct observation *seen)
{
	struct held *held = find_held(checker, lease->fence);

	require(held != NULL, "end-unknown", "lease %llu ends, which nobody holds", (unsigned long long)lease->fence);
	if (held == NULL)
		return;
	check_end(checker, held, lease->end, seen);
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((held->lease.services & GPU_BIT(s)) == 0)
			continue;
		checker->told[s].last_used_ms = checker->now;
		if (lease->end == LEASE_BROKEN)
			checker->told[s].broken_ms = checker->now;
	}
	*held = checker->held[--checker->n_held];
	if (checker->stats != NULL)
		checker->stats->ended[lease->end]++;
}

static void take_warning(struct checker *checker, struct held *held, const struct seen_lease *lease)
{
	bool is_threat = lease->breaks_ms != SIM_NEVER;

	require(!held->is_warned || (is_threat && !held->is_threatened), "warned-twice", "lease %llu is warned again",
		(unsigned long long)lease->fence);
	held->is_warned = true;
	if (is_threat && !held->is_threatened) {
		held->is_threatened = true;
		held->threatened_ms = checker->now;
	}
	if (checker->stats != NULL)
		checker->stats->warned++;
}

static void take_move(struct checker *checker, struct held *held, const struct seen_lease *lease)
{
	require(lease->gpus != held->lease.gpus || lease->room_mib > 0, "moved",
		"lease %llu is said to have moved and is where it was", (unsigned long long)lease->fence);
	require((held->lease.gpus & ~lease->gpus) == 0, "moved", "lease %llu has lost a GPU",
		(unsigned long long)lease->fence);
	held->lease.gpus = lease->gpus;
	if (checker->stats != NULL)
		checker->stats->moved++;
}

void leases_news(struct checker *checker, const struct seen_effect *news, const struct observation *seen)
{
	const struct seen_lease *lease = &news->lease;
	struct held *held = find_held(checker, lease->fence);

	if (news->effect.lease.news == LEASE_NEWS_GRANTED) {
		take_grant(checker, lease);
		return;
	}
	if (news->effect.lease.news == LEASE_NEWS_ENDED) {
		take_end(checker, lease, seen);
		return;
	}
	require(held != NULL, "news-unknown", "news of lease %llu, which nobody holds",
		(unsigned long long)lease->fence);
	if (held == NULL)
		return;
	if (news->effect.lease.news == LEASE_NEWS_WANTED) {
		take_warning(checker, held, lease);
	} else if (news->effect.lease.news == LEASE_NEWS_RENEWED) {
		require(held->must_renew, "renewed", "lease %llu is renewed and nobody asked",
			(unsigned long long)lease->fence);
		held->must_renew = false;
		if (checker->stats != NULL)
			checker->stats->renewed++;
	} else if (news->effect.lease.news == LEASE_NEWS_MOVED) {
		take_move(checker, held, lease);
	} else {
		require(news->named < SIM_SERVICES && (held->lease.services & GPU_BIT(news->named)) != 0, "failed-news",
			"lease %llu is told of the end of something else", (unsigned long long)lease->fence);
		held->failed |= news->named < SIM_SERVICES ? GPU_BIT(news->named) : 0;
	}
}

/* Published after those who lease it were told. */
void leases_failed(struct checker *checker, size_t service)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		struct held *held = &checker->held[i];

		if ((held->lease.services & GPU_BIT(service)) == 0)
			continue;
		require((held->failed & GPU_BIT(service)) != 0, "failed-untold",
			"lease %llu is not told that %s failed", (unsigned long long)held->lease.fence,
			checker->setup.names[service]);
		held->failed &= ~GPU_BIT(service);
		if (checker->stats != NULL)
			checker->stats->failed++;
	}
}

/* ---- answers ---- */

static bool might_want(const struct checker *checker, const struct asked *spec, const struct seen_lease *lease);

static void check_deadlock(struct checker *checker, const struct ticket *ticket, const struct observation *seen)
{
	bool holds_any = false, is_in_way = false, is_alone = seen->n_queue == 0 && checker->before.n_queue == 0;
	const struct known *known = find_known(checker, ticket->id); /* who joins says nothing new */
	const struct asked *asked = known != NULL ? &known->spec : &ticket->spec;

	for (size_t i = 0; i < asked->n_holding; i++) {
		const struct held *held = find_held(checker, asked->holding[i]);

		holds_any = holds_any || held != NULL;
		is_in_way = is_in_way || (held != NULL && might_want(checker, &ticket->spec, &held->lease));
	}
	require(holds_any, "false-deadlock", "ticket %llu would wait for itself, and holds nothing",
		(unsigned long long)ticket->ticket);
	require(!is_alone || is_in_way, "false-deadlock",
		"ticket %llu would wait for itself, and is not in its own way", (unsigned long long)ticket->ticket);
	if (checker->stats != NULL)
		checker->stats->detours += !is_in_way;
}

static void check_given(struct checker *checker, const struct ticket *ticket, const struct seen_effect *reply)
{
	const struct held *held = find_held(checker, reply->lease.fence);
	unsigned long long number = ticket->ticket;

	require(reply->lease.fence != 0, "reply-lease", "ticket %llu is granted no lease", number);
	require(held != NULL, "reply-lease", "ticket %llu is answered with lease %llu, which nobody holds", number,
		(unsigned long long)reply->lease.fence);
	if (held == NULL)
		return;
	require(are_same_terms(&ticket->spec, held->lease.mode, held->lease.services, held->lease.room_mib,
			held->lease.attached) &&
			held->lease.request_id == ticket->spec.request_id,
		"reply-lease", "ticket %llu is answered with another lease (%llu)", number,
		(unsigned long long)held->lease.fence);
	require(ticket->same_fence == 0 || ticket->same_fence == held->lease.fence, "reply-lease",
		"ticket %llu is answered with lease %llu, not %llu", number, (unsigned long long)held->lease.fence,
		(unsigned long long)ticket->same_fence);
	if (checker->stats != NULL)
		checker->stats->repeated += ticket->same_fence != 0;
}

static void forget_ends(struct checker *checker)
{
	for (size_t i = 0; i < checker->n_held; i++)
		checker->held[i].must_end = false;
}

void leases_check_reply(struct checker *checker, const struct ticket *ticket, const struct seen_effect *reply,
	const struct observation *seen)
{
	enum outcome outcome = reply->effect.answer.outcome;
	unsigned long long number = ticket->ticket;

	require((outcome == OUTCOME_DONE && ticket->spec.kind == REQUEST_LEASE) == (reply->lease.fence != 0),
		"reply-lease", "ticket %llu is answered %s %s a lease", number, outcome_code(outcome),
		reply->lease.fence != 0 ? "with" : "without");
	if (outcome == OUTCOME_TOO_MANY && ticket->spec.force) /* then it does nothing */
		forget_ends(checker);
	if (ticket->spec.kind != REQUEST_LEASE) {
		require(outcome != OUTCOME_LEASE_TIMEOUT && outcome != OUTCOME_WOULD_DEADLOCK &&
				outcome != OUTCOME_LOCK_UNAVAILABLE && outcome != OUTCOME_REQUEST_ID_REUSED,
			"outcome", "ticket %llu asked for no lease and is answered %s", number, outcome_code(outcome));
		return;
	}
	require(outcome != OUTCOME_WAIT_TIMEOUT, "outcome", "ticket %llu asked for a lease and is answered %s", number,
		outcome_code(outcome));
	if (outcome == OUTCOME_DONE)
		check_given(checker, ticket, reply);
	else if (outcome == OUTCOME_WOULD_DEADLOCK)
		check_deadlock(checker, ticket, seen);
	else if (outcome == OUTCOME_LOCK_UNAVAILABLE)
		lock_check_denial(checker, ticket);
	else if (outcome == OUTCOME_REQUEST_ID_REUSED)
		require((ticket->same_id != 0 || ticket->same_fence != 0) && !ticket->is_same, "request-id",
			"the request_id of ticket %llu stands for nothing else", number);
	leases_drop_claim(checker, ticket->id);
}

/* ---- who is in whose way ---- */

static bool is_well(const struct checker *checker, size_t service)
{
	return checker->told[service].alive &&
		(checker->states[service] == SERVICE_READY || checker->states[service] == SERVICE_BUSY);
}

/* It needs nothing but what is there. */
static bool is_warm(const struct checker *checker, const struct asked *spec)
{
	gpu_set needs = request_needs(checker, spec);

	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((needs & GPU_BIT(s)) != 0 && !is_well(checker, s))
			return false;
	}
	return spec->kind == REQUEST_LEASE && spec->room_mib == 0 && spec->mode != LEASE_GPU;
}

static bool shares_full_service(const struct checker *checker, const struct asked *spec, gpu_set services)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if ((spec->services & services & GPU_BIT(s)) != 0 &&
			leases_uses(checker, s, 0, false) >= checker->setup.services[s].max_leases)
			return true;
	}
	return false;
}

static bool excludes(
	const struct checker *checker, const struct asked *spec, enum lease_mode mode, gpu_set services, gpu_set gpus)
{
	if (spec->kind != REQUEST_LEASE)
		return false;
	if (modes_exclude(spec->mode, spec->services, 0, mode, services, 0) ||
		shares_full_service(checker, spec, services))
		return true;
	return (spec->mode == LEASE_GPU || mode == LEASE_GPU) && (request_gpus(checker, spec, NULL) & gpus) != 0;
}

/* Whether that lease may be what the request waits for. */
static bool might_want(const struct checker *checker, const struct asked *spec, const struct seen_lease *lease)
{
	gpu_set gpus = lease->gpus | where(checker, lease);

	if (spec->kind == REQUEST_STOP)
		return (lease->services & GPU_BIT(spec->target)) != 0;
	if (spec->kind == REQUEST_RELEASE_ALL)
		return lease->services != 0;
	if (excludes(checker, spec, lease->mode, lease->services, gpus))
		return true;
	if (is_warm(checker, spec))
		return false;
	if ((request_needs(checker, spec) & lease->services) != 0)
		return true; /* it is broken, and is not started anew under its holder */
	return (request_gpus(checker, spec, NULL) & gpus) != 0;
}

bool leases_excludes(const struct checker *checker, const struct asked *spec, uint64_t but)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (excludes(checker, spec, lease->mode, lease->services, lease->gpus | where(checker, lease)))
			return true;
	}
	for (size_t i = 0; i < checker->n_claims; i++) {
		const struct claim *claim = &checker->claims[i];

		if (claim->id != but &&
			excludes(checker, spec, claim->spec.mode, claim->spec.services,
				claim->gpus | where_claimed(checker, claim)))
			return true;
	}
	return false;
}

/* Where the services of a claim stand, be it that one of them died since, and will; not where its victims stood. */
static gpu_set kept_for(const struct checker *checker, const struct claim *claim)
{
	gpu_set gpus = claim->spec.room_mib > 0 ? claim->gpus : where_claimed(checker, claim);

	return gpus | stand_on(checker, claim->spec.services);
}

gpu_set leases_excluded_gpus(const struct checker *checker, const struct asked *spec, uint64_t but)
{
	gpu_set gpus = 0;

	if (spec->kind != REQUEST_LEASE)
		return 0;
	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (spec->mode == LEASE_GPU || lease->mode == LEASE_GPU)
			gpus |= lease->gpus | where(checker, lease);
	}
	for (size_t i = 0; i < checker->n_claims; i++) {
		const struct claim *claim = &checker->claims[i];

		if (claim->id != but && (spec->mode == LEASE_GPU || claim->spec.mode == LEASE_GPU))
			gpus |= kept_for(checker, claim);
	}
	return gpus;
}

/* It works, or nobody knows yet whether it does. */
static bool may_work(const struct checker *checker, size_t service)
{
	const struct told *told = &checker->told[service];

	return told->alive && (told->says_busy || told->busy_out);
}

static bool is_target(const struct checker *checker, const struct asked *spec, size_t service)
{
	if (spec->kind == REQUEST_STOP || spec->kind == REQUEST_RESTART)
		return spec->target == service;
	return spec->kind == REQUEST_RELEASE_ALL && !checker->setup.services[service].pinned;
}

bool leases_may_block(const struct checker *checker, const struct asked *spec, uint64_t but)
{
	gpu_set gpus = request_gpus(checker, spec, NULL);

	if (leases_excludes(checker, spec, but))
		return true;
	if (is_warm(checker, spec))
		return false;
	/* What is down may have its place kept where it is not allowed any more. */
	gpus |= stand_on(checker, request_needs(checker, spec));
	for (size_t i = 0; i < checker->n_held; i++) {
		if (might_want(checker, spec, &checker->held[i].lease))
			return true;
	}
	for (size_t i = 0; i < checker->n_claims; i++) {
		if (checker->claims[i].id != but && (checker->claims[i].gpus & gpus) != 0)
			return true;
	}
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		bool is_near = is_target(checker, spec, s) || (stands_on(checker, s) & gpus) != 0;

		if (is_near && (may_work(checker, s) || leases_uses(checker, s, but, false) > 0))
			return true;
	}
	return false;
}

bool leases_is_anything_used(const struct checker *checker)
{
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (may_work(checker, s))
			return true;
	}
	return checker->n_held > 0 || checker->n_claims > 0;
}

bool is_at_work(const struct checker *checker, const struct seen_transition *running)
{
	const struct claim *claim = find_claim(checker, running->id);

	return claim == NULL || !claim->awaits_fence;
}

/* ---- after each event ---- */

static void check_one(struct checker *checker, const struct held *held, const struct seen_lease *shown)
{
	const struct seen_lease *lease = &held->lease;
	unsigned long long fence = lease->fence;

	require(shown->fence == lease->fence, "leases", "lease %llu is held and %llu is shown", fence,
		(unsigned long long)shown->fence);
	require(shown->mode == lease->mode && shown->services == lease->services &&
			shown->room_mib == lease->room_mib && shown->attached == lease->attached &&
			shown->priority == lease->priority && shown->client == lease->client,
		"leases", "lease %llu is shown as another", fence);
	require(shown->gpus == lease->gpus, "moved-untold", "lease %llu is on gpus %llx and is kept as on %llx", fence,
		(unsigned long long)shown->gpus, (unsigned long long)lease->gpus);
	require(shown->expires_ms == lease->expires_ms && shown->awaits_holder == lease->awaits_holder, "expiry",
		"lease %llu ends at %llu and is shown to end at %llu", fence, (unsigned long long)lease->expires_ms,
		(unsigned long long)shown->expires_ms);
	require(lease->expires_ms > checker->now, "expired-late", "lease %llu should have ended at %llu", fence,
		(unsigned long long)lease->expires_ms);
	require(!held->must_end, "end-missed", "lease %llu should have ended (%s)", fence, lease_end_name(held->why));
	require(!held->must_renew, "renew-missed", "lease %llu was not renewed", fence);
	require(!shown->is_wanted || held->is_warned, "unwarned", "lease %llu is wanted and its holder does not know",
		fence);
	require(shown->breaks_ms == SIM_NEVER || held->is_threatened, "unwarned",
		"lease %llu breaks and its holder does not know", fence);
}

/* Sorted, as they are shown. */
static void sort_held(struct checker *checker)
{
	for (size_t i = 1; i < checker->n_held; i++) {
		struct held held = checker->held[i];
		size_t j = i;

		for (; j > 0 && checker->held[j - 1].lease.fence > held.lease.fence; j--)
			checker->held[j] = checker->held[j - 1];
		checker->held[j] = held;
	}
}

static void check_shown(struct checker *checker, const struct observation *seen)
{
	require(seen->n_leases == checker->n_held, "leases", "%zu leases are shown and %zu are held", seen->n_leases,
		checker->n_held);
	for (size_t i = 0; i < checker->n_held && i < seen->n_leases; i++) {
		struct held *held = &checker->held[i];

		check_one(checker, held, &seen->leases[i]);
		require(held->failed == 0 || checker->fault_ms == checker->now, "failed-news",
			"lease %llu is told of a failure that was none", (unsigned long long)held->lease.fence);
		held->failed = 0;
		if (!seen->leases[i].is_wanted)
			held->is_warned = false;
		if (seen->leases[i].breaks_ms == SIM_NEVER)
			held->is_threatened = false;
	}
}

static void check_use(struct checker *checker, const struct observation *seen, size_t s)
{
	const struct service_status *service = &seen->services[s];
	const struct told *told = &checker->told[s];
	unsigned n = leases_uses(checker, s, 0, false);
	const char *name = checker->setup.names[s];
	bool is_busy = told->alive && told->says_busy;

	require(service->n_leases == n, "lease-count", "%s has %u leases and shows %u", name, n, service->n_leases);
	require(service->says_busy == is_busy, "says-busy", "%s says %s and is shown otherwise", name,
		is_busy ? "that it works" : "that it is idle");
	require(service->in_use == (n > 0 || is_busy), "in-use", "%s is shown %s use", name,
		service->in_use ? "in" : "out of");
	require(service->state != SERVICE_READY || !service->in_use, "in-use", "%s is ready and in use", name);
	require(service->state != SERVICE_BUSY || service->in_use, "in-use", "%s is busy and nobody uses it", name);
	if (n > 0 && !told->alive && checker->stats != NULL)
		checker->stats->kept_down++;
}

static bool is_settled(const struct checker *checker)
{
	return everything_is_looked_at(checker) && !awaits_reading(checker) &&
		checker->now - checker->fault_ms > FAULT_MS;
}

static void check_warned(struct checker *checker, const struct observation *seen, const struct seen_lease *lease)
{
	if (!lease->is_wanted || !is_settled(checker))
		return;
	for (size_t i = 0; i < seen->n_queue; i++) {
		if (seen->queue[i].state == TRANSITION_QUEUED && might_want(checker, &seen->queue[i].spec, lease))
			return;
	}
	checker_broke(
		checker, "warned-for-nothing", "lease %llu is wanted by nobody", (unsigned long long)lease->fence);
}

/* Who waits behind nobody has those warned who hold what he asks for. */
static void check_unwarned(struct checker *checker, const struct observation *seen, const struct seen_lease *lease)
{
	gpu_set before = 0;

	for (size_t i = 0; i < seen->n_queue && is_settled(checker); i++) {
		const struct seen_transition *waiting = &seen->queue[i];

		require(waiting->spec.kind != REQUEST_LEASE || waiting->state != TRANSITION_QUEUED ||
				(waiting->spec.services & before) != 0 ||
				!modes_exclude(waiting->spec.mode, waiting->spec.services, 0, lease->mode,
					lease->services, 0) ||
				lease->is_wanted,
			"unwarned", "#%llu waits for lease %llu, whose holder does not know",
			(unsigned long long)waiting->id, (unsigned long long)lease->fence);
		if (waiting->state == TRANSITION_QUEUED) /* nor does anybody behind it get what it is about to end */
			before = GPU_SET_ALL;
	}
}

/* Who waits for what he holds himself, and for nothing else, waits for ever. */
static void check_own(struct checker *checker, const struct observation *seen, const struct seen_transition *waiting)
{
	bool is_own = false;

	if (waiting->spec.kind != REQUEST_LEASE || waiting->state != TRANSITION_QUEUED || !is_settled(checker) ||
		seen->n_running > 0 || seen->n_queue > 1)
		return;
	for (size_t i = 0; i < waiting->spec.n_holding; i++) {
		const struct held *held = find_held(checker, waiting->spec.holding[i]);

		is_own = is_own ||
			(held != NULL &&
				modes_exclude(waiting->spec.mode, waiting->spec.services, 0, held->lease.mode,
					held->lease.services, 0));
	}
	require(!is_own, "waits-for-itself", "#%llu waits for a lease that its own client holds",
		(unsigned long long)waiting->id);
}

/* Those of before a restart aside, which nobody asks. */
static void check_limit(struct checker *checker)
{
	size_t most = checker->setup.config.leases_max, n = checker->n_claims;

	for (size_t i = 0; i < checker->n_held; i++)
		n += !checker->held[i].is_restored;
	require(most == 0 || n <= most, "leases-max", "%zu leases, and %zu are allowed", n, most);
}

static void note_claims(struct checker *checker, const struct observation *seen)
{
	for (size_t i = checker->n_claims; i-- > 0;) {
		bool runs = false;

		for (size_t j = 0; j < seen->n_running; j++)
			runs = runs || seen->running[j].id == checker->claims[i].id;
		if (runs)
			continue;
		if (checker->stats != NULL)
			checker->stats->claims_lost++;
		leases_drop_claim(checker, checker->claims[i].id);
	}
	for (size_t i = 0; i < seen->n_running; i++)
		leases_claim(checker, &seen->running[i]);
	for (size_t i = 0; i < seen->n_effects; i++) { /* of those that began without a notice */
		if (seen->effects[i].effect.kind == EFFECT_FENCE)
			leases_await_fence(checker, seen->effects[i].effect.answer.id);
	}
}

void leases_check(struct checker *checker, const struct observation *seen)
{
	note_claims(checker, seen);
	sort_held(checker);
	check_shown(checker, seen);
	check_exclusion(checker);
	check_limit(checker);
	for (size_t s = 0; s < seen->n_services; s++)
		check_use(checker, seen, s);
	for (size_t i = 0; i < seen->n_queue; i++)
		check_own(checker, seen, &seen->queue[i]);
	for (size_t i = 0; i < seen->n_leases; i++) {
		check_warned(checker, seen, &seen->leases[i]);
		check_unwarned(checker, seen, &seen->leases[i]);
	}
}

uint64_t leases_due(const struct checker *checker, const struct observation *seen)
{
	uint64_t due = SIM_NEVER;

	for (size_t i = 0; i < checker->n_held; i++) {
		if (checker->held[i].lease.expires_ms < due)
			due = checker->held[i].lease.expires_ms;
	}
	for (size_t i = 0; i < seen->n_leases; i++) {
		if (seen->leases[i].breaks_ms > seen->now && seen->leases[i].breaks_ms < due && is_settled(checker))
			due = seen->leases[i].breaks_ms;
	}
	for (size_t s = 0; s < checker->setup.config.n_services; s++) {
		if (checker->told[s].busy_out && checker->told[s].busy_ms + BUSY_LOST_MS < due)
			due = checker->told[s].busy_ms + BUSY_LOST_MS;
	}
	return due;
}
