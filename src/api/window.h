/* The window that the peer of a TCP connection offers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* False: the kernel does not tell (before Linux 5.4). */
bool window_of(int fd, uint32_t *ret_bytes);
