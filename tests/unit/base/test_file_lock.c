/* Who holds a lock: the process that took it, its children until they let go of it, and nobody else. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file_lock.h"

static char path[64];

static int setup(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/gpumgr-test-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

static int open_file(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void test_held_by_another(void **state)
{
	(void)state;
	int first = open_file(), second = open_file();
	assert_int_equal(file_lock_take(first), 0);
	assert_int_equal(file_lock_take(second), -EWOULDBLOCK);
	close(first);
	assert_int_equal(file_lock_take(second), 0);
	close(second);
}

/* As a daemon that was killed just after it had forked, of whose child nothing has run yet. */
static void test_left_to_a_child(void **state)
{
	(void)state;
	int first = open_file(), second = open_file();
	assert_int_equal(file_lock_take(first), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		usleep(50 * 1000);
		_exit(0);
	}
	close(first);
	assert_int_equal(file_lock_take(second), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(second);
}

static void test_no_descriptor(void **state)
{
	(void)state;
	assert_int_equal(file_lock_take(-1), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_held_by_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_to_a_child, setup, teardown),
		cmocka_unit_test(test_no_descriptor),
	};
	return cmocka_run_group_tests_name("base/file_lock", tests, NULL, NULL);
}
