/* In the place of redis_tls.c where OpenSSL is missing. Only the first call is ever made. */
#include <errno.h>
#include <stdlib.h>

#include "lock/redis_tls.h"

int redis_tls_context_create(struct redis_tls_context **ret_context, struct error *err)
{
	(void)ret_context;
	return error_set(err, -ENOTSUP,
		"lock.url: rediss:// needs TLS, which this gpumgrd was built without (it takes OpenSSL); use redis:// "
		"on a "
		"network that nobody else listens to, or through a tunnel");
}

struct redis_tls_context *redis_tls_context_destroy(struct redis_tls_context *context)
{
	(void)context;
	return NULL;
}

struct redis_tls *redis_tls_create(struct redis_tls_context *context, const char *host)
{
	(void)context;
	(void)host;
	return NULL;
}

struct redis_tls *redis_tls_destroy(struct redis_tls *self)
{
	(void)self;
	return NULL;
}

int redis_tls_receive(struct redis_tls *self, const char *bytes, size_t n)
{
	(void)self;
	(void)bytes;
	(void)n;
	return -ENOTSUP;
}

size_t redis_tls_take(struct redis_tls *self, char *buffer, size_t size)
{
	(void)self;
	(void)buffer;
	(void)size;
	return 0;
}

bool redis_tls_is_ready(const struct redis_tls *self)
{
	(void)self;
	return false;
}

int redis_tls_read(struct redis_tls *self, char *buffer, size_t size, struct error *err)
{
	(void)self;
	(void)buffer;
	(void)size;
	(void)err;
	return -ENOTSUP;
}

int redis_tls_write(struct redis_tls *self, const char *bytes, size_t n, struct error *err)
{
	(void)self;
	(void)bytes;
	(void)n;
	(void)err;
	return -ENOTSUP;
}
