/* Reading /proc, whatever stands in it. */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/orphans.h"

#define REST " 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 99 99"

static void test_stat_lines(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		int result;
		pid_t pid, ppid, session;
		char letter;
	} cases[] = {
		{ "12 (sh) S 1 12 12 0 -1" REST, 0, 12, 1, 12, 'S' },
		{ "12 (a b) R 7 8 9 0 -1" REST, 0, 12, 7, 9, 'R' },
		{ "12 (a) Z 1 1 1 (b) S 7 8 9 0 -1" REST, 0, 12, 7, 9, 'S' },
		{ "12 ()) Z 7 8 9 0 -1" REST, 0, 12, 7, 9, 'Z' },
		{ "12 (\n0::/x\n) S 7 8 9 0 -1" REST, 0, 12, 7, 9, 'S' },
		{ "", -EINVAL, 0, 0, 0, 0 },
		{ "12", -EINVAL, 0, 0, 0, 0 },
		{ "12 (sh)", -EINVAL, 0, 0, 0, 0 },
		{ "12 (sh) ", -EINVAL, 0, 0, 0, 0 },
		{ "12 (sh S 1 12 12 0 -1" REST, -EINVAL, 0, 0, 0, 0 },
		{ "-3 (sh) S 1 12 12 0 -1" REST, -EINVAL, 0, 0, 0, 0 },
		{ "99999999999999 (sh) S 1 12 12 0 -1" REST, -EINVAL, 0, 0, 0, 0 },
		{ "12 (sh) S 1 12 12 0 -1 0 0", -EINVAL, 0, 0, 0, 0 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct proc_stat stat = { 0 };
		assert_int_equal(proc_parse_stat(cases[i].line, &stat), cases[i].result);
		assert_int_equal(stat.pid, cases[i].pid);
		assert_int_equal(stat.ppid, cases[i].ppid);
		assert_int_equal(stat.session, cases[i].session);
		assert_int_equal(stat.state, cases[i].letter);
		assert_int_equal(stat.start_ticks, cases[i].result == 0 ? 4711 : 0);
	}
}

static void test_cgroup_lines(void **state)
{
	(void)state;
	char path[16];
	assert_int_equal(proc_parse_cgroup("0::/a/b\n", path, sizeof(path)), 0);
	assert_string_equal(path, "/a/b");
	assert_int_equal(proc_parse_cgroup("5:x:/q\n0::/a (deleted)\n", path, sizeof(path)), 0);
	assert_string_equal(path, "/a");
	assert_int_equal(proc_parse_cgroup("5:x:/q\n10::/a\n", path, sizeof(path)), -ENOENT);
	assert_int_equal(proc_parse_cgroup("", path, sizeof(path)), -ENOENT);
	assert_int_equal(proc_parse_cgroup("0::/aaaaaaaaaaaaaaaaaaaaaa\n", path, sizeof(path)), -ENAMETOOLONG);
}

/* A real process whose name tries to look like the rest of the line. */
static void test_hostile_name(void **state)
{
	(void)state;
	int ready[2];
	assert_int_equal(pipe(ready), 0);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_NAME, ") Z 1 1 1 (\n");
		(void)!write(ready[1], "x", 1);
		for (;;)
			pause();
	}
	char byte;
	assert_int_equal(read(ready[0], &byte, 1), 1);
	struct proc_stat stat;
	uid_t real, effective;
	assert_int_equal(proc_read_stat(child, &stat), 0);
	assert_int_equal(stat.pid, child);
	assert_int_equal(stat.ppid, getpid());
	assert_true(stat.state == 'S' || stat.state == 'R');
	assert_int_equal(proc_read_users(child, &real, &effective), 0);
	assert_int_equal(real, getuid());
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	double age = (double)now.tv_sec + (double)now.tv_nsec / 1e9 - proc_started_at(&stat);
	assert_true(age > -0.1 && age < 10);
	/* Of another time: not this process. */
	assert_int_equal(process_signal_exactly(child, stat.start_ticks + 1, SIGKILL), -ESRCH);
	assert_int_equal(proc_check_still(child, stat.start_ticks), 0);
	assert_int_equal(process_signal_exactly(child, stat.start_ticks, SIGKILL), 0);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	/* A zombie is not alive any more. */
	assert_int_equal(proc_read_stat(child, &stat), 0);
	assert_false(proc_is_alive(&stat));
	assert_int_equal(proc_check_still(child, stat.start_ticks), -ESRCH);
	struct pid_list children;
	assert_int_equal(proc_list_own_children(&children), 0);
	assert_int_equal(children.n, 1);
	assert_int_equal(children.items[0], child);
	pid_list_finish(&children);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(proc_read_stat(child, &stat), -ESRCH);
	assert_int_equal(proc_read_users(child, &real, &effective), -ESRCH);
	close(ready[0]);
	close(ready[1]);
}

static void test_environment_is_exact(void **state)
{
	(void)state;
	char *argv[] = { "sleep", "60", NULL }, *envp[] = { "A=12", "GPUMGR_SERVICE=tts2", NULL };
	pid_t child = fork();
	if (child == 0) {
		execve("/bin/sleep", argv, envp);
		_exit(1);
	}
	for (unsigned i = 0; i < 5000 && !proc_has_environment(child, "A=12"); i++)
		usleep(1000);
	assert_true(proc_has_environment(child, "GPUMGR_SERVICE=tts2"));
	assert_false(proc_has_environment(child, "GPUMGR_SERVICE=tts"));
	assert_false(proc_has_environment(child, "A=1"));
	char *arguments;
	size_t length;
	assert_int_equal(proc_read_arguments(child, &arguments, &length), 0);
	assert_int_equal(length, 9);
	assert_memory_equal(arguments,
		"sleep\0"
		"60",
		9);
	free(arguments);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_false(proc_has_environment(child, "A=12"));
}

/* More arguments than are read: cut, and still ended by a zero byte. */
static void test_huge_arguments(void **state)
{
	(void)state;
	char *huge = malloc(100001), *arguments;
	memset(huge, 'x', 100000);
	huge[100000] = '\0';
	char *argv[] = { "/bin/sh", "-c", "read x", huge, NULL };
	int input[2];
	assert_int_equal(pipe(input), 0);
	pid_t child = fork();
	if (child == 0) {
		dup2(input[0], 0);
		execv("/bin/sh", argv);
		_exit(1);
	}
	size_t length = 0;
	for (unsigned i = 0; i < 5000 && length < 60000; i++) {
		assert_int_equal(proc_read_arguments(child, &arguments, &length), 0);
		assert_int_equal(arguments[length], '\0');
		free(arguments);
		usleep(1000);
	}
	assert_true(length >= 60000 && length < 70000);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(input[0]);
	close(input[1]);
	free(huge);
}

/* Only what nobody has asked for during a long while is reaped. */
static void test_orphans(void **state)
{
	(void)state;
	struct orphans orphans = { 0 };
	siginfo_t info;
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	pid_t living = fork();
	if (living == 0)
		for (;;)
			pause();
	assert_int_equal(orphans_look(&orphans, 1000), 1);
	assert_int_equal(orphans_look(&orphans, 1000 + ORPHANS_AGE_MS - 1), 1);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(orphans_look(&orphans, 1000 + ORPHANS_AGE_MS), 0);
	assert_int_equal(waitpid(child, NULL, WNOHANG), -1);
	assert_int_equal(kill(living, SIGKILL), 0);
	assert_int_equal(waitpid(living, NULL, 0), living);
	assert_int_equal(orphans_look(&orphans, 90000), 0);
	orphans_finish(&orphans);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stat_lines),
		cmocka_unit_test(test_cgroup_lines),
		cmocka_unit_test(test_hostile_name),
		cmocka_unit_test(test_environment_is_exact),
		cmocka_unit_test(test_huge_arguments),
		cmocka_unit_test(test_orphans),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
