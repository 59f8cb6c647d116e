/* The clock that deadlines and durations are counted on. */
#pragma once

#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC: the same clock in all processes of this host. */
uint64_t clock_now_ms(void);

/* The same of CLOCK_BOOTTIME, which also counts while the machine sleeps. Nobody can set it. */
uint64_t clock_boot_ms(void);
/* The time of day, milliseconds since the epoch; somebody may set it at any moment. */
int64_t clock_wall_ms(void);

#define CLOCK_BOOT_ID_SIZE 64
/* Names this boot of the machine; "" where the kernel does not tell. */
void clock_boot_id(char buffer[CLOCK_BOOT_ID_SIZE]);
/* The first half of that, a random number; 0 where the kernel does not tell. */
uint64_t clock_boot_number(void);
