/*
 * Starting one process: in a session and, where given, a cgroup of its own, with standard input from /dev/null, output
 * into the log, no other descriptor, default signals, umask 022 and the right account.
 *
 * Nobody waits in here. The new process becomes the program only when spawn_release() lets it, so that the caller can
 * note down and watch it first; if the caller dies before, it ends. Whether the program could be executed is told
 * through a pipe that the caller watches.
 */
#pragma once

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"
#include "driver/command.h"

struct spawn_options {
	const struct command *command;
	int output; /* standard output and error */
	int cgroup_folder; /* -1: none */
	int cgroup_procs; /* for kernels that cannot start a process in a cgroup; -1: none */
	const struct rlimit *open_files; /* NULL: as the caller's */
	bool use_clone3; /* false in tests: as on kernels and sandboxes without it */
};

struct spawned {
	pid_t pid;
	int pidfd;
	int result; /* becomes readable: spawn_read_result() */
	int gate; /* what spawn_release() opens */
	bool in_cgroup; /* in the one that was given */
};

/* What went wrong in the new process before it became the program. */
enum spawn_step {
	SPAWN_CGROUP,
	SPAWN_SESSION,
	SPAWN_FILES,
	SPAWN_ACCOUNT,
	SPAWN_DIRECTORY,
	SPAWN_EXECUTE,
};

struct spawn_failure {
	enum spawn_step step;
	int error; /* errno */
};

/*
 * 0: the caller owns all descriptors, must release the process, and must reap it. Negative errno with a message:
 * nothing was started.
 */
int spawn_process(const struct spawn_options *options, struct spawned *ret_spawned, struct error *err);

/* Closes the gate's descriptor. Without `go` the process ends. */
void spawn_release(struct spawned *spawned, bool go);

enum spawn_result { SPAWN_RUNS, SPAWN_FAILED, SPAWN_UNDECIDED };
enum spawn_result spawn_read_result(int result, struct spawn_failure *ret_failure);

/* Says in words what failed and what would help; returns a negative errno. */
int spawn_explain(const struct spawn_failure *failure, const struct command *command, struct error *err);

/* What helps against an error of the system that is about its limits: "; raise ...", or "". */
const char *spawn_remedy(int error);
