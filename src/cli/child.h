/*
 * The command of `gpumgr run', and the signals around it.
 *
 * CMD stays in the process group of `gpumgr run', as with env(1) and flock(1): it is in the foreground when run is,
 * reads the terminal, and gets what the terminal sends (^C, ^\, ^Z) at the same moment. What is sent to `run' alone is
 * passed on. CMD dies with `run' (SIGKILL), and has inherited the connection that the lease hangs on: so the lease
 * lasts as long as anything of CMD that has it open.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

/* What was in force when the program began; CMD gets it back. */
struct signals {
	sigset_t mask_before;
	bool ignored[NSIG];
	sigset_t watched; /* blocked, and read from `fd' */
	int fd;
};

/* Watches those that leave the queue. 0 or a negative errno. `sigpipe_ignored`: whether it was before this program. */
int signals_begin(struct signals *signals, bool sigpipe_ignored);
void signals_end(struct signals *signals);
/* The next one that came; false: none. */
bool signals_next(const struct signals *signals, siginfo_t *ret_info);
/* The next one that leaves the queue, while no child runs; 0: none came. */
int signals_leaving(const struct signals *signals);
/* Stops this program as its child was stopped, where a shell can continue it. */
void signals_stop(const struct signals *signals);
/* Ends this program as one that the signal ends. Returns the exit status for a signal that does not, or for PID 1. */
int signals_die(struct signals *signals, int number);
/* The same for a program that watches none. */
int signal_die(int number);

enum child_state {
	CHILD_RUNS,
	CHILD_STOPPED,
	CHILD_EXITED, /* with `status` */
	CHILD_KILLED, /* by the signal `status` */
};

struct child {
	pid_t pid;
	enum child_state state;
	int status;
};

/* 0 when there is such a program, else why not: ENOENT, EACCES, ... */
int child_look_for(const char *name);

enum child_outcome {
	CHILD_STARTED,
	CHILD_LEFT, /* it was not: this signal came first */
	CHILD_NO_PROCESS, /* errno of fork() */
	CHILD_NO_PROGRAM, /* errno of execvp() */
};

/*
 * Starts argv[0] as execvp() does; from then on all signals that a running CMD is to get are watched. `connection` is
 * left open for it; -1: none. An outcome; `ret_why` has its signal or errno.
 */
int child_start(struct child *child, char *const *argv, int connection, struct signals *signals, int *ret_why);
/* Takes note of what became of it. */
void child_update(struct child *child);
/* Passes a signal on, unless the terminal has sent it to the child as well. */
void child_pass_on(const struct child *child, const siginfo_t *info);
void child_kill(const struct child *child, int number);
