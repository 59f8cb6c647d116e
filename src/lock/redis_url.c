/* Takes a URL apart that address_check_lock() found well formed; what it cannot use it refuses. Never shows a secret.
 */
#include "lock/redis_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/address.h"

#define DATABASE_MAX 1000000

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int decode(const char *text, size_t length, char *buffer, size_t size, const char *what, struct error *err)
{
	size_t n = 0;
	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (c == '%') {
			int high = i + 1 < length ? hex_digit(text[i + 1]) : -1;
			int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;
			if (high < 0 || low < 0 || (high == 0 && low == 0))
				return error_set(err, -EINVAL,
					"lock.url: the %s has a %% without two hexadecimal digits behind it; a %% "
					"itself is "
					"written %%25",
					what);
			c = (char)(high * 16 + low);
			i += 2;
		}
		if (n + 1 >= size)
			return error_set(err, -EINVAL, "lock.url: the %s is longer than %zu bytes", what, size - 1);
		buffer[n++] = c;
	}
	buffer[n] = '\0';
	return 0;
}

static int take_database(const char *text, size_t length, unsigned *ret_database, struct error *err)
{
	unsigned number = 0;
	for (size_t i = 0; i < length; i++) {
		number = number * 10 + (unsigned)(text[i] - '0');
		if (text[i] < '0' || text[i] > '9' || number > DATABASE_MAX)
			return error_set(err, -EINVAL, "lock.url: the database is not a number up to %d", DATABASE_MAX);
	}
	*ret_database = number;
	return 0;
}

/* [USER]:PASSWORD */
static int take_user(const char *text, size_t length, struct redis_url *url, struct error *err)
{
	const char *colon = memchr(text, ':', length);
	if (colon == NULL)
		return error_set(err, -EINVAL,
			"lock.url: names a user without a password; write redis://USER:PASSWORD@HOST, or "
			"redis://:PASSWORD@HOST where there is only a password");
	size_t user_length = (size_t)(colon - text);
	int r = decode(text, user_length, url->user, sizeof(url->user), "user", err);
	if (r < 0)
		return r;
	return decode(colon + 1, length - user_length - 1, url->password, sizeof(url->password), "password", err);
}

/* HOST, HOST:PORT, [IPV6] or [IPV6]:PORT */
static int take_place(const char *text, size_t length, uint16_t port, struct redis_url *url, struct error *err)
{
	if (url->n_places == ARRAY_SIZE(url->places))
		return error_set(err, -EINVAL, "lock.url: names more than %zu hosts", ARRAY_SIZE(url->places));
	struct redis_place *place = &url->places[url->n_places];
	const char *end = text + length;
	const char *host = text;
	const char *behind = memchr(text, ':', length);
	if (length > 0 && text[0] == '[') {
		host++;
		behind = memchr(text, ']', length);
		if (behind == NULL)
			return error_set(err, -EINVAL, "lock.url: has a malformed IPv6 address");
	}
	size_t host_length = (size_t)((behind == NULL ? end : behind) - host);
	if (host_length > REDIS_HOST_MAX || !address_is_host(host, host_length))
		return error_set(err, -EINVAL, "lock.url: has a malformed host");
	memcpy(place->host, host, host_length);
	place->port = port;
	if (behind != NULL && *behind == ']')
		behind++;
	if (behind != NULL && behind < end && *behind == ':')
		place->port = (uint16_t)strtoul(behind + 1, NULL, 10);
	url->n_places++;
	return 0;
}

static int take_places(const char *text, size_t length, uint16_t port, struct redis_url *url, struct error *err)
{
	const char *end = text + length;
	for (;;) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		int r = take_place(text, (size_t)((comma == NULL ? end : comma) - text), port, url, err);
		if (r < 0 || comma == NULL)
			return r;
		text = comma + 1;
	}
}

/* NAME=VALUE&NAME=VALUE */
static int take_query(const char *text, struct redis_url *url, struct error *err)
{
	while (*text != '\0') {
		size_t length = strcspn(text, "&");
		const char *equals = memchr(text, '=', length);
		size_t name_length = equals == NULL ? length : (size_t)(equals - text);
		const char *value = equals == NULL ? text + length : equals + 1;
		size_t value_length = (size_t)(text + length - value);
		int r;
		if (name_length == 2 && memcmp(text, "db", 2) == 0)
			r = take_database(value, value_length, &url->database, err);
		else if (name_length == 8 && memcmp(text, "username", 8) == 0)
			r = decode(value, value_length, url->user, sizeof(url->user), "user", err);
		else if (name_length == 8 && memcmp(text, "password", 8) == 0)
			r = decode(value, value_length, url->password, sizeof(url->password), "password", err);
		else
			r = error_set(err, -EINVAL,
				"lock.url: has something behind the ? that is none of db=, username= and password=");
		if (r < 0)
			return r;
		text += length + (text[length] == '&');
	}
	return 0;
}

/* /MASTER[/DB] or [/DB], then perhaps a query. */
static int take_path(const char *text, bool is_sentinel, struct redis_url *url, struct error *err)
{
	size_t length = strcspn(text, "?");
	const char *query = text[length] == '?' ? text + length + 1 : "";
	if (length > 0) {
		text++;
		length--;
	}
	if (is_sentinel) {
		size_t name_length = strcspn(text, "/?");
		if (name_length == 0)
			return error_set(err, -EINVAL,
				"lock.url: does not name the master (redis+sentinel://HOST:26379/mymaster)");
		int r = decode(text, name_length, url->master, sizeof(url->master), "name of the master", err);
		if (r < 0)
			return r;
		name_length += text[name_length] == '/';
		text += name_length;
		length -= name_length;
	}
	int r = take_database(text, length, &url->database, err);
	return r < 0 ? r : take_query(query, url, err);
}

static int parse_socket(const char *text, struct redis_url *url, struct error *err)
{
	size_t length = strcspn(text, "?");
	int r = decode(text, length, url->places[0].path, sizeof(url->places[0].path), "path of the socket", err);
	url->n_places = 1;
	return r < 0 || text[length] == '\0' ? r : take_query(text + length + 1, url, err);
}

static int parse_hosts(const char *text, uint16_t port, bool is_sentinel, struct redis_url *url, struct error *err)
{
	size_t length = strcspn(text, "/?");
	const char *path = text + length;
	const char *at = memrchr(text, '@', length);
	if (at != NULL) {
		int r = take_user(text, (size_t)(at - text), url, err);
		if (r < 0)
			return r;
		length -= (size_t)(at + 1 - text);
		text = at + 1;
	}
	int r = take_places(text, length, port, url, err);
	return r < 0 ? r : take_path(path, is_sentinel, url, err);
}

static const char *behind_prefix(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);
	return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static int parse(const char *text, struct redis_url *url, struct error *err)
{
	const char *problem = address_check_lock(text);
	const char *rest;
	if (problem != NULL)
		return error_set(err, -EINVAL, "lock.url: %s", problem);
	if ((rest = behind_prefix(text, "unix://")) != NULL)
		return parse_socket(rest, url, err);
	if ((rest = behind_prefix(text, "redis+sentinel://")) != NULL)
		return parse_hosts(rest, REDIS_SENTINEL_PORT, true, url, err);
	if ((rest = behind_prefix(text, "redis://")) != NULL)
		return parse_hosts(rest, REDIS_PORT, false, url, err);
	url->places[0].tls = true;
	return parse_hosts(behind_prefix(text, "rediss://"), REDIS_PORT, false, url, err);
}

int redis_url_parse(const char *text, struct redis_url *ret_url, struct error *err)
{
	struct redis_url url = { 0 };
	int r = parse(text, &url, err);
	if (r == 0)
		*ret_url = url;
	return r;
}

bool redis_url_has_login(const struct redis_url *url)
{
	return url->user[0] != '\0' || url->password[0] != '\0';
}

const char *redis_place_name(const struct redis_place *place, char *buffer, size_t size)
{
	if (place->path[0] != '\0')
		snprintf(buffer, size, "%s", place->path);
	else if (strchr(place->host, ':') != NULL)
		snprintf(buffer, size, "[%s]:%u", place->host, place->port);
	else
		snprintf(buffer, size, "%s:%u", place->host, place->port);
	return buffer;
}
