/*
 * The probe `command`: passes when the command exits with status 0. It gets a process group of its own, which is
 * killed whole when it ends, is late or is cancelled. No uv_spawn and no SIGCHLD handler: they would reap the children
 * of others.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "health/kind.h"

#define LAST_WAIT_MS 200 /* for killed children when the prober ends */

struct command_probe {
	struct probe base;
	struct child *child;
};

/* A child that is not reaped yet; it outlives its probe when that was late or cancelled. */
struct child {
	uv_poll_t poll;
	struct prober *prober;
	struct command_probe *probe; /* NULL: nobody asks any more */
	struct child *previous, *next;
	pid_t pid;
	int pidfd;
};

static void handle_child_closed(uv_handle_t *handle)
{
	free(handle->data);
}

/* After reaping (or giving up): only the memory is left to libuv. */
static void child_forget(struct child *child)
{
	if (child->next != NULL)
		child->next->previous = child->previous;
	if (child->previous != NULL)
		child->previous->next = child->next;
	else
		child->prober->children = child->next;
	uv_close((uv_handle_t *)&child->poll, handle_child_closed);
	close(child->pidfd);
}

static void describe_end(const siginfo_t *info, char *text, size_t size)
{
	if (info->si_code == CLD_EXITED && info->si_status == 127)
		snprintf(text, size, "exit status 127 (command not found?)");
	else if (info->si_code == CLD_EXITED)
		snprintf(text, size, "exit status %d", info->si_status);
	else
		snprintf(text, size, "killed by signal %d (%s)", info->si_status, strsignal(info->si_status));
}

static void handle_child_ended(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	struct child *child = poll->data;
	struct command_probe *command = child->probe;
	siginfo_t info = { 0 };
	/* What it left behind in its group goes first: its zombie keeps the number of the group from being reused. */
	kill(-child->pid, SIGKILL);
	if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0)
		return;
	child_forget(child);
	if (command == NULL)
		return;
	command->child = NULL;
	bool passed = info.si_code == CLD_EXITED && info.si_status == 0;
	if (!passed)
		describe_end(&info, command->base.text, sizeof(command->base.text));
	probe_finish(&command->base, passed, command->base.text);
}

static int open_null(posix_spawn_file_actions_t *actions)
{
	int r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, STDIN_FILENO, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, STDIN_FILENO, STDERR_FILENO);
	return r;
}

/* Every signal at its default and unblocked, in a group of its own. */
static int set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t all, none;
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_setsigdefault(attributes, &all);
	posix_spawnattr_setsigmask(attributes, &none);
	posix_spawnattr_setpgroup(attributes, 0);
	return posix_spawnattr_setflags(
		attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
}

/* Positive: errno, among them what execvp() says. */
static int spawn(const struct string_list *command, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	CLEANUP_FREE char **argv = calloc(command->n + 1, sizeof(*argv));
	if (argv == NULL)
		return ENOMEM;
	memcpy(argv, command->items, command->n * sizeof(*argv));
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	int r = open_null(&actions);
	if (r == 0)
		r = set_attributes(&attributes);
	if (r == 0)
		r = posix_spawnp(ret_pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Takes the child under watch, or kills and reaps it. */
static int watch_child(struct command_probe *command, pid_t pid)
{
	struct prober *prober = command->base.prober;
	CLEANUP_FREE struct child *child = calloc(1, sizeof(*child));
	CLEANUP_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int r = child == NULL ? -ENOMEM : pidfd < 0 ? -errno : 0;
	if (r == 0)
		r = uv_poll_init(prober->loop, &child->poll, pidfd);
	if (r < 0) {
		kill(-pid, SIGKILL);
		waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED);
		return r;
	}
	child->prober = prober;
	child->probe = command;
	child->pid = pid;
	child->pidfd = TAKE_FD(pidfd);
	child->poll.data = child;
	child->next = prober->children;
	if (child->next != NULL)
		child->next->previous = child;
	prober->children = child;
	uv_poll_start(&child->poll, UV_READABLE, handle_child_ended);
	command->child = TAKE_PTR(child);
	return 0;
}

static int command_begin(struct probe *probe, const struct probe_config *config)
{
	pid_t pid;
	if (config->command.n == 0)
		return probe_fail_early(probe, "there is no command to run");
	int r = spawn(&config->command, &pid);
	if (r == ENOMEM || r == EAGAIN)
		return -r;
	if (r != 0)
		return probe_fail_early(probe, "cannot run %s: %s", config->command.items[0], strerror(r));
	return watch_child((struct command_probe *)probe, pid);
}

static void command_release(struct probe *probe)
{
	struct command_probe *command = (struct command_probe *)probe;
	if (command->child == NULL)
		return;
	kill(-command->child->pid, SIGKILL);
	command->child->probe = NULL;
	command->child = NULL;
}

void command_probe_end(struct prober *prober)
{
	while (prober->children != NULL) {
		struct child *child = prober->children;
		struct pollfd wait = { .fd = child->pidfd, .events = POLLIN };
		poll(&wait, 1, LAST_WAIT_MS);
		kill(-child->pid, SIGKILL);
		waitid(P_PID, (id_t)child->pid, &(siginfo_t){ 0 }, WEXITED | WNOHANG);
		child_forget(child);
	}
}

static void command_describe_timeout(struct probe *probe, const char *timeout, char *text, size_t size)
{
	(void)probe;
	snprintf(text, size, "did not end within %s (killed)", timeout);
}

const struct probe_ops command_probe_ops = {
	.size = sizeof(struct command_probe),
	.begin = command_begin,
	.release = command_release,
	.describe_timeout = command_describe_timeout,
};
