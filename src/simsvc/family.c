/* Forks of the stand-in service. Helpers keep only the standard streams open and do nothing but exist. */
#include "simsvc/family.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HELPER_SECONDS 600
#define HELPER_FDS 16 /* more are not open when helpers start */

/* The process that was called: its status is that of the start. */
static __attribute__((noreturn)) void wait_for_report(int fd, pid_t child)
{
	char byte;
	ssize_t n;
	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	waitpid(child, NULL, 0);
	_exit(n == 1 ? 0 : 1);
}

int family_detach(bool keep_session)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t child = fork();
	if (child < 0) {
		int r = -errno;
		close(ends[0]);
		close(ends[1]);
		return r;
	}
	if (child > 0) {
		close(ends[1]);
		wait_for_report(ends[0], child);
	}
	close(ends[0]);
	if (!keep_session)
		setsid();
	pid_t grandchild = fork();
	if (grandchild != 0)
		_exit(grandchild < 0 ? 1 : 0);
	return ends[1];
}

void family_report(int report_fd)
{
	if (report_fd < 0)
		return;
	ssize_t ignored = write(report_fd, "", 1);
	(void)ignored;
	close(report_fd);
}

static __attribute__((noreturn)) void help(bool is_deaf, bool own_session)
{
	sigset_t none;
	sigemptyset(&none);
	signal(SIGTERM, is_deaf ? SIG_IGN : SIG_DFL);
	if (own_session)
		setsid();
	prctl(PR_SET_NAME, "simsvc-helper");
	for (int fd = STDERR_FILENO + 1; fd < HELPER_FDS; fd++)
		close(fd);
	alarm(HELPER_SECONDS);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (;;)
		pause();
}

/* Each helper holds the pipe open until it is what it shall be. */
static void wait_for_helpers(int fd)
{
	char byte;
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		;
}

int family_start_helpers(const struct options *options)
{
	uint64_t n = options->n_children + (options->new_session_child ? 1 : 0);
	int ends[2];
	if (n == 0)
		return 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	CLEANUP_CLOSE int ready = ends[0];
	CLEANUP_CLOSE int held = ends[1];
	for (uint64_t i = 0; i < n; i++) {
		bool own_session = i == options->n_children;
		pid_t pid = fork();
		if (pid < 0)
			return -errno;
		if (pid == 0)
			help(options->children_deaf && !own_session, own_session);
	}
	close(TAKE_FD(held));
	wait_for_helpers(ready);
	return 0;
}
