/*
 * Reads NVML's lists of processes. The library is not trusted with the size of what it writes: the layout of an entry
 * differs between drivers under one name (see nvml_abi.h), so every buffer has room for the largest one, is filled with
 * a pattern before, and what an entry took is seen from where the pattern ends.
 */
#include "gpu/nvml_processes.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PATTERN 0xa5
#define FIRST_CAPACITY 32
#define CAPACITY_MOST 4096
#define TRIES 8 /* processes come faster than the list grows: then it is given up */

static const char *const names[NVML_LISTS] = {
	[NVML_LIST_COMPUTE] = "nvmlDeviceGetComputeRunningProcesses",
	[NVML_LIST_GRAPHICS] = "nvmlDeviceGetGraphicsRunningProcesses",
	[NVML_LIST_MPS] = "nvmlDeviceGetMPSComputeRunningProcesses",
};

static int grow_buffer(struct nvml_processes *processes, unsigned capacity)
{
	if (capacity > CAPACITY_MOST)
		capacity = CAPACITY_MOST;
	if (capacity <= processes->capacity)
		return 0;
	uint8_t *grown = realloc(processes->buffer, (size_t)capacity * NVML_PROCESS_LARGEST);
	if (grown == NULL)
		return -ENOMEM;
	processes->buffer = grown;
	processes->capacity = capacity;
	return 0;
}

/* One version of one list, with a larger buffer as long as it takes one. */
static int call(struct nvml_processes *processes, nvml_list_function function, nvml_device device, unsigned *ret_n)
{
	unsigned wanted = FIRST_CAPACITY;
	for (int i = 0; i < TRIES; i++) {
		if (grow_buffer(processes, wanted) < 0)
			return NVML_ERROR_MEMORY;
		memset(processes->buffer, PATTERN, (size_t)processes->capacity * NVML_PROCESS_LARGEST);
		*ret_n = processes->capacity;
		int code = function(device, ret_n, processes->buffer);
		if (code == NVML_SUCCESS && *ret_n > processes->capacity)
			return NVML_ERROR_UNKNOWN; /* it says that it wrote beyond the end */
		if (code != NVML_ERROR_INSUFFICIENT_SIZE || processes->capacity == CAPACITY_MOST)
			return code;
		wanted = (*ret_n > processes->capacity && *ret_n < CAPACITY_MOST ? *ret_n : processes->capacity) * 2;
	}
	return NVML_ERROR_INSUFFICIENT_SIZE;
}

/* Drivers have symbols that answer that they do not exist. */
static bool is_absent(int code)
{
	return code == NVML_ERROR_FUNCTION_NOT_FOUND || code == NVML_ERROR_DEPRECATED ||
		code == NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
}

static int call_newest(struct nvml_processes *processes, const struct nvml_library *library, enum nvml_list list,
	nvml_device device, unsigned *ret_n)
{
	int code = NVML_ERROR_FUNCTION_NOT_FOUND;
	for (int version = 0; version < NVML_LIST_VERSIONS && is_absent(code); version++)
		if (library->lists[list][version] != NULL)
			code = call(processes, library->lists[list][version], device, ret_n);
	return code;
}

/* What one of `n` entries takes. The last bytes of an entry of any layout are always written. */
static size_t entry_size(const uint8_t *buffer, unsigned n)
{
	size_t end = (size_t)n * NVML_PROCESS_LARGEST;
	while (end > 0 && buffer[end - 1] == PATTERN)
		end--;
	if (end <= n * sizeof(struct nvml_process_v1))
		return sizeof(struct nvml_process_v1);
	if (end <= n * sizeof(struct nvml_process_v2))
		return sizeof(struct nvml_process_v2);
	return NVML_PROCESS_LARGEST;
}

static bool is_same(const struct nvml_process *a, const struct nvml_process *b)
{
	/* Of a list of the first version one does not know the instance. */
	bool is_unplaced = a->gpu_instance == NVML_INSTANCE_NONE || b->gpu_instance == NVML_INSTANCE_NONE;
	return a->pid == b->pid &&
		(is_unplaced || (a->gpu_instance == b->gpu_instance && a->compute_instance == b->compute_instance));
}

static int add(struct nvml_processes *processes, const struct nvml_process *process)
{
	for (size_t i = 0; i < processes->n; i++) {
		struct nvml_process *there = &processes->items[i];
		if (!is_same(there, process))
			continue;
		if (there->bytes == NVML_AMOUNT_UNKNOWN ||
			(process->bytes != NVML_AMOUNT_UNKNOWN && process->bytes > there->bytes))
			there->bytes = process->bytes;
		return 0;
	}
	if (processes->n == processes->size) {
		size_t size = processes->size == 0 ? FIRST_CAPACITY : 2 * processes->size;
		struct nvml_process *grown = realloc(processes->items, size * sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		processes->items = grown;
		processes->size = size;
	}
	processes->items[processes->n++] = *process;
	return 0;
}

static struct nvml_process decode(const uint8_t *entry, size_t size, uint64_t bytes_most)
{
	struct nvml_process_v2 raw = { .gpu_instance = NVML_INSTANCE_NONE, .compute_instance = NVML_INSTANCE_NONE };
	memcpy(&raw, entry, size < sizeof(raw) ? size : sizeof(raw));
	return (struct nvml_process){
		.pid = raw.pid <= INT_MAX ? (pid_t)raw.pid : 0,
		.gpu_instance = raw.gpu_instance,
		.compute_instance = raw.compute_instance,
		.bytes = raw.bytes <= bytes_most ? raw.bytes : NVML_AMOUNT_UNKNOWN,
	};
}

static int add_all(struct nvml_processes *processes, unsigned n, uint64_t bytes_most)
{
	size_t size = entry_size(processes->buffer, n);
	for (unsigned i = 0; i < n; i++) {
		struct nvml_process process = decode(processes->buffer + i * size, size, bytes_most);
		if (process.pid == 0)
			processes->has_nonsense = true;
		else if (add(processes, &process) < 0)
			return NVML_ERROR_MEMORY;
	}
	return NVML_SUCCESS;
}

int nvml_processes_read(struct nvml_processes *processes, const struct nvml_library *library, nvml_device device,
	uint64_t bytes_most, const char **ret_call)
{
	for (int list = 0; list < NVML_LISTS; list++) {
		unsigned n = 0;
		int code = call_newest(processes, library, (enum nvml_list)list, device, &n);
		*ret_call = names[list];
		if (code == NVML_SUCCESS)
			code = add_all(processes, n, bytes_most);
		bool is_unknown_kind = is_absent(code) || code == NVML_ERROR_NOT_SUPPORTED;
		if (code != NVML_SUCCESS && (list == NVML_LIST_COMPUTE || !is_unknown_kind))
			return code;
	}
	return NVML_SUCCESS;
}

static uint32_t mib_of(uint64_t bytes)
{
	uint64_t mib = (bytes >> 20) + ((bytes & ((1u << 20) - 1)) != 0);
	return mib < GPU_MIB_UNKNOWN ? (uint32_t)mib : GPU_MIB_UNKNOWN;
}

/* The entry of a PID that came before, in another instance. */
static struct gpu_process *find(struct gpu_process *list, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].pid == pid)
			return &list[i];
	return NULL;
}

static uint32_t sum(uint32_t a, uint32_t b)
{
	return a == GPU_MIB_UNKNOWN || b == GPU_MIB_UNKNOWN || a + b < a ? GPU_MIB_UNKNOWN : a + b;
}

int nvml_processes_total(
	const struct nvml_processes *processes, struct gpu_process **ret_list, size_t *ret_n, bool *ret_all_known)
{
	size_t n = 0;
	struct gpu_process *list = calloc(processes->n + 1, sizeof(*list));
	if (list == NULL)
		return -ENOMEM;
	*ret_all_known = true;
	for (size_t i = 0; i < processes->n; i++) {
		const struct nvml_process *process = &processes->items[i];
		uint32_t mib = process->bytes == NVML_AMOUNT_UNKNOWN ? GPU_MIB_UNKNOWN : mib_of(process->bytes);
		struct gpu_process *there = find(list, n, process->pid);
		if (there != NULL)
			mib = there->mib = sum(there->mib, mib);
		else
			list[n++] = (struct gpu_process){ .pid = process->pid, .mib = mib };
		if (mib == GPU_MIB_UNKNOWN)
			*ret_all_known = false;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

void nvml_processes_clear(struct nvml_processes *processes)
{
	processes->n = 0;
	processes->has_nonsense = false;
}

void nvml_processes_finish(struct nvml_processes *processes)
{
	free(processes->items);
	free(processes->buffer);
	*processes = (struct nvml_processes){ 0 };
}
