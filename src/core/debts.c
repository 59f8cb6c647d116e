/*
 * Debts: memory of services that ended, which the readings must show to be back. Each end of a service is a debt of its
 * own, with its own five seconds; then what is missing counts as foreign.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/engine_state.h"

uint64_t debts_mib(const struct service *service, size_t gpu)
{
	uint64_t mib = 0;
	for (size_t i = 0; i < service->n_debts; i++)
		mib += service->debts[i].mib[gpu];
	return mib;
}

bool debts_are_younger(const struct service *service, size_t gpu, uint64_t sampled_ms)
{
	for (size_t i = 0; i < service->n_debts; i++)
		if (service->debts[i].mib[gpu] > 0 && sampled_ms < service->debts[i].ended_ms)
			return true;
	return false;
}

static void drop(struct service *service, size_t index)
{
	service->n_debts--;
	memmove(&service->debts[index], &service->debts[index + 1],
		(service->n_debts - index) * sizeof(service->debts[0]));
}

/* A service that crashes again and again: the two oldest debts become one, due when the younger of them is. */
static void make_room(struct service *service)
{
	if (service->n_debts < DEBTS_MAX)
		return;
	for (size_t gpu = 0; gpu < GPU_MAX; gpu++)
		service->debts[1].mib[gpu] += service->debts[0].mib[gpu];
	drop(service, 0);
}

void debts_add(struct engine *engine, struct service *service, const uint32_t *mib)
{
	make_room(service);
	struct debt *debt = &service->debts[service->n_debts++];
	debt->ended_ms = engine->now_ms;
	memcpy(debt->mib, mib, sizeof(debt->mib));
}

static bool is_paid(const struct debt *debt)
{
	for (size_t gpu = 0; gpu < GPU_MAX; gpu++)
		if (debt->mib[gpu] > 0)
			return false;
	return true;
}

static void drop_paid(struct service *service)
{
	for (size_t i = service->n_debts; i-- > 0;)
		if (is_paid(&service->debts[i]))
			drop(service, i);
}

void debts_shrink(struct engine *engine, size_t gpu, uint64_t most_mib)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		for (size_t j = 0; j < service->n_debts; j++)
			if (service->debts[j].mib[gpu] > most_mib)
				service->debts[j].mib[gpu] = (uint32_t)most_mib;
		drop_paid(service);
	}
}

static void publish(struct engine *engine, const struct service *service, size_t gpu, uint32_t mib)
{
	char subject[32];
	snprintf(subject, sizeof(subject), "gpu%zu", gpu);
	struct notice *notice = notice_begin(engine, "gpu.unreclaimed", subject);
	if (notice == NULL)
		return;
	notice->is_problem = true;
	notice->transition = service->transition;
	notice_add_number(notice, "gpu", (int64_t)gpu);
	notice_add_number(notice, "mb", mib);
	notice_add_text(notice, "service", service->definition.name);
	snprintf(notice->text, sizeof(notice->text),
		"%s: %" PRIu32 " MiB of %s are not back %d s after its end; counted as foreign from now on", subject,
		mib, service->definition.name, RECLAIM_MS / 1000);
}

/* Never beyond what the reading shows at all. */
static void raise_baseline(struct card *card, uint32_t mib)
{
	uint64_t raised = card->baseline_used_mib + mib;
	if (raised > card->used_mib)
		raised = card->used_mib;
	if (raised > card->baseline_used_mib)
		card->baseline_used_mib = raised;
}

static void give_up(struct engine *engine, struct service *service, const struct debt *debt)
{
	for (size_t gpu = 0; gpu < engine->n_cards; gpu++) {
		if (debt->mib[gpu] == 0)
			continue;
		publish(engine, service, gpu, debt->mib[gpu]);
		/* Where readings tell totals only, later services must not hide behind it. */
		struct card *card = &engine->cards[gpu];
		if (ledger_mode(engine, card) == ACCOUNTING_TOTAL)
			raise_baseline(card, debt->mib[gpu]);
	}
	engine->version++;
}

void debts_tick(struct engine *engine)
{
	for (size_t i = 0; i < engine->n_services; i++) {
		struct service *service = &engine->services[i];
		while (service->n_debts > 0 && engine->now_ms >= service->debts[0].ended_ms + RECLAIM_MS) {
			give_up(engine, service, &service->debts[0]);
			drop(service, 0);
			for (size_t gpu = 0; gpu < engine->n_cards; gpu++)
				ledger_settle(engine, gpu); /* others may have owed the same memory */
		}
	}
}

uint64_t debts_deadline(const struct engine *engine)
{
	uint64_t deadline = DEADLINE_NONE;
	for (size_t i = 0; i < engine->n_services; i++) {
		const struct service *service = &engine->services[i];
		if (service->n_debts > 0 && service->debts[0].ended_ms + RECLAIM_MS < deadline)
			deadline = service->debts[0].ended_ms + RECLAIM_MS;
	}
	return deadline;
}
