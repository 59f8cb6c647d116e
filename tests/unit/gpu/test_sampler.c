/* The sampler with its real child process: this program again, which main() hands over as gpumgrd's does. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "folder.h"
#include "gpu/sampler.h"

#define PATIENCE_MS 20000

struct fixture {
	struct folder folder;
	uv_loop_t loop;
	uv_timer_t limit;
	bool is_over_limit;
	struct sampler *sampler;
	unsigned n_samples;
	unsigned n_troubles;
	char trouble[256];
	bool destroy_in_sample, destroy_in_trouble;
};

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

/* The sampler children of this process that are no zombies; the kernel's list of children is not everywhere. */
static unsigned find_children(pid_t *pids, unsigned most)
{
	unsigned n = 0;
	DIR *proc = opendir("/proc");
	assert_non_null(proc);
	for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
		char path[300], text[512], state;
		int pid, parent;
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		int fd = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (fd < 0)
			continue;
		ssize_t length = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[length > 0 ? length : 0] = '\0';
		const char *after = strrchr(text, ')');
		if (after == NULL || sscanf(after, ") %c %d", &state, &parent) != 2 || parent != getpid() ||
			state == 'Z')
			continue;
		pid = atoi(text);
		if (n < most)
			pids[n] = pid;
		n++;
	}
	closedir(proc);
	return n;
}

static pid_t only_child(void)
{
	pid_t pid = 0;
	assert_int_equal(find_children(&pid, 1), 1);
	return pid;
}

static void handle_sample(void *context, const struct gpu_sample *sample)
{
	struct fixture *fixture = context;
	fixture->n_samples++;
	assert_ptr_equal(sample, sampler_last(fixture->sampler));
	if (fixture->destroy_in_sample)
		fixture->sampler = sampler_destroy(fixture->sampler);
}

static void handle_trouble(void *context, const char *text)
{
	struct fixture *fixture = context;
	fixture->n_troubles++;
	snprintf(fixture->trouble, sizeof(fixture->trouble), "%s", text);
	if (fixture->destroy_in_trouble)
		fixture->sampler = sampler_destroy(fixture->sampler);
}

static void handle_limit(uv_timer_t *timer)
{
	struct fixture *fixture = timer->data;
	fixture->is_over_limit = true;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	*state = fixture;
	if (fixture == NULL || uv_loop_init(&fixture->loop) < 0)
		return 1;
	fixture->limit.data = fixture;
	uv_timer_init(&fixture->loop, &fixture->limit);
	folder_make(&fixture->folder);
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	sampler_destroy(fixture->sampler);
	uv_close((uv_handle_t *)&fixture->limit, NULL);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&fixture->loop); /* EBUSY: a handle was left */
	folder_remove(&fixture->folder);
	free(fixture);
	pid_t pid = 0;
	unsigned n_children = find_children(&pid, 1);
	return r != 0 || n_children != 0;
}

static void start(struct fixture *fixture)
{
	const struct sampler_listener listener = {
		.context = fixture,
		.handle_sample = handle_sample,
		.handle_trouble = handle_trouble,
	};
	struct error err;
	assert_int_equal(
		sampler_create(&fixture->loop, &fixture->folder.config, &listener, &fixture->sampler, &err), 0);
	assert_null(sampler_last(fixture->sampler));
}

static bool run_until(struct fixture *fixture, const unsigned *counter, unsigned least)
{
	fixture->is_over_limit = false;
	uv_timer_start(&fixture->limit, handle_limit, PATIENCE_MS, 0);
	while (*counter < least && !fixture->is_over_limit)
		uv_run(&fixture->loop, UV_RUN_ONCE);
	uv_timer_stop(&fixture->limit);
	return *counter >= least;
}

static void run_for(struct fixture *fixture, unsigned ms)
{
	fixture->is_over_limit = false;
	uv_update_time(&fixture->loop);
	uv_timer_start(&fixture->limit, handle_limit, ms, 0);
	while (!fixture->is_over_limit)
		uv_run(&fixture->loop, UV_RUN_ONCE);
}

/* One more sample than there is now. */
static bool run_to_next(struct fixture *fixture)
{
	return run_until(fixture, &fixture->n_samples, fixture->n_samples + 1);
}

static void start_and_see(struct fixture *fixture)
{
	start(fixture);
	assert_true(run_to_next(fixture));
	assert_int_equal(fixture->n_troubles, 0);
}

static void test_the_first_sample_does_not_wait_for_the_interval(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 3600 * 1000;
	uint64_t before = now_ms();
	start_and_see(fixture);
	const struct gpu_sample *sample = sampler_last(fixture->sampler);
	assert_int_equal(sample->n_gpus, 2);
	assert_int_equal(sample->gpus[0].total_mib, 24576);
	assert_int_equal(sample->gpus[0].used_mib, 0);
	assert_int_equal(sample->gpus[1].total_mib, 8192);
	assert_true(sample->taken_ms >= before && sample->taken_ms <= now_ms());
}

static void test_samples_keep_coming_and_follow_the_card(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 20;
	start_and_see(fixture);
	folder_take(&fixture->folder, 1, getpid(), 4000);
	assert_true(run_until(fixture, &fixture->n_samples, fixture->n_samples + 3));
	const struct gpu_reading *reading = &sampler_last(fixture->sampler)->gpus[1];
	assert_int_equal(reading->used_mib, 4000);
	assert_int_equal(reading->n_processes, 1);
	assert_int_equal(reading->processes[0].pid, getpid());
}

static void test_fast_mode_and_back(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 3600 * 1000;
	start_and_see(fixture);
	sampler_set_fast(fixture->sampler, true);
	assert_true(run_until(fixture, &fixture->n_samples, fixture->n_samples + 50));
	sampler_set_fast(fixture->sampler, false);
	unsigned before;
	unsigned n_looks = 0;
	do { /* some are on their way, and on a busy machine the child hears of it late */
		before = fixture->n_samples;
		run_for(fixture, 300);
	} while (fixture->n_samples != before && ++n_looks < 50);
	assert_int_equal(fixture->n_samples, before);
	assert_int_equal(fixture->n_troubles, 0);
}

static void test_one_reading_now(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 3600 * 1000;
	start_and_see(fixture);
	for (unsigned i = 1; i <= 20; i++) {
		folder_take(&fixture->folder, 0, getpid(), i);
		uint64_t asked = now_ms();
		sampler_read_now(fixture->sampler);
		assert_true(run_to_next(fixture));
		assert_true(sampler_last(fixture->sampler)->taken_ms >= asked);
		assert_int_equal(sampler_last(fixture->sampler)->gpus[0].used_mib, i);
	}
	assert_int_equal(fixture->n_samples, 21);
}

/* Any number of commands may come before the child looks, and a stopped loop does not make it late. */
static void test_a_flood_of_commands_and_a_daemon_that_sleeps(void **state)
{
	struct fixture *fixture = *state;
	start_and_see(fixture);
	pid_t child = only_child();
	for (int i = 0; i < 5000; i++)
		sampler_read_now(fixture->sampler);
	sampler_set_fast(fixture->sampler, true);
	usleep(1700 * 1000);
	assert_true(run_until(fixture, &fixture->n_samples, fixture->n_samples + 50));
	assert_int_equal(fixture->n_troubles, 0);
	assert_int_equal(only_child(), child);
}

/* An interval for which there was no room is not forgotten over a command for which there is some again. */
static void test_an_interval_that_could_not_be_told(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 3600 * 1000;
	start_and_see(fixture);
	pid_t child = only_child();
	kill(child, SIGSTOP);
	for (int i = 0; i < 5000; i++)
		sampler_read_now(fixture->sampler);
	sampler_set_fast(fixture->sampler, true);
	kill(child, SIGCONT);
	usleep(200 * 1000);
	sampler_read_now(fixture->sampler);
	assert_true(run_until(fixture, &fixture->n_samples, fixture->n_samples + 50));
	assert_int_equal(fixture->n_troubles, 0);
	assert_int_equal(only_child(), child);
}

static void test_a_child_that_hangs_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	start_and_see(fixture);
	pid_t hanging = only_child();
	kill(hanging, SIGSTOP);
	sampler_set_fast(fixture->sampler, true);
	assert_true(run_until(fixture, &fixture->n_troubles, 1));
	assert_non_null(strstr(fixture->trouble, "has not answered"));
	assert_true(run_until(fixture, &fixture->n_samples, fixture->n_samples + 5));
	assert_int_equal(fixture->n_troubles, 1);
	assert_int_not_equal(only_child(), hanging);
	assert_int_equal(kill(hanging, 0), -1); /* reaped */
	assert_int_equal(errno, ESRCH);
}

static void test_a_reading_that_never_comes_is_noticed_between_slow_samples(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 3600 * 1000;
	start_and_see(fixture);
	kill(only_child(), SIGSTOP);
	uint64_t before = now_ms();
	sampler_read_now(fixture->sampler);
	assert_true(run_until(fixture, &fixture->n_troubles, 1));
	assert_true(now_ms() - before >= 1900);
	assert_true(run_to_next(fixture));
}

static void test_a_child_that_dies_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	start_and_see(fixture);
	for (unsigned spell = 1; spell <= 3; spell++) {
		pid_t dying = only_child();
		kill(dying, SIGKILL);
		assert_true(run_until(fixture, &fixture->n_troubles, spell));
		assert_non_null(strstr(fixture->trouble, "killed by signal 9"));
		assert_true(run_to_next(fixture));
		assert_int_equal(fixture->n_troubles, spell);
		assert_int_not_equal(only_child(), dying);
	}
}

/* Without descriptors there is no child: said once, and tried until there is one. */
static void test_a_child_that_cannot_start(void **state)
{
	struct fixture *fixture = *state;
	struct rlimit before, none;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3;
	start(fixture);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	bool is_told = run_until(fixture, &fixture->n_troubles, 1);
	run_for(fixture, 500);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(is_told);
	assert_non_null(strstr(fixture->trouble, "cannot be started"));
	assert_int_equal(fixture->n_samples, 0);
	assert_true(run_to_next(fixture));
	assert_int_equal(fixture->n_troubles, 1);
}

static void test_a_backend_that_cannot_open_is_a_sample_with_a_problem(void **state)
{
	struct fixture *fixture = *state;
	fixture->folder.config.interval_ms = 50;
	fixture->folder.config.sim_dir = (char *)"/proc/no-such-folder";
	start(fixture);
	assert_true(run_until(fixture, &fixture->n_samples, 3));
	assert_int_equal(sampler_last(fixture->sampler)->n_gpus, 0);
	assert_non_null(strstr(sampler_last(fixture->sampler)->problem, "/proc/no-such-folder"));
	assert_int_equal(fixture->n_troubles, 1); /* told once */
	assert_non_null(strstr(fixture->trouble, "/proc/no-such-folder"));
}

static void test_what_the_child_has_and_has_not(void **state)
{
	struct fixture *fixture = *state;
	int leaked = open("/dev/null", O_RDONLY); /* not CLOEXEC, as some library might */
	int high = fcntl(leaked, F_DUPFD, 40);
	sigset_t blocked, old;
	sigfillset(&blocked);
	sigprocmask(SIG_BLOCK, &blocked, &old);
	signal(SIGTERM, SIG_IGN);
	start_and_see(fixture);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGTERM, SIG_DFL);
	close(leaked);
	char path[64], text[2048], link[16];
	pid_t child = only_child();
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", child, high);
	assert_int_equal(readlink(path, link, sizeof(link)), -1);
	close(high);
	snprintf(path, sizeof(path), "/proc/%d/fd/0", child);
	assert_int_equal(readlink(path, link, sizeof(link)), 9);
	assert_memory_equal(link, "/dev/null", 9);
	snprintf(path, sizeof(path), "/proc/%d/status", child);
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	assert_non_null(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	assert_non_null(strstr(text, "Name:\tgpumgr-sampler\n"));
	assert_non_null(strstr(text, "SigBlk:\t0000000000000000\n"));
	const char *ignored = strstr(text, "SigIgn:\t");
	assert_non_null(ignored);
	/* glibc's posix_spawn() ignores its two internal signals, 32 and 33, in the child. */
	assert_int_equal(strtoull(ignored + strlen("SigIgn:\t"), NULL, 16) & ~0x180000000ull, 0);
}

/* A process of its own starts a sampler and is killed: the child must be gone with it. */
static void test_the_child_ends_with_the_daemon(void **state)
{
	struct fixture *fixture = *state;
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid_t daemon = fork();
	if (daemon == 0) {
		uv_loop_fork(&fixture->loop);
		start(fixture);
		run_to_next(fixture);
		pid_t child = only_child();
		(void)!write(ends[1], &child, sizeof(child));
		kill(child, SIGSTOP); /* so that it does not see the end of its stream */
		for (;;)
			pause();
	}
	pid_t child = 0;
	close(ends[1]);
	ssize_t n = read(ends[0], &child, sizeof(child));
	close(ends[0]);
	kill(daemon, SIGKILL);
	waitpid(daemon, NULL, 0);
	assert_int_equal(n, sizeof(child));
	bool is_gone = false;
	for (int i = 0; i < PATIENCE_MS && !is_gone; i++) {
		char path[64], text[256] = "";
		snprintf(path, sizeof(path), "/proc/%d/stat", child);
		CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
		is_gone = fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || strstr(text, ") Z ") != NULL;
		usleep(1000);
	}
	if (!is_gone)
		kill(child, SIGKILL);
	assert_true(is_gone);
}

static void test_destroy_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	pid_t pid;
	start_and_see(fixture);
	fixture->sampler = sampler_destroy(fixture->sampler);
	assert_int_equal(find_children(&pid, 1), 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	run_for(fixture, 50);

	/* Also of one that hangs, of one that was given up, and before the loop ever ran. */
	start_and_see(fixture);
	kill(only_child(), SIGSTOP);
	fixture->sampler = sampler_destroy(fixture->sampler);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	start(fixture);
	fixture->sampler = sampler_destroy(fixture->sampler);
	assert_null(sampler_destroy(NULL));
}

static void test_destroy_from_within_its_callbacks(void **state)
{
	struct fixture *fixture = *state;
	fixture->destroy_in_sample = true;
	start(fixture);
	assert_true(run_to_next(fixture));
	assert_null(fixture->sampler);
	fixture->destroy_in_sample = false;
	fixture->destroy_in_trouble = true;
	start_and_see(fixture);
	kill(only_child(), SIGKILL);
	assert_true(run_until(fixture, &fixture->n_troubles, 1));
	assert_null(fixture->sampler);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], SAMPLER_ARGUMENT) == 0)
		return sampler_child_main(argc, argv);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_the_first_sample_does_not_wait_for_the_interval),
		TEST(test_samples_keep_coming_and_follow_the_card),
		TEST(test_fast_mode_and_back),
		TEST(test_one_reading_now),
		TEST(test_a_flood_of_commands_and_a_daemon_that_sleeps),
		TEST(test_an_interval_that_could_not_be_told),
		TEST(test_a_child_that_hangs_is_replaced),
		TEST(test_a_reading_that_never_comes_is_noticed_between_slow_samples),
		TEST(test_a_child_that_dies_is_replaced),
		TEST(test_a_child_that_cannot_start),
		TEST(test_a_backend_that_cannot_open_is_a_sample_with_a_problem),
		TEST(test_what_the_child_has_and_has_not),
		TEST(test_the_child_ends_with_the_daemon),
		TEST(test_destroy_leaves_nothing),
		TEST(test_destroy_from_within_its_callbacks),
	};
	return cmocka_run_group_tests_name("gpu/sampler", tests, NULL, NULL);
}
