/* Addresses of health checks and listening sockets. Looks only at /proc; must not connect, resolve or wait. */
#include "driver/endpoint.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/host_port.h"

static void cleanup_ifaddrs(struct ifaddrs **addresses)
{
	if (*addresses != NULL)
		freeifaddrs(*addresses);
}

int endpoint_split(const char *address, char *host, size_t size, uint16_t *ret_port)
{
	uint16_t port = 0;
	if (strncasecmp(address, "http://", 7) == 0) {
		port = 80;
		address += 7;
	} else if (strncasecmp(address, "https://", 8) == 0) {
		port = 443;
		address += 8;
	}
	size_t length = strcspn(address, "/?#");
	const char *at = memrchr(address, '@', length);
	const char *start = at != NULL ? at + 1 : address;
	int r = host_port_split(start, length - (size_t)(start - address), host, size, &port);
	if (r < 0 || port == 0)
		return -EINVAL;
	*ret_port = port;
	return 0;
}

static bool is_own_address(const struct endpoint *endpoint)
{
	CLEANUP(cleanup_ifaddrs) struct ifaddrs *addresses = NULL;
	if (getifaddrs(&addresses) < 0)
		return false;
	for (struct ifaddrs *at = addresses; at != NULL; at = at->ifa_next) {
		if (at->ifa_addr == NULL)
			continue;
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)at->ifa_addr;
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)at->ifa_addr;
		if (endpoint->has_v4 && at->ifa_addr->sa_family == AF_INET &&
			v4->sin_addr.s_addr == endpoint->v4.s_addr)
			return true;
		if (endpoint->has_v6 && at->ifa_addr->sa_family == AF_INET6 &&
			memcmp(&v6->sin6_addr, &endpoint->v6, sizeof(endpoint->v6)) == 0)
			return true;
	}
	return false;
}

static bool is_loopback(const struct endpoint *endpoint)
{
	return (endpoint->has_v4 && (ntohl(endpoint->v4.s_addr) >> 24 == 127 || endpoint->v4.s_addr == 0)) ||
		(endpoint->has_v6 && (IN6_IS_ADDR_LOOPBACK(&endpoint->v6) || IN6_IS_ADDR_UNSPECIFIED(&endpoint->v6)));
}

int endpoint_of_probe(const struct probe_config *probe, struct endpoint *ret_endpoint)
{
	struct endpoint endpoint = { 0 };
	char host[256];
	if (probe->kind != PROBE_HTTP && probe->kind != PROBE_TCP)
		return -ENOENT;
	if (probe->address == NULL || endpoint_split(probe->address, host, sizeof(host), &endpoint.port) < 0)
		return -ENOENT;
	if (strcasecmp(host, "localhost") == 0) {
		endpoint.has_v4 = endpoint.has_v6 = true;
		endpoint.v4.s_addr = htonl(INADDR_LOOPBACK);
		endpoint.v6 = in6addr_loopback;
	} else {
		endpoint.has_v4 = inet_pton(AF_INET, host, &endpoint.v4) == 1;
		endpoint.has_v6 = !endpoint.has_v4 && inet_pton(AF_INET6, host, &endpoint.v6) == 1;
	}
	if (!is_loopback(&endpoint) && !is_own_address(&endpoint))
		return -ENOENT;
	*ret_endpoint = endpoint;
	return 0;
}

/* The kernel prints addresses as 32-bit words in its own byte order. */
static int parse_words(const char *text, size_t length, uint32_t words[4])
{
	for (size_t i = 0; i < length / 8; i++) {
		char word[9] = { 0 };
		char *end;
		memcpy(word, text + i * 8, 8);
		words[i] = (uint32_t)strtoul(word, &end, 16);
		if (*end != '\0')
			return -EINVAL;
	}
	return 0;
}

static int match_v4(const struct endpoint *endpoint, uint32_t address)
{
	if (!endpoint->has_v4)
		return 0;
	if (address == endpoint->v4.s_addr)
		return 2;
	return address == 0 ? 1 : 0;
}

static int match_v6(const struct endpoint *endpoint, const uint32_t words[4])
{
	struct in6_addr address;
	memcpy(&address, words, sizeof(address));
	if (endpoint->has_v6 && memcmp(&address, &endpoint->v6, sizeof(address)) == 0)
		return 2;
	if (IN6_IS_ADDR_V4MAPPED(&address))
		return match_v4(endpoint, words[3]);
	/* [::] takes IPv4 connections too, unless asked not to; that cannot be seen here. */
	return IN6_IS_ADDR_UNSPECIFIED(&address) ? 1 : 0;
}

int endpoint_match_line(const struct endpoint *endpoint, const char *line, bool is_v6, uint64_t *ret_inode)
{
	char local[33];
	unsigned port, state;
	uint64_t inode;
	uint32_t words[4] = { 0 };
	if (sscanf(line, " %*d: %32[0-9A-Fa-f]:%4X %*[0-9A-Fa-f]:%*4X %2X %*s %*s %*s %*u %*u %" SCNu64, local, &port,
		    &state, &inode) != 4)
		return -EINVAL;
	size_t length = is_v6 ? 32 : 8;
	if (strlen(local) != length || parse_words(local, length, words) < 0)
		return -EINVAL;
	*ret_inode = inode;
	if (state != 0x0A || port != endpoint->port)
		return 0;
	return is_v6 ? match_v6(endpoint, words) : match_v4(endpoint, words[0]);
}

static int search_table(const struct endpoint *endpoint, const char *path, bool is_v6, int *best, uint64_t *inode)
{
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	CLEANUP_FREE char *line = NULL;
	size_t capacity = 0;
	if (file == NULL)
		return -errno;
	while (getline(&line, &capacity, file) > 0) {
		uint64_t found;
		int match = endpoint_match_line(endpoint, line, is_v6, &found);
		if (match > *best && found != 0) {
			*best = match;
			*inode = found;
		}
	}
	return 0;
}

int64_t endpoint_listener(const struct endpoint *endpoint)
{
	int best = 0;
	uint64_t inode = 0;
	int r4 = search_table(endpoint, "/proc/self/net/tcp", false, &best, &inode);
	int r6 = search_table(endpoint, "/proc/self/net/tcp6", true, &best, &inode);
	if (best == 0 && r4 < 0 && r6 < 0)
		return r4;
	return (int64_t)inode;
}

static bool holds(pid_t pid, const char *wanted)
{
	char path[64], target[64];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	CLEANUP_CLOSEDIR DIR *dir = opendir(path);
	struct dirent *entry;
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strcmp(target, wanted) == 0)
			return true;
	}
	return false;
}

int endpoint_holder(uint64_t inode, struct proc_stat *ret_holder)
{
	struct proc_list list;
	struct proc_stat first = { 0 };
	char wanted[64];
	int r = proc_list_all(&list);
	if (r < 0)
		return r;
	snprintf(wanted, sizeof(wanted), "socket:[%" PRIu64 "]", inode);
	for (size_t i = 0; i < list.n; i++) {
		const struct proc_stat *stat = &list.items[i];
		if (first.pid != 0 && stat->start_ticks >= first.start_ticks)
			continue;
		if (proc_is_alive(stat) && holds(stat->pid, wanted))
			first = *stat;
	}
	free(list.items);
	if (first.pid == 0)
		return -ESRCH;
	*ret_holder = first;
	return 0;
}
