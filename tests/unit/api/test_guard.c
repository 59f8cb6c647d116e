/* Which Host and Origin mean this machine. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/guard.h"
#include "base/cleanup.h"

static char *allowed[] = { "gpu.example.org" };

static struct config config = { .allowed_hosts = { 1, allowed }, .open = true };

static void test_hosts(void **state)
{
	static const struct {
		const char *host;
		bool is_ours;
	} cases[] = {
		{ "localhost", true },
		{ "LocalHost:8700", true },
		{ "localhost.", true },
		{ "a.localhost", true },
		{ "127.0.0.1", true },
		{ "127.1.2.3:1", true },
		{ "[::1]", true },
		{ "[::1]:8700", true },
		{ "[::ffff:127.0.0.1]:8700", true },
		{ "gpu.example.org", true },
		{ "GPU.example.org:80", true },
		{ "host.docker.internal:8700", true },
		{ "x.internal", true },
		{ ".internal", false },
		{ "internal", false },
		{ "evil.internal.example.org", false },
		{ "example.org", false },
		{ "gpu.example.org.evil.org", false },
		{ "localhost.evil.org", false },
		{ "127.0.0.1.evil.org", false },
		{ "0.0.0.0", false },
		{ "192.0.2.1", false },
		{ "[2001:db8::1]", false },
		{ "", false },
		{ ":", false },
		{ ":8700", false },
		{ "[::1", false },
		{ "[]", false },
		{ "[::1]x", false },
		{ "[localhost]", false },
		{ "localhost:x", false },
		{ "localhost:123456", false },
		{ "localhost:80:80", false },
		{ "evil.org@localhost", false },
		{ "localhost@evil.org", false },
		{ "local host", false },
		{ "evil.org/.internal", false },
		{ "evil.org#.internal", false },
		{ "2130706433", false },
		{ "0x7f000001", false },
		{ "127.1", false },
	};
	struct guard guard;
	(void)state;
	assert_int_equal(guard_open(&guard, &(const struct config *){ &config }, true, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (guard_host_is_ours(&guard, cases[i].host) != cases[i].is_ours)
			fail_msg("host `%s`", cases[i].host);
	guard_finish(&guard);
}

static void test_long_host(void **state)
{
	char host[1000];
	struct guard guard;
	(void)state;
	memset(host, 'a', sizeof(host));
	snprintf(host + sizeof(host) - 20, 20, ".internal");
	assert_int_equal(guard_open(&guard, &(const struct config *){ &config }, true, NULL), 0);
	assert_false(guard_host_is_ours(&guard, host));
	guard_finish(&guard);
}

static void test_origins(void **state)
{
	static const struct {
		const char *origin;
		bool is_ours;
	} cases[] = {
		{ "http://localhost:3000", true },
		{ "https://gpu.example.org", true },
		{ "null", false },
		{ "", false },
		{ "http://", false },
		{ "localhost", false },
		{ "file://localhost", false },
		{ "http://evil.org", false },
		{ "http://localhost@evil.org", false },
		{ "http://localhost/evil", false },
		{ "chrome-extension://localhost", false },
	};
	struct guard guard;
	(void)state;
	assert_int_equal(guard_open(&guard, &(const struct config *){ &config }, true, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (guard_origin_is_ours(&guard, cases[i].origin) != cases[i].is_ours)
			fail_msg("origin `%s`", cases[i].origin);
	guard_finish(&guard);
}

static char *addresses[] = { "127.0.0.1:0" };

static void test_tcp_needs_a_token_or_open(void **state)
{
	struct config closed = { .listen = { 1, addresses } };
	struct guard guard;
	struct error err;
	(void)state;
	assert_true(guard_open(&guard, &(const struct config *){ &closed }, true, &err) < 0);
	assert_non_null(strstr(err.message, "token_file"));
	assert_non_null(strstr(err.message, "open: true"));
	closed.token_file = "/nonexistent/token";
	assert_true(guard_open(&guard, &(const struct config *){ &closed }, true, &err) < 0);
	assert_non_null(strstr(err.message, "/nonexistent/token"));
	closed.open = true;
	assert_int_equal(guard_open(&guard, &(const struct config *){ &closed }, true, &err), 0);
	guard_finish(&guard);
}

static void test_tcp_that_the_configuration_does_not_name(void **state)
{
	struct config closed = { 0 };
	struct guard guard;
	struct error err;
	(void)state;
	assert_int_equal(guard_open(&guard, &(const struct config *){ &closed }, false, &err), 0);
	assert_false(guard.needs_token);
	guard_finish(&guard);
	assert_int_equal(guard_open(&guard, &(const struct config *){ &closed }, true, &err), -EINVAL);
	assert_non_null(strstr(err.message, "handed over needs token_file"));
}

/* A token file in a folder of the test's own. */
struct place {
	char folder[64];
	char path[80];
};

static void put_token(const struct place *place, const char *text, mode_t mode)
{
	unlink(place->path);
	int fd = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int make_place(void **state)
{
	static struct place place;
	snprintf(place.folder, sizeof(place.folder), "/tmp/gpumgr-guard-XXXXXX");
	if (mkdtemp(place.folder) == NULL)
		return -1;
	snprintf(place.path, sizeof(place.path), "%s/token", place.folder);
	*state = &place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	unlink(place->path);
	return rmdir(place->folder);
}

static void test_token(void **state)
{
	struct place *place = *state;
	struct token token;
	put_token(place, "s3cret\n", 0640);
	assert_int_equal(token_open(&token, place->path, NULL), 0);
	assert_true(token_matches(&token, "Bearer s3cret"));
	assert_true(token_matches(&token, "bearer  s3cret"));
	static const char *const wrong[] = { "Bearer s3cre", "Bearer s3cret2", "Bearer ", "Bearer", "Basic s3cret",
		"s3cret", "", "Bearer S3cret" };
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (token_matches(&token, wrong[i]))
			fail_msg("`%s` was let in", wrong[i]);
	assert_false(token_matches(&token, NULL));
	char endless[3000];
	memset(endless, 's', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = 0;
	memcpy(endless, "Bearer ", 7);
	assert_false(token_matches(&token, endless));
}

static void test_token_is_read_again(void **state)
{
	struct place *place = *state;
	struct token token;
	put_token(place, "first", 0600);
	assert_int_equal(token_open(&token, place->path, NULL), 0);
	put_token(place, "second\r\n", 0600);
	assert_true(token_matches(&token, "Bearer second"));
	assert_false(token_matches(&token, "Bearer first"));
	assert_int_equal(chmod(place->path, 0644), 0);
	assert_false(token_matches(&token, "Bearer second"));
	unlink(place->path);
	assert_false(token_matches(&token, "Bearer second"));
	put_token(place, "third", 0600);
	assert_true(token_matches(&token, "Bearer third"));
}

static void test_bad_token_files(void **state)
{
	static const struct {
		const char *text;
		mode_t mode;
		const char *says;
	} cases[] = {
		{ "s3cret", 0604, "chmod" },
		{ "s3cret", 0602, "chmod" },
		{ "", 0600, "empty" },
		{ "\n", 0600, "empty" },
		{ "two words", 0600, "one line" },
		{ "two\nlines", 0600, "one line" },
		{ "\xc3\xa9", 0600, "one line" },
	};
	struct place *place = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct token token;
		struct error err;
		put_token(place, cases[i].text, cases[i].mode);
		assert_true(token_open(&token, place->path, &err) < 0);
		assert_non_null(strstr(err.message, cases[i].says));
		assert_non_null(strstr(err.message, place->path));
		assert_false(token_matches(&token, "Bearer s3cret"));
		assert_false(token_matches(&token, "Bearer "));
	}
	struct token token;
	assert_true(token_open(&token, place->folder, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_long_host),
		cmocka_unit_test(test_origins),
		cmocka_unit_test(test_tcp_needs_a_token_or_open),
		cmocka_unit_test(test_tcp_that_the_configuration_does_not_name),
		cmocka_unit_test_setup_teardown(test_token, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_token_is_read_again, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_bad_token_files, make_place, remove_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
