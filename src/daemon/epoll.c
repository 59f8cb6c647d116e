/*
 * Stands before libc's epoll_ctl() in this program, libraries included. libuv 1.44 (src/unix/linux-core.c,
 * uv__io_poll()) ends the process when the kernel refuses to watch a descriptor, although it may do so a moment later:
 * memory comes back, and so do the watches that another program of the same user holds (epoll(7), max_user_watches).
 * Must not hide any other refusal.
 *
 * When it lasts, this ends the process too: who can watch no descriptor serves nobody, and whoever starts gpumgrd again
 * finds every service and lease as after a kill.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define PAUSE_MS 20
#define PATIENCE_MS 5000

static bool may_pass(int code)
{
	return code == ENOMEM || code == ENOSPC;
}

static const char *remedy(int code)
{
	return code == ENOSPC ? "; raise fs.epoll.max_user_watches (sysctl)" : "";
}

static void wait_or_end(unsigned tries, int code)
{
	if (tries == 0)
		log_warning(
			"the kernel refuses to watch a descriptor (%s); trying again%s", strerror(code), remedy(code));
	if (tries * PAUSE_MS < PATIENCE_MS) {
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * 1000000L }, NULL);
		return;
	}
	log_error("the kernel refuses to watch any descriptor (%s): gpumgrd ends, services go on%s", strerror(code),
		remedy(code));
	_exit(EXIT_FAILURE);
}

__attribute__((visibility("default"))) int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	static int (*real)(int epoll, int operation, int fd, struct epoll_event *event);
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "epoll_ctl");
	for (unsigned tries = 0;; tries++) {
		int result = real(epoll, operation, fd, event);
		if (result == 0 || !may_pass(errno))
			return result;
		wait_or_end(tries, errno);
	}
}
