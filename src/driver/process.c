/*
 * The driver for native processes: start, watch, report. It decides nothing; it must not block the loop, wait for just
 * any child, or signal anything but the group of a run.
 */
#include "driver/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log_file.h"
#include "driver/identify.h"
#include "driver/record.h"

#define TICK_MS 10000
#define HURRY_MS 1000 /* after a start, and as long as a log outgrows its size between two ticks */
#define WORDS_OF_THE_END 5
#define OWNED_CACHE_MS 1000

static void free_process(struct process *process)
{
	free(process->mark);
	free(process->log_path);
	free(process->record_path);
	orphans_finish(&process->orphans);
	free(process);
}

static void release(struct process *process)
{
	if (--process->n_open == 0)
		free_process(process);
}

static void handle_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

static void handle_reports_closed(struct reports *reports)
{
	release((struct process *)((char *)reports - offsetof(struct process, reports)));
}

/* A rotation under way in a thread, for it waits for the disk. */
struct rotation {
	uv_work_t work;
	struct process *process;
	char *path;
	uint64_t limit, run, removed;
};

static void rotate_in_thread(uv_work_t *work)
{
	struct rotation *rotation = work->data;
	log_file_rotate(rotation->path, rotation->limit, &rotation->removed);
}

static void handle_rotated(uv_work_t *work, int status)
{
	struct rotation *rotation = work->data;
	struct process *process = rotation->process;
	struct run *run = process->run;
	(void)status;
	process->rotating = false;
	if (run != NULL && run->number == rotation->run)
		run->log_offset -= run->log_offset < rotation->removed ? run->log_offset : rotation->removed;
	free(rotation->path);
	free(rotation);
	release(process);
}

/* Whether the log is larger than it should be. */
static bool rotate_running(struct process *process)
{
	uint64_t limit = process->config->process.log_size;
	if (limit == 0 || log_file_size(process->log_path) <= limit)
		return false;
	struct rotation *rotation = process->rotating ? NULL : calloc(1, sizeof(*rotation));
	if (rotation == NULL)
		return true;
	*rotation = (struct rotation){
		.process = process,
		.path = strdup(process->log_path),
		.limit = limit,
		.run = process->run != NULL ? process->run->number : 0,
	};
	rotation->work.data = rotation;
	if (rotation->path == NULL ||
		uv_queue_work(process->environment->loop, &rotation->work, rotate_in_thread, handle_rotated) < 0) {
		free(rotation->path);
		free(rotation);
		return true;
	}
	process->rotating = true;
	process->n_open++;
	return true;
}

/* Between two runs, when nobody writes. */
static void rotate_idle(struct process *process)
{
	if (!process->rotating && process->config->process.log_size > 0)
		log_file_rotate_idle(process->log_path, process->config->process.log_size);
}

static void start_tick(struct process *process, uint64_t interval);

/* Goes on after the end of a run until nothing is left to look after. */
static void handle_tick(uv_timer_t *timer)
{
	struct process *process = timer->data;
	bool in_a_hurry = rotate_running(process);
	if (process->run != NULL && process->run->is_unwatched)
		process_adopt_again(process->run);
	in_a_hurry |= process->run != NULL && process->run->is_unwatched;
	if (orphans_look(&process->orphans, uv_now(timer->loop)) > 0 || process->run != NULL)
		start_tick(process, in_a_hurry ? HURRY_MS : TICK_MS);
	if (process->run != NULL && process->run->group != NULL)
		group_check(process->run->group);
}

/* Aligned, so that the ticks of all services share one wake-up. */
static void start_tick(struct process *process, uint64_t interval)
{
	uint64_t now = uv_now(process->environment->loop);
	if (process->environment->tick_ms > 0)
		interval = process->environment->tick_ms;
	uv_timer_start(&process->tick, handle_tick, interval - now % interval, 0);
	uv_unref((uv_handle_t *)&process->tick);
}

void process_log_note(struct process *process, const char *text)
{
	struct error err;
	CLEANUP_CLOSE int fd = log_file_open(process->log_path, &err);
	if (fd >= 0)
		dprintf(fd, "gpumgrd: %s\n", text);
}

struct run *process_run_begin(struct process *process, uint64_t number)
{
	process->run = &process->only_run;
	*process->run = (struct run){
		.process = process,
		.number = number,
		.stop_result = -1,
		.log_offset = log_file_size(process->log_path),
	};
	start_tick(process, HURRY_MS);
	return process->run;
}

/* Lets go of everything, touches no process. */
static void finish_run(struct run *run)
{
	run->process->run = NULL;
	uv_timer_stop(&run->process->port_timer);
	fd_watch_destroy(run->result);
	group_destroy(run->group);
	cgroup_destroy(run->cgroup);
	command_finish(&run->command);
	command_finish(&run->stop_command);
	if (run->stop_result >= 0)
		close(run->stop_result);
	free(run->gpu_ids);
}

void process_run_end(struct run *run, enum report_kind kind, const char *text)
{
	struct process *process = run->process;
	process->seen_absent = true;
	reports_add(&process->reports, kind, run->number, false, run->main_pid, text);
	if (run->cgroup != NULL)
		cgroup_remove(run->cgroup);
	/* Else what is there speaks of others. */
	if (run->has_record || run->stage == RUN_ALIVE)
		record_remove(process->record_path);
	rotate_idle(process);
	finish_run(run);
}

/* What happened, and, unless it was asked to end, the last it had to say. The caller frees it. */
static char *describe_end(struct run *run, const char *what)
{
	char status[96];
	char *text = NULL;
	CLEANUP_FREE char *words = NULL;
	exit_status_text(run->main_status, status, sizeof(status));
	if (!run->stopping)
		words = log_file_last_words(run->process->log_path, run->log_offset, WORDS_OF_THE_END);
	bool has_words = words != NULL && *words != '\0';
	if (asprintf(&text, "%s%s%s%s%s%s", status, what, run->note.message[0] != '\0' ? "; " : "", run->note.message,
		    has_words ? "; its log ends with:\n" : "", has_words ? words : "") < 0)
		return NULL;
	return text;
}

/* Type forking: the command is done, what it left in the background is the service. */
static void choose_main(struct run *run)
{
	struct process *process = run->process;
	const char *pid_file = process->config->process.pid_file;
	struct proc_stat stat = { 0 };
	if (pid_file == NULL || identify_by_pid_file(pid_file, NULL, &stat, NULL) < 0 ||
		!group_owns(run->group, stat.pid))
		stat.pid = group_first(run->group);
	int pidfd = stat.pid > 0 ? process_open(stat.pid) : -ESRCH;
	if (pidfd < 0 || group_add(run->group, stat.pid, pidfd) < 0)
		return;
	run->main_pid = stat.pid;
	run->main_ended = false;
	record_write(process->record_path, stat.pid, run->session);
	reports_add(&process->reports, REPORT_MAIN_PID, run->number, true, stat.pid, NULL);
}

static void handle_main_ended(struct run *run)
{
	struct process *process = run->process;
	if (run->stopping || !group_is_alive(run->group))
		return;
	if (process->config->process.type == PROCESS_FORKING) {
		choose_main(run);
		return;
	}
	CLEANUP_FREE char *text = describe_end(run,
		" while other processes of it live on; if the command puts itself into the background, set "
		"process.type: forking");
	reports_add(&process->reports, REPORT_LEADER_ENDED, run->number, true, run->main_pid, text);
}

static void report_started(struct run *run)
{
	struct process *process = run->process;
	run->stage = RUN_ALIVE;
	command_finish(&run->command);
	reports_add(&process->reports, REPORT_STARTED, run->number, true, run->main_pid, NULL);
}

/* The new process has become the program, or has said why not. */
static void handle_result(void *context)
{
	struct run *run = context;
	struct spawn_failure failure;
	if (run->stage != RUN_STARTING || run->result == NULL)
		return;
	enum spawn_result result = spawn_read_result(fd_watch_fd(run->result), &failure);
	if (result == SPAWN_UNDECIDED && !run->main_ended)
		return;
	run->result = fd_watch_destroy(run->result);
	if (result != SPAWN_FAILED) {
		report_started(run);
		return;
	}
	run->stage = RUN_FAILED;
	run->again = failure.step == SPAWN_CGROUP && !run->stopping;
	spawn_explain(&failure, &run->command, &run->failure);
}

static void handle_ended(void *context, pid_t pid, struct exit_status status)
{
	struct run *run = context;
	if (pid == run->stop_pid) {
		process_stop_command_ended(run, status);
		return;
	}
	if (pid != run->main_pid)
		return;
	run->main_ended = true;
	run->main_status = status;
	if (run->result != NULL)
		handle_result(run);
	if (run->stage == RUN_ALIVE)
		handle_main_ended(run);
}

static int start_main(struct run *run, struct error *err);

static void start_again(struct run *run)
{
	struct error err = { "out of memory" };
	run->process->without_cgroup = true;
	run->group = group_destroy(run->group);
	cgroup_remove(run->cgroup);
	run->cgroup = cgroup_destroy(run->cgroup);
	run->result = fd_watch_destroy(run->result);
	command_finish(&run->command);
	run->again = run->main_ended = false;
	run->stage = RUN_STARTING;
	if (start_main(run, &err) < 0)
		process_run_end(run, REPORT_START_FAILED, err.message);
}

static void handle_empty(void *context)
{
	struct run *run = context;
	if (!run->has_identity) {
		process_stop_continue(run);
	} else if (run->again && !run->stopping) {
		start_again(run);
	} else if (run->stage == RUN_FAILED) {
		process_run_end(run, REPORT_START_FAILED, run->failure.message);
	} else {
		CLEANUP_FREE char *text = describe_end(run, "");
		process_run_end(run, REPORT_GONE, text);
	}
}

struct group_options process_group_options(struct run *run, bool in_cgroup)
{
	return (struct group_options){
		.loop = run->process->environment->loop,
		.cgroup = in_cgroup ? run->cgroup : NULL,
		.mark = run->process->mark,
		.session = run->session,
		.listener = { .context = run, .handle_ended = handle_ended, .handle_empty = handle_empty },
	};
}

static int open_cgroup(const struct run *run, bool in_cgroup, int *ret_folder, int *ret_procs)
{
	*ret_folder = *ret_procs = -1;
	if (!in_cgroup || run->cgroup == NULL)
		return 0;
	*ret_folder = cgroup_open_folder(run->cgroup);
	*ret_procs = cgroup_open_procs(run->cgroup);
	return *ret_folder < 0 ? *ret_folder : *ret_procs < 0 ? *ret_procs : 0;
}

int process_spawn(struct run *run, const struct string_list *words, bool in_cgroup, struct command *ret_command,
	struct spawned *ret_spawned, struct error *err)
{
	struct process *process = run->process;
	CLEANUP(command_finish) struct command command = { 0 };
	const struct command_options wanted = {
		.words = words,
		.shell = process->config->process.shell,
		.gpu_ids = run->gpu_ids,
	};
	int r = command_prepare(process->environment, process->config, &wanted, &command, err);
	if (r < 0)
		return r;
	CLEANUP_CLOSE int output = log_file_open(process->log_path, err);
	if (output < 0)
		return output;
	CLEANUP_CLOSE int folder = -1;
	CLEANUP_CLOSE int procs = -1;
	r = open_cgroup(run, in_cgroup, &folder, &procs);
	if (r < 0)
		return error_set(err, r, "cannot open the cgroup of the service: %s%s", strerror(-r), spawn_remedy(-r));
	struct spawn_options options = {
		.command = &command,
		.output = output,
		.cgroup_folder = folder,
		.cgroup_procs = procs,
		.open_files = process->environment->open_files,
		.use_clone3 = !(process->environment->without & DRIVER_WITHOUT_CLONE3),
	};
	r = spawn_process(&options, ret_spawned, err);
	if (r < 0)
		return r;
	*ret_command = command;
	command = (struct command){ 0 };
	return 0;
}

/* Before it is the program: whenever the daemon dies, no service is left that the next one cannot find. */
static int note_main(struct run *run, const struct spawned *spawned, struct error *err)
{
	const struct process *process = run->process;
	int r = record_write(process->record_path, spawned->pid, spawned->pid);
	run->has_record = r == 0;
	run->main_pid = run->session = spawned->pid;
	if (r == 0 || spawned->in_cgroup)
		return 0;
	return error_set(err, r, "cannot write %s, by which the next gpumgrd would find the service: %s%s",
		process->record_path, strerror(-r), spawn_remedy(-r));
}

static int watch(struct run *run, struct spawned *spawned, struct error *err)
{
	int r = 0;
	CLEANUP_CLOSE int pidfd = TAKE_FD(spawned->pidfd);
	if (run->group == NULL) {
		struct group_options options = process_group_options(run, spawned->in_cgroup);
		r = group_create(&options, &run->group);
	}
	if (r == 0)
		r = group_add(run->group, spawned->pid, TAKE_FD(pidfd));
	if (r < 0)
		error_set(err, r, "cannot watch the new process: %s%s", strerror(-r), spawn_remedy(-r));
	return r;
}

int process_watch(struct run *run, struct spawned *spawned, bool is_main, struct error *err)
{
	int r = is_main ? note_main(run, spawned, err) : 0;
	if (r == 0)
		r = watch(run, spawned, err);
	else
		close(spawned->pidfd);
	spawn_release(spawned, r == 0);
	/* Our own child, not reaped yet: the PID is still its own. */
	if (r < 0) {
		kill(spawned->pid, SIGKILL);
		waitpid(spawned->pid, NULL, 0);
	}
	return r;
}

/* Without a folder that can be written, the service runs without one. */
static void make_cgroup(struct run *run)
{
	run->cgroup = process_cgroup(run->process);
	if (run->cgroup != NULL && cgroup_make(run->cgroup) < 0)
		run->cgroup = cgroup_destroy(run->cgroup);
}

static int start_main(struct run *run, struct error *err)
{
	struct spawned spawned = { .pidfd = -1 };
	make_cgroup(run);
	int r = run->cgroup != NULL ? cgroup_populated(run->cgroup) : 0;
	if (r > 0)
		return error_set(err, -EBUSY, "processes of an earlier run are still alive; stop the service first");
	if (r < 0)
		return error_set(err, r, "cannot tell whether processes of an earlier run are still alive: %s%s",
			strerror(-r), spawn_remedy(-r));
	r = process_spawn(run, &run->process->config->process.command, true, &run->command, &spawned, err);
	if (r < 0)
		return r;
	run->has_identity = true;
	r = process_watch(run, &spawned, true, err);
	if (r < 0) {
		close(spawned.result);
		return r;
	}
	r = fd_watch_create(
		run->process->environment->loop, spawned.result, UV_READABLE, handle_result, run, &run->result);
	if (r < 0) {
		group_kill(run->group);
		waitpid(run->main_pid, NULL, 0);
		return error_set(err, r, "cannot watch the new process: %s%s", strerror(-r), spawn_remedy(-r));
	}
	return 0;
}

static void process_start(struct driver_service *service, uint64_t number, const char *gpu_ids)
{
	struct process *process = (struct process *)service;
	struct error err = { "out of memory" };
	if (process->run != NULL) {
		reports_add(&process->reports, REPORT_START_FAILED, number, false, 0, "it runs already");
		return;
	}
	rotate_idle(process);
	struct run *run = process_run_begin(process, number);
	run->gpu_ids = gpu_ids != NULL ? strdup(gpu_ids) : NULL;
	if (gpu_ids != NULL && run->gpu_ids == NULL)
		process_run_end(run, REPORT_START_FAILED, err.message);
	else if (start_main(run, &err) < 0)
		process_run_end(run, REPORT_START_FAILED, err.message);
}

/* A PID is not given out again so soon that the answer of a second ago could be about another process. */
static bool process_owns(struct driver_service *service, pid_t pid)
{
	struct process *process = (struct process *)service;
	struct run *run = process->run;
	if (run == NULL || run->group == NULL || !run->has_identity || pid <= 0)
		return false;
	if (pid == run->main_pid && !run->main_ended)
		return true;
	uint64_t now = uv_now(process->environment->loop);
	struct owned_entry *entry = &process->owned[(unsigned)pid % OWNED_CACHE_SIZE];
	if (entry->pid != pid || entry->run != run->number || now >= entry->until_ms)
		*entry = (struct owned_entry){
			.pid = pid,
			.run = run->number,
			.until_ms = now + OWNED_CACHE_MS,
			.owned = group_owns(run->group, pid),
		};
	return entry->owned;
}

static int process_create(const struct driver_environment *environment, const struct service_config *config,
	size_t index, struct driver_service **ret_service, struct error *err)
{
	struct process *process = calloc(1, sizeof(*process));
	if (process == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	process->base = (struct driver_service){ .ops = &process_driver, .index = index };
	process->environment = environment;
	process->config = config;
	process->without_cgroup = environment->without & DRIVER_WITHOUT_CGROUP;
	process->mark = command_mark(config->name);
	process->log_path = log_file_path(environment->log_dir, config->name);
	process->record_path = record_path(environment->state_dir, config->name);
	if (process->mark == NULL || process->log_path == NULL || process->record_path == NULL) {
		free_process(process);
		return error_set(err, -ENOMEM, "out of memory");
	}
	/* None of these three can fail. */
	reports_init(&process->reports, environment->loop, environment->listener, index);
	uv_timer_init(environment->loop, &process->tick);
	uv_timer_init(environment->loop, &process->port_timer);
	process->tick.data = process->port_timer.data = process;
	process->n_open = 3;
	*ret_service = &process->base;
	return 0;
}

static void process_destroy(struct driver_service *service)
{
	struct process *process = (struct process *)service;
	if (process->run != NULL)
		finish_run(process->run);
	reports_close(&process->reports, handle_reports_closed);
	uv_close((uv_handle_t *)&process->tick, handle_timer_closed);
	uv_close((uv_handle_t *)&process->port_timer, handle_timer_closed);
}

const struct driver_ops process_driver = {
	.name = "process",
	.create = process_create,
	.destroy = process_destroy,
	.find = process_find,
	.adopt = process_adopt,
	.start = process_start,
	.stop = process_stop,
	.owns = process_owns,
};
