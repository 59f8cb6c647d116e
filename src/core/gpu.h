/*
 * What is known of a GPU, and what may be admitted on it.
 *
 * A reading is what a backend saw at one instant; each field is valid or not, for unknown is neither zero
 * nor infinity. The account is what follows from the readings and from what gpumgr has promised:
 *
 *   admissible = total - reserve - committed - unreclaimed - foreign
 *
 *   committed    what live services may grow to: the larger of what they declare and their measured peak
 *   unreclaimed  memory of services that ended, until the readings show it back
 *   foreign      memory of processes of no managed service
 *
 * How `foreign` is found depends on how much the readings tell; gpu_account() picks the best mode.
 * All amounts are MiB.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/units.h"

#define GPU_MAX 64 /* so that a set of GPUs is one word */

/* A set of GPUs: bit i is the GPU with index i. */
typedef uint64_t gpu_set;
#define GPU_SET_ALL UINT64_MAX
#define GPU_BIT(index) ((gpu_set)1 << (index))

enum gpu_valid {
	GPU_VALID_TOTAL = 1 << 0,
	GPU_VALID_USED = 1 << 1,
	GPU_VALID_FREE = 1 << 2,
	GPU_VALID_TEMPERATURE = 1 << 3,
	GPU_VALID_UTILIZATION = 1 << 4,
	GPU_VALID_PROCESSES = 1 << 5, /* the list is complete and every process in it has its amount */
	GPU_VALID_DRIVER = 1 << 6,
};

#define GPU_MIB_UNKNOWN UINT32_MAX

struct gpu_process {
	pid_t pid;
	uint32_t mib; /* GPU_MIB_UNKNOWN where the driver does not tell */
	char name[64];
};

#define GPU_MIG_MAX 16

/* A part of a GPU in MIG mode. Shown, and not accounted by itself: its memory is part of the GPU's. */
struct gpu_mig {
	char uuid[64]; /* "" when unknown */
	char name[64];
	bool has_memory;
	uint32_t total_mib;
	uint32_t used_mib;
};

/* One GPU at one instant. */
struct gpu_reading {
	unsigned valid; /* enum gpu_valid, or'ed */
	uint32_t total_mib;
	uint32_t used_mib; /* by anybody, the driver itself included: total - free */
	uint32_t free_mib;
	uint32_t driver_mib; /* the part of used_mib that the driver keeps for itself */
	int temperature_c;
	unsigned utilization_percent;
	char uuid[64]; /* "" when unknown */
	char name[64];
	char problem[160]; /* why fields are missing, "" when nothing is wrong */
	size_t n_processes;
	struct gpu_process *processes;
	size_t n_migs; /* 0 unless the GPU is in MIG mode */
	struct gpu_mig *migs;
};

/* All GPUs at one instant. Owned by whoever made it; handed out as const. */
struct gpu_sample {
	uint64_t taken_ms; /* CLOCK_MONOTONIC when the reading began */
	unsigned n_gpus;
	struct gpu_reading gpus[GPU_MAX];
	char problem[256]; /* why there is no reading at all, "" otherwise */
};

/* The part of a reading that decisions rest on. */
struct gpu_facts {
	bool has_total;
	bool has_used;
	bool has_processes;
	uint32_t total_mib;
	uint32_t used_mib;
	const uint32_t *measured_mib; /* [services]: what each one's processes hold; only with has_processes */
};

enum accounting_mode {
	ACCOUNTING_PROCESS, /* per-process figures */
	ACCOUNTING_TOTAL, /* only totals */
	ACCOUNTING_LEDGER, /* no readings: what was promised is all there is */
};

const char *accounting_mode_name(enum accounting_mode mode);

/* Everything that the account of one GPU rests on. */
struct gpu_account_input {
	enum accounting_mode mode;
	bool has_total;
	uint32_t total_mib;
	uint32_t used_mib;
	uint32_t reserve_mib;
	uint64_t committed_mib; /* of live services whose processes exist (or are about to) */
	uint64_t promised_mib; /* the part of it whose services have not been started yet: it holds nothing */
	uint64_t room_mib; /* leased for processes that are no services; committed_mib contains it */
	uint64_t room_baseline_mib; /* what was foreign when the first of that was leased */
	uint64_t measured_mib; /* of the same services, by the readings */
	uint64_t pending_mib; /* the most that ended services may not have given back yet */
	uint64_t baseline_mib; /* process: foreign when the last service ended; total: used without live services */
	bool settled; /* the reading is younger than the end of every pending service */
};

struct gpu_account {
	enum accounting_mode mode;
	bool has_total; /* false: nothing can be admitted here */
	uint32_t total_mib;
	uint32_t reserve_mib;
	uint64_t committed_mib;
	uint64_t unreclaimed_mib;
	uint64_t foreign_mib;
	int64_t admissible_mib; /* may be negative: adopted services and foreign memory ask nobody */
};

void gpu_account(const struct gpu_account_input *input, struct gpu_account *ret_account);

unsigned gpu_set_count(gpu_set set);
/* The `n` lowest of it, or all when there are fewer. */
gpu_set gpu_set_first(gpu_set set, unsigned n);
