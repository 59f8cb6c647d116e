/*
 * Where the daemon is, and with what secret it is spoken to: from options, the environment and the defaults, in this
 * order. Text only; nothing is connected to here.
 */
#pragma once

#include "base/error.h"

#define DEFAULT_SYSTEM_SOCKET "/run/gpumgr/gpumgr.sock"

/* Either a Unix socket or a URL. */
struct client_address {
	char *socket; /* path, NULL with a URL */
	char *url; /* "http://host:port/prefix" without a slash at the end, NULL with a socket */
	char *token; /* NULL: none; only sent to a URL */
};

/* What was said explicitly; each may be NULL. */
struct client_settings {
	char *socket; /* not with a URL */
	char *url;
	char *token;
	char *token_file;
};
void client_settings_finish(struct client_settings *settings);

/*
 * What was said, then GPUMGR_SOCKET, GPUMGR_URL, then the user's own daemon's socket if it is there, then the system's.
 * The token is the one that was said, else the first line of that file, else GPUMGR_TOKEN, else the first line of the
 * file GPUMGR_TOKEN_FILE. 0, -EINVAL, -ENOMEM, or why the token file could not be read. Ended by
 * client_address_finish() also after an error.
 */
int client_address_find(const struct client_settings *settings, struct client_address *ret_address, struct error *err);
void client_address_finish(struct client_address *address);
/* The token as its source says it now; the one that is known stays where none can be read. */
void client_address_renew_token(const struct client_settings *settings, struct client_address *address);

/* Checks and normalises a URL; the caller frees it. -EINVAL with a message. */
int client_url_parse(const char *text, char **ret_url, struct error *err);

/* Whether it can stand in an HTTP header: printable ASCII without spaces, not empty. */
int client_token_check(const char *token, const char *source, struct error *err);

/* The name as a part of a URL's path or query; the caller frees it. NULL: no memory. */
char *client_escape(const char *name);
