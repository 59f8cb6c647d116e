/*
 * What one NVIDIA GPU tells.
 *
 * Memory: `used` is total - free, so it holds what the driver reserves for itself. That is what
 * nvmlDeviceGetMemoryInfo calls used, and more by some hundred MiB than what nvmlDeviceGetMemoryInfo_v2 and nvidia-smi
 * call so: nobody can have that memory, so a decision must not count it as free, and a driver that has only the older
 * call must not yield other figures. How much it is, driver_mib tells.
 *
 * It must not take what is not told for zero, nor let one field that fails spoil another.
 */
#include "gpu/nvml_gpu.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "gpu/nvml_error.h"

#define SLOW_MS 500 /* between readings of what no decision rests on */

void nvml_gpu_find(const struct nvml_library *library, unsigned index, struct nvml_gpu *gpu)
{
	char text[NVML_UUID_SIZE + 1] = "";
	*gpu = (struct nvml_gpu){ 0 };
	gpu->handle_code = library->device_by_index(index, &gpu->handle);
	if (gpu->handle_code == NVML_SUCCESS && gpu->handle == NULL)
		gpu->handle_code = NVML_ERROR_UNKNOWN;
	if (gpu->handle_code != NVML_SUCCESS)
		return;
	if (library->device_uuid(gpu->handle, text, NVML_UUID_SIZE) == NVML_SUCCESS)
		snprintf(gpu->uuid, sizeof(gpu->uuid), "%.*s", (int)sizeof(gpu->uuid) - 1, text);
	text[0] = '\0';
	if (library->device_name(gpu->handle, text, NVML_NAME_SIZE) == NVML_SUCCESS)
		snprintf(gpu->name, sizeof(gpu->name), "%.*s", (int)sizeof(gpu->name) - 1, text);
}

/* The first thing that is wrong is told; what follows from it is not. */
static void complain(struct gpu_reading *reading, const char *text)
{
	if (reading->problem[0] == '\0')
		snprintf(reading->problem, sizeof(reading->problem), "%.*s", (int)sizeof(reading->problem) - 1, text);
}

static void complain_code(const struct nvml_reader *reader, struct gpu_reading *reading, int code, const char *call)
{
	char text[sizeof(reading->problem)];
	nvml_error_text(&reader->library, code, call, text, sizeof(text));
	complain(reading, text);
}

struct memory {
	uint64_t total, free, reserved;
	bool has_reserved;
};

static int read_memory_v2(const struct nvml_library *library, nvml_device device, struct memory *memory)
{
	struct nvml_memory_v2 v2 = { .version = NVML_VERSION_OF(struct nvml_memory_v2, 2) };
	if (library->memory_v2 == NULL)
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	int code = library->memory_v2(device, &v2);
	if (code == NVML_SUCCESS)
		*memory = (struct memory){ v2.total, v2.free, v2.reserved, true };
	return code;
}

/* The newer call fails on some systems where the older does not (WSL2: unknown error). */
static int read_memory(const struct nvml_library *library, nvml_device device, struct memory *memory)
{
	struct nvml_memory_v1 v1 = { 0 };
	int code = read_memory_v2(library, device, memory);
	enum nvml_trouble trouble = nvml_error_trouble(code);
	if (trouble == NVML_TROUBLE_FIELD || trouble == NVML_TROUBLE_CALL) {
		code = library->memory_v1(device, &v1);
		if (code == NVML_SUCCESS)
			*memory = (struct memory){ v1.total, v1.free, 0, false };
	}
	/* No amount at all, one that contradicts itself, or one of more MiB than can be counted. */
	if (code == NVML_SUCCESS &&
		(memory->total == 0 || memory->free > memory->total || memory->total >> 20 >= GPU_MIB_UNKNOWN - 1))
		return NVML_ERROR_UNKNOWN;
	return code;
}

static uint32_t mib_up(uint64_t bytes)
{
	return (uint32_t)((bytes + (1u << 20) - 1) >> 20);
}

static int take_memory(
	const struct nvml_reader *reader, const struct nvml_gpu *gpu, struct gpu_reading *reading, uint64_t *ret_total)
{
	struct memory memory = { 0 };
	int code = read_memory(&reader->library, gpu->handle, &memory);
	if (nvml_error_trouble(code) == NVML_TROUBLE_CALL) /* once is no sign yet */
		code = read_memory(&reader->library, gpu->handle, &memory);
	if (code == NVML_SUCCESS) {
		reading->total_mib = (uint32_t)(memory.total >> 20);
		reading->free_mib = (uint32_t)(memory.free >> 20);
		reading->used_mib = mib_up(memory.total - memory.free);
		reading->valid |= GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE;
		*ret_total = memory.total;
	}
	if (code == NVML_SUCCESS && memory.has_reserved && memory.reserved <= memory.total) {
		reading->driver_mib = mib_up(memory.reserved);
		reading->valid |= GPU_VALID_DRIVER;
	}
	if (code == NVML_ERROR_NOT_SUPPORTED)
		complain(reading,
			"the driver does not tell the memory of this GPU (does it share the system's?); set gpu.gpus "
			"to what services may have");
	else if (code != NVML_SUCCESS)
		complain_code(reader, reading, code, "nvmlDeviceGetMemoryInfo");
	return code;
}

/* The PID's own name, as ps(1) has it; NVML's where /proc hides other users' processes. */
static void name_process(const struct nvml_reader *reader, struct gpu_process *process)
{
	char text[256] = "";
	snprintf(text, sizeof(text), "/proc/%d/comm", process->pid);
	CLEANUP_CLOSE int fd = open(text, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n > 0) {
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
	} else if (reader->library.process_name == NULL ||
		reader->library.process_name((unsigned)process->pid, text, sizeof(text) - 1) != NVML_SUCCESS) {
		return;
	}
	text[sizeof(text) - 1] = '\0';
	const char *slash = n > 0 ? NULL : strrchr(text, '/');
	snprintf(process->name, sizeof(process->name), "%.*s", (int)sizeof(process->name) - 1,
		slash != NULL ? slash + 1 : text);
}

/* Where the GPU itself does not tell: what its parts do. */
static int read_mig_processes(
	struct nvml_reader *reader, const struct nvml_gpu *gpu, uint64_t total, const char **ret_call)
{
	int code = NVML_ERROR_NOT_FOUND;
	nvml_processes_clear(&reader->processes);
	for (size_t i = 0; i < gpu->n_migs; i++) {
		code = nvml_processes_read(&reader->processes, &reader->library, gpu->migs[i], total, ret_call);
		if (code != NVML_SUCCESS)
			return code;
	}
	return code;
}

static bool believe_all(struct nvml_reader *reader, const struct gpu_reading *reading)
{
	for (size_t i = 0; i < reading->n_processes; i++)
		if (!nvml_pids_believe(&reader->pids, reading->processes[i].pid))
			return false;
	return true;
}

static void judge_processes(struct nvml_reader *reader, struct gpu_reading *reading, bool all_known)
{
	if (!believe_all(reader, reading)) {
		reading->n_processes = 0; /* the numbers would name others here */
		complain(reading,
			"the driver tells PIDs of another PID namespace, so accounting is by totals; give gpumgrd's "
			"container the host's PIDs (--pid=host)");
		return;
	}
	for (size_t i = 0; i < reading->n_processes; i++)
		name_process(reader, &reading->processes[i]);
	if (!all_known)
		complain(reading,
			"the driver does not tell how much memory each process holds, so accounting is by totals");
	else if (reader->processes.has_nonsense)
		complain(reading, "the driver lists processes without a PID, so accounting is by totals");
	else
		reading->valid |= GPU_VALID_PROCESSES;
}

/* What it means that the processes are not known, where the GPU itself is well. */
static void complain_lists(const struct nvml_reader *reader, struct gpu_reading *reading, int code, const char *call)
{
	char text[sizeof(reading->problem)];
	char whole[sizeof(text) + 64];
	enum nvml_trouble trouble = nvml_error_trouble(code);
	bool is_well = trouble == NVML_TROUBLE_FIELD || trouble == NVML_TROUBLE_CALL;
	nvml_error_text(&reader->library, code, call, text, sizeof(text));
	snprintf(whole, sizeof(whole), "%s%s", is_well ? "accounting is by totals: " : "", text);
	complain(reading, whole);
}

static int take_processes(
	struct nvml_reader *reader, const struct nvml_gpu *gpu, struct gpu_reading *reading, uint64_t total)
{
	const char *call = "";
	bool all_known;
	nvml_processes_clear(&reader->processes);
	int code = nvml_processes_read(&reader->processes, &reader->library, gpu->handle, total, &call);
	if (code != NVML_SUCCESS && gpu->is_mig)
		code = read_mig_processes(reader, gpu, total, &call);
	if (code != NVML_SUCCESS) {
		complain_lists(reader, reading, code, call);
		return code;
	}
	if (nvml_processes_total(&reader->processes, &reading->processes, &reading->n_processes, &all_known) < 0) {
		complain(reading, "out of memory for the list of processes");
		return NVML_ERROR_MEMORY;
	}
	judge_processes(reader, reading, all_known);
	return NVML_SUCCESS;
}

/* ---- what changes slowly ---- */

static bool read_temperature(const struct nvml_library *library, struct nvml_gpu *gpu)
{
	struct nvml_temperature_v1 newest = {
		.version = NVML_VERSION_OF(struct nvml_temperature_v1, 1),
		.sensor = NVML_TEMPERATURE_GPU,
	};
	unsigned celsius = 0;
	if (library->temperature_v != NULL && library->temperature_v(gpu->handle, &newest) == NVML_SUCCESS)
		gpu->temperature_c = newest.temperature;
	else if (library->temperature != NULL &&
		library->temperature(gpu->handle, NVML_TEMPERATURE_GPU, &celsius) == NVML_SUCCESS)
		gpu->temperature_c = (int)celsius;
	else
		return false;
	bool is_told = gpu->temperature_c != -1; /* some drivers tell that for unknown */
	return is_told && gpu->temperature_c > -273 && gpu->temperature_c < 1000;
}

static bool read_utilization(const struct nvml_library *library, struct nvml_gpu *gpu)
{
	struct nvml_utilization utilization = { 0 };
	if (library->utilization == NULL || library->utilization(gpu->handle, &utilization) != NVML_SUCCESS)
		return false;
	gpu->utilization_percent = utilization.gpu;
	return utilization.gpu <= 100;
}

static void name_mig(const struct nvml_library *library, nvml_device handle, struct gpu_mig *mig)
{
	char text[NVML_UUID_SIZE + 1] = "";
	*mig = (struct gpu_mig){ 0 };
	if (library->device_uuid(handle, text, NVML_UUID_SIZE) == NVML_SUCCESS)
		snprintf(mig->uuid, sizeof(mig->uuid), "%.*s", (int)sizeof(mig->uuid) - 1, text);
	text[0] = '\0';
	if (library->device_name(handle, text, NVML_NAME_SIZE) == NVML_SUCCESS)
		snprintf(mig->name, sizeof(mig->name), "%.*s", (int)sizeof(mig->name) - 1, text);
}

/* Indexes may have gaps: a part that was destroyed leaves one. */
static void find_migs(const struct nvml_library *library, struct nvml_gpu *gpu)
{
	unsigned current = 0, pending = 0, most = 0;
	gpu->n_migs = 0;
	gpu->is_mig = library->mig_mode != NULL && library->mig_count_max != NULL && library->mig_by_index != NULL &&
		library->mig_mode(gpu->handle, &current, &pending) == NVML_SUCCESS && current == NVML_MIG_ENABLED;
	if (!gpu->is_mig || library->mig_count_max(gpu->handle, &most) != NVML_SUCCESS)
		return;
	for (unsigned i = 0; i < most && gpu->n_migs < GPU_MIG_MAX; i++) {
		nvml_device *handle = &gpu->migs[gpu->n_migs];
		if (library->mig_by_index(gpu->handle, i, handle) == NVML_SUCCESS)
			name_mig(library, *handle, &gpu->mig_texts[gpu->n_migs++]);
	}
}

static void look_slowly(const struct nvml_reader *reader, struct nvml_gpu *gpu, uint64_t now)
{
	if (now < gpu->slow_ms)
		return;
	gpu->slow_ms = now + SLOW_MS;
	gpu->valid = 0;
	if (read_temperature(&reader->library, gpu))
		gpu->valid |= GPU_VALID_TEMPERATURE;
	if (read_utilization(&reader->library, gpu))
		gpu->valid |= GPU_VALID_UTILIZATION;
	find_migs(&reader->library, gpu);
}

static void take_migs(const struct nvml_reader *reader, const struct nvml_gpu *gpu, struct gpu_reading *reading)
{
	if (gpu->is_mig && gpu->n_migs == 0)
		complain(reading,
			"MIG mode is on and there is no MIG device, so nothing can run here; make some "
			"(nvidia-smi mig -cgi PROFILE -C) or turn it off (nvidia-smi -mig 0)");
	if (gpu->n_migs == 0)
		return;
	reading->migs = calloc(gpu->n_migs, sizeof(*reading->migs));
	if (reading->migs == NULL)
		return;
	reading->n_migs = gpu->n_migs;
	for (size_t i = 0; i < gpu->n_migs; i++) {
		struct memory memory = { 0 };
		struct gpu_mig *mig = &reading->migs[i];
		*mig = gpu->mig_texts[i];
		mig->has_memory = read_memory(&reader->library, gpu->migs[i], &memory) == NVML_SUCCESS;
		mig->total_mib = (uint32_t)(memory.total >> 20);
		mig->used_mib = mib_up(memory.total - memory.free);
	}
}

/* ---- all of it ---- */

/* The code of what decisions rest on most, the memory, unless a later call found the GPU or the driver gone. */
static int read_found(struct nvml_reader *reader, struct nvml_gpu *gpu, struct gpu_reading *reading, uint64_t now)
{
	uint64_t total = 0;
	memcpy(reading->uuid, gpu->uuid, sizeof(reading->uuid));
	memcpy(reading->name, gpu->name, sizeof(reading->name));
	if (gpu->handle_code != NVML_SUCCESS) {
		complain_code(reader, reading, gpu->handle_code, "nvmlDeviceGetHandleByIndex");
		return gpu->handle_code;
	}
	int code = take_memory(reader, gpu, reading, &total);
	if (code != NVML_SUCCESS && nvml_error_trouble(code) != NVML_TROUBLE_FIELD)
		return code;
	look_slowly(reader, gpu, now);
	reading->valid |= gpu->valid;
	reading->temperature_c = gpu->valid & GPU_VALID_TEMPERATURE ? gpu->temperature_c : 0;
	reading->utilization_percent = gpu->valid & GPU_VALID_UTILIZATION ? gpu->utilization_percent : 0;
	int list_code = take_processes(reader, gpu, reading, code == NVML_SUCCESS ? total : NVML_AMOUNT_UNKNOWN - 1);
	enum nvml_trouble list_trouble = nvml_error_trouble(list_code);
	take_migs(reader, gpu, reading);
	return list_trouble == NVML_TROUBLE_GPU || list_trouble == NVML_TROUBLE_DRIVER ? list_code : code;
}

/* What a lost GPU told before it was lost is not told. */
static void blank(struct gpu_reading *reading)
{
	free(reading->processes);
	free(reading->migs);
	reading->processes = NULL;
	reading->migs = NULL;
	reading->n_processes = 0;
	reading->n_migs = 0;
	reading->valid = 0;
}

int nvml_gpu_read(struct nvml_reader *reader, struct nvml_gpu *gpu, struct gpu_reading *reading, uint64_t now_ms)
{
	int code = read_found(reader, gpu, reading, now_ms);
	if (nvml_error_trouble(code) == NVML_TROUBLE_GPU)
		blank(reading);
	return code;
}
