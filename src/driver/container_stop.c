/*
 * Stopping a run: gently, by force, or undoing a start. Says what it asks the engine to do and lets looks judge; an
 * answer that was lost decides nothing.
 */
#include <stdio.h>

#include "base/clock.h"
#include "driver/container.h"

#define SETTLE_MS 1000 /* a start that is to be undone before it was answered */
#define REACH_AWAY_MS 3000 /* an engine that is not there at all is waited for less long than one that is silent */
#define KILL_GRACE_MS 1000 /* for a kill, once the engine was silent for long enough */
#define STOPS_MAX 5
#define STOP_EXTRA_S 60 /* beyond stop_timeout: the caller is the one who loses patience */
#define KILL_TIMEOUT_MS 5000 /* with RUN_REACH_MS after it, longer than callers wait for the end */

void run_refuse_stop(struct container_run *run, const char *text)
{
	char copy[768];
	snprintf(copy, sizeof(copy), "cannot be stopped: %.700s", text);
	run->wanted = STOP_NONE;
	run->is_stop_due = false;
	run->is_stop_rejected = false;
	run->n_stops = 0;
	run->stop_call = docker_cancel(run->stop_call);
	run->kill_call = docker_cancel(run->kill_call);
	if (record_write_container(run->container->record_path, run->id, run->started_at, false) < 0)
		record_remove(run->container->record_path); /* else the next daemon would go on stopping it */
	reports_add(&run->container->reports, REPORT_STOP_REFUSED, run->number, true, run->pid, copy);
}

static uint64_t stop_call_s(const struct container_run *run)
{
	return run->container->config->container.stop_timeout_ms / 1000 + STOP_EXTRA_S;
}

static uint64_t stop_call_ms(const struct container_run *run)
{
	return stop_call_s(run) * 1000 + RUN_REACH_MS;
}

/* Since when the engine says nothing, by a call that it did not answer: one that it let wait was in vain all the while.
 */
static uint64_t began_silence(const struct docker_answer *answer, uint64_t sent_ms, uint64_t timeout_ms)
{
	uint64_t now = clock_now_ms();
	return answer->result == DOCKER_NOT_SENT || now - sent_ms >= timeout_ms ? sent_ms : now;
}

static void take_stop_answer(
	struct container_run *run, const struct docker_answer *answer, uint64_t sent_ms, uint64_t timeout_ms)
{
	struct container *container = run->container;
	bool is_done = answer->result == DOCKER_ANSWERED && answer->text[0] == '\0';
	bool is_lost = answer->result != DOCKER_ANSWERED;
	if (!is_done)
		snprintf(run->why, sizeof(run->why), "%s", answer->text);
	run->is_stop_rejected = !is_done && !is_lost;
	run->is_stop_done |= is_done;
	run->first_look = container->look_serial + 1;
	if (!is_lost) {
		container_look(container);
		return;
	}
	run->is_stop_due = true;
	if (run->silence_ms == NEVER)
		run->silence_ms = began_silence(answer, sent_ms, timeout_ms);
	container_look_later(container);
}

static void handle_stop_answer(void *context, const struct docker_answer *answer)
{
	struct container_run *run = context;
	run->stop_call = NULL;
	take_stop_answer(run, answer, run->stop_sent_ms, stop_call_ms(run));
}

static void handle_kill_answer(void *context, const struct docker_answer *answer)
{
	struct container_run *run = context;
	run->kill_call = NULL;
	take_stop_answer(run, answer, run->kill_sent_ms, container_wait(run->container, KILL_TIMEOUT_MS));
}

/*
 * The engine's answer is as far away as the end of the container, so that nothing can be read from its silence: a look
 * at the same time tells whether it answers at all.
 */
static void send_gentle_stop(struct container_run *run)
{
	char what[64];
	snprintf(what, sizeof(what), "stop?t=%llu", (unsigned long long)stop_call_s(run));
	run->stop_sent_ms = clock_now_ms();
	run_post(run, what, stop_call_ms(run), handle_stop_answer, &run->stop_call);
	container_look(run->container);
}

/* Whatever came of it: the stop itself tells. */
static void handle_thawed(void *context, const struct docker_answer *answer)
{
	struct container_run *run = context;
	(void)answer;
	run->stop_call = NULL;
	run_send_stop(run);
}

/* A frozen process hears no signal. */
void run_send_stop(struct container_run *run)
{
	run->is_stop_due = run->is_stop_done = false;
	run->n_stops++;
	run->was_stopped_by_us = true;
	record_note_stop(run->container->record_path); /* whoever finds it after us finishes that */
	if (run->is_coming) {
		run->stop_call = docker_cancel(run->stop_call);
		run->stop_sent_ms = clock_now_ms();
		run_post(run, "stop?t=0", KILL_TIMEOUT_MS, handle_stop_answer, &run->stop_call);
	} else if (run->is_paused && !run->was_thawed) {
		run->was_thawed = true;
		run->stop_call = docker_cancel(run->stop_call);
		run_post(run, "unpause", KILL_TIMEOUT_MS, handle_thawed, &run->stop_call);
	} else if (run->wanted == STOP_BY_FORCE) {
		run->kill_call = docker_cancel(run->kill_call);
		run->kill_sent_ms = clock_now_ms();
		run_post(run, "kill?signal=SIGKILL", container_wait(run->container, KILL_TIMEOUT_MS),
			handle_kill_answer, &run->kill_call);
	} else {
		run->stop_call = docker_cancel(run->stop_call);
		send_gentle_stop(run);
	}
}

/* The engine has not answered yet: perhaps it never will. If it comes up, it is stopped. */
static void doubt_start(struct container_run *run)
{
	uint64_t now = clock_now_ms();
	run->stage = RUN_CONFIRMING;
	run->is_answer_lost = true;
	run->settle_ms = now + container_wait(run->container, SETTLE_MS);
	run->give_up_ms = now + RUN_START_TIMEOUT_MS;
	run->first_look = run->container->look_serial + 1;
	snprintf(run->why, sizeof(run->why), "docker: stopped before the engine at %s had answered to its start",
		run->container->config->container.engine);
	container_look(run->container);
}

void container_stop(struct driver_service *service, bool force)
{
	struct container_run *run = ((struct container *)service)->run;
	enum stop_level level = force ? STOP_BY_FORCE : STOP_GENTLY;
	if (run == NULL || run->wanted >= level)
		return;
	if (run->wanted == STOP_NONE)
		run->silence_ms = NEVER;
	run->wanted = level;
	run->is_stop_due = true;
	run->n_stops = 0;
	record_note_stop(run->container->record_path); /* what the engine was asked to start may come up much later */
	if (run->stage == RUN_SEARCHING)
		run_fail_start(run, DRIVER_FAILED, run->why[0] != '\0' ? run->why : "stopped before it was started");
	else if (run->stage == RUN_ENDING)
		run_report_gone(run);
	else if (run->stage == RUN_CALLING)
		doubt_start(run);
	else if (run->stage == RUN_ALIVE)
		run_send_stop(run);
	container_arm((struct container *)service);
}

/* It lives, though it should not any more. */
void run_go_on_stopping(struct container_run *run)
{
	struct container *container = run->container;
	uint64_t poll_ms = clock_now_ms() + RUN_POLL_MS;
	run->silence_ms = NEVER;
	if (run->is_stop_rejected || (run->is_stop_due && run->n_stops >= STOPS_MAX)) {
		run_refuse_stop(run, run->why);
		return;
	}
	if (run->is_stop_due)
		run_send_stop(run);
	if (container->look_at_ms > poll_ms)
		container->look_at_ms = poll_ms;
}

/*
 * While the engine has our stop and is silent, there is nothing to do but wait, and whoever asked knows for how long: a
 * kill follows then. By that time it may be known that nobody hears it.
 */
uint64_t run_stop_deadline(const struct container_run *run)
{
	uint64_t reach_ms = run->trouble == TROUBLE_SILENCE ? RUN_REACH_MS : REACH_AWAY_MS;
	uint64_t until_ms = run->silence_ms + container_wait(run->container, reach_ms);
	uint64_t heard_ms = run->kill_sent_ms + container_wait(run->container, KILL_GRACE_MS);
	if (run->wanted == STOP_NONE || run->silence_ms == NEVER)
		return NEVER;
	if (run->wanted == STOP_GENTLY)
		return run->stop_call != NULL ? NEVER : until_ms;
	return until_ms > heard_ms ? until_ms : heard_ms;
}
