/* Names and values in Redis. No I/O, no clock, no chance. */
#include "lock/redis_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define SERVICE_MAX 63
#define HOST_MAX 64
#define HOST_MARK "${HOST}"

char *redis_key_expand(const char *key, const char *host)
{
	size_t n = 0;
	for (const char *mark = key; (mark = strstr(mark, HOST_MARK)) != NULL; mark += strlen(HOST_MARK))
		n++;
	char *expanded = malloc(strlen(key) + n * strlen(host) + 1);
	if (expanded == NULL)
		return NULL;
	char *end = expanded;
	for (const char *mark; (mark = strstr(key, HOST_MARK)) != NULL; key = mark + strlen(HOST_MARK)) {
		end = mempcpy(end, key, (size_t)(mark - key));
		end = stpcpy(end, host);
	}
	stpcpy(end, key);
	return expanded;
}

/* The part between the first { and the first } behind it decides on the slot, unless it is empty. */
static bool has_hash_tag(const char *key)
{
	const char *open = strchr(key, '{');
	const char *close = open == NULL ? NULL : strchr(open, '}');
	return close != NULL && close > open + 1;
}

char *redis_key_beside(const char *key, const char *what)
{
	char *name = NULL;
	int n = has_hash_tag(key) ? asprintf(&name, "%s:%s", key, what) : asprintf(&name, "{%s}:%s", key, what);
	return n < 0 ? NULL : name;
}

static bool is_printable(char c)
{
	return (unsigned char)c > ' ' && (unsigned char)c < 0x7f;
}

static char *append_part(char *end, const char *text, size_t max)
{
	for (size_t i = 0; i < max && text[i] != '\0'; i++)
		*end++ = is_printable(text[i]) && text[i] != ':' ? text[i] : '-';
	return end;
}

void redis_value_make(char *buffer, size_t size, const char *service, const char *host, const char *nonce)
{
	char text[SERVICE_MAX + HOST_MAX + REDIS_NONCE_SIZE + 2];
	char *end = append_part(text, service == NULL || service[0] == '\0' ? "gpumgr" : service, SERVICE_MAX);
	*end++ = ':';
	end = append_part(end, host, HOST_MAX);
	*end++ = ':';
	end = append_part(end, nonce, REDIS_NONCE_SIZE - 1);
	*end = '\0';
	snprintf(buffer, size, "%s", text);
}

bool redis_value_is_gpumgr(const char *value, char *ret_host, size_t size)
{
	const char *host = strchr(value, ':');
	const char *nonce = host == NULL ? NULL : strchr(host + 1, ':');
	if (nonce == NULL || host == value || nonce == host + 1)
		return false;
	if (strlen(nonce + 1) != REDIS_NONCE_SIZE - 1 || strspn(nonce + 1, "0123456789abcdef") != REDIS_NONCE_SIZE - 1)
		return false;
	snprintf(ret_host, size, "%.*s", (int)(nonce - host - 1), host + 1);
	return true;
}

void redis_value_print(char *buffer, size_t size, const char *bytes, size_t n)
{
	size_t room = size - 1;
	size_t shown = n <= room ? n : room - 3;
	for (size_t i = 0; i < shown; i++)
		buffer[i] = is_printable(bytes[i]) || bytes[i] == ' ' ? bytes[i] : '?';
	buffer[shown] = '\0';
	if (n > room)
		memcpy(buffer + shown, "...", 4);
}
