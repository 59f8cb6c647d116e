/* The pure parts of the container driver: facts, owners, frames, words. */
#include "container_bench.h"

#include "base/cleanup.h"
#include "driver/container_facts.h"
#include "driver/container_log.h"
#include "driver/container_owners.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void test_cgroups(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *first;
	} texts[] = {
		{ "0::/docker/" ID_A "\n", 1, ID_A },
		{ "0::/docker/" ID_A, 1, ID_A },
		{ "0::/system.slice/docker-" ID_A ".scope\n", 1, ID_A },
		{ "0::/gpu.slice/jobs.slice/docker-" ID_A ".scope/init\n", 1, ID_A },
		{ "0::/machine.slice/libpod-" ID_A ".scope/container\n", 1, ID_A },
		{ "0::/libpod_parent/libpod-" ID_A "\n", 1, ID_A },
		{ "0::/machine.slice/libpod-conmon-" ID_A ".scope\n", 0, NULL },
		{ "12:memory:/docker/" ID_A "\n11:pids:/docker/" ID_A "\n0::/system.slice\n", 1, ID_A },
		{ "5:devices:/my/parent/" ID_A "\n0::/\n", 1, ID_A },
		{ "0::/../../docker/" ID_A "\n", 1, ID_A }, /* seen from another cgroup namespace */
		{ "0::/docker/" ID_A "/docker/" ID_B "\n", 2, ID_A },
		{ "0::/docker/a" ID_A "\n", 0, NULL }, /* 65 digits */
		{ "0::/docker/" ID_A "x\n", 0, NULL },
		{ "0::/user.slice/user-1000.slice\n", 0, NULL },
		{ "0::/\n", 0, NULL },
		{ "", 0, NULL },
	};
	char ids[CONTAINER_IDS_MAX][65];
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		size_t n = container_parse_cgroup(texts[i].text, ids);
		if (n != texts[i].n)
			fail_msg("%zu ids in %s", n, texts[i].text);
		if (n > 0)
			assert_string_equal(ids[0], texts[i].first);
	}
	const char *many = "0::/" ID_A "/" ID_B "/cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
			   "/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
			   "/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\n";
	assert_int_equal(container_parse_cgroup(many, ids), CONTAINER_IDS_MAX);
}

static void test_owners(void **state)
{
	struct driver_shared shared = { 0 };
	(void)state;
	assert_int_equal(container_owners_acquire(&shared), 0);
	assert_int_equal(container_owners_acquire(&shared), 0);
	for (uint64_t now = 0; now < 5000; now += 100)
		assert_false(container_owners_has(shared.owners, getpid(), ID_A, now));
	assert_false(container_owners_has(shared.owners, 999999999, ID_A, 0));
	assert_false(container_has_process(ID_A, getpid()));
	container_owners_release(&shared);
	assert_non_null(shared.owners);
	container_owners_release(&shared);
	assert_null(shared.owners);
}

static int parse(const char *text, struct container_facts *facts)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	assert_non_null(json);
	int r = container_facts_parse(json, facts);
	json_decref(json);
	return r;
}

#define FACTS(state, rest) "{\"Id\":\"" ID_A "\",\"Name\":\"/box\",\"State\":{" state "}" rest "}"

static void test_facts(void **state)
{
	struct container_facts facts;
	char text[512];
	(void)state;
	assert_int_equal(parse(FACTS("\"Running\":true,\"Pid\":77,\"StartedAt\":\"t\"", ""), &facts), 0);
	assert_int_equal(facts.status, CONTAINER_RUNNING);
	assert_int_equal(facts.pid, 77);
	assert_string_equal(facts.name, "box");
	assert_string_equal(facts.address, "");
	assert_int_equal(parse(FACTS("\"Running\":true,\"Restarting\":true,\"Pid\":77", ""), &facts), 0);
	assert_int_equal(facts.status, CONTAINER_RESTARTING);
	assert_int_equal(facts.pid, 0);
	assert_int_equal(parse(FACTS("\"Running\":true,\"Paused\":true,\"Pid\":4294967296", ""), &facts), 0);
	assert_int_equal(facts.status, CONTAINER_PAUSED);
	assert_int_equal(facts.pid, 0);
	assert_int_equal(parse(FACTS("\"Status\":\"stopping\",\"Running\":false,\"Pid\":5", ""), &facts), 0);
	assert_int_equal(facts.status, CONTAINER_RUNNING);
	assert_int_equal(parse(FACTS("\"ExitCode\":137,\"OOMKilled\":true,\"Error\":\"a\\nb\"", ""), &facts), 0);
	assert_string_equal(container_describe_end(&facts, text, sizeof(text)),
		"exited with status 137 (SIGKILL); out of memory: the kernel ended it at the memory limit of the "
		"container; "
		"a b");
	assert_string_equal(container_describe_end(&facts, text, 16), "exited with sta");
	assert_int_equal(
		parse(FACTS("\"Running\":true", ",\"HostConfig\":{\"NetworkMode\":\"host\"},\"NetworkSettings\":{}"),
			&facts),
		0);
	assert_string_equal(facts.address, "127.0.0.1");
	assert_int_equal(parse(FACTS("\"Running\":true",
				       ",\"NetworkSettings\":{\"Networks\":{\"a\":{\"IPAddress\":\"\"},\"b\":{"
				       "\"IPAddress\":\"10.1.2.3\"}}}"),
				 &facts),
		0);
	assert_string_equal(facts.address, "10.1.2.3");
	assert_int_equal(parse("{\"Id\":\"../../x\",\"State\":{}}", &facts), -EPROTO);
	assert_int_equal(parse("{\"Id\":\"" ID_A "\"}", &facts), -EPROTO);
	assert_int_equal(parse("[]", &facts), -EPROTO);
	assert_int_equal(parse("7", &facts), -EPROTO);
	assert_int_equal(container_facts_parse(NULL, &facts), -EPROTO);
}

/* Each value of a proper inspection replaced by what it should not be. */
static void test_facts_of_wrong_types(void **state)
{
	static const char *const values[] = { "null", "[]", "{}", "-1", "1e308", "\"\\u0001\"", "true", "[[[[]]]]" };
	const char *proper = FACTS(
		"\"Status\":\"running\",\"Running\":true,\"Pid\":7,\"ExitCode\":0,\"StartedAt\":\"x\",\"Health\":{"
		"\"Status\":\"healthy\",\"Log\":[{\"Output\":\"x\"}]}",
		",\"Config\":{\"Tty\":true},\"HostConfig\":{\"NetworkMode\":\"n\",\"RestartPolicy\":{\"Name\":\"no\"}},"
		"\"NetworkSettings\":{\"IPAddress\":\"\",\"Networks\":{\"n\":{\"IPAddress\":\"1.2.3.4\"}}}");
	struct container_facts facts;
	(void)state;
	assert_int_equal(parse(proper, &facts), 0);
	assert_int_equal(facts.health, HEALTH_HEALTHY);
	for (const char *colon = strchr(proper, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			CLEANUP_FREE char *text = NULL;
			/* The rest goes under another name, so that it stays JSON. */
			assert_true(asprintf(&text, "%.*s%s,\"zz\":%s", (int)(colon + 1 - proper), proper, values[i],
					    colon + 1) > 0);
			json_t *json = json_loads(text, 0, NULL);
			assert_non_null(json);
			container_facts_parse(json, &facts);
			json_decref(json);
		}
	}
}

static void take_frames(struct log_frames *frames, const char *data, size_t length, char *text)
{
	while (length > 0) {
		const char *payload;
		size_t n, used = log_frames_take(frames, data, length, &payload, &n);
		assert_true(used > 0 && used <= length && n <= used);
		strncat(text, payload, n);
		data += used;
		length -= used;
	}
}

static void test_frames(void **state)
{
	static const char data[] = "\1\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\5, two";
	(void)state;
	for (size_t piece = 1; piece < sizeof(data); piece++) {
		struct log_frames frames = { 0 };
		char text[64] = "";
		for (size_t at = 0; at < sizeof(data) - 1; at += piece)
			take_frames(&frames, data + at, piece < sizeof(data) - 1 - at ? piece : sizeof(data) - 1 - at,
				text);
		assert_string_equal(text, "one, two");
	}
	struct log_frames raw = { .is_raw = true }, odd = { 0 };
	char text[64] = "", rest[64] = "";
	take_frames(&raw, "plain", 5, text);
	assert_string_equal(text, "plain");
	take_frames(&odd, "no header at all", 16, rest);
	assert_string_equal(rest, "r at all"); /* what looked like a header is lost, the rest is not */
	assert_true(odd.is_raw);
}

static void test_since(void **state)
{
	(void)state;
	struct timespec since = container_log_since("2026-11-23T16:43:38.962351072Z", NULL);
	assert_int_equal(since.tv_sec, 1795452218);
	assert_int_equal(since.tv_nsec, 862351072);
	since = container_log_since("2026-11-23T17:43:38.05+01:00", NULL);
	assert_int_equal(since.tv_sec, 1795452217);
	assert_int_equal(since.tv_nsec, 950000000);
	since = container_log_since("2026-11-23T16:43:38.1234567890123456789Z", NULL);
	assert_int_equal(since.tv_sec, 1795452218);
	assert_int_equal(since.tv_nsec, 23456789);
	since = container_log_since("2026-11-23T16:43:38.1Z", "2026-11-23T16:43:38.08Z");
	assert_int_equal(since.tv_nsec, 80000000); /* what the run before said is not ours */
	since = container_log_since("2026-11-23T16:43:38.1Z", "2026-11-23T16:43:37.9Z");
	assert_int_equal(since.tv_nsec, 0);
	since = container_log_since("2026-11-23T16:43:38.1Z", "2026-11-23T16:43:38.2Z");
	assert_int_equal(since.tv_nsec, 0); /* the end of this very run */
	static const char *const no_times[] = { "rubbish", "", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00+02:00" };
	for (size_t i = 0; i < ARRAY_SIZE(no_times); i++) {
		since = container_log_since(no_times[i], NULL);
		assert_int_equal(since.tv_sec, 0);
		assert_int_equal(since.tv_nsec, 0);
	}
}

static void test_words(void **state)
{
	char buffer[16];
	(void)state;
	assert_string_equal(docker_clean("  a\n\tb\x1b[0m \xc3\xa9 ", buffer, sizeof(buffer)), "a b?[0m ??");
	assert_string_equal(docker_clean("", buffer, sizeof(buffer)), "");
	assert_string_equal(docker_clean("0123456789abcdefgh", buffer, sizeof(buffer)), "0123456789abcde");
	CLEANUP_FREE char *escaped = docker_escape("a/b?c={\"x\"}\xff.-_~");
	assert_string_equal(escaped, "a%2Fb%3Fc%3D%7B%22x%22%7D%FF.-_~");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cgroups),
		cmocka_unit_test(test_owners),
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_facts_of_wrong_types),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_since),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
