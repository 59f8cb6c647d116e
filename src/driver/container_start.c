/*
 * Starting: which container it is, asking the engine for it, and seeing what came of that. Must not start twice what
 * runs already: an answer that was lost is followed by a look.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "driver/container.h"

#define STARTS_MAX 3

static void handle_start_answer(void *context, const struct docker_answer *answer);

static void call_start(struct container_run *run, enum container_status status)
{
	run->stage = RUN_CALLING;
	run->n_starts++;
	run->why[0] = '\0';
	clock_gettime(CLOCK_REALTIME, &run->log_since);
	record_write_start(run->container->record_path, run->id, run->started_at);
	/* While the engine waits to start it again by itself, it takes it for running. */
	run_post(run, status == CONTAINER_RESTARTING ? "restart?t=0" : "start", RUN_START_TIMEOUT_MS,
		handle_start_answer, &run->start_call);
}

static void handle_start_answer(void *context, const struct docker_answer *answer)
{
	struct container_run *run = context;
	struct container *container = run->container;
	run->start_call = NULL;
	if (run->stage != RUN_CALLING && run->stage != RUN_CONFIRMING)
		return; /* it came up before the engine said so, and may be on its way down already */
	run->is_answer_lost = answer->result != DOCKER_ANSWERED;
	run->is_start_open = answer->result == DOCKER_LOST || (run->is_start_open && run->is_answer_lost);
	run->give_up_ms = clock_now_ms() + container_wait(container, RUN_REACH_MS);
	run->silence_ms = NEVER;
	snprintf(run->why, sizeof(run->why), "%s", answer->text);
	run->stage = RUN_CONFIRMING;
	run->first_look = container->look_serial + 1;
	if (run->is_answer_lost)
		container_look_later(container);
	else
		container_look(container);
	container_arm(container);
}

static void begin_start(struct container_run *run, const struct container_facts *facts)
{
	char text[768], title[300];
	container_title(run->container, title, sizeof(title));
	memcpy(run->id, facts->id, sizeof(run->id));
	memcpy(run->started_at, facts->started_at, sizeof(run->started_at));
	if (facts->status == CONTAINER_PAUSED) {
		container_describe_pause(run->container, text, sizeof(text));
		run_fail_start(run, DRIVER_FAILED, text);
	} else if (facts->is_dying) {
		snprintf(text, sizeof(text), "docker: %s is being removed; wait, then make it again", title);
		run_fail_start(run, DRIVER_FAILED, text);
	} else if (facts->status == CONTAINER_RUNNING) {
		record_remove(run->container->record_path); /* that it was to be stopped holds no more */
		run_take_life(run, facts, container_log_since(facts->started_at, facts->finished_at));
		reports_add(&run->container->reports, REPORT_STARTED, run->number, true, run->pid, NULL);
	} else {
		call_start(run, facts->status);
	}
}

static void report_started(struct container_run *run, const struct container_facts *facts)
{
	run_take_life(run, facts, run->log_since);
	reports_add(&run->container->reports, REPORT_STARTED, run->number, true, run->pid, NULL);
}

/* It was not asked, as it seems; or the engine takes it for running while it waits. */
static bool may_start_again(const struct container_run *run, const struct container_facts *facts)
{
	bool is_waiting = facts->status == CONTAINER_RESTARTING && run->why[0] == '\0';
	return (run->is_answer_lost || is_waiting) && run->n_starts < STARTS_MAX && run->wanted == STOP_NONE;
}

/* It does not run. It may have ended at once, never have been asked, or have been refused. */
static void take_failed_start(struct container_run *run, const struct container_facts *facts)
{
	bool has_run = strcmp(facts->started_at, run->started_at) != 0;
	char text[768], end[512];
	if (has_run && (run->why[0] == '\0' || run->is_answer_lost)) {
		report_started(run, facts);
		run_describe_past_life(facts, text, sizeof(text));
		run_end(run, text, facts);
	} else if (run->wanted != STOP_NONE && clock_now_ms() < run->settle_ms) {
		container_look_later(run->container);
	} else if (may_start_again(run, facts)) {
		call_start(run, facts->status);
	} else if (run->why[0] != '\0') {
		snprintf(text, sizeof(text), "docker: %.700s", run->why);
		run_fail_start(run, DRIVER_FAILED, strncmp(run->why, "docker: ", 8) == 0 ? run->why : text);
	} else {
		container_describe_end(facts, end, sizeof(end));
		snprintf(text, sizeof(text), "docker: the engine says that it was started, but it does not run: %.500s",
			end);
		run_fail_start(run, DRIVER_FAILED, text);
	}
}

static void confirm_start(struct container_run *run, const struct container_facts *facts)
{
	if (facts->status != CONTAINER_RUNNING) {
		take_failed_start(run, facts);
		return;
	}
	report_started(run, facts);
	if (run->is_stop_due)
		run_send_stop(run);
}

void container_start(struct driver_service *service, uint64_t number, const char *gpu_ids)
{
	struct container *container = (struct container *)service;
	(void)gpu_ids; /* a container that exists stands where its own definition says */
	if (container->run != NULL) {
		reports_add(&container->reports, REPORT_START_FAILED, number, false, 0, "it runs already");
		return;
	}
	struct container_run *run = run_begin(container, number);
	run->first_look = container->look_serial + 1;
	run->give_up_ms = clock_now_ms() + container_wait(container, RUN_REACH_MS);
	container->was_asked = true;
	container_look(container);
	container_arm(container);
}

static void wait_for_engine(struct container_run *run, const struct view *view)
{
	uint64_t patience_ms = container_patience(run->container, view->trouble), until;
	if (run->silence_ms == NEVER)
		run->silence_ms = clock_now_ms();
	until = run->silence_ms + patience_ms;
	if (until < run->give_up_ms) /* and if it comes up yet, its record says what is to become of it */
		run->give_up_ms = until;
	if (run->stage == RUN_SEARCHING || run->is_answer_lost)
		snprintf(run->why, sizeof(run->why), "%s", view->text);
	container_look_later(run->container);
}

void run_take_view_of_start(struct container_run *run, const struct view *view)
{
	bool is_searching = run->stage == RUN_SEARCHING;
	if (view->kind == VIEW_UNKNOWN) {
		wait_for_engine(run, view);
	} else if (view->kind != VIEW_FOUND) {
		run_fail_start(run, view->kind == VIEW_ABSENT ? DRIVER_NOT_FOUND : DRIVER_FAILED, view->text);
	} else if (is_searching) {
		begin_start(run, &view->facts);
	} else {
		confirm_start(run, &view->facts);
	}
}

/* The engine has said that it was started, and nothing that makes sense since. Whether it is, health checks show. */
static void trust_start(struct container_run *run)
{
	run->stage = RUN_ALIVE;
	run->started_at[0] = '\0';
	run->silence_ms = NEVER;
	reports_add(&run->container->reports, REPORT_STARTED, run->number, true, 0, NULL);
	if (run->is_stop_due)
		run_send_stop(run);
}

/* The engine was silent for too long after it was asked. It may start it yet; then that is not somebody else's doing.
 */
void run_give_up_start(struct container_run *run)
{
	struct container *container = run->container;
	bool is_open = run->stage == RUN_CONFIRMING;
	char text[768];
	if (is_open && !run->is_answer_lost && run->why[0] == '\0') {
		trust_start(run);
		return;
	}
	docker_describe_silence(container->docker, container_wait(container, RUN_REACH_MS), text, sizeof(text));
	run_fail_start(run, DRIVER_UNTOLD, run->why[0] != '\0' ? run->why : text);
	container->seen_absent = !is_open && container->seen_absent;
	container->owes_news = true;
}
