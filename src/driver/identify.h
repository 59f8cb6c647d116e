/*
 * Which process is a service that this daemon did not start: by the record that an earlier daemon left, by its
 * pid_file, or by who listens on its health port. Only what is proven is named; nothing is ever guessed by name.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "driver/command.h"
#include "driver/proc.h"

/*
 * The living process that the pid_file names. It must be older than the file, or it got a recycled PID, and who
 * wrote the file must be somebody who may signal it: root, the daemon, or its own user. Who may write into the folder
 * chooses the file, be it one of root's: so the process must be of `user` too, the service's (NULL: the daemon's own,
 * or it is proven in another way who it is).
 * -ESRCH: there is none, and `err` says why.
 */
int identify_by_pid_file(const char *path, const char *user, struct proc_stat *ret_stat, struct error *err);

/*
 * The process behind the listener on the service's health port: the listener or an ancestor of it that runs under
 * the service's user and is its configured command. -ESRCH: nobody listens there that can be seen; -EPERM: somebody
 * does who is not it. `err` says who, in either case.
 */
int identify_by_listener(const struct driver_environment *environment, const struct service_config *config,
	struct proc_stat *ret_stat, struct error *err);

/* Whether the process runs the command: the same executable, and for an interpreter also the same script. */
bool identify_is_command(pid_t pid, const struct command *command);
