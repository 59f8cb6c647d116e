/* Counting wrong tokens. Sees no token and answers nobody. */
#include "api/attempts.h"

#include <netinet/in.h>
#include <string.h>

static struct attempt key_of(const struct sockaddr *address)
{
	struct attempt key = { .family = AF_INET };
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
	if (address->sa_family == AF_INET) {
		memcpy(key.prefix, &((const struct sockaddr_in *)address)->sin_addr, 4);
	} else if (address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6)) {
		memcpy(key.prefix, v6->s6_addr + 12, 4);
	} else if (address->sa_family == AF_INET6) {
		key.family = AF_INET6;
		memcpy(key.prefix, v6, sizeof(key.prefix));
	}
	if (key.family == AF_INET && key.prefix[0] == IN_LOOPBACKNET)
		memset(key.prefix + 1, 0, sizeof(key.prefix) - 1);
	return key;
}

static struct attempt *find(const struct attempts *attempts, const struct attempt *key)
{
	for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
		const struct attempt *place = &attempts->places[i];
		if (place->family == key->family && memcmp(place->prefix, key->prefix, sizeof(key->prefix)) == 0)
			return (struct attempt *)place;
	}
	return NULL;
}

static bool is_less_worth(const struct attempt *a, const struct attempt *b)
{
	if ((a->family == AF_UNSPEC) != (b->family == AF_UNSPEC))
		return a->family == AF_UNSPEC;
	return a->is_known != b->is_known ? b->is_known : a->seen_ms < b->seen_ms;
}

static struct attempt *take(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms)
{
	const struct attempt key = key_of(address);
	struct attempt *place = find(attempts, &key);
	if (place == NULL) {
		place = &attempts->places[0];
		for (size_t i = 1; i < ATTEMPTS_MAX; i++)
			if (is_less_worth(&attempts->places[i], place))
				place = &attempts->places[i];
		*place = key;
	}
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
	const struct attempt key = key_of(address);
	const struct attempt *place = find(attempts, &key);
	return place != NULL ? wait_ms(place, now_ms) : 0;
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
