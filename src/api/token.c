/* Reading and comparing the token. Its text never goes into a message or the log. */
#include "api/token.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/log.h"

static int check_file(const char *path, const struct stat *st, struct error *err)
{
	if (!S_ISREG(st->st_mode))
		return error_set(err, -EINVAL, "token_file %s is not a regular file", path);
	if (st->st_mode & (S_IROTH | S_IWOTH))
		return error_set(
			err, -EPERM, "token_file %s is open to every user of this machine; chmod o-rwx it", path);
	if (st->st_size > TOKEN_MAX)
		return error_set(err, -E2BIG,
			"token_file %s holds more than %d bytes; it must hold one line with the token", path,
			TOKEN_MAX);
	return 0;
}

static int check_text(const char *path, const char *text, struct error *err)
{
	if (text[0] == 0)
		return error_set(err, -EINVAL,
			"token_file %s is empty; put a token into it, such as the output of `openssl rand -hex 32`",
			path);
	for (const char *c = text; *c != 0; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
			return error_set(err, -EINVAL,
				"token_file %s must hold one line of printable ASCII without spaces", path);
	return 0;
}

static int read_token(struct token *token, struct error *err)
{
	token->usable = false;
	CLEANUP_CLOSE int fd = open(token->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "token_file %s cannot be read: %s", token->path, strerror(errno));
	token->changed = st.st_ctim;
	token->size = st.st_size;
	token->inode = st.st_ino;
	int r = check_file(token->path, &st, err);
	if (r < 0)
		return r;
	ssize_t length = read(fd, token->text, TOKEN_MAX);
	if (length < 0)
		return error_set(err, -errno, "token_file %s cannot be read: %s", token->path, strerror(errno));
	while (length > 0 && strchr("\r\n", token->text[length - 1]) != NULL)
		length--;
	memset(token->text + length, 0, sizeof(token->text) - (size_t)length); /* all of it is compared */
	r = check_text(token->path, token->text, err);
	token->usable = r == 0;
	return r;
}

int token_open(struct token *token, const char *path, struct error *err)
{
	*token = (struct token){ .path = path };
	return read_token(token, err);
}

/* Looks whether the file is still the one that was read. */
static void refresh(struct token *token)
{
	struct stat st;
	if (stat(token->path, &st) == 0 && st.st_ino == token->inode && st.st_size == token->size &&
		st.st_ctim.tv_sec == token->changed.tv_sec && st.st_ctim.tv_nsec == token->changed.tv_nsec &&
		(st.st_mode & (S_IROTH | S_IWOTH)) == 0)
		return;
	bool was_usable = token->usable;
	struct error err;
	if (read_token(token, &err) < 0) {
		if (was_usable)
			log_error("%s; until it is repaired nobody is let in over TCP", err.message);
	} else {
		log_info("token_file %s was read again", token->path);
	}
}

/* Without a branch or an early end that depends on what the secret is. */
static bool equal(const char *secret, const char *offered)
{
	char padded[TOKEN_MAX + 1] = { 0 };
	size_t length = strnlen(offered, sizeof(padded));
	bool too_long = length > TOKEN_MAX;
	memcpy(padded, offered, too_long ? TOKEN_MAX : length);
	unsigned char difference = too_long;
	for (size_t i = 0; i < sizeof(padded); i++)
		difference |= (unsigned char)(padded[i] ^ secret[i]);
	return difference == 0;
}

bool token_matches(struct token *token, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	refresh(token);
	if (!token->usable || authorization == NULL || strncasecmp(authorization, scheme, strlen(scheme)) != 0)
		return false;
	const char *offered = authorization + strlen(scheme);
	return equal(token->text, offered + strspn(offered, " "));
}
