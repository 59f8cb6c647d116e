/*
 * What the NVIDIA library says, whatever it says: the functions of the table answer with the input. A reading comes of
 * it that can be sent to the daemon, which takes it.
 */
#include "gpu/nvml_gpu.h"

#include "fuzz.h"
#include "gpu/backend.h"
#include "gpu/nvml_error.h"
#include "gpu/sampler_wire.h"

#define GPUS 2
#define READINGS 2

static struct fuzz_input input;

/* Success half of the time, so that an input gets somewhere. */
static int next_code(void)
{
	uint8_t code = fuzz_u8(&input);
	return code < 128 ? NVML_SUCCESS : code == 255 ? NVML_ERROR_UNKNOWN : code - 127;
}

/* As much as the input says, not more than fits, and not always ended. */
static int write_text(char *text, unsigned size)
{
	unsigned n = fuzz_u8(&input) % (size + 1);
	for (unsigned i = 0; i < n; i++)
		text[i] = (char)fuzz_u8(&input);
	if (n < size)
		text[n] = '\0';
	else if (size > 0)
		text[size - 1] = '\0'; /* the library does end what it writes */
	return next_code();
}

static const char *error_string(int code)
{
	return code == 200 ? NULL : "said the library";
}

static int device_by_index(unsigned index, nvml_device *ret_device)
{
	*ret_device = fuzz_u8(&input) == 255 ? NULL : (nvml_device)(uintptr_t)(index + 1);
	return next_code();
}

static int device_text(nvml_device device, char *text, unsigned size)
{
	(void)device;
	return write_text(text, size);
}

static int memory_v2(nvml_device device, struct nvml_memory_v2 *memory)
{
	(void)device;
	memory->total = fuzz_u64(&input);
	memory->free = fuzz_u64(&input);
	memory->reserved = fuzz_u64(&input);
	return next_code();
}

static int memory_v1(nvml_device device, struct nvml_memory_v1 *memory)
{
	(void)device;
	memory->total = fuzz_u64(&input);
	memory->free = fuzz_u64(&input);
	return next_code();
}

static int temperature_v(nvml_device device, struct nvml_temperature_v1 *temperature)
{
	(void)device;
	temperature->temperature = (int32_t)fuzz_u32(&input);
	return next_code();
}

static int temperature(nvml_device device, unsigned sensor, unsigned *ret_celsius)
{
	(void)device;
	(void)sensor;
	*ret_celsius = fuzz_u32(&input);
	return next_code();
}

static int utilization(nvml_device device, struct nvml_utilization *values)
{
	(void)device;
	values->gpu = fuzz_u16(&input);
	return next_code();
}

/* Entries of the size that the driver likes, in the room that it was given. */
static int list_of(size_t entry, unsigned *count, void *entries)
{
	unsigned capacity = *count, n = fuzz_u8(&input), code = (unsigned)next_code();
	if (n == 254)
		n = capacity;
	*count = n == 255 ? fuzz_u32(&input) : n;
	for (unsigned i = 0; i < n && i < capacity; i++)
		fuzz_take(&input, (uint8_t *)entries + i * entry, fuzz_left(&input) > 0 ? entry : 8);
	return n > capacity && code == NVML_SUCCESS && n != 255 ? NVML_ERROR_INSUFFICIENT_SIZE : (int)code;
}

static int list_v1(nvml_device device, unsigned *count, void *entries)
{
	(void)device;
	return list_of(sizeof(struct nvml_process_v1), count, entries);
}

static int list_v2(nvml_device device, unsigned *count, void *entries)
{
	(void)device;
	return list_of(sizeof(struct nvml_process_v2), count, entries);
}

static int list_largest(nvml_device device, unsigned *count, void *entries)
{
	(void)device;
	return list_of(NVML_PROCESS_LARGEST, count, entries);
}

static int mig_mode(nvml_device device, unsigned *ret_current, unsigned *ret_pending)
{
	(void)device;
	*ret_current = *ret_pending = fuzz_u8(&input) & 1;
	return next_code();
}

static int mig_count_max(nvml_device device, unsigned *ret_count)
{
	(void)device;
	*ret_count = fuzz_u8(&input);
	return next_code();
}

static int mig_by_index(nvml_device device, unsigned index, nvml_device *ret_device)
{
	(void)device;
	*ret_device = (nvml_device)(uintptr_t)(100 + index);
	return next_code();
}

static int process_name(unsigned pid, char *name, unsigned size)
{
	(void)pid;
	return write_text(name, size);
}

/* Which functions this library has. */
static struct nvml_library library_of(uint16_t has)
{
	struct nvml_library library = {
		.error_string = has & 1 ? error_string : NULL,
		.device_by_index = device_by_index,
		.device_uuid = device_text,
		.device_name = device_text,
		.memory_v2 = has & 2 ? memory_v2 : NULL,
		.memory_v1 = memory_v1,
		.temperature_v = has & 4 ? temperature_v : NULL,
		.temperature = has & 8 ? temperature : NULL,
		.utilization = has & 16 ? utilization : NULL,
		.mig_mode = has & 32 ? mig_mode : NULL,
		.mig_count_max = has & 32 ? mig_count_max : NULL,
		.mig_by_index = has & 32 ? mig_by_index : NULL,
		.process_name = has & 64 ? process_name : NULL,
	};
	for (int list = 0; list < NVML_LISTS; list++) {
		library.lists[list][0] = has & 128 ? list_largest : has & 256 ? list_v2 : NULL;
		library.lists[list][1] = has & 512 ? list_v2 : NULL;
		library.lists[list][2] = has & (1024u << list) ? list_v1 : NULL;
	}
	return library;
}

static void check_reading(const struct gpu_reading *reading)
{
	FUZZ_CHECK(strnlen(reading->problem, sizeof(reading->problem)) < sizeof(reading->problem));
	if (reading->valid & GPU_VALID_USED) {
		FUZZ_CHECK(reading->total_mib != GPU_MIB_UNKNOWN && reading->used_mib != GPU_MIB_UNKNOWN);
		/* Each is rounded for itself. */
		FUZZ_CHECK((uint64_t)reading->used_mib + reading->free_mib <= (uint64_t)reading->total_mib + 1);
		FUZZ_CHECK(reading->free_mib <= reading->total_mib);
	}
	for (size_t i = 0; i < reading->n_processes; i++) {
		FUZZ_CHECK(reading->processes[i].pid > 0);
		FUZZ_CHECK(!(reading->valid & GPU_VALID_PROCESSES) || reading->processes[i].mib != GPU_MIB_UNKNOWN);
		for (size_t j = 0; j < i && i < 64; j++)
			FUZZ_CHECK(reading->processes[i].pid != reading->processes[j].pid);
	}
}

/* The daemon gives a sampler up that writes what it does not take. */
static void check_wire(const struct gpu_sample *sample)
{
	static uint8_t *buffer;
	static size_t size;
	static struct gpu_sample decoded;
	memset(&decoded, 0, sizeof(decoded));
	ssize_t n = sampler_wire_encode(sample, &buffer, &size);
	FUZZ_CHECK(n > 4);
	FUZZ_CHECK(sampler_wire_decode(buffer + 4, (size_t)n - 4, &decoded) == 0);
	gpu_sample_finish(&decoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gpu_sample sample;
	struct nvml_gpu gpus[GPUS];
	input = fuzz_input(data, size);
	struct nvml_reader *reader = calloc(1, sizeof(*reader));
	FUZZ_CHECK(reader != NULL);
	reader->library = library_of(fuzz_u16(&input));
	reader->pids = (struct nvml_pids){ .is_nested = fuzz_u8(&input) == 255, .device_prefix = "/dev/nvidia" };
	for (unsigned i = 0; i < GPUS; i++)
		nvml_gpu_find(&reader->library, i, &gpus[i]);
	for (uint64_t now = 0; now < READINGS; now++) {
		memset(&sample, 0, sizeof(sample));
		sample.n_gpus = GPUS;
		for (unsigned i = 0; i < GPUS; i++) {
			int code = nvml_gpu_read(reader, &gpus[i], &sample.gpus[i], 1000 + now * 1000);
			if (nvml_error_trouble(code) == NVML_TROUBLE_DRIVER)
				continue;
			check_reading(&sample.gpus[i]);
		}
		check_wire(&sample);
		gpu_sample_finish(&sample);
	}
	nvml_processes_finish(&reader->processes);
	free(reader);
	return 0;
}
