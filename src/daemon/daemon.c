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

#define RETRY_MS 100 /* an event that found no memory is brought again after that, time itself among them */
#define READY_AGAIN_MS 100

/* ---- the pump ---- */

static void handle_clock(uv_timer_t *timer);

/* Without memory a deadline that is over stays so, however often it is asked for. */
static void arm_clock(struct daemon *daemon, bool has_memory)
{
	uint64_t deadline = engine_next_deadline(daemon->engine);
	uint64_t now = clock_now_ms();
	uint64_t wait = deadline <= now ? 0 : deadline - now;
	if (daemon->is_stopping || (deadline == UINT64_MAX && has_memory)) {
		uv_timer_stop(&daemon->clock);
		return;
	}
	uv_update_time(&daemon->loop);
	uv_timer_start(&daemon->clock, handle_clock, has_memory ? wait : RETRY_MS, 0);
}

/* Whatever is lost here would be waited for in vain, so some are kept for when there is no memory. */
static struct queued_event *make_event(struct daemon *daemon)
{
	struct queued_event *queued = calloc(1, sizeof(*queued));
	for (size_t i = 0; queued == NULL && i < EVENTS_SPARE; i++)
		if (!daemon->spare_used[i]) {
			daemon->spare_used[i] = true;
			queued = &daemon->spare_events[i];
		}
	return queued;
}

static void free_event(struct daemon *daemon, struct queued_event *queued)
{
	free(queued->text);
	if (queued >= daemon->spare_events && queued < daemon->spare_events + EVENTS_SPARE)
		daemon->spare_used[queued - daemon->spare_events] = false;
	else
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
	free_event(daemon, queued);
	perform_effects(daemon);
	return true;
}

/* `has_memory`: what was dealt with just now, if anything, has found some. */
static void pump(struct daemon *daemon, bool has_memory)
{
	daemon->is_pumping = true;
	while (has_memory && daemon->first_event != NULL)
		has_memory = deal_with_first(daemon);
	daemon->is_pumping = false;
	arm_clock(daemon, has_memory);
	if (daemon->is_exiting && !daemon->is_stopping && engine_may_exit(daemon->engine))
		uv_stop(&daemon->loop);
}

void daemon_flush(struct daemon *daemon)
{
	if (!daemon->has_effects || daemon->is_pumping)
		return;
	daemon->has_effects = false;
	uv_idle_stop(&daemon->flush);
	daemon->is_pumping = true;
	perform_effects(daemon);
	pump(daemon, true);
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
	int result = engine_handle(daemon->engine, event, clock_now_ms(), &daemon->effects);
	if (result == 0)
		perform_effects(daemon);
	pump(daemon, result != -ENOMEM);
}

/* Their connections end with the daemon, and their leases do not. */
static bool is_of_a_client(enum event_kind kind)
{
	return kind >= EVENT_SUBMIT && kind <= EVENT_UNLOCK;
}

void daemon_bring(struct daemon *daemon, const struct event *event)
{
	if (daemon->is_stopping || (daemon->is_exiting && is_of_a_client(event->kind)))
		return;
	if (event->kind == EVENT_READINGS || event->kind == EVENT_TICK) {
		bring_now(daemon, event);
		return;
	}
	struct queued_event *queued = make_event(daemon);
	if (queued == NULL) {
		log_error("out of memory: an event is lost; gpumgrd stops, its services go on");
		abort();
	}
	*queued = (struct queued_event){ .event = *event };
	if (event->text != NULL)
		queued->text = strdup(event->text);
	queued->event.text = queued->text;
	*daemon->last_event = queued;
	daemon->last_event = &queued->next;
	daemon_flush(daemon);
	if (!daemon->is_pumping && daemon->first_event != NULL)
		pump(daemon, true);
}

static void handle_clock(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	const struct event event = { .kind = EVENT_TICK };
	if (daemon->first_event != NULL)
		pump(daemon, true); /* an event that found no memory comes first */
	else
		daemon_bring(daemon, &event);
}

/* A file that is wrong changes nothing, and its mistakes stand in the log. */
static void reload_for_signal(struct daemon *daemon)
{
	struct config_changes changes;
	struct config_report report;
	log_info("SIGHUP: the configuration is read again");
	reload(daemon, &changes, &report);
	config_changes_finish(&changes);
	config_report_finish(&report);
}

/* What was looked for in vain says why in its error, and is not waited for. */
static size_t count_to_stop(struct daemon *daemon)
{
	const struct status *status = engine_status(daemon->engine, clock_now_ms());
	size_t n = 0;
	for (size_t i = 0; i < status->n_services; i++) {
		const struct service_status *service = &status->services[i];
		bool is_unknown = service->state == SERVICE_UNKNOWN;
		if (!service->definition->stop_on_exit)
			continue;
		if (is_unknown && service->error != NULL)
			log_warning("%s is not stopped (on_exit: stop): %s", service->definition->name, service->error);
		else
			n += service->live || is_unknown;
	}
	return n;
}

/* Whoever waits is told before services are stopped; a second signal does not wait for that. */
static void end(struct daemon *daemon, const char *signal)
{
	const struct event exit = { .kind = EVENT_EXIT };
	size_t n = daemon->is_exiting ? 0 : count_to_stop(daemon);
	if (n == 0) {
		log_info("%s: stopping; %s", signal, daemon->is_exiting ? "at once" : "services go on");
		uv_stop(&daemon->loop);
		return;
	}
	log_info("%s: stopping, as soon as %zu services have stopped (on_exit: stop); the others go on", signal, n);
	daemon_flush(daemon);
	daemon->is_exiting = true;
	daemon->api = api_destroy(daemon->api);
	daemon_bring(daemon, &exit);
}

static void handle_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;
	if (number == SIGHUP) {
		if (!daemon->is_exiting)
			reload_for_signal(daemon);
		return;
	}
	end(daemon, number == SIGINT ? "SIGINT" : "SIGTERM");
}

/* ---- creation ---- */

/* Nobody waits for lines of the log longer than the loop works. */
static void handle_before_poll(uv_prepare_t *prepare)
{
	(void)prepare;
	log_flush();
}

static int create_loop(struct daemon *daemon, struct error *err)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
	int result = uv_loop_init(&daemon->loop);
	if (result < 0)
		return error_set(err, result, "event loop: %s", uv_strerror(result));
	uv_idle_init(&daemon->loop, &daemon->flush);
	uv_timer_init(&daemon->loop, &daemon->clock);
	uv_timer_init(&daemon->loop, &daemon->watchdog);
	uv_timer_init(&daemon->loop, &daemon->ready);
	uv_prepare_init(&daemon->loop, &daemon->before_poll);
	uv_prepare_start(&daemon->before_poll, handle_before_poll);
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
	struct definitions definitions;
	int result = definitions_create(daemon->config, NULL, &definitions);
	if (result == 0) {
		const struct engine_config engine_config = definitions_engine_config(daemon->config, &definitions);
		definitions_use(daemon, &definitions);
		result = engine_create(&engine_config, &daemon->engine);
	}
	return result < 0 ? error_set(err, result, "out of memory") : 0;
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
		.shared = &daemon->driver_shared,
		.log_dir = daemon->paths->log_dir,
		.state_dir = daemon->paths->state_dir,
		.instance = daemon->paths->instance,
		.sim_dir = config->gpu.sim_dir,
		.open_files = has_limit ? &daemon->open_files : NULL,
	};
	daemon->services = calloc(config->n_services + 1, sizeof(struct daemon_service *));
	daemon->measured_mib = calloc(GPU_MAX * (config->n_services + 1), sizeof(daemon->measured_mib[0]));
	if (daemon->services == NULL || daemon->measured_mib == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	int result = prober_create(&daemon->loop, &daemon->prober);
	if (result < 0)
		return error_set(err, result, "health checks: %s", strerror(-result));
	for (size_t i = 0; i < config->n_services; i++) {
		daemon->services[i] = service_create(daemon, i);
		if (daemon->services[i] == NULL)
			return error_set(err, -ENOMEM, "out of memory");
		service_create_driver(daemon->services[i]);
	}
	return 0;
}

static int create_sampler(struct daemon *daemon, struct error *err)
{
	const struct sampler_listener listener = {
		.context = daemon,
		.handle_sample = report_sample,
		.handle_trouble = report_sampler_trouble,
		.handle_recovery = report_sampler_recovery,
	};
	/* The first file stays: it borrows from there. */
	return sampler_create(&daemon->loop, &daemon->files->config->gpu, &listener, &daemon->sampler, err);
}

static void say_addresses(const struct config *config)
{
	for (size_t i = 0; i < config->listen.n; i++)
		log_info("listens on %s, %s", config->listen.items[i],
			config->open ? "open to everybody who reaches it" : "for whoever has the token");
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
	int result = api_create(&daemon->loop, &daemon->host, &options, &daemon->api, err);
	if (result == 0)
		say_addresses(config);
	return result;
}

int daemon_create(
	struct config *config, struct daemon_paths *paths, int listen_fd, struct daemon **ret_daemon, struct error *err)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	if (daemon == NULL) {
		config_free(config);
		return error_set(err, -ENOMEM, "out of memory");
	}
	daemon->paths = paths;
	daemon->last_event = &daemon->first_event;
	int result = reload_begin(daemon, config);
	if (result < 0)
		error_set(err, result, "out of memory");
	else
		result = create_loop(daemon, err);
	if (result < 0) {
		reload_finish(daemon);
		free(daemon);
		return result;
	}
	result = create_engine(daemon, err);
	if (result == 0)
		result = leases_create(daemon, err);
	if (result == 0)
		result = create_drivers(daemon, err);
	/* Before the sampler: where another daemon serves the socket, no child is begun. */
	if (result == 0)
		result = create_api(daemon, listen_fd, err);
	if (result == 0)
		result = create_sampler(daemon, err);
	if (result < 0) {
		daemon_destroy(daemon);
		return result;
	}
	*ret_daemon = daemon;
	return 0;
}

/* Who never hears it ends us, however well we serve: unlike a sign of life, no other one follows it. */
static void handle_ready(uv_timer_t *timer)
{
	if (!supervisor_notify("READY=1"))
		uv_timer_start(timer, handle_ready, READY_AGAIN_MS, 0);
}

static void handle_watchdog(uv_timer_t *timer)
{
	(void)timer;
	supervisor_notify("WATCHDOG=1");
}

/* By the loop itself: a loop that hangs must not look alive. */
static void begin_watchdog(struct daemon *daemon)
{
	uint64_t interval_ms = supervisor_watchdog_ms();
	if (interval_ms > 0)
		uv_timer_start(&daemon->watchdog, handle_watchdog, 0, interval_ms);
}

void daemon_run(struct daemon *daemon)
{
	const struct event begin = { .kind = EVENT_TICK };
	log_collect();
	handle_ready(&daemon->ready);
	begin_watchdog(daemon);
	daemon_bring(daemon, &begin);
	uv_run(&daemon->loop, UV_RUN_DEFAULT);
	log_flush();
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
	close_handle((uv_handle_t *)&daemon->watchdog);
	close_handle((uv_handle_t *)&daemon->ready);
	close_handle((uv_handle_t *)&daemon->before_poll);
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
		if (daemon->services[i] != NULL)
			daemon->services[i]->driver = driver_destroy(daemon->services[i]->driver);
	daemon->prober = prober_destroy(daemon->prober);
	leases_destroy(daemon);
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
		free_event(daemon, queued);
	}
	effects_finish(&daemon->effects);
	daemon->engine = engine_destroy(daemon->engine);
	definitions_free(&daemon->definitions);
	for (size_t i = 0; daemon->services != NULL && i < daemon->config->n_services; i++)
		service_destroy(daemon->services[i]);
	free(daemon->services);
	free(daemon->measured_mib);
	log_flush();
	reload_finish(daemon);
	free(daemon);
	return NULL;
}
