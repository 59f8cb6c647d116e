/*
 * Another configuration while the engine runs. Services and phases keep their places; what is gone from the
 * configuration stays in its own as retired: nobody gets it, and it is stopped once nobody uses it. Must not know where
 * the configuration comes from.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

/* ---- what is retired ---- */

static bool is_retired(const struct engine *engine, size_t service, char *why, size_t size)
{
	const struct service_definition *definition = &engine->services[service].definition;
	if (definition->is_retired)
		snprintf(why, size, "%s is not configured any more", definition->name);
	return definition->is_retired;
}

bool reconfigure_forbids(const struct engine *engine, const struct request_spec *spec, char *why, size_t size)
{
	bool forbids = false;
	if (request_is_stop(spec) || engine->n_retired == 0)
		return false;
	if (spec->kind == REQUEST_PHASE) {
		snprintf(why, size, "phase %d is not configured any more", engine->phases[spec->target].number);
		return engine->phases[spec->target].is_retired;
	}
	if (spec->kind != REQUEST_LEASE)
		return is_retired(engine, spec->target, why, size);
	for (size_t i = 0; i < spec->lease->n_services && !forbids; i++)
		forbids = is_retired(engine, spec->lease->services[i], why, size);
	return forbids;
}

/* Not in the middle of a transition, nor while it is stopped already or cannot be. */
static bool is_to_stop(const struct service *service)
{
	return service->definition.is_retired && service->alive && service->transition == 0 && !service->stop_failed &&
		!service_is_in_use(service) && service->state != SERVICE_STOPPING;
}

void reconfigure_tick(struct engine *engine)
{
	for (size_t i = 0; engine->n_retired > 0 && i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		if (is_to_stop(service) && !busy_must_ask(engine, service))
			lifecycle_stop(engine, service, false, true);
	}
}

/* Whoever waits for it waits in vain. */
static void answer_waiting(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_queue;) {
		struct request *request = engine->queue[i];
		char why[128];
		if (!reconfigure_forbids(engine, &request->record.spec, why, sizeof(why))) {
			i++;
			continue;
		}
		snprintf(request->record.detail, sizeof(request->record.detail), "%s", why);
		queue_remove(engine, request);
		queue_finish(engine, request, TRANSITION_FAILED, OUTCOME_RETIRED);
	}
}

/* ---- room for more ---- */

struct growth {
	struct service *services;
	struct service_definition *definitions;
	struct plan_service *plan_services;
	uint32_t *plan_committed;
	struct service_status *service_statuses;
	struct request **marked;
};

static void growth_free(struct growth *growth)
{
	free(growth->services);
	free(growth->definitions);
	free(growth->plan_services);
	free(growth->plan_committed);
	free(growth->service_statuses);
	free(growth->marked);
}

static int growth_begin(struct growth *growth, size_t n_services)
{
	size_t n = n_services + 1; /* never zero */
	*growth = (struct growth){
		.services = calloc(n, sizeof(growth->services[0])),
		.definitions = calloc(n, sizeof(growth->definitions[0])),
		.plan_services = calloc(n, sizeof(growth->plan_services[0])),
		.plan_committed = calloc(n * GPU_MAX, sizeof(growth->plan_committed[0])),
		.service_statuses = calloc(n, sizeof(growth->service_statuses[0])),
		.marked = calloc(n, sizeof(growth->marked[0])),
	};
	bool complete = growth->services != NULL && growth->definitions != NULL && growth->plan_services != NULL &&
		growth->plan_committed != NULL && growth->service_statuses != NULL && growth->marked != NULL;
	if (!complete)
		growth_free(growth);
	return complete ? 0 : -ENOMEM;
}

/* From now on `growth` holds what is to be freed. */
static void growth_swap(struct engine *engine, struct growth *growth)
{
	const struct growth old = {
		.services = engine->services,
		.definitions = engine->definitions,
		.plan_services = engine->plan_services,
		.plan_committed = engine->plan_committed,
		.service_statuses = engine->service_statuses,
		.marked = engine->marked,
	};
	memcpy(growth->services, engine->services, engine->n_services * sizeof(engine->services[0]));
	engine->services = growth->services;
	engine->definitions = growth->definitions;
	engine->plan_services = growth->plan_services;
	engine->plan_committed = growth->plan_committed;
	engine->service_statuses = growth->service_statuses;
	engine->marked = growth->marked;
	*growth = old;
}

/* ---- the change ---- */

static void take_definition(struct engine *engine, struct service *service, const struct service_definition *definition)
{
	gpu_set before = service->definition.allowed;
	service->definition = *definition;
	service->definition.is_changed = false;
	if (definition->is_changed)
		service->is_outdated = service->alive;
	lease_place_service(engine, service, before);
}

static void take_services(struct engine *engine, const struct engine_config *config)
{
	engine->n_retired = 0;
	for (size_t i = 0; i < config->n_services; i++) {
		struct service *service = &engine->services[i];
		engine->definitions[i] = config->services[i];
		engine->n_retired += config->services[i].is_retired;
		if (i < engine->n_services) {
			take_definition(engine, service, &config->services[i]);
			continue;
		}
		engine_init_service(service, &config->services[i], i);
		service->since_ms = engine->now_ms;
	}
}

static void take_phases(struct engine *engine, const struct engine_config *config)
{
	engine->n_phases = config->n_phases;
	engine->phases = config->phases;
	for (size_t i = 0; i < config->n_phases; i++)
		engine->n_retired += config->phases[i].is_retired;
}

static void take_cards(struct engine *engine, const struct engine_config *config)
{
	for (size_t gpu = 0; gpu < GPU_MAX; gpu++) {
		engine->cards[gpu].declared = gpu < config->n_gpus;
		engine->cards[gpu].declared_mib = gpu < config->n_gpus ? config->gpu_totals_mib[gpu] : 0;
	}
	if (config->n_gpus > engine->n_cards)
		engine->n_cards = config->n_gpus < GPU_MAX ? config->n_gpus : GPU_MAX;
}

/* Priorities are services': who waits stands where they put him now. */
static void sort_waiting(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_queue; i++) {
		struct transition *record = &engine->queue[i]->record;
		record->priority = queue_priority(engine, &record->spec);
		engine->queue[i]->looked_at = false; /* what it found then may be true no more */
		engine->slots[i].behind = 0;
	}
	engine->queue_is_unsorted = true;
}

/* The driver of what is run in another way is made anew, and the look that the old one had begun is never answered. */
static bool has_lost_look(const struct service *service, const struct service_definition *definition)
{
	return definition->is_changed && !service->alive && service->find_lost_ms != DEADLINE_NONE;
}

int engine_reconfigure(
	struct engine *engine, const struct engine_config *config, uint64_t now_ms, struct effects *effects)
{
	struct growth growth;
	size_t n_before = engine->n_services;
	queue_trim_archive(engine);
	lease_free_ended(engine);
	if (growth_begin(&growth, config->n_services) < 0)
		return -ENOMEM;
	if (effects_reserve(effects, engine_effects_bound(engine) + 24 * config->n_services) < 0) {
		growth_free(&growth);
		return -ENOMEM;
	}
	engine->out = effects;
	if (now_ms > engine->now_ms)
		engine->now_ms = now_ms;
	growth_swap(engine, &growth);
	take_services(engine, config);
	take_phases(engine, config);
	take_cards(engine, config);
	engine->n_services = config->n_services;
	engine->reserve = config->reserve;
	engine->wait_ms = config->wait_ms;
	engine->names = (struct explain_names){
		.n_services = engine->n_services,
		.services = engine->definitions,
		.n_phases = engine->n_phases,
		.phases = engine->phases,
	};
	engine->version++;
	answer_waiting(engine);
	sort_waiting(engine);
	for (size_t i = 0; i < engine->n_services; i++)
		if (i >= n_before || has_lost_look(&engine->services[i], &config->services[i]))
			lifecycle_find(engine, &engine->services[i]);
	lifecycle_book_found(engine);
	engine->out = NULL;
	growth_free(&growth);
	return 0;
}
