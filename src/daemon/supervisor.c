/*
 * What a supervisor asks for and offers: readiness and signs of life by sd_notify(3), sockets by sd_listen_fds(3),
 * journald's own log format. The protocols are stable and small, so libsystemd is not needed for them.
 */
#include <errno.h>
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

/* A supervisor that does not listen is its own problem; what is full now may have room soon. */
static bool is_final(int error)
{
	static const int passing[] = { EAGAIN, ENOBUFS, ENOMEM, EMFILE, ENFILE, EINTR };
	for (size_t i = 0; i < ARRAY_SIZE(passing); i++)
		if (error == passing[i])
			return false;
	return true;
}

bool supervisor_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return true;
	size_t length = strlen(path);
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return is_final(errno);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	/* Once its queue is full, waiting for it would be our problem. */
	ssize_t n =
		sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address, size);
	return n >= 0 || is_final(errno);
}

/* Digits alone; what is anything else is 0. */
static uint64_t parse_number(const char *text)
{
	char *end;
	errno = 0;
	unsigned long long number = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
	return number > 0 && errno == 0 && *end == '\0' ? number : 0;
}

uint64_t supervisor_watchdog_ms(void)
{
	const char *pid = getenv("WATCHDOG_PID");
	const char *usec = getenv("WATCHDOG_USEC");
	if (usec == NULL || (pid != NULL && parse_number(pid) != (uint64_t)getpid()))
		return 0;
	uint64_t period = parse_number(usec);
	if (period == 0)
		return 0;
	return period / 2000 > 0 ? period / 2000 : 1;
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
