/* An IP address as bytes, wherever it is from. IPv4 within IPv6 (::ffff:1.2.3.4) is IPv4. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

struct ip_address {
	sa_family_t family; /* AF_INET, AF_INET6; AF_UNSPEC: it is none */
	unsigned char bytes[16]; /* in network order; of IPv4 the first 4, the others are 0 */
};

/* Of a number in text; family AF_UNSPEC: it is none. */
struct ip_address ip_address_parse(const char *text);
/* Of a socket's address; family AF_UNSPEC: it is of another kind. */
struct ip_address ip_address_of(const struct sockaddr *address);
bool ip_address_is_equal(const struct ip_address *a, const struct ip_address *b);
/* 127.0.0.0/8, ::1. */
bool ip_address_is_loopback(const struct ip_address *address);
