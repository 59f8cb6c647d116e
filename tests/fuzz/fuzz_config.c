/*
 * The configuration file. It gives errors, or a configuration in which everything is in its range and refers to what is
 * there; as root or not differs in warnings only.
 */
#include "config/load.h"

#include <errno.h>

#include "config/parse.h"
#include "core/gpu.h"
#include "core/lease.h"
#include "fuzz.h"

#define YEARS_10_MS ((uint64_t)10 * 366 * 24 * 3600 * 1000)
#define VRAM_LEAST_MIB 64

static void check_report(const struct config_report *report, int result)
{
	size_t n_errors = 0;
	for (size_t i = 0; i < report->n; i++) {
		const struct config_problem *problem = &report->problems[i];
		n_errors += !problem->is_warning;
		FUZZ_CHECK(problem->message != NULL && problem->message[0] != '\0' && problem->path != NULL);
		FUZZ_CHECK(strpbrk(problem->message, "\r\n") == NULL && strpbrk(problem->path, "\r\n") == NULL);
		char *line = config_problem_line(report, problem);
		FUZZ_CHECK(line != NULL);
		free(line);
	}
	FUZZ_CHECK(n_errors == report->n_errors);
	FUZZ_CHECK((result == 0) == (n_errors == 0));
}

static void check_list(const struct string_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		FUZZ_CHECK(list->items[i] != NULL);
}

static void check_probe(const struct probe_config *probe, bool is_health)
{
	switch (probe->kind) {
	case PROBE_NONE:
		FUZZ_CHECK(!is_health);
		break;
	case PROBE_HTTP:
	case PROBE_TCP:
		FUZZ_CHECK(probe->address != NULL && probe->address[0] != '\0');
		break;
	case PROBE_COMMAND:
		FUZZ_CHECK(probe->command.n > 0);
		break;
	case PROBE_CONTAINER:
		FUZZ_CHECK(is_health);
		break;
	}
	FUZZ_CHECK(is_health || probe->kind != PROBE_HTTP || probe->json != NULL);
	check_list(&probe->command);
}

static void check_process(const struct process_config *process)
{
	FUZZ_CHECK(process->command.n > 0 && process->command.items[0][0] != '\0');
	FUZZ_CHECK(!process->shell || process->command.n == 1);
	FUZZ_CHECK(process->stop_signal > 0 && process->stop_signal < 65);
	FUZZ_CHECK(process->stop_timeout_ms <= YEARS_10_MS);
	check_list(&process->command);
	check_list(&process->environment);
	check_list(&process->stop_command);
	for (size_t i = 0; i < process->environment.n; i++)
		FUZZ_CHECK(strchr(process->environment.items[i], '=') > process->environment.items[i]);
}

static void check_container(const struct container_config *container)
{
	bool is_compose = container->compose_project != NULL && container->compose_service != NULL;
	FUZZ_CHECK((container->name != NULL) != is_compose);
	FUZZ_CHECK(strncmp(container->engine, "unix:///", 8) == 0);
}

static void check_name(const char *name)
{
	size_t length = strlen(name);
	FUZZ_CHECK(length >= 1 && length <= 63 && name[0] != '_' && name[0] != '-');
	FUZZ_CHECK(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == length);
}

static void check_service(const struct service_config *service)
{
	check_name(service->name);
	FUZZ_CHECK((service->vram.percent > 0) != (service->vram.mib > 0));
	FUZZ_CHECK(service->vram.percent <= 100 && (service->vram.percent > 0 || service->vram.mib >= VRAM_LEAST_MIB));
	FUZZ_CHECK(service->gpu_count >= 1 && service->gpu_count <= GPU_MAX && service->max_leases >= 1);
	FUZZ_CHECK(service->any_gpu == (service->n_selectors == 0));
	for (size_t i = 0; i < service->n_selectors; i++)
		FUZZ_CHECK((service->selectors[i].index >= 0 && service->selectors[i].index < GPU_MAX) !=
			(service->selectors[i].uuid != NULL));
	FUZZ_CHECK(service->any_gpu || service->gpu_count <= service->n_selectors);
	FUZZ_CHECK(service->preempt_after_ms >= 0 && (!service->yield_set || service->yield_after_ms >= 0));
	FUZZ_CHECK(service->health_interval_ms > 0 && service->health_timeout_ms > 0 && service->health_retries >= 1);
	check_probe(&service->health, true);
	check_probe(&service->busy, false);
	if (service->driver == DRIVER_PROCESS)
		check_process(&service->process);
	else
		check_container(&service->container);
}

static void check_phase(const struct config *config, size_t index)
{
	const struct phase_config *phase = &config->phases[index];
	FUZZ_CHECK(phase->number >= 1 && (index == 0 || config->phases[index - 1].number < phase->number));
	for (size_t i = 0; i < phase->service_names.n; i++) {
		FUZZ_CHECK(phase->services[i] < config->n_services);
		FUZZ_CHECK(strcmp(config->services[phase->services[i]].name, phase->service_names.items[i]) == 0);
		for (size_t j = 0; j < i; j++)
			FUZZ_CHECK(phase->services[i] != phase->services[j]);
	}
}

static void check_config(const struct config *config)
{
	FUZZ_CHECK((config->socket_mode & ~07777u) == 0);
	FUZZ_CHECK(config->listen.n == 0 || config->open != (config->token_file != NULL));
	FUZZ_CHECK(config->lock.backend != LOCK_BACKEND_REDIS || config->lock.url != NULL);
	FUZZ_CHECK(
		config->gpu.backend != GPU_BACKEND_SIM || (config->gpu.sim_dir != NULL && config->gpu.n_sim_gpus > 0));
	FUZZ_CHECK(config->gpu.n_gpus <= GPU_MAX && config->gpu.n_sim_gpus <= GPU_MAX && config->gpu.interval_ms > 0);
	FUZZ_CHECK(config->lease.ttl_ms > 0 && config->lease.ttl_ms <= LEASE_TTL_MAX_MS && config->lock.ttl_ms > 0);
	FUZZ_CHECK(config->lease.wait_ms <= LEASE_WAIT_MAX_MS);
	check_list(&config->listen);
	check_list(&config->allowed_hosts);
	for (size_t i = 0; i < config->n_services; i++) {
		check_service(&config->services[i]);
		FUZZ_CHECK(config_find_service(config, config->services[i].name) == i);
	}
	for (size_t i = 0; i < config->n_phases; i++)
		check_phase(config, i);
}

static int parse(const uint8_t *data, size_t size, bool is_root)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_parse_as("f", (const char *)data, size, is_root, &config, &report);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	FUZZ_CHECK((r == 0) == (config != NULL));
	check_report(&report, r);
	if (config != NULL)
		check_config(config);
	config_free(config);
	config_report_finish(&report);
	return r;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	clearenv();
	setenv("HOME", "/home/me", 1);
	setenv("EMPTY", "", 1);
	setenv("ODD", "a: [b\n\"c\"", 1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FUZZ_CHECK(parse(data, size, true) == parse(data, size, false));
	return 0;
}
