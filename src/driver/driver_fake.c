/* The simulated twin of the drivers. Must not touch any process, file or clock. */
#include "driver/driver_fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "driver/report.h"

#define FIRST_PID 1000000

struct fake {
	struct driver_service base;
	struct reports reports;
	struct fake_script script;
	struct fake_calls calls;
	bool alive, held;
	uint64_t run;
	pid_t pid;
};

static struct fake *fake_of(struct driver_service *service)
{
	return (struct fake *)service;
}

static void handle_closed(struct reports *reports)
{
	free((char *)reports - offsetof(struct fake, reports));
}

static int fake_create(const struct driver_environment *environment, const struct service_config *config, size_t index,
	struct driver_service **ret_service, struct error *err)
{
	struct fake *fake = calloc(1, sizeof(*fake));
	(void)config;
	if (fake == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	fake->base = (struct driver_service){ .ops = &fake_driver, .index = index };
	reports_init(&fake->reports, environment->loop, environment->listener, index);
	*ret_service = &fake->base;
	return 0;
}

static void fake_destroy(struct driver_service *service)
{
	reports_close(&fake_of(service)->reports, handle_closed);
}

static void report(struct fake *fake, enum report_kind kind, const char *text)
{
	reports_add(&fake->reports, kind, fake->run, fake->alive, fake->pid, text);
}

static void fake_find(struct driver_service *service, bool healthy)
{
	struct fake *fake = fake_of(service);
	fake->calls.finds++;
	fake->calls.last_healthy = healthy;
	bool alive = fake->alive || fake->script.found_alive;
	pid_t pid = fake->alive ? fake->pid : fake->script.found_pid;
	reports_push(&fake->reports,
		&(struct report){
			.kind = REPORT_FOUND,
			.alive = alive,
			.pid = alive ? pid : 0,
			.external = !fake->alive && fake->script.found_external,
		});
}

static void fake_adopt(struct driver_service *service, uint64_t run, pid_t pid)
{
	struct fake *fake = fake_of(service);
	fake->calls.adopts++;
	fake->alive = true;
	fake->run = run;
	fake->pid = pid;
}

static void fake_start(struct driver_service *service, uint64_t run, const char *gpu_ids)
{
	struct fake *fake = fake_of(service);
	fake->calls.starts++;
	snprintf(fake->calls.last_gpu_ids, sizeof(fake->calls.last_gpu_ids), "%s", gpu_ids != NULL ? gpu_ids : "");
	fake->run = run;
	fake->pid = FIRST_PID + (pid_t)service->index;
	if (fake->script.start_failure != NULL) {
		reports_push(&fake->reports,
			&(struct report){
				.kind = REPORT_START_FAILED,
				.run = run,
				.failure = fake->script.failure,
				.text = fake->script.start_failure,
			});
		return;
	}
	fake->alive = true;
	fake->held = fake->script.hold_start;
	if (!fake->held)
		report(fake, REPORT_STARTED, NULL);
}

static void fake_stop(struct driver_service *service, bool force)
{
	struct fake *fake = fake_of(service);
	if (force)
		fake->calls.forced_stops++;
	else
		fake->calls.stops++;
	if (!fake->alive)
		return;
	if (fake->script.stop_refusal != NULL)
		report(fake, REPORT_STOP_REFUSED, fake->script.stop_refusal);
	else if (force)
		fake_driver_end(service, "killed by signal 9 (SIGKILL)");
	else if (!fake->script.deaf)
		fake_driver_end(service, "exited with status 0");
}

static bool fake_owns(struct driver_service *service, pid_t pid)
{
	const struct fake *fake = fake_of(service);
	if (!fake->alive || pid <= 0)
		return false;
	for (size_t i = 0; i < sizeof(fake->script.owns) / sizeof(fake->script.owns[0]); i++)
		if (fake->script.owns[i] == pid)
			return true;
	return fake->pid == pid;
}

static void fake_check(struct driver_service *service, uint64_t run)
{
	struct fake *fake = fake_of(service);
	const char *text = fake->script.unhealthy;
	fake->calls.checks++;
	reports_add(&fake->reports, REPORT_HEALTH, run, text == NULL, 0, text);
}

static bool fake_get_address(struct driver_service *service, char *buffer, size_t size)
{
	const struct fake *fake = fake_of(service);
	if (fake->script.address == NULL)
		return false;
	return (size_t)snprintf(buffer, size, "%s", fake->script.address) < size;
}

void fake_driver_change(struct driver_service *service)
{
	report(fake_of(service), REPORT_CHANGED, NULL);
}

struct fake_script *fake_driver_script(struct driver_service *service)
{
	return &fake_of(service)->script;
}

const struct fake_calls *fake_driver_calls(const struct driver_service *service)
{
	return &((const struct fake *)service)->calls;
}

bool fake_driver_is_alive(const struct driver_service *service)
{
	return ((const struct fake *)service)->alive;
}

void fake_driver_release(struct driver_service *service)
{
	struct fake *fake = fake_of(service);
	if (fake->held)
		report(fake, REPORT_STARTED, NULL);
	fake->held = false;
}

void fake_driver_end_leader(struct driver_service *service, const char *text)
{
	if (fake_of(service)->alive)
		report(fake_of(service), REPORT_LEADER_ENDED, text);
}

void fake_driver_end(struct driver_service *service, const char *text)
{
	struct fake *fake = fake_of(service);
	if (!fake->alive)
		return;
	fake_driver_release(service);
	fake->alive = false;
	report(fake, REPORT_GONE, text);
}

const struct driver_ops fake_driver = {
	.name = "fake",
	.create = fake_create,
	.destroy = fake_destroy,
	.find = fake_find,
	.adopt = fake_adopt,
	.start = fake_start,
	.stop = fake_stop,
	.owns = fake_owns,
	.check = fake_check,
	.get_address = fake_get_address,
};
