/*
 * What of a service already runs, and its adoption: left by an earlier daemon, or started by somebody else. Looks in
 * the order of certainty, and must not signal anything.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/identify.h"
#include "driver/process.h"
#include "driver/record.h"

static bool uses_kill_file(const struct process *process)
{
	return !(process->environment->without & DRIVER_WITHOUT_CGROUP_KILL);
}

struct cgroup *process_cgroup(const struct process *process)
{
	struct cgroup *cgroup = NULL;
	if (process->without_cgroup)
		return NULL;
	if (cgroup_create(process->environment->instance, process->config->name, uses_kill_file(process), &cgroup) < 0)
		return NULL;
	return cgroup;
}

static bool is_in(const struct pid_list *list, pid_t pid)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i] == pid)
			return true;
	return false;
}

/* The first of its kind is most likely the one that the others descend from. */
static void find_oldest(const struct pid_list *list, struct proc_stat *ret_oldest)
{
	struct proc_stat stat;
	for (size_t i = 0; i < list->n; i++)
		if (proc_read_stat(list->items[i], &stat) == 0 &&
			(ret_oldest->pid == 0 || proc_is_older(&stat, ret_oldest)))
			*ret_oldest = stat;
}

/* Whom the record or the pid_file names, else who started first. */
static int choose_leader(const struct process *process, const struct pid_list *list, struct found *found)
{
	const char *pid_file = process->config->process.pid_file;
	struct proc_stat stat;
	found->stat = (struct proc_stat){ 0 };
	if (record_find(process->record_path, process->mark, &stat, &found->session) == 0 && is_in(list, stat.pid))
		found->stat = stat;
	else if (pid_file != NULL && identify_by_pid_file(pid_file, &stat, NULL) == 0 && is_in(list, stat.pid))
		found->stat = stat;
	if (found->stat.pid == 0)
		find_oldest(list, &found->stat);
	return found->stat.pid != 0 ? 0 : -ESRCH;
}

static bool find_in_cgroup(const struct process *process, struct found *found)
{
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	struct cgroup *cgroup = process_cgroup(process);
	if (cgroup == NULL)
		return false;
	int populated = cgroup_populated(cgroup);
	if (populated > 0 && cgroup_list(cgroup, &list) == 0 && list.n > 0)
		found->in_cgroup = choose_leader(process, &list, found) == 0;
	/* Left by a daemon that did not see the end; a folder in use cannot be removed. */
	if (populated == 0 && process->run == NULL)
		cgroup_remove(cgroup);
	cgroup_destroy(cgroup);
	return found->in_cgroup;
}

static struct found look(const struct process *process, bool healthy)
{
	const char *pid_file = process->config->process.pid_file;
	struct found found = { .alive = true };
	if (find_in_cgroup(process, &found))
		return found;
	if (record_find(process->record_path, process->mark, &found.stat, &found.session) == 0)
		return found;
	found = (struct found){ .alive = true };
	if (pid_file != NULL && identify_by_pid_file(pid_file, &found.stat, NULL) == 0)
		return found;
	if (healthy && identify_by_listener(process->environment, process->config, &found.stat, NULL) == 0)
		return found;
	return (struct found){ .alive = healthy };
}

static void make_group(struct run *run, const struct found *found, int pidfd)
{
	struct process *process = run->process;
	struct group_options options;
	cgroup_destroy(run->cgroup);
	run->cgroup = NULL;
	if (found->in_cgroup)
		run->cgroup = process_cgroup(process);
	else if (!process->without_cgroup)
		/* In the cgroup of a daemon that ran elsewhere, in another unit or session. */
		cgroup_create_of_process(process->environment->instance, process->config->name, uses_kill_file(process),
			found->stat.pid, &run->cgroup);
	run->session = found->session > 0                ? found->session
		: found->stat.session == found->stat.pid ? found->stat.pid
							 : 0;
	options = process_group_options(run, run->cgroup != NULL);
	if (found->session == 0)
		options.mark = NULL;
	if (group_create(&options, &run->group) < 0 || group_add(run->group, found->stat.pid, pidfd) < 0)
		run->group = group_destroy(run->group);
}

int process_take_found(struct run *run, const struct found *found)
{
	int pidfd = process_open(found->stat.pid);
	if (pidfd < 0)
		return pidfd;
	/* Checked with the descriptor in hand: from here on it is that process and no other. */
	if (!proc_is_still(found->stat.pid, found->stat.start_ticks)) {
		close(pidfd);
		return -ESRCH;
	}
	run->group = group_destroy(run->group);
	make_group(run, found, pidfd);
	if (run->group == NULL)
		return -ENOMEM;
	run->has_identity = true;
	run->main_pid = found->stat.pid;
	run->main_ended = false;
	run->stage = RUN_ALIVE;
	return 0;
}

static void answer(struct process *process, bool alive, pid_t pid)
{
	reports_add(&process->reports, REPORT_FOUND, 0, alive, pid, NULL);
}

/* What was adopted without a PID: now perhaps it has one, or it is gone. */
static void find_again(struct run *run, const struct found *found)
{
	struct process *process = run->process;
	if (found->stat.pid != 0 && !run->stopping && process_take_found(run, found) == 0) {
		answer(process, true, run->main_pid);
		return;
	}
	answer(process, found->alive, found->stat.pid);
	if (!found->alive && run->group == NULL)
		process_run_end(run, REPORT_GONE, "ended: nothing of it can be found any more");
}

void process_find(struct driver_service *service, bool healthy)
{
	struct process *process = (struct process *)service;
	struct run *run = process->run;
	if (run != NULL && run->has_identity) {
		answer(process, true, run->main_ended ? 0 : run->main_pid);
		return;
	}
	struct found found = look(process, healthy);
	if (run != NULL) {
		find_again(run, &found);
		return;
	}
	process->found = found;
	answer(process, found.alive, found.stat.pid);
}

void process_adopt(struct driver_service *service, uint64_t number, pid_t pid)
{
	struct process *process = (struct process *)service;
	if (process->run != NULL) {
		process->run->number = number;
		return;
	}
	struct run *run = process_run_create(process, number);
	if (run == NULL) {
		reports_add(&process->reports, REPORT_GONE, number, false, pid, "out of memory");
		return;
	}
	run->stage = RUN_ALIVE;
	if (pid <= 0)
		return;
	int r = pid == process->found.stat.pid ? process_take_found(run, &process->found) : -ESRCH;
	if (r == 0)
		return;
	run->cgroup = process_cgroup(process);
	process_run_end(run, REPORT_GONE, "ended before it could be watched");
}
