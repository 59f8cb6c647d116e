/* Where the command of `gpumgr run' begins, and where it does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/child.h"

static bool has_children(void)
{
	return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
}

/* 0: as it should be. The foreground of a terminal, where ^C is typed before there is a child. */
static int start_interrupted(void)
{
	char *argv[] = { "/bin/true", NULL };
	struct signals signals;
	struct child child;
	int why = 0;
	signal(SIGINT, SIG_DFL); /* a shell's background job has it ignored */
	if (signals_begin(&signals, false) < 0 || write(STDOUT_FILENO, "?", 1) != 1)
		return 2;
	poll(&(struct pollfd){ .fd = signals.fd, .events = POLLIN }, 1, -1);
	if (child_start(&child, argv, -1, &signals, &why) != CHILD_LEFT || why != SIGINT)
		return 3;
	return has_children() ? 4 : 0;
}

static void test_interrupt_that_the_child_cannot_know(void **state)
{
	int leader, status;
	char letter;
	(void)state;
	pid_t pid = forkpty(&leader, NULL, NULL, NULL);
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(start_interrupted());
	assert_int_equal(read(leader, &letter, 1), 1);
	assert_int_equal(write(leader, "\x03", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(leader);
}

static void test_a_program_that_is_none(void **state)
{
	char *argv[] = { "/nonexistent/program", NULL };
	struct signals signals;
	struct child child;
	int why = 0;
	(void)state;
	assert_int_equal(signals_begin(&signals, false), 0);
	assert_int_equal(child_start(&child, argv, -1, &signals, &why), CHILD_NO_PROGRAM);
	assert_int_equal(why, ENOENT);
	assert_false(has_children());
	signals_end(&signals);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interrupt_that_the_child_cannot_know),
		cmocka_unit_test(test_a_program_that_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
