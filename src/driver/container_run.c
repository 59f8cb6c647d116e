/*
 * One run of a container: started or adopted, watched, stopped, ended. Which room a view or a moment concerns; must not
 * know what they do about it.
 */
#include <stdio.h>

#include "base/clock.h"
#include "driver/container.h"

#define PROCESS_ENDED_MS 2000 /* the engine may tell how it ended until then */

struct container_run *run_begin(struct container *container, uint64_t number)
{
	container->run = &container->only_run;
	*container->run = (struct container_run){
		.container = container,
		.number = number,
		.silence_ms = NEVER,
		.process_ended_ms = NEVER,
	};
	return container->run;
}

void run_finish(struct container_run *run)
{
	run->container->run = NULL;
	docker_cancel(run->start_call);
	docker_cancel(run->stop_call);
	docker_cancel(run->kill_call);
	fd_watch_destroy(run->process);
	container_log_destroy(run->log);
}

void run_post(struct container_run *run, const char *what, uint64_t timeout_ms, docker_handler handler,
	struct docker_call **call)
{
	char path[160];
	const struct docker_request request = {
		.method = "POST",
		.path = path,
		.timeout_ms = timeout_ms,
		.handler = handler,
		.context = run,
	};
	snprintf(path, sizeof(path), "/containers/%s/%s", run->id, what);
	if (docker_call(run->container->docker, &request, call) < 0)
		handler(run, &(struct docker_answer){ .result = DOCKER_NOT_SENT, .text = "out of memory" });
}

void container_adopt(struct driver_service *service, uint64_t number, pid_t pid)
{
	struct container *container = (struct container *)service;
	const struct container_facts *facts = &container->facts;
	if (container->run != NULL) {
		container->run->number = number;
		container->run->is_paused = false; /* if it is, that is to be told of this number, too */
		container_look(container);
		return;
	}
	if (!container_is_there(facts)) {
		container->seen_absent = true;
		reports_add(&container->reports, REPORT_GONE, number, false, pid, "ended before it could be watched");
		return;
	}
	run_take_life(run_begin(container, number), facts, container_log_since(facts->started_at, facts->finished_at));
	container_look(container);
	container_arm(container);
}

/* From before what was done last. That it did not run is enough to start it: the start itself will tell. */
static bool is_too_old(const struct container_run *run, const struct view *view)
{
	if (run->container->look_serial >= run->first_look)
		return false;
	return run->stage != RUN_SEARCHING || run->container->config->container.name == NULL ||
		view->kind != VIEW_FOUND || view->facts.status != CONTAINER_ENDED;
}

void run_take_view(struct container_run *run, const struct view *view)
{
	if (run->stage == RUN_CALLING || run->stage == RUN_ENDING || is_too_old(run, view))
		return;
	if (run->stage != RUN_ALIVE)
		run_take_view_of_start(run, view);
	else if (view->kind == VIEW_FOUND)
		run_take_view_of_life(run, &view->facts);
	else if (view->kind == VIEW_ABSENT)
		run_end(run, "ended: the container was removed", NULL);
	else
		run_take_silence(run, view->trouble, view->text);
}

static void end_without_engine(struct container_run *run)
{
	char text[900];
	snprintf(text, sizeof(text), "its main process ended; the engine does not tell how%s%.700s",
		run->why[0] != '\0' ? ": " : "", run->why);
	run_end(run, text, NULL);
}

static uint64_t after(uint64_t moment, uint64_t ms)
{
	return moment == NEVER ? NEVER : moment + ms;
}

void run_take_time(struct container_run *run, uint64_t now)
{
	if (run->stage == RUN_CALLING || now < run_deadline(run))
		return;
	if (run->stage == RUN_SEARCHING || run->stage == RUN_CONFIRMING)
		run_give_up_start(run);
	else if (run->stage == RUN_ENDING)
		run_consider_end(run, now);
	else if (now >= after(run->process_ended_ms, container_wait(run->container, PROCESS_ENDED_MS)))
		end_without_engine(run);
	else
		run_refuse_stop(run, run->why);
}

uint64_t run_deadline(const struct container_run *run)
{
	uint64_t process_ms = after(run->process_ended_ms, container_wait(run->container, PROCESS_ENDED_MS));
	uint64_t stop_ms = run_stop_deadline(run);
	if (run->stage == RUN_CALLING)
		return NEVER;
	if (run->stage == RUN_ENDING)
		return run_end_deadline(run);
	if (run->stage != RUN_ALIVE)
		return run->give_up_ms;
	return process_ms < stop_ms ? process_ms : stop_ms;
}
