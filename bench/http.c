/*
 * One client on one kept-alive connection over a Unix socket: GET after GET, each read whole before the next. Prints
 * requests a second.
 *
 *   bench-http SOCKET PATH SECONDS
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Reads one answer whole; its length of body, or -1. */
static long read_answer(int fd, char *buffer, size_t size)
{
	size_t used = 0;
	for (;;) {
		ssize_t got = read(fd, buffer + used, size - 1 - used);
		if (got <= 0)
			return -1;
		used += (size_t)got;
		buffer[used] = '\0';
		const char *end = strstr(buffer, "\r\n\r\n");
		if (end == NULL)
			continue;
		const char *length = strcasestr(buffer, "\r\ncontent-length:");
		if (strncmp(buffer, "HTTP/1.1 200", 12) != 0 || length == NULL)
			return -1;
		size_t body = strtoul(length + 17, NULL, 10);
		if (used >= (size_t)(end + 4 - buffer) + body)
			return (long)body;
	}
}

int main(int argc, char **argv)
{
	static char buffer[1 << 20];
	char request[512];
	if (argc != 4) {
		fprintf(stderr, "usage: bench-http SOCKET PATH SECONDS\n");
		return 2;
	}
	CLEANUP_CLOSE int fd = connect_to(argv[1]);
	if (fd < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-fd));
		return 1;
	}
	int length = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", argv[2]);
	double begin = now_s(), limit = begin + atof(argv[3]), end = begin;
	long body = 0, n = 0;
	while (end < limit) {
		if (write(fd, request, (size_t)length) != length ||
			(body = read_answer(fd, buffer, sizeof(buffer))) < 0) {
			fprintf(stderr, "%s: no proper answer\n", argv[2]);
			return 1;
		}
		n++;
		end = now_s();
	}
	printf("%.0f %ld\n", (double)n / (end - begin), body);
	return 0;
}
