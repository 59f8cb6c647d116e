/* The pure parts: environment variables in values, command lines, addresses. */
#include "support.h"

#include "base/cleanup.h"
#include "config/address.h"
#include "config/expand.h"
#include "config/split.h"
#include "config/utf8.h"
#include "config/values.h"

static void expect_expansion(const char *text, const char *expected)
{
	struct error err = { "" };
	CLEANUP_FREE char *got = NULL;
	int r = expand_text(text, &got, &err);
	if (r != 0)
		fail_msg("%s: %s", text, err.message);
	assert_string_equal(got, expected);
}

static void expect_expansion_error(const char *text, const char *message)
{
	struct error err = { "" };
	char *got = NULL;
	assert_int_equal(expand_text(text, &got, &err), -EINVAL);
	assert_null(got);
	assert_string_equal(err.message, message);
}

#define MALFORMED "a malformed ${env...} (expected ${env.NAME} or ${env.NAME:-default})"

static void test_expansion(void **state)
{
	(void)state;
	setenv("GPUMGR_TEST_A", "value", 1);
	setenv("GPUMGR_TEST_EMPTY", "", 1);
	setenv("GPUMGR_TEST_NESTED", "${env.GPUMGR_TEST_A}", 1);
	unsetenv("GPUMGR_TEST_NONE");
	expect_expansion("", "");
	expect_expansion("plain", "plain");
	expect_expansion("${env.GPUMGR_TEST_A}", "value");
	expect_expansion("a${env.GPUMGR_TEST_A}b${env.GPUMGR_TEST_A}c", "avaluebvaluec");
	expect_expansion("<${env.GPUMGR_TEST_EMPTY}>", "<>");
	expect_expansion("${env.GPUMGR_TEST_A:-x}", "value");
	expect_expansion("${env.GPUMGR_TEST_EMPTY:-x}", "x");
	expect_expansion("${env.GPUMGR_TEST_NONE:-x y}z", "x yz");
	expect_expansion("${env.GPUMGR_TEST_NONE:-}", "");
	expect_expansion("${env.GPUMGR_TEST_NONE:-a:-b}", "a:-b");
	/* what a variable holds is not looked at again */
	expect_expansion("${env.GPUMGR_TEST_NESTED}", "${env.GPUMGR_TEST_A}");
	expect_expansion("$${env.GPUMGR_TEST_A}", "${env.GPUMGR_TEST_A}");
	expect_expansion("$${HOST} ${HOST} $HOST $ $$ $", "${HOST} ${HOST} $HOST $ $$ $");
	expect_expansion("${environment}", "${environment}");
	expect_expansion_error("a ${env.GPUMGR_TEST_NONE}",
		"the environment variable GPUMGR_TEST_NONE is not set (set it, or give a default: "
		"${env.GPUMGR_TEST_NONE:-default})");
	char large[4096 * sizeof("${env.GPUMGR_TEST_LARGE}")] = "", *end = large, value[2000] = "";
	memset(value, 'x', sizeof(value) - 1);
	setenv("GPUMGR_TEST_LARGE", value, 1);
	for (int i = 0; i < 4096; i++)
		end = stpcpy(end, "${env.GPUMGR_TEST_LARGE}");
	expect_expansion_error(
		large, "more than 4 MiB once its environment variables are expanded: this is not a configuration");
	expect_expansion_error("${env.}", MALFORMED);
	expect_expansion_error("${env.A", MALFORMED);
	expect_expansion_error("${env.A:-b", MALFORMED);
	expect_expansion_error("${env.A-b}", MALFORMED);
	expect_expansion_error("${env.A B}", MALFORMED);
	expect_expansion_error("${env.1}", MALFORMED);
	expect_expansion_error("${env.:-x}", MALFORMED);
}

static void test_expansion_in_a_file(void **state)
{
	(void)state;
	setenv("GPUMGR_TEST_A", "90s", 1);
	setenv("GPUMGR_TEST_BAD", "\xff", 1);
	unsetenv("GPUMGR_TEST_NONE");
	struct config *config =
		expect_config("version: ${env.GPUMGR_TEST_NONE:-1}\nlease: {ttl: \"${env.GPUMGR_TEST_A}\"}\n"
			      "open: ${env.GPUMGR_TEST_NONE:-true}\n");
	assert_int_equal(config->lease.ttl_ms, 90000);
	assert_true(config->open);
	config_free(config);
	expect_errors("version: 1\nlog_dir: ${env.GPUMGR_TEST_NONE}/x\nlease: {ttl: \"${env.GPUMGR_TEST_NONE:-3 d}\"}\n"
		      "state_dir: /${env.GPUMGR_TEST_BAD}\n",
		"f:2:10: log_dir: the environment variable GPUMGR_TEST_NONE is not set (set it, or give a default: "
		"${env.GPUMGR_TEST_NONE:-default})\n"
		"f:3:14: lease.ttl: \"3 d\" is not a duration (expected a duration such as 30s, 5m or 1m30s; did you "
		"mean "
		"72h?)\n"
		"f:4:12: state_dir: is not UTF-8 once its environment variables are expanded\n");
}

static void expect_words(const char *text, bool needs_shell, const char *joined)
{
	struct error err = { "" };
	bool shell;
	CLEANUP(string_list_finish) struct string_list words = { 0 };
	if (split_words(text, &words, &shell, &err) != 0)
		fail_msg("%s: %s", text, err.message);
	char got[512] = "";
	for (size_t i = 0; i < words.n; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "<%s>", words.items[i]);
	assert_string_equal(got, joined);
	if (shell != needs_shell)
		fail_msg("%s: %s a shell", text, shell ? "seems to need" : "seems not to need");
}

static void expect_split_error(const char *text, const char *message)
{
	struct error err = { "" };
	bool shell;
	struct string_list words = { 0 };
	assert_int_equal(split_words(text, &words, &shell, &err), -EINVAL);
	assert_string_equal(err.message, message);
	assert_int_equal(words.n, 0);
}

static void test_words(void **state)
{
	(void)state;
	expect_words("", false, "");
	expect_words(" \t\r\n ", false, "");
	expect_words("a b  c\td\ne", false, "<a><b><c><d><e>");
	expect_words("'a b' \"c d\" e\\ f", false, "<a b><c d><e f>");
	expect_words("a'b'\"c\"d", false, "<abcd>");
	expect_words("'' \"\"", false, "<><>");
	expect_words("'a\\b' \"a\\b\" \"a\\\"b\" \"a\\\\b\"", false, "<a\\b><a\\b><a\"b><a\\b>");
	expect_words("a \\\n  b", false, "<a><b>");
	expect_words("\"a\\\nb\"", false, "<ab>");
	expect_words("--x='$HOME' \\$HOME \"\\$HOME\"", false, "<--x=$HOME><$HOME><$HOME>");
	expect_words("https://h/?a=1&b=2 5$ #c", false, "<https://h/?a=1&b=2><5$><#c>");
	expect_words("\xc3\xa4 '\xe2\x82\xac'", false, "<\xc3\xa4><\xe2\x82\xac>");
	expect_words("cd /x && ./y", true, "<cd></x><&&><./y>");
	expect_words("a | b", true, "<a><|><b>");
	expect_words("a > b 2>&1", true, "<a><>><b><2>&1>");
	expect_words("a; b", true, "<a;><b>");
	expect_words("a $HOME", true, "<a><$HOME>");
	expect_words("a \"$(b)\"", true, "<a><$(b)>");
	expect_words("a `b`", true, "<a><`b`>");
	expect_words("a '&&' \\| \";\"", false, "<a><&&><|><;>");
	expect_split_error("a 'b", "a single quote (') is never closed");
	expect_split_error("a \"b", "a double quote (\") is never closed");
	expect_split_error("a \"b\\", "a double quote (\") is never closed");
	expect_split_error("a \\", "a backslash (\\) ends the text");
}

static void expect_host_port(const char *text, const char *problem)
{
	const char *got = address_check_host_port(text, strlen(text), false);
	if ((got == NULL) != (problem == NULL) || (got != NULL && strcmp(got, problem) != 0))
		fail_msg("%s: %s, expected %s", text, got ? got : "fine", problem ? problem : "fine");
}

#define BAD_PORT "has a port that is not from 1 to 65535"
#define BAD_IPV6 "has a malformed IPv6 address (write it in brackets: [::1]:8080)"

static void test_host_ports(void **state)
{
	(void)state;
	expect_host_port("127.0.0.1:1", NULL);
	expect_host_port("localhost:65535", NULL);
	expect_host_port("[::1]:80", NULL);
	expect_host_port("[fe80::1:2]:80", NULL);
	expect_host_port("a-b.c_d.example:80", NULL);
	expect_host_port("9a.example:80", NULL);
	expect_host_port("", "has no host");
	expect_host_port(":80", "has no host");
	expect_host_port("h", "has no port");
	expect_host_port("h:", "has no port");
	expect_host_port("h:0", BAD_PORT);
	expect_host_port("h:65536", BAD_PORT);
	expect_host_port("h:99999999999999999999", BAD_PORT);
	expect_host_port("h:8x", "has a port that is not a number");
	expect_host_port("h:-1", "has a port that is not a number");
	expect_host_port("::1:80", BAD_IPV6);
	expect_host_port("[::1:80", BAD_IPV6);
	expect_host_port("[1.2.3.4]:80", BAD_IPV6);
	expect_host_port("[::1]80", "has something other than a port behind the host");
	expect_host_port("[::1]", "has no port");
	expect_host_port("1.2.3:80", "has a malformed host");
	expect_host_port("256.1.1.1:80", "has a malformed host");
	expect_host_port("-a:80", "has a malformed host");
	expect_host_port("a-:80", "has a malformed host");
	expect_host_port("a..b:80", "has a malformed host");
	expect_host_port("a b:80", "has a malformed host");
	expect_host_port("a/b:80", "has a malformed host");
	assert_null(address_check_host_port(":80", 3, true));
	assert_non_null(address_check_host_port(":0", 2, true));
	assert_non_null(address_check_host_port(":", 1, true));
}

static void test_http(void **state)
{
	(void)state;
	static const char *const good[] = { "http://h", "http://h/", "https://h:1/x?y=z&a=%20", "http://[::1]:80/",
		"http://127.0.0.1?x", "http://h:80?x:y@z" };
	static const char *const bad[] = { "", "h", "http://", "http:///x", "ftp://h/", "http:/h", "HTTP://h",
		"http://h:/", "http://h:0/", "http://h:70000/", "http://h:x/", "http://u:p@h/", "http://h/a b",
		"http://h/\xc3\xa4", "http://h/#x", "http://h#x", "http://a..b/", ":80", "unix:///x", "http://h\n/" };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (address_check_http(good[i], false) != NULL)
			fail_msg("%s %s", good[i], address_check_http(good[i], false));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (address_check_http(bad[i], false) == NULL)
			fail_msg("%s is accepted", bad[i]);
	assert_null(address_check_http(":80", true));
	assert_null(address_check_http(":80/x", true));
	assert_non_null(address_check_http(":/x", true));
	assert_non_null(address_check_http(":80/x#y", true));
	assert_non_null(address_check_http(":u@80/x", true));
}

static void test_lock_and_engine(void **state)
{
	(void)state;
	static const char *const good[] = { "redis://h", "redis://h:6379", "redis://h/0", "redis://u:p@h:1/15",
		"redis://:p@h", "rediss://h?x=y", "redis://[::1]:6379/0", "unix:///run/redis.sock", "unix:///r?db=1",
		"redis+sentinel://a:1,b:2,c/mymaster", "redis+sentinel://u:p@a/m/0" };
	static const char *const bad[] = { "", "h:6379", "redis://", "redis:///0", "redis://h:0", "redis://h/x",
		"redis://a,b", "redis://h /0", "unix://", "unix://x", "unix:///", "redis+sentinel://a:1",
		"redis+sentinel://a:1/", "redis+sentinel://,/m", "redis+sentinel://a,,b/m", "http://h" };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (address_check_lock(good[i]) != NULL)
			fail_msg("%s %s", good[i], address_check_lock(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (address_check_lock(bad[i]) == NULL)
			fail_msg("%s is accepted", bad[i]);
	assert_null(address_check_engine("unix:///var/run/docker.sock"));
	assert_non_null(address_check_engine("unix://"));
	assert_non_null(address_check_engine("unix:///"));
	assert_non_null(address_check_engine("tcp://h:2375"));
	assert_non_null(address_check_engine("/var/run/docker.sock"));
}

static void test_json_paths(void **state)
{
	(void)state;
	static const char *const good[] = { "a", "a.b", "a[0]", "a.b[0].c", "[3].x", "a[1][2]", "queue_running-x" };
	static const char *const bad[] = { ".a", "a.", "a..b", "a[", "a[]", "a[x]", "a[0", "a]", "a[0]b", "a.[0]",
		"[0]." };
	char text[512];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), SERVICE "    busy: {http: \"http://h/\", json: \"%s\"}\n", good[i]);
		config_free(expect_config(text));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config *config;
		snprintf(text, sizeof(text), SERVICE "    busy: {http: \"http://h/\", json: \"%s\"}\n", bad[i]);
		CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
		if (strstr(lines, "is not a path into JSON") == NULL)
			fail_msg("%s: %s", bad[i], lines);
	}
}

static void test_utf8(void **state)
{
	(void)state;
	static const char good[] =
		"a\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf";
	static const char *const bad[] = { "\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80",
		"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\xc2\x41", "\xff" };
	assert_int_equal(utf8_valid_length(good, sizeof(good) - 1), sizeof(good) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(utf8_valid_length(bad[i], strlen(bad[i])), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_expansion),
		cmocka_unit_test(test_expansion_in_a_file),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_host_ports),
		cmocka_unit_test(test_http),
		cmocka_unit_test(test_lock_and_engine),
		cmocka_unit_test(test_json_paths),
		cmocka_unit_test(test_utf8),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
