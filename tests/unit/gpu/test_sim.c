/* The simulated GPU and the choice among backends: what counts, what does not, and that unknown is never zero. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "folder.h"
#include "gpu/backend.h"

#define ALL (GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_PROCESSES)

struct fixture {
	struct folder folder;
	struct gpu_backend *backend;
	struct gpu_sample sample;
	pid_t other; /* a living process, or 0 */
};

static pid_t start_other(void)
{
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

static void end_other(struct fixture *fixture)
{
	if (fixture->other <= 0)
		return;
	kill(fixture->other, SIGKILL);
	waitpid(fixture->other, NULL, 0);
	fixture->other = 0;
}

static int set_up(void **state)
{
	static struct fixture fixture;
	fixture = (struct fixture){ 0 };
	*state = &fixture;
	folder_make(&fixture.folder);
	struct error err;
	return gpu_backend_open(&fixture.folder.config, &fixture.backend, &err);
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	end_other(fixture);
	gpu_sample_finish(&fixture->sample);
	if (fixture->backend != NULL)
		fixture->backend->ops->close(fixture->backend);
	folder_remove(&fixture->folder);
	return 0;
}

static const struct gpu_reading *read_gpu(struct fixture *fixture, unsigned gpu)
{
	struct error err;
	gpu_sample_finish(&fixture->sample);
	memset(&fixture->sample, 0, sizeof(fixture->sample));
	assert_int_equal(fixture->backend->ops->read(fixture->backend, &fixture->sample, &err), 0);
	assert_int_equal(fixture->sample.n_gpus, 2);
	return &fixture->sample.gpus[gpu];
}

static void expect_used(struct fixture *fixture, unsigned gpu, unsigned mib)
{
	const struct gpu_reading *reading = read_gpu(fixture, gpu);
	assert_int_equal(reading->valid, ALL);
	assert_int_equal(reading->used_mib, mib);
	assert_string_equal(reading->problem, "");
}

static void test_opening_makes_the_folders_and_the_sizes(void **state)
{
	struct fixture *fixture = *state;
	char path[512], text[64] = "";
	struct stat st;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(lstat(folder_path(&fixture->folder, i, ".", path), &st), 0);
		assert_true(S_ISDIR(st.st_mode));
		assert_int_equal(st.st_mode & 07777, 01777); /* services may be other users */
	}
	snprintf(path, sizeof(path), "%s/sizes", fixture->folder.path);
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	assert_non_null(file);
	size_t n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	assert_string_equal(text, "24576\n8192\n");
	assert_int_equal(fstat(fileno(file), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
}

static void test_an_empty_card(void **state)
{
	const struct gpu_reading *reading = read_gpu(*state, 1);
	assert_int_equal(reading->valid, ALL);
	assert_int_equal(reading->total_mib, 8192);
	assert_int_equal(reading->used_mib, 0);
	assert_int_equal(reading->free_mib, 8192);
	assert_int_equal(reading->n_processes, 0);
	assert_string_equal(reading->uuid, "GPU-sim-1");
	assert_string_equal(reading->name, "Simulated GPU");
	assert_string_equal(reading->problem, "");
}

static void test_living_processes_count(void **state)
{
	struct fixture *fixture = *state;
	fixture->other = start_other();
	folder_take(&fixture->folder, 0, getpid(), 4000);
	folder_take(&fixture->folder, 0, fixture->other, 20000);
	folder_take(&fixture->folder, 1, getpid(), 7);
	prctl(PR_SET_NAME, "a) S (b");
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, ALL);
	assert_int_equal(reading->used_mib, 24000);
	assert_int_equal(reading->free_mib, 576);
	assert_int_equal(reading->n_processes, 2);
	size_t own = reading->processes[0].pid == getpid() ? 0 : 1;
	assert_int_equal(reading->processes[own].pid, getpid());
	assert_int_equal(reading->processes[own].mib, 4000);
	assert_string_equal(reading->processes[own].name, "a) S (b");
	assert_int_equal(reading->processes[1 - own].pid, fixture->other);
	assert_int_equal(reading->processes[1 - own].mib, 20000);
	assert_int_equal(fixture->sample.gpus[1].used_mib, 7);
}

static void test_more_than_the_card_leaves_nothing_free(void **state)
{
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 1, getpid(), 9000);
	const struct gpu_reading *reading = read_gpu(fixture, 1);
	assert_int_equal(reading->used_mib, 9000);
	assert_int_equal(reading->free_mib, 0);
	fixture->other = start_other();
	folder_take(&fixture->folder, 1, getpid(), UINT32_MAX - 1);
	folder_take(&fixture->folder, 1, fixture->other, UINT32_MAX - 1);
	reading = read_gpu(fixture, 1);
	assert_int_equal(reading->used_mib, UINT32_MAX - 1);
	assert_int_equal(reading->free_mib, 0);
}

static void test_zombies_and_the_dead_do_not_count(void **state)
{
	struct fixture *fixture = *state;
	fixture->other = start_other();
	folder_take(&fixture->folder, 0, fixture->other, 4000);
	expect_used(fixture, 0, 4000);
	kill(fixture->other, SIGKILL);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)fixture->other, &info, WEXITED | WNOWAIT), 0);
	expect_used(fixture, 0, 0);
	end_other(fixture);
	expect_used(fixture, 0, 0);
}

static void test_rubbish_is_ignored(void **state)
{
	struct fixture *fixture = *state;
	static const char *const contents[] = { "", "x", "12x", "-5", "+5", " 12", "12 ", "12\n\n", "0x10", "1e3",
		"007", "4294967295", "99999999999999999999", "18446744073709551617",
		"11111111111111111111111111111111111111111111111" };
	char own[16], text[32], path[512];
	snprintf(own, sizeof(own), "%d", getpid());
	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		folder_put(&fixture->folder, 0, own, contents[i]);
		expect_used(fixture, 0, 0);
	}
	folder_take(&fixture->folder, 0, getpid(), 100);
	static const char *const forms[] = { "0%s", "%sx", "+%s", "-%s", " %s", ".%s", "%s.tmp", "99999999999%s",
		"0x%s" };
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		int at = (int)(strchr(forms[i], '%') - forms[i]);
		snprintf(text, sizeof(text), "%.*s%s%s", at, forms[i], own, forms[i] + at + 2);
		folder_put(&fixture->folder, 0, text, "1000\n");
	}
	folder_put(&fixture->folder, 0, "0", "1000\n");
	folder_put(&fixture->folder, 0, "abc", "1000\n");
	folder_put(&fixture->folder, 0, "\xff\n", "1000\n");
	assert_int_equal(mkdir(folder_path(&fixture->folder, 0, "1", path), 0755), 0);
	expect_used(fixture, 0, 100);
}

static void test_no_link_is_followed_and_no_pipe_waited_for(void **state)
{
	struct fixture *fixture = *state;
	char own[16], path[512], target[512];
	snprintf(own, sizeof(own), "%d", getpid());
	folder_put(&fixture->folder, 1, "amount", "1000\n");
	folder_path(&fixture->folder, 1, "amount", target);
	assert_int_equal(symlink(target, folder_path(&fixture->folder, 0, own, path)), 0);
	expect_used(fixture, 0, 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_used(fixture, 0, 0);
	assert_int_equal(unlink(path), 0);

	/* A folder that is a link is no folder of ours. */
	folder_take(&fixture->folder, 1, getpid(), 5);
	snprintf(path, sizeof(path), "%s/0", fixture->folder.path);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("1", path), 0);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, 0);
	assert_int_equal(reading->n_processes, 0);
	assert_non_null(strstr(reading->problem, path));
	assert_int_equal(fixture->sample.gpus[1].used_mib, 5);
}

static void test_a_missing_folder_is_unknown_not_empty(void **state)
{
	struct fixture *fixture = *state;
	char path[512], away[512];
	snprintf(path, sizeof(path), "%s/0", fixture->folder.path);
	folder_take(&fixture->folder, 1, getpid(), 5);
	assert_int_equal(rmdir(path), 0);
	const struct gpu_reading *reading = read_gpu(fixture, 0);
	assert_int_equal(reading->valid, 0);
	assert_non_null(strstr(reading->problem, "No such file"));
	assert_int_equal(fixture->sample.gpus[1].valid, ALL);
	assert_int_equal(mkdir(path, 0755), 0);
	expect_used(fixture, 0, 0);

	/* The same for the whole folder, also when another comes in its place. */
	snprintf(away, sizeof(away), "%s.away", fixture->folder.path);
	assert_int_equal(rename(fixture->folder.path, away), 0);
	unsigned valid = read_gpu(fixture, 1)->valid;
	assert_int_equal(rename(away, fixture->folder.path), 0);
	assert_int_equal(valid, 0);
	expect_used(fixture, 1, 5);
}

struct juggler {
	char a[512], b[512];
	atomic_bool stop;
};

static void *juggle(void *argument)
{
	struct juggler *juggler = argument;
	while (!juggler->stop) {
		rename(juggler->a, juggler->b);
		usleep(200);
		rename(juggler->b, juggler->a);
		usleep(200);
	}
	return NULL;
}

/* Memory that is handed to another process by rename is never seen as free in between, nor twice. */
static void test_a_hand_over_is_never_missed(void **state)
{
	struct fixture *fixture = *state;
	struct juggler juggler = { .stop = false };
	char name[16];
	fixture->other = start_other();
	folder_take(&fixture->folder, 0, getpid(), 4000);
	snprintf(name, sizeof(name), "%d", getpid());
	folder_path(&fixture->folder, 0, name, juggler.a);
	snprintf(name, sizeof(name), "%d", fixture->other);
	folder_path(&fixture->folder, 0, name, juggler.b);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, juggle, &juggler), 0);
	unsigned n_wrong = 0, n_valid = 0;
	for (int i = 0; i < 2000; i++) {
		const struct gpu_reading *reading = read_gpu(fixture, 0);
		n_valid += reading->valid == ALL;
		n_wrong += reading->valid != 0 && reading->used_mib != 4000;
	}
	juggler.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(n_wrong, 0);
	assert_true(n_valid > 1500);
}

static void test_many_files(void **state)
{
	struct fixture *fixture = *state;
	char name[32];
	for (int i = 0; i < 3000; i++) { /* more than one listing holds; none of these is a process */
		snprintf(name, sizeof(name), "rubbish-%d-%s", i, "xxxxxxxxxx");
		folder_put(&fixture->folder, 0, name, "1\n");
	}
	folder_take(&fixture->folder, 0, getpid(), 12);
	expect_used(fixture, 0, 12);
}

static void test_the_choice_of_a_backend(void **state)
{
	struct fixture *fixture = *state;
	struct gpu_backend *backend = NULL;
	struct gpu_sample *sample = &fixture->sample;
	struct error err = { "" };
	static const enum gpu_backend_choice empty[] = { GPU_BACKEND_NONE, GPU_BACKEND_AUTO };
	for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
		fixture->folder.config.backend = empty[i]; /* a folder is there, and not taken unasked */
		assert_int_equal(gpu_backend_open(&fixture->folder.config, &backend, &err), 0);
		if (empty[i] == GPU_BACKEND_NONE)
			assert_string_equal(backend->ops->name, "none");
		assert_string_not_equal(backend->ops->name, "sim");
		if (strcmp(backend->ops->name, "none") == 0) {
			assert_int_equal(backend->ops->read(backend, sample, &err), 0);
			assert_int_equal(sample->n_gpus, 0);
		}
		backend->ops->close(backend);
	}
}

static void test_what_cannot_open_says_why(void **state)
{
	struct fixture *fixture = *state;
	struct gpu_backend *backend = NULL;
	struct gpu_config config = fixture->folder.config;
	struct error err;
	char path[512];

	config.sim_dir = NULL;
	assert_int_equal(gpu_backend_open(&config, &backend, &err), -EINVAL);
	assert_non_null(strstr(err.message, "gpu.sim.dir"));

	folder_put(&fixture->folder, 0, "file", "");
	config.sim_dir = (char *)folder_path(&fixture->folder, 0, "file", path);
	assert_int_equal(gpu_backend_open(&config, &backend, &err), -ENOTDIR);
	assert_non_null(strstr(err.message, path));

	config.sim_dir = (char *)folder_path(&fixture->folder, 0, "no/where", path);
	assert_int_equal(gpu_backend_open(&config, &backend, &err), -ENOENT);

	config = fixture->folder.config;
	config.n_sim_gpus = GPU_MAX + 1;
	assert_int_equal(gpu_backend_open(&config, &backend, &err), -EINVAL);
	assert_null(backend);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_opening_makes_the_folders_and_the_sizes),
		TEST(test_an_empty_card),
		TEST(test_living_processes_count),
		TEST(test_more_than_the_card_leaves_nothing_free),
		TEST(test_zombies_and_the_dead_do_not_count),
		TEST(test_rubbish_is_ignored),
		TEST(test_no_link_is_followed_and_no_pipe_waited_for),
		TEST(test_a_missing_folder_is_unknown_not_empty),
		TEST(test_a_hand_over_is_never_missed),
		TEST(test_many_files),
		TEST(test_the_choice_of_a_backend),
		TEST(test_what_cannot_open_says_why),
	};
	return cmocka_run_group_tests_name("gpu/sim", tests, NULL, NULL);
}
