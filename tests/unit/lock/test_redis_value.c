/* Names and values in Redis, and what its errors mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "lock/redis_explain.h"
#include "lock/redis_value.h"
#include "lock/redis_wishes.h"

static void assert_expands(const char *key, const char *expected)
{
	CLEANUP_FREE char *expanded = redis_key_expand(key, "box");
	assert_string_equal(expanded, expected);
}

static void test_the_host_in_a_key(void **state)
{
	(void)state;
	assert_expands("gpu_mutex_v2", "gpu_mutex_v2");
	assert_expands("gpu:${HOST}", "gpu:box");
	assert_expands("${HOST}${HOST}:x", "boxbox:x");
	assert_expands("${HOS}$", "${HOS}$");
	assert_expands("", "");
}

static void assert_beside(const char *key, const char *expected)
{
	CLEANUP_FREE char *name = redis_key_beside(key, "fence");
	assert_string_equal(name, expected);
}

static void test_keys_in_one_slot(void **state)
{
	(void)state;
	assert_beside("gpu", "{gpu}:fence");
	assert_beside("{site}:gpu", "{site}:gpu:fence");
	assert_beside("{}gpu", "{{}gpu}:fence");
}

static void assert_value(const char *service, const char *host, const char *expected)
{
	char value[REDIS_VALUE_MAX + 1], found[65];
	redis_value_make(value, sizeof(value), service, host, "0123456789abcdef");
	assert_string_equal(value, expected);
	assert_true(redis_value_is_gpumgr(value, found, sizeof(found)));
}

static void test_values(void **state)
{
	(void)state;
	char host[65], long_name[300];
	assert_value("comfyui", "box", "comfyui:box:0123456789abcdef");
	assert_value(NULL, "box", "gpumgr:box:0123456789abcdef");
	assert_value("", "box", "gpumgr:box:0123456789abcdef");
	assert_value("a:b c\n\xc3", "b:x", "a-b-c--:b-x:0123456789abcdef");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	char value[REDIS_VALUE_MAX + 1];
	redis_value_make(value, sizeof(value), long_name, long_name, long_name);
	assert_int_equal(strlen(value), 63 + 1 + 64 + 1 + 16);
	assert_true(redis_value_is_gpumgr("a:other:0123456789abcdef", host, sizeof(host)));
	assert_string_equal(host, "other");
	static const char *const others[] = { "comfyui", "", "a:b", "a:b:c", ":b:0123456789abcdef",
		"a::0123456789abcdef", "a:b:0123456789abcdeF", "a:b:0123456789abcdef0", "a:b:c:0123456789abcdef" };
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_false(redis_value_is_gpumgr(others[i], host, sizeof(host)));
}

static void test_what_others_wrote(void **state)
{
	(void)state;
	char text[9];
	redis_value_print(text, sizeof(text), "a b\n\0\x7f", 6);
	assert_string_equal(text, "a b???");
	redis_value_print(text, sizeof(text), "12345678", 8);
	assert_string_equal(text, "12345678");
	redis_value_print(text, sizeof(text), "123456789", 9);
	assert_string_equal(text, "12345...");
	redis_value_print(text, sizeof(text), "", 0);
	assert_string_equal(text, "");
}

static enum redis_verdict assert_explained(const char *said, const char *words)
{
	const struct redis_subject subject = {
		.server = "Redis at h:1", .key = "gpu", .user = "", .password = "hunter2"
	};
	char text[256];
	enum redis_verdict verdict = redis_explain(&subject, said, text, sizeof(text));
	if (strstr(text, words) == NULL || strncmp(text, "Redis at h:1 ", 13) != 0 || strstr(text, "hunter2") != NULL)
		fail_msg("%s: %s", said, text);
	return verdict;
}

static void test_errors(void **state)
{
	(void)state;
	assert_int_equal(assert_explained("NOSCRIPT No matching script.", "script"), REDIS_NO_SCRIPT);
	assert_int_equal(assert_explained("READONLY You can't write", "replica"), REDIS_WRONG_SERVER);
	assert_int_equal(assert_explained("OOM command not allowed", "maxmemory"), REDIS_REFUSED);
	assert_int_equal(assert_explained("ERR Error running script (call to f_12): @user_script:12: @user_script: 12: "
					  "-OOM command not allowed when used memory > 'maxmemory'.",
				 "maxmemory"),
		REDIS_REFUSED);
	assert_int_equal(
		assert_explained(
			"ERR Error running script (call to f_12): @user_script:3: WRONGTYPE Operation against a key",
			"gpu"),
		REDIS_REFUSED);
	assert_int_equal(assert_explained("NOPERM this user has no permissions", "user default"), REDIS_REFUSED);
	assert_int_equal(assert_explained("MOVED 12 10.0.0.1:6379", "10.0.0.1:6379"), REDIS_WRONG_SERVER);
	assert_int_equal(assert_explained("WHAT is this\r\n\x01", "WHAT is this???"), REDIS_REFUSED);
	assert_int_equal(assert_explained("WHAT about hunter2", "refuses"), REDIS_REFUSED);
	assert_int_equal(assert_explained("", "refuses"), REDIS_REFUSED);
}

static void test_wishes_in_their_order(void **state)
{
	(void)state;
	struct redis_wishes wishes = { 0 };
	uint64_t in = 0, out = 0;
	assert_int_equal(redis_wishes_deadline(&wishes), UINT64_MAX);
	for (size_t turn = 1; turn < 500; turn++) {
		for (size_t i = 0; i < turn % 37; i++, in++)
			assert_true(redis_wishes_add(&wishes, (struct redis_wish){ .request = in, .until = in * 2 }));
		if (wishes.n > 0)
			assert_int_equal(redis_wishes_deadline(&wishes), out * 2);
		assert_int_equal(redis_wishes_late(&wishes, out * 2 + 3), wishes.n < 2 ? wishes.n : 2);
		for (size_t i = 0; i < turn % 41 && wishes.n > 0; i++, out++)
			assert_int_equal(redis_wishes_take(&wishes).request, out);
		assert_int_equal(wishes.n, in - out);
	}
	assert_true(wishes.room <= 2048);
	redis_wishes_clear(&wishes);
	assert_int_equal(redis_wishes_deadline(&wishes), UINT64_MAX);
	redis_wishes_finish(&wishes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_host_in_a_key),
		cmocka_unit_test(test_keys_in_one_slot),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_what_others_wrote),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_wishes_in_their_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
