/* Families and lengths of addresses. Asks nobody. */
#include "net/ip_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static struct ip_address from_v4(const void *bytes)
{
	struct ip_address address = { .family = AF_INET };
	memcpy(address.bytes, bytes, 4);
	return address;
}

static struct ip_address from_v6(const struct in6_addr *v6)
{
	struct ip_address address = { .family = AF_INET6 };
	if (IN6_IS_ADDR_V4MAPPED(v6))
		return from_v4(v6->s6_addr + 12);
	memcpy(address.bytes, v6, sizeof(address.bytes));
	return address;
}

struct ip_address ip_address_parse(const char *text)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, text, &v4) == 1)
		return from_v4(&v4);
	return inet_pton(AF_INET6, text, &v6) == 1 ? from_v6(&v6) : (struct ip_address){ .family = AF_UNSPEC };
}

struct ip_address ip_address_of(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return from_v4(&((const struct sockaddr_in *)address)->sin_addr);
	if (address->sa_family == AF_INET6)
		return from_v6(&((const struct sockaddr_in6 *)address)->sin6_addr);
	return (struct ip_address){ .family = AF_UNSPEC };
}

bool ip_address_is_equal(const struct ip_address *a, const struct ip_address *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool ip_address_is_loopback(const struct ip_address *address)
{
	if (address->family == AF_INET)
		return address->bytes[0] == IN_LOOPBACKNET;
	return address->family == AF_INET6 && memcmp(address->bytes, &in6addr_loopback, sizeof(in6addr_loopback)) == 0;
}
