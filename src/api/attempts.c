/* Counting wrong tokens. Sees no token and answers nobody. */
#include "api/attempts.h"

#include <string.h>

static struct ip_address network_of(const struct sockaddr *address)
{
	struct ip_address network = ip_address_of(address);
	if (network.family == AF_INET6)
		memset(network.bytes + 8, 0, 8);
	else if (ip_address_is_loopback(&network))
		memset(network.bytes + 1, 0, 3);
	return network;
}

/* Its place; ATTEMPTS_MAX: it has none. */
static size_t find(const struct attempts *attempts, const struct ip_address *network)
{
	size_t i = 0;
	while (i < ATTEMPTS_MAX && !ip_address_is_equal(&attempts->places[i].network, network))
		i++;
	return i;
}

static bool is_less_worth(const struct attempt *a, const struct attempt *b)
{
	if ((a->network.family == AF_UNSPEC) != (b->network.family == AF_UNSPEC))
		return a->network.family == AF_UNSPEC;
	return a->is_known != b->is_known ? b->is_known : a->seen_ms < b->seen_ms;
}

static struct attempt *take(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms)
{
	const struct ip_address network = network_of(address);
	size_t at = find(attempts, &network);
	if (at == ATTEMPTS_MAX) {
		at = 0;
		for (size_t i = 1; i < ATTEMPTS_MAX; i++)
			if (is_less_worth(&attempts->places[i], &attempts->places[at]))
				at = i;
		attempts->places[at] = (struct attempt){ .network = network };
	}
	struct attempt *place = &attempts->places[at];
	place->seen_ms = now_ms;
	return place;
}

static uint64_t wait_ms(const struct attempt *place, uint64_t now_ms)
{
	const uint64_t allowed_ms = (uint64_t)(ATTEMPTS_BURST - 1) * ATTEMPTS_INTERVAL_MS;
	if (place->is_known || place->paid_ms <= now_ms + allowed_ms)
		return 0;
	return place->paid_ms - now_ms - allowed_ms;
}

uint64_t attempts_wait_ms(const struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms)
{
	const struct ip_address network = network_of(address);
	size_t at = find(attempts, &network);
	return at < ATTEMPTS_MAX ? wait_ms(&attempts->places[at], now_ms) : 0;
}

void attempts_note_right(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms)
{
	struct attempt *place = take(attempts, address, now_ms);
	place->is_known = true;
	place->paid_ms = 0;
}

bool attempts_note_wrong(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms)
{
	struct attempt *place = take(attempts, address, now_ms);
	bool is_first = place->paid_ms <= now_ms, was_told = place->is_told && !is_first;
	place->paid_ms = (is_first ? now_ms : place->paid_ms) + ATTEMPTS_INTERVAL_MS;
	place->is_told = was_told || wait_ms(place, now_ms) > 0;
	return place->is_told && !was_told;
}
