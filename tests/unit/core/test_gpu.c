/* The account of one GPU in its three modes, against the formulas, written out again here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/gpu.h"

static int64_t most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static struct gpu_account account_of(struct gpu_account_input input)
{
	struct gpu_account account;

	memset(&account, 0xa5, sizeof(account));
	gpu_account(&input, &account);
	return account;
}

static struct gpu_account_input card(enum accounting_mode mode)
{
	return (struct gpu_account_input){
		.mode = mode, .has_total = true, .total_mib = 24576, .reserve_mib = 1024, .settled = true
	};
}

static void test_process_mode(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_PROCESS);
	struct gpu_account account;

	(void)state;
	input.used_mib = 7000;
	input.measured_mib = 4000;
	input.committed_mib = 6000;
	account = account_of(input);
	assert_int_equal(account.mode, ACCOUNTING_PROCESS);
	assert_int_equal(account.foreign_mib, 3000);
	assert_int_equal(account.unreclaimed_mib, 0);
	assert_int_equal(account.committed_mib, 6000);
	assert_int_equal(account.admissible_mib, 24576 - 1024 - 6000 - 3000);
}

/* More measured than used (two drivers, two counts) is no negative foreign memory. */
static void test_process_mode_never_negative_foreign(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_PROCESS);

	(void)state;
	input.used_mib = 3000;
	input.measured_mib = 4000;
	input.committed_mib = 4000;
	assert_int_equal(account_of(input).foreign_mib, 0);
	assert_int_equal(account_of(input).admissible_mib, 24576 - 1024 - 4000);
}

static void test_total_mode(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_TOTAL);

	(void)state;
	input.used_mib = 7000;
	input.committed_mib = 6000;
	input.baseline_mib = 500;
	assert_int_equal(account_of(input).foreign_mib, 1000);
	input.baseline_mib = 1500;
	assert_int_equal(account_of(input).foreign_mib, 1500);
	input.used_mib = 200;
	assert_int_equal(account_of(input).foreign_mib, 1500);
	input.baseline_mib = 0;
	assert_int_equal(account_of(input).foreign_mib, 0);
	assert_int_equal(account_of(input).admissible_mib, 24576 - 1024 - 6000);
}

static void test_ledger_mode(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_LEDGER);
	struct gpu_account account;

	(void)state;
	input.used_mib = 9999; /* too old to count */
	input.measured_mib = 77;
	input.baseline_mib = 5000;
	input.committed_mib = 6000;
	account = account_of(input);
	assert_int_equal(account.foreign_mib, 0);
	assert_int_equal(account.admissible_mib, 24576 - 1024 - 6000);
}

/* A card of unknown size is neither empty nor full; nothing is admitted on it. */
static void test_unknown_total_admits_nothing(void **state)
{
	(void)state;
	for (int mode = ACCOUNTING_PROCESS; mode <= ACCOUNTING_LEDGER; mode++) {
		struct gpu_account_input input = card((enum accounting_mode)mode);
		struct gpu_account account;

		input.has_total = false;
		account = account_of(input);
		assert_false(account.has_total);
		assert_true(account.admissible_mib <= 0);
	}
}

/* Memory of a service that ended counts in full until a reading younger than its end was had. */
static void test_pending_unsettled(void **state)
{
	(void)state;
	for (int mode = ACCOUNTING_PROCESS; mode <= ACCOUNTING_TOTAL; mode++) {
		struct gpu_account_input input = card((enum accounting_mode)mode);

		input.settled = false;
		input.used_mib = 5000;
		input.pending_mib = 4000;
		input.baseline_mib = 1000;
		assert_int_equal(account_of(input).unreclaimed_mib, 4000);
		assert_true(account_of(input).admissible_mib <= 24576 - 1024 - 4000);
	}
}

/* A younger reading shows how much is back. */
static void test_pending_settled(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_PROCESS);
	struct gpu_account account;

	(void)state;
	input.pending_mib = 4000;
	input.baseline_mib = 1000;
	input.used_mib = 3500; /* 1000 foreign, 2500 still held */
	account = account_of(input);
	assert_int_equal(account.unreclaimed_mib, 2500);
	assert_int_equal(account.foreign_mib, 1000);
	input.used_mib = 1000;
	account = account_of(input);
	assert_int_equal(account.unreclaimed_mib, 0);
	assert_int_equal(account.foreign_mib, 1000);
	input.used_mib = 9000; /* more than was pending: the rest is foreign */
	account = account_of(input);
	assert_int_equal(account.unreclaimed_mib, 4000);
	assert_int_equal(account.foreign_mib, 5000);
}

static void test_pending_settled_totals(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_TOTAL);
	struct gpu_account account;

	(void)state;
	input.pending_mib = 4000;
	input.baseline_mib = 1000;
	input.used_mib = 5000;
	account = account_of(input);
	assert_int_equal(account.unreclaimed_mib + account.foreign_mib, 5000);
	assert_int_equal(account.unreclaimed_mib, 4000);
	input.used_mib = 1000;
	account = account_of(input);
	assert_int_equal(account.unreclaimed_mib, 0);
	assert_int_equal(account.foreign_mib, 1000);
}

/* Commitments beyond the card (an adopted service asked nobody) make admissible negative, not huge. */
static void test_overcommitted(void **state)
{
	struct gpu_account_input input = card(ACCOUNTING_PROCESS);

	(void)state;
	input.committed_mib = 40000;
	assert_int_equal(account_of(input).admissible_mib, 24576 - 1024 - 40000);
	input.committed_mib = (uint64_t)1 << 40;
	assert_int_equal(account_of(input).admissible_mib, 24576 - 1024 - ((int64_t)1 << 40));
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void check_against_formula(const struct gpu_account_input *input)
{
	struct gpu_account account = account_of(*input);
	int64_t used = input->used_mib, held = 0;

	if (input->mode == ACCOUNTING_PROCESS)
		held = most(0, used - (int64_t)input->measured_mib);
	else if (input->mode == ACCOUNTING_TOTAL)
		held = most((int64_t)input->baseline_mib, used - (int64_t)input->committed_mib);
	assert_int_equal(account.admissible_mib,
		(int64_t)input->total_mib - input->reserve_mib - (int64_t)account.committed_mib -
			(int64_t)account.unreclaimed_mib - (int64_t)account.foreign_mib);
	assert_int_equal(account.committed_mib, input->committed_mib);
	assert_true(account.unreclaimed_mib <= input->pending_mib);
	if (input->mode == ACCOUNTING_LEDGER) {
		assert_int_equal(account.foreign_mib, 0);
		return;
	}
	assert_true((int64_t)(account.foreign_mib + account.unreclaimed_mib) >= held);
	if (input->pending_mib == 0)
		assert_int_equal(account.foreign_mib, held);
	if (input->mode == ACCOUNTING_PROCESS && input->settled)
		assert_int_equal(account.foreign_mib + account.unreclaimed_mib, held);
	if (!input->settled)
		assert_int_equal(account.unreclaimed_mib, input->pending_mib);
}

static void test_random_against_formula(void **state)
{
	uint64_t random = 0x1234567;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		struct gpu_account_input input = {
			.mode = (enum accounting_mode)(next_random(&random) % 3),
			.has_total = true,
			.total_mib = (uint32_t)(next_random(&random) % 100000),
			.reserve_mib = (uint32_t)(next_random(&random) % 3000),
			.used_mib = (uint32_t)(next_random(&random) % 100000),
			.committed_mib = next_random(&random) % 100000,
			.measured_mib = next_random(&random) % 100000,
			.baseline_mib = next_random(&random) % 20000,
			.settled = next_random(&random) % 2 == 0,
		};

		if (next_random(&random) % 2 == 0)
			input.pending_mib = next_random(&random) % 30000;
		check_against_formula(&input);
	}
}

static void test_sets_and_names(void **state)
{
	(void)state;
	assert_int_equal(gpu_set_count(0), 0);
	assert_int_equal(gpu_set_count(GPU_BIT(0) | GPU_BIT(63)), 2);
	assert_int_equal(gpu_set_count(GPU_SET_ALL), 64);
	assert_string_equal(accounting_mode_name(ACCOUNTING_PROCESS), "process");
	assert_string_equal(accounting_mode_name(ACCOUNTING_TOTAL), "total");
	assert_string_equal(accounting_mode_name(ACCOUNTING_LEDGER), "ledger");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_process_mode),
		cmocka_unit_test(test_process_mode_never_negative_foreign),
		cmocka_unit_test(test_total_mode),
		cmocka_unit_test(test_ledger_mode),
		cmocka_unit_test(test_unknown_total_admits_nothing),
		cmocka_unit_test(test_pending_unsettled),
		cmocka_unit_test(test_pending_settled),
		cmocka_unit_test(test_pending_settled_totals),
		cmocka_unit_test(test_overcommitted),
		cmocka_unit_test(test_random_against_formula),
		cmocka_unit_test(test_sets_and_names),
	};

	return cmocka_run_group_tests_name("core/gpu", tests, NULL, NULL);
}
