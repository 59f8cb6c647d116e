/*
 * The probe `command`: passes when the command exits with status 0. It runs as the service does (user, folder,
 * environment), in a session of its own, whose first process group is killed whole when it ends, is late or is
 * cancelled. No uv_spawn and no SIGCHLD handler: they would reap the children of others.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/spawn.h"
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
	int result; /* of its execution */
	char *path; /* what was to be executed */
};

static void handle_child_closed(uv_handle_t *handle)
{
	struct child *child = handle->data;
	free(child->path);
	free(child);
}

/* Not reaped yet, so the number is its own; in its first moments it has no group of that number. */
static void kill_all(pid_t pid)
{
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
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
	close(child->result);
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

static void describe_failure(const struct child *child, const struct spawn_failure *failure, char *text, size_t size)
{
	const char *what = failure->step == SPAWN_EXECUTE ? "cannot run"
		: failure->step == SPAWN_DIRECTORY        ? "cannot enter process.directory for"
		: failure->step == SPAWN_ACCOUNT          ? "cannot become process.user for"
							  : "cannot prepare a process for";
	snprintf(text, size, "%s %.200s: %s", what, child->path, strerror(failure->error));
}

/* Whether the command passed; `text` says why not. */
static bool judge(const struct child *child, const siginfo_t *info, struct probe *probe)
{
	struct spawn_failure failure;
	probe->text[0] = '\0';
	if (spawn_read_result(child->result, &failure) == SPAWN_FAILED) {
		describe_failure(child, &failure, probe->text, sizeof(probe->text));
		probe_clean_text(probe->text);
		return false;
	}
	if (info->si_code == CLD_EXITED)
		probe->exit_status = info->si_status;
	if (probe->exit_status != 0)
		describe_end(info, probe->text, sizeof(probe->text));
	return probe->exit_status == 0;
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
	bool passed = command != NULL && judge(child, &info, &command->base);
	child_forget(child);
	if (command == NULL)
		return;
	command->child = NULL;
	probe_finish(&command->base, passed, command->base.text);
}

static int spawn(const struct probe_runner *runner, struct spawned *ret_spawned, struct error *err)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null < 0)
		return error_set(err, -errno, "cannot open /dev/null: %s", strerror(errno));
	const struct spawn_options options = {
		.command = runner->command,
		.output = null,
		.cgroup_folder = -1,
		.cgroup_procs = -1,
		.open_files = runner->open_files,
		.use_clone3 = true,
	};
	return spawn_process(&options, ret_spawned, err);
}

static void start_watching(struct command_probe *command, struct child *child)
{
	struct prober *prober = command->base.prober;
	child->prober = prober;
	child->probe = command;
	child->poll.data = child;
	child->next = prober->children;
	if (child->next != NULL)
		child->next->previous = child;
	prober->children = child;
	uv_poll_start(&child->poll, UV_READABLE, handle_child_ended);
	command->child = child;
}

/* Takes the child under watch, or kills and reaps it. */
static int watch_child(struct command_probe *command, const struct probe_runner *runner, struct spawned *spawned)
{
	CLEANUP_FREE struct child *child = calloc(1, sizeof(*child));
	CLEANUP_FREE char *path = strdup(runner->command->path);
	int r = child == NULL || path == NULL ? -ENOMEM : 0;
	if (r == 0)
		r = uv_poll_init(command->base.prober->loop, &child->poll, spawned->pidfd);
	spawn_release(spawned, r == 0);
	if (r < 0) {
		kill_all(spawned->pid);
		waitid(P_PID, (id_t)spawned->pid, &(siginfo_t){ 0 }, WEXITED);
		close(spawned->pidfd);
		close(spawned->result);
		return r;
	}
	child->pid = spawned->pid;
	child->pidfd = spawned->pidfd;
	child->result = spawned->result;
	child->path = TAKE_PTR(path);
	start_watching(command, TAKE_PTR(child));
	return 0;
}

static int command_begin(struct probe *probe, const struct probe_config *config, const struct probe_runner *runner)
{
	struct spawned spawned;
	struct error err = { "" };
	if (config->command.n == 0)
		return probe_fail_early(probe, "there is no command to run");
	int r = spawn(runner, &spawned, &err);
	if (r == -ENOMEM || r == -EAGAIN || r == -EMFILE)
		return r;
	if (r < 0)
		return probe_fail_early(probe, "%s", err.message);
	return watch_child((struct command_probe *)probe, runner, &spawned);
}

static void command_release(struct probe *probe)
{
	struct command_probe *command = (struct command_probe *)probe;
	if (command->child == NULL)
		return;
	kill_all(command->child->pid);
	command->child->probe = NULL;
	command->child = NULL;
}

void command_probe_end(struct prober *prober)
{
	while (prober->children != NULL) {
		struct child *child = prober->children;
		struct pollfd wait = { .fd = child->pidfd, .events = POLLIN };
		poll(&wait, 1, LAST_WAIT_MS);
		kill_all(child->pid);
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
