/* Busy probes against a little server and real commands: what is busy, what is not, what cannot be known. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "health/busy.h"
#include "support.h"

struct fixture {
	struct server *server;
	struct bench bench;
	char url[64];
};

struct busy_answer {
	int n;
	bool known, busy;
	char text[512];
	uint64_t took_ms;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	fixture->server = server_start();
	bench_begin(&fixture->bench);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	if (fixture->bench.prober != NULL)
		fixture->bench.prober = prober_destroy(fixture->bench.prober);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&fixture->bench.loop);
	server_stop(fixture->server);
	free(fixture);
	return r;
}

static void take(void *context, bool known, bool busy, const char *text)
{
	struct busy_answer *answer = context;
	answer->n++;
	answer->known = known;
	answer->busy = busy;
	snprintf(answer->text, sizeof(answer->text), "%s", text);
	for (const char *c = text; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			fail_msg("%s", text);
}

static struct probe_config at(struct fixture *fixture, const char *path, const char *json)
{
	snprintf(fixture->url, sizeof(fixture->url), "http://127.0.0.1:%u%s", server_port(fixture->server), path);
	return (struct probe_config){ .kind = PROBE_HTTP, .address = fixture->url, .json = (char *)json };
}

static struct busy_answer ask_busy(struct bench *bench, const struct probe_config *config, uint64_t timeout_ms)
{
	struct busy_answer answer = { 0 };
	uint64_t begin = now_ms();
	assert_int_equal(bench_start_busy(bench->prober, config, timeout_ms, take, &answer, NULL), 0);
	assert_int_equal(answer.n, 0);
	while (answer.n == 0)
		uv_run(&bench->loop, UV_RUN_ONCE);
	answer.took_ms = now_ms() - begin;
	for (int i = 0; i < 3; i++)
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	assert_int_equal(answer.n, 1);
	assert_true(answer.known || !answer.busy);
	return answer;
}

static struct busy_answer ask_body(
	struct fixture *fixture, const void *body, size_t size, const char *json, double above)
{
	struct probe_config config = at(fixture, "/body", json);
	config.above = above;
	server_set_body(fixture->server, body, size);
	return ask_busy(&fixture->bench, &config, 5000);
}

static void test_what_is_counted(void **state)
{
	static const struct {
		const char *body, *path;
		double above;
		bool busy;
		const char *text;
	} cases[] = {
		{ "{\"exec_info\": {\"queue_remaining\": 1}}", "exec_info.queue_remaining", 0, true,
			"exec_info.queue_remaining is 1" },
		{ "{\"exec_info\": {\"queue_remaining\": 0}}", "exec_info.queue_remaining", 0, false,
			"exec_info.queue_remaining is 0" },
		{ "{\"n\": 2}", "n", 2, false, "n is 2" },
		{ "{\"n\": 2.5}", "n", 2, true, "n is 2.5" },
		{ "{\"n\": -1}", "n", -2, true, "n is -1" },
		{ "{\"n\": -1}", "n", 0, false, "n is -1" },
		{ "{\"n\": 1e3}", "n", 999, true, "n is 1000" },
		{ "{\"n\": 123456789012345678901234567890}", "n", 1e29, true, "n is 1.23456789012346e+29" },
		{ "{\"n\": \"3\"}", "n", 2, true, "n is 3" },
		{ "{\"v\": [1700000000.1, \"0.5\"]}", "v[1]", 0, true, "v[1] is 0.5" },
		{ "{\"busy\": true}", "busy", 0, true, "busy is true" },
		{ "{\"busy\": false}", "busy", 0, false, "busy is false" },
		{ "{\"busy\": true}", "busy", 1, false, "busy is true" },
		{ "{\"job\": null}", "job", 0, false, "job is null" },
		{ "{\"job\": {\"id\": 4}}", "job", 0, true, "job has 1 member" },
		{ "{\"job\": {}}", "job", 0, false, "job has 0 members" },
		{ "{\"queue_running\": [], \"queue_pending\": []}", "queue_running", 0, false,
			"queue_running has 0 elements" },
		{ "{\"queue_running\": [[1, \"x\", {}]], \"queue_pending\": []}", "queue_running", 0, true,
			"queue_running has 1 element" },
		{ "[{\"is_processing\": false}, {\"is_processing\": true}]", "[1].is_processing", 0, true,
			"[1].is_processing is true" },
		{ " \r\n\t{\"a\": {\"b\": [{\"c\": 7}]}}\n", "a.b[0].c", 6, true, "a.b[0].c is 7" },
		{ "{\"a\": 1, \"a\": 0}", "a", 0, false, "a is 0" },
		{ "{\"a\": \"\\u0000\", \"n\": 1}", "n", 0, true, "n is 1" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct busy_answer answer =
			ask_body(*state, cases[i].body, strlen(cases[i].body), cases[i].path, cases[i].above);
		if (!answer.known || answer.busy != cases[i].busy || strcmp(answer.text, cases[i].text) != 0)
			fail_msg("%s: known %d busy %d \"%s\"", cases[i].body, answer.known, answer.busy, answer.text);
	}
}

static void test_what_cannot_be_known(void **state)
{
	static const struct {
		const char *body, *path, *text;
	} cases[] = {
		{ "{\"exec_info\": {\"remaining\": 1}}", "exec_info.queue_remaining",
			"exec_info has no member queue_remaining (it has remaining)" },
		{ "{\"queue\": []}", "queue[0].n", "queue has no element 0 (it has 0)" },
		{ "{\"state\": \"idle\"}", "state",
			"state is the text \"idle\"; it must be a number, true, false, a list or an object" },
		{ "{\"n\": \"nan\"}", "n",
			"n is the text \"nan\"; it must be a number, true, false, a list or an object" },
		{ "{\"n\": \"0x10\"}", "n",
			"n is the text \"0x10\"; it must be a number, true, false, a list or an object" },
		{ "{\"n\": \"\"}", "n", "n is the text \"\"; it must be a number, true, false, a list or an object" },
		{ "{\"n\": \"3 \"}", "n",
			"n is the text \"3 \"; it must be a number, true, false, a list or an object" },
		{ "{\"n\": \"3\\u00004\"}", "n",
			"n is the text \"3\"; it must be a number, true, false, a list or an object" },
		{ "{\"\x1b[2J\": 1}", "n", NULL },
		{ "{\"\\u001b[2J\": 1}", "n", "the answer has no member n (it has ?[2J)" },
		{ "3", "n", "the answer is a number, not an object" },
		{ "", "n", "the answer is empty" },
		{ "<html>busy</html>", "n", NULL },
		{ "{\"n\": 1", "n", NULL },
		{ "{\"n\": 1} trailing", "n", NULL },
		{ "{\"n\": 1e999}", "n", NULL },
		{ "{\"n\": NaN}", "n", NULL },
		{ "{\"n\": 1, \"x\": \"\xff\xfe\"}", "n", NULL },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct busy_answer answer = ask_body(*state, cases[i].body, strlen(cases[i].body), cases[i].path, 0);
		if (answer.known || answer.busy)
			fail_msg("%s: known %d busy %d \"%s\"", cases[i].body, answer.known, answer.busy, answer.text);
		if (cases[i].text == NULL)
			assert_memory_equal(answer.text, "the answer is not JSON: line 1: ", 32);
		else if (strcmp(answer.text, cases[i].text) != 0)
			fail_msg("%s: \"%s\"", cases[i].body, answer.text);
	}
}

static void test_bad_answers(void **state)
{
	static const struct {
		const char *path, *text;
	} cases[] = {
		{ "/503", "status 503" },
		{ "/404", "status 404" },
		{ "/moved", NULL },
		{ "/ssh", "answer is not HTTP" },
		{ "/short", "connection closed in the middle of the answer" },
		{ "/close", "connection closed without an answer" },
		{ "/nothing", "the answer is empty" },
		{ "/ok", NULL },
		{ "/endless-headers", "answer is not usable: more than 64 KiB of headers" },
		{ "/endless-error", "status 503" },
		{ "/endless-body",
			"the answer is longer than 1 MiB; ask an address that tells less (with ComfyUI /prompt, not "
			"/queue)" },
	};
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct probe_config config = at(fixture, cases[i].path, "n");
		struct busy_answer answer = ask_busy(&fixture->bench, &config, 20000);
		assert_false(answer.known);
		assert_true(answer.text[0] != '\0');
		if (cases[i].text != NULL && strcmp(answer.text, cases[i].text) != 0)
			fail_msg("%s: \"%s\"", cases[i].path, answer.text);
	}
}

static void test_timeouts(void **state)
{
	static const char *const paths[] = { "/hang", "/drip", "/drip-body" };
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct probe_config config = at(fixture, paths[i], "n");
		struct busy_answer answer = ask_busy(&fixture->bench, &config, 100);
		assert_false(answer.known);
		assert_non_null(strstr(answer.text, "within 100 ms"));
		assert_true(answer.took_ms >= 90 && answer.took_ms < SOON_MS);
	}
}

/* `unit` again and again, in brackets, up to a size. The caller frees it. */
static char *large_list(const char *unit, size_t size, size_t *ret_size)
{
	char *body = malloc(size + 16);
	size_t used = 0, length = strlen(unit);
	body[used++] = '[';
	while (used + length + 4 < size) {
		memcpy(body + used, unit, length);
		used += length;
		body[used++] = ',';
	}
	body[used++] = '0';
	body[used++] = ']';
	*ret_size = used;
	return body;
}

static void test_large_answers(void **state)
{
	static const struct {
		const char *unit;
		bool known;
	} units[] = { { "[]", true }, { "{\"a\":1}", true },
		{ "\"a long prompt about the sea in the evening\"", false }, { "1", true } };
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		size_t size;
		CLEANUP_FREE char *body = large_list(units[i].unit, 1000 * 1024, &size);
		struct busy_answer answer = ask_body(*state, body, size, "[1]", 60000);
		assert_int_equal(answer.known, units[i].known);
		assert_false(answer.busy);
		print_message("1 MB of %.8s: %d ms\n", units[i].unit, (int)answer.took_ms);
	}
}

/* The largest that is read, and one byte more. */
static void test_the_limit(void **state)
{
	size_t max = 1024 * 1024;
	CLEANUP_FREE char *body = malloc(max + 1);
	memset(body, ' ', max + 1);
	memcpy(body, "{\"n\":1}", 7);
	struct busy_answer answer = ask_body(*state, body, max, "n", 0);
	assert_true(answer.known && answer.busy);
	answer = ask_body(*state, body, max + 1, "n", 0);
	assert_false(answer.known);
	assert_non_null(strstr(answer.text, "longer than 1 MiB"));
}

static void test_deep_nesting(void **state)
{
	static const char openings[] = "[{";
	for (size_t i = 0; i < 2; i++) {
		size_t size = 900 * 1024, used = 0;
		CLEANUP_FREE char *body = malloc(size + 8);
		while (used < size) {
			if (openings[i] == '{') {
				memcpy(body + used, "{\"n\":", 5);
				used += 5;
			} else {
				body[used++] = '[';
			}
		}
		struct busy_answer answer = ask_body(*state, body, used, "n", 0);
		assert_false(answer.known);
		assert_non_null(strstr(answer.text, "depth"));
	}
}

/* Random bytes and random damage to JSON: one answer each, in words that a terminal may show. */
static void test_random_answers(void **state)
{
	static const char good[] = "{\"a\": {\"b\": [{\"c\": 1}, [true, null, \"x\\u00e9\"], -1.5e3]}, \"n\": 4}";
	uint64_t seed = 11;
	for (int turn = 0; turn < 300; turn++) {
		char body[256];
		size_t size = sizeof(good) - 1;
		memcpy(body, good, size);
		for (int hit = 0; hit < 3; hit++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			body[(seed >> 33) % size] = (char)(seed >> 55);
		}
		ask_body(*state, body, size, "a.b[0].c", 0);
	}
}

static struct probe_config shell(char *script, char *items[3])
{
	items[0] = (char *)"/bin/sh";
	items[1] = (char *)"-c";
	items[2] = script;
	return (struct probe_config){ .kind = PROBE_COMMAND, .command = { .n = 3, .items = items } };
}

static void test_commands(void **state)
{
	static const struct {
		const char *script;
		bool known, busy;
		const char *text;
	} cases[] = {
		{ "exit 0", true, true, "exit status 0" },
		{ "exit 1", true, false, "exit status 1" },
		{ "test -e /no/such/file", true, false, "exit status 1" },
		{ "exit 2", false, false, "exit status 2" },
		{ "no-such-command-here", false, false, "exit status 127 (command not found?)" },
		{ "kill -KILL $$", false, false, "killed by signal 9 (Killed)" },
		{ "sleep 30", false, false, "did not end within 300 ms (killed)" },
	};
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *items[3];
		struct probe_config config = shell((char *)cases[i].script, items);
		bool is_late = strncmp(cases[i].script, "sleep", 5) == 0;
		struct busy_answer answer = ask_busy(&fixture->bench, &config, is_late ? 300 : 10000);
		if (answer.known != cases[i].known || answer.busy != cases[i].busy ||
			strcmp(answer.text, cases[i].text) != 0)
			fail_msg(
				"%s: known %d busy %d \"%s\"", cases[i].script, answer.known, answer.busy, answer.text);
	}
	char *none[] = { (char *)"/no/such/file" };
	struct probe_config config = { .kind = PROBE_COMMAND, .command = { .n = 1, .items = none } };
	struct busy_answer answer = ask_busy(&fixture->bench, &config, 10000);
	assert_false(answer.known);
	assert_non_null(strstr(answer.text, "/no/such/file"));
}

static void test_what_cannot_be_asked(void **state)
{
	struct fixture *fixture = *state;
	struct prober *prober = fixture->bench.prober;
	struct probe_config config = at(fixture, "/body", NULL);
	assert_int_equal(bench_start_busy(prober, &config, 1000, take, NULL, NULL), -EINVAL);
	config = (struct probe_config){ .kind = PROBE_TCP, .address = (char *)"127.0.0.1:1" };
	assert_int_equal(bench_start_busy(prober, &config, 1000, take, NULL, NULL), -EINVAL);
	config.kind = PROBE_NONE;
	assert_int_equal(bench_start_busy(prober, &config, 1000, take, NULL, NULL), -EINVAL);
	config.kind = (enum probe_kind)99;
	assert_int_equal(bench_start_busy(prober, &config, 1000, take, NULL, NULL), -EINVAL);
	config = (struct probe_config){ .kind = PROBE_HTTP, .address = (char *)"not a url", .json = (char *)"n" };
	struct busy_answer answer = ask_busy(&fixture->bench, &config, 10000);
	assert_false(answer.known);
	config = at(fixture, "/ok", "a..b");
	server_set_body(fixture->server, "{}", 2);
	config = at(fixture, "/body", "a..b");
	answer = ask_busy(&fixture->bench, &config, 10000);
	assert_false(answer.known);
	assert_string_equal(answer.text, "\"a..b\" is not a path into JSON");
}

/* Also while the thread reads the answer. */
static void test_cancelled_at_every_moment(void **state)
{
	struct fixture *fixture = *state;
	size_t size;
	CLEANUP_FREE char *body = large_list("[{\"a\": [1, 2]}]", 300 * 1024, &size);
	struct probe_config config = at(fixture, "/body", "[0]");
	server_set_body(fixture->server, body, size);
	for (int turns = 0; turns < 80; turns++) {
		struct busy_answer answer = { 0 };
		struct probe *probe;
		assert_int_equal(bench_start_busy(fixture->bench.prober, &config, 5000, take, &answer, &probe), 0);
		for (int i = 0; i < turns && answer.n == 0; i++)
			uv_run(&fixture->bench.loop, i % 2 == 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
		if (answer.n > 0)
			continue;
		probe_cancel(probe);
		for (int i = 0; i < 3; i++)
			uv_run(&fixture->bench.loop, UV_RUN_NOWAIT);
		assert_int_equal(answer.n, 0);
	}
}

static void test_destroyed_while_an_answer_is_read(void **state)
{
	struct fixture *fixture = *state;
	size_t size;
	CLEANUP_FREE char *body = large_list("[{\"a\": [1, 2]}]", 1000 * 1024, &size);
	struct busy_answer answers[6] = { 0 };
	struct probe_config config = at(fixture, "/body", "[0]");
	server_set_body(fixture->server, body, size);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		bench_start_busy(fixture->bench.prober, &config, 5000, take, &answers[i], NULL);
	uint64_t end = now_ms() + 5000;
	while (answers[0].n + answers[1].n + answers[2].n + answers[3].n == 0 && now_ms() < end)
		uv_run(&fixture->bench.loop, UV_RUN_ONCE);
	fixture->bench.prober = prober_destroy(fixture->bench.prober);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		assert_true(answers[i].n <= 1);
}

static void ask_health_too(void *context, bool known, bool busy, const char *text)
{
	(void)busy;
	(void)text;
	struct fixture *fixture = context;
	assert_true(known);
	fixture->bench.prober = prober_destroy(fixture->bench.prober);
}

static void test_destroyed_by_a_handler(void **state)
{
	struct fixture *fixture = *state;
	struct probe_config config = at(fixture, "/body", "n");
	server_set_body(fixture->server, "{\"n\": 1}", 8);
	bench_start_busy(fixture->bench.prober, &config, 5000, ask_health_too, fixture, NULL);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	assert_null(fixture->bench.prober);
}

#define WITH_SERVER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_what_is_counted),
		WITH_SERVER(test_what_cannot_be_known),
		WITH_SERVER(test_bad_answers),
		WITH_SERVER(test_timeouts),
		WITH_SERVER(test_large_answers),
		WITH_SERVER(test_the_limit),
		WITH_SERVER(test_deep_nesting),
		WITH_SERVER(test_random_answers),
		WITH_SERVER(test_commands),
		WITH_SERVER(test_what_cannot_be_asked),
		WITH_SERVER(test_cancelled_at_every_moment),
		WITH_SERVER(test_destroyed_while_an_answer_is_read),
		WITH_SERVER(test_destroyed_by_a_handler),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
