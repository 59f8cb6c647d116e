/* What drivers, probes and the sampler report, as events for the engine. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"

#define FIND_PROBE_MS 2000 /* somebody who runs already answers at once, or counts as not healthy yet */

/* ---- drivers ---- */

static void handle_found(void *context, size_t service, bool alive, pid_t pid)
{
	struct daemon *daemon = context;
	const struct event event = {
		.kind = EVENT_FOUND,
		.service = service,
		.found = { .alive = alive, .healthy = daemon->services[service].find_healthy, .pid = pid },
	};
	daemon_bring(daemon, &event);
}

static void handle_started(void *context, size_t service, uint64_t run, pid_t pid)
{
	const struct event event = { .kind = EVENT_STARTED, .service = service, .run = run, .started_pid = pid };
	daemon_bring(context, &event);
}

/* A command of type `forking` has put itself into the background: what it left there is the service now. */
static void handle_main_pid(void *context, size_t service, uint64_t run, pid_t pid)
{
	handle_started(context, service, run, pid);
}

static void bring_text(void *context, enum event_kind kind, size_t service, uint64_t run, const char *text)
{
	const struct event event = { .kind = kind, .service = service, .run = run, .text = text };
	daemon_bring(context, &event);
}

static void handle_start_failed(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_START_FAILED, service, run, text);
}

static void handle_leader_ended(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_LEADER_ENDED, service, run, text);
}

static void handle_gone(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_GONE, service, run, text);
}

static void handle_stop_refused(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_STOP_REFUSED, service, run, text);
}

const struct driver_listener driver_reports = {
	.handle_found = handle_found,
	.handle_started = handle_started,
	.handle_start_failed = handle_start_failed,
	.handle_leader_ended = handle_leader_ended,
	.handle_gone = handle_gone,
	.handle_stop_refused = handle_stop_refused,
	.handle_main_pid = handle_main_pid,
};

/* ---- probes ---- */

static void look_with_driver(struct daemon_service *service)
{
	if (service->driver != NULL)
		service->driver->ops->find(service->driver, service->find_healthy);
	else
		handle_found(service->daemon, service->index, false, 0);
}

static void handle_find_probe(void *context, bool passed, const char *text)
{
	struct daemon_service *service = context;
	(void)text;
	service->find_probe = NULL;
	service->find_healthy = passed;
	look_with_driver(service);
}

void report_find_begin(struct daemon *daemon, size_t index)
{
	struct daemon_service *service = &daemon->services[index];
	const struct probe_config *health = &daemon->config->services[index].health;
	if (service->find_probe != NULL)
		return; /* its answer is on the way */
	service->find_healthy = false;
	if (service->driver == NULL ||
		probe_start(daemon->prober, health, FIND_PROBE_MS, handle_find_probe, service, &service->find_probe) <
			0)
		look_with_driver(service);
}

static void bring_health(struct daemon_service *service, bool healthy, const char *text)
{
	const struct event event = {
		.kind = EVENT_HEALTH,
		.service = service->index,
		.run = service->probe_run,
		.healthy = healthy,
		.text = text,
	};
	daemon_bring(service->daemon, &event);
}

static void handle_probe(void *context, bool passed, const char *text)
{
	struct daemon_service *service = context;
	service->probe = NULL;
	bring_health(service, passed, text);
}

void report_probe_begin(struct daemon *daemon, size_t index, uint64_t run, uint64_t timeout_ms)
{
	struct daemon_service *service = &daemon->services[index];
	if (service->probe != NULL)
		probe_cancel(service->probe); /* of an earlier run, or given up by the engine */
	service->probe = NULL;
	service->probe_run = run;
	int result = probe_start(daemon->prober, &daemon->config->services[index].health, timeout_ms, handle_probe,
		service, &service->probe);
	if (result < 0)
		bring_health(service, false, strerror(-result));
}

void report_cancel_probes(struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		struct daemon_service *service = &daemon->services[i];
		if (service->probe != NULL)
			probe_cancel(service->probe);
		if (service->find_probe != NULL)
			probe_cancel(service->find_probe);
		service->probe = NULL;
		service->find_probe = NULL;
	}
}

/* ---- readings ---- */

static struct daemon_service *find_owner(struct daemon *daemon, pid_t pid)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		struct driver_service *driver = daemon->services[i].driver;
		if (driver != NULL && driver->ops->owns(driver, pid))
			return &daemon->services[i];
	}
	return NULL;
}

static void measure(struct daemon *daemon, const struct gpu_reading *reading, uint32_t *measured_mib)
{
	memset(measured_mib, 0, daemon->config->n_services * sizeof(measured_mib[0]));
	for (size_t i = 0; i < reading->n_processes; i++) {
		const struct gpu_process *process = &reading->processes[i];
		const struct daemon_service *owner = find_owner(daemon, process->pid);
		if (owner != NULL && process->mib != GPU_MIB_UNKNOWN)
			measured_mib[owner->index] += process->mib;
	}
}

void report_sample(void *context, const struct gpu_sample *sample)
{
	struct daemon *daemon = context;
	struct gpu_facts facts[GPU_MAX];
	snprintf(daemon->sampler_problem, sizeof(daemon->sampler_problem), "%s", sample->problem);
	definitions_resolve(daemon, sample);
	for (unsigned gpu = 0; gpu < sample->n_gpus; gpu++) {
		const struct gpu_reading *reading = &sample->gpus[gpu];
		uint32_t *measured_mib = daemon->measured_mib + gpu * (daemon->config->n_services + 1);
		facts[gpu] = (struct gpu_facts){
			.has_total = (reading->valid & GPU_VALID_TOTAL) != 0,
			.has_used = (reading->valid & GPU_VALID_USED) != 0,
			.has_processes = (reading->valid & GPU_VALID_PROCESSES) != 0,
			.total_mib = reading->total_mib,
			.used_mib = reading->used_mib,
			.measured_mib = measured_mib,
		};
		if (facts[gpu].has_processes)
			measure(daemon, reading, measured_mib);
	}
	const struct event event = {
		.kind = EVENT_READINGS,
		.readings = { .taken_ms = sample->taken_ms, .n_gpus = sample->n_gpus, .gpus = facts },
	};
	daemon_bring(daemon, &event);
}

void report_sampler_trouble(void *context, const char *text)
{
	struct daemon *daemon = context;
	struct notice notice = { .type = "sampler.trouble", .is_problem = true };
	snprintf(daemon->sampler_problem, sizeof(daemon->sampler_problem), "%s", text);
	snprintf(notice.subject, sizeof(notice.subject), "sampler");
	snprintf(notice.text, sizeof(notice.text), "%s", text);
	log_warning("%s", text);
	if (daemon->api != NULL)
		api_publish(daemon->api, &notice);
}
