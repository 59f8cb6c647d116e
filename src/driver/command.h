/*
 * A command line of a service made ready to be executed: everything that needs memory, name services or the file
 * system is done here, before the fork.
 *
 * A service inherits nothing from the daemon's environment but LANG. It gets PATH, HOME, USER, LOGNAME and SHELL of
 * its user, GPUMGR_SERVICE, CUDA_VISIBLE_DEVICES (which GPUs; CUDA_DEVICE_ORDER, too, where it names them by index),
 * GPUMGR_SIM_DIR (with the simulated GPU), and then what the configuration says, which wins. A probe of it gets
 * neither GPUMGR_SERVICE nor what is about GPUs.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "config/config.h"
#include "driver/driver.h"

/* The account under which a service runs. */
struct account {
	bool change; /* the daemon must become it */
	uid_t uid;
	gid_t gid;
	size_t n_groups; /* supplementary ones; only with `change` */
	gid_t *groups;
	char *name, *home, *shell;
};

/* `user` is a name or a number, NULL: the daemon's own. -ENOENT, -EPERM (not root), ... with a message. */
int account_find(const char *user, struct account *ret_account, struct error *err);
void account_finish(struct account *account);

struct command {
	char *path; /* what is executed: with a slash, or as found in PATH */
	char *shown; /* the same for messages: absolute where possible */
	char **argv;
	char **environment;
	const char *directory; /* borrowed from the configuration */
	struct account account;
};

struct command_options {
	const struct string_list
		*words; /* `command` or `stop_command` of the service, or the command of a probe of it */
	bool shell; /* one text for /bin/sh */
	bool is_probe; /* not one of the service's processes: without the mark by which those are known */
	const char *gpu_ids; /* NULL: CUDA_VISIBLE_DEVICES is left out */
};

/* A message tells what is wrong with it. */
int command_prepare(const struct driver_environment *environment, const struct service_config *config,
	const struct command_options *options, struct command *ret_command, struct error *err);
void command_finish(struct command *command);

/* "GPUMGR_SERVICE=NAME": what marks the processes of a service. The caller frees it. */
char *command_mark(const char *service);
