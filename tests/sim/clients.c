/* The modelled clients and the store of their leases. Must not judge, nor look at what the engine believes. */
#include "clients.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define CLIENTS 6
#define PICK(choices, table) ((table)[choose((choices), ARRAY_SIZE(table))])

static const enum lease_mode modes[] = { LEASE_EXCLUSIVE, LEASE_SHARED, LEASE_EXCLUSIVE, LEASE_SHARED, LEASE_GPU };
static const uint64_t ttls_ms[] = { 5000, 100, 1000, 60000, 1, LEASE_TTL_MAX_MS };
static const int64_t waits_ms[] = { WAIT_DEFAULT_MS, 0, 50, 1000, 5000, 30000 };
static const int priorities[] = { 50, 0, 100, 200, -10 };

unsigned clients_choose(struct choices *choices)
{
	return 1 + choose(choices, CLIENTS);
}

static bool is_waiting(const struct ticket *ticket)
{
	return !ticket->replied && !ticket->withdrawn;
}

static bool waits(const struct checker *checker, unsigned client)
{
	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];

		if (is_waiting(ticket) && ticket->spec.kind == REQUEST_LEASE && ticket->spec.client == client)
			return true;
	}
	return false;
}

static size_t list_held(const struct checker *checker, unsigned client, uint64_t *ret_fences)
{
	size_t n = 0;

	for (size_t i = 0; i < checker->n_held && n < SEEN_HOLDING; i++) {
		if (checker->held[i].lease.client == client)
			ret_fences[n++] = checker->held[i].lease.fence;
	}
	return n;
}

/* ---- asking ---- */

static void choose_services(struct clients *clients, const struct checker *checker, struct choices *choices)
{
	const struct setup *setup = &checker->setup;
	struct lease_terms *terms = &clients->terms;
	size_t n = 0, wanted = chance(choices, 300) ? 2 + choose(choices, 2) : 1;

	if (setup->config.n_phases > 0 && chance(choices, 150)) {
		size_t phase = choose(choices, (uint32_t)setup->config.n_phases);

		n = setup->phases[phase].n_services;
		memcpy(clients->services, setup->phase_services[phase], n * sizeof(size_t));
		terms->phase = phase;
	}
	if (n == 0) {
		size_t first = choose(choices, (uint32_t)setup->config.n_services);

		terms->phase = LEASE_NO_PHASE;
		for (size_t s = first; s < setup->config.n_services && n < wanted; s++)
			clients->services[n++] = s;
	}
	terms->n_services = n;
	terms->services = clients->services;
}

static void choose_room(struct clients *clients, const struct checker *checker, struct choices *choices)
{
	struct lease_terms *terms = &clients->terms;
	uint32_t total = checker->setup.totals_mib[choose(choices, (uint32_t)checker->setup.n_gpus)];

	terms->phase = LEASE_NO_PHASE;
	terms->n_services = 0;
	terms->room_mib = total / 16 * (uint32_t)choose_between(choices, 1, 12);
	if (terms->mode == LEASE_SHARED)
		terms->mode = LEASE_EXCLUSIVE;
}

static void choose_names(struct clients *clients, struct choices *choices, unsigned client, bool is_polite)
{
	uint64_t number = 0;

	/* A new one, or one of the last few again. */
	if (chance(choices, 300) && !is_polite)
		number = chance(choices, 500) ? ++clients->last_asked : clients->last_asked - choose(choices, 4);
	snprintf(clients->owner, sizeof(clients->owner), "client %u", client);
	clients->request_id[0] = '\0';
	if (number > 0 && number <= clients->last_asked)
		snprintf(clients->request_id, sizeof(clients->request_id), "request %llu", (unsigned long long)number);
	clients->terms.owner = clients->owner;
	clients->terms.request_id = clients->request_id;
}

/* What it says that it holds: the truth, nothing, or something that it remembers wrongly. */
static void choose_holding(
	struct clients *clients, const struct checker *checker, struct choices *choices, unsigned client)
{
	struct lease_terms *terms = &clients->terms;
	bool is_polite = checker->setup.is_polite;

	terms->holding = clients->holding;
	terms->n_holding = 0;
	if (is_polite || chance(choices, 600))
		terms->n_holding = list_held(checker, client, clients->holding);
	else if (chance(choices, 500))
		terms->n_holding = choose(choices, 4);
	for (size_t i = 0; i < terms->n_holding && !is_polite; i++) {
		if (chance(choices, 150) || clients->holding[i] == 0)
			clients->holding[i] = choose(choices, (uint32_t)checker->last_fence + 3);
	}
}

static unsigned choose_client(const struct checker *checker, struct choices *choices)
{
	unsigned client = clients_choose(choices);

	/* Who is polite does one thing at a time. */
	for (unsigned i = 0; checker->setup.is_polite && waits(checker, client) && i < CLIENTS; i++)
		client = 1 + client % CLIENTS;
	return client;
}

static struct request_spec again(struct clients *clients, struct choices *choices)
{
	const struct lease_terms *terms = &clients->terms;

	return (struct request_spec){
		.kind = REQUEST_LEASE,
		.target = terms->n_services > 0 ? terms->services[0] : 0,
		.lease = terms,
		.wait_ms = PICK(choices, waits_ms),
	};
}

bool clients_ask(
	struct clients *clients, const struct checker *checker, struct choices *choices, struct request_spec *ret_spec)
{
	struct lease_terms *terms = &clients->terms;
	bool is_polite = checker->setup.is_polite;
	unsigned client = choose_client(checker, choices);

	if (is_polite && waits(checker, client))
		return false;
	if (!is_polite && clients->request_id[0] != '\0' && chance(choices, 200)) {
		*ret_spec = again(clients, choices); /* has the answer been lost? */
		return true;
	}
	memset(clients->holding, 0, sizeof(clients->holding));
	*terms = (struct lease_terms){ .mode = PICK(choices, modes) };
	if (chance(choices, 150))
		choose_room(clients, checker, choices);
	else
		choose_services(clients, checker, choices);
	terms->attached = is_polite || chance(choices, 500);
	terms->ttl_ms = PICK(choices, ttls_ms);
	terms->has_priority = chance(choices, 300);
	terms->priority = terms->has_priority ? PICK(choices, priorities) : 0;
	choose_names(clients, choices, client, is_polite);
	choose_holding(clients, checker, choices, client);
	*ret_spec = (struct request_spec){
		.kind = REQUEST_LEASE,
		.target = terms->n_services > 0 ? terms->services[0] : 0,
		.lease = terms,
		.wait_ms = is_polite ? WAIT_DEFAULT_MS : PICK(choices, waits_ms),
	};
	return true;
}

/* ---- holding ---- */

static enum event_kind choose_act(struct choices *choices)
{
	static const enum event_kind acts[] = { EVENT_RELEASE, EVENT_RELEASE, EVENT_RENEW, EVENT_DETACH, EVENT_RELEASE,
		EVENT_DETACH, EVENT_RENEW, EVENT_ATTACH };

	return PICK(choices, acts);
}

bool clients_act(
	struct clients *clients, const struct checker *checker, struct choices *choices, struct event *ret_event)
{
	static const uint64_t renewals_ms[] = { 0, 100, 10000, UINT64_MAX };
	const struct seen_lease *lease;

	(void)clients;
	if (checker->n_held == 0)
		return false;
	lease = &checker->held[choose(choices, (uint32_t)checker->n_held)].lease;
	*ret_event = (struct event){ .kind = choose_act(choices) };
	ret_event->lease.fence = lease->fence;
	if (checker->setup.is_polite && waits(checker, lease->client))
		return false;
	if (ret_event->kind == EVENT_RENEW)
		ret_event->lease.ttl_ms = PICK(choices, renewals_ms);
	return true;
}

bool clients_let_go(struct clients *clients, const struct checker *checker, bool is_polite, struct event *ret_event)
{
	(void)clients;
	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (is_polite && waits(checker, lease->client))
			continue;
		*ret_event = (struct event){ .kind = lease->attached ? EVENT_DETACH : EVENT_RELEASE };
		ret_event->lease.fence = lease->fence;
		return true;
	}
	return false;
}

bool clients_vanish(const struct checker *checker, unsigned client, struct event *ret_event)
{
	for (size_t i = 0; i < checker->n_tickets; i++) {
		const struct ticket *ticket = &checker->tickets[i];

		if (!is_waiting(ticket) || ticket->spec.kind != REQUEST_LEASE || ticket->spec.client != client)
			continue;
		*ret_event = (struct event){ .kind = EVENT_WITHDRAW };
		ret_event->withdraw_ticket = ticket->ticket;
		return true;
	}
	for (size_t i = 0; i < checker->n_held; i++) {
		const struct seen_lease *lease = &checker->held[i].lease;

		if (lease->client != client || !lease->attached)
			continue;
		*ret_event = (struct event){ .kind = EVENT_DETACH };
		ret_event->lease.fence = lease->fence;
		return true;
	}
	return false;
}

/* ---- the store ---- */

static struct stored *find_stored(struct clients *clients, uint64_t fence)
{
	for (size_t i = 0; i < clients->n_stored; i++) {
		if (clients->stored[i].lease.fence == fence)
			return &clients->stored[i];
	}
	return NULL;
}

static void keep(struct clients *clients, const struct lease *lease)
{
	struct stored *stored = find_stored(clients, lease->fence);

	if (stored == NULL && clients->n_stored < SEEN_LEASES)
		stored = &clients->stored[clients->n_stored++];
	if (stored == NULL)
		return;
	stored->lease = *lease;
	memcpy(stored->services, lease->services, lease->n_services * sizeof(size_t));
}

/* The others stay in the order of their fences. */
static void forget(struct clients *clients, struct stored *stored)
{
	size_t n_behind = (size_t)(clients->stored + clients->n_stored - (stored + 1));

	memmove(stored, stored + 1, n_behind * sizeof(*stored));
	clients->n_stored--;
}

void clients_hear(struct clients *clients, const struct effect *effect)
{
	struct stored *stored;

	if (effect->kind != EFFECT_LEASE)
		return;
	stored = find_stored(clients, effect->lease.lease->fence);
	if (effect->lease.news == LEASE_NEWS_GRANTED || effect->lease.news == LEASE_NEWS_RENEWED ||
		effect->lease.news == LEASE_NEWS_MOVED)
		keep(clients, effect->lease.lease);
	else if (effect->lease.news == LEASE_NEWS_ENDED && stored != NULL)
		forget(clients, stored);
}
