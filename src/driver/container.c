/*
 * The driver for containers: its face. It drives containers that exist and makes none; it decides nothing, never waits
 * for the engine, and believes what looks show, not what was meant to happen.
 */
#include "driver/container.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log_file.h"
#include "driver/proc.h"

/* An engine that does not answer may be starting anew: it is waited for before that counts. */
#define PATIENCE_SILENCE_MS 4000
#define PATIENCE_UNREACHABLE_MS 2000
#define PATIENCE_NONSENSE_MS 1000
#define ANCESTORS_MAX 16

/* ---- what a look means ---- */

enum record_match container_match_record(
	const struct container *container, const char *id, const char *started_at, bool *ret_stopping)
{
	return record_match_container(container->record_path, id, started_at, RUN_START_TIMEOUT_MS, ret_stopping);
}

/* `why_untold`: nobody can tell; else NULL. */
static void answer_find(struct container *container, bool alive, const char *why_untold)
{
	const struct container_facts *facts = &container->facts;
	bool was_stopping = false;
	enum record_match match = RECORD_OF_OTHERS;
	if (alive)
		match = container_match_record(container, facts->id, facts->started_at, &was_stopping);
	/* An engine may do what it was asked for when nobody waits for it any more. */
	bool external = alive && container->seen_absent && match != RECORD_OF_START;
	container->find_serial = 0;
	container->find_until_ms = NEVER;
	reports_push(&container->reports,
		&(struct report){
			.kind = REPORT_FOUND,
			.alive = alive,
			.pid = alive ? facts->pid : 0,
			.external = external,
			.stopping = was_stopping,
			.untold = why_untold != NULL,
			.text = why_untold,
		});
}

void container_note_life(struct container *container, const struct container_facts *facts)
{
	container_life(facts, container->told, sizeof(container->told));
}

static bool is_told(const struct container *container)
{
	char life[sizeof(container->told)];
	return strcmp(container_life(&container->facts, life, sizeof(life)), container->told) == 0;
}

uint64_t container_wait(const struct container *container, uint64_t ms)
{
	return container->environment->hurry > 1 ? ms / container->environment->hurry : ms;
}

uint64_t container_patience(const struct container *container, enum view_trouble trouble)
{
	uint64_t ms = trouble == TROUBLE_NONSENSE ? PATIENCE_NONSENSE_MS
		: trouble == TROUBLE_UNREACHABLE  ? PATIENCE_UNREACHABLE_MS
						  : PATIENCE_SILENCE_MS;
	return container_wait(container, ms);
}

static void wait_for_engine(struct container *container, enum view_trouble trouble)
{
	uint64_t until = container->find_since_ms + container_patience(container, trouble);
	if (until < container->find_until_ms)
		container->find_until_ms = until;
	container_look_later(container);
}

/* That nobody can tell any more is news, once: it is worth a find(), which will say so. */
static void tell_outage(struct container *container)
{
	if (container->was_asked && container->find_serial == 0 && !container->owes_news)
		reports_add(&container->reports, REPORT_CHANGED, 0, false, 0, NULL);
	container->owes_news = true;
}

static void take_silence_of_idle(struct container *container, const struct view *view, bool is_waited_for)
{
	snprintf(container->why_untold, sizeof(container->why_untold), "%s", view->text);
	if (is_waited_for)
		wait_for_engine(container, view->trouble);
	else
		tell_outage(container);
	container->owes_news = true;
}

/* Nothing of it runs as far as the daemon knows. */
static void take_view_of_idle(struct container *container, const struct view *view)
{
	bool alive = view->kind == VIEW_FOUND && container_is_there(&view->facts);
	bool is_waited_for = container->find_serial != 0 && container->look_serial >= container->find_serial;
	if (view->kind == VIEW_UNKNOWN) {
		take_silence_of_idle(container, view, is_waited_for);
		return;
	}
	if (is_waited_for)
		answer_find(container, alive, NULL);
	else if (container->was_asked && ((alive && !is_told(container)) || container->owes_news))
		reports_add(&container->reports, REPORT_CHANGED, 0, alive, 0, NULL);
	container->owes_news = false;
	if (alive)
		container_note_life(container, &view->facts);
	else
		container->seen_absent = true;
}

static void answer_check(struct container *container, const struct view *view)
{
	const struct container_facts *facts = &view->facts;
	char title[300], text[768];
	bool healthy = false;
	container_title(container, title, sizeof(title));
	if (view->kind != VIEW_FOUND)
		snprintf(text, sizeof(text), "%s", view->text);
	else if (facts->status == CONTAINER_PAUSED)
		container_describe_pause(container, text, sizeof(text));
	else if (facts->status != CONTAINER_RUNNING)
		snprintf(text, sizeof(text), "%s does not run", title);
	else if (facts->health == HEALTH_NONE)
		snprintf(text, sizeof(text),
			"%s has no HEALTHCHECK; give it one (--health-cmd, or healthcheck: in Compose), or set "
			"health.http or "
			"health.tcp",
			title);
	else if (facts->health == HEALTH_HEALTHY)
		healthy = true;
	else
		snprintf(text, sizeof(text), "the container's own health check %s%s%s",
			facts->health == HEALTH_STARTING ? "has not passed yet" : "fails",
			facts->health_text[0] != '\0' ? ": " : "", facts->health_text);
	container->check_serial = 0;
	reports_add(&container->reports, REPORT_HEALTH, container->check_run, healthy, 0, healthy ? NULL : text);
}

void container_take_view(struct container *container, const struct view *view)
{
	struct container_run *run = container->run;
	if (view->kind == VIEW_FOUND)
		container->facts = view->facts;
	else if (view->kind == VIEW_ABSENT)
		container->facts = (struct container_facts){ 0 };
	if (container->check_serial != 0 && container->look_serial >= container->check_serial)
		answer_check(container, view);
	if (run == NULL) {
		take_view_of_idle(container, view);
		return;
	}
	run_take_view(run, view);
	if (container->run == NULL)
		container_look(container); /* by its name again */
}

/* ---- time and news ---- */

/* Why no look told anything: as the last one said, or none came to its end. */
static const char *describe_untold(struct container *container)
{
	if (container->why_untold[0] == '\0')
		docker_describe_silence(container->docker, container_patience(container, TROUBLE_SILENCE),
			container->why_untold, sizeof(container->why_untold));
	return container->why_untold;
}

static void handle_timer(uv_timer_t *timer)
{
	struct container *container = timer->data;
	struct container_run *run = container->run;
	uint64_t now = clock_now_ms();
	if (container->look_at_ms <= now)
		container_look(container);
	if (container->find_until_ms <= now) {
		container->owes_news = true;
		answer_find(container, false, describe_untold(container));
	}
	if (run != NULL) {
		run_take_time(run, now);
		if (container->run == NULL)
			container_look(container);
	}
	container_arm(container);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void container_arm(struct container *container)
{
	uint64_t deadline = earlier(container->look_at_ms, container->find_until_ms);
	uint64_t now = clock_now_ms();
	if (container->run != NULL)
		deadline = earlier(deadline, run_deadline(container->run));
	if (deadline == NEVER) {
		uv_timer_stop(&container->timer);
		return;
	}
	uv_update_time(container->environment->loop);
	uv_timer_start(&container->timer, handle_timer, deadline > now ? deadline - now : 0, 0);
}

static void handle_due(struct docker_user *user)
{
	struct container *container = (struct container *)((char *)user - offsetof(struct container, user));
	if (!container->was_asked && container->run == NULL)
		return;
	if (container->run != NULL && container->run->stage == RUN_ENDING)
		run_consider_end(container->run, clock_now_ms());
	container_look(container);
	if (container->run != NULL && container->run->log != NULL)
		container_log_continue(container->run->log);
	container_arm(container);
}

static void handle_away(struct docker_user *user)
{
	struct container *container = (struct container *)((char *)user - offsetof(struct container, user));
	if (container->run == NULL)
		tell_outage(container);
}

/* ---- the calls of the driver ---- */

static void container_find(struct driver_service *service, bool healthy)
{
	struct container *container = (struct container *)service;
	(void)healthy; /* whoever answers at its address: only the engine knows whether it is this container */
	container->was_asked = true;
	if (container->run != NULL) {
		reports_add(&container->reports, REPORT_FOUND, 0, true, container->run->pid, NULL);
		return;
	}
	container->find_serial = container->look_serial + 1; /* one that is under way may be from before */
	container->find_since_ms = clock_now_ms();
	container->why_untold[0] = '\0';
	container->find_until_ms = container->find_since_ms + container_patience(container, TROUBLE_SILENCE);
	container_look(container);
	container_arm(container);
}

static void container_check(struct driver_service *service, uint64_t run)
{
	struct container *container = (struct container *)service;
	container->check_serial = container->look_serial + 1;
	container->check_run = run;
	container_look(container);
}

static bool container_get_address(struct driver_service *service, char *buffer, size_t size)
{
	const struct container *container = (struct container *)service;
	if (!container_is_alive(&container->facts) || container->facts.address[0] == '\0')
		return false;
	return (size_t)snprintf(buffer, size, "%s", container->facts.address) < size;
}

static bool container_get_obstacle(struct driver_service *service, char *buffer, size_t size)
{
	const struct container *container = (struct container *)service;
	if (container->facts.status != CONTAINER_PAUSED)
		return false;
	container_describe_pause(container, buffer, size);
	return true;
}

/* For a container whose processes are in no cgroup of their own. */
static bool is_below(pid_t pid, pid_t ancestor)
{
	struct proc_stat stat;
	for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++) {
		if (pid == ancestor)
			return true;
		if (proc_read_stat(pid, &stat) < 0)
			return false;
		pid = stat.ppid;
	}
	return false;
}

static bool container_owns(struct driver_service *service, pid_t pid)
{
	struct container *container = (struct container *)service;
	const struct container_run *run = container->run;
	/* It may have taken memory before the engine has said that it runs. */
	if (run == NULL || run->stage == RUN_SEARCHING || run->stage == RUN_ENDING || pid <= 0)
		return false;
	if (pid == run->pid && run->process != NULL)
		return true;
	if (container_owners_has(
		    container->environment->shared->owners, pid, run->id, uv_now(container->environment->loop)))
		return true;
	return run->stage == RUN_ALIVE && run->has_no_cgroup && is_below(pid, run->pid);
}

/* ---- life ---- */

static void free_container(struct container *container)
{
	free(container->log_path);
	free(container->log_place);
	free(container->record_path);
	free(container);
}

static void release(struct container *container)
{
	if (--container->n_open == 0)
		free_container(container);
}

static void handle_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

static void handle_reports_closed(struct reports *reports)
{
	release((struct container *)((char *)reports - offsetof(struct container, reports)));
}

static int acquire(struct container *container, const char *engine, struct error *err)
{
	struct driver_shared *shared = container->environment->shared;
	int r = container_owners_acquire(shared);
	if (r < 0)
		return error_set(err, r, "out of memory");
	r = docker_acquire(container->environment, engine, &container->docker, err);
	if (r < 0)
		container_owners_release(shared);
	return r;
}

static int container_create(const struct driver_environment *environment, const struct service_config *config,
	size_t index, struct driver_service **ret_service, struct error *err)
{
	struct container *container = calloc(1, sizeof(*container));
	if (container == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	*container = (struct container){
		.base = { .ops = &container_driver, .index = index },
		.environment = environment,
		.config = config,
		.user = { .is_meant = container_is_meant, .handle_due = handle_due, .handle_away = handle_away },
		.log_path = log_file_path(environment->log_dir, config->name),
		.log_place = container_log_place(environment->state_dir, config->name),
		.record_path = record_path(environment->state_dir, config->name),
		.look_at_ms = NEVER,
		.find_until_ms = NEVER,
		.n_open = 2,
	};
	bool has_paths = container->log_path != NULL && container->log_place != NULL && container->record_path != NULL;
	int r = !has_paths ? error_set(err, -ENOMEM, "out of memory")
			   : acquire(container, config->container.engine, err);
	if (r < 0) {
		free_container(container);
		return r;
	}
	reports_init(&container->reports, environment->loop, environment->listener, index);
	uv_timer_init(environment->loop, &container->timer);
	container->timer.data = container;
	docker_use(container->docker, &container->user);
	*ret_service = &container->base;
	return 0;
}

static void container_destroy(struct driver_service *service)
{
	struct container *container = (struct container *)service;
	if (container->run != NULL)
		run_finish(container->run);
	container->look_call = docker_cancel(container->look_call);
	docker_unuse(container->docker, &container->user);
	container->docker = docker_release(container->docker);
	container_owners_release(container->environment->shared);
	reports_close(&container->reports, handle_reports_closed);
	uv_close((uv_handle_t *)&container->timer, handle_timer_closed);
}

const struct driver_ops container_driver = {
	.name = "container",
	.create = container_create,
	.destroy = container_destroy,
	.find = container_find,
	.adopt = container_adopt,
	.start = container_start,
	.stop = container_stop,
	.owns = container_owns,
	.check = container_check,
	.get_address = container_get_address,
	.get_obstacle = container_get_obstacle,
};
