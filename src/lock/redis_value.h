/*
 * What stands in Redis: names of keys and values of the lock. Pure.
 *
 * A value of gpumgr's is SERVICE:HOST:NONCE. Managers of an older kind write the bare name of a service.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDIS_VALUE_MAX 199
#define REDIS_NONCE_SIZE 17 /* 16 hexadecimal digits and the ending 0 */

/* `text` with what stands between `${` and `}` expanded where that is HOST. The caller frees it. NULL: no memory. */
char *redis_key_expand(const char *key, const char *host);

/* The name of a key beside `key`, in the same slot of a cluster. The caller frees it. NULL: no memory. */
char *redis_key_beside(const char *key, const char *what);

/* `service` NULL or "": gpumgr. Colons and what is not printable become `-`; names that are too long are cut. */
void redis_value_make(char *buffer, size_t size, const char *service, const char *host, const char *nonce);

/* Whether it has gpumgr's form; then its host stands in `ret_host` (size bytes, may be cut). */
bool redis_value_is_gpumgr(const char *value, char *ret_host, size_t size);

/* Copies what is printable (ASCII); the rest becomes `?`, and what was cut is shown by "...". */
void redis_value_print(char *buffer, size_t size, const char *bytes, size_t n);
