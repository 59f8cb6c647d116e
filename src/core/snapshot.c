/* The engine's state as the planner wants it. Copies and classifies; must not decide. */
#include <string.h>

#include "core/engine_state.h"

static void describe_gpu(const struct engine *engine, size_t gpu, struct plan_gpu *ret_gpu)
{
	struct gpu_account account;
	ledger_account(engine, gpu, &account);
	*ret_gpu = (struct plan_gpu){
		.has_total = account.has_total,
		.total_mib = account.total_mib,
		.reserve_mib = account.reserve_mib,
		.foreign_mib = account.foreign_mib,
		.lasting_foreign_mib = ledger_lasting_foreign(engine, gpu, &account),
		.unreclaimed_mib = account.unreclaimed_mib,
		.room_mib = engine->cards[gpu].room_mib,
	};
}

static const struct step *find_step(const struct engine *engine, const struct service *service, enum plan_action action)
{
	for (size_t i = 0; i < engine->n_running; i++) {
		const struct transition *record = &engine->running[i]->record;
		if (record->id != service->transition)
			continue;
		for (size_t j = 0; j < record->n_steps; j++)
			if (record->steps[j].plan.service == service->index && record->steps[j].plan.action == action)
				return &record->steps[j];
	}
	return NULL;
}

/* Victims of a running transition count as gone already; what the transition starts anew does not. */
static bool is_leaving(const struct engine *engine, const struct service *service)
{
	const struct step *start = find_step(engine, service, PLAN_START);
	if (start != NULL && start->state == STEP_PENDING)
		return false;
	const struct step *stop = find_step(engine, service, PLAN_STOP);
	return service_is_leaving(service) || (stop != NULL && stop->state <= STEP_RUNNING);
}

/* What works becomes ready when nobody uses it any more, and gives way when it has been so for long enough. */
static bool would_yield(const struct service *service)
{
	bool is_up = service->state == SERVICE_READY || service->state == SERVICE_BUSY ||
		(service->state == SERVICE_STARTING && service->leases > 0);
	if (service->definition.is_retired)
		return is_up; /* then it is stopped */
	if (service->definition.yield_set)
		return is_up && service->definition.yield_after_ms != NEVER_MS;
	return is_up && (service->was_leased || service->leases > 0);
}

static void add_lease(const struct lease *lease, const struct service *service, gpu_set *own, bool *is_whole)
{
	if (!lease_has_service(lease, service->index))
		return;
	*own |= lease->gpus;
	*is_whole |= lease->mode == LEASE_GPU;
}

/* Where its leases, and those about to be granted, could not go along: mode gpu is there already, or is their own and
 * somebody else is there. */
static gpu_set barred_gpus(const struct engine *engine, const struct service *service)
{
	gpu_set own = 0, barred = 0;
	bool is_whole = false;
	for (size_t i = 0; i < engine->n_leases; i++)
		add_lease(engine->leases[i], service, &own, &is_whole);
	for (size_t i = 0; i < engine->n_running; i++)
		if (engine->running[i]->claim != NULL)
			add_lease(engine->running[i]->claim, service, &own, &is_whole);
	for (gpu_set rest = own != 0 ? engine->leased_gpus & ~own : 0; rest != 0; rest &= rest - 1) {
		size_t gpu = (size_t)__builtin_ctzll(rest);
		if (is_whole || engine->cards[gpu].n_gpu_leases > 0)
			barred |= GPU_BIT(gpu);
	}
	return barred;
}

static void describe_service(const struct engine *engine, const struct service *service, uint32_t *committed_mib,
	struct plan_service *ret_service)
{
	bool in_use = service_is_in_use(service);
	*ret_service = (struct plan_service){
		.definition = &service->definition,
		.committed_mib = committed_mib,
		.state = service->state,
		.live = service_is_live(service),
		.reserved = service->committed && !service->alive && service->transition == 0,
		.leaving = is_leaving(engine, service),
		.engaged = service->transition != 0,
		.in_use = in_use,
		.leased = service->leases > 0,
		.hindered = service_is_hindered(service),
		.idle_ms = service->state == SERVICE_READY && !in_use ? engine->now_ms - service->idle_since_ms : 0,
		.yield_after_ms = service_yield_after(service),
		.would_yield = would_yield(service),
		.last_used_ms = service->last_used_ms,
	};
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		committed_mib[gpu] = (uint32_t)ledger_commitment(engine, service, gpu);
		if (committed_mib[gpu] > 0)
			ret_service->gpus |= GPU_BIT(gpu);
	}
	if (service->committed || ret_service->leaving) /* be its GPU known or not */
		ret_service->gpus |= service->gpus;
	if (service->leases > 0 && (ret_service->reserved || ret_service->leaving)) /* it may come up elsewhere */
		ret_service->barred = barred_gpus(engine, service);
}

void snapshot_build(struct engine *engine, struct plan_snapshot *ret_snapshot)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
		describe_gpu(engine, gpu, &engine->plan_gpus[gpu]);
	for (size_t i = 0; i < engine->n_services; i++)
		describe_service(
			engine, &engine->services[i], &engine->plan_committed[i * GPU_MAX], &engine->plan_services[i]);
	*ret_snapshot = (struct plan_snapshot){
		.n_gpus = engine->n_cards,
		.gpus = engine->plan_gpus,
		.n_services = engine->n_services,
		.services = engine->plan_services,
	};
}

void snapshot_request(const struct engine *engine, const struct request *request, struct plan_request *ret_request)
{
	const struct request_spec *spec = &request->record.spec;
	bool is_phase = spec->kind == REQUEST_PHASE;
	bool is_lease = spec->kind == REQUEST_LEASE;
	*ret_request = (struct plan_request){
		.needs = is_phase  ? engine->phases[spec->target].services
			: is_lease ? spec->lease->services
				   : &spec->target,
		.n_needs = is_phase ? engine->phases[spec->target].n_services
			: is_lease  ? spec->lease->n_services
				    : 1,
		.room_mib = is_lease ? spec->lease->room_mib : 0,
		.priority = request->record.priority,
		.is_phase = is_phase,
		.restart = spec->kind == REQUEST_RESTART,
		.relieve = spec->kind == REQUEST_MAKE_ROOM,
		.usable = GPU_SET_ALL,
	};
}
