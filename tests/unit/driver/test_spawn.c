/* What a new process has of the daemon before it is let go: nothing that could outlive a killed daemon. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver/spawn.h"

static unsigned count_descriptors(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *folder = opendir(path);
	assert_non_null(folder);
	while (readdir(folder) != NULL)
		n++;
	closedir(folder);
	return n - 2;
}

static void test_gate_holds_no_locks(void **state)
{
	char path[] = "/tmp/gpumgr-spawn-XXXXXX";
	char *argv[] = { (char *)"true", NULL }, *environment[] = { NULL };
	struct command command = { .path = (char *)"/bin/true", .argv = argv, .environment = environment };
	struct error err = { "" };
	struct spawned spawned;
	int lock = mkstemp(path), output = open("/dev/null", O_WRONLY | O_CLOEXEC);

	(void)state;
	command.directory = (char *)"/";
	assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
	const struct spawn_options options = {
		.command = &command, .output = output, .cgroup_folder = -1, .cgroup_procs = -1, .use_clone3 = true
	};
	assert_int_equal(spawn_process(&options, &spawned, &err), 0);
	/* standard input, output and error as they were, and the five that it needs at most */
	for (int i = 0; i < 20000 && count_descriptors(spawned.pid) > 8; i++)
		usleep(1000);
	assert_in_range(count_descriptors(spawned.pid), 1, 8);
	close(lock);
	lock = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
	spawn_release(&spawned, false);
	assert_int_equal(waitpid(spawned.pid, NULL, 0), spawned.pid);
	close(spawned.pidfd);
	close(spawned.result);
	close(lock);
	close(output);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_gate_holds_no_locks) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
