/* lock.url in its parts, and what is refused, without a secret in any message. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "lock/redis_url.h"

static struct redis_url parse(const char *text)
{
	struct redis_url url;
	struct error err = { "" };
	if (redis_url_parse(text, &url, &err) != 0)
		fail_msg("%s: %s", text, err.message);
	return url;
}

static void test_a_server(void **state)
{
	(void)state;
	struct redis_url url = parse("redis://10.0.0.5");
	assert_int_equal(url.n_places, 1);
	assert_string_equal(url.places[0].host, "10.0.0.5");
	assert_int_equal(url.places[0].port, 6379);
	assert_string_equal(url.places[0].path, "");
	assert_false(url.places[0].tls);
	assert_int_equal(url.database, 0);
	assert_string_equal(url.user, "");
	assert_string_equal(url.password, "");
	assert_string_equal(url.master, "");
	url = parse("rediss://redis.example.org:7000/15");
	assert_true(url.places[0].tls);
	assert_int_equal(url.places[0].port, 7000);
	assert_int_equal(url.database, 15);
	assert_int_equal(parse("redis://h/").database, 0);
	assert_int_equal(parse("redis://h?db=3").database, 3);
}

static void test_ipv6(void **state)
{
	(void)state;
	char name[64];
	struct redis_url url = parse("redis://[fe80::1]:7000/1");
	assert_string_equal(url.places[0].host, "fe80::1");
	assert_int_equal(url.places[0].port, 7000);
	assert_string_equal(redis_place_name(&url.places[0], name, sizeof(name)), "[fe80::1]:7000");
	assert_int_equal(parse("redis://[::1]").places[0].port, 6379);
}

static void test_users_and_passwords(void **state)
{
	(void)state;
	struct redis_url url = parse("redis://:123456@localhost:6379/0");
	assert_string_equal(url.user, "");
	assert_string_equal(url.password, "123456");
	url = parse("redis://gpu:p%40%3a%2F%25x@h");
	assert_string_equal(url.user, "gpu");
	assert_string_equal(url.password, "p@:/%x");
	url = parse("redis://gpu:a@b:c@h:1"); /* the last @ ends it */
	assert_string_equal(url.password, "a@b:c");
	assert_string_equal(url.places[0].host, "h");
	url = parse("unix:///run/redis%20x.sock?db=2&username=u&password=p%26q");
	assert_string_equal(url.places[0].path, "/run/redis x.sock");
	assert_int_equal(url.database, 2);
	assert_string_equal(url.user, "u");
	assert_string_equal(url.password, "p&q");
}

static void test_sentinels(void **state)
{
	(void)state;
	struct redis_url url = parse("redis+sentinel://:pw@a,b:1000,[::1]:2000/mymaster/4");
	assert_int_equal(url.n_places, 3);
	assert_string_equal(url.places[0].host, "a");
	assert_int_equal(url.places[0].port, 26379);
	assert_string_equal(url.places[1].host, "b");
	assert_int_equal(url.places[1].port, 1000);
	assert_string_equal(url.places[2].host, "::1");
	assert_int_equal(url.places[2].port, 2000);
	assert_string_equal(url.master, "mymaster");
	assert_int_equal(url.database, 4);
	assert_string_equal(url.password, "pw");
}

static void test_what_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "http://h", "redis://" },
		{ "redis://user@h", "password" },
		{ "redis://:sec%zzret@h", "%25" },
		{ "redis://:secret%0@h", "%25" },
		{ "redis://:secret%00@h", "%25" },
		{ "redis://:secret@h/99999999999", "database" },
		{ "redis://:secret@h/0?timeout=3", "db=" },
		{ "redis+sentinel://:secret@h", "master" },
		{ "redis+sentinel://:secret@a,b,c,d,e,f,g,h,i/m", "more than 8" },
		{ "unix:///run/x?db=x", "database" },
		{ "unix:///run/secret?password=secret&x=1", "db=" },
	};
	struct redis_url url;
	struct error err;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(redis_url_parse(rows[i].text, &url, &err), -EINVAL);
		if (strstr(err.message, rows[i].words) == NULL || strstr(err.message, "secret") != NULL)
			fail_msg("%s: %s", rows[i].text, err.message);
	}
}

static void test_what_is_too_long(void **state)
{
	(void)state;
	char text[2048];
	struct redis_url url;
	struct error err;
	snprintf(text, sizeof(text), "unix:///%0*d", REDIS_PATH_MAX, 0);
	assert_int_equal(redis_url_parse(text, &url, &err), -EINVAL);
	text[strlen(text) - 1] = '\0';
	assert_int_equal(redis_url_parse(text, &url, &err), 0);
	assert_int_equal(strlen(url.places[0].path), REDIS_PATH_MAX);
	snprintf(text, sizeof(text), "redis://:%0*d@h", REDIS_SECRET_MAX + 1, 0);
	assert_int_equal(redis_url_parse(text, &url, &err), -EINVAL);
}

/* Whatever is cut off or changed: an answer, and no more than that. */
static void test_pieces(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"redis+sentinel://u%20:p%2F@a:1,b,[::1]:3/name/4?db=5",
		"unix:///run/x?db=1&username=u&password=p",
		"rediss://u:p@[::1]:1/2?password=%41",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		for (size_t n = 0; n <= strlen(texts[i]); n++)
			for (const char *c = " %:@/?[],&=\xff"; *c != '\0'; c++) {
				char text[128] = ""; /* what stands behind the end is the end, too */
				struct redis_url url;
				struct error err;
				snprintf(text, sizeof(text), "%s", texts[i]);
				text[n] = '\0';
				redis_url_parse(text, &url, &err);
				snprintf(text, sizeof(text), "%s", texts[i]);
				text[n] = *c;
				redis_url_parse(text, &url, &err);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_server),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_users_and_passwords),
		cmocka_unit_test(test_sentinels),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_what_is_too_long),
		cmocka_unit_test(test_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
