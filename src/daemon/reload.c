/*
 * Another configuration file while the daemon runs: all of it is checked before anything changes, and when there is no
 * memory for it nothing has changed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/daemon.h"

/* ---- files ---- */

static int keep_file(struct daemon *daemon, struct config *config)
{
	struct config_file *file = malloc(sizeof(*file));
	if (file == NULL)
		return -ENOMEM;
	*file = (struct config_file){ .older = daemon->files, .config = config };
	daemon->files = file;
	return 0;
}

static struct config_file *free_file(struct config_file *file)
{
	struct config_file *older = file->older;
	config_free(file->config);
	free(file);
	return older;
}

static bool is_used(const struct daemon *daemon, const struct config *config)
{
	if (config_lends_to(config, daemon->config))
		return true;
	for (size_t i = 0; i < daemon->config->n_services; i++)
		if (config_owns_service(config, &daemon->services[i]->driver_config))
			return true;
	return false;
}

/* The newest and the first lend what is outside of services and phases. */
static void drop_unused_files(struct daemon *daemon)
{
	struct config_file **at = &daemon->files->older;
	while (*at != NULL && (*at)->older != NULL) {
		if (is_used(daemon, (*at)->config))
			at = &(*at)->older;
		else
			*at = free_file(*at);
	}
}

int reload_begin(struct daemon *daemon, struct config *config)
{
	struct config *merged;
	if (keep_file(daemon, config) < 0) {
		config_free(config);
		return -ENOMEM;
	}
	int result = config_succeed(NULL, config, &merged);
	if (result == 0)
		daemon->config = merged;
	return result;
}

void reload_finish(struct daemon *daemon)
{
	config_free_merged((struct config *)daemon->config);
	daemon->config = NULL;
	while (daemon->files != NULL)
		daemon->files = free_file(daemon->files);
}

/* ---- what is prepared before anything changes ---- */

struct preparation {
	struct config *merged;
	struct definitions definitions;
	struct daemon_service **services;
	uint32_t *measured_mib;
	const char **lease_services;
};

static void preparation_finish(struct preparation *preparation, size_t n_before)
{
	for (size_t i = n_before; preparation->services != NULL && i < preparation->merged->n_services; i++)
		service_destroy(preparation->services[i]);
	free(preparation->services);
	free(preparation->measured_mib);
	free(preparation->lease_services);
	definitions_free(&preparation->definitions);
	config_free_merged(preparation->merged);
}

/* Services that run keep their place and what is known of them; for new ones there is room. */
static int prepare_services(struct daemon *daemon, struct preparation *preparation)
{
	size_t n = preparation->merged->n_services, n_before = daemon->config->n_services;
	preparation->services = calloc(n + 1, sizeof(struct daemon_service *));
	preparation->measured_mib = calloc(GPU_MAX * (n + 1), sizeof(preparation->measured_mib[0]));
	preparation->lease_services = calloc(n + 1, sizeof(preparation->lease_services[0]));
	if (preparation->services == NULL || preparation->measured_mib == NULL || preparation->lease_services == NULL)
		return -ENOMEM;
	memcpy(preparation->services, daemon->services, n_before * sizeof(daemon->services[0]));
	for (size_t i = n_before; i < n; i++) {
		preparation->services[i] = service_create(daemon, i);
		if (preparation->services[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

static bool differs_in_run(const struct config *now, const struct config *merged, size_t index)
{
	return index < now->n_services &&
		config_compare_services(&now->services[index], &merged->services[index]) == CONFIG_DIFFERS_IN_RUN;
}

static int prepare(struct daemon *daemon, const struct config *next, struct preparation *preparation)
{
	*preparation = (struct preparation){ 0 };
	int result = config_succeed(daemon->config, next, &preparation->merged);
	if (result == 0)
		result = definitions_create(
			preparation->merged, sampler_last(daemon->sampler), &preparation->definitions);
	if (result == 0)
		result = prepare_services(daemon, preparation);
	for (size_t i = 0; result == 0 && i < preparation->merged->n_services; i++)
		preparation->definitions.services[i].is_changed =
			differs_in_run(daemon->config, preparation->merged, i);
	return result;
}

/* ---- the change ---- */

static void renew_drivers(struct daemon *daemon, const struct config *before)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		service_forget_command(&daemon->services[i]->health_command);
		service_forget_command(&daemon->services[i]->busy_command);
		if (i >= before->n_services)
			service_create_driver(daemon->services[i]);
		else if (differs_in_run(before, daemon->config, i))
			service_renew_driver(daemon->services[i]);
	}
}

/* Nothing can fail any more. What was there before is freed. */
static void adopt(struct daemon *daemon, struct preparation *preparation)
{
	struct config *before = (struct config *)daemon->config;
	free(daemon->services);
	free(daemon->measured_mib);
	free(daemon->lease_services);
	daemon->services = preparation->services;
	daemon->measured_mib = preparation->measured_mib;
	daemon->lease_services = preparation->lease_services;
	daemon->config = preparation->merged;
	daemon->host.config = preparation->merged;
	definitions_use(daemon, &preparation->definitions);
	renew_drivers(daemon, before);
	config_free_merged(before);
	drop_unused_files(daemon);
}

static int apply(struct daemon *daemon, struct config *next)
{
	struct preparation preparation;
	daemon_flush(daemon);
	int result = prepare(daemon, next, &preparation);
	if (result == 0)
		result = keep_file(daemon, next);
	if (result < 0) {
		preparation_finish(&preparation, daemon->config->n_services);
		config_free(next);
		return result;
	}
	const struct engine_config config = definitions_engine_config(preparation.merged, &preparation.definitions);
	result = engine_reconfigure(daemon->engine, &config, clock_now_ms(), &daemon->effects);
	if (result < 0) {
		preparation_finish(&preparation, daemon->config->n_services);
		daemon->files = free_file(daemon->files);
		return result;
	}
	adopt(daemon, &preparation);
	return 0;
}

/* ---- telling ---- */

static void log_lines(enum log_level level, const char *text)
{
	while (*text != '\0') {
		size_t length = strcspn(text, "\n");
		log_line(level, "reload: %.*s", (int)length, text);
		text += length + (text[length] == '\n');
	}
}

static void log_report(const struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		CLEANUP_FREE char *line = config_problem_line(report, &report->problems[i]);
		log_line(report->problems[i].is_warning ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "reload: %s",
			line != NULL ? line : "out of memory");
	}
}

static void publish(struct daemon *daemon, const struct config_changes *changes)
{
	struct notice notice = { .type = "config" };
	snprintf(notice.subject, sizeof(notice.subject), "reloaded");
	snprintf(notice.text, sizeof(notice.text), "the configuration was read again");
	notice_add_number(&notice, "added", (int64_t)changes->added.n);
	notice_add_number(&notice, "removed", (int64_t)changes->removed.n);
	notice_add_number(&notice, "changed", (int64_t)(changes->changed.n + changes->changed_runs.n));
	if (daemon->api != NULL)
		api_publish(daemon->api, &notice);
}

int reload(struct daemon *daemon, struct config_changes *ret_changes, struct config_report *ret_report)
{
	const struct event tick = { .kind = EVENT_TICK };
	struct config *next = NULL;
	*ret_changes = (struct config_changes){ 0 };
	int result = config_load(daemon->files->config->path, &next, ret_report);
	log_report(ret_report);
	if (result < 0) {
		log_error("reload: the configuration is wrong; everything stays as it was");
		return result;
	}
	result = config_find_changes(daemon->config, next, ret_changes);
	if (result < 0)
		config_free(next);
	else
		result = apply(daemon, next);
	if (result < 0) {
		log_error("reload: out of memory; everything stays as it was");
		return result;
	}
	CLEANUP_FREE char *text = config_changes_text(ret_changes);
	log_lines(LOG_LEVEL_INFO, text != NULL ? text : "done");
	daemon->has_effects = true;
	daemon_flush(daemon);
	publish(daemon, ret_changes);
	daemon_bring(daemon, &tick);
	return 0;
}
