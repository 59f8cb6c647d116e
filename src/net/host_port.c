/* Hosts and ports as people write them. Looks nothing up. */
#include "net/host_port.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static int parse_port(const char *text, size_t length, uint16_t *ret_port)
{
	unsigned port = 0;
	if (length == 0 || length > 5)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	if (port == 0 || port > 65535)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

int host_port_split(const char *text, size_t length, char *host, size_t size, uint16_t *ret_port)
{
	const char *end = text + length;
	bool has_brackets = length > 0 && text[0] == '[';
	const char *start = has_brackets ? text + 1 : text;
	const char *host_end = memchr(start, has_brackets ? ']' : ':', (size_t)(end - start));
	if (host_end == NULL && has_brackets)
		return -EINVAL;
	if (host_end == NULL)
		host_end = end;
	const char *after = has_brackets ? host_end + 1 : host_end;
	size_t host_length = (size_t)(host_end - start);
	if (host_length == 0 || host_length >= size)
		return -EINVAL;
	if (after < end && (*after != ':' || parse_port(after + 1, (size_t)(end - after - 1), ret_port) < 0))
		return -EINVAL;
	memcpy(host, start, host_length);
	host[host_length] = '\0';
	return 0;
}
