/* Looks at both ends of a socket. Must not close it: that is its owner's. */
#include "net/own_peer.h"

#include <string.h>
#include <sys/socket.h>

bool own_peer_reset(int fd)
{
	struct sockaddr_storage own = { 0 }, peer = { 0 };
	socklen_t own_length = sizeof(own), peer_length = sizeof(peer);
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	if (getsockname(fd, (struct sockaddr *)&own, &own_length) < 0 ||
		getpeername(fd, (struct sockaddr *)&peer, &peer_length) < 0 || own_length != peer_length ||
		memcmp(&own, &peer, own_length) != 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return true;
}
