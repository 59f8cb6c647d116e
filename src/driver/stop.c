/*
 * Stopping a service: its own group; or, when nobody knows which processes it is, what can be proven to be it at this
 * moment. Must never signal on a guess: rather it refuses and names the remedy.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/identify.h"
#include "driver/process.h"
#include "driver/record.h"

#define PORT_WAIT_FIRST_MS 10
#define PORT_WAIT_MAX_MS 250

static bool has_stop_command(const struct run *run)
{
	return run->process->config->process.stop_command.n > 0;
}

/* 0: it runs, and process_stop_command_ended() follows. */
static int run_stop_command(struct run *run)
{
	struct process *process = run->process;
	struct spawned spawned = { .pidfd = -1 };
	struct error err = { "out of memory" };
	bool in_cgroup = run->cgroup != NULL;
	int r = process_spawn(
		run, &process->config->process.stop_command, in_cgroup, &run->stop_command, &spawned, &err);
	if (r == 0) {
		run->stop_pid = spawned.pid;
		run->stop_result = spawned.result;
		r = process_watch(run, &spawned, false, &err);
	}
	if (r < 0) {
		run->stop_pid = 0;
		snprintf(run->note.message, sizeof(run->note.message), "stop_command failed: %.700s", err.message);
		process_log_note(process, run->note.message);
	}
	return r;
}

static void note_stop_failure(struct run *run, struct exit_status status)
{
	struct spawn_failure failure;
	struct error err;
	char text[96];
	if (run->stop_result >= 0 && spawn_read_result(run->stop_result, &failure) == SPAWN_FAILED)
		spawn_explain(&failure, &run->stop_command, &err);
	else if (status.kind == EXIT_CODE && status.value == 0)
		return;
	else
		snprintf(err.message, sizeof(err.message), "%s", exit_status_text(status, text, sizeof(text)));
	run->stop_failed = true;
	snprintf(run->note.message, sizeof(run->note.message), "stop_command failed: %.700s", err.message);
	process_log_note(run->process, run->note.message);
}

void process_stop_command_ended(struct run *run, struct exit_status status)
{
	run->stop_pid = 0;
	run->stop_failed = false;
	note_stop_failure(run, status);
	if (run->stop_result >= 0)
		close(run->stop_result);
	run->stop_result = -1;
	command_finish(&run->stop_command);
	if (run->has_identity && run->stop_failed && !run->forced)
		group_signal(run->group, run->process->config->process.stop_signal);
}

static void refuse(struct run *run, const char *why)
{
	struct process *process = run->process;
	struct error err;
	bool has_command = has_stop_command(run);
	run->stopping = run->forced = false;
	error_set(&err, 0, "%s%s%.400s; gpumgrd did not start it: stop it yourself%s", run->note.message,
		run->note.message[0] != '\0' ? "; " : "", why,
		has_command ? "" : ", or set process.stop_command or process.pid_file");
	run->note.message[0] = '\0';
	reports_add(&process->reports, REPORT_STOP_REFUSED, run->number, true, 0, err.message);
}

static bool nobody_listens(const struct process *process)
{
	struct endpoint endpoint;
	return endpoint_of_probe(&process->config->health, &endpoint) == 0 && endpoint_listener(&endpoint) == 0;
}

/* Proves anew who it is, at this moment, and stops that. */
static void stop_by_identity(struct run *run)
{
	struct process *process = run->process;
	const struct process_config *config = &process->config->process;
	struct found found = { .alive = true };
	struct error err = { "" }, why_not_file = { "" };
	int r = -ESRCH;
	if (config->pid_file != NULL)
		r = identify_by_pid_file(config->pid_file, config->user, &found.stat, &why_not_file);
	if (r < 0)
		r = identify_by_listener(process->environment, process->config, &found.stat, &err);
	if (r < 0 && nobody_listens(process)) {
		process_run_end(run, REPORT_GONE, "ended: nobody listens on its port any more");
		return;
	}
	if (r == 0) {
		r = process_take_found(run, &found);
		if (r < 0)
			error_set(&err, r, "it cannot be watched: %s%s", strerror(-r), spawn_remedy(-r));
	}
	if (r < 0) {
		error_prefix(&err, r, "%s%s", why_not_file.message, why_not_file.message[0] != '\0' ? "; " : "");
		refuse(run, err.message);
		return;
	}
	if (run->forced)
		group_kill(run->group);
	else
		group_signal(run->group, config->stop_signal);
}

void process_handle_port_timer(uv_timer_t *timer)
{
	struct process *process = timer->data;
	struct endpoint endpoint;
	bool has_port = endpoint_of_probe(&process->config->health, &endpoint) == 0;
	if (has_port && endpoint_listener(&endpoint) > 0) {
		process->port_wait_ms =
			process->port_wait_ms * 2 < PORT_WAIT_MAX_MS ? process->port_wait_ms * 2 : PORT_WAIT_MAX_MS;
		uv_timer_start(timer, process_handle_port_timer, process->port_wait_ms, 0);
		return;
	}
	process_run_end(process->run, REPORT_GONE,
		has_port ? "stopped by its stop_command: nobody listens on its port any more"
			 : "stopped by its stop_command");
}

void process_stop_continue(struct run *run)
{
	struct process *process = run->process;
	run->group = group_destroy(run->group);
	if (run->forced || run->stop_failed) {
		stop_by_identity(run);
		return;
	}
	process->port_wait_ms = PORT_WAIT_FIRST_MS;
	uv_timer_start(&process->port_timer, process_handle_port_timer, 0, 0);
}

static void stop_gently(struct run *run)
{
	if (run->has_identity) {
		if (run->stage != RUN_ALIVE || !has_stop_command(run) || run_stop_command(run) < 0)
			group_signal(run->group, run->process->config->process.stop_signal);
		return;
	}
	if (!has_stop_command(run) || run_stop_command(run) < 0)
		stop_by_identity(run);
}

/* Who it is, is known, but its group is not at hand to be signalled. */
static void refuse_for_now(struct run *run, int r)
{
	struct error err;
	error_set(&err, r, "it cannot be signalled now: %s%s", strerror(-r), spawn_remedy(-r));
	reports_add(&run->process->reports, REPORT_STOP_REFUSED, run->number, true, run->main_pid, err.message);
}

void process_stop(struct driver_service *service, bool force)
{
	struct process *process = (struct process *)service;
	struct run *run = process->run;
	if (run == NULL || (run->stopping && !force))
		return;
	int r = run->is_unwatched ? process_adopt_again(run) : 0;
	if (r < 0) {
		if (r != -ESRCH)
			refuse_for_now(run, r);
		return;
	}
	run->stopping = true;
	record_note_stop(process->record_path); /* whoever finds it after us finishes that */
	if (!force) {
		stop_gently(run);
		return;
	}
	run->forced = true;
	uv_timer_stop(&process->port_timer);
	/* Without identity the group is the stop_command; what follows its end goes on from there. */
	if (run->group != NULL)
		group_kill(run->group);
	else
		stop_by_identity(run);
}
