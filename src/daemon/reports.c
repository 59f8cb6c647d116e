/* What drivers, probes and the sampler report, as events for the engine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/daemon.h"

#define FIND_PROBE_MS 2000 /* somebody who runs already answers at once, or counts as not healthy yet */

/* ---- drivers ---- */

static bool has_obstacle(const struct daemon_service *service, char *text, size_t size)
{
	struct driver_service *driver = service->driver;
	return driver != NULL && driver->ops->get_obstacle != NULL && driver->ops->get_obstacle(driver, text, size);
}

static void handle_found(void *context, size_t index, const struct driver_sighting *sighting)
{
	struct daemon *daemon = context;
	const struct daemon_service *service = daemon->services[index];
	char obstacle[400];
	/* Whoever answers at the address of a container that does not run is somebody else; and the kernel accepts
	 * connections for one that is frozen. */
	bool is_container = daemon->config->services[index].driver == DRIVER_CONTAINER;
	bool healthy = service->find_healthy && (sighting->alive || !is_container) &&
		!has_obstacle(service, obstacle, sizeof(obstacle));
	const struct event event = {
		.kind = EVENT_FOUND,
		.service = index,
		.found = { .alive = sighting->alive,
			.healthy = healthy,
			.pid = sighting->pid,
			.external = sighting->is_external,
			.stopping = sighting->is_stopping,
			.untold = sighting->is_untold },
		.text = sighting->text,
	};
	daemon_bring(daemon, &event);
}

static void handle_changed(void *context, size_t service)
{
	const struct event event = { .kind = EVENT_LOOK, .service = service };
	daemon_bring(context, &event);
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

static void handle_start_failed(
	void *context, size_t service, uint64_t run, enum driver_failure failure, const char *text)
{
	static const enum start_failure failures[] = {
		[DRIVER_FAILED] = START_FAILURE_OTHER,
		[DRIVER_NOT_FOUND] = START_FAILURE_NOT_FOUND,
		[DRIVER_UNTOLD] = START_FAILURE_UNTOLD,
	};
	((struct daemon *)context)->services[service]->is_alive = false;
	const struct event event = {
		.kind = EVENT_START_FAILED,
		.service = service,
		.run = run,
		.failure = failures[failure],
		.text = text,
	};
	daemon_bring(context, &event);
}

static void handle_leader_ended(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_LEADER_ENDED, service, run, text);
}

static void handle_gone(void *context, size_t service, uint64_t run, bool by_others, const char *text)
{
	((struct daemon *)context)->services[service]->is_alive = false;
	const struct event event = {
		.kind = EVENT_GONE, .service = service, .run = run, .by_others = by_others, .text = text
	};
	daemon_bring(context, &event);
}

static void handle_hindered(void *context, size_t service, uint64_t run, bool is_over, const char *text)
{
	const struct event event = {
		.kind = EVENT_HINDERED, .service = service, .run = run, .is_over = is_over, .text = text
	};
	daemon_bring(context, &event);
}

static void handle_stop_refused(void *context, size_t service, uint64_t run, const char *text)
{
	bring_text(context, EVENT_STOP_REFUSED, service, run, text);
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

static void handle_health(void *context, size_t index, uint64_t run, bool healthy, const char *text)
{
	struct daemon *daemon = context;
	if (run == daemon->services[index]->probe_run)
		bring_health(daemon->services[index], healthy, text);
}

static void handle_trouble(void *context, const char *subject, bool is_over, const char *text)
{
	struct daemon *daemon = context;
	struct notice notice = { .type = is_over ? "driver.recovered" : "driver.trouble", .is_problem = !is_over };
	snprintf(notice.subject, sizeof(notice.subject), "%s", subject);
	snprintf(notice.text, sizeof(notice.text), "%s", text);
	log_line(is_over ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "%s", text);
	if (daemon->api != NULL)
		api_publish(daemon->api, &notice);
}

const struct driver_listener driver_reports = {
	.handle_found = handle_found,
	.handle_changed = handle_changed,
	.handle_started = handle_started,
	.handle_start_failed = handle_start_failed,
	.handle_leader_ended = handle_leader_ended,
	.handle_gone = handle_gone,
	.handle_hindered = handle_hindered,
	.handle_stop_refused = handle_stop_refused,
	.handle_main_pid = handle_main_pid,
	.handle_health = handle_health,
	.handle_trouble = handle_trouble,
};

/* ---- probes ---- */

/*
 * The probe as it is asked now: `:8080` is meant at the address that the driver knows of. -EADDRNOTAVAIL: it knows of
 * none. `ret_owned` is freed by the caller once the probe has begun.
 */
static int locate(const struct daemon_service *service, const struct probe_config *config,
	struct probe_config *ret_probe, char **ret_owned)
{
	struct driver_service *driver = service->driver;
	char host[64];
	*ret_probe = *config;
	*ret_owned = NULL;
	if (config->address == NULL || config->address[0] != ':')
		return 0;
	if (driver == NULL || driver->ops->get_address == NULL || !driver->ops->get_address(driver, host, sizeof(host)))
		return -EADDRNOTAVAIL;
	bool is_v6 = strchr(host, ':') != NULL;
	if (asprintf(ret_owned, "%s%s%s%s%s", config->kind == PROBE_HTTP ? "http://" : "", is_v6 ? "[" : "", host,
		    is_v6 ? "]" : "", config->address) < 0) {
		*ret_owned = NULL;
		return -ENOMEM;
	}
	ret_probe->address = *ret_owned;
	return 0;
}

/* How the probe is executed, if it is a command. */
static int make_runner(struct daemon_service *service, const struct probe_config *config, struct probe_command *kept,
	uint64_t run, struct probe_runner *ret_runner, struct error *err)
{
	struct daemon *daemon = service->daemon;
	const struct command_options options = { .words = &config->command, .is_probe = true };
	*ret_runner = (struct probe_runner){ .command = &kept->command, .open_files = daemon->environment.open_files };
	if (config->kind != PROBE_COMMAND || (kept->is_ready && kept->run == run))
		return 0;
	service_forget_command(kept);
	int result = command_prepare(
		&daemon->environment, &daemon->config->services[service->index], &options, &kept->command, err);
	kept->is_ready = result == 0;
	kept->run = run;
	return result;
}

/* `run` 0: of none in particular. */
static int ask(struct daemon_service *service, uint64_t run, uint64_t timeout_ms, probe_handler handler,
	struct probe **ret_probe, struct error *err)
{
	struct daemon *daemon = service->daemon;
	struct probe_config health;
	struct probe_runner runner;
	CLEANUP_FREE char *owned = NULL;
	int result = locate(service, &daemon->config->services[service->index].health, &health, &owned);
	if (result == -EADDRNOTAVAIL)
		return error_set(err, result,
			"the container has no address of its own; write the host's, such as 127.0.0.1, and publish the "
			"port");
	if (result < 0)
		return error_set(err, result, "%s", strerror(-result));
	result = make_runner(service, &health, &service->health_command, run, &runner, err);
	if (result < 0)
		return result;
	result = probe_start(daemon->prober, &health, &runner, timeout_ms, handler, service, ret_probe);
	return result < 0 ? error_set(err, result, "%s", strerror(-result)) : 0;
}

static void look_with_driver(struct daemon_service *service)
{
	if (service->driver != NULL)
		service->driver->ops->find(service->driver, service->find_healthy);
	else
		handle_found(service->daemon, service->index, &(struct driver_sighting){ 0 });
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
	struct daemon_service *service = daemon->services[index];
	if (service->find_probe != NULL)
		return; /* its answer is on the way */
	service_refresh_driver(service);
	service->find_healthy = false;
	struct error err;
	if (service->driver == NULL ||
		ask(service, 0, FIND_PROBE_MS, handle_find_probe, &service->find_probe, &err) < 0)
		look_with_driver(service);
}

static void handle_probe(void *context, bool passed, const char *text)
{
	struct daemon_service *service = context;
	service->probe = NULL;
	bring_health(service, passed, text);
}

static void check_with_driver(struct daemon_service *service, uint64_t run)
{
	struct driver_service *driver = service->driver;
	if (driver != NULL && driver->ops->check != NULL)
		driver->ops->check(driver, run);
	else
		bring_health(service, false, "a service of this kind has no health check of its own");
}

void report_probe_begin(struct daemon *daemon, size_t index, uint64_t run, uint64_t timeout_ms)
{
	struct daemon_service *service = daemon->services[index];
	if (service->probe != NULL)
		probe_cancel(service->probe); /* of an earlier run, or given up by the engine */
	service->probe = NULL;
	service->probe_run = run;
	if (daemon->config->services[index].health.kind == PROBE_CONTAINER) {
		check_with_driver(service, run);
		return;
	}
	char obstacle[400];
	if (has_obstacle(service, obstacle, sizeof(obstacle))) {
		bring_health(service, false, obstacle);
		return;
	}
	struct error err = { "" };
	if (ask(service, run, timeout_ms, handle_probe, &service->probe, &err) < 0)
		bring_health(service, false, err.message);
}

static void bring_busy(struct daemon_service *service, bool known, bool busy)
{
	const struct event event = {
		.kind = EVENT_BUSY,
		.service = service->index,
		.run = service->busy_run,
		.busy = { .known = known, .busy = busy },
	};
	daemon_bring(service->daemon, &event);
}

static void handle_busy(void *context, bool known, bool busy, const char *text)
{
	struct daemon_service *service = context;
	service->busy_probe = NULL;
	if (!known && !service->busy_is_unknown)
		log_warning("%s does not say whether it works (services.%s.busy): %s",
			service->daemon->config->services[service->index].name,
			service->daemon->config->services[service->index].name, text);
	service->busy_is_unknown = !known;
	bring_busy(service, known, busy);
}

void report_busy_begin(struct daemon *daemon, size_t index, uint64_t run, uint64_t timeout_ms)
{
	struct daemon_service *service = daemon->services[index];
	struct probe_config busy;
	struct probe_runner runner;
	struct error err = { "" };
	CLEANUP_FREE char *owned = NULL;
	if (service->busy_probe != NULL)
		probe_cancel(service->busy_probe); /* of an earlier run, or given up by the engine */
	service->busy_probe = NULL;
	service->busy_run = run;
	int result = locate(service, &daemon->config->services[index].busy, &busy, &owned);
	if (result == 0)
		result = make_runner(service, &busy, &service->busy_command, run, &runner, &err);
	if (result == 0)
		result = busy_start(
			daemon->prober, &busy, &runner, timeout_ms, handle_busy, service, &service->busy_probe);
	if (result < 0)
		handle_busy(service, false, false, err.message[0] != '\0' ? err.message : strerror(-result));
}

void report_cancel_probes(struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		struct daemon_service *service = daemon->services[i];
		if (service == NULL)
			continue; /* it never came to be */
		if (service->probe != NULL)
			probe_cancel(service->probe);
		if (service->find_probe != NULL)
			probe_cancel(service->find_probe);
		if (service->busy_probe != NULL)
			probe_cancel(service->busy_probe);
		service->busy_probe = NULL;
		service->probe = NULL;
		service->find_probe = NULL;
	}
}

/* ---- readings ---- */

const struct daemon_service *report_owner(const struct daemon *daemon, pid_t pid)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		struct driver_service *driver = daemon->services[i]->driver;
		if (driver != NULL && driver->ops->owns(driver, pid))
			return daemon->services[i];
	}
	return NULL;
}

static void measure(struct daemon *daemon, const struct gpu_reading *reading, uint32_t *measured_mib)
{
	memset(measured_mib, 0, daemon->config->n_services * sizeof(measured_mib[0]));
	for (size_t i = 0; i < reading->n_processes; i++) {
		const struct gpu_process *process = &reading->processes[i];
		const struct daemon_service *owner = report_owner(daemon, process->pid);
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
		/* One that failed as a whole is none: the last one counts until it is too old. */
		.readings = { .taken_ms = sample->taken_ms,
			.n_gpus = sample->problem[0] == '\0' ? sample->n_gpus : 0,
			.gpus = facts },
	};
	daemon_bring(daemon, &event);
}

void report_sampler_recovery(void *context, const char *text)
{
	struct daemon *daemon = context;
	struct notice notice = { .type = "sampler.recovery" };
	snprintf(notice.subject, sizeof(notice.subject), "sampler");
	snprintf(notice.text, sizeof(notice.text), "%s", text);
	log_info("%s", text);
	if (daemon->api != NULL)
		api_publish(daemon->api, &notice);
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
