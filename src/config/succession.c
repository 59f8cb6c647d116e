/*
 * A configuration that takes the place of another while the daemon runs: services and phases keep their places, so that
 * whoever knows them by number need not learn anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/config.h"

static size_t find_phase(const struct config *config, int number)
{
	for (size_t i = 0; i < config->n_phases; i++)
		if (config->phases[i].number == number)
			return i;
	return SIZE_MAX;
}

static void place_services(struct config *merged, const struct config *now, const struct config *next)
{
	for (size_t i = 0; i < now->n_services; i++) {
		size_t found = config_find_service(next, now->services[i].name);
		merged->services[i] = found != SIZE_MAX ? next->services[found] : now->services[i];
		merged->services[i].is_retired = found == SIZE_MAX;
	}
	merged->n_services = now->n_services;
	for (size_t i = 0; i < next->n_services; i++)
		if (config_find_service(now, next->services[i].name) == SIZE_MAX)
			merged->services[merged->n_services++] = next->services[i];
}

/* Its services by their places in `merged`. 0 or -ENOMEM. */
static int place_phase(struct config *merged, size_t place, const struct phase_config *phase, bool is_retired)
{
	size_t n = phase->service_names.n;
	size_t *services = calloc(n + 1, sizeof(services[0]));
	if (services == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		services[i] = config_find_service(merged, phase->service_names.items[i]);
	merged->phases[place] = *phase;
	merged->phases[place].services = services;
	merged->phases[place].is_retired = is_retired;
	merged->n_phases = place + 1;
	return 0;
}

static int place_phases(struct config *merged, const struct config *now, const struct config *next)
{
	int result = 0;
	for (size_t i = 0; i < now->n_phases && result == 0; i++) {
		size_t found = find_phase(next, now->phases[i].number);
		bool is_there = found != SIZE_MAX;
		result = place_phase(merged, i, is_there ? &next->phases[found] : &now->phases[i], !is_there);
	}
	for (size_t i = 0; i < next->n_phases && result == 0; i++)
		if (find_phase(now, next->phases[i].number) == SIZE_MAX)
			result = place_phase(merged, merged->n_phases, &next->phases[i], false);
	return result;
}

/* What the table does not mark as read at the start; a test holds it to that. */
static void take_over(struct config *merged, const struct config *next)
{
	merged->gpu.reserve = next->gpu.reserve;
	merged->gpu.n_gpus = next->gpu.n_gpus;
	merged->gpu.gpus_mib = next->gpu.gpus_mib;
	merged->lease = next->lease;
	merged->allowed_hosts = next->allowed_hosts;
}

int config_succeed(const struct config *now, const struct config *next, struct config **ret_merged)
{
	static const struct config nothing = { 0 };
	struct config *merged = calloc(1, sizeof(*merged));
	if (merged == NULL)
		return -ENOMEM;
	*merged = now != NULL ? *now : *next;
	if (now == NULL)
		now = &nothing;
	merged->n_services = merged->n_phases = 0;
	merged->services = calloc(now->n_services + next->n_services + 1, sizeof(merged->services[0]));
	merged->phases = calloc(now->n_phases + next->n_phases + 1, sizeof(merged->phases[0]));
	if (merged->services == NULL || merged->phases == NULL) {
		config_free_merged(merged);
		return -ENOMEM;
	}
	take_over(merged, next);
	place_services(merged, now, next);
	int result = place_phases(merged, now, next);
	if (result < 0)
		config_free_merged(merged);
	else
		*ret_merged = merged;
	return result;
}

struct config *config_free_merged(struct config *merged)
{
	if (merged == NULL)
		return NULL;
	for (size_t i = 0; i < merged->n_phases; i++)
		free(merged->phases[i].services);
	free(merged->phases);
	free(merged->services);
	free(merged);
	return NULL;
}

static bool lends_phase(const struct config *config, const struct phase_config *phase)
{
	for (size_t i = 0; i < config->n_phases; i++) {
		const struct phase_config *own = &config->phases[i];
		if ((own->name != NULL && own->name == phase->name) ||
			(own->service_names.n > 0 && own->service_names.items == phase->service_names.items))
			return true;
	}
	return false;
}

bool config_lends_to(const struct config *config, const struct config *merged)
{
	for (size_t i = 0; i < merged->n_services; i++)
		if (config_owns_service(config, &merged->services[i]))
			return true;
	for (size_t i = 0; i < merged->n_phases; i++)
		if (lends_phase(config, &merged->phases[i]))
			return true;
	return false;
}

bool config_owns_service(const struct config *config, const struct service_config *service)
{
	for (size_t i = 0; i < config->n_services; i++)
		if (config->services[i].name == service->name)
			return true;
	return false;
}
