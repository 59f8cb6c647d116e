/*
 * The bearer token of TCP clients, in a file that only its owner (and group) may read. Read again when it changed,
 * so that a token can be replaced without a restart; a file that became unusable lets nobody in.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "base/error.h"

#define TOKEN_MAX 1024

struct token {
	const char *path; /* borrowed; NULL: no token */
	bool usable;
	struct timespec changed; /* what the file was when it was read last */
	off_t size;
	ino_t inode;
	char text[TOKEN_MAX + 1];
};

/* Reads it the first time. Negative errno with a message: missing, readable by others, empty, or not a token. */
int token_open(struct token *token, const char *path, struct error *err);

/* Whether `offered` (the value of an Authorization header) carries it. Takes as long for a wrong one as for a right. */
bool token_matches(struct token *token, const char *authorization);
