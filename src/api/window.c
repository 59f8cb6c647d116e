/*
 * One question to the kernel. A file of its own, for only linux/tcp.h has tcpi_snd_wnd, and it goes together with no
 * header that includes netinet/tcp.h: libuv's does.
 */
#include "api/window.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

bool window_of(int fd, uint32_t *ret_bytes)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
		size < offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof(info.tcpi_snd_wnd))
		return false;
	*ret_bytes = info.tcpi_snd_wnd;
	return true;
}
