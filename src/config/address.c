/* Well-formed addresses. Pure: no names are looked up, nothing is connected. */
#include "config/address.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#define HOST_MAX 253
#define HTTP_PROBLEM "is not an http:// or https:// URL"

static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_ip(int family, const char *text, size_t length)
{
	char copy[INET6_ADDRSTRLEN + 1];
	unsigned char address[16];
	if (length >= sizeof(copy))
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return inet_pton(family, copy, address) == 1;
}

/* Labels of letters, digits, `-` and (as many containers have) `_`, with single dots between them. */
static bool is_name(const char *text, size_t length)
{
	bool has_letter = false;
	for (size_t i = 0; i < length; i++) {
		bool at_edge = i == 0 || i + 1 == length || text[i - 1] == '.' || text[i + 1] == '.';
		bool is_inner = (text[i] == '-' || text[i] == '_' || text[i] == '.') && !at_edge;
		bool is_dot = text[i] == '.' && i > 0 && i + 1 < length && text[i - 1] != '.';
		if (!is_letter_or_digit(text[i]) && !is_inner && !is_dot)
			return false;
		has_letter |= is_letter_or_digit(text[i]) && (text[i] < '0' || text[i] > '9');
	}
	return has_letter;
}

bool address_is_host(const char *text, size_t length)
{
	if (length == 0 || length > HOST_MAX)
		return false;
	return is_ip(AF_INET, text, length) || is_ip(AF_INET6, text, length) || is_name(text, length);
}

static const char *check_port(const char *text, size_t length)
{
	unsigned port = 0;
	if (length == 0)
		return "has no port";
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return "has a port that is not a number";
		port = port > UINT16_MAX ? port : port * 10 + (unsigned)(text[i] - '0');
	}
	return port == 0 || port > UINT16_MAX ? "has a port that is not from 1 to 65535" : NULL;
}

/* Splits HOST[:PORT]; the host comes without brackets. False: brackets that do not match. */
static bool split_host(
	const char *text, size_t length, const char **ret_host, size_t *ret_host_length, size_t *ret_rest)
{
	if (length > 0 && text[0] == '[') {
		const char *close = memchr(text, ']', length);
		if (close == NULL)
			return false;
		*ret_host = text + 1;
		*ret_host_length = (size_t)(close - text) - 1;
		*ret_rest = (size_t)(close - text) + 1;
		return is_ip(AF_INET6, *ret_host, *ret_host_length);
	}
	const char *colon = memchr(text, ':', length);
	*ret_host = text;
	*ret_host_length = colon == NULL ? length : (size_t)(colon - text);
	*ret_rest = *ret_host_length;
	return colon == NULL || memchr(colon + 1, ':', length - *ret_host_length - 1) == NULL;
}

static const char *check_authority(const char *text, size_t length, bool host_optional, bool port_optional)
{
	const char *host;
	size_t host_length, rest;
	if (!split_host(text, length, &host, &host_length, &rest))
		return "has a malformed IPv6 address (write it in brackets: [::1]:8080)";
	if (host_length == 0 && !host_optional)
		return "has no host";
	if (host_length > 0 && !address_is_host(host, host_length))
		return "has a malformed host";
	if (rest == length)
		return port_optional && host_length > 0 ? NULL : "has no port";
	if (text[rest] != ':')
		return "has something other than a port behind the host";
	return check_port(text + rest + 1, length - rest - 1);
}

const char *address_check_host_port(const char *text, size_t length, bool host_optional)
{
	return check_authority(text, length, host_optional, false);
}

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool has_unprintable(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
			return true;
	return false;
}

const char *address_check_http(const char *text, bool host_optional)
{
	const char *authority = text;
	bool is_own = host_optional && text[0] == ':';
	if (starts_with(text, "http://"))
		authority += strlen("http://");
	else if (starts_with(text, "https://"))
		authority += strlen("https://");
	else if (!is_own)
		return HTTP_PROBLEM;
	if (has_unprintable(text))
		return "has characters that a URL must escape (a space is %20)";
	size_t length = strcspn(authority, "/?#");
	if (memchr(authority, '@', length) != NULL)
		return "has a user name in it, which is not supported";
	if (authority[length] == '#' || strchr(authority + length, '#') != NULL)
		return "has a fragment (#...), which is never sent";
	return check_authority(authority, length, is_own, !is_own);
}

/* [USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...], then an optional path; `rest` is what stands behind the hosts. */
static const char *check_redis_hosts(const char *text, bool several, const char **ret_rest)
{
	size_t length = strcspn(text, "/?");
	*ret_rest = text + length;
	const char *at = memrchr(text, '@', length);
	if (at != NULL) {
		length -= (size_t)(at + 1 - text);
		text = at + 1;
	}
	for (;;) {
		const char *comma = memchr(text, ',', length);
		if (comma != NULL && !several)
			return "names several hosts (only redis+sentinel:// may)";
		size_t one = comma == NULL ? length : (size_t)(comma - text);
		const char *problem = check_authority(text, one, false, true);
		if (problem != NULL || comma == NULL)
			return problem;
		text += one + 1;
		length -= one + 1;
	}
}

static const char *check_database(const char *path)
{
	if (path[0] == '/')
		path++;
	size_t length = strspn(path, "0123456789");
	return path[length] == '\0' || path[length] == '?' ? NULL : "has a database that is not a number";
}

const char *address_check_lock(const char *text)
{
	const char *rest;
	const char *problem;
	if (has_unprintable(text))
		return "has characters that a URL must escape";
	if (starts_with(text, "unix://"))
		return text[strlen("unix://")] == '/' && text[strlen("unix:///")] != '\0'
			? NULL
			: "has no absolute path (unix:///run/redis.sock)";
	if (starts_with(text, "redis+sentinel://")) {
		problem = check_redis_hosts(text + strlen("redis+sentinel://"), true, &rest);
		if (problem != NULL)
			return problem;
		return rest[0] == '/' && rest[1] != '\0' && rest[1] != '/'
			? NULL
			: "does not name the master (redis+sentinel://HOST:26379/mymaster)";
	}
	if (starts_with(text, "redis://"))
		problem = check_redis_hosts(text + strlen("redis://"), false, &rest);
	else if (starts_with(text, "rediss://"))
		problem = check_redis_hosts(text + strlen("rediss://"), false, &rest);
	else
		return "is not a redis://, rediss://, unix:// or redis+sentinel:// URL";
	return problem != NULL ? problem : check_database(rest);
}

const char *address_check_engine(const char *text)
{
	if (starts_with(text, "unix:///") && text[strlen("unix:///")] != '\0' && !has_unprintable(text))
		return NULL;
	return "is not the URL of a Unix socket";
}
