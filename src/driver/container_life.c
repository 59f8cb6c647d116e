/*
 * A run that is alive: its process is watched, its output copied, and each look compared with what is known of it. Must
 * not call ended what only the engine's silence hides.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "driver/container.h"
#include "driver/proc.h"

static void handle_process_ended(void *context)
{
	struct container_run *run = context;
	run->process = fd_watch_destroy(run->process);
	run->process_ended_ms = clock_now_ms();
	container_look(run->container);
	container_arm(run->container);
}

/* Only if it is proven to be the container's: an engine may count processes in another way than this host does. */
static void watch_process(struct container_run *run)
{
	int pidfd = run->pid > 0 ? process_open(run->pid) : -ESRCH;
	if (pidfd < 0)
		return;
	run->has_no_cgroup = !container_has_process(run->id, run->pid);
	if (run->has_no_cgroup) {
		close(pidfd);
		return;
	}
	if (fd_watch_create(run->container->environment->loop, pidfd, UV_READABLE, handle_process_ended, run,
		    &run->process) < 0)
		run->process = NULL;
}

static void copy_output(struct container_run *run, const struct container_facts *facts, struct timespec since)
{
	const struct container *container = run->container;
	const struct container_log_options options = {
		.docker = container->docker,
		.loop = container->environment->loop,
		.id = run->id,
		.path = container->log_path,
		.place = container->log_place,
		.size = container->config->process.log_size,
		.has_terminal = facts->has_terminal,
		.since = since,
		.handle_end = run_handle_log_end,
		.context = run,
	};
	if (container_log_create(&options, &run->log) < 0)
		run->log = NULL; /* without a log it is a service all the same */
}

/* One that an earlier daemon, or a start that was undone, has left may say that it is to be stopped. */
static void keep_record(const struct container_run *run)
{
	const char *path = run->container->record_path;
	bool is_stopping;
	if (container_match_record(run->container, run->id, run->started_at, &is_stopping) != RECORD_OF_LIFE)
		record_write_container(path, run->id, run->started_at, is_stopping);
}

void run_take_life(struct container_run *run, const struct container_facts *facts, struct timespec log_since)
{
	struct container *container = run->container;
	run->process = fd_watch_destroy(run->process);
	run->log = container_log_destroy(run->log);
	run->stage = RUN_ALIVE;
	memcpy(run->id, facts->id, sizeof(run->id));
	memcpy(run->started_at, facts->started_at, sizeof(run->started_at));
	run->pid = facts->pid;
	run->is_coming = facts->status == CONTAINER_RESTARTING;
	container_note_life(container, facts);
	if (run->is_coming)
		return;
	keep_record(run);
	watch_process(run);
	copy_output(run, facts, log_since);
}

static void tell_pause(struct container_run *run, bool is_paused)
{
	struct container *container = run->container;
	char title[300], text[768];
	if (run->is_paused == is_paused)
		return;
	run->is_paused = is_paused;
	if (is_paused)
		container_describe_pause(container, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "%s was paused, and has not answered since",
			container_title(container, title, sizeof(title)));
	reports_push(&container->reports,
		&(struct report){ .kind = REPORT_HINDERED, .run = run->number, .is_over = !is_paused, .text = text });
}

static bool is_same_life(const struct container_run *run, const struct container_facts *facts)
{
	return container_is_alive(facts) && strcmp(facts->id, run->id) == 0 &&
		strcmp(facts->started_at, run->started_at) == 0;
}

/* Adopted between two lives, or started by an engine that did not tell how. */
static void take_view_of_coming(struct container_run *run, const struct container_facts *facts)
{
	struct container *container = run->container;
	uint64_t poll_ms = clock_now_ms() + RUN_POLL_MS;
	char text[1024];
	if (container_is_alive(facts)) {
		run_take_life(run, facts, container_log_since(facts->started_at, facts->finished_at));
		reports_add(&container->reports, REPORT_MAIN_PID, run->number, true, run->pid, NULL);
		run->is_stop_due |= run->wanted != STOP_NONE;
	} else if (facts->status != CONTAINER_RESTARTING || !run->is_coming) {
		container_describe_end(facts, text, sizeof(text));
		run_end(run, text, facts);
		return;
	}
	if (run->wanted != STOP_NONE)
		run_go_on_stopping(run);
	if (container->look_at_ms > poll_ms)
		container->look_at_ms = poll_ms;
}

void run_take_view_of_life(struct container_run *run, const struct container_facts *facts)
{
	char text[1024];
	if (run->is_coming || run->started_at[0] == '\0') {
		take_view_of_coming(run, facts);
	} else if (!is_same_life(run, facts)) {
		run_describe_past_life(facts, text, sizeof(text));
		run_end(run, text, facts);
	} else {
		tell_pause(run, facts->status == CONTAINER_PAUSED);
		if (run->wanted != STOP_NONE)
			run_go_on_stopping(run);
		else if (run->process_ended_ms != NEVER)
			container_look_later(run->container);
	}
}

void run_take_silence(struct container_run *run, enum view_trouble trouble, const char *why)
{
	snprintf(run->why, sizeof(run->why), "%s", why);
	if (run->is_stop_done && trouble == TROUBLE_NONSENSE) {
		run_end(run, "stopped, as the engine says", NULL);
		return;
	}
	run->trouble = trouble;
	if (run->wanted != STOP_NONE && run->silence_ms == NEVER)
		run->silence_ms = run->container->look_sent_ms;
	if (run->wanted != STOP_NONE || run->process_ended_ms != NEVER)
		container_look_later(run->container);
}
