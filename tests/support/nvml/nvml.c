/*
 * A libnvidia-ml.so.1 for tests: the binary interface of the real one, with GPUs that are those of a simulated GPU's
 * folder (see sim.c of the daemon): $GPUMGR_TEST_NVML/sizes lists them, $GPUMGR_TEST_NVML/<i>/<pid> says what a process
 * holds. It keeps to what the real one is known to do, and misbehaves as the file $GPUMGR_TEST_NVML/nvml says, which is
 * read at every call:
 *
 *   error CALL GPU CODE      CALL fails; CALL may hold * and ?, GPU is a number or *
 *   slow CALL GPU MS         it takes so long
 *   hang CALL GPU            it never returns
 *   crash CALL GPU           it ends the process by SIGSEGV
 *   hide GPU                 from the next initialisation on it is not there, and those behind it move up
 *   mig GPU N                it is in MIG mode, with N parts; process P is in part P % N
 *   whole-list CODE          a GPU's own lists fail, those of its parts do not
 *   lists WHAT               processes stand in the lists compute (as without), graphics, mps or all
 *   entry BYTES              entries of lists with a version take so many: 16, 24 (as without) or 32
 *   amount BYTES|unknown     what each process is said to hold
 *   pid N                    what each process is said to be
 *   short                    a list is always one longer than the buffer
 *   long                     it says that it wrote beyond the buffer's end
 *   reserved MIB             what the driver keeps for itself
 *   temperature CELSIUS      of each GPU
 *
 * LEVEL says which functions there are: 3 those of R510 and later, 2 of R470, 1 of before R450, 0 hardly any.
 */
#include <dirent.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define GPUS 64
#define PARTS 16

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, VERSION = 25 };

struct handle {
	unsigned gpu;
	int part; /* -1: all of it */
};

/* As the real library, it is one of a process. */
static unsigned initialised, n_listed, listed[GPUS];
static struct handle whole[GPUS], parts[GPUS][PARTS];

/* ---- the control file ---- */

static FILE *open_file(const char *name)
{
	char path[PATH_MAX];
	const char *folder = getenv("GPUMGR_TEST_NVML");
	snprintf(path, sizeof(path), "%s/%s", folder != NULL ? folder : "/nowhere", name);
	return fopen(path, "re");
}

/* The words behind the first line that begins with `command`, and whether there is one. */
static bool find_line(const char *command, char *words, size_t size)
{
	char line[256];
	bool found = false;
	FILE *file = open_file("nvml");
	size_t length = strlen(command);
	while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, command, length) != 0 || (line[length] != ' ' && line[length] != '\0'))
			continue;
		snprintf(words, size, "%s", line + length);
		found = true;
	}
	if (file != NULL)
		fclose(file);
	return found;
}

static unsigned long number(const char *command, unsigned long otherwise)
{
	char words[256];
	return find_line(command, words, sizeof(words)) ? strtoul(words, NULL, 10) : otherwise;
}

static bool is_on(const char *command, unsigned gpu)
{
	char words[256];
	return find_line(command, words, sizeof(words)) && strtoul(words, NULL, 10) == gpu;
}

/* How many parts the GPU is in; 0: it is not in MIG mode, or has none. */
static unsigned parts_of(unsigned gpu)
{
	char words[256];
	unsigned n = 0;
	if (is_on("mig", gpu) && find_line("mig", words, sizeof(words)))
		sscanf(words, "%*u %u", &n);
	return n;
}

/* A part is gone when its GPU was divided anew; its handle is not. */
static bool is_gone(const struct handle *handle)
{
	return handle->part >= 0 && (unsigned)handle->part >= parts_of(handle->gpu);
}

static void misbehave(const char *what, int value)
{
	struct timespec time = { value / 1000, value % 1000 * 1000000L };
	if (strcmp(what, "slow") == 0)
		nanosleep(&time, NULL);
	if (strcmp(what, "crash") == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer of the process has nothing to say to it */
		raise(SIGSEGV);
	}
	while (strcmp(what, "hang") == 0)
		pause();
}

/* What every call does first: the code that it shall fail with. */
static int begin(const char *call, int gpu)
{
	char line[256], what[16], pattern[128], which[16], index[16];
	int code = initialised > 0 || strncmp(call, "nvmlInit", 8) == 0 ? OK : UNINITIALIZED;
	FILE *file = open_file("nvml");
	snprintf(index, sizeof(index), "%d", gpu);
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		int value = 0;
		if (sscanf(line, "%15s %127s %15s %d", what, pattern, which, &value) < 3 ||
			fnmatch(pattern, call, 0) != 0 || fnmatch(which, index, 0) != 0)
			continue;
		if (strcmp(what, "error") == 0)
			code = value;
		else
			misbehave(what, value);
	}
	if (file != NULL)
		fclose(file);
	return code;
}

#define BEGIN(gpu)                                                                                                     \
	do {                                                                                                           \
		int code_ = begin(__func__, (int)(gpu));                                                               \
		if (code_ != OK)                                                                                       \
			return code_;                                                                                  \
	} while (0)

/* ---- the folder ---- */

static unsigned long size_of(unsigned gpu)
{
	char line[64];
	unsigned long mib = 0;
	FILE *file = open_file("sizes");
	for (unsigned i = 0; file != NULL && i <= gpu; i++)
		mib = fgets(line, sizeof(line), file) != NULL ? strtoul(line, NULL, 10) : 0;
	if (file != NULL)
		fclose(file);
	return mib;
}

static bool is_alive(unsigned long pid)
{
	char path[64], text[512], *state;
	snprintf(path, sizeof(path), "/proc/%lu/stat", pid);
	FILE *file = fopen(path, "re");
	size_t n = file != NULL ? fread(text, 1, sizeof(text) - 1, file) : 0;
	if (file != NULL)
		fclose(file);
	text[n] = '\0';
	state = strrchr(text, ')');
	return state != NULL && state[1] == ' ' && state[2] != 'Z' && state[2] != 'X';
}

static unsigned long read_mib(unsigned gpu, const char *pid)
{
	char name[300], line[32] = "";
	snprintf(name, sizeof(name), "%u/%s", gpu, pid);
	FILE *file = open_file(name);
	unsigned long mib = file != NULL && fgets(line, sizeof(line), file) != NULL ? strtoul(line, NULL, 10) : 0;
	if (file != NULL)
		fclose(file);
	return mib;
}

struct holder {
	unsigned pid;
	uint64_t bytes;
};

/* Who holds memory of the GPU, or of that part of it. */
static unsigned find_holders(const struct handle *handle, struct holder *holders, unsigned most)
{
	char path[PATH_MAX];
	unsigned n = 0, n_parts = parts_of(handle->gpu);
	snprintf(path, sizeof(path), "%s/%u", getenv("GPUMGR_TEST_NVML"), handle->gpu);
	DIR *dir = opendir(path);
	for (const struct dirent *entry; dir != NULL && n < most && (entry = readdir(dir)) != NULL;) {
		unsigned long pid = strtoul(entry->d_name, NULL, 10);
		if (pid == 0 || !is_alive(pid))
			continue;
		if (handle->part >= 0 && (n_parts == 0 || pid % n_parts != (unsigned long)handle->part))
			continue;
		holders[n++] = (struct holder){ (unsigned)pid, (uint64_t)read_mib(handle->gpu, entry->d_name) << 20 };
	}
	if (dir != NULL)
		closedir(dir);
	return n;
}

/* ---- the library ---- */

#if LEVEL > 0

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlInit_v2(void)
{
	BEGIN(-1);
	if (initialised++ > 0)
		return OK;
	n_listed = 0;
	for (unsigned gpu = 0; gpu < GPUS && size_of(gpu) > 0; gpu++)
		if (!is_on("hide", gpu))
			listed[n_listed++] = gpu;
	return OK;
}

EXPORT int nvmlShutdown(void);
EXPORT int nvmlShutdown(void)
{
	BEGIN(-1);
	initialised--;
	return OK;
}

EXPORT const char *nvmlErrorString(int code);
EXPORT const char *nvmlErrorString(int code)
{
	return code == OK ? "Success" : "Some Error";
}

/* As the real one: nothing is written where the buffer is too small. */
static int put_text(char *buffer, unsigned size, const char *text)
{
	if (strlen(text) >= size)
		return TOO_SMALL;
	strncpy(buffer, text, size);
	return OK;
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned size);
EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
	BEGIN(-1);
	return put_text(version, size, "0.0");
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count);
EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
	BEGIN(-1);
	*count = n_listed;
	return OK;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **handle);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **handle)
{
	BEGIN(index < n_listed ? listed[index] : index);
	if (index >= n_listed)
		return INVALID;
	*handle = &whole[listed[index]];
	**handle = (struct handle){ listed[index], -1 };
	return OK;
}

EXPORT int nvmlDeviceGetUUID(const struct handle *handle, char *uuid, unsigned size);
EXPORT int nvmlDeviceGetUUID(const struct handle *handle, char *uuid, unsigned size)
{
	char text[96];
	BEGIN(handle->gpu);
	if (handle->part >= 0)
		snprintf(text, sizeof(text), "MIG-00000000-0000-0000-%04x-%012x", handle->gpu, (unsigned)handle->part);
	else
		snprintf(text, sizeof(text), "GPU-sim-%u", handle->gpu);
	return put_text(uuid, size, text);
}

EXPORT int nvmlDeviceGetName(const struct handle *handle, char *name, unsigned size);
EXPORT int nvmlDeviceGetName(const struct handle *handle, char *name, unsigned size)
{
	BEGIN(handle->gpu);
	return put_text(name, size, handle->part < 0 ? "NVIDIA Test GPU" : "NVIDIA Test GPU MIG 1g.5gb");
}

struct amounts {
	uint64_t total, reserved, free;
};

static struct amounts amounts_of(const struct handle *handle)
{
	static struct holder holders[4096];
	unsigned n_parts = handle->part >= 0 ? parts_of(handle->gpu) : 1;
	uint64_t used = 0;
	unsigned n = find_holders(handle, holders, 4096);
	struct amounts amounts = {
		.total = ((uint64_t)size_of(handle->gpu) << 20) / n_parts,
		.reserved = handle->part < 0 ? (uint64_t)number("reserved", 0) << 20 : 0,
	};
	for (unsigned i = 0; i < n; i++)
		used += holders[i].bytes;
	used += amounts.reserved;
	amounts.free = used < amounts.total ? amounts.total - used : 0;
	return amounts;
}

struct memory_v1 {
	unsigned long long total, free, used;
};

EXPORT int nvmlDeviceGetMemoryInfo(const struct handle *handle, struct memory_v1 *memory);
EXPORT int nvmlDeviceGetMemoryInfo(const struct handle *handle, struct memory_v1 *memory)
{
	BEGIN(handle->gpu);
	if (is_gone(handle))
		return NOT_FOUND;
	struct amounts amounts = amounts_of(handle);
	*memory = (struct memory_v1){ amounts.total, amounts.free, amounts.total - amounts.free };
	return OK;
}

EXPORT int nvmlDeviceGetTemperature(const struct handle *handle, unsigned sensor, unsigned *celsius);
EXPORT int nvmlDeviceGetTemperature(const struct handle *handle, unsigned sensor, unsigned *celsius)
{
	BEGIN(handle->gpu);
	if (handle->part >= 0 || sensor != 0)
		return INVALID;
	*celsius = (unsigned)number("temperature", 41 + handle->gpu);
	return OK;
}

struct utilization {
	unsigned gpu, memory;
};

EXPORT int nvmlDeviceGetUtilizationRates(const struct handle *handle, struct utilization *utilization);
EXPORT int nvmlDeviceGetUtilizationRates(const struct handle *handle, struct utilization *utilization)
{
	BEGIN(handle->gpu);
	if (is_on("mig", handle->gpu))
		return NOT_SUPPORTED;
	*utilization = (struct utilization){ 7 + handle->gpu, 3 };
	return OK;
}

EXPORT int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size);
EXPORT int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size)
{
	BEGIN(-1);
	snprintf(name, size, "/usr/bin/process-%u", pid);
	return OK;
}

/* ---- lists of processes ---- */

static bool is_in_list(const char *list)
{
	char words[256] = " compute";
	find_line("lists", words, sizeof(words));
	return strstr(words, "all") != NULL || strstr(words, list) != NULL;
}

static void put_entry(uint8_t *at, unsigned size, const struct handle *handle, const struct holder *holder)
{
	static const uint64_t protected_bytes;
	char words[256];
	unsigned n_parts = parts_of(handle->gpu), ids[2] = { UINT32_MAX, UINT32_MAX };
	unsigned pid = (unsigned)number("pid", holder->pid);
	uint64_t bytes = number("amount", holder->bytes);
	if (find_line("amount", words, sizeof(words)) && strstr(words, "unknown") != NULL)
		bytes = UINT64_MAX;
	if (n_parts > 0) {
		ids[0] = holder->pid % n_parts + 1;
		ids[1] = 0;
	}
	memcpy(at, &pid, sizeof(pid));
	memcpy(at + 8, &bytes, sizeof(bytes));
	if (size >= 24)
		memcpy(at + 16, ids, sizeof(ids));
	if (size >= 32)
		memcpy(at + 24, &protected_bytes, sizeof(protected_bytes));
}

/* `size` is that of an entry. */
static int list(const char *kind, const struct handle *handle, unsigned *count, uint8_t *entries, unsigned size)
{
	static struct holder holders[4096];
	char words[256];
	unsigned n = is_in_list(kind) ? find_holders(handle, holders, 4096) : 0;
	bool is_short = find_line("short", words, sizeof(words));
	if (handle->part < 0 && number("whole-list", 0) != 0)
		return (int)number("whole-list", 0);
	if (is_short || n > *count) {
		*count = is_short ? *count + 1 : n;
		return TOO_SMALL;
	}
	for (unsigned i = 0; i < n; i++)
		put_entry(entries + (size_t)i * size, size, handle, &holders[i]);
	*count = find_line("long", words, sizeof(words)) ? *count + 1 : n;
	return OK;
}

#define LIST(name, kind, size)                                                                                         \
	EXPORT int name(const struct handle *handle, unsigned *count, void *entries);                                  \
	EXPORT int name(const struct handle *handle, unsigned *count, void *entries)                                   \
	{                                                                                                              \
		BEGIN(handle->gpu);                                                                                    \
		return list(kind, handle, count, entries, size);                                                       \
	}

LIST(nvmlDeviceGetComputeRunningProcesses, "compute", 16)
LIST(nvmlDeviceGetGraphicsRunningProcesses, "graphics", 16)

#endif

#if LEVEL > 1

#define VERSIONED_SIZE (unsigned)number("entry", 24)

LIST(nvmlDeviceGetMPSComputeRunningProcesses, "mps", 16)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, "compute", VERSIONED_SIZE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics", VERSIONED_SIZE)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps", VERSIONED_SIZE)

EXPORT int nvmlDeviceGetMigMode(const struct handle *handle, unsigned *current, unsigned *pending);
EXPORT int nvmlDeviceGetMigMode(const struct handle *handle, unsigned *current, unsigned *pending)
{
	BEGIN(handle->gpu);
	*current = *pending = is_on("mig", handle->gpu);
	return OK;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(const struct handle *handle, unsigned *count);
EXPORT int nvmlDeviceGetMaxMigDeviceCount(const struct handle *handle, unsigned *count)
{
	BEGIN(handle->gpu);
	*count = is_on("mig", handle->gpu) ? 7 : 0;
	return OK;
}

/* There is a gap before the last one. */
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const struct handle *handle, unsigned index, struct handle **part);
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const struct handle *handle, unsigned index, struct handle **part)
{
	BEGIN(handle->gpu);
	if (!is_on("mig", handle->gpu))
		return NOT_SUPPORTED;
	unsigned n = parts_of(handle->gpu);
	if (n > 1 && index == n - 1)
		return NOT_FOUND;
	if (n > 1 && index == n)
		index--;
	if (index >= n || index >= PARTS)
		return NOT_FOUND;
	*part = &parts[handle->gpu][index];
	**part = (struct handle){ handle->gpu, (int)index };
	return OK;
}

#endif

#if LEVEL > 2

LIST(nvmlDeviceGetComputeRunningProcesses_v3, "compute", VERSIONED_SIZE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics", VERSIONED_SIZE)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps", VERSIONED_SIZE)

struct memory_v2 {
	unsigned version;
	unsigned long long total, reserved, free, used;
};

EXPORT int nvmlDeviceGetMemoryInfo_v2(const struct handle *handle, struct memory_v2 *memory);
EXPORT int nvmlDeviceGetMemoryInfo_v2(const struct handle *handle, struct memory_v2 *memory)
{
	BEGIN(handle->gpu);
	if (memory->version != 0x02000028)
		return VERSION;
	if (is_gone(handle))
		return NOT_FOUND;
	struct amounts amounts = amounts_of(handle);
	memory->total = amounts.total;
	memory->reserved = amounts.reserved;
	memory->free = amounts.free;
	memory->used = amounts.total - amounts.free - amounts.reserved;
	return OK;
}

struct temperature {
	unsigned version, sensor;
	int celsius;
};

EXPORT int nvmlDeviceGetTemperatureV(const struct handle *handle, struct temperature *temperature);
EXPORT int nvmlDeviceGetTemperatureV(const struct handle *handle, struct temperature *temperature)
{
	BEGIN(handle->gpu);
	if (temperature->version != 0x0100000c)
		return VERSION;
	temperature->celsius = (int)number("temperature", 41 + handle->gpu);
	return OK;
}

#endif
