/* What a user says of where the daemon is: URLs, names that become part of one, tokens that become part of a header. */
#include "client/address.h"

#include <errno.h>

#include "fuzz.h"

static void check_url(const char *text)
{
	struct error err = { 0 };
	char *url = NULL, *again = NULL;
	int r = client_url_parse(text, &url, &err);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	if (r < 0) {
		FUZZ_CHECK(err.message[0] != '\0' && url == NULL);
		return;
	}
	FUZZ_CHECK(strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0);
	FUZZ_CHECK(strpbrk(url, " \t\r\n#?") == NULL && url[strlen(url) - 1] != '/');
	FUZZ_CHECK(client_url_parse(url, &again, &err) == 0 && strcmp(url, again) == 0);
	free(url);
	free(again);
}

static void check_token(const char *text)
{
	struct error err = { 0 };
	if (client_token_check(text, "the test", &err) == 0)
		FUZZ_CHECK(text[0] != '\0' && fuzz_is_printable(text) && strchr(text, ' ') == NULL);
	else
		FUZZ_CHECK(err.message[0] != '\0');
}

static void check_name(const char *text)
{
	char *escaped = client_escape(text);
	FUZZ_CHECK(escaped != NULL && strpbrk(escaped, " /?#&=\r\n") == NULL && fuzz_is_printable(escaped));
	free(escaped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	char *text = fuzz_rest(&input, NULL);
	check_url(text);
	check_token(text);
	check_name(text);
	free(text);
	return 0;
}
