/* The configuration of one history, chosen. */
#include "world.h"

#include <string.h>

#include "base/cleanup.h"

static const uint32_t totals_mib[] = { 8192, 24576, 16384, 4096, 81920 };
static const int priorities[] = { 50, 10, 100, 0, 50, 40, -5 };
static const uint64_t start_timeouts_ms[] = { 10000, 2000, 500 };
static const uint64_t stop_timeouts_ms[] = { 1000, 3000, 100, 0 };
static const uint64_t health_intervals_ms[] = { 1000, 200, 5000 };
static const int64_t yields_ms[] = { 5000, 1000, 0, NEVER_MS };
static const uint64_t waits_ms[] = { 20000, 2000, 100, 60000 };
static const uint64_t fasts_ms[] = { 50, 5, 200, 500 };

static const int64_t preempts_ms[] = { NEVER_MS, NEVER_MS, 2000, 200, 0 };
static const unsigned max_leases[] = { 1000, 2, 1, 3 };

#define PICK(choices, table) ((table)[choose((choices), ARRAY_SIZE(table))])

static struct size_value choose_vram(struct choices *choices, uint32_t total, bool is_small)
{
	uint32_t most = is_small ? 4 : 15;

	if (chance(choices, 150))
		return (struct size_value){ .percent = (uint32_t)choose_between(choices, 5, is_small ? 25 : 100) };
	return (struct size_value){ .mib = total / 16 * (uint32_t)choose_between(choices, 1, most) };
}

static void choose_service(struct setup *setup, struct choices *choices, size_t index)
{
	struct service_definition *service = &setup->services[index];
	uint32_t total = setup->totals_mib[choose(choices, (uint32_t)setup->n_gpus)];

	snprintf(setup->names[index], sizeof(setup->names[index]), "svc%zu", index);
	*service = (struct service_definition){
		.name = setup->names[index],
		.vram = choose_vram(choices, total, setup->is_roomy),
		.priority = PICK(choices, priorities),
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.yield_after_ms = NEVER_MS,
		.preempt_after_ms = NEVER_MS,
		.max_leases = 1000,
		.start_timeout_ms = PICK(choices, start_timeouts_ms),
		.stop_timeout_ms = PICK(choices, stop_timeouts_ms),
		.health_interval_ms = PICK(choices, health_intervals_ms),
		.health_retries = (unsigned)choose_between(choices, 1, 3),
	};
	if (setup->n_gpus > 1 && chance(choices, 300))
		service->allowed = choose_between(choices, 1, (1u << setup->n_gpus) - 1);
	if (setup->n_gpus > 1 && chance(choices, 200))
		service->gpu_count = 2;
	if (service->allowed != GPU_SET_ALL && gpu_set_count(service->allowed) < service->gpu_count)
		service->gpu_count = gpu_set_count(service->allowed);
	service->pinned = chance(choices, 80);
	if (chance(choices, 250)) {
		service->yield_set = true;
		service->yield_after_ms = PICK(choices, yields_ms);
	}
	service->stop_external = chance(choices, 150);
	if (!setup->has_leases)
		return;
	service->preempt_after_ms = PICK(choices, preempts_ms);
	service->max_leases = PICK(choices, max_leases);
	service->has_busy_probe = chance(choices, 250);
}

static void choose_phase(struct setup *setup, struct choices *choices, size_t index)
{
	struct phase_definition *phase = &setup->phases[index];

	*phase = (struct phase_definition){ .number = (int)index + 1, .services = setup->phase_services[index] };
	for (size_t s = 0; s < setup->config.n_services; s++) {
		if (chance(choices, 350))
			setup->phase_services[index][phase->n_services++] = s;
	}
}

void setup_choose(struct setup *setup, struct choices *choices)
{
	struct engine_config *config = &setup->config;

	*setup = (struct setup){ 0 };
	setup->nastiness = choose(choices, 4);
	setup->has_leases = chance(choices, 750);
	setup->is_roomy = setup->has_leases && chance(choices, 600);
	setup->is_polite = setup->has_leases && chance(choices, 200);
	setup->fast_ms = PICK(choices, fasts_ms);
	setup->n_gpus = 1 + (chance(choices, 500) ? choose(choices, SIM_GPUS) : 0);
	for (size_t g = 0; g < setup->n_gpus; g++)
		setup->totals_mib[g] = PICK(choices, totals_mib);
	config->n_services = choose_between(choices, 1, SIM_SERVICES);
	for (size_t s = 0; s < config->n_services; s++)
		choose_service(setup, choices, s);
	config->n_phases = choose(choices, SIM_PHASES + 1);
	for (size_t p = 0; p < config->n_phases; p++)
		choose_phase(setup, choices, p);
	config->services = setup->services;
	config->phases = setup->phases;
	config->reserve = (struct size_value){ .mib = choose(choices, 2) == 0 ? 1024 : 0 };
	if (chance(choices, 200))
		config->reserve = (struct size_value){ .percent = 5 };
	config->n_gpus = chance(choices, 250) ? 0 : setup->n_gpus;
	config->gpu_totals_mib = setup->totals_mib;
	config->wait_ms = PICK(choices, waits_ms);
	config->queue_max = chance(choices, 150) ? choose_between(choices, 1, 5) : 0;
	config->leases_max = chance(choices, 100) ? choose_between(choices, 1, 4) : 0;
	config->uses_lock = setup->has_leases && chance(choices, 300);
	if (setup->is_polite) { /* then everybody is served in the end */
		config->wait_ms = 24 * 3600 * 1000;
		config->queue_max = 0;
		config->leases_max = 0;
	}
}

static void print_service(const struct service_definition *service, FILE *file)
{
	fprintf(file, "  %s: %u %s, priority %d, allowed %llx x%u%s", service->name,
		service->vram.percent != 0 ? service->vram.percent : service->vram.mib,
		service->vram.percent != 0 ? "%" : "MiB", service->priority, (unsigned long long)service->allowed,
		service->gpu_count, service->pinned ? ", pinned" : "");
	if (service->yield_set)
		fprintf(file, ", yields after %lld", (long long)service->yield_after_ms);
	if (service->preempt_after_ms != NEVER_MS)
		fprintf(file, ", breaks after %lld", (long long)service->preempt_after_ms);
	fprintf(file, ", %u leases%s%s", service->max_leases, service->has_busy_probe ? ", busy probe" : "",
		service->stop_external ? ", stopped when others start it" : "");
	fprintf(file, ", start %llu ms, stop %llu ms, health every %llu ms, %u retries\n",
		(unsigned long long)service->start_timeout_ms, (unsigned long long)service->stop_timeout_ms,
		(unsigned long long)service->health_interval_ms, service->health_retries);
}

void setup_print(const struct setup *setup, FILE *file)
{
	const struct engine_config *config = &setup->config;

	fprintf(file,
		"world: nastiness %u, %s%sreserve %u MiB + %u %%, wait %llu ms, queue_max %zu, leases_max %zu, "
		"gpus (%s):",
		setup->nastiness, setup->is_polite ? "polite clients, " : "", config->uses_lock ? "lock, " : "",
		config->reserve.mib, config->reserve.percent, (unsigned long long)config->wait_ms, config->queue_max,
		config->leases_max, config->n_gpus == 0 ? "not declared" : "declared");
	for (size_t g = 0; g < setup->n_gpus; g++)
		fprintf(file, " %u", setup->totals_mib[g]);
	fputc('\n', file);
	for (size_t s = 0; s < config->n_services; s++)
		print_service(&setup->services[s], file);
	for (size_t p = 0; p < config->n_phases; p++) {
		fprintf(file, "  phase %d:", setup->phases[p].number);
		for (size_t i = 0; i < setup->phases[p].n_services; i++)
			fprintf(file, " %s", setup->names[setup->phases[p].services[i]]);
		fputc('\n', file);
	}
}
