/* Reads a clock and keeps nothing. core must not use it: there the time is told by whoever asks. */
#include "base/clock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static uint64_t read_ms(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t clock_now_ms(void)
{
	return read_ms(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ms(void)
{
	return read_ms(CLOCK_BOOTTIME);
}

int64_t clock_wall_ms(void)
{
	return (int64_t)read_ms(CLOCK_REALTIME);
}

void clock_boot_id(char buffer[CLOCK_BOOT_ID_SIZE])
{
	CLEANUP_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, buffer, CLOCK_BOOT_ID_SIZE - 1) : 0;
	buffer[n > 0 ? n : 0] = '\0';
	buffer[strcspn(buffer, "\n")] = '\0';
}

/* The id is a UUID: hexadecimal digits, and dashes between them. */
uint64_t clock_boot_number(void)
{
	char id[CLOCK_BOOT_ID_SIZE], digits[17] = "";
	size_t n = 0;
	clock_boot_id(id);
	for (const char *at = id; *at != '\0' && n < 16; at++)
		if (*at != '-')
			digits[n++] = *at;
	return strtoull(digits, NULL, 16);
}
