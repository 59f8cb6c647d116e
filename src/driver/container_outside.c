/*
 * Whether somebody else ended a container on purpose. The engine's events tell (a `kill` with its signal before the
 * end, a `stop` after it), and so does the exit status. Must not be sure of what only an exit status suggests: 137 is
 * what the kernel's killer leaves as well.
 *
 * Source: https://docs.docker.com/reference/cli/docker/system/events/. Podman 4 tells of neither kill nor stop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/container.h"

static uint64_t born_ns(const struct container_run *run)
{
	struct timespec born = container_log_since(run->started_at, NULL);
	return (uint64_t)born.tv_sec * 1000000000 + (uint64_t)born.tv_nsec;
}

/* Events come again when their stream is opened anew: those of an earlier life are no news. */
void run_note_event(struct container_run *run, const struct docker_event *event)
{
	bool is_ours = run->wanted != STOP_NONE;
	bool is_about_life = run->stage == RUN_ALIVE || run->stage == RUN_ENDING;
	if (is_ours || !is_about_life || strcmp(event->id, run->id) != 0)
		return;
	if (event->at_ns != 0 && event->at_ns < born_ns(run))
		return;
	if (strcmp(event->action, "stop") == 0)
		run->was_stopped_outside = true;
	if (strcmp(event->action, "kill") != 0)
		return;
	const char *signal = json_string_value(json_object_get(event->attributes, "signal"));
	long number = signal != NULL ? strtol(signal, NULL, 10) : 0;
	if (number > 0 && number < 65)
		run->outside_signal = (int)number;
}

bool run_is_ended_by_others(const struct container_run *run)
{
	if (run->wanted != STOP_NONE || run->is_end_oom)
		return false;
	if (run->was_stopped_outside || run->end_code == 0)
		return true;
	return run->outside_signal != 0 &&
		(run->end_code == END_CODE_UNKNOWN || run->end_code == 128 + run->outside_signal);
}

/* An event may be behind the inspection. A signal that explains nothing may have been part of a stop. */
bool run_awaits_events(const struct container_run *run, uint64_t ended_ms, uint64_t now)
{
	bool was_signalled = run->outside_signal != 0;
	bool may_be_signalled = run->end_code > 128 || run->end_code == END_CODE_UNKNOWN;
	if (run_is_ended_by_others(run) || run->wanted != STOP_NONE || run->is_end_oom)
		return false;
	return (was_signalled || may_be_signalled) && now < ended_ms + RUN_EVENT_GRACE_MS;
}

const char *run_describe_others(const struct container_run *run, char *buffer, size_t size)
{
	const char *name = run->outside_signal != 0 ? sigabbrev_np(run->outside_signal) : NULL;
	buffer[0] = '\0';
	if (!run_is_ended_by_others(run) || (run->outside_signal == 0 && !run->was_stopped_outside))
		return buffer;
	if (run->was_stopped_by_us)
		snprintf(buffer, size, "a stop that was given up came true: ");
	else if (name != NULL)
		snprintf(buffer, size, "stopped by somebody else (SIG%s): ", name);
	else
		snprintf(buffer, size, "stopped by somebody else: ");
	return buffer;
}
