/* "HOST:PORT" into its parts. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * The first `length` bytes of `text`: "HOST:PORT", or "[V6]:PORT" without the brackets in `host`. Without ":PORT",
 * `*ret_port` stays as it is. -EINVAL: it is neither, the port is none, or the host has no room in `size` bytes.
 */
int host_port_split(const char *text, size_t length, char *host, size_t size, uint16_t *ret_port);
