/* Running a command under one's own feet: fork, exec, signals, job control. Knows no leases. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Leave the queue, and are passed on. */
static const int leaving[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
/* Only passed on. SIGTTIN and SIGTTOU stop the whole job by themselves. */
static const int passed_on[] = { SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGWINCH, SIGCONT, SIGTSTP, SIGIO,
	SIGPWR };

/* ---- signals ---- */

/* One that is ignored stays so, here and in CMD (nohup, a shell's background jobs). */
static void watch(struct signals *signals, int number)
{
	if (!signals->ignored[number])
		sigaddset(&signals->watched, number);
}

int signals_begin(struct signals *signals, bool sigpipe_ignored)
{
	struct sigaction action;
	*signals = (struct signals){ .fd = -1 };
	for (int i = 1; i < NSIG; i++)
		signals->ignored[i] = sigaction(i, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
	signals->ignored[SIGPIPE] = sigpipe_ignored;
	sigemptyset(&signals->watched);
	for (size_t i = 0; i < ARRAY_SIZE(leaving); i++)
		watch(signals, leaving[i]);
	/* A child's end must be known; when it is ignored there is nothing to wait for. */
	signal(SIGCHLD, SIG_DFL);
	sigaddset(&signals->watched, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals->watched, &signals->mask_before);
	signals->fd = signalfd(-1, &signals->watched, SFD_CLOEXEC | SFD_NONBLOCK);
	return signals->fd >= 0 ? 0 : -errno;
}

static void watch_all(struct signals *signals)
{
	for (size_t i = 0; i < ARRAY_SIZE(passed_on); i++)
		watch(signals, passed_on[i]);
	for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
		watch(signals, i);
	sigprocmask(SIG_BLOCK, &signals->watched, NULL);
	signalfd(signals->fd, &signals->watched, 0);
}

void signals_end(struct signals *signals)
{
	cleanup_close(&signals->fd);
	signals->fd = -1;
	sigprocmask(SIG_SETMASK, &signals->mask_before, NULL);
}

bool signals_next(const struct signals *signals, siginfo_t *ret_info)
{
	struct signalfd_siginfo info;
	if (read(signals->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return false;
	*ret_info = (siginfo_t){ 0 };
	ret_info->si_signo = (int)info.ssi_signo;
	ret_info->si_code = info.ssi_code;
	uintptr_t value = (uintptr_t)info.ssi_ptr;
	memcpy(&ret_info->si_value, &value, sizeof(value));
	return true;
}

int signals_leaving(const struct signals *signals)
{
	siginfo_t info;
	while (signals_next(signals, &info))
		if (info.si_signo != SIGCHLD)
			return info.si_signo;
	return 0;
}

/*
 * SIGTSTP and not SIGSTOP: the kernel drops it where there is no shell that could continue this program. So a return
 * from here does not mean that the child is to go on; SIGCONT, which is watched, says so.
 */
void signals_stop(const struct signals *signals)
{
	sigset_t stop;
	if (signals->ignored[SIGTSTP])
		return;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTSTP);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &stop, NULL);
	sigprocmask(SIG_BLOCK, &stop, NULL);
}

int signals_die(struct signals *signals, int number)
{
	static const struct rlimit none = { 0 };
	/* The core dump, if there is to be one, is the command's. */
	setrlimit(RLIMIT_CORE, &none);
	signals_end(signals);
	return signal_die(number);
}

int signal_die(int number)
{
	sigset_t only;
	signal(number, SIG_DFL);
	sigemptyset(&only);
	sigaddset(&only, number);
	sigprocmask(SIG_UNBLOCK, &only, NULL);
	raise(number);
	return 128 + number;
}

/* ---- finding ---- */

static int try(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EACCES;
	return access(path, X_OK) == 0 ? 0 : errno;
}

int child_look_for(const char *name)
{
	const char *path = getenv("PATH");
	int result = ENOENT;
	if (strchr(name, '/') != NULL)
		return try(name);
	if (path == NULL || name[0] == '\0')
		return name[0] == '\0' ? ENOENT : 0; /* execvp() has a path of its own */
	while (true) {
		size_t n = strcspn(path, ":");
		CLEANUP_FREE char *candidate = NULL;
		if (asprintf(&candidate, "%.*s%s%s", (int)n, path, n > 0 ? "/" : "", name) < 0) {
			candidate = NULL;
			return ENOMEM;
		}
		int r = try(candidate);
		if (r == 0)
			return 0;
		if (r == EACCES)
			result = EACCES;
		if (path[n] == '\0')
			return result;
		path += n + 1;
	}
}

/* ---- starting ---- */

/* Reads all of it; false: the other end is gone. */
static bool hear(int fd, void *what, size_t size)
{
	ssize_t n;
	do
		n = read(fd, what, size);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)size;
}

static _Noreturn void become(
	char *const *argv, int connection, const struct signals *signals, pid_t parent, int parent_fd)
{
	char go;
	int flags = connection >= 0 ? fcntl(connection, F_GETFD) : -1;
	if (flags >= 0)
		fcntl(connection, F_SETFD, flags & ~FD_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127); /* it ended before that was in force */
	if (!hear(parent_fd, &go, sizeof(go)))
		_exit(127);
	for (int i = 1; i < NSIG; i++)
		if (i == SIGPIPE || i == SIGCHLD)
			signal(i, signals->ignored[i] ? SIG_IGN : SIG_DFL);
	sigprocmask(SIG_SETMASK, &signals->mask_before, NULL);
	execvp(argv[0], argv);
	int why = errno;
	if (write(parent_fd, &why, sizeof(why)) < 0)
		_exit(126);
	_exit(127);
}

/* Lets it become the program. 0, or the errno of execvp(). */
static int let_go(int child_fd)
{
	static const char go = 1;
	int why;
	/* One that was killed meanwhile is seen by its end. */
	if (send(child_fd, &go, sizeof(go), MSG_NOSIGNAL) < 0)
		return 0;
	return hear(child_fd, &why, sizeof(why)) ? why : 0;
}

static void drop(const struct child *child)
{
	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, 0);
}

int child_start(struct child *child, char *const *argv, int connection, struct signals *signals, int *ret_why)
{
	int pair[2];
	pid_t parent = getpid();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		*ret_why = errno;
		return CHILD_NO_PROCESS;
	}
	CLEANUP_CLOSE int child_fd = pair[0];
	CLEANUP_CLOSE int parent_fd = pair[1];
	pid_t pid = fork();
	if (pid < 0) {
		*ret_why = errno;
		return CHILD_NO_PROCESS;
	}
	if (pid == 0) {
		close(TAKE_FD(child_fd));
		become(argv, connection, signals, parent, parent_fd);
	}
	*child = (struct child){ .pid = pid, .state = CHILD_RUNS };
	close(TAKE_FD(parent_fd));
	/* Of what the terminal sent before the fork, the child knows nothing; what it sends from here on, it gets. */
	*ret_why = signals_leaving(signals);
	if (*ret_why != 0) {
		drop(child);
		return CHILD_LEFT;
	}
	watch_all(signals);
	*ret_why = let_go(child_fd);
	if (*ret_why == 0)
		return CHILD_STARTED;
	waitpid(pid, NULL, 0);
	return CHILD_NO_PROGRAM;
}

/* ---- living ---- */

void child_update(struct child *child)
{
	siginfo_t info = { 0 };
	while (child->state <= CHILD_STOPPED) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG) < 0 ||
			info.si_pid == 0)
			return;
		switch (info.si_code) {
		case CLD_EXITED:
			child->state = CHILD_EXITED;
			break;
		case CLD_KILLED:
		case CLD_DUMPED:
			child->state = CHILD_KILLED;
			break;
		case CLD_STOPPED:
			child->state = CHILD_STOPPED;
			break;
		default:
			child->state = CHILD_RUNS;
			break;
		}
		child->status = info.si_status;
	}
}

static bool is_alive(const struct child *child)
{
	return child->state <= CHILD_STOPPED;
}

void child_kill(const struct child *child, int number)
{
	if (is_alive(child))
		kill(child->pid, number);
}

void child_pass_on(const struct child *child, const siginfo_t *info)
{
	if (!is_alive(child) || info->si_signo == SIGCHLD)
		return;
	if (info->si_code == SI_KERNEL && getpgid(child->pid) == getpgrp())
		return; /* from the terminal: the child has it already */
	if (info->si_code == SI_QUEUE)
		sigqueue(child->pid, info->si_signo, info->si_value);
	else
		kill(child->pid, info->si_signo);
}
