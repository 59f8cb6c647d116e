/*
 * What the files of the process driver share: process.c (the driver's face, start and end of a run), find.c (what
 * already runs, and its adoption), stop.c.
 */
#pragma once

#include "driver/cgroup.h"
#include "driver/command.h"
#include "driver/driver.h"
#include "driver/endpoint.h"
#include "driver/fd_watch.h"
#include "driver/group.h"
#include "driver/orphans.h"
#include "driver/report.h"
#include "driver/spawn.h"

#define OWNED_CACHE_SIZE 64

/* What find() saw, for the adopt() that may follow. */
struct found {
	bool alive;
	struct proc_stat stat; /* pid 0: somebody answers, nobody knows who */
	pid_t session; /* that it was started in by an earlier daemon, 0: not known */
	bool in_cgroup; /* in the folder where a start would put it */
	bool stopping; /* an earlier daemon had begun to stop it */
	bool has_record; /* that names it */
};

enum run_stage {
	RUN_STARTING, /* not known yet whether the program could be executed */
	RUN_FAILED, /* it could not; the process is on its way out */
	RUN_ALIVE,
};

struct run {
	struct process *process;
	uint64_t number;
	enum run_stage stage;
	struct cgroup *cgroup; /* NULL: none */
	/* Who belongs to it; without identity the stop_command at most. */
	struct group *group;
	bool has_identity;
	bool is_unwatched; /* adopted, but descriptors or memory to watch it with were missing: tried again */
	bool has_record; /* in the state folder */
	struct command command; /* until it is known whether it could be executed */
	struct fd_watch *result;
	char *gpu_ids;
	struct error failure;
	bool again; /* the cgroup could not be entered: start once more without */
	pid_t main_pid; /* 0: unknown */
	bool main_ended;
	struct exit_status main_status;
	pid_t session;
	bool stopping, forced;
	pid_t stop_pid; /* of the stop_command */
	int stop_result;
	struct command stop_command;
	bool stop_failed;
	struct error note; /* what is to be told at the end, "" nothing */
	uint64_t log_offset; /* where its output begins */
};

struct owned_entry {
	pid_t pid;
	uint64_t run, until_ms;
	bool owned;
};

struct process {
	struct driver_service base;
	const struct driver_environment *environment;
	const struct service_config *config;
	char *mark, *log_path, *record_path;
	struct reports reports;
	uv_timer_t tick; /* the slow look at logs and orphans */
	struct orphans orphans;
	uv_timer_t port_timer; /* after a stop_command of a service without identity */
	uint64_t port_wait_ms;
	unsigned n_open; /* handles that the loop still holds */
	bool without_cgroup;
	bool rotating; /* a thread is at it */
	struct run *run; /* `only_run`, or NULL: nothing runs that we know of */
	struct run only_run; /* in here: what runs is adopted, be there memory or not */
	struct found found;
	bool seen_absent; /* or its end was reported: who finds it alive then finds what somebody else started */
	struct owned_entry owned[OWNED_CACHE_SIZE];
};

/* process.c */
/* There is none yet. */
struct run *process_run_begin(struct process *process, uint64_t number);
/* The run is over: lets go of it, tidies up after it, and reports. */
void process_run_end(struct run *run, enum report_kind kind, const char *text);
/* Starts a process of the service; `in_cgroup` says whether into run->cgroup. */
int process_spawn(struct run *run, const struct string_list *words, bool in_cgroup, struct command *ret_command,
	struct spawned *ret_spawned, struct error *err);
/*
 * From now on these are watched, and the process may become its program. The next daemon finds the main one by its
 * record or, where that cannot be written, by its cgroup; without either it may not run. Takes pidfd and gate of
 * `spawned`; on failure the process is dead and reaped.
 */
int process_watch(struct run *run, struct spawned *spawned, bool is_main, struct error *err);
struct group_options process_group_options(struct run *run, bool in_cgroup);
/* Appends a line of the daemon's own to the log of the service. */
void process_log_note(struct process *process, const char *text);

/* find.c */
void process_find(struct driver_service *service, bool healthy);
void process_adopt(struct driver_service *service, uint64_t run, pid_t pid);
/* From now on that is watched as `run`, and on record. -ESRCH: it is gone; another error: it could not be watched now.
 */
int process_take_found(struct run *run, const struct found *found);
/* The same of what is adopted and not watched yet. -ESRCH: the run is over, and that is reported. */
int process_adopt_again(struct run *run);
struct cgroup *process_cgroup(const struct process *process);

/* stop.c */
void process_stop(struct driver_service *service, bool force);
void process_stop_command_ended(struct run *run, struct exit_status status);
/* The stop_command of a service without identity is through. */
void process_stop_continue(struct run *run);
void process_handle_port_timer(uv_timer_t *timer);
