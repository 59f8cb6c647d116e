/* The clock that deadlines and durations are counted on. */
#pragma once

#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC: the same clock in all processes of this host. */
uint64_t clock_now_ms(void);
