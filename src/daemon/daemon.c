/* The daemon's life: what is created in which order, the pump of events, the clock, and the end. */
#include "daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define RETRY_MS 100 /* an event that found no memory is brought again after that */

/* ---- the pump ---- */

static void handle_clock(uv_timer_t *timer);

static void arm_clock(struct daemon *daemon, uint64_t at_most_ms)
{
	uint64_t deadline = engine_next_deadline(daemon->engine);
	uint64_t now = clock_now_ms();
	uint64_t wait = deadline <= now ? 0 : deadline - now;
	if (daemon->is_stopping || (deadline == UINT64_MAX && at_most_ms == UINT64_MAX)) {
		uv_timer_stop(&daemon->clock);
		return;
	}
	uv_update_time(&daemon->loop);
	uv_timer_start(&daemon->clock, handle_clock, wait < at_most_ms ? wait : at_most_ms, 0);
}

static void free_event(struct queued_event *queued)
{
	free(queued->text);
	free(queued);
}

/* The first event is dealt with; false when there was no memory for that, then it stays the first. */
static bool deal_with_first(struct daemon *daemon)
{
	struct queued_event *queued = daemon->first_event;
	int result = engine_handle(daemon->engine, &queued->event, clock_now_ms(), &daemon->effects);
	if (result == -ENOMEM)
		return false;
	daemon->first_event = queued->next;
	if (daemon->first_event == NULL)
		daemon->last_event = &daemon->first_event;
	free_event(queued);
	perform_effects(daemon);
	return true;
}

static void pump(struct daemon *daemon)
{
	bool has_memory = true;
	daemon->is_pumping = true;
	while (has_memory && daemon->first_event != NULL)
		has_memory = deal_with_first(daemon);
	daemon->is_pumping = false;
	arm_clock(daemon, has_memory ? UINT64_MAX : RETRY_MS);
}

void daemon_flush(struct daemon *daemon)
{
	if (!daemon->has_effects || daemon->is_pumping)
		return;
	daemon->has_effects = false;
	uv_idle_stop(&daemon->flush);
	daemon->is_pumping = true;
	perform_effects(daemon);
	pump(daemon);
}

void daemon_handle_flush(uv_idle_t *idle)
{
	daemon_flush(idle->data);
}

/* Readings point into memory of the moment: they are dealt with at once or, in the middle of another event, dropped;
 * the next ones come soon. */
static void bring_now(struct daemon *daemon, const struct event *event)
{
	if (daemon->is_pumping)
		return;
	daemon_flush(daemon);
	daemon->is_pumping = true;
	if (engine_handle(daemon->engine, event, clock_now_ms(), &daemon->effects) == 0)
		perform_effects(daemon);
	pump(daemon);
}

void daemon_bring(struct daemon *daemon, const struct event *event)
{
	if (daemon->is_stopping)
		return;
	if (event->kind == EVENT_READINGS || event->kind == EVENT_TICK) {
		bring_now(daemon, event);
		return;
	}
	struct queued_event *queued = calloc(1, sizeof(*queued));
	if (queued == NULL) {
		log_error("out of memory: an event is lost; gpumgrd stops, its services go on");
		abort();
	}
	queued->event = *event;
	if (event->text != NULL)
		queued->text = strdup(event->text);
	queued->event.text = queued->text;
	*daemon->last_event = queued;
	daemon->last_event = &queued->next;
	daemon_flush(daemon);
	if (!daemon->is_pumping && daemon->first_event != NULL)
		pump(daemon);
}

static void handle_clock(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	const struct event event = { .kind = EVENT_TICK };
	if (daemon->first_event != NULL)
		pump(daemon); /* an event that found no memory comes first */
	else
		daemon_bring(daemon, &event);
}

static void handle_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	if (number == SIGHUP) {
		log_warning("SIGHUP: the configuration is read at the start only; restart gpumgrd to apply changes, "
			    "services go on");
		return;
	}
	log_info("%s: stopping; services go on", number == SIGINT ? "SIGINT" : "SIGTERM");
	uv_stop(&daemon->loop);
}

/* ---- creation ---- */

static int create_loop(struct daemon *daemon, struct error *err)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
	int result = uv_loop_init(&daemon->loop);
	if (result < 0)
		return error_set(err, result, "event loop: %s", uv_strerror(result));
	uv_idle_init(&daemon->loop, &daemon->flush);
	uv_timer_init(&daemon->loop, &daemon->clock);
	daemon->flush.data = daemon;
	daemon->clock.data = daemon;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], handle_signal, numbers[i]);
	}
	return 0;
}

static int create_engine(struct daemon *daemon, struct error *err)
{
	const struct config *config = daemon->config;
	int result = definitions_create(daemon);
	const struct engine_config engine_config = {
		.n_services = config->n_services,
		.services = daemon->definitions,
		.n_phases = config->n_phases,
		.phases = daemon->phases,
		.reserve = config->gpu.reserve,
		.n_gpus = config->gpu.n_gpus,
		.gpu_totals_mib = config->gpu.gpus_mib,
		.wait_ms = config->lease.wait_ms,
	};
	if (result == 0)
		result = engine_create(&engine_config, &daemon->engine);
	return result < 0 ? error_set(err, result, "out of memory") : 0;
}

/* A service of a kind that this build cannot drive does not keep the others from running. */
static void create_driver(struct daemon *daemon, size_t index)
{
	struct daemon_service *service = &daemon->services[index];
	const struct service_config *config = &daemon->config->services[index];
	struct error err = { "" };
	*service = (struct daemon_service){ .daemon = daemon, .index = index };
	if (driver_create(&daemon->environment, config, index, &service->driver, &err) == 0)
		return;
	service->driver = NULL;
	snprintf(service->why_no_driver, sizeof(service->why_no_driver), "%.250s", err.message);
	log_warning("service %s cannot be started: %s", config->name, err.message);
}

static int create_drivers(struct daemon *daemon, struct error *err)
{
	const struct config *config = daemon->config;
	daemon->driver_listener = driver_reports;
	daemon->driver_listener.context = daemon;
	bool has_limit = getrlimit(RLIMIT_NOFILE, &daemon->open_files) == 0;
	daemon->environment = (struct driver_environment){
		.loop = &daemon->loop,
		.listener = &daemon->driver_listener,
		.log_dir = daemon->paths->log_dir,
		.state_dir = daemon->paths->state_dir,
		.instance = daemon->paths->instance,
		.sim_dir = config->gpu.sim_dir,
		.open_files = has_limit ? &daemon->open_files : NULL,
	};
	daemon->services = calloc(config->n_services + 1, sizeof(daemon->services[0]));
	daemon->measured_mib = calloc(GPU_MAX * (config->n_services + 1), sizeof(daemon->measured_mib[0]));
	if (daemon->services == NULL || daemon->measured_mib == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	int result = prober_create(&daemon->loop, &daemon->prober);
	if (result < 0)
		return error_set(err, result, "health checks: %s", strerror(-result));
	for (size_t i = 0; i < config->n_services; i++)
		create_driver(daemon, i);
	return 0;
}

static int create_sampler(struct daemon *daemon, struct error *err)
{
	const struct sampler_listener listener = {
		.context = daemon,
		.handle_sample = report_sample,
		.handle_trouble = report_sampler_trouble,
	};
	return sampler_create(&daemon->loop, &daemon->config->gpu, &listener, &daemon->sampler, err);
}

static int create_api(struct daemon *daemon, int listen_fd, struct error *err)
{
	const struct config *config = daemon->config;
	const struct api_options options = {
		.socket_path = daemon->paths->socket,
		.socket_mode = config->socket_mode,
		.socket_group = config->socket_group,
		.socket_group_required = config->socket_group_set,
		.listen_fd = listen_fd,
	};
	host_init(daemon);
	return api_create(&daemon->loop, &daemon->host, &options, &daemon->api, err);
}

int daemon_create(const struct config *config, struct daemon_paths *paths, int listen_fd, struct daemon **ret_daemon,
	struct error *err)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	if (daemon == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	daemon->config = config;
	daemon->paths = paths;
	daemon->last_event = &daemon->first_event;
	int result = create_loop(daemon, err);
	if (result < 0) {
		free(daemon);
		return result;
	}
	result = create_engine(daemon, err);
	if (result == 0)
		result = create_drivers(daemon, err);
	if (result == 0)
		result = create_api(daemon, listen_fd,
			err); /* before the sampler: a second daemon fails here, with nothing begun */
	if (result == 0)
		result = create_sampler(daemon, err);
	if (result < 0) {
		daemon_destroy(daemon);
		return result;
	}
	*ret_daemon = daemon;
	return 0;
}

void daemon_run(struct daemon *daemon)
{
	const struct event begin = { .kind = EVENT_TICK };
	daemon_bring(daemon, &begin);
	uv_run(&daemon->loop, UV_RUN_DEFAULT);
}

/* ---- the end ---- */

static void close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void close_own_handles(struct daemon *daemon)
{
	close_handle((uv_handle_t *)&daemon->flush);
	close_handle((uv_handle_t *)&daemon->clock);
	for (size_t i = 0; i < ARRAY_SIZE(daemon->signals); i++)
		close_handle((uv_handle_t *)&daemon->signals[i]);
}

static void destroy_parts(struct daemon *daemon)
{
	daemon->api = api_destroy(daemon->api);
	daemon->sampler = sampler_destroy(daemon->sampler);
	if (daemon->services != NULL)
		report_cancel_probes(daemon);
	for (size_t i = 0; daemon->services != NULL && i < daemon->config->n_services; i++)
		daemon->services[i].driver = driver_destroy(daemon->services[i].driver);
	daemon->prober = prober_destroy(daemon->prober);
}

struct daemon *daemon_destroy(struct daemon *daemon)
{
	if (daemon == NULL)
		return NULL;
	daemon_flush(daemon);
	daemon->is_stopping = true;
	destroy_parts(daemon);
	close_own_handles(daemon);
	uv_run(&daemon->loop, UV_RUN_DEFAULT); /* until every handle is closed */
	if (uv_loop_close(&daemon->loop) < 0)
		log_error("handles were left open");
	while (daemon->first_event != NULL) {
		struct queued_event *queued = daemon->first_event;
		daemon->first_event = queued->next;
		free_event(queued);
	}
	effects_finish(&daemon->effects);
	daemon->engine = engine_destroy(daemon->engine);
	definitions_free(daemon);
	free(daemon->services);
	free(daemon->measured_mib);
	free(daemon);
	return NULL;
}
