/* The account of one GPU: arithmetic only. Who counts as live, ended or measured is decided by the caller. */
#include "core/gpu.h"

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

const char *accounting_mode_name(enum accounting_mode mode)
{
	static const char *const names[] = {
		[ACCOUNTING_PROCESS] = "process",
		[ACCOUNTING_TOTAL] = "total",
		[ACCOUNTING_LEDGER] = "ledger",
	};
	return names[mode];
}

/*
 * What the readings show beyond the live services is partly foreign, partly memory of services that ended. Until a
 * reading younger than their end is there, all they may have held counts.
 */
static void split_rest(const struct gpu_account_input *in, uint64_t rest, struct gpu_account *account)
{
	uint64_t unreclaimed = in->pending_mib;
	if (in->settled)
		unreclaimed = smaller(unreclaimed, minus(rest, in->baseline_mib));
	account->unreclaimed_mib = unreclaimed;
	account->foreign_mib = minus(rest, unreclaimed);
	/* An older reading may still show the ended service as its own; what was foreign before its end is so still. */
	if (!in->settled)
		account->foreign_mib = larger(account->foreign_mib, in->baseline_mib);
}

/*
 * What nobody of ours holds. Leased room is filled by processes that nobody can tell from strangers: what appeared
 * since it was leased is taken for theirs, as far as the room goes and as it cannot be memory on its way back.
 */
static uint64_t without_rooms(const struct gpu_account_input *in, uint64_t rest)
{
	uint64_t appeared = minus(minus(rest, in->room_baseline_mib), in->pending_mib);
	return rest - smaller(in->room_mib, appeared);
}

static void account_by_process(const struct gpu_account_input *in, struct gpu_account *account)
{
	uint64_t rest = without_rooms(in, minus(in->used_mib, in->measured_mib));
	if (in->pending_mib == 0)
		account->foreign_mib = rest;
	else
		split_rest(in, rest, account);
}

static void account_by_total(const struct gpu_account_input *in, struct gpu_account *account)
{
	uint64_t of_services = minus(in->committed_mib, in->promised_mib + in->room_mib);
	uint64_t rest = without_rooms(in, minus(in->used_mib, of_services));
	if (in->pending_mib != 0)
		split_rest(in, rest, account);
	else
		account->foreign_mib = rest;
	account->foreign_mib = larger(account->foreign_mib, in->baseline_mib);
}

void gpu_account(const struct gpu_account_input *in, struct gpu_account *ret_account)
{
	struct gpu_account account = {
		.mode = in->mode,
		.has_total = in->has_total,
		.total_mib = in->has_total ? in->total_mib : 0,
		.reserve_mib = in->reserve_mib,
		.committed_mib = in->committed_mib,
	};
	if (in->mode == ACCOUNTING_PROCESS)
		account_by_process(in, &account);
	else if (in->mode == ACCOUNTING_TOTAL)
		account_by_total(in, &account);
	else
		account.unreclaimed_mib = in->pending_mib;
	account.admissible_mib = (int64_t)account.total_mib - (int64_t)account.reserve_mib -
		(int64_t)account.committed_mib - (int64_t)account.unreclaimed_mib - (int64_t)account.foreign_mib;
	*ret_account = account;
}

unsigned gpu_set_count(gpu_set set)
{
	return (unsigned)__builtin_popcountll(set);
}

gpu_set gpu_set_first(gpu_set set, unsigned n)
{
	gpu_set first = 0;
	for (; set != 0 && n > 0; set &= set - 1, n--)
		first |= set & -set;
	return first;
}
