/*
 * The forms of addresses: hosts, ports, URLs. Pure; nothing is resolved or connected.
 *
 * A check returns NULL when the text is well formed, else what is wrong with it in words ("has no port").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A host name, an IPv4 address, or an IPv6 address without brackets. */
bool address_is_host(const char *text, size_t length);

/* HOST:PORT or [IPV6]:PORT; with `host_optional` also :PORT. */
const char *address_check_host_port(const char *text, size_t length, bool host_optional);

/* http:// or https://, a host, perhaps a port and a path; with `host_optional` also :PORT/PATH. */
const char *address_check_http(const char *text, bool host_optional);

/* redis:// rediss:// unix:// redis+sentinel:// */
const char *address_check_lock(const char *text);

/* unix:///ABSOLUTE/PATH */
const char *address_check_engine(const char *text);
