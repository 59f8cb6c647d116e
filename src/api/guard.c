/* The checks before a request reaches its handler. Refuses by default: what cannot be read is not ours. */
#include "api/guard.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/peer.h"
#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/server.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/ip_address.h"

#define ADDRESSES_FRESH_MS 10000
#define ADDRESSES_RETRY_MS 1000 /* a name that is not ours may ask again only so often */
#define HOST_NAME_MAX_LENGTH 255

int guard_open(struct guard *guard, const struct config *const *config_in_force, bool has_tcp, struct error *err)
{
	const struct config *config = *config_in_force;
	*guard = (struct guard){ .config = config_in_force };
	if (!has_tcp || config->open)
		return 0;
	if (config->token_file == NULL)
		return error_set(err, -EINVAL,
			"%s needs token_file: FILE, so that not everybody on the network may stop services; "
			"or say open: true",
			config->listen.n > 0 ? "listen:" : "the TCP socket that was handed over");
	guard->needs_token = true;
	return token_open(&guard->token, config->token_file, err);
}

void guard_finish(struct guard *guard)
{
	if (guard->addresses != NULL)
		freeifaddrs(guard->addresses);
	guard->addresses = NULL;
	explicit_bzero(&guard->token, sizeof(guard->token));
}

static void refresh_addresses(struct guard *guard, uint64_t older_than_ms)
{
	uint64_t now = clock_now_ms();
	if (guard->addresses != NULL && now - guard->addresses_ms < older_than_ms)
		return;
	struct ifaddrs *addresses;
	if (getifaddrs(&addresses) < 0)
		return;
	if (guard->addresses != NULL)
		freeifaddrs(guard->addresses);
	guard->addresses = addresses;
	guard->addresses_ms = now;
}

static bool is_interface(const struct guard *guard, const struct ip_address *address)
{
	for (const struct ifaddrs *i = guard->addresses; i != NULL; i = i->ifa_next) {
		if (i->ifa_addr == NULL)
			continue;
		const struct ip_address own = ip_address_of(i->ifa_addr);
		if (ip_address_is_equal(&own, address))
			return true;
	}
	return false;
}

static bool is_own_address(struct guard *guard, const struct ip_address *address)
{
	if (ip_address_is_loopback(address))
		return true;
	refresh_addresses(guard, ADDRESSES_FRESH_MS);
	if (is_interface(guard, address))
		return true;
	refresh_addresses(guard, ADDRESSES_RETRY_MS);
	return is_interface(guard, address);
}

static bool ends_with(const char *name, const char *ending)
{
	size_t length = strlen(name), tail = strlen(ending);
	return length > tail && strcasecmp(name + length - tail, ending) == 0;
}

static bool is_own_name(const struct guard *guard, const char *name)
{
	if (strcasecmp(name, "localhost") == 0 || ends_with(name, ".localhost") || ends_with(name, ".internal"))
		return true;
	const struct string_list *allowed = &(*guard->config)->allowed_hosts;
	for (size_t i = 0; i < allowed->n; i++)
		if (strcasecmp(allowed->items[i], name) == 0)
			return true;
	return false;
}

static bool is_port(const char *text)
{
	return *text == 0 || (*text == ':' && strspn(text + 1, "0123456789") == strlen(text + 1) && strlen(text) <= 6);
}

/* "name", "name:port" or "[v6]:port" without the port and the brackets. */
static bool cut_port(const char *host, char *name, size_t size)
{
	size_t length = strcspn(host, host[0] == '[' ? "]" : ":");
	const char *rest = host + length;
	if (host[0] == '[') {
		if (*rest != ']')
			return false;
		host++;
		length--;
		rest++;
	}
	if (length == 0 || length >= size || !is_port(rest))
		return false;
	memcpy(name, host, length);
	name[length] = 0;
	if (length > 1 && name[length - 1] == '.')
		name[length - 1] = 0; /* the root of the name tree, said explicitly */
	return true;
}

static bool is_name(const char *name)
{
	for (const char *c = name; *c != 0; c++)
		if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL)
			return false;
	return true;
}

bool guard_host_is_ours(struct guard *guard, const char *host)
{
	char name[HOST_NAME_MAX_LENGTH + 1];
	if (!cut_port(host, name, sizeof(name)))
		return false;
	const struct ip_address address = ip_address_parse(name);
	if (address.family != AF_UNSPEC)
		return is_own_address(guard, &address);
	return host[0] != '[' && is_name(name) && is_own_name(guard, name);
}

bool guard_origin_is_ours(struct guard *guard, const char *origin)
{
	static const char *const schemes[] = { "http://", "https://" };
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (strncasecmp(origin, schemes[i], strlen(schemes[i])) == 0)
			return guard_host_is_ours(guard, origin + strlen(schemes[i]));
	return false;
}

static bool admits_host(struct guard *guard, struct request *request)
{
	const char *host = request->headers.host;
	if (host != NULL && guard_host_is_ours(guard, host))
		return true;
	reply_problem(request, "wrong_host",
		"the Host `%.128s` is not a name of this machine; call it by its address, or add the name to "
		"allowed_hosts",
		host != NULL ? host : "");
	return false;
}

static bool admits_origin(struct guard *guard, struct request *request)
{
	const char *origin = request->headers.origin;
	if (origin == NULL || guard_origin_is_ours(guard, origin))
		return true;
	reply_problem(request, "wrong_origin",
		"web pages of `%.128s` may not call gpumgr; add its host to allowed_hosts to let them", origin);
	return false;
}

static bool may_try(const struct guard *guard, struct request *request, const struct sockaddr *address)
{
	char seconds[24];
	uint64_t wait_ms = attempts_wait_ms(&guard->attempts, address, clock_now_ms());
	if (wait_ms == 0)
		return true;
	snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)(wait_ms + 999) / 1000);
	reply_problem(request, "too_many_attempts",
		"too many wrong tokens came from %s; put the right one there, and try again in %s s",
		peer_name(request->client), seconds);
	reply_header(request, "Retry-After", seconds);
	reply_header(request, "Connection", "close");
	return false;
}

static void note_attempt(struct guard *guard, struct client *client, const struct sockaddr *address, bool is_right)
{
	uint64_t now_ms = clock_now_ms();
	client->has_shown_token |= is_right;
	if (is_right)
		attempts_note_right(&guard->attempts, address, now_ms);
	else if (attempts_note_wrong(&guard->attempts, address, now_ms))
		log_warning("%s has shown %d wrong tokens; it may try once in %d s from now on", peer_name(client),
			ATTEMPTS_BURST, ATTEMPTS_INTERVAL_MS / 1000);
}

static bool admits_token(struct guard *guard, struct request *request)
{
	struct client *client = request->client;
	const char *authorization = request->headers.authorization;
	/* What shows no token is no attempt: a browser, or a probe of whether anybody listens. */
	bool is_attempt = guard->needs_token && authorization != NULL && !client->has_shown_token;
	const struct sockaddr *address =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
	if (is_attempt && !may_try(guard, request, address))
		return false;
	bool is_right = !guard->needs_token || token_matches(&guard->token, authorization);
	/* With a file that is spoilt nobody can be right. */
	if (is_attempt && guard->token.usable)
		note_attempt(guard, client, address, is_right);
	if (is_right)
		return true;
	reply_problem(request, "unauthorized",
		"%s; send `Authorization: Bearer TOKEN` with the token of token_file (GPUMGR_TOKEN or "
		"GPUMGR_TOKEN_FILE "
		"for the command line)",
		authorization == NULL ? "no token was sent" : "the token is not the right one");
	reply_header(request, "WWW-Authenticate", "Bearer realm=\"gpumgr\"");
	return false;
}

bool guard_admits(struct guard *guard, struct request *request)
{
	/* No browser and no DNS name leads to a Unix socket, so there the Host is whatever the client likes. */
	if (request->client->listener->is_unix)
		return admits_origin(guard, request);
	return admits_host(guard, request) && admits_origin(guard, request) && admits_token(guard, request);
}
