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

static bool take_record(const struct process *process, struct found *found)
{
	struct record_trace trace;
	if (record_find(process->record_path, process->mark, &trace) < 0)
		return false;
	found->stat = trace.stat;
	found->session = trace.session;
	found->stopping = trace.stopping;
	found->has_record = true;
	return true;
}

/* Whom the record or the pid_file names, else who started first. */
static int choose_leader(const struct process *process, const struct pid_list *list, struct found *found)
{
	const char *pid_file = process->config->process.pid_file;
	struct proc_stat stat;
	found->stat = (struct proc_stat){ 0 };
	if (take_record(process, found) && is_in(list, found->stat.pid))
		return 0;
	found->stat = (struct proc_stat){ 0 };
	found->has_record = false;
	if (pid_file != NULL && identify_by_pid_file(pid_file, NULL, &stat, NULL) == 0 && is_in(list, stat.pid))
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
	const struct process_config *config = &process->config->process;
	const char *pid_file = config->pid_file;
	struct found found = { .alive = true };
	if (find_in_cgroup(process, &found))
		return found;
	if (take_record(process, &found))
		return found;
	found = (struct found){ .alive = true };
	if (pid_file != NULL && identify_by_pid_file(pid_file, config->user, &found.stat, NULL) == 0)
		return found;
	if (healthy && identify_by_listener(process->environment, process->config, &found.stat, NULL) == 0)
		return found;
	return (struct found){ .alive = healthy };
}

/* Where it was found; or the cgroup of a daemon that ran elsewhere, in another unit or session. */
static int take_cgroup(struct run *run, const struct found *found)
{
	struct process *process = run->process;
	run->cgroup = cgroup_destroy(run->cgroup);
	if (found->in_cgroup) {
		run->cgroup = process_cgroup(process);
		return run->cgroup != NULL ? 0 : -EAGAIN;
	}
	if (process->without_cgroup)
		return 0;
	int r = cgroup_create_of_process(process->environment->instance, process->config->name, uses_kill_file(process),
		found->stat.pid, &run->cgroup);
	return r == -ENOENT || r == -ENOTSUP ? 0 : r;
}

/* Takes `pidfd` in any case. */
static int make_group(struct run *run, const struct found *found, int pidfd)
{
	struct group_options options;
	CLEANUP_CLOSE int owned = pidfd;
	int r = take_cgroup(run, found);
	if (r < 0)
		return r;
	run->session = found->session > 0                ? found->session
		: found->stat.session == found->stat.pid ? found->stat.pid
							 : 0;
	options = process_group_options(run, run->cgroup != NULL);
	if (found->session == 0)
		options.mark = NULL;
	r = group_create(&options, &run->group);
	if (r == 0)
		r = group_add(run->group, found->stat.pid, TAKE_FD(owned));
	if (r < 0)
		run->group = group_destroy(run->group);
	return r;
}

/* So that a stop of it is finished by whoever comes after us. It was started in no session of ours. */
static void note_found(const struct run *run, const struct found *found)
{
	const char *path = run->process->record_path;
	if (!found->has_record)
		record_write(path, found->stat.pid, found->session);
	if (run->stopping)
		record_note_stop(path);
}

int process_take_found(struct run *run, const struct found *found)
{
	int pidfd = process_open(found->stat.pid);
	if (pidfd < 0)
		return pidfd;
	/* Checked with the descriptor in hand: from here on it is that process and no other. */
	int r = proc_check_still(found->stat.pid, found->stat.start_ticks);
	if (r < 0) {
		close(pidfd);
		return r;
	}
	run->group = group_destroy(run->group);
	r = make_group(run, found, pidfd);
	if (r < 0)
		return r;
	run->has_identity = true;
	run->is_unwatched = false;
	run->main_pid = found->stat.pid;
	run->main_ended = false;
	run->stage = RUN_ALIVE;
	note_found(run, found);
	return 0;
}

static void answer(struct process *process, const struct found *found)
{
	bool alive = found->alive;
	bool external = alive && process->run == NULL && process->seen_absent;
	if (process->run == NULL && !alive)
		process->seen_absent = true;
	reports_push(&process->reports,
		&(struct report){
			.kind = REPORT_FOUND,
			.alive = alive,
			.pid = found->stat.pid,
			.external = external,
			.stopping = found->stopping,
		});
}

/* What was adopted without a PID: now perhaps it has one, or it is gone. */
static void find_again(struct run *run, const struct found *found)
{
	struct process *process = run->process;
	if (found->stat.pid != 0 && !run->stopping && process_take_found(run, found) == 0) {
		answer(process, &(struct found){ .alive = true, .stat.pid = run->main_pid });
		return;
	}
	answer(process, &(struct found){ .alive = found->alive, .stat.pid = found->stat.pid });
	if (!found->alive && run->group == NULL)
		process_run_end(run, REPORT_GONE, "ended: nothing of it can be found any more");
}

int process_adopt_again(struct run *run)
{
	struct process *process = run->process;
	int r = run->main_pid == process->found.stat.pid ? process_take_found(run, &process->found) : -ESRCH;
	run->is_unwatched = r < 0;
	if (r == -ESRCH) {
		if (run->cgroup == NULL)
			run->cgroup = process_cgroup(process);
		process_run_end(run, REPORT_GONE, "ended before it could be watched");
	}
	return r;
}

void process_find(struct driver_service *service, bool healthy)
{
	struct process *process = (struct process *)service;
	if (process->run != NULL && process->run->is_unwatched)
		process_adopt_again(process->run);
	struct run *run = process->run;
	if (run != NULL && (run->has_identity || run->is_unwatched)) {
		answer(process, &(struct found){ .alive = true, .stat.pid = run->main_ended ? 0 : run->main_pid });
		return;
	}
	struct found found = look(process, healthy);
	if (run != NULL) {
		find_again(run, &found);
		return;
	}
	process->found = found;
	answer(process, &found);
}

void process_adopt(struct driver_service *service, uint64_t number, pid_t pid)
{
	struct process *process = (struct process *)service;
	if (process->run != NULL) {
		process->run->number = number;
		return;
	}
	struct run *run = process_run_begin(process, number);
	run->stage = RUN_ALIVE;
	run->main_pid = pid;
	if (pid > 0)
		process_adopt_again(run);
}
