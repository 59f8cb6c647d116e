/* The tcp probe: accepted, refused, silent, addresses of all forms, cancelled at every moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

static struct answer ask_tcp(struct bench *bench, const char *host, uint16_t port, uint64_t timeout_ms)
{
	char address[256];
	snprintf(address, sizeof(address), "%s:%u", host, port);
	struct probe_config config = { .kind = PROBE_TCP, .address = address };
	return ask(bench, &config, timeout_ms);
}

static void test_accepted(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	bench_begin(&bench);
	int listener = listen_somewhere(&port);
	struct answer answer = ask_tcp(&bench, "127.0.0.1", port, 5000);
	assert_true(answer.passed);
	assert_string_equal(answer.text, "");
	assert_true(ask_tcp(&bench, "localhost", port, 5000).passed);
	assert_true(answer.took_ms < SOON_MS);
	close(listener);
	bench_end(&bench);
}

static void test_refused(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	bench_begin(&bench);
	close(listen_somewhere(&port));
	static const char *const hosts[] = { "127.0.0.1", "localhost" };
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct answer answer = ask_tcp(&bench, hosts[i], port, 5000);
		assert_false(answer.passed);
		/* localhost: the last of its addresses is told, and IPv6 may be missing altogether. */
		if (i == 0)
			assert_string_equal(answer.text, "connection refused");
		assert_true(answer.text[0] != '\0');
		assert_true(answer.took_ms < SOON_MS);
	}
	bench_end(&bench);
}

/* uv_tcp_connect(), from the very port that it connects to when `meets_itself`: the kernel may choose so, too. */
static bool meets_itself;

int __real_uv_tcp_connect(uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb done);
int __wrap_uv_tcp_connect(uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb done);
int __wrap_uv_tcp_connect(uv_connect_t *request, uv_tcp_t *handle, const struct sockaddr *address, uv_connect_cb done)
{
	if (meets_itself)
		assert_int_equal(uv_tcp_bind(handle, address, 0), 0);
	return __real_uv_tcp_connect(request, handle, address, done);
}

static void test_a_connection_to_itself_is_none(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	bench_begin(&bench);
	close(listen_somewhere(&port));
	meets_itself = true;
	struct answer answer = ask_tcp(&bench, "127.0.0.1", port, 5000);
	meets_itself = false;
	assert_false(answer.passed);
	assert_string_equal(answer.text, "connection refused");
	bench_end(&bench);
	assert_true(is_free_port(port));
}

/* A full backlog: the kernel drops what comes, as a firewall would. */
static void test_silence(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	bench_begin(&bench);
	int listener = listen_somewhere(&port);
	assert_int_equal(listen(listener, 0), 0);
	struct answer answers[8];
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		memset(&answers[i], 0, sizeof(answers[i]));
		char address[64];
		snprintf(address, sizeof(address), "127.0.0.1:%u", port);
		struct probe_config config = { .kind = PROBE_TCP, .address = address };
		assert_int_equal(bench_start(bench.prober, &config, 200, take_answer, &answers[i], NULL), 0);
	}
	uv_run(&bench.loop, UV_RUN_DEFAULT);
	int n_silent = 0;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		assert_int_equal(answers[i].n, 1);
		n_silent += !answers[i].passed && strcmp(answers[i].text, "no connection within 200 ms") == 0;
	}
	assert_true(n_silent > 0);
	close(listener);
	bench_end(&bench);
}

static void test_rubbish_addresses(void **state)
{
	(void)state;
	struct bench bench;
	bench_begin(&bench);
	static char *const addresses[] = { "", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536",
		"127.0.0.1:-1", "127.0.0.1: 80", "127.0.0.1:80x", "::1:80", "[]:80",
		"127.0.0.1:99999999999999999999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct probe_config config = { .kind = PROBE_TCP, .address = addresses[i] };
		struct answer answer = ask(&bench, &config, 5000);
		if (answer.passed || strstr(answer.text, "write HOST:PORT") == NULL)
			fail_msg("%s: \"%s\"", addresses[i], answer.text);
	}
	bench_end(&bench);
}

static void test_names(void **state)
{
	(void)state;
	struct bench bench;
	bench_begin(&bench);
	struct answer answer = ask_tcp(&bench, "no.such.host.invalid", 80, 3000);
	assert_false(answer.passed);
	if (strstr(answer.text, "cannot be resolved") == NULL && strstr(answer.text, "no connection within") == NULL)
		fail_msg("\"%s\"", answer.text);
	bench_end(&bench);
}

static void test_cancel_at_every_moment(void **state)
{
	(void)state;
	struct bench bench;
	uint16_t port;
	bench_begin(&bench);
	int listener = listen_somewhere(&port);
	static const char *const hosts[] = { "127.0.0.1", "localhost", "[::1]", "no.such.host.invalid" };
	for (size_t h = 0; h < ARRAY_SIZE(hosts); h++)
		for (int turns = 0; turns < 5; turns++) {
			char address[64];
			struct answer answer = { 0 };
			struct probe *probe;
			snprintf(address, sizeof(address), "%s:%u", hosts[h], port);
			struct probe_config config = { .kind = PROBE_TCP, .address = address };
			assert_int_equal(bench_start(bench.prober, &config, 5000, take_answer, &answer, &probe), 0);
			for (int i = 0; i < turns && answer.n == 0; i++)
				uv_run(&bench.loop, UV_RUN_NOWAIT);
			int n = answer.n;
			if (n == 0)
				probe_cancel(probe);
			uv_run(&bench.loop, UV_RUN_NOWAIT);
			assert_int_equal(answer.n, n);
		}
	close(listener);
	bench_end(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_a_connection_to_itself_is_none),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_rubbish_addresses),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_cancel_at_every_moment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
