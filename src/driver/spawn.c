/*
 * The fork, and what the child does until it is the program.
 *
 * Other threads of the daemon may hold any lock at the moment of the fork, so the child must call nothing but
 * async-signal-safe functions: no malloc, no stdio, no name service. Users and groups are set with bare system
 * calls, since those of the C library would try to reach threads that do not exist in the child.
 */
#include "driver/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/proc.h"

#ifdef SYS_setgroups32
#define SYS_SETGROUPS SYS_setgroups32
#define SYS_SETRESGID SYS_setresgid32
#define SYS_SETRESUID SYS_setresuid32
#else
#define SYS_SETGROUPS SYS_setgroups
#define SYS_SETRESGID SYS_setresgid
#define SYS_SETRESUID SYS_setresuid
#endif

#define FDS_MAX 65536 /* marked one by one where the kernel cannot do it at once */

/* Everything the child needs, prepared by the parent. */
struct plan {
	const struct spawn_options *options;
	int input, output, result;
	int gate[2];
	bool join_cgroup; /* by itself: the kernel did not do it */
};

_Noreturn static void give_up(int result, enum spawn_step step)
{
	struct spawn_failure failure = { .step = step, .error = errno };
	ssize_t n = write(result, &failure, sizeof(failure));
	(void)n;
	_exit(127);
}

/*
 * Until it is the program the child shares the daemon's descriptors: locks among them would outlive a daemon that is
 * killed meanwhile, and keep its successor from starting.
 */
static void close_others(const struct plan *plan)
{
	int keep[] = { 2, plan->input, plan->output, plan->result, plan->gate[0], plan->options->cgroup_procs };
	size_t n = sizeof(keep) / sizeof(keep[0]);
	for (size_t i = 1; i < n; i++)
		for (size_t j = i; j > 0 && keep[j - 1] > keep[j]; j--) {
			int larger = keep[j - 1];
			keep[j - 1] = keep[j];
			keep[j] = larger;
		}
	for (size_t i = 0; i < n; i++) {
		unsigned from = (unsigned)(keep[i] < 2 ? 2 : keep[i]) + 1;
		unsigned to = i + 1 < n ? (unsigned)keep[i + 1] : UINT_MAX;
		if (i + 1 == n || keep[i + 1] > (int)from)
			syscall(SYS_close_range, from, i + 1 < n ? to - 1 : to, 0);
	}
}

/* The end of the daemon opens nothing: what it had no time to note down must not run. */
static void wait_at_gate(const int gate[2])
{
	char go;
	ssize_t n;
	close(gate[1]); /* a kernel before 5.9 has not closed it yet */
	while ((n = read(gate[0], &go, 1)) < 0 && errno == EINTR)
		continue;
	if (n != 1)
		_exit(127);
}

static void reset_signals(void)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &action, NULL);
}

static bool connect_standard(const struct plan *plan)
{
	return dup2(plan->input, 0) >= 0 && dup2(plan->output, 1) >= 0 && dup2(plan->output, 2) >= 0;
}

/* All descriptors are CLOEXEC from birth; this covers those that a library forgot. */
static void seal_descriptors(void)
{
	if (syscall(SYS_close_range, 3, UINT_MAX, CLOSE_RANGE_CLOEXEC) == 0)
		return;
	struct rlimit limit = { .rlim_cur = FDS_MAX };
	getrlimit(RLIMIT_NOFILE, &limit);
	int end = limit.rlim_cur < FDS_MAX ? (int)limit.rlim_cur : FDS_MAX;
	for (int fd = 3; fd < end; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static bool become(const struct account *account)
{
	if (!account->change)
		return true;
	return syscall(SYS_SETGROUPS, account->n_groups, account->groups) == 0 &&
		syscall(SYS_SETRESGID, account->gid, account->gid, account->gid) == 0 &&
		syscall(SYS_SETRESUID, account->uid, account->uid, account->uid) == 0;
}

_Noreturn static void run_child(const struct plan *plan)
{
	const struct command *command = plan->options->command;
	sigset_t none;
	sigemptyset(&none);
	close_others(plan);
	wait_at_gate(plan->gate);
	reset_signals();
	if (plan->join_cgroup && write(plan->options->cgroup_procs, "0", 1) != 1)
		give_up(plan->result, SPAWN_CGROUP);
	if (setsid() < 0)
		give_up(plan->result, SPAWN_SESSION);
	if (!connect_standard(plan))
		give_up(plan->result, SPAWN_FILES);
	seal_descriptors();
	umask(022);
	if (plan->options->open_files != NULL)
		setrlimit(RLIMIT_NOFILE, plan->options->open_files);
	if (!become(&command->account))
		give_up(plan->result, SPAWN_ACCOUNT);
	if (chdir(command->directory) < 0)
		give_up(plan->result, SPAWN_DIRECTORY);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(command->path, command->argv, command->environment);
	give_up(plan->result, SPAWN_EXECUTE);
}

/* As fork(), but without the C library's handlers, and with a pidfd from the first moment. */
static pid_t clone_process(int cgroup_folder, int *ret_pidfd)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (cgroup_folder >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup_folder >= 0 ? (uint64_t)cgroup_folder : 0,
	};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid > 0)
		*ret_pidfd = pidfd;
	return pid;
}

static pid_t fork_process(int *ret_pidfd)
{
	pid_t pid = fork();
	if (pid > 0)
		*ret_pidfd = process_open(pid);
	return pid;
}

/*
 * Tries the best way first: born in the cgroup; born outside and joining it; plain fork(), where a sandbox forbids
 * clone3. Returns as fork() does, in the child too.
 */
static pid_t start_child(struct plan *plan, int *ret_pidfd, bool *ret_in_cgroup)
{
	const struct spawn_options *options = plan->options;
	pid_t pid = -1;
	*ret_in_cgroup = options->cgroup_folder >= 0;
	if (options->use_clone3 && options->cgroup_folder >= 0)
		pid = clone_process(options->cgroup_folder, ret_pidfd);
	if (pid >= 0)
		return pid;
	plan->join_cgroup = options->cgroup_procs >= 0;
	*ret_in_cgroup = plan->join_cgroup;
	if (options->use_clone3)
		pid = clone_process(-1, ret_pidfd);
	return pid >= 0 ? pid : fork_process(ret_pidfd);
}

const char *spawn_remedy(int error)
{
	switch (error) {
	case EMFILE:
		return "; raise the limit of open files of gpumgrd (RLIMIT_NOFILE, LimitNOFILE=)";
	case ENFILE:
		return "; the whole machine has no file descriptor left (fs.file-max)";
	case EAGAIN:
		return "; the limit of processes is reached: raise it (RLIMIT_NPROC, pids.max of the cgroup, "
		       "TasksMax=), "
		       "or end some";
	case ENOMEM:
		return "; the machine has no memory left";
	case EROFS:
		return "; mount that file system writable";
	case ENOSPC:
		return "; make room on that file system";
	default:
		return "";
	}
}

/* Not 0, 1 or 2, which the child is about to replace, even if the daemon was started without them. */
static int above_standard(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return copy >= 0 ? copy : -errno;
}

int spawn_process(const struct spawn_options *options, struct spawned *ret_spawned, struct error *err)
{
	int ends[2], gate_ends[2];
	sigset_t all, before;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_set(err, -errno, "cannot make a pipe: %s%s", strerror(errno), spawn_remedy(errno));
	CLEANUP_CLOSE int result = ends[0], write_end = ends[1];
	if (pipe2(gate_ends, O_CLOEXEC) < 0)
		return error_set(err, -errno, "cannot make a pipe: %s%s", strerror(errno), spawn_remedy(errno));
	CLEANUP_CLOSE int gate_read = gate_ends[0], gate = gate_ends[1];
	CLEANUP_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0)
		return error_set(err, -errno, "cannot open /dev/null: %s%s", strerror(errno), spawn_remedy(errno));
	CLEANUP_CLOSE int input = above_standard(null), output = above_standard(options->output);
	CLEANUP_CLOSE int report = above_standard(write_end);
	if (input < 0 || output < 0 || report < 0)
		return error_set(err, -EMFILE, "no free file descriptor; raise the limit of open files of gpumgrd");
	struct plan plan = {
		.options = options,
		.input = input,
		.output = output,
		.result = report,
		.gate = { gate_read, gate },
	};
	CLEANUP_CLOSE int pidfd = -1;
	bool in_cgroup = false;
	/* A handler of the daemon must not run in the child, where it would write into the daemon's pipes. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t pid = start_child(&plan, &pidfd, &in_cgroup);
	if (pid == 0)
		run_child(&plan);
	int error = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return error_set(err, -error, "cannot start a process: %s%s", strerror(error), spawn_remedy(error));
	if (pidfd < 0) {
		/* Our own child, not reaped yet: the PID is still its own. */
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return error_set(err, pidfd, "cannot watch a process: %s%s", strerror(-pidfd), spawn_remedy(-pidfd));
	}
	*ret_spawned = (struct spawned){
		.pid = pid,
		.pidfd = TAKE_FD(pidfd),
		.result = TAKE_FD(result),
		.gate = TAKE_FD(gate),
		.in_cgroup = in_cgroup,
	};
	return 0;
}

void spawn_release(struct spawned *spawned, bool go)
{
	/* Into an empty pipe: it neither blocks nor falls short. A process that died meanwhile needs no leave. */
	ssize_t n = go ? write(spawned->gate, "", 1) : 0;
	(void)n;
	close(spawned->gate);
}

enum spawn_result spawn_read_result(int result, struct spawn_failure *ret_failure)
{
	ssize_t n = read(result, ret_failure, sizeof(*ret_failure));
	if (n == (ssize_t)sizeof(*ret_failure))
		return SPAWN_FAILED;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return SPAWN_UNDECIDED;
	return SPAWN_RUNS;
}

/* The interpreter of a script, from its "#!" line; "" when there is none. */
static const char *read_interpreter(const char *path, char *buffer, size_t size)
{
	char line[256];
	ssize_t n = proc_read_file(path, line, sizeof(line));
	buffer[0] = '\0';
	if (n < 3 || memcmp(line, "#!", 2) != 0)
		return buffer;
	const char *start = line + 2 + strspn(line + 2, " \t");
	size_t length = strcspn(start, " \t\r\n");
	if (start[length] == '\r')
		length++;
	if (length >= size)
		return buffer;
	memcpy(buffer, start, length);
	buffer[length] = '\0';
	return buffer;
}

static int explain_missing(const char *path, struct error *err)
{
	struct stat status;
	char interpreter[256];
	if (stat(path, &status) < 0)
		return error_set(err, -ENOENT, "command %s does not exist; correct process.command", path);
	read_interpreter(path, interpreter, sizeof(interpreter));
	size_t length = strlen(interpreter);
	if (length > 0 && interpreter[length - 1] == '\r')
		return error_set(err, -ENOENT,
			"the first line of %s ends in a carriage return; save it with Unix line ends", path);
	if (length > 0)
		return error_set(err, -ENOENT,
			"the interpreter %s, which the first line of %s names, does not exist; install it or correct "
			"that line",
			interpreter, path);
	return error_set(
		err, -ENOENT, "the dynamic loader that %s needs does not exist; it was built for another system", path);
}

static int explain_denied(const struct command *command, struct error *err)
{
	struct stat status;
	char interpreter[256];
	const char *path = command->shown;
	if (stat(path, &status) < 0)
		return error_set(err, -EACCES, "user \"%s\" may not reach command %s: a folder above it is closed",
			command->account.name, path);
	if (S_ISDIR(status.st_mode))
		return error_set(err, -EACCES, "command %s is a folder; name the program in it", path);
	if ((status.st_mode & 0111) == 0)
		return error_set(err, -EACCES, "command %s is not executable; chmod +x %s", path, path);
	if (*read_interpreter(path, interpreter, sizeof(interpreter)) != '\0' && access(interpreter, X_OK) < 0)
		return error_set(err, -EACCES,
			"the interpreter %s, which the first line of %s names, is not executable", interpreter, path);
	return error_set(err, -EACCES,
		"user \"%s\" may not execute %s; check its mode, the folders above it, and that the file system is "
		"not mounted noexec",
		command->account.name, path);
}

static int explain_execute(int error, const struct command *command, struct error *err)
{
	switch (error) {
	case ENOENT:
		return explain_missing(command->shown, err);
	case EACCES:
		return explain_denied(command, err);
	case ENOEXEC:
		return error_set(err, -error,
			"%s is not a program: give a script a first line like #!/bin/sh, or use a build for this "
			"machine",
			command->shown);
	case E2BIG:
		return error_set(err, -error, "arguments and environment of %s are too long", command->shown);
	case ETXTBSY:
		return error_set(err, -error, "%s is being written to; try again when that is done", command->shown);
	default:
		return error_set(err, -error, "cannot execute %s: %s", command->shown, strerror(error));
	}
}

static int explain_directory(int error, const struct command *command, struct error *err)
{
	const char *directory = command->directory;
	if (error == ENOENT)
		return error_set(
			err, -error, "directory %s does not exist; create it or correct process.directory", directory);
	if (error == ENOTDIR)
		return error_set(err, -error, "%s is not a directory; correct process.directory", directory);
	return error_set(err, -error, "user \"%s\" cannot enter directory %s: %s", command->account.name, directory,
		strerror(error));
}

int spawn_explain(const struct spawn_failure *failure, const struct command *command, struct error *err)
{
	int error = failure->error;
	switch (failure->step) {
	case SPAWN_EXECUTE:
		return explain_execute(error, command, err);
	case SPAWN_DIRECTORY:
		return explain_directory(error, command, err);
	case SPAWN_ACCOUNT:
		return error_set(err, -error, "cannot become user \"%s\": %s; gpumgrd needs the right to change users",
			command->account.name, strerror(error));
	case SPAWN_CGROUP:
		return error_set(err, -error, "cannot enter the cgroup of the service: %s", strerror(error));
	case SPAWN_SESSION:
	case SPAWN_FILES:
		break;
	}
	return error_set(err, -error, "cannot prepare the process: %s", strerror(error));
}
