/* Asking the kernel about the peer of a connection. Must not decide what follows from it. */
#include "api/peer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/server.h"
#include "api/window.h"
#include "base/cleanup.h"
#include "net/ip_address.h"

#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3
#define ROOM_LEAST 128 /* less is not worth a packet */

/* What a process calls itself is its own choice: only what a terminal can show. */
static void read_command(pid_t pid, char *buffer, size_t size)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, buffer, size - 1) : 0;
	buffer[length > 0 ? length : 0] = '\0';
	buffer[strcspn(buffer, "\n")] = '\0';
	for (char *c = buffer; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static char *unix_name(const struct client *client)
{
	char *name = NULL, command[32];
	int length;
	if (!client->has_peer)
		return NULL;
	read_command(client->pid, command, sizeof(command));
	if (client->pid <= 0) /* of another PID namespace */
		length = asprintf(&name, "uid %u", (unsigned)client->uid);
	else if (command[0] == '\0')
		length = asprintf(&name, "uid %u pid %d", (unsigned)client->uid, (int)client->pid);
	else
		length = asprintf(&name, "uid %u pid %d (%s)", (unsigned)client->uid, (int)client->pid, command);
	return length < 0 ? NULL : name;
}

static char *tcp_name(const struct client *client)
{
	char text[INET6_ADDRSTRLEN];
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);
	if (getpeername(client->fd, (struct sockaddr *)&address, &size) < 0)
		return NULL;
	const struct ip_address ip = ip_address_of((struct sockaddr *)&address);
	return inet_ntop(ip.family, ip.bytes, text, sizeof(text)) != NULL ? strdup(text) : NULL;
}

const char *peer_name(struct client *client)
{
	if (client->name == NULL)
		client->name = client->listener->is_unix ? unix_name(client) : tcp_name(client);
	return client->name != NULL ? client->name : "unknown";
}

void peer_expect_life(const struct client *client)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, PEER_TIMEOUT_MS },
	};
	if (client->listener->is_unix)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		setsockopt(client->fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

/* Bytes that the peer's kernel has not acknowledged; on a Unix socket those that nobody has read. */
static size_t unacknowledged(const struct client *client)
{
	int bytes = 0;
	return ioctl(client->fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

size_t peer_room(const struct client *client, uint32_t *largest)
{
	uint32_t window;
	if (client->listener->is_unix || !window_of(client->fd, &window))
		return SIZE_MAX; /* an old kernel: a client that reads is served, whatever becomes of the others */
	if (window > *largest)
		*largest = window;
	size_t taken = unacknowledged(client) + *largest / 4;
	size_t room = window > taken ? window - taken : 0;
	return room >= ROOM_LEAST ? room : 0;
}

bool peer_has_unread(const struct client *client)
{
	return unacknowledged(client) > 0;
}
