/* The command probe: exit statuses, signals, timeouts that kill the whole group, and what a child is given. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "support.h"

static struct probe_config shell(char *script, char *items[3])
{
	items[0] = "/bin/sh";
	items[1] = "-c";
	items[2] = script;
	return (struct probe_config){ .kind = PROBE_COMMAND, .command = { .n = 3, .items = items } };
}

static void test_ends(void **state)
{
	(void)state;
	static const struct {
		char *script;
		bool passed;
		const char *text;
	} cases[] = {
		{ "exit 0", true, "" }, { "exit 3", false, "exit status 3" },
		{ "no-such-command-here", false, "exit status 127 (command not found?)" },
		{ "kill -TERM $$", false, "killed by signal 15 (Terminated)" },
		{ "echo noise; echo noise >&2; read x; exit $?", false, "exit status 1" }, /* stdin is empty */
	};
	struct bench bench;
	bench_begin(&bench);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *items[3];
		struct probe_config config = shell(cases[i].script, items);
		struct answer answer = ask(&bench, &config, 5000);
		if (answer.passed != cases[i].passed || strcmp(answer.text, cases[i].text) != 0)
			fail_msg("%s: %d \"%s\"", cases[i].script, answer.passed, answer.text);
	}
	bench_end(&bench);
}

static void test_cannot_run(void **state)
{
	(void)state;
	struct bench bench;
	bench_begin(&bench);
	char *items[] = { "/no/such/file", NULL };
	struct probe_config config = { .kind = PROBE_COMMAND, .command = { .n = 1, .items = items } };
	struct answer answer = ask(&bench, &config, 5000);
	assert_false(answer.passed);
	assert_string_equal(answer.text, "cannot run /no/such/file: No such file or directory");
	items[0] = "/dev/null";
	answer = ask(&bench, &config, 5000);
	assert_string_equal(answer.text, "cannot run /dev/null: Permission denied");
	config.command.n = 0;
	answer = ask(&bench, &config, 5000);
	assert_string_equal(answer.text, "there is no command to run");
	bench_end(&bench);
}

/* What is orphaned becomes the test's own child (see main): when it has none any more, all are gone. */
static void expect_group_gone(void)
{
	uint64_t end = now_ms() + 15000;
	pid_t pid;
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && now_ms() < end)
		usleep(1000);
	assert_int_equal(pid, -1);
	assert_int_equal(errno, ECHILD);
}

static void test_timeout_kills_the_whole_group(void **state)
{
	(void)state;
	struct bench bench;
	char *items[3];
	bench_begin(&bench);
	struct probe_config config = shell("trap '' TERM INT HUP; sleep 60 & (sleep 60; true) & wait", items);
	struct answer answer = ask(&bench, &config, 100);
	assert_false(answer.passed);
	assert_string_equal(answer.text, "did not end within 100 ms (killed)");
	assert_true(answer.took_ms >= 90 && answer.took_ms < SOON_MS);
	expect_group_gone();
	bench_end(&bench);
}

static void test_what_it_leaves_behind_is_killed(void **state)
{
	(void)state;
	struct bench bench;
	char *items[3];
	bench_begin(&bench);
	struct probe_config config = shell("sleep 60 & exit 0", items);
	struct answer answer = ask(&bench, &config, 5000);
	assert_true(answer.passed);
	assert_true(answer.took_ms < SOON_MS);
	expect_group_gone();
	bench_end(&bench);
}

static void test_cancel_at_every_moment(void **state)
{
	(void)state;
	struct bench bench;
	bench_begin(&bench);
	for (int turns = 0; turns < 12; turns++) {
		char *items[3];
		struct answer answer = { 0 };
		struct probe *probe;
		struct probe_config config = shell(turns % 2 == 0 ? "sleep 60" : "exit 0", items);
		assert_int_equal(bench_start(bench.prober, &config, 5000, take_answer, &answer, &probe), 0);
		for (int i = 0; i < turns && answer.n == 0; i++) {
			uv_run(&bench.loop, UV_RUN_NOWAIT);
			usleep(300);
		}
		int n = answer.n;
		if (n == 0)
			probe_cancel(probe);
		uv_run(&bench.loop, UV_RUN_DEFAULT);
		assert_int_equal(answer.n, n);
		expect_group_gone();
	}
	bench_end(&bench);
}

static void test_destroyed_while_running(void **state)
{
	(void)state;
	struct bench bench;
	char *items[3];
	struct answer answer = { 0 };
	bench_begin(&bench);
	struct probe_config config = shell("sleep 60 & sleep 60", items);
	for (int i = 0; i < 3; i++)
		bench_start(bench.prober, &config, 5000, take_answer, &answer, NULL);
	bench.prober = prober_destroy(bench.prober);
	expect_group_gone();
	assert_int_equal(answer.n, 0);
	bench_end(&bench);
}

/* A probe that reaped with waitpid(-1) would take this child's status away. */
static void test_children_of_others_are_left_alone(void **state)
{
	(void)state;
	struct bench bench;
	char *items[3];
	bench_begin(&bench);
	pid_t other = fork();
	if (other == 0)
		_exit(42);
	siginfo_t info = { 0 };
	waitid(P_PID, (id_t)other, &info, WEXITED | WNOWAIT);
	struct probe_config config = shell("exit 0", items);
	for (int i = 0; i < 5; i++)
		assert_true(ask(&bench, &config, 5000).passed);
	int status;
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(WEXITSTATUS(status), 42);
	bench_end(&bench);
}

/* Blocked and ignored signals of the daemon (glibc's own two, above 31, aside) must not reach the child; it has a group
 * of its own and no other fds. */
static void test_what_the_child_is_given(void **state)
{
	(void)state;
	struct bench bench;
	char *items[3];
	sigset_t blocked, before;
	bench_begin(&bench);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	signal(SIGINT, SIG_IGN);
	struct probe_config config = shell("grep -q '^SigBlk:.0*$' /proc/self/status || exit 11;"
					   "grep -q '^SigIgn:.*0000000$' /proc/self/status || exit 12;"
					   "test \"$(cut -d' ' -f5 /proc/$$/stat)\" = $$ || exit 13;"
					   "test \"$(readlink /proc/$$/fd/1)\" = /dev/null || exit 14;"
					   /* 3 is the folder that ls reads */
					   "test \"$(ls /proc/self/fd | tr '\\n' ' ')\" = '0 1 2 3 ' || exit 15",
		items);
	struct answer answer = ask(&bench, &config, 5000);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGINT, SIG_DFL);
	assert_string_equal(answer.text, "");
	assert_true(answer.passed);
	bench_end(&bench);
}

int main(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* The runner's own descriptors are not what is tested here. */
	for (int fd = 3; fd < 1024; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_cannot_run),
		cmocka_unit_test(test_timeout_kills_the_whole_group),
		cmocka_unit_test(test_what_it_leaves_behind_is_killed),
		cmocka_unit_test(test_cancel_at_every_moment),
		cmocka_unit_test(test_destroyed_while_running),
		cmocka_unit_test(test_children_of_others_are_left_alone),
		cmocka_unit_test(test_what_the_child_is_given),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
