/*
 * Readings and commitments: what of each GPU is whose. Must not decide who gets
 * memory; that is the planner's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/engine_state.h"

static bool is_fresh(const struct engine *engine, const struct card *card)
{
	return card->sampled && engine->now_ms <= card->sampled_ms + READING_STALE_MS;
}

enum accounting_mode ledger_mode(const struct engine *engine, const struct card *card)
{
	if (!is_fresh(engine, card) || !card->has_total || !card->has_used)
		return ACCOUNTING_LEDGER;
	return card->has_processes ? ACCOUNTING_PROCESS : ACCOUNTING_TOTAL;
}

uint32_t ledger_total(const struct engine *engine, const struct card *card, bool *ret_known)
{
	bool by_reading = is_fresh(engine, card) && card->has_total;
	*ret_known = by_reading || card->declared;
	return by_reading ? card->total_mib : card->declared ? card->declared_mib : 0;
}

uint64_t ledger_commitment(const struct engine *engine, const struct service *service, size_t gpu)
{
	if (!service->committed)
		return 0;
	if (service->state == SERVICE_ASLEEP && service->has_measured)
		return service->measured_mib[gpu];
	uint64_t declared = 0;
	if (service->gpus & GPU_BIT(gpu)) {
		bool known;
		declared = size_on_card(service->definition.vram, ledger_total(engine, &engine->cards[gpu], &known));
	}
	return declared > service->peak_mib[gpu] ? declared : service->peak_mib[gpu];
}

gpu_set ledger_gpus(const struct engine *engine, const struct service *service)
{
	gpu_set gpus = service->gpus;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
		if (ledger_commitment(engine, service, gpu) > 0)
			gpus |= GPU_BIT(gpu);
	return gpus;
}

/* Whether anybody of ours holds, or has not given back, memory of that GPU, or may do so unknown to us. */
static bool is_inhabited(const struct engine *engine, size_t gpu)
{
	if (engine->cards[gpu].room_mib > 0)
		return true;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		if (service_is_unseen(service))
			return true;
		if (debts_mib(service, gpu) > 0)
			return true;
		if (ledger_commitment(engine, service, gpu) > 0)
			return true;
	}
	return false;
}

void ledger_account(const struct engine *engine, size_t gpu, struct gpu_account *ret_account)
{
	const struct card *card = &engine->cards[gpu];
	struct gpu_account_input input = {
		.mode = ledger_mode(engine, card), .used_mib = card->used_mib, .settled = true
	};
	input.total_mib = ledger_total(engine, card, &input.has_total);
	input.reserve_mib = size_on_card(engine->reserve, input.total_mib);
	input.baseline_mib = input.mode == ACCOUNTING_PROCESS ? card->baseline_foreign_mib : card->baseline_used_mib;
	input.room_mib = card->room_mib;
	/* As long as it is not known, whatever is there counts as foreign, and nothing as the room's filling. */
	input.room_baseline_mib = card->room_base_mib != GPU_MIB_UNKNOWN ? card->room_base_mib : UINT64_MAX;
	input.committed_mib = card->room_mib;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		uint64_t commitment = ledger_commitment(engine, service, gpu);
		input.committed_mib += commitment;
		input.promised_mib += service->alive ? 0 : commitment;
		if (service->alive && service->has_measured)
			input.measured_mib += service->measured_mib[gpu];
		input.pending_mib += debts_mib(service, gpu);
		if (debts_are_younger(service, gpu, card->sampled_ms))
			input.settled = false;
	}
	gpu_account(&input, ret_account);
}

/* Whether memory on that GPU is on its way back, or about to be. */
static bool is_in_motion(const struct engine *engine, size_t gpu)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		bool is_stopping =
			service->state == SERVICE_STOPPING && (ledger_gpus(engine, service) & GPU_BIT(gpu)) != 0;
		if (is_stopping || debts_mib(service, gpu) > 0)
			return true;
	}
	return false;
}

/*
 * What a service may have held when readings stopped to show it as its own: of a process that has ended, and that has
 * not been told yet, they show the memory as nobody's. One that no reading ever showed may have held all it was to.
 */
static uint64_t missing_mib(const struct engine *engine, const struct service *service, size_t gpu)
{
	if (!service->alive)
		return 0;
	return service->peak_mib[gpu] > 0 ? service->peak_mib[gpu] - service->measured_mib[gpu]
					  : ledger_commitment(engine, service, gpu);
}

/* Nothing that was foreign before is taken for theirs. */
static uint64_t without_missing(const struct engine *engine, size_t gpu, uint64_t foreign, uint64_t missing)
{
	uint64_t before = engine->cards[gpu].baseline_foreign_mib;
	if (foreign <= before)
		return foreign;
	return missing < foreign - before ? foreign - missing : before;
}

uint64_t ledger_lasting_foreign(const struct engine *engine, size_t gpu, const struct gpu_account *account)
{
	uint64_t missing = 0;
	if (account->mode != ACCOUNTING_PROCESS)
		return account->foreign_mib;
	for (size_t i = 0; i < engine->n_services; i++)
		if (engine->services[i].state == SERVICE_STOPPING)
			missing += missing_mib(engine, &engine->services[i], gpu);
	return without_missing(engine, gpu, account->foreign_mib, missing);
}

/*
 * What is noted too low only counts as on its way back for a while; what is too high makes requests fail that had only
 * to wait. `ending` is about to end, or did; NULL: nobody. Only where ledger_is_settled().
 */
static void note_baseline(struct engine *engine, size_t gpu, const struct service *ending)
{
	struct gpu_account account;
	uint64_t missing = ending != NULL ? missing_mib(engine, ending, gpu) : 0;
	if (is_in_motion(engine, gpu))
		return;
	ledger_account(engine, gpu, &account);
	if (account.mode == ACCOUNTING_PROCESS)
		engine->cards[gpu].baseline_foreign_mib = without_missing(engine, gpu, account.foreign_mib, missing);
}

/* With a reading that shows all services as they were: then what else there is is none of theirs. */
static void refresh_baseline(struct engine *engine, size_t gpu)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (missing_mib(engine, &engine->services[i], gpu) > 0)
			return;
	note_baseline(engine, gpu, NULL);
}

void ledger_expect_end(struct engine *engine, const struct service *service)
{
	if (!ledger_is_settled(engine))
		return;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
		if (ledger_gpus(engine, service) & GPU_BIT(gpu))
			note_baseline(engine, gpu, service);
}

void ledger_end_service(struct engine *engine, struct service *service)
{
	uint32_t owed[GPU_MAX] = { 0 };
	bool owes = false, is_settled = ledger_is_settled(engine);
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		uint64_t held = ledger_commitment(engine, service, gpu);
		if (held == 0 || !engine->cards[gpu].sampled)
			continue; /* nothing has ever told, or will, when memory is back */
		if (is_settled)
			note_baseline(engine, gpu, service);
		owed[gpu] = (uint32_t)held;
		owes = true;
	}
	if (owes)
		debts_add(engine, service, owed);
	service->committed = false;
	service->has_measured = false;
	memset(service->peak_mib, 0, sizeof(service->peak_mib));
	memset(service->measured_mib, 0, sizeof(service->measured_mib));
}

/*
 * What was found running still counts as foreign in a reading that began, or was understood, before: both may be so in
 * one and the same millisecond.
 */
static bool is_unread(const struct engine *engine, const struct service *service, const struct card *card)
{
	return service->alive && service->adopted &&
		(card->sampled_ms < service->started_ms || engine->n_readings == service->n_readings_before);
}

bool ledger_is_settled(const struct engine *engine)
{
	if (!engine->has_readings && engine->now_ms < engine->begun_ms + FIRST_READING_MS)
		return false;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		const struct card *card = &engine->cards[gpu];
		bool tells = ledger_mode(engine, card) == ACCOUNTING_PROCESS;
		for (size_t i = 0; tells && i < engine->n_services; i++)
			if (is_unread(engine, &engine->services[i], card))
				return false;
	}
	return true;
}

static void publish_mode(struct engine *engine, size_t gpu, enum accounting_mode mode)
{
	char subject[32];
	struct card *card = &engine->cards[gpu];
	snprintf(subject, sizeof(subject), "gpu%zu", gpu);
	struct notice *notice = notice_begin(engine, "gpu.mode", subject);
	if (notice != NULL) {
		static const char *const says[] = {
			[ACCOUNTING_PROCESS] = "readings tell what each process holds",
			[ACCOUNTING_TOTAL] = "readings tell totals only",
			[ACCOUNTING_LEDGER] = "no readings: deciding by what was promised",
		};
		notice->is_problem = mode == ACCOUNTING_LEDGER;
		notice_add_number(notice, "gpu", (int64_t)gpu);
		notice_add_text(notice, "from", accounting_mode_name(card->mode));
		notice_add_text(notice, "to", accounting_mode_name(mode));
		snprintf(notice->text, sizeof(notice->text), "%s: %s", subject, says[mode]);
	}
	card->mode = mode;
	engine->version++;
}

void ledger_note_modes(struct engine *engine)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		enum accounting_mode mode = ledger_mode(engine, &engine->cards[gpu]);
		if (mode != engine->cards[gpu].mode)
			publish_mode(engine, gpu, mode);
	}
}

static void take_measurements(struct engine *engine, size_t gpu, const struct gpu_facts *facts, uint64_t taken_ms)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		if (!service->alive || taken_ms < service->started_ms)
			continue; /* what it shows was of an earlier run */
		uint32_t mib = facts->measured_mib[i];
		service->measured_mib[gpu] = mib;
		service->has_measured = true;
		if (mib > service->peak_mib[gpu])
			service->peak_mib[gpu] = mib;
		/* Found running, and nobody could say where: the readings can. */
		if (mib > 0 && service->adopted && (service->gpus & GPU_BIT(gpu)) == 0) {
			service->gpus |= GPU_BIT(gpu);
			lease_follow_service(engine, service);
		}
	}
}

/* After a reading of all GPUs. */
static void note_lasting_peaks(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		uint32_t mib = 0;
		for (size_t gpu = 0; service->has_measured && gpu < engine->n_cards; gpu++)
			mib += service->measured_mib[gpu];
		if (mib <= service->lasting_peak_mib)
			continue;
		service->lasting_peak_mib = mib;
		engine->knowledge++;
	}
}

static void forget_measurements(struct engine *engine)
{
	bool any = false;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
		any |= engine->cards[gpu].has_processes;
	for (size_t i = 0; !any && i < engine->n_services; i++)
		engine->services[i].has_measured = false;
}

static void take_reading(struct engine *engine, size_t gpu, const struct gpu_facts *facts, uint64_t taken_ms)
{
	struct card *card = &engine->cards[gpu];
	card->sampled = true;
	card->sampled_ms = taken_ms;
	card->has_total = facts->has_total;
	card->has_used = facts->has_used;
	card->has_processes = facts->has_processes;
	card->total_mib = facts->total_mib;
	card->used_mib = facts->used_mib;
	if (facts->has_processes && facts->measured_mib != NULL)
		take_measurements(engine, gpu, facts, taken_ms);
}

static void lower(uint64_t *mib, uint64_t by)
{
	*mib = *mib > by ? *mib - by : 0;
}

void ledger_adopt_service(struct engine *engine, const struct service *service)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		struct gpu_account account;
		uint64_t held = ledger_commitment(engine, service, gpu);
		struct card *card = &engine->cards[gpu];
		lower(&card->baseline_used_mib, held);
		lower(&card->baseline_foreign_mib, held);
		ledger_account(engine, gpu, &account);
		/* The rest was there before anybody of ours that is yet to come. */
		if (account.mode == ACCOUNTING_TOTAL)
			card->baseline_used_mib = account.foreign_mib;
	}
}

static bool is_older_than_debts(const struct engine *engine, size_t gpu)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (debts_are_younger(&engine->services[i], gpu, engine->cards[gpu].sampled_ms))
			return true;
	return false;
}

/* Should the next readings tell totals only: what is none of the living services'. It may fall at any time; it rises
 * when nothing of ours is on its way back. */
static void set_baseline(struct engine *engine, size_t gpu, uint64_t rest_mib)
{
	struct card *card = &engine->cards[gpu];
	if (rest_mib < card->baseline_used_mib || !is_in_motion(engine, gpu))
		card->baseline_used_mib = rest_mib;
}

static bool is_anybody_unseen(const struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++)
		if (service_is_unseen(&engine->services[i]))
			return true;
	return false;
}

static uint32_t foreign_base(const struct gpu_account *account)
{
	return account->foreign_mib < GPU_MIB_UNKNOWN ? (uint32_t)account->foreign_mib : GPU_MIB_UNKNOWN - 1;
}

/* Rooms of which nobody could tell what was there before: all that is nobody's now. Some of it may be their filling. */
static void settle_room_base(struct engine *engine, size_t gpu, const struct gpu_account *account)
{
	struct card *card = &engine->cards[gpu];
	bool is_unknown = card->room_mib > 0 && card->room_base_mib == GPU_MIB_UNKNOWN;
	if (!is_unknown || account->mode == ACCOUNTING_LEDGER || is_in_motion(engine, gpu) ||
		!ledger_is_settled(engine) || is_anybody_unseen(engine))
		return;
	card->room_base_mib = foreign_base(account);
	lease_learn_base(engine, gpu, card->room_base_mib);
}

void ledger_settle(struct engine *engine, size_t gpu)
{
	struct gpu_account account;
	struct card *card = &engine->cards[gpu];
	ledger_account(engine, gpu, &account);
	settle_room_base(engine, gpu, &account);
	debts_shrink(engine, gpu, account.unreclaimed_mib);
	if (!is_inhabited(engine, gpu) && card->has_used)
		card->baseline_used_mib = card->used_mib;
	else if (account.mode == ACCOUNTING_PROCESS && !is_older_than_debts(engine, gpu))
		set_baseline(engine, gpu, account.foreign_mib + account.unreclaimed_mib);
}

/* Growing foreign memory may be one of our services that somebody started by hand. */
static bool note_foreign(struct engine *engine, size_t gpu)
{
	struct card *card = &engine->cards[gpu];
	struct gpu_account account;
	ledger_account(engine, gpu, &account);
	bool grew = account.foreign_mib >= card->foreign_seen_mib + FIND_GROWTH_MIB;
	card->foreign_seen_mib = account.foreign_mib;
	return grew && account.mode != ACCOUNTING_LEDGER;
}

void ledger_take_readings(struct engine *engine, const struct event *event)
{
	size_t n_gpus = event->readings.n_gpus < GPU_MAX ? event->readings.n_gpus : GPU_MAX;
	bool look = false;
	engine->has_readings = true;
	engine->n_readings++;
	if (n_gpus > engine->n_cards)
		engine->n_cards = n_gpus;
	for (size_t gpu = 0; gpu < n_gpus; gpu++) {
		struct card *card = &engine->cards[gpu];
		if (card->sampled && event->readings.taken_ms < card->sampled_ms)
			continue; /* overtaken by a younger one */
		take_reading(engine, gpu, &event->readings.gpus[gpu], event->readings.taken_ms);
	}
	lifecycle_book_found(engine);
	forget_measurements(engine);
	note_lasting_peaks(engine);
	bool is_settled = ledger_is_settled(engine);
	for (size_t gpu = 0; gpu < n_gpus; gpu++) {
		ledger_settle(engine, gpu);
		if (is_settled)
			refresh_baseline(engine, gpu);
		look |= note_foreign(engine, gpu);
	}
	ledger_note_modes(engine);
	if (look)
		lifecycle_find_stopped(engine);
	engine->version++;
}

/* Without a reading nobody can tell what is there; what was there before the other rooms is the best that is known. */
static uint32_t find_room_base(const struct engine *engine, size_t gpu)
{
	const struct card *card = &engine->cards[gpu];
	struct gpu_account account;
	ledger_account(engine, gpu, &account);
	if (account.mode != ACCOUNTING_LEDGER)
		return foreign_base(&account);
	return card->room_mib > 0 ? card->room_base_mib : GPU_MIB_UNKNOWN;
}

void ledger_take_room(struct engine *engine, size_t gpu, struct lease *lease)
{
	struct card *card = &engine->cards[gpu];
	if (lease->room_base_mib == GPU_MIB_UNKNOWN)
		lease->room_base_mib = find_room_base(engine, gpu);
	card->room_base_mib = lease->room_base_mib;
	card->room_mib += lease->room_mib;
}

void ledger_give_room(struct engine *engine, size_t gpu, uint32_t mib)
{
	engine->cards[gpu].room_mib -= mib;
}

uint64_t ledger_deadline(const struct engine *engine)
{
	uint64_t deadline = engine->has_readings ? DEADLINE_NONE : engine->begun_ms + FIRST_READING_MS;
	if (deadline <= engine->now_ms)
		deadline = DEADLINE_NONE;
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		const struct card *card = &engine->cards[gpu];
		if (is_fresh(engine, card) && card->sampled_ms + READING_STALE_MS + 1 < deadline)
			deadline = card->sampled_ms + READING_STALE_MS + 1;
	}
	return deadline;
}
