/* The configuration as core wants it: plain definitions, with names borrowed from the configuration. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
			if (strcmp(sample->gpus[gpu].uuid, selector->uuid) == 0)
				allowed |= GPU_BIT(gpu);
	}
	return allowed;
}

static uint64_t stop_timeout(const struct service_config *config)
{
	return config->driver == DRIVER_PROCESS ? config->process.stop_timeout_ms : config->container.stop_timeout_ms;
}

static void define_service(const struct service_config *config, struct service_definition *ret_definition)
{
	*ret_definition = (struct service_definition){
		.name = config->name,
		.vram = config->vram,
		.priority = config->priority,
		.allowed = allowed_gpus(config, NULL),
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
	};
}

int definitions_create(struct daemon *daemon)
{
	const struct config *config = daemon->config;
	daemon->definitions = calloc(config->n_services + 1, sizeof(daemon->definitions[0]));
	daemon->phases = calloc(config->n_phases + 1, sizeof(daemon->phases[0]));
	if (daemon->definitions == NULL || daemon->phases == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_services; i++)
		define_service(&config->services[i], &daemon->definitions[i]);
	for (size_t i = 0; i < config->n_phases; i++)
		daemon->phases[i] = (struct phase_definition){
			.number = config->phases[i].number,
			.name = config->phases[i].name,
			.services = config->phases[i].services,
			.n_services = config->phases[i].service_names.n,
		};
	daemon->names = (struct explain_names){
		.n_services = config->n_services,
		.services = daemon->definitions,
		.n_phases = config->n_phases,
		.phases = daemon->phases,
	};
	return 0;
}

void definitions_free(struct daemon *daemon)
{
	free(daemon->definitions);
	free(daemon->phases);
	daemon->definitions = NULL;
	daemon->phases = NULL;
}

void definitions_resolve(struct daemon *daemon, const struct gpu_sample *sample)
{
	for (size_t i = 0; i < daemon->config->n_services; i++) {
		gpu_set allowed = allowed_gpus(&daemon->config->services[i], sample);
		if (allowed == daemon->definitions[i].allowed)
			continue;
		daemon->definitions[i].allowed = allowed;
		const struct event event = { .kind = EVENT_ALLOWED, .service = i, .allowed = allowed };
		daemon_bring(daemon, &event);
	}
}
