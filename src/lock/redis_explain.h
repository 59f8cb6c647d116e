/*
 * What a Redis server answers when it refuses, in words with a remedy. ONE table of its error codes. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* What texts may name: nothing of it is a secret but `password`, which is taken out of what the server says. */
struct redis_subject {
	const char *server; /* "Redis at HOST:PORT" */
	const char *key;
	const char *user; /* "": the default user */
	const char *password; /* "" when there is none */
};

/* What the owner of a connection must do about it. */
enum redis_verdict {
	REDIS_REFUSED, /* the server is there and may do it later; ask again */
	REDIS_NO_SCRIPT, /* it does not know the script any more; send it whole */
	REDIS_WRONG_SERVER, /* connect anew: it is no master, still loads, or does not know us */
};

/* `said`: an error reply, "OOM command not allowed ...". Writes the text: "Redis at h:1: ...; REMEDY". */
enum redis_verdict redis_explain(const struct redis_subject *subject, const char *said, char *text, size_t size);
