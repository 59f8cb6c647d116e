/*
 * Helpers of the configuration's tests: a text goes in, a configuration or exact lines of problems come out.
 * The text is called "f", and the daemon is not root's unless a test says so.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/config.h"

/* Six lines; more keys of the service x go behind them, from line 7. */
#define SERVICE                                                                                                        \
	"version: 1\n"                                                                                                 \
	"services:\n"                                                                                                  \
	"  x:\n"                                                                                                       \
	"    vram: 4GiB\n"                                                                                             \
	"    process: {command: [/bin/x]}\n"                                                                           \
	"    health: {tcp: \"127.0.0.1:80\"}\n"

/* The same without process; the next line is 6. */
#define NO_DRIVER                                                                                                      \
	"version: 1\n"                                                                                                 \
	"services:\n"                                                                                                  \
	"  x:\n"                                                                                                       \
	"    vram: 4GiB\n"                                                                                             \
	"    health: {tcp: \"127.0.0.1:80\"}\n"

/* The same without health; the next line is 6. */
#define NO_HEALTH                                                                                                      \
	"version: 1\n"                                                                                                 \
	"services:\n"                                                                                                  \
	"  x:\n"                                                                                                       \
	"    vram: 4GiB\n"                                                                                             \
	"    process: {command: [/bin/x]}\n"

/* All problems as one text, a line each; the caller frees it. `*ret_config` may be NULL afterwards. */
char *problems_of(const char *text, size_t length, bool is_root, struct config **ret_config);

/* No problem at all. The caller frees the result. */
struct config *expect_config(const char *text);

/* Exactly these lines, and no configuration. */
void expect_errors(const char *text, const char *lines);

/* Exactly these lines, and a configuration nevertheless. */
void expect_warnings(const char *text, bool is_root, const char *lines);

/* The service x of a text without problems. */
struct service_config *service_of(struct config *config);

/* The whole file; the caller frees it. */
char *read_whole(const char *path, size_t *ret_length);
