/*
 * What a supervisor asks for and offers: readiness by sd_notify(3), sockets by sd_listen_fds(3), journald's own log
 * format. The protocols are stable and small, so libsystemd is not needed for them.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "daemon/daemon.h"

#define LISTEN_FDS_START 3 /* sd_listen_fds(3) */

void supervisor_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return;
	size_t length = strlen(path);
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	ssize_t ignored = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, size);
	(void)ignored; /* a supervisor that does not listen is its own problem */
}

int supervisor_take_socket(void)
{
	const char *pid = getenv("LISTEN_PID");
	const char *count = getenv("LISTEN_FDS");
	if (pid == NULL || count == NULL || atol(pid) != (long)getpid() || atol(count) < 1)
		return -1;
	fcntl(LISTEN_FDS_START, F_SETFD, FD_CLOEXEC);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return LISTEN_FDS_START;
}

bool supervisor_reads_journal(void)
{
	/* JOURNAL_STREAM names device and inode of the stream that is ours (systemd.exec(5)). */
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat status;
	if (stream == NULL || fstat(STDERR_FILENO, &status) < 0)
		return false;
	char *end;
	unsigned long long device = strtoull(stream, &end, 10);
	if (*end != ':')
		return false;
	unsigned long long inode = strtoull(end + 1, NULL, 10);
	return device == status.st_dev && inode == status.st_ino;
}
