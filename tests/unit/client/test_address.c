/* Where the daemon is: options before the environment before the defaults; URLs and tokens that cannot be. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "client/address.h"

static int clear_environment(void **state)
{
	(void)state;
	static const char *const names[] = { "GPUMGR_SOCKET", "GPUMGR_URL", "GPUMGR_TOKEN", "GPUMGR_TOKEN_FILE",
		"XDG_RUNTIME_DIR" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
	return 0;
}

static int find(const char *socket, const char *url, struct client_address *address, struct error *err)
{
	struct client_settings settings = { .socket = (char *)socket, .url = (char *)url };
	return client_address_find(&settings, address, err);
}

static void expect(const char *socket, const char *url, const char *expected_socket, const char *expected_url,
	const char *expected_token)
{
	struct client_address address;
	struct error err = { "" };
	if (find(socket, url, &address, &err) != 0)
		fail_msg("%s", err.message);
	if (expected_socket != NULL)
		assert_string_equal(address.socket, expected_socket);
	else
		assert_null(address.socket);
	if (expected_url != NULL)
		assert_string_equal(address.url, expected_url);
	else
		assert_null(address.url);
	if (expected_token != NULL)
		assert_string_equal(address.token, expected_token);
	else
		assert_null(address.token);
	client_address_finish(&address);
}

static void expect_error(const char *socket, const char *url, int code, const char *words)
{
	struct client_address address;
	struct error err = { "" };
	int r = find(socket, url, &address, &err);
	if (r != code || strstr(err.message, words) == NULL)
		fail_msg("%d \"%s\", expected %d \"%s\"", r, err.message, code, words);
	client_address_finish(&address);
}

static void test_order(void **state)
{
	(void)state;
	setenv("GPUMGR_URL", "http://env:1", 1);
	expect(NULL, NULL, NULL, "http://env:1", NULL);
	setenv("GPUMGR_SOCKET", "/env.sock", 1);
	expect(NULL, NULL, "/env.sock", NULL, NULL);
	expect("/given.sock", NULL, "/given.sock", NULL, NULL);
	expect(NULL, "http://given:2", NULL, "http://given:2", NULL);
	setenv("GPUMGR_SOCKET", "", 1);
	setenv("GPUMGR_URL", "", 1);
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	if (getuid() == 0)
		expect(NULL, NULL, DEFAULT_SYSTEM_SOCKET, NULL, NULL);
	else if (access(DEFAULT_SYSTEM_SOCKET, F_OK) != 0)
		expect(NULL, NULL, "/nonexistent/gpumgr/gpumgr.sock", NULL, NULL);
	expect_error("/a", "http://b", -EINVAL, "exclude each other");
	expect_error("", NULL, -EINVAL, "empty");
}

static void test_socket_paths_that_are_too_long(void **state)
{
	(void)state;
	char path[200];
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1] = '\0';
	expect(path, NULL, path, NULL, NULL);
	path[sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1] = 'a';
	path[sizeof(path) - 1] = '\0';
	expect_error(path, NULL, -EINVAL, "too long");
}

static void test_urls(void **state)
{
	(void)state;
	static const struct {
		const char *text, *url;
	} good[] = {
		{ "http://h:1", "http://h:1" },
		{ "http://h:1/", "http://h:1" },
		{ "http://h:1///", "http://h:1" },
		{ "https://h/prefix/", "https://h/prefix" },
		{ "HTTP://h", "http://h" },
		{ "http://[::1]:80", "http://[::1]:80" },
	};
	static const char *const bad[] = { "", "x", "h:1", "//h", "http://", "http:///", "ftp://h",
		"file:///etc/passwd", "http://h?x=1", "http://h/?x", "http://h#f", "http://u@h", "http://u:p@h",
		"http://h:x", "http://h:99999", "http://a b", "http://h\r\nX: y", "unix:///run/x" };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		expect(NULL, good[i].text, NULL, good[i].url, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = { "" };
		char *url = NULL;
		int r = client_url_parse(bad[i], &url, &err);
		if (r != -EINVAL || url != NULL || err.message[0] == '\0')
			fail_msg("\"%s\": %d %s", bad[i], r, url != NULL ? url : "");
	}
}

static void test_tokens(void **state)
{
	(void)state;
	const char *url = "http://h";
	setenv("GPUMGR_TOKEN", "s3cret~", 1);
	expect(NULL, url, NULL, url, "s3cret~");
	expect("/a", NULL, "/a", NULL, NULL); /* only sent to a URL */
	static const char *const bad[] = { "a b", "a\nX: y", "a\r", "\xc3\xa9", "a\x7f", " a", "a " };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setenv("GPUMGR_TOKEN", bad[i], 1);
		expect_error(NULL, url, -EINVAL, "GPUMGR_TOKEN");
	}
	setenv("GPUMGR_TOKEN", "", 1); /* as if unset */
	expect(NULL, url, NULL, url, NULL);
}

/* What was said goes before the environment. */
static void test_tokens_that_were_said(void **state)
{
	(void)state;
	struct client_settings settings = { .url = "http://h", .token = "said", .token_file = "/nonexistent" };
	struct client_address address;
	struct error err = { "" };
	setenv("GPUMGR_TOKEN", "env", 1);
	assert_int_equal(client_address_find(&settings, &address, &err), 0);
	assert_string_equal(address.token, "said");
	client_address_finish(&address);
	settings.token = NULL;
	assert_int_equal(client_address_find(&settings, &address, &err), -ENOENT);
	assert_non_null(strstr(err.message, "the token file: cannot read /nonexistent"));
	client_address_finish(&address);
}

static void with_token_file(const char *content, size_t n, void (*check)(void))
{
	char path[] = "/tmp/gpumgr-token-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, n), n);
	close(fd);
	setenv("GPUMGR_TOKEN_FILE", path, 1);
	check();
	unlink(path);
	unsetenv("GPUMGR_TOKEN_FILE");
}

static void expect_abc(void)
{
	expect(NULL, "http://h", NULL, "http://h", "abc");
}

static void expect_refusal(void)
{
	struct client_address address;
	struct error err = { "" };
	int r = find(NULL, "http://h", &address, &err);
	client_address_finish(&address);
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(err.message, "GPUMGR_TOKEN_FILE"));
}

static void test_token_files(void **state)
{
	(void)state;
	with_token_file("abc", 3, expect_abc);
	with_token_file("abc\n", 4, expect_abc);
	with_token_file("abc\r\nsecond line\n", 17, expect_abc);
	with_token_file("", 0, expect_refusal);
	with_token_file("\n", 1, expect_refusal);
	with_token_file("a b\n", 4, expect_refusal);
	with_token_file("\0abc", 4, expect_refusal);
	char long_token[6000];
	memset(long_token, 'a', sizeof(long_token));
	with_token_file(long_token, sizeof(long_token), expect_refusal);
	setenv("GPUMGR_TOKEN_FILE", "/nonexistent/token", 1);
	expect_error(NULL, "http://h", -ENOENT, "GPUMGR_TOKEN_FILE: cannot read /nonexistent/token");
	setenv("GPUMGR_TOKEN_FILE", "/", 1);
	expect_error(NULL, "http://h", -EISDIR, "GPUMGR_TOKEN_FILE");
}

static void test_escape(void **state)
{
	(void)state;
	static const struct {
		const char *name, *escaped;
	} names[] = {
		{ "comfyui", "comfyui" },
		{ "a-b_c~9Z", "a-b_c~9Z" },
		{ "..", "%2E%2E" },
		{ "a/b?c#d%e&f=g h", "a%2Fb%3Fc%23d%25e%26f%3Dg%20h" },
		{ "\xc3\xa9\r\n", "%C3%A9%0D%0A" },
		{ "", "" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *escaped = client_escape(names[i].name);
		assert_string_equal(escaped, names[i].escaped);
	}
}

#define CLEAN(f) cmocka_unit_test_setup_teardown(f, clear_environment, clear_environment)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CLEAN(test_order),
		CLEAN(test_socket_paths_that_are_too_long),
		CLEAN(test_urls),
		CLEAN(test_tokens),
		CLEAN(test_tokens_that_were_said),
		CLEAN(test_token_files),
		CLEAN(test_escape),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
