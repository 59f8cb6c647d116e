/* Finding the daemon's address and the token. Must not print or keep the token anywhere but in the address. */
#include "client/address.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TOKEN_MAX 4096

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static void wipe(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void client_address_finish(struct client_address *address)
{
	free(address->socket);
	free(address->url);
	wipe(address->token);
	*address = (struct client_address){ 0 };
}

void client_settings_finish(struct client_settings *settings)
{
	free(settings->socket);
	free(settings->url);
	wipe(settings->token);
	free(settings->token_file);
	*settings = (struct client_settings){ 0 };
}

int client_token_check(const char *token, const char *source, struct error *err)
{
	if (token[0] == '\0')
		return error_set(err, -EINVAL, "%s is empty; put the daemon's token there, or unset it", source);
	for (const char *c = token; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~')
			return error_set(err, -EINVAL,
				"%s is not a token: only printable ASCII without spaces can be sent", source);
	return 0;
}

/* The URL's parts that have no meaning for us. */
static const struct {
	CURLUPart part;
	const char *name;
} unwanted[] = {
	{ CURLUPART_QUERY, "a query" },
	{ CURLUPART_FRAGMENT, "a fragment" },
	{ CURLUPART_USER, "a user; the token goes into GPUMGR_TOKEN" },
};

static int check_url(CURLU *url, const char *text, struct error *err)
{
	char *scheme = NULL;
	if (curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
		return error_set(err, -EINVAL, "\"%.200s\" is not a URL; write http://HOST:PORT", text);
	bool is_http = strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0;
	curl_free(scheme);
	if (!is_http)
		return error_set(err, -EINVAL, "\"%.200s\": only http:// and https:// are understood", text);
	for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++) {
		char *part = NULL;
		CURLUcode r = curl_url_get(url, unwanted[i].part, &part, 0);
		curl_free(part);
		if (r == CURLUE_OK)
			return error_set(err, -EINVAL, "the URL may not have %s", unwanted[i].name);
	}
	return 0;
}

int client_url_parse(const char *text, char **ret_url, struct error *err)
{
	CURLU *url = curl_url();
	char *whole = NULL;
	if (url == NULL)
		return no_memory(err);
	int r = check_url(url, text, err);
	if (r == 0 && curl_url_get(url, CURLUPART_URL, &whole, 0) != CURLUE_OK)
		r = no_memory(err);
	curl_url_cleanup(url);
	if (r < 0)
		return r;
	size_t n = strlen(whole);
	while (n > 0 && whole[n - 1] == '/')
		n--;
	*ret_url = strndup(whole, n);
	curl_free(whole);
	return *ret_url != NULL ? 0 : no_memory(err);
}

static int set_socket(const char *path, struct client_address *address, struct error *err)
{
	struct sockaddr_un un;
	if (path[0] == '\0')
		return error_set(err, -EINVAL, "the path of the socket is empty");
	if (strlen(path) >= sizeof(un.sun_path))
		return error_set(err, -EINVAL, "the path of the socket is too long (%zu bytes, at most %zu): %.200s",
			strlen(path), sizeof(un.sun_path) - 1, path);
	address->socket = strdup(path);
	return address->socket != NULL ? 0 : no_memory(err);
}

/* Whether something stands there; "may not look" counts as yes, so that the error says so later. */
static bool is_there(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* The socket of a daemon that runs as this user. One under /tmp is believed only when it is ours. */
static char *user_socket(void)
{
	char *path = NULL;
	const char *runtime_dir = getenv("XDG_RUNTIME_DIR");
	int n;
	if (runtime_dir != NULL && runtime_dir[0] == '/')
		n = asprintf(&path, "%s/gpumgr/gpumgr.sock", runtime_dir);
	else
		n = asprintf(&path, "/tmp/gpumgr-%u/gpumgr.sock", (unsigned)getuid());
	return n < 0 ? NULL : path;
}

static bool is_ours(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 && st.st_uid == getuid();
}

static int set_default_socket(struct client_address *address, struct error *err)
{
	if (getuid() == 0)
		return set_socket(DEFAULT_SYSTEM_SOCKET, address, err);
	CLEANUP_FREE char *own = user_socket();
	if (own == NULL)
		return no_memory(err);
	if (!is_ours(own) && is_there(DEFAULT_SYSTEM_SOCKET))
		return set_socket(DEFAULT_SYSTEM_SOCKET, address, err);
	return set_socket(own, address, err);
}

static int read_token_file(const char *source, const char *path, char **ret_token, struct error *err)
{
	char buffer[TOKEN_MAX + 2];
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buffer, sizeof(buffer) - 1);
	if (n < 0)
		return error_set(err, -errno, "%s: cannot read %.300s: %s", source, path, strerror(errno));
	buffer[n] = '\0';
	size_t length = strcspn(buffer, "\r\n");
	if (length > TOKEN_MAX)
		return error_set(err, -EINVAL, "%s: the token in %.300s is too long", source, path);
	*ret_token = strndup(buffer, length);
	explicit_bzero(buffer, sizeof(buffer));
	if (*ret_token == NULL)
		return no_memory(err);
	char where[64];
	snprintf(where, sizeof(where), "the token in %s", source);
	return client_token_check(*ret_token, where, err);
}

static int copy_token(const char *source, const char *token, struct client_address *address, struct error *err)
{
	int r = client_token_check(token, source, err);
	if (r < 0)
		return r;
	address->token = strdup(token);
	return address->token != NULL ? 0 : no_memory(err);
}

/* An empty variable is one that is not set. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);
	return value != NULL && value[0] != '\0' ? value : NULL;
}

static int find_token(const struct client_settings *settings, struct client_address *address, struct error *err)
{
	const char *token = variable("GPUMGR_TOKEN");
	const char *file = variable("GPUMGR_TOKEN_FILE");
	if (settings->token != NULL)
		return copy_token("the token", settings->token, address, err);
	if (settings->token_file != NULL)
		return read_token_file("the token file", settings->token_file, &address->token, err);
	if (token != NULL)
		return copy_token("GPUMGR_TOKEN", token, address, err);
	return file != NULL ? read_token_file("GPUMGR_TOKEN_FILE", file, &address->token, err) : 0;
}

static int set_url(
	const char *url, const struct client_settings *settings, struct client_address *address, struct error *err)
{
	int r = client_url_parse(url, &address->url, err);
	return r < 0 ? r : find_token(settings, address, err);
}

int client_address_find(const struct client_settings *settings, struct client_address *ret_address, struct error *err)
{
	const char *socket_variable = variable("GPUMGR_SOCKET");
	const char *url_variable = variable("GPUMGR_URL");
	*ret_address = (struct client_address){ 0 };
	if (settings->socket != NULL && settings->url != NULL)
		return error_set(err, -EINVAL, "a socket and a URL exclude each other");
	if (settings->socket != NULL)
		return set_socket(settings->socket, ret_address, err);
	if (settings->url != NULL)
		return set_url(settings->url, settings, ret_address, err);
	if (socket_variable != NULL)
		return set_socket(socket_variable, ret_address, err);
	if (url_variable != NULL)
		return set_url(url_variable, settings, ret_address, err);
	return set_default_socket(ret_address, err);
}

void client_address_renew_token(const struct client_settings *settings, struct client_address *address)
{
	struct client_address now = { 0 };
	struct error ignored;
	if (address->url != NULL && find_token(settings, &now, &ignored) == 0 && now.token != NULL) {
		char *before = address->token;
		address->token = now.token;
		now.token = before;
	}
	client_address_finish(&now);
}

char *client_escape(const char *name)
{
	static const char digits[] = "0123456789ABCDEF";
	char *escaped = malloc(strlen(name) * 3 + 1);
	char *out = escaped;
	if (escaped == NULL)
		return NULL;
	for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
		bool is_plain = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			*c == '-' || *c == '_' || *c == '~';
		if (is_plain) {
			*out++ = (char)*c;
			continue;
		}
		/* Dots too: "." and ".." are not for the client to walk with. */
		*out++ = '%';
		*out++ = digits[*c >> 4];
		*out++ = digits[*c & 15];
	}
	*out = '\0';
	return escaped;
}
