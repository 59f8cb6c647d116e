/*
 * The door of the engine: takes an event, lets the parts deal with it, and asks them what follows until nothing
 * does. Must not hold rules of its own.
 */
#include "core/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/engine_state.h"

/* ---- life ---- */

void engine_init_service(struct service *service, const struct service_definition *definition, size_t index)
{
	*service = (struct service){ .definition = *definition };
	service->index = index;
	service->state = SERVICE_UNKNOWN;
	service->start_deadline_ms = DEADLINE_NONE;
	service->stop_deadline_ms = DEADLINE_NONE;
	service->kill_deadline_ms = DEADLINE_NONE;
	service->probe_due_ms = DEADLINE_NONE;
	service->probe_lost_ms = DEADLINE_NONE;
	service->find_lost_ms = DEADLINE_NONE;
	service->busy_due_ms = DEADLINE_NONE;
	service->busy_lost_ms = DEADLINE_NONE;
}

static void init_cards(struct engine *engine, const struct engine_config *config)
{
	engine->n_cards = config->n_gpus < GPU_MAX ? config->n_gpus : GPU_MAX;
	for (size_t gpu = 0; gpu < GPU_MAX; gpu++) {
		engine->cards[gpu].mode = ACCOUNTING_LEDGER;
		engine->cards[gpu].declared = gpu < engine->n_cards;
		engine->cards[gpu].declared_mib = gpu < engine->n_cards ? config->gpu_totals_mib[gpu] : 0;
	}
}

static int allocate(struct engine *engine, size_t n_services)
{
	size_t n = n_services + 1; /* never zero */
	engine->services = calloc(n, sizeof(engine->services[0]));
	engine->definitions = calloc(n, sizeof(engine->definitions[0]));
	engine->plan_gpus = calloc(GPU_MAX, sizeof(engine->plan_gpus[0]));
	engine->plan_services = calloc(n, sizeof(engine->plan_services[0]));
	engine->plan_committed = calloc(n * GPU_MAX, sizeof(engine->plan_committed[0]));
	engine->service_statuses = calloc(n, sizeof(engine->service_statuses[0]));
	engine->marked = calloc(n, sizeof(engine->marked[0]));
	bool complete = engine->services != NULL && engine->definitions != NULL && engine->plan_gpus != NULL &&
		engine->plan_services != NULL && engine->plan_committed != NULL && engine->service_statuses != NULL &&
		engine->marked != NULL;
	return complete ? 0 : -ENOMEM;
}

int engine_create(const struct engine_config *config, struct engine **ret_engine)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	if (engine == NULL || allocate(engine, config->n_services) < 0) {
		engine_destroy(engine);
		return -ENOMEM;
	}
	engine->n_services = config->n_services;
	for (size_t i = 0; i < config->n_services; i++) {
		engine->definitions[i] = config->services[i];
		engine_init_service(&engine->services[i], &config->services[i], i);
	}
	engine->n_phases = config->n_phases;
	engine->phases = config->phases;
	engine->reserve = config->reserve;
	engine->wait_ms = config->wait_ms;
	engine->queue_max = config->queue_max != 0 ? config->queue_max : 10000;
	engine->uses_lock = config->uses_lock;
	engine->lock_service = SIZE_MAX;
	engine->leases_max = config->leases_max != 0 ? config->leases_max : 10000;
	engine->lease_deadline_ms = DEADLINE_NONE;
	engine->break_deadline_ms = DEADLINE_NONE;
	engine->find_due_ms = DEADLINE_NONE;
	engine->ticket_deadline_ms = DEADLINE_NONE;
	engine->retry_ms = DEADLINE_NONE;
	engine->names = (struct explain_names){
		.n_services = config->n_services,
		.services = engine->definitions,
		.n_phases = config->n_phases,
		.phases = config->phases,
	};
	init_cards(engine, config);
	*ret_engine = engine;
	return 0;
}

static void free_requests(struct request **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		queue_free_request(list[i]);
	free(list);
}

struct engine *engine_destroy(struct engine *engine)
{
	if (engine == NULL)
		return NULL;
	lease_free_all(engine); /* claims among them, which their requests point to */
	free_requests(engine->queue, engine->n_queue);
	free_requests(engine->running, engine->n_running);
	free_requests(engine->archive, engine->n_archive);
	free(engine->marked);
	free(engine->worklist);
	free(engine->slots);
	free(engine->tickets);
	free(engine->services);
	free(engine->definitions);
	free(engine->plan_gpus);
	free(engine->plan_services);
	free(engine->plan_committed);
	free(engine->service_statuses);
	free(engine);
	return NULL;
}

/* ---- the door ---- */

static void begin_life(struct engine *engine)
{
	if (engine->begun)
		return;
	engine->begun = true;
	engine->begun_ms = engine->now_ms;
	engine->find_due_ms = engine->now_ms + FIND_INTERVAL_MS;
	for (size_t i = 0; i < engine->n_services; i++) {
		engine->services[i].since_ms = engine->now_ms;
		lifecycle_find(engine, &engine->services[i]);
	}
}

static bool are_valid(const struct engine *engine, const struct lease_terms *terms)
{
	if (terms == NULL || terms->owner == NULL || terms->request_id == NULL || terms->mode > LEASE_GPU)
		return false;
	for (size_t i = 0; i < terms->n_services; i++)
		if (terms->services[i] >= engine->n_services)
			return false;
	bool is_for_something = (terms->n_services > 0) != (terms->room_mib > 0);
	bool ends = terms->attached || (terms->ttl_ms > 0 && terms->ttl_ms <= LEASE_TTL_MAX_MS);
	return is_for_something && ends;
}

static bool is_valid(const struct engine *engine, const struct event *event)
{
	if (event->kind == EVENT_SUBMIT) {
		const struct request_spec *spec = &event->submit.spec;
		if (spec->kind == REQUEST_PHASE)
			return spec->target < engine->n_phases;
		if (spec->kind == REQUEST_LEASE)
			return are_valid(engine, spec->lease);
		return spec->kind == REQUEST_RELEASE_ALL ||
			(spec->kind < REQUEST_RELEASE_ALL && spec->target < engine->n_services);
	}
	bool is_about_service = event->kind == EVENT_ALLOWED || event->kind >= EVENT_FOUND;
	return !is_about_service || event->service < engine->n_services;
}

static int take(struct engine *engine, const struct event *event)
{
	switch (event->kind) {
	case EVENT_TICK:
		return 0;
	case EVENT_READINGS:
		ledger_take_readings(engine, event);
		return 0;
	case EVENT_SUBMIT:
		return queue_submit(engine, event);
	case EVENT_WITHDRAW:
		queue_withdraw(engine, event->withdraw_ticket);
		return 0;
	case EVENT_FENCE:
		transition_take_fence(engine, event);
		return 0;
	case EVENT_RELEASE:
	case EVENT_RENEW:
	case EVENT_DETACH:
	case EVENT_ATTACH:
	case EVENT_UNLOCK:
		lease_handle(engine, event);
		return 0;
	case EVENT_EXIT:
		engine->is_exiting = true;
		return 0;
	case EVENT_LOCK:
		locking_handle(engine, event);
		return 0;
	default:
		lifecycle_handle(engine, event);
		return 0;
	}
}

/* Samples come fast while something changes hands. */
static void choose_sampling(struct engine *engine)
{
	bool fast = false;
	for (size_t i = 0; i < engine->n_running; i++)
		fast |= engine->running[i]->record.n_steps > 0 && !engine->running[i]->awaits_fence;
	for (size_t i = 0; i < engine->n_services; i++)
		fast |= engine->services[i].n_debts > 0 || engine->services[i].state == SERVICE_STOPPING;
	if (fast == engine->sampling_fast)
		return;
	engine->sampling_fast = fast;
	effect_add(engine, EFFECT_SAMPLING)->fast = fast;
}

static void follow_up(struct engine *engine)
{
	bool moved = !engine->is_exiting;
	while (moved) {
		moved = transition_advance(engine);
		moved |= turn_run(engine);
		/* What could begin has begun, so a wait of zero means "now or never". */
		if (!moved)
			moved = queue_tick(engine);
	}
}

size_t engine_effects_bound(const struct engine *engine)
{
	size_t n_leases = engine->n_leases + engine->n_claims;
	return 64 + 24 * engine->n_services + 3 * engine->n_tickets + 6 * (engine->n_queue + engine->n_running) +
		2 * engine->n_cards + 9 * n_leases + 4 * engine->n_leased;
}

int engine_handle(struct engine *engine, const struct event *event, uint64_t now_ms, struct effects *effects)
{
	if (!is_valid(engine, event))
		return -EINVAL;
	queue_trim_archive(engine);
	lease_free_ended(engine);
	if (effects_reserve(effects, engine_effects_bound(engine)) < 0)
		return -ENOMEM;
	engine->out = effects;
	if (now_ms > engine->now_ms)
		engine->now_ms = now_ms;
	begin_life(engine);
	int result = take(engine, event);
	if (result < 0)
		return result;
	lifecycle_tick(engine);
	if (engine->is_exiting)
		lifecycle_exit(engine);
	lease_tick(engine);
	debts_tick(engine);
	ledger_note_modes(engine);
	reconfigure_tick(engine);
	follow_up(engine);
	if (locking_settle(engine))
		follow_up(engine); /* who waits for it says so in other words now */
	contention_settle(engine);
	lease_tell_moved(engine);
	choose_sampling(engine);
	engine->out = NULL;
	return 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t engine_next_deadline(const struct engine *engine)
{
	if (!engine->begun)
		return 0;
	uint64_t deadline = engine->find_due_ms;
	if (!engine->is_exiting)
		deadline = earlier(deadline, queue_deadline(engine));
	deadline = earlier(deadline, engine->lease_deadline_ms);
	if (engine->n_queue > 0 && !engine->is_exiting)
		deadline = earlier(deadline, engine->break_deadline_ms);
	deadline = earlier(deadline, earlier(ledger_deadline(engine), debts_deadline(engine)));
	for (size_t i = 0; i < engine->n_services; i++)
		deadline = earlier(deadline, lifecycle_deadline(&engine->services[i]));
	return deadline;
}

bool engine_may_exit(const struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (lifecycle_delays_exit(&engine->services[i]))
			return false;
	return engine->is_exiting;
}

/* ---- looking in ---- */

static void fill_gpus(struct engine *engine)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		const struct card *card = &engine->cards[gpu];
		struct gpu_status *status = &engine->gpu_statuses[gpu];
		ledger_account(engine, gpu, &status->account);
		status->has_used = status->account.mode != ACCOUNTING_LEDGER;
		status->used_mib = card->used_mib;
		status->sampled_ms = card->sampled ? card->sampled_ms : 0;
		status->stale = card->sampled && engine->now_ms > card->sampled_ms + READING_STALE_MS;
	}
}

static void fill_service(const struct engine *engine, const struct service *service, struct service_status *status)
{
	*status = (struct service_status){
		.definition = &service->definition,
		.state = service->state,
		.live = service_is_live(service),
		.in_use = service_is_in_use(service),
		.n_leases = service->leases,
		.says_busy = service->says_busy,
		.gpus = service->committed ? service->gpus : 0,
		.pid = service->pid,
		.since_ms = service->since_ms,
		.has_measured = service->has_measured,
		.is_outdated = service->is_outdated,
		.external_starts = service->external_starts,
		.has_boot = service->has_boot,
		.boot_ms = service->boot_ms,
		.has_peak = service->lasting_peak_mib > 0,
		.peak_mib = service->lasting_peak_mib,
		.transition = service->transition,
		.error = service->error[0] != '\0' ? service->error : NULL,
	};
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		status->measured_mib += service->measured_mib[gpu];
		status->committed_mib += ledger_commitment(engine, service, gpu);
	}
}

static bool is_phase_satisfied(const struct engine *engine)
{
	if (!engine->phase.any)
		return false;
	const struct phase_definition *phase = &engine->phases[engine->phase.phase];
	for (size_t i = 0; i < phase->n_services; i++) {
		enum service_state state = engine->services[phase->services[i]].state;
		if (state != SERVICE_READY && state != SERVICE_BUSY)
			return false;
	}
	return true;
}

const struct status *engine_status(struct engine *engine, uint64_t now_ms)
{
	if (now_ms > engine->now_ms)
		engine->now_ms = now_ms;
	fill_gpus(engine);
	for (size_t i = 0; i < engine->n_services; i++)
		fill_service(engine, &engine->services[i], &engine->service_statuses[i]);
	engine->phase.satisfied = is_phase_satisfied(engine);
	engine->status = (struct status){
		.now_ms = engine->now_ms,
		.n_gpus = engine->n_cards,
		.gpus = engine->gpu_statuses,
		.n_services = engine->n_services,
		.services = engine->service_statuses,
		.n_queue = engine->n_queue,
		.queue = (const struct transition *const *)engine->queue,
		.n_running = engine->n_running,
		.running = (const struct transition *const *)engine->running,
		.phase = engine->phase,
		.n_leases = engine->n_leases,
		.leases = (const struct lease *const *)engine->leases,
	};
	return &engine->status;
}

int engine_plan(struct engine *engine, const struct request_spec *spec, uint64_t now_ms, struct plan *ret_plan)
{
	if (spec->kind != REQUEST_PHASE && spec->kind != REQUEST_START)
		return -EINVAL;
	const struct event event = { .kind = EVENT_SUBMIT, .submit.spec = *spec };
	if (!is_valid(engine, &event))
		return -EINVAL;
	if (now_ms > engine->now_ms)
		engine->now_ms = now_ms;
	struct plan_snapshot snapshot;
	struct plan_request needs;
	struct request request = { .record.spec = *spec };
	request.record.priority = queue_priority(engine, spec);
	snapshot_build(engine, &snapshot);
	snapshot_request(engine, &request, &needs);
	needs.later = true;
	return plan_make(&snapshot, &needs, ret_plan);
}

static const struct transition *find_record(struct request *const *list, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i]->record.id == id)
			return &list[i]->record;
	return NULL;
}

const struct transition *engine_transition(const struct engine *engine, uint64_t id)
{
	const struct transition *record = find_record(engine->running, engine->n_running, id);
	if (record == NULL)
		record = find_record(engine->queue, engine->n_queue, id);
	if (record == NULL)
		record = find_record(engine->archive, engine->n_archive, id);
	return record;
}

uint64_t engine_version(const struct engine *engine)
{
	return engine->version;
}

uint64_t engine_knowledge(const struct engine *engine)
{
	return engine->knowledge;
}

void engine_restore_service(struct engine *engine, size_t index, const uint64_t *boot_ms, const uint32_t *peak_mib)
{
	struct service *service = &engine->services[index];
	service->has_boot = boot_ms != NULL;
	service->boot_ms = boot_ms != NULL ? *boot_ms : 0;
	service->lasting_peak_mib = peak_mib != NULL ? *peak_mib : 0;
}

void engine_restore_phase(struct engine *engine, size_t phase, uint64_t at_ms)
{
	engine->phase = (struct phase_status){ .any = true, .phase = phase, .at_ms = at_ms };
}
