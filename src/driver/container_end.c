/*
 * The end of a run, or of the attempt to start one: told once, with how it ended and what it said last. Must not ask
 * the engine for anything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "driver/container.h"

#define LAST_WORDS_MS 2000
#define WORDS_OF_THE_END 5

/* Then the record stays, and says that this is nobody else's doing. */
static bool may_come_up(const struct container_run *run, const struct report *report)
{
	bool is_asked = run->start_call != NULL || run->is_start_open;
	bool may_be_asked = run->stage == RUN_SEARCHING || is_asked; /* by an earlier start */
	return report->kind == REPORT_START_FAILED && report->failure != DRIVER_NOT_FOUND && may_be_asked;
}

static void report_and_finish(struct container_run *run, const struct report *report)
{
	struct container *container = run->container;
	struct report whole = *report;
	whole.run = run->number;
	whole.pid = run->pid;
	container->seen_absent = true;
	if (run->log != NULL)
		container_log_forget(run->log);
	if (!may_come_up(run, report))
		record_remove(container->record_path);
	reports_push(&container->reports, &whole);
	run_finish(run);
}

void run_fail_start(struct container_run *run, enum driver_failure failure, const char *text)
{
	char copy[768];
	snprintf(copy, sizeof(copy), "%s", text); /* it may be the run's own */
	report_and_finish(run, &(struct report){ .kind = REPORT_START_FAILED, .failure = failure, .text = copy });
}

void run_report_gone(struct container_run *run)
{
	CLEANUP_FREE char *words = NULL;
	CLEANUP_FREE char *text = NULL;
	char others[96];
	run_describe_others(run, others, sizeof(others));
	bool is_external = run_is_ended_by_others(run);
	if (run->wanted == STOP_NONE && run->log != NULL && others[0] == '\0')
		words = container_log_last_words(run->log, WORDS_OF_THE_END);
	bool has_words = words != NULL && *words != '\0';
	if (asprintf(&text, "%s%s%s%s", others, run->end_text, has_words ? "; its log ends with:\n" : "",
		    has_words ? words : "") < 0)
		text = NULL;
	report_and_finish(run, &(struct report){ .kind = REPORT_GONE, .external = is_external, .text = text });
}

static bool has_last_words(const struct container_run *run)
{
	return run->log == NULL || container_log_has_ended(run->log);
}

void run_consider_end(struct container_run *run, uint64_t now)
{
	bool is_complete = has_last_words(run) && !run_awaits_events(run, run->ended_ms, now);
	if (run->wanted != STOP_NONE || is_complete || now >= run->give_up_ms)
		run_report_gone(run);
}

uint64_t run_end_deadline(const struct container_run *run)
{
	return has_last_words(run) ? run->ended_ms + RUN_EVENT_GRACE_MS : run->give_up_ms;
}

/* It is over. Unless that was wanted, what it said last, and who ended it, is worth a moment. */
void run_end(struct container_run *run, const char *text, const struct container_facts *facts)
{
	bool is_told = facts != NULL && !container_is_alive(facts);
	snprintf(run->end_text, sizeof(run->end_text), "%s", text);
	run->process = fd_watch_destroy(run->process);
	run->stage = RUN_ENDING;
	run->end_code = is_told ? facts->exit_code : END_CODE_UNKNOWN;
	run->is_end_oom = is_told && facts->oom_killed;
	run->ended_ms = clock_now_ms();
	run->give_up_ms = run->ended_ms + LAST_WORDS_MS;
	if (run->log != NULL)
		container_log_finish(run->log);
	run_consider_end(run, run->ended_ms);
}

void run_handle_log_end(void *context)
{
	struct container_run *run = context;
	struct container *container = run->container;
	if (run->stage != RUN_ENDING)
		return;
	run_consider_end(run, clock_now_ms());
	if (container->run == NULL)
		container_look(container);
	container_arm(container);
}

/* What the engine tells of a life that is over. A container that was started again tells of its next one. */
void run_describe_past_life(const struct container_facts *facts, char *text, size_t size)
{
	if (container_is_alive(facts))
		snprintf(text, size,
			"ended, and was started again by the engine or by somebody else (restart policy \"%s\")",
			facts->restart_policy[0] != '\0' ? facts->restart_policy : "no");
	else
		container_describe_end(facts, text, size);
	size_t used = strlen(text);
	if (facts->status == CONTAINER_RESTARTING)
		snprintf(text + used, size - used,
			"; the engine is about to start it again (restart policy \"%s\"; gpumgr wants restart: \"no\")",
			facts->restart_policy);
}
