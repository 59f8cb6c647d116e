/* Reads a clock and keeps nothing. core must not use it: there the time is told by whoever asks. */
#include "base/clock.h"

#include <time.h>

uint64_t clock_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
