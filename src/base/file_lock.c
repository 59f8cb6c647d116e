/* Locks of whole files. For the start of a process only: it sleeps. */
#include "base/file_lock.h"

#include <errno.h>
#include <stdint.h>
#include <sys/file.h>
#include <time.h>

#include "base/clock.h"

#define PAUSE_MS 5

int file_lock_take(int fd)
{
	uint64_t until = clock_now_ms() + FILE_LOCK_PATIENCE_MS;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (clock_now_ms() > until)
			return -EWOULDBLOCK;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * 1000000L }, NULL);
	}
	return 0;
}
