/*
 * TLS between a connection and its socket: bytes in, bytes out, and no I/O of its own. With OpenSSL; where that was
 * missing when gpumgrd was built, redis_tls_context_create() says so.
 *
 * The server's certificate must name the host of the URL, and be signed by an authority that the system trusts, or that
 * the file in the environment's SSL_CERT_FILE holds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* What all connections share. Reads the system's certificates: once, at the start. */
struct redis_tls_context;

/* -ENOTSUP: built without TLS. */
int redis_tls_context_create(struct redis_tls_context **ret_context, struct error *err);
struct redis_tls_context *redis_tls_context_destroy(struct redis_tls_context *context);

struct redis_tls;

/* `host`: a name or an address, which the certificate must name. NULL: no memory. Begins with a greeting to send. */
struct redis_tls *redis_tls_create(struct redis_tls_context *context, const char *host);
struct redis_tls *redis_tls_destroy(struct redis_tls *self);

/* What came from the socket. */
int redis_tls_receive(struct redis_tls *self, const char *bytes, size_t n);
/* What is to go to the socket; 0: nothing now. */
size_t redis_tls_take(struct redis_tls *self, char *buffer, size_t size);

/* Whether the server is who it should be, so that reading and writing may begin. */
bool redis_tls_is_ready(const struct redis_tls *self);
/* Decrypts, or goes on with the greeting; 0: nothing more now. -EPROTO: the text says what is wrong. */
int redis_tls_read(struct redis_tls *self, char *buffer, size_t size, struct error *err);
int redis_tls_write(struct redis_tls *self, const char *bytes, size_t n, struct error *err);
