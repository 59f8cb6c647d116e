/* Health addresses and who listens there. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/endpoint.h"

static void test_split(void **state)
{
	(void)state;
	static const struct {
		const char *address, *host;
		unsigned port;
	} cases[] = {
		{ "http://127.0.0.1:8188/system_stats", "127.0.0.1", 8188 },
		{ "http://localhost/x", "localhost", 80 },
		{ "HTTP://localhost:90?x:1", "localhost", 90 },
		{ "https://h", "h", 443 },
		{ "http://[::1]:8080/a", "::1", 8080 },
		{ "http://[::1]/a", "::1", 80 },
		{ "http://u:p@h:7/@x:9", "h", 7 },
		{ "h:65535", "h", 65535 },
		{ "[fe80::1]:1", "fe80::1", 1 },
		{ "h", NULL, 0 },
		{ "h:", NULL, 0 },
		{ "h:0", NULL, 0 },
		{ "h:65536", NULL, 0 },
		{ "h:1x", NULL, 0 },
		{ "h:-1", NULL, 0 },
		{ ":8080", NULL, 0 },
		{ ":8080/path", NULL, 0 },
		{ "", NULL, 0 },
		{ "http://", NULL, 0 },
		{ "http://[::1", NULL, 0 },
		{ "http://[::1]x:4", NULL, 0 },
		{ "http://[]:4", NULL, 0 },
		{ "http://a-host-name-that-is-longer-than-there-is-room-for/", NULL, 0 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char host[32] = "";
		uint16_t port = 0;
		int r = endpoint_split(cases[i].address, host, sizeof(host), &port);
		if (cases[i].host == NULL) {
			assert_int_equal(r, -EINVAL);
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(host, cases[i].host);
		assert_int_equal(port, cases[i].port);
	}
}

static int of(const char *address, enum probe_kind kind, struct endpoint *endpoint)
{
	struct probe_config probe = { .kind = kind, .address = (char *)address };
	return endpoint_of_probe(&probe, endpoint);
}

static void test_only_this_host(void **state)
{
	(void)state;
	struct endpoint endpoint;
	assert_int_equal(of("http://127.0.0.1:81/", PROBE_HTTP, &endpoint), 0);
	assert_true(endpoint.has_v4 && !endpoint.has_v6);
	assert_int_equal(endpoint.port, 81);
	assert_int_equal(of("localhost:82", PROBE_TCP, &endpoint), 0);
	assert_true(endpoint.has_v4 && endpoint.has_v6);
	assert_int_equal(of("[::1]:83", PROBE_TCP, &endpoint), 0);
	assert_true(!endpoint.has_v4 && endpoint.has_v6);
	assert_int_equal(of("192.0.2.7:82", PROBE_TCP, &endpoint), -ENOENT);
	assert_int_equal(of("[2001:db8::7]:82", PROBE_TCP, &endpoint), -ENOENT);
	assert_int_equal(of("example.com:82", PROBE_TCP, &endpoint), -ENOENT);
	assert_int_equal(of("127.0.0.1", PROBE_TCP, &endpoint), -ENOENT);
	assert_int_equal(of("127.0.0.1:82", PROBE_COMMAND, &endpoint), -ENOENT);
	assert_int_equal(of(NULL, PROBE_HTTP, &endpoint), -ENOENT);
}

#define TAIL " 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0\n"

static void test_lines(void **state)
{
	(void)state;
	struct endpoint v4, v6;
	uint64_t inode;
	assert_int_equal(of("127.0.0.1:8080", PROBE_TCP, &v4), 0);
	assert_int_equal(of("[::1]:8080", PROBE_TCP, &v6), 0);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	assert_int_equal(endpoint_match_line(&v4, "  0: 0100007F:1F90 00000000:0000 0A" TAIL, false, &inode), 2);
	assert_int_equal(inode, 4242);
	assert_int_equal(endpoint_match_line(&v4, "  0: 0200007F:1F90 00000000:0000 0A" TAIL, false, &inode), 0);
	assert_int_equal(
		endpoint_match_line(&v6,
			"  0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A" TAIL,
			true, &inode),
		2);
	assert_int_equal(
		endpoint_match_line(&v4,
			"  0: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A" TAIL,
			true, &inode),
		2);
#endif
	assert_int_equal(endpoint_match_line(&v4, "  0: 00000000:1F90 00000000:0000 0A" TAIL, false, &inode), 1);
	assert_int_equal(endpoint_match_line(&v6, "  0: 00000000:1F90 00000000:0000 0A" TAIL, false, &inode), 0);
	assert_int_equal(
		endpoint_match_line(&v4,
			"  0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A" TAIL,
			true, &inode),
		1);
	/* Another port; a connection, not a listener. */
	assert_int_equal(endpoint_match_line(&v4, "  0: 00000000:1F91 00000000:0000 0A" TAIL, false, &inode), 0);
	assert_int_equal(endpoint_match_line(&v4, "  0: 00000000:1F90 00000000:0000 01" TAIL, false, &inode), 0);
	/* The heading, an empty line, cut lines, the wrong table. */
	assert_int_equal(
		endpoint_match_line(&v4, "  sl  local_address rem_address   st tx_queue", false, &inode), -EINVAL);
	assert_int_equal(endpoint_match_line(&v4, "", false, &inode), -EINVAL);
	assert_int_equal(endpoint_match_line(&v4, "  0: 00000000:1F90 00000000:0000 0A", false, &inode), -EINVAL);
	assert_int_equal(endpoint_match_line(&v4, "  0: 00000000:1F90 00000000:0000 0A" TAIL, true, &inode), -EINVAL);
}

static void test_real_listener(void **state)
{
	(void)state;
	struct endpoint endpoint = { .has_v4 = true, .v4.s_addr = htonl(INADDR_LOOPBACK), .port = bench_free_port() };
	assert_int_equal(endpoint_listener(&endpoint), 0);
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr = endpoint.v4, .sin_port = htons(endpoint.port)
	};
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	/* Bound is not listening. */
	assert_int_equal(endpoint_listener(&endpoint), 0);
	assert_int_equal(listen(fd, 1), 0);
	int64_t inode = endpoint_listener(&endpoint);
	assert_true(inode > 0);
	struct proc_stat holder;
	assert_int_equal(endpoint_holder((uint64_t)inode, &holder), 0);
	assert_int_equal(holder.pid, getpid());
	assert_int_equal(endpoint_holder(UINT64_MAX, &holder), -ESRCH);
	endpoint.v4.s_addr = htonl(INADDR_LOOPBACK + 1);
	assert_int_equal(endpoint_listener(&endpoint), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_only_this_host),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_real_listener),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
