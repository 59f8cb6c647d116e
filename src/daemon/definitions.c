/* The configuration as core wants it: plain definitions, with names borrowed from the configuration. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/daemon.h"

static gpu_set allowed_gpus(const struct service_config *config, const struct gpu_sample *sample)
{
	gpu_set allowed = 0;
	if (config->any_gpu)
		return GPU_SET_ALL;
	for (size_t i = 0; i < config->n_selectors; i++) {
		const struct gpu_selector *selector = &config->selectors[i];
		if (selector->uuid == NULL && selector->index < GPU_MAX)
			allowed |= GPU_BIT(selector->index);
		for (unsigned gpu = 0; selector->uuid != NULL && sample != NULL && gpu < sample->n_gpus; gpu++)
			if (strcasecmp(sample->gpus[gpu].uuid, selector->uuid) == 0)
				allowed |= GPU_BIT(gpu);
	}
	return allowed;
}

static uint64_t stop_timeout(const struct service_config *config)
{
	return config->driver == DRIVER_PROCESS ? config->process.stop_timeout_ms : config->container.stop_timeout_ms;
}

static void define_service(
	const struct service_config *config, const struct gpu_sample *sample, struct service_definition *ret_definition)
{
	*ret_definition = (struct service_definition){
		.name = config->name,
		.vram = config->vram,
		.priority = config->priority,
		.allowed = allowed_gpus(config, sample),
		.gpu_count = config->gpu_count,
		.pinned = config->pinned,
		.yield_set = config->yield_set,
		.yield_after_ms = config->yield_after_ms,
		.preempt_after_ms = config->preempt_after_ms,
		.max_leases = config->max_leases,
		.start_timeout_ms = config->health_timeout_ms,
		.stop_timeout_ms = stop_timeout(config),
		.health_interval_ms = config->health_interval_ms,
		.health_retries = config->health_retries,
		.has_busy_probe = config->busy.kind != PROBE_NONE,
		.stop_external =
			config->driver == DRIVER_CONTAINER && config->container.on_external_start == EXTERNAL_STOP,
		.stop_on_exit = config->on_exit == ON_EXIT_STOP,
		.is_retired = config->is_retired,
	};
}

int definitions_create(
	const struct config *config, const struct gpu_sample *sample, struct definitions *ret_definitions)
{
	struct definitions definitions = {
		.services = calloc(config->n_services + 1, sizeof(definitions.services[0])),
		.phases = calloc(config->n_phases + 1, sizeof(definitions.phases[0])),
	};
	if (definitions.services == NULL || definitions.phases == NULL) {
		definitions_free(&definitions);
		return -ENOMEM;
	}
	for (size_t i = 0; i < config->n_services; i++)
		define_service(&config->services[i], sample, &definitions.services[i]);
	for (size_t i = 0; i < config->n_phases; i++)
		definitions.phases[i] = (struct phase_definition){
			.number = config->phases[i].number,
			.name = config->phases[i].name,
			.services = config->phases[i].services,
			.n_services = config->phases[i].service_names.n,
			.is_retired = config->phases[i].is_retired,
		};
	*ret_definitions = definitions;
	return 0;
}

void definitions_free(struct definitions *definitions)
{
	free(definitions->services);
	free(definitions->phases);
	*definitions = (struct definitions){ 0 };
}

void definitions_use(struct daemon *daemon, const struct definitions *definitions)
{
	definitions_free(&daemon->definitions);
	daemon->definitions = *definitions;
	daemon->names = (struct explain_names){
		.n_services = daemon->config->n_services,
		.services = definitions->services,
		.n_phases = daemon->config->n_phases,
		.phases = definitions->phases,
	};
}

struct engine_config definitions_engine_config(const struct config *config, const struct definitions *definitions)
{
	return (struct engine_config){
		.n_services = config->n_services,
		.services = definitions->services,
		.n_phases = config->n_phases,
		.phases = definitions->phases,
		.reserve = config->gpu.reserve,
		.n_gpus = config->gpu.n_gpus,
		.gpu_totals_mib = config->gpu.gpus_mib,
		.wait_ms = config->lease.wait_ms,
		.uses_lock = config->lock.backend != LOCK_BACKEND_LOCAL,
	};
}

void definitions_resolve(struct daemon *daemon, const struct gpu_sample *sample)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		gpu_set allowed = allowed_gpus(&daemon->config->services[i], sample);
		if (allowed == daemon->definitions.services[i].allowed)
			continue;
		daemon->definitions.services[i].allowed = allowed;
		const struct event event = { .kind = EVENT_ALLOWED, .service = i, .allowed = allowed };
		daemon_bring(daemon, &event);
	}
}
