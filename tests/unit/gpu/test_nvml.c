/* The NVML backend against a library that keeps to the real one's interface and misbehaves on command. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "folder.h"
#include "gpu/nvml.h"
#include "gpu/nvml_library.h"

#define ALL                                                                                                            \
	(GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_TEMPERATURE | GPU_VALID_UTILIZATION |           \
		GPU_VALID_PROCESSES)
#define CHILDREN_MAX 64

struct fixture {
	struct folder folder;
	char library[512];
	const char *paths[2];
	struct nvml_options options;
	struct gpu_backend *backend;
	struct gpu_sample sample;
	struct error err;
	pid_t children[CHILDREN_MAX];
	size_t n_children;
};

/* A process that lives as long as the test does; what of it the test needs is open before it forks. */
static pid_t start_child(struct fixture *fixture)
{
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			pause();
		_exit(0);
	}
	assert_true(pid > 0 && fixture->n_children < CHILDREN_MAX);
	fixture->children[fixture->n_children++] = pid;
	return pid;
}

static void end_child(struct fixture *fixture, size_t i)
{
	if (fixture->children[i] <= 0)
		return;
	kill(fixture->children[i], SIGKILL);
	waitpid(fixture->children[i], NULL, 0);
	fixture->children[i] = 0;
}

static void use_library(struct fixture *fixture, const char *variant)
{
	snprintf(fixture->library, sizeof(fixture->library), "%s/%s/libnvidia-ml.so.1", NVML_FOLDER, variant);
	fixture->paths[0] = fixture->library;
}

/* Files of the library's are beside the folders of the GPUs. */
static void put(const struct fixture *fixture, const char *name, const char *text)
{
	char path[512];
	snprintf(path, sizeof(path), "../%s", name);
	folder_put(&fixture->folder, 0, path, text);
}

static void control(const struct fixture *fixture, const char *text)
{
	put(fixture, "nvml", text);
}

static int set_up(void **state)
{
	char path[512];
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	*state = fixture;
	folder_make(&fixture->folder);
	for (unsigned i = 0; i < 3; i++)
		mkdir(folder_path(&fixture->folder, i, "", path), 0755);
	put(fixture, "sizes", "24576\n8192\n");
	setenv("GPUMGR_TEST_NVML", fixture->folder.path, 1);
	setenv("GPUMGR_NVML_PIDS", "own", 1); /* tests may run in a container */
	use_library(fixture, "full");
	fixture->options = (struct nvml_options){
		.paths = fixture->paths,
		.gpus_folder = "/nowhere",
		.device_prefix = "/nowhere",
		.renew_ms = 50,
	};
	return 0;
}

static void close_backend(struct fixture *fixture)
{
	gpu_sample_finish(&fixture->sample);
	if (fixture->backend != NULL)
		fixture->backend->ops->close(fixture->backend);
	fixture->backend = NULL;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	close_backend(fixture);
	for (size_t i = 0; i < fixture->n_children; i++)
		end_child(fixture, i);
	folder_remove(&fixture->folder);
	free(fixture);
	return 0;
}

static int read_sample(struct fixture *fixture)
{
	gpu_sample_finish(&fixture->sample);
	memset(&fixture->sample, 0, sizeof(fixture->sample));
	fixture->err.message[0] = '\0';
	return fixture->backend->ops->read(fixture->backend, &fixture->sample, &fixture->err);
}

/* Opened when it is not; the reading of a GPU. */
static const struct gpu_reading *read_gpu(struct fixture *fixture, unsigned gpu)
{
	if (fixture->backend == NULL && nvml_open_with(&fixture->options, &fixture->backend, &fixture->err) < 0)
		fail_msg("%s", fixture->err.message);
	if (read_sample(fixture) < 0)
		fail_msg("%s", fixture->err.message);
	assert_true(fixture->sample.n_gpus > gpu);
	return &fixture->sample.gpus[gpu];
}

static const struct gpu_reading *read_anew(struct fixture *fixture, unsigned gpu)
{
	close_backend(fixture);
	return read_gpu(fixture, gpu);
}

static void expect_in(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", part, text);
}

static uint32_t mib_of(const struct gpu_reading *reading, pid_t pid)
{
	uint32_t mib = 0;
	unsigned n = 0;
	for (size_t i = 0; i < reading->n_processes; i++) {
		if (reading->processes[i].pid != pid)
			continue;
		mib = reading->processes[i].mib;
		n++;
	}
	assert_int_equal(n, 1);
	return mib;
}

static void test_what_a_sound_gpu_tells(void **state)
{
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 1, getpid(), 3000);
	const struct gpu_reading *reading = read_gpu(fixture, 1);
	assert_int_equal(fixture->sample.n_gpus, 2);
	assert_string_equal(fixture->sample.problem, "");
	assert_int_equal(reading->valid, ALL | GPU_VALID_DRIVER);
	assert_int_equal(reading->total_mib, 8192);
	assert_int_equal(reading->used_mib, 3000);
	assert_int_equal(reading->free_mib, 5192);
	assert_int_equal(reading->temperature_c, 42);
	assert_int_equal(reading->utilization_percent, 8);
	assert_string_equal(reading->uuid, "GPU-sim-1");
	assert_string_equal(reading->name, "NVIDIA Test GPU");
	assert_string_equal(reading->problem, "");
	assert_int_equal(reading->n_processes, 1);
	assert_int_equal(mib_of(reading, getpid()), 3000);
	assert_string_equal(reading->processes[0].name, "test_gpu_nvml");
	assert_int_equal(reading->n_migs, 0);
	assert_int_equal(fixture->sample.gpus[0].used_mib, 0);
	assert_int_equal(fixture->sample.gpus[0].valid, ALL | GPU_VALID_DRIVER);
}

static void test_old_libraries_tell_the_same(void **state)
{
	static const struct {
		const char *variant;
		unsigned valid;
	} libraries[] = { { "full", ALL | GPU_VALID_DRIVER }, { "r470", ALL }, { "legacy", ALL } };
	struct fixture *fixture = *state;
	pid_t child = start_child(fixture);
	folder_take(&fixture->folder, 0, getpid(), 3000);
	folder_take(&fixture->folder, 0, child, 500);
	control(fixture, "reserved 400\n");
	for (size_t i = 0; i < ARRAY_SIZE(libraries); i++) {
		use_library(fixture, libraries[i].variant);
		const struct gpu_reading *reading = read_anew(fixture, 0);
		assert_int_equal(reading->valid, libraries[i].valid);
		assert_int_equal(reading->total_mib, 24576);
		assert_int_equal(reading->used_mib, 3900); /* nobody can have what the driver keeps */
		assert_int_equal(reading->free_mib, 24576 - 3900);
		assert_int_equal(reading->driver_mib, reading->valid & GPU_VALID_DRIVER ? 400 : 0);
		assert_int_equal(reading->n_processes, 2);
		assert_int_equal(mib_of(reading, getpid()), 3000);
		assert_int_equal(mib_of(reading, child), 500);
	}
}

static void test_a_process_in_several_lists_counts_once(void **state)
{
	static const char *const lists[] = { "lists graphics", "lists mps", "lists all" };
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 3000);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		control(fixture, lists[i]);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->n_processes, 1);
		assert_int_equal(mib_of(reading, getpid()), 3000);
	}
}

static void test_an_amount_that_is_not_told_is_unknown(void **state)
{
	/* not told; more than any card has; more than this one has */
	static const char *const amounts[] = { "amount unknown", "amount 17179869184000000", "amount 32212254720" };
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 3000);
	for (size_t i = 0; i < ARRAY_SIZE(amounts); i++) {
		control(fixture, amounts[i]);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->valid & GPU_VALID_PROCESSES, 0);
		assert_int_equal(reading->valid & GPU_VALID_USED, GPU_VALID_USED);
		assert_int_equal(reading->used_mib, 3000);
		assert_int_equal(mib_of(reading, getpid()), GPU_MIB_UNKNOWN);
		expect_in(reading->problem, "accounting is by totals");
	}
	control(fixture, "");
	assert_int_equal(read_gpu(fixture, 0)->valid & GPU_VALID_PROCESSES, GPU_VALID_PROCESSES);
}

static void test_entries_of_every_layout(void **state)
{
	static const char *const layouts[] = { "entry 16", "entry 24", "entry 32" };
	struct fixture *fixture = *state;
	for (int i = 0; i < 7; i++)
		folder_take(&fixture->folder, 0, start_child(fixture), 100 + (unsigned)i);
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		control(fixture, layouts[i]);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->valid, ALL | GPU_VALID_DRIVER);
		assert_int_equal(reading->n_processes, 7);
		for (unsigned k = 0; k < 7; k++)
			assert_int_equal(mib_of(reading, fixture->children[k]), 100 + k);
	}
}

static void test_many_processes(void **state)
{
	struct fixture *fixture = *state;
	for (unsigned i = 0; i < CHILDREN_MAX; i++)
		folder_take(&fixture->folder, 0, start_child(fixture), 10);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, ALL | GPU_VALID_DRIVER);
	assert_int_equal(reading->n_processes, CHILDREN_MAX);
	for (size_t i = 0; i < CHILDREN_MAX / 2; i++)
		end_child(fixture, i);
	assert_int_equal(read_gpu(fixture, 0)->n_processes, CHILDREN_MAX / 2);
}

/* Whatever is wrong with the lists, the rest of the reading is good. */
static void test_lists_that_cannot_be_had(void **state)
{
	static const struct {
		const char *control, *problem;
	} cases[] = {
		{ "short", "NVML error 7" },
		{ "long", "unknown error" },
		{ "pid 0", "without a PID" },
		{ "pid 4294967295", "without a PID" },
		{ "error nvmlDeviceGetCompute* 0 4", "no permission; let gpumgrd run as root" },
		{ "error nvmlDeviceGetCompute* 0 3", "accounting is by totals: nvmlDeviceGetComputeRunningProcesses" },
		{ "error nvmlDeviceGetCompute* 0 13", "not supported by this driver" },
		{ "error nvmlDeviceGetGraphics* 0 999", "nvmlDeviceGetGraphicsRunningProcesses: unknown error" },
		{ "error nvmlDeviceGetMPS* 0 4", "nvmlDeviceGetMPSComputeRunningProcesses: no permission" },
		{ "error nvmlDeviceGetMPS* 0 4711", "Some Error (NVML error 4711)" },
	};
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 3000);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		control(fixture, cases[i].control);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->valid, (ALL | GPU_VALID_DRIVER) & ~GPU_VALID_PROCESSES);
		assert_int_equal(reading->used_mib, 3000);
		expect_in(reading->problem, cases[i].problem);
	}
}

static void test_kinds_of_processes_that_do_not_exist_are_no_problem(void **state)
{
	static const char *const controls[] = {
		"error nvmlDeviceGetGraphics* 0 3\nerror nvmlDeviceGetMPS* 0 13",
		"error nvmlDeviceGetMPS* 0 3", /* MIG, virtual GPUs */
		"error *RunningProcesses_v3 0 13", /* has the symbol, and says that it has not */
		"error *RunningProcesses_v3 0 26\nerror *RunningProcesses_v2 0 25",
		"error nvmlDeviceGetMemoryInfo_v2 0 999", /* WSL2 */
		"error nvmlDeviceGetMemoryInfo_v2 0 25",
	};
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 3000);
	for (size_t i = 0; i < ARRAY_SIZE(controls); i++) {
		control(fixture, controls[i]);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->valid & ~GPU_VALID_DRIVER, ALL);
		assert_string_equal(reading->problem, "");
		assert_int_equal(reading->used_mib, 3000);
		assert_int_equal(mib_of(reading, getpid()), 3000);
	}
}

static void test_each_field_by_itself(void **state)
{
	static const struct {
		const char *control;
		unsigned missing;
	} cases[] = {
		{ "error nvmlDeviceGetTemperatureV 0 3", 0 }, /* the older call */
		{ "error nvmlDeviceGetTemperature* 0 3", GPU_VALID_TEMPERATURE },
		{ "error nvmlDeviceGetUtilization* 0 3", GPU_VALID_UTILIZATION },
		{ "error nvmlDeviceGetUtilization* 0 4", GPU_VALID_UTILIZATION },
	};
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		control(fixture, cases[i].control);
		const struct gpu_reading *reading = read_anew(fixture, 0);
		assert_int_equal(reading->valid, (ALL | GPU_VALID_DRIVER) & ~cases[i].missing);
		assert_string_equal(reading->problem, "");
		assert_int_equal(fixture->sample.gpus[1].valid, ALL | GPU_VALID_DRIVER);
	}
}

/* Some drivers say so by -1, in place of an error. */
static void test_a_temperature_that_is_not_told(void **state)
{
	static const char *const libraries[] = { "full", "legacy" };
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(libraries); i++) {
		use_library(fixture, libraries[i]);
		control(fixture, "temperature -1");
		assert_int_equal(read_anew(fixture, 0)->valid & GPU_VALID_TEMPERATURE, 0);
		control(fixture, "temperature -5"); /* it is cold */
		const struct gpu_reading *reading = read_anew(fixture, 0);
		assert_int_equal(reading->valid & GPU_VALID_TEMPERATURE, GPU_VALID_TEMPERATURE);
		assert_int_equal(reading->temperature_c, -5);
	}
}

static void test_memory_that_is_not_told(void **state)
{
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 3000);
	control(fixture, "error nvmlDeviceGetMemoryInfo* 0 3"); /* shared with the processor's */
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, GPU_VALID_TEMPERATURE | GPU_VALID_UTILIZATION | GPU_VALID_PROCESSES);
	expect_in(reading->problem, "set gpu.gpus");
	assert_int_equal(mib_of(reading, getpid()), 3000);
	control(fixture, "error nvmlDeviceGetMemoryInfo* 0 4");
	reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, 0);
	expect_in(reading->problem, "no permission");
}

/* The daemon would refuse the whole sample, and take the sampler for broken. */
static void test_more_memory_than_can_be_counted(void **state)
{
	struct fixture *fixture = *state;
	put(fixture, "sizes", "4294967295\n8192\n");
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid & (GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE), 0);
	assert_int_equal(reading->total_mib, 0);
	expect_in(reading->problem, "nvmlDeviceGetMemoryInfo: unknown error");
	assert_int_equal(fixture->sample.gpus[1].valid, ALL | GPU_VALID_DRIVER);
}

static void test_a_lost_gpu_hurts_no_other(void **state)
{
	static const char *const controls[] = {
		"error nvmlDevice* 0 15", "error nvmlDeviceGetMemoryInfo* 0 15",
		"error nvmlDeviceGetCompute* 0 15", /* lost in the middle of a reading */
	};
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 1000);
	folder_take(&fixture->folder, 1, getpid(), 2000);
	for (size_t i = 0; i < ARRAY_SIZE(controls); i++) {
		control(fixture, "");
		assert_int_equal(read_anew(fixture, 0)->used_mib, 1000);
		control(fixture, controls[i]);
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		assert_int_equal(reading->valid, 0);
		assert_int_equal(reading->n_processes, 0);
		assert_string_equal(reading->uuid, "GPU-sim-0");
		expect_in(reading->problem, "the GPU is lost; it fell off the bus");
		assert_int_equal(reading[1].valid, ALL | GPU_VALID_DRIVER);
		assert_int_equal(reading[1].used_mib, 2000);
	}
}

/* It may need the library to be initialised anew, which is tried less and less often. */
static void test_a_lost_gpu_comes_back(void **state)
{
	struct fixture *fixture = *state;
	control(fixture, "error nvmlDevice* 0 15");
	assert_int_equal(read_gpu(fixture, 0)->valid, 0);
	control(fixture, "");
	bool is_back = false;
	for (int i = 0; i < 200 && !is_back; i++) {
		usleep(10000);
		is_back = read_gpu(fixture, 0)->valid == (ALL | GPU_VALID_DRIVER);
	}
	assert_true(is_back);
	assert_string_equal(read_gpu(fixture, 0)->problem, "");
}

static void test_a_driver_that_goes_away(void **state)
{
	static const struct {
		const char *control, *remedy;
	} cases[] = {
		{ "error nvmlDeviceGetMemory* 1 9", "not loaded; modprobe nvidia" },
		{ "error nvmlDeviceGetMemory* 0 18",
			"driver/library version mismatch; the driver was updated: reboot" },
		{ "error nvmlDeviceGetGraphics* 0 18", "mismatch" },
		{ "error nvmlDeviceGetMemory* * 1", "not initialised" },
	};
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 1000);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		control(fixture, "");
		read_anew(fixture, 0);
		control(fixture, cases[i].control);
		assert_int_equal(read_sample(fixture), -ENODEV);
		assert_int_equal(fixture->sample.n_gpus, 0);
		expect_in(fixture->err.message, cases[i].remedy);
	}
}

static void test_an_initialisation_that_fails(void **state)
{
	static const struct {
		const char *control, *remedy;
	} cases[] = {
		{ "error nvmlInit_v2 * 9", "nvml: the NVIDIA driver is not loaded; modprobe nvidia" },
		{ "error nvmlInit_v2 * 18", "reboot, or unload the nvidia modules and load them again" },
		{ "error nvmlInit_v2 * 4", "no permission" },
		{ "error nvmlInit_v2 * 999", "unknown error; see dmesg" },
		{ "error nvmlDeviceGetCount_v2 * 9", "not loaded" },
	};
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		control(fixture, cases[i].control);
		assert_int_equal(nvml_open_with(&fixture->options, &fixture->backend, &fixture->err), -ENODEV);
		assert_null(fixture->backend);
		expect_in(fixture->err.message, cases[i].remedy);
	}
	control(fixture, "");
	assert_int_equal(read_gpu(fixture, 0)->valid, ALL | GPU_VALID_DRIVER);
}

static void test_libraries_that_are_none(void **state)
{
	struct fixture *fixture = *state;
	use_library(fixture, "no-such-folder");
	assert_int_equal(nvml_open_with(&fixture->options, &fixture->backend, &fixture->err), -ENOENT);
	expect_in(fixture->err.message, "install the NVIDIA driver");
	use_library(fixture, "broken");
	assert_int_equal(nvml_open_with(&fixture->options, &fixture->backend, &fixture->err), -ENOTSUP);
	expect_in(fixture->err.message, "has no nvmlInit_v2");
	put(fixture, "garbage", "this is no library");
	snprintf(fixture->library, sizeof(fixture->library), "%s/garbage", fixture->folder.path);
	assert_int_equal(nvml_open_with(&fixture->options, &fixture->backend, &fixture->err), -ENOTSUP);
	expect_in(fixture->err.message, "cannot load");
}

static void test_gpus_come_and_go(void **state)
{
	char folder[300], path[400];
	struct fixture *fixture = *state;
	snprintf(folder, sizeof(folder), "%s/gpus", fixture->folder.path);
	snprintf(path, sizeof(path), "%s/0000:01:00.0", folder);
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	fixture->options.gpus_folder = folder;
	read_gpu(fixture, 1);
	control(fixture, "hide 0");
	read_gpu(fixture, 1); /* the library does not know yet */
	assert_int_equal(rmdir(path), 0);
	assert_string_equal(read_gpu(fixture, 0)->uuid, "GPU-sim-1");
	assert_int_equal(fixture->sample.n_gpus, 1);
	control(fixture, "");
	put(fixture, "sizes", "24576\n8192\n4096\n");
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(read_gpu(fixture, 2)->total_mib, 4096);
}

static void test_no_gpu_at_all(void **state)
{
	struct fixture *fixture = *state;
	put(fixture, "sizes", "");
	assert_int_equal(nvml_open_with(&fixture->options, &fixture->backend, &fixture->err), 0);
	assert_int_equal(read_sample(fixture), 0);
	assert_int_equal(fixture->sample.n_gpus, 0);
	expect_in(fixture->sample.problem, "the driver lists no GPU");
	put(fixture, "sizes", "24576\n");
	bool is_there = false;
	for (int i = 0; i < 200 && !is_there; i++) {
		usleep(10000);
		assert_int_equal(read_sample(fixture), 0);
		is_there = fixture->sample.n_gpus == 1;
	}
	assert_true(is_there);
}

static void test_mig(void **state)
{
	struct fixture *fixture = *state;
	control(fixture, "mig 0 3\nlists all\n");
	for (unsigned i = 0; i < 4; i++)
		folder_take(&fixture->folder, 0, start_child(fixture), 100);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	uint32_t used = 0;
	assert_int_equal(reading->valid, (ALL | GPU_VALID_DRIVER) & ~GPU_VALID_UTILIZATION);
	assert_int_equal(reading->used_mib, 400);
	assert_int_equal(reading->n_processes, 4);
	assert_int_equal(reading->n_migs, 3);
	for (unsigned i = 0; i < 3; i++) {
		char uuid[64];
		snprintf(uuid, sizeof(uuid), "MIG-00000000-0000-0000-0000-%012x", i);
		assert_string_equal(reading->migs[i].uuid, uuid);
		assert_string_equal(reading->migs[i].name, "NVIDIA Test GPU MIG 1g.5gb");
		assert_true(reading->migs[i].has_memory);
		assert_int_equal(reading->migs[i].total_mib, 8192);
		used += reading->migs[i].used_mib;
	}
	assert_int_equal(used, 400);
	assert_int_equal(reading[1].n_migs, 0);
}

/* Who is not root is told of the parts only. */
static void test_processes_of_parts(void **state)
{
	struct fixture *fixture = *state;
	for (unsigned i = 0; i < 4; i++)
		folder_take(&fixture->folder, 0, start_child(fixture), 100 + i);
	control(fixture, "mig 0 2\n");
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->n_processes, 4);
	control(fixture, "mig 0 2\nwhole-list 4\n");
	reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid & GPU_VALID_PROCESSES, GPU_VALID_PROCESSES);
	assert_int_equal(reading->n_processes, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(mib_of(reading, fixture->children[i]), 100 + i);
	control(fixture, "mig 0 2\nerror *RunningProcesses* 0 4\n");
	reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid & GPU_VALID_PROCESSES, 0);
	expect_in(reading->problem, "no permission");
}

/* More in all its parts than can be counted; the daemon would refuse the whole sample. */
static void test_a_sum_over_parts_that_cannot_be_counted(void **state)
{
	struct fixture *fixture = *state;
	unsigned n_in_part[2] = { 0 };
	while (n_in_part[0] == 0 || n_in_part[1] == 0) {
		pid_t child = start_child(fixture);
		folder_take(&fixture->folder, 0, child, 100);
		n_in_part[child % 2]++;
	}
	char text[128];
	snprintf(text, sizeof(text), "mig 0 2\npid %d\namount 3145728000000000\nerror nvmlDeviceGetMemoryInfo* 0 3\n",
		getpid());
	control(fixture, text);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->n_processes, 1);
	assert_int_equal(mib_of(reading, getpid()), GPU_MIB_UNKNOWN);
	assert_int_equal(reading->valid & GPU_VALID_PROCESSES, 0);
}

static void test_mig_without_parts(void **state)
{
	struct fixture *fixture = *state;
	control(fixture, "mig 1 0");
	const struct gpu_reading *reading = read_gpu(fixture, 1);
	assert_int_equal(reading->n_migs, 0);
	expect_in(reading->problem, "MIG mode is on and there is no MIG device");
	assert_string_equal(fixture->sample.gpus[0].problem, "");
}

static void test_pids_in_a_container(void **state)
{
	struct fixture *fixture = *state;
	char path[512];
	CLEANUP_CLOSE int device = -1;
	pid_t stranger = start_child(fixture);
	folder_put(&fixture->folder, 2, "nvidia0", "");
	device = open(folder_path(&fixture->folder, 2, "nvidia0", path), O_RDONLY | O_CLOEXEC);
	assert_true(device >= 0);
	pid_t user = start_child(fixture); /* has it open, too */
	fixture->options.device_prefix = fixture->folder.path;
	fixture->options.is_nested = true;
	folder_take(&fixture->folder, 0, user, 1000);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, ALL | GPU_VALID_DRIVER);
	assert_int_equal(mib_of(reading, user), 1000);
	/* A PID of elsewhere that is by chance one of here. */
	folder_take(&fixture->folder, 0, stranger, 500);
	reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, (ALL | GPU_VALID_DRIVER) & ~GPU_VALID_PROCESSES);
	assert_int_equal(reading->n_processes, 0);
	assert_int_equal(reading->used_mib, 1500);
	expect_in(reading->problem, "--pid=host");
	/* One that is nobody's here. */
	end_child(fixture, 0);
	control(fixture, "pid 4194305\n");
	assert_int_equal(read_gpu(fixture, 0)->n_processes, 0);
	control(fixture, "");
	assert_int_equal(read_gpu(fixture, 0)->n_processes, 1);
}

static void test_a_process_that_just_ended_is_still_believed(void **state)
{
	struct fixture *fixture = *state;
	char path[512], command[64];
	folder_put(&fixture->folder, 2, "nvidia0", "");
	CLEANUP_CLOSE int device = open(folder_path(&fixture->folder, 2, "nvidia0", path), O_RDONLY | O_CLOEXEC);
	assert_true(device >= 0);
	pid_t user = start_child(fixture);
	folder_take(&fixture->folder, 0, user, 1000);
	folder_take(&fixture->folder, 0, getpid(), 1000);
	fixture->options.device_prefix = fixture->folder.path;
	fixture->options.is_nested = true;
	assert_int_equal(read_gpu(fixture, 0)->n_processes, 2);
	end_child(fixture, 0);
	snprintf(command, sizeof(command), "pid %d", user);
	control(fixture, command);
	assert_int_equal(read_gpu(fixture, 0)->valid, ALL | GPU_VALID_DRIVER);
	assert_int_equal(fixture->sample.gpus[0].processes[0].pid, user);
}

static void test_a_library_that_stays(void **state)
{
	struct fixture *fixture = *state;
	read_gpu(fixture, 0);
	assert_true(nvml_library_is_loaded(fixture->paths));
	close_backend(fixture);
	assert_false(nvml_library_is_loaded(fixture->paths));
	use_library(fixture, "stuck");
	read_gpu(fixture, 0);
	close_backend(fixture);
	assert_true(nvml_library_is_loaded(fixture->paths));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_what_a_sound_gpu_tells),
		TEST(test_old_libraries_tell_the_same),
		TEST(test_a_process_in_several_lists_counts_once),
		TEST(test_an_amount_that_is_not_told_is_unknown),
		TEST(test_entries_of_every_layout),
		TEST(test_many_processes),
		TEST(test_lists_that_cannot_be_had),
		TEST(test_kinds_of_processes_that_do_not_exist_are_no_problem),
		TEST(test_each_field_by_itself),
		TEST(test_a_temperature_that_is_not_told),
		TEST(test_memory_that_is_not_told),
		TEST(test_more_memory_than_can_be_counted),
		TEST(test_a_lost_gpu_hurts_no_other),
		TEST(test_a_lost_gpu_comes_back),
		TEST(test_a_driver_that_goes_away),
		TEST(test_an_initialisation_that_fails),
		TEST(test_libraries_that_are_none),
		TEST(test_gpus_come_and_go),
		TEST(test_no_gpu_at_all),
		TEST(test_mig),
		TEST(test_processes_of_parts),
		TEST(test_a_sum_over_parts_that_cannot_be_counted),
		TEST(test_mig_without_parts),
		TEST(test_pids_in_a_container),
		TEST(test_a_process_that_just_ended_is_still_believed),
		TEST(test_a_library_that_stays),
	};
	return cmocka_run_group_tests_name("gpu/nvml", tests, NULL, NULL);
}
