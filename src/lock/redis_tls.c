/* TLS by OpenSSL on memory. Never touches a socket. */
#include "lock/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

struct redis_tls_context {
	SSL_CTX *context;
};

struct redis_tls {
	SSL *ssl;
	BIO *in, *out; /* the connection's own, seen from the socket */
};

int redis_tls_context_create(struct redis_tls_context **ret_context, struct error *err)
{
	struct redis_tls_context *self = calloc(1, sizeof(*self));
	if (self == NULL)
		return error_set(err, -ENOMEM, "lock: there is no memory");
	self->context = SSL_CTX_new(TLS_client_method());
	if (self->context == NULL) {
		free(self);
		return error_set(err, -ENOMEM, "lock: TLS cannot be set up");
	}
	SSL_CTX_set_min_proto_version(self->context, TLS1_2_VERSION);
	SSL_CTX_set_default_verify_paths(self->context);
	SSL_CTX_set_verify(self->context, SSL_VERIFY_PEER, NULL);
	*ret_context = self;
	return 0;
}

struct redis_tls_context *redis_tls_context_destroy(struct redis_tls_context *self)
{
	if (self != NULL)
		SSL_CTX_free(self->context);
	free(self);
	return NULL;
}

static bool expect_host(SSL *ssl, const char *host)
{
	unsigned char address[16];
	if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct redis_tls *redis_tls_create(struct redis_tls_context *context, const char *host)
{
	struct redis_tls *self = calloc(1, sizeof(*self));
	if (self == NULL)
		return NULL;
	self->ssl = SSL_new(context->context);
	self->in = BIO_new(BIO_s_mem());
	self->out = BIO_new(BIO_s_mem());
	if (self->ssl == NULL || self->in == NULL || self->out == NULL || !expect_host(self->ssl, host)) {
		BIO_free(self->in);
		BIO_free(self->out);
		SSL_free(self->ssl);
		free(self);
		return NULL;
	}
	SSL_set_bio(self->ssl, self->in, self->out);
	SSL_set_connect_state(self->ssl);
	ERR_clear_error();
	SSL_do_handshake(self->ssl);
	return self;
}

struct redis_tls *redis_tls_destroy(struct redis_tls *self)
{
	if (self != NULL)
		SSL_free(self->ssl);
	free(self);
	return NULL;
}

int redis_tls_receive(struct redis_tls *self, const char *bytes, size_t n)
{
	return BIO_write(self->in, bytes, (int)n) == (int)n ? 0 : -ENOMEM;
}

size_t redis_tls_take(struct redis_tls *self, char *buffer, size_t size)
{
	int n = BIO_read(self->out, buffer, (int)size);
	return n > 0 ? (size_t)n : 0;
}

bool redis_tls_is_ready(const struct redis_tls *self)
{
	return SSL_is_init_finished(self->ssl);
}

/* 0: it only needs more bytes. */
static int explain(struct redis_tls *self, int code, struct error *err)
{
	int reason = SSL_get_error(self->ssl, code);
	long verdict = SSL_get_verify_result(self->ssl);
	if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE)
		return 0;
	if (reason == SSL_ERROR_ZERO_RETURN)
		return error_set(err, -EPROTO, "it closed the connection");
	if (verdict != X509_V_OK)
		return error_set(err, -EPROTO,
			"its certificate is not trusted (%s); SSL_CERT_FILE in gpumgrd's environment names the "
			"authority's",
			X509_verify_cert_error_string(verdict));
	const char *words = ERR_reason_error_string(ERR_peek_error());
	return error_set(
		err, -EPROTO, "TLS failed (%s); does it speak TLS there?", words == NULL ? "no reason" : words);
}

int redis_tls_read(struct redis_tls *self, char *buffer, size_t size, struct error *err)
{
	ERR_clear_error();
	if (!redis_tls_is_ready(self)) {
		int r = SSL_do_handshake(self->ssl);
		return r == 1 ? 0 : explain(self, r, err);
	}
	int n = SSL_read(self->ssl, buffer, (int)size);
	return n > 0 ? n : explain(self, n, err);
}

int redis_tls_write(struct redis_tls *self, const char *bytes, size_t n, struct error *err)
{
	ERR_clear_error();
	int r = SSL_write(self->ssl, bytes, (int)n);
	return r == (int)n ? 0 : explain(self, r, err) < 0 ? -EPROTO : error_set(err, -EPROTO, "TLS takes no more");
}
