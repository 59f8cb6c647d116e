/* The error codes of Redis, what they mean for the lock, and what helps. */
#include "lock/redis_explain.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "lock/redis_value.h"

struct row {
	const char *code; /* the beginning of the answer, or, behind a script's own words, `CODE ` */
	enum redis_verdict verdict;
	bool is_quoted; /* the server's own words follow */
	const char *meaning;
};

#define AUTH_URL "lock.url (redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST)"

/* %K: the key, %U: the user. More special ones first. */
static const struct row rows[] = {
	{ "NOSCRIPT", REDIS_NO_SCRIPT, false, "does not know the script any more" },
	{ "NOAUTH", REDIS_WRONG_SERVER, false, "asks for a password; put it into " AUTH_URL },
	{ "WRONGPASS", REDIS_WRONG_SERVER, false,
		"does not accept the user or the password; put the right ones into lock.url" },
	{ "ERR invalid password", REDIS_WRONG_SERVER, false,
		"does not accept the password; put the right one into lock.url" },
	{ "ERR AUTH <password> called without any password", REDIS_WRONG_SERVER, false,
		"has no password, but lock.url names one; take it out there, or set requirepass in Redis" },
	{ "ERR Client sent AUTH, but no password", REDIS_WRONG_SERVER, false,
		"has no password, but lock.url names one; take it out there, or set requirepass in Redis" },
	{ "NOPERM", REDIS_REFUSED, true,
		"does not let the user %U do that; docs/locking.md lists what it needs (ACL SETUSER)" },
	{ "ERR The user executing the script can't", REDIS_REFUSED, true,
		"does not let the user %U do that; docs/locking.md lists what it needs (ACL SETUSER)" },
	{ "READONLY", REDIS_WRONG_SERVER, false,
		"is a read-only replica; name its master in lock.url, or the Sentinels (redis+sentinel://)" },
	{ "MASTERDOWN", REDIS_WRONG_SERVER, false,
		"is a replica that has lost its master; name the master in lock.url, or the Sentinels "
		"(redis+sentinel://)" },
	{ "LOADING", REDIS_WRONG_SERVER, false, "still loads its data; it is asked again" },
	{ "OOM", REDIS_REFUSED, false, "is out of memory; raise its maxmemory or make room there" },
	{ "MISCONF", REDIS_REFUSED, false,
		"refuses to write because it cannot save its data to disk; make room there, or see its log" },
	{ "NOREPLICAS", REDIS_REFUSED, false,
		"refuses to write because too few of its replicas are there (min-replicas-to-write)" },
	{ "WRONGTYPE", REDIS_REFUSED, false,
		"has the key %K, or one that begins with it, but not as a lock: another program uses that name; set "
		"lock.key to "
		"another one, or delete it there (DEL)" },
	{ "BUSY", REDIS_REFUSED, false, "is busy with another program's script; SCRIPT KILL in redis-cli ends it" },
	{ "MOVED", REDIS_WRONG_SERVER, true,
		"is part of a cluster, and keeps the key %K on another node; name that one in lock.url" },
	{ "ASK", REDIS_WRONG_SERVER, true, "is part of a cluster, and is moving the key %K to another node" },
	{ "CLUSTERDOWN", REDIS_WRONG_SERVER, false, "is part of a cluster that is down" },
	{ "NOFENCES", REDIS_REFUSED, false,
		"has no fences left below 2^53: its clock is wrong by centuries, or {%K}:fence was changed; set the "
		"clock, then "
		"delete that key" },
	{ "ERR max number of clients", REDIS_WRONG_SERVER, false,
		"has as many clients as it takes; raise its maxclients" },
	{ "ERR DB index", REDIS_WRONG_SERVER, false, "has no database of that number; change the one in lock.url" },
	{ "ERR invalid DB", REDIS_WRONG_SERVER, false, "has no database of that number; change the one in lock.url" },
	{ "ERR unknown command", REDIS_REFUSED, false,
		"lacks a command that the lock needs (EVAL, INFO, AUTH); it was renamed or disabled there "
		"(rename-command)" },
	{ "DENIED", REDIS_WRONG_SERVER, false,
		"is in protected mode; set a password there (requirepass) and put it into lock.url" },
};

/* In an answer of Redis 7 the code comes first; before, a script's error names it somewhere behind its own words. */
static bool is_it(const char *said, const char *code)
{
	size_t length = strlen(code);
	if (strncmp(said, code, length) == 0)
		return true;
	if (strncmp(said, "ERR Error running script", 24) != 0)
		return false;
	const char *found = strstr(said, code);
	return found != NULL && (found[-1] == ' ' || found[-1] == '-') && found[length] == ' ';
}

static void append(char *text, size_t size, const char *more)
{
	size_t n = strlen(text);
	snprintf(text + n, size - n, "%s", more);
}

static void append_meaning(const struct redis_subject *subject, const char *meaning, char *text, size_t size)
{
	while (*meaning != '\0') {
		char piece[2] = { *meaning, '\0' };
		bool is_key = strncmp(meaning, "%K", 2) == 0;
		bool is_user = strncmp(meaning, "%U", 2) == 0;
		append(text, size,
			is_key                     ? subject->key
				: !is_user         ? piece
				: subject->user[0] ? subject->user
						   : "default");
		meaning += is_key || is_user ? 2 : 1;
	}
}

#define SECRET_PIECE 6

/* A server may repeat what it was sent, and cut it, or escape some of it. */
static bool shows_secret(const char *said, const char *password)
{
	char piece[SECRET_PIECE + 1];
	size_t length = strlen(password);
	if (length <= SECRET_PIECE)
		return length > 0 && strstr(said, password) != NULL;
	for (size_t i = 0; i + SECRET_PIECE <= length; i++) {
		memcpy(piece, password + i, SECRET_PIECE);
		piece[SECRET_PIECE] = '\0';
		if (strstr(said, piece) != NULL)
			return true;
	}
	return false;
}

static void append_words(const struct redis_subject *subject, const char *said, char *text, size_t size)
{
	char words[120];
	if (shows_secret(said, subject->password))
		return;
	redis_value_print(words, sizeof(words), said, strlen(said));
	append(text, size, " (it says: ");
	append(text, size, words);
	append(text, size, ")");
}

enum redis_verdict redis_explain(const struct redis_subject *subject, const char *said, char *text, size_t size)
{
	snprintf(text, size, "%s ", subject->server);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (is_it(said, rows[i].code)) {
			append_meaning(subject, rows[i].meaning, text, size);
			if (rows[i].is_quoted)
				append_words(subject, said, text, size);
			return rows[i].verdict;
		}
	append(text, size, "refuses");
	append_words(subject, said, text, size);
	append(text, size, "; see its log");
	return REDIS_REFUSED;
}
