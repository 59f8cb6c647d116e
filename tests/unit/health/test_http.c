/* The http probe against a server that misbehaves in every way it knows. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

struct fixture {
	struct server *server;
	struct bench bench;
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
	bool is_ended = fixture->bench.prober == NULL;
	/* The client's ends are closed by now, the server's may not be. */
	if (!is_ended)
		fixture->bench.prober = prober_destroy(fixture->bench.prober);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&fixture->bench.loop);
	server_stop(fixture->server);
	free(fixture);
	return r;
}

static struct answer get(struct fixture *fixture, const char *path, uint64_t timeout_ms)
{
	char url[256];
	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", server_port(fixture->server), path);
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	return ask(&fixture->bench, &config, timeout_ms);
}

static void test_good_statuses_pass(void **state)
{
	static const char *const paths[] = { "/ok", "/created", "/nothing", "/299", "/interim", "/trailers",
		"/endless-body" };
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct answer answer = get(*state, paths[i], 5000);
		if (!answer.passed || answer.text[0] != '\0')
			fail_msg("%s: %d \"%s\"", paths[i], answer.passed, answer.text);
		assert_true(answer.took_ms < SOON_MS);
	}
}

static void test_bad_answers_fail_in_words(void **state)
{
	static const struct {
		const char *path, *text;
	} cases[] = {
		{ "/503", "status 503" },
		{ "/404", "status 404" },
		{ "/401", "status 401" },
		{ "/endless-error", "status 503" },
		{ "/lost", "status 301" },
		{ "/ssh", "answer is not HTTP" },
		{ "/http9", "answer is not HTTP" },
		{ "/rubbish", "answer is not HTTP" },
		{ "/short", "connection closed in the middle of the answer" },
		{ "/half", "connection closed in the middle of the answer" },
		{ "/close", "connection closed without an answer" },
		{ "/reset", "connection broken off by the other side" },
		{ "/endless-headers", "answer is not usable: more than 64 KiB of headers" },
		{ "/continue", "answer is not usable: more than 64 KiB of headers" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct answer answer = get(*state, cases[i].path, 5000);
		if (answer.passed || strcmp(answer.text, cases[i].text) != 0)
			fail_msg("%s: %d \"%s\"", cases[i].path, answer.passed, answer.text);
		assert_true(answer.took_ms < SOON_MS);
	}
}

/* Where libcurl chooses the words, they must at least be there. */
static void test_malformed_answers_fail(void **state)
{
	static const char *const paths[] = { "/chunks", "/length", "/endless-line", "/interim-only" };
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct answer answer = get(*state, paths[i], 5000);
		if (answer.passed || answer.text[0] == '\0')
			fail_msg("%s: %d \"%s\"", paths[i], answer.passed, answer.text);
		assert_true(answer.took_ms < SOON_MS);
	}
}

static void test_redirects_are_told_not_followed(void **state)
{
	struct fixture *fixture = *state;
	char expected[256];
	snprintf(expected, sizeof(expected), "status 302: redirects to http://127.0.0.1:%u/ok (not followed)",
		server_port(fixture->server));
	struct answer answer = get(fixture, "/moved", 5000);
	assert_false(answer.passed);
	assert_string_equal(answer.text, expected);
	assert_int_equal(server_count(fixture->server), 1);
}

static void test_control_characters_do_not_get_through(void **state)
{
	struct answer answer = get(*state, "/hostile", 5000);
	assert_false(answer.passed);
	for (const char *c = answer.text; *c != '\0'; c++)
		assert_true(*c >= ' ' && *c <= '~');
}

/* Long enough for the server to say what it says, on a machine that has other work. */
static void test_timeouts(void **state)
{
	static const struct {
		const char *path, *text;
	} cases[] = {
		{ "/hang", "no answer within 1.5 s" },
		{ "/drip", "answer not complete within 1.5 s (status 200)" },
		{ "/drip-body", "answer not complete within 1.5 s (status 200)" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct answer answer = get(*state, cases[i].path, 1500);
		assert_false(answer.passed);
		assert_string_equal(answer.text, cases[i].text);
		if (answer.took_ms < 1490 || answer.took_ms > SOON_MS)
			fail_msg("%s took %d ms", cases[i].path, (int)answer.took_ms);
	}
}

static void test_refused(void **state)
{
	struct fixture *fixture = *state;
	uint16_t port;
	char url[64];
	close(listen_somewhere(&port));
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	struct answer answer = ask(&fixture->bench, &config, 5000);
	assert_false(answer.passed);
	assert_string_equal(answer.text, "connection refused");
	assert_true(answer.took_ms < SOON_MS);
}

/* socket(), bound to `own_port`, if that is one: the kernel may choose the port that is asked for, too. */
static uint16_t own_port;

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(own_port),
	};
	int fd = __real_socket(domain, type, protocol);
	if (own_port != 0)
		assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void test_a_connection_to_itself_is_none(void **state)
{
	struct fixture *fixture = *state;
	uint16_t port;
	char url[64];
	close(listen_somewhere(&port));
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	own_port = port;
	struct answer answer = ask(&fixture->bench, &config, 5000);
	own_port = 0;
	assert_false(answer.passed);
	assert_string_equal(answer.text, "connection refused");
	assert_true(is_free_port(port));
}

static void test_names(void **state)
{
	struct fixture *fixture = *state;
	char url[128];
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	snprintf(url, sizeof(url), "http://localhost:%u/ok", server_port(fixture->server));
	assert_true(ask(&fixture->bench, &config, 5000).passed);
	/* Looked up, and certain not to exist (RFC 6761). */
	snprintf(url, sizeof(url), "http://no.such.host.invalid:%u/ok", server_port(fixture->server));
	struct answer answer = ask(&fixture->bench, &config, 3000);
	assert_false(answer.passed);
	if (strstr(answer.text, "cannot be resolved") == NULL && strstr(answer.text, "no answer within") == NULL)
		fail_msg("\"%s\"", answer.text);
}

/* A name that has to be looked up and does exist: this machine's own, where its resolver knows it. */
static void test_looked_up_name_is_asked(void **state)
{
	struct fixture *fixture = *state;
	char host[200], url[300];
	assert_int_equal(gethostname(host, sizeof(host)), 0);
	snprintf(url, sizeof(url), "http://%s:%u/ok", host, server_port(fixture->server));
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	struct answer answer = ask(&fixture->bench, &config, 3000);
	/* Its address is often not loopback, where the server does not listen: then it must be a refusal. */
	if (!answer.passed && strcmp(answer.text, "connection refused") != 0 &&
		strstr(answer.text, "cannot be resolved") == NULL)
		fail_msg("\"%s\"", answer.text);
}

static void test_only_http_urls(void **state)
{
	struct fixture *fixture = *state;
	static char *const urls[] = { "file:///etc/passwd", "ftp://127.0.0.1/", "", "gopher://127.0.0.1:1/x",
		"127.0.0.1", ":8080/path", "http://", "http://127.0.0.1:99999/", "http://127.0.0.1:80:80/",
		"dict://127.0.0.1:11211/stat", "javascript:alert(1)" };
	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		struct probe_config config = { .kind = PROBE_HTTP, .address = urls[i] };
		struct answer answer = ask(&fixture->bench, &config, 5000);
		if (answer.passed || strstr(answer.text, "not a URL that can be asked") == NULL)
			fail_msg("%s: \"%s\"", urls[i], answer.text);
	}
}

static void test_no_proxy_is_used(void **state)
{
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	struct answer answer = get(*state, "/ok", 5000);
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
	assert_true(answer.passed);
}

static void test_every_check_has_its_own_connection(void **state)
{
	struct fixture *fixture = *state;
	for (int i = 0; i < 20; i++)
		assert_true(get(fixture, "/ok", 5000).passed);
	assert_int_equal(server_count(fixture->server), 20);
}

static void test_many_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct answer answers[60] = { 0 };
	char url[128];
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/ok", server_port(fixture->server));
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		bench_start(fixture->bench.prober, &config, 5000, take_answer, &answers[i], NULL);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		assert_true(answers[i].n == 1 && answers[i].passed);
}

/* Cancelled after k turns of the loop, for every k until it would have ended by itself. */
static void test_cancel_at_every_moment(void **state)
{
	struct fixture *fixture = *state;
	static const char *const paths[] = { "ok", "hang", "endless-headers", "close", "moved" };
	for (size_t p = 0; p < ARRAY_SIZE(paths); p++)
		for (int turns = 0; turns < 40; turns++) {
			char url[128];
			struct answer answer = { 0 };
			struct probe *probe;
			snprintf(url, sizeof(url), "http://%s:%u/%s", turns % 4 == 3 ? "localhost" : "127.0.0.1",
				server_port(fixture->server), paths[p]);
			struct probe_config config = { .kind = PROBE_HTTP, .address = url };
			bench_start(fixture->bench.prober, &config, 5000, take_answer, &answer, &probe);
			for (int i = 0; i < turns && answer.n == 0; i++) {
				uv_run(&fixture->bench.loop, UV_RUN_NOWAIT);
				usleep(50);
			}
			int n = answer.n;
			if (n == 0)
				probe_cancel(probe);
			uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
			assert_int_equal(answer.n, n);
		}
}

static void test_cancel_while_looking_up(void **state)
{
	struct fixture *fixture = *state;
	for (int turns = 0; turns < 5; turns++) {
		struct answer answer = { 0 };
		struct probe *probe;
		struct probe_config config = { .kind = PROBE_HTTP, .address = "http://no.such.host.invalid/" };
		bench_start(fixture->bench.prober, &config, 5000, take_answer, &answer, &probe);
		for (int i = 0; i < turns && answer.n == 0; i++)
			uv_run(&fixture->bench.loop, UV_RUN_NOWAIT);
		if (answer.n == 0) {
			probe_cancel(probe);
			uv_run(&fixture->bench.loop, UV_RUN_NOWAIT);
			assert_int_equal(answer.n, 0);
		}
	}
}

struct meddler {
	struct fixture *fixture;
	struct probe *others[4];
	int n_answers;
};

static void meddle(void *context, bool passed, const char *text)
{
	(void)passed;
	(void)text;
	struct meddler *meddler = context;
	if (meddler->n_answers++ > 0)
		return;
	meddler->fixture->bench.prober = prober_destroy(meddler->fixture->bench.prober);
}

/* The daemon may shut down in the very moment of an answer. */
static void test_destroyed_by_a_handler(void **state)
{
	struct fixture *fixture = *state;
	struct meddler meddler = { .fixture = fixture };
	char url[128];
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/ok", server_port(fixture->server));
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	for (size_t i = 0; i < 5; i++)
		bench_start(fixture->bench.prober, &config, 5000, meddle, &meddler, NULL);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	assert_int_equal(meddler.n_answers, 1);
}

struct chain {
	struct fixture *fixture;
	struct probe_config config;
	int left;
};

static void ask_again(void *context, bool passed, const char *text)
{
	(void)text;
	struct chain *chain = context;
	assert_true(passed);
	if (--chain->left > 0)
		bench_start(chain->fixture->bench.prober, &chain->config, 5000, ask_again, chain, NULL);
}

static double processor_seconds(void)
{
	struct rusage usage;
	getrusage(RUSAGE_THREAD, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void count_turn(uv_prepare_t *prepare)
{
	unsigned *n_turns = prepare->data;
	++*n_turns;
}

/* One check every 5 ms while a service boots is 200 a second: what waits for its answer must not keep the loop busy.
 * The time is told and not judged, for it is the machine's as well. */
static void test_cost(void **state)
{
	struct fixture *fixture = *state;
	char url[128];
	unsigned n_turns = 0;
	uv_prepare_t prepare = { .data = &n_turns };
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/ok", server_port(fixture->server));
	struct chain chain = { .fixture = fixture, .config = { .kind = PROBE_HTTP, .address = url }, .left = 400 };
	uv_prepare_init(&fixture->bench.loop, &prepare);
	uv_prepare_start(&prepare, count_turn);
	uv_unref((uv_handle_t *)&prepare);
	double before = processor_seconds();
	bench_start(fixture->bench.prober, &chain.config, 5000, ask_again, &chain, NULL);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	double each = (processor_seconds() - before) / 400;
	print_message("%.0f us of processor time and %.1f turns of the loop a check\n", each * 1e6, n_turns / 400.0);
	uv_close((uv_handle_t *)&prepare, NULL);
	uv_run(&fixture->bench.loop, UV_RUN_DEFAULT);
	assert_int_equal(chain.left, 0);
	assert_true(n_turns < 400 * 20);
}

static void test_sockets_are_not_inherited(void **state)
{
	struct fixture *fixture = *state;
	char url[128];
	struct answer answer = { 0 };
	struct probe *probe;
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/hang", server_port(fixture->server));
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	bench_start(fixture->bench.prober, &config, 5000, take_answer, &answer, &probe);
	uint64_t end = now_ms() + 2000;
	while (server_count(fixture->server) == 0 && now_ms() < end)
		uv_run(&fixture->bench.loop, UV_RUN_NOWAIT);
	int n_sockets = 0;
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in address;
		socklen_t size = sizeof(address);
		if (getpeername(fd, (struct sockaddr *)&address, &size) != 0 || address.sin_family != AF_INET ||
			ntohs(address.sin_port) != server_port(fixture->server))
			continue;
		n_sockets++;
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
	probe_cancel(probe);
	assert_true(n_sockets > 0);
}

static void test_kinds_without_a_probe(void **state)
{
	struct fixture *fixture = *state;
	struct probe_config config = { .kind = PROBE_CONTAINER };
	assert_int_equal(bench_start(fixture->bench.prober, &config, 1000, take_answer, NULL, NULL), -EINVAL);
	config.kind = PROBE_NONE;
	assert_int_equal(bench_start(fixture->bench.prober, &config, 1000, take_answer, NULL, NULL), -EINVAL);
}

static void test_nothing_is_left(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	char url[64];
	int listener = listen_somewhere(&port);
	bench_begin(&bench);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", port);
	struct probe_config config = { .kind = PROBE_HTTP, .address = url };
	for (int i = 0; i < 10; i++)
		ask(&bench, &config, 10);
	for (int i = 0; i < 10; i++)
		bench_start(bench.prober, &config, 5000, take_answer, NULL, NULL);
	uv_run(&bench.loop, UV_RUN_NOWAIT);
	bench_end(&bench);
	close(listener);
}

#define WITH_SERVER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_good_statuses_pass),
		WITH_SERVER(test_bad_answers_fail_in_words),
		WITH_SERVER(test_malformed_answers_fail),
		WITH_SERVER(test_redirects_are_told_not_followed),
		WITH_SERVER(test_control_characters_do_not_get_through),
		WITH_SERVER(test_timeouts),
		WITH_SERVER(test_refused),
		WITH_SERVER(test_a_connection_to_itself_is_none),
		WITH_SERVER(test_names),
		WITH_SERVER(test_looked_up_name_is_asked),
		WITH_SERVER(test_only_http_urls),
		WITH_SERVER(test_no_proxy_is_used),
		WITH_SERVER(test_every_check_has_its_own_connection),
		WITH_SERVER(test_many_at_once),
		WITH_SERVER(test_cancel_at_every_moment),
		WITH_SERVER(test_cancel_while_looking_up),
		WITH_SERVER(test_destroyed_by_a_handler),
		WITH_SERVER(test_cost),
		WITH_SERVER(test_sockets_are_not_inherited),
		WITH_SERVER(test_kinds_without_a_probe),
		cmocka_unit_test(test_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
