/*
 * What this daemon did not start: left by an earlier daemon, or started by somebody else. The "earlier daemon" is a
 * process of its own that ends, so that nothing of its children is known to this one.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/cgroup.h"

/* Runs `work` in a process that ends afterwards; what it started is nobody's child then, and not ours either. */
static void elsewhere(struct bench *bench, void (*work)(struct bench *bench))
{
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	pid_t child = fork();
	if (child == 0) {
		work(bench);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void be_earlier_daemon(struct bench *bench)
{
	uv_loop_init(&bench->loop);
	driver_create(&bench->environment, &bench->config, 3, &bench->service, NULL);
	bench->service->ops->start(bench->service, ++bench->run, "0");
	while (bench->started == 0)
		uv_run(&bench->loop, UV_RUN_ONCE);
	/* A command of type forking needs a moment until its background is there. */
	while (bench->config.process.type == PROCESS_FORKING && bench->main_pids == 0)
		uv_run(&bench->loop, UV_RUN_ONCE);
}

/* The configured command, but started by hand: with the mark only for the teardown to find it. */
static void start_by_hand(struct bench *bench)
{
	char *environment[] = { bench->mark, NULL };
	char mark[96];
	snprintf(mark, sizeof(mark), "%s", bench->mark);
	environment[0] = mark;
	if (fork() == 0) {
		setsid();
		int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execve(bench->words[0], bench->words, environment);
		_exit(1);
	}
}

static void adopt(struct bench *bench)
{
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
}

/* Only what was seen absent, or whose end was told, can have been started by somebody else since. */
static void test_started_behind_our_back(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "tree", file, NULL);
	elsewhere(bench, be_earlier_daemon);
	bench_find(bench, false);
	assert_true(bench->alive && !bench->external);
	adopt(bench);
	bench_stop(bench, true);
	unlink(file);
	elsewhere(bench, be_earlier_daemon);
	bench_find(bench, false);
	assert_true(bench->alive && bench->external);
	adopt(bench);
	bench_find(bench, false);
	assert_true(bench->alive && !bench->external);
	bench_stop(bench, true);
	bench_find(bench, false);
	assert_false(bench->alive || bench->external);
}

static void test_after_a_restart(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "tree", file, NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t grandchild = bench_read_pid(bench, "pid");
	/* Not healthy yet, and found all the same. */
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_true(bench->found_pid > 1 && bench->found_pid != grandchild);
	bench->main_pid = bench->found_pid;
	adopt(bench);
	assert_true(bench->service->ops->owns(bench->service, bench->found_pid));
	assert_true(bench->service->ops->owns(bench->service, grandchild));
	assert_false(bench->service->ops->owns(bench->service, getpid()));
	bench_stop(bench, false);
	assert_string_equal(bench->order, "FG");
	assert_non_null(strstr(bench->text, "this gpumgrd did not start it"));
	bench_wait_dead(bench, grandchild);
	/* Nothing is found a second time. */
	bench_find(bench, false);
	assert_false(bench->alive);
}

static void be_earlier_daemon_that_stops(struct bench *bench)
{
	be_earlier_daemon(bench);
	bench_wait_log(bench, "ready"); /* before it would not be deaf */
	bench->service->ops->stop(bench->service, false);
}

/* It began to stop what is deaf to that, and died. Whatever is started anew is not being stopped. */
static void test_a_stop_that_was_begun(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "deaf", NULL);
	elsewhere(bench, be_earlier_daemon_that_stops);
	bench_find(bench, true);
	assert_true(bench->alive && bench->stopping);
	adopt(bench);
	bench_stop(bench, true);
	elsewhere(bench, be_earlier_daemon);
	bench_find(bench, true);
	assert_true(bench->alive && !bench->stopping);
	adopt(bench);
	bench_stop(bench, true);
}

static void test_ends_by_itself_after_a_restart(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	elsewhere(bench, be_earlier_daemon);
	bench_find(bench, true);
	adopt(bench);
	assert_int_equal(kill(bench->found_pid, SIGKILL), 0);
	bench_wait(bench, &bench->gone, 1);
	assert_false(bench_has_cgroup(bench));
}

static void test_died_meanwhile(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	elsewhere(bench, be_earlier_daemon);
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_int_equal(kill(bench->found_pid, SIGKILL), 0);
	bench_wait_dead(bench, bench->found_pid);
	adopt(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_string_equal(bench->order, "FG");
	bench_find(bench, false);
	assert_false(bench->alive);
}

static bool is_owned(struct bench *bench, const void *argument)
{
	return bench->service->ops->owns(bench->service, *(const pid_t *)argument);
}

static void allow_descriptors(const struct rlimit *limit, int more)
{
	struct rlimit low = *limit;
	int next = dup(0);
	close(next);
	low.rlim_cur = (rlim_t)(next + more);
	setrlimit(RLIMIT_NOFILE, more < 0 ? limit : &low);
}

/* That it cannot be watched now is not its end, nor does it cost the record: it is tried again. */
static void test_adopted_without_descriptors(void **state)
{
	struct bench *bench = *state;
	struct rlimit limit;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench->environment.tick_ms = 20;
	bench_command(bench, false, bench_helper(), "tree", file, NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t grandchild = bench_read_pid(bench, "pid");
	getrlimit(RLIMIT_NOFILE, &limit);
	for (int more = 0; more < 6; more++) {
		bench_create(bench);
		bench_find(bench, false);
		assert_true(bench->alive);
		allow_descriptors(&limit, more);
		adopt(bench);
		bench_idle(bench, 30);
		allow_descriptors(&limit, -1);
		assert_int_equal(bench->gone, 0);
		assert_true(bench_run_until(bench, is_owned, &grandchild));
	}
	bench_create(bench);
	bench_find(bench, false);
	allow_descriptors(&limit, 0);
	adopt(bench);
	bench->service->ops->stop(bench->service, false);
	bench_wait(bench, &bench->refused, 1);
	allow_descriptors(&limit, -1);
	assert_non_null(strstr(bench->text, "RLIMIT_NOFILE"));
	bench_stop(bench, false);
}

/* The main process died while no daemon looked; a child of it lives on in its session. */
static void test_leader_gone_before_restart(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "leave", file, "same", NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t child = bench_read_pid(bench, "pid");
	bench_wait_log(bench, "leaving");
	bench_find(bench, false);
	assert_true(bench->alive);
	adopt(bench);
	assert_true(bench->service->ops->owns(bench->service, child));
	bench_stop(bench, false);
	bench_wait_dead(bench, child);
}

static void test_forking_after_a_restart(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench->config.process.type = PROCESS_FORKING;
	bench_command(bench, false, bench_helper(), "daemon", file, NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t daemon = bench_read_pid(bench, "pid");
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, daemon);
	adopt(bench);
	bench_stop(bench, false);
	bench_wait_dead(bench, daemon);
}

static void test_stray_after_a_restart(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	/* Without a cgroup nothing leads from the service to who left its session and lost its parent. */
	if (!bench_can_have_cgroup(bench))
		skip();
	bench_command(bench, false, bench_helper(), "stray", file, "deaf", NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t stray = bench_read_pid(bench, "pid");
	bench_find(bench, false);
	adopt(bench);
	assert_true(bench->service->ops->owns(bench->service, stray));
	bench_stop(bench, true);
	bench_wait_dead(bench, stray);
}

static void move_into(struct cgroup *cgroup, pid_t pid)
{
	char text[16];
	CLEANUP_CLOSE int procs = cgroup_open_procs(cgroup);
	snprintf(text, sizeof(text), "%d", (int)pid);
	assert_int_equal(write(procs, text, strlen(text)), strlen(text));
}

/* Nothing but the start times tells who the service is; the kernel lists who joined last at the end. */
static void test_without_a_record_the_oldest_is_the_leader(void **state)
{
	struct bench *bench = *state;
	struct cgroup *place, *own;
	char path[128];
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	if (!bench_can_have_cgroup(bench))
		skip();
	bench_command(bench, false, bench_helper(), "tree", file, NULL);
	elsewhere(bench, be_earlier_daemon);
	pid_t grandchild = bench_read_pid(bench, "pid");
	bench_find(bench, false);
	pid_t leader = bench->found_pid;
	assert_true(bench->alive && leader > 1 && leader != grandchild);
	snprintf(path, sizeof(path), "%s/%s.run", bench->state_dir, bench->name);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(cgroup_create(bench->instance, BENCH_OTHER_PLACE, true, &place), 0);
	assert_int_equal(cgroup_make(place), 0);
	assert_int_equal(cgroup_create(bench->instance, bench->name, true, &own), 0);
	move_into(place, leader);
	move_into(own, leader);
	cgroup_remove(place);
	cgroup_destroy(place);
	cgroup_destroy(own);
	bench_find(bench, false);
	adopt(bench);
	bench_stop(bench, false);
	assert_int_equal(bench->found_pid, leader);
}

/* The new daemon lives in another cgroup than the old one did, as in another terminal. */
static void test_cgroup_of_another_place(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	struct cgroup *place;
	if (cgroup_create(bench->instance, BENCH_OTHER_PLACE, true, &place) < 0 || cgroup_make(place) < 0)
		skip();
	CLEANUP_CLOSE int procs = cgroup_open_procs(place);
	cgroup_destroy(place);
	bench_command(bench, false, bench_helper(), "stray", file, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	pid_t child = fork();
	if (child == 0) {
		if (write(procs, "0", 1) == 1)
			be_earlier_daemon(bench);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	pid_t stray = bench_read_pid(bench, "pid");
	bench_find(bench, false);
	assert_true(bench->alive);
	adopt(bench);
	bool owns = bench->service->ops->owns(bench->service, stray);
	bench_stop(bench, true);
	bench_wait_dead(bench, stray);
	assert_true(owns);
}

static void use_pid_file(struct bench *bench)
{
	bench->config.process.pid_file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "wait", bench->config.process.pid_file, NULL);
}

static void test_pid_file(void **state)
{
	struct bench *bench = *state;
	use_pid_file(bench);
	bench_find(bench, false);
	assert_false(bench->alive);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, pid);
	adopt(bench);
	assert_true(bench->service->ops->owns(bench->service, pid));
	bench_stop(bench, false);
	/* The file is still there; its process is not. */
	bench_find(bench, false);
	assert_false(bench->alive);
}

/* Nobody of us started it, and it is deaf; the daemon dies over the stop that it began. The next one finishes it. */
static void test_a_stop_of_a_stranger_that_was_begun(void **state)
{
	struct bench *bench = *state;
	bench->config.process.pid_file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "daemon", bench->config.process.pid_file, "deaf", NULL);
	for (unsigned is_known = 0; is_known < 2; is_known++) {
		unlink(bench->config.process.pid_file);
		elsewhere(bench, start_by_hand);
		pid_t pid = bench_read_pid(bench, "pid");
		bench_create(bench);
		bench_find(bench, false);
		assert_int_equal(bench->found_pid, pid);
		assert_false(bench->stopping);
		if (!is_known)
			bench->found_pid = 0; /* who it is, is found out by the stop */
		adopt(bench);
		bench->service->ops->stop(bench->service, false);
		bench_create(bench);
		bench_find(bench, false);
		assert_int_equal(bench->found_pid, pid);
		assert_true(bench->stopping);
		adopt(bench);
		bench_stop(bench, true);
	}
}

/* The PID was given to another process after the file was written: that one is not touched. */
static void test_recycled_pid(void **state)
{
	struct bench *bench = *state;
	use_pid_file(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	struct timespec old[2] = { { .tv_sec = time(NULL) - 100 }, { .tv_sec = time(NULL) - 100 } };
	assert_int_equal(utimensat(AT_FDCWD, bench->config.process.pid_file, old, 0), 0);
	bench_find(bench, false);
	assert_false(bench->alive);
	bench_find(bench, true);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, 0);
	adopt(bench);
	assert_false(bench->service->ops->owns(bench->service, pid));
	bench->service->ops->stop(bench->service, true);
	bench_wait(bench, &bench->refused, 1);
	assert_non_null(strstr(bench->text, "younger than the file"));
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait_dead(bench, pid);
}

static void test_odd_pid_files(void **state)
{
	struct bench *bench = *state;
	static const char *const texts[] = { "", "\n", "abc", "0\n", "-1\n", "1\n", "1x\n", "99999999999999999999\n",
		"4194399\n", "12 34\n" };
	use_pid_file(bench);
	const char *path = bench->config.process.pid_file;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		bench_write_file(path, texts[i], 0644);
		bench_find(bench, false);
		assert_false(bench->alive);
	}
	/* The daemon itself; a zombie; a FIFO, which must not block. */
	char text[32];
	snprintf(text, sizeof(text), "%d\n", (int)getpid());
	bench_write_file(path, text, 0644);
	bench_find(bench, false);
	assert_false(bench->alive);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	snprintf(text, sizeof(text), "%d\n", (int)child);
	bench_write_file(path, text, 0644);
	bench_find(bench, false);
	waitpid(child, NULL, 0);
	assert_false(bench->alive);
	unlink(path);
	assert_int_equal(mkfifo(path, 0644), 0);
	bench_find(bench, false);
	assert_false(bench->alive);
}

/* A service's user must not be able to point the daemon at somebody else's process. */
static void test_pid_file_of_another_user(void **state)
{
	struct bench *bench = *state;
	const struct passwd *nobody = getpwnam("nobody");
	if (geteuid() != 0 || nobody == NULL)
		skip();
	use_pid_file(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	assert_int_equal(chown(bench->config.process.pid_file, nobody->pw_uid, nobody->pw_gid), 0);
	bench_find(bench, false);
	assert_false(bench->alive);
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait_dead(bench, pid);
}

/* Nor choose a file of root's to do so, by a link or by moving it into his folder. */
static void test_pid_file_that_is_not_of_the_service(void **state)
{
	struct bench *bench = *state;
	char user[] = "nobody";
	if (geteuid() != 0 || getpwnam(user) == NULL)
		skip();
	use_pid_file(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench->config.process.user = user;
	bench_find(bench, false);
	assert_false(bench->alive);
	bench->config.process.user = NULL;
	bench_find(bench, false);
	assert_true(bench->alive);
	CLEANUP_FREE char *other = bench_path(bench, "other");
	assert_int_equal(rename(bench->config.process.pid_file, other), 0);
	assert_int_equal(symlink(other, bench->config.process.pid_file), 0);
	bench_find(bench, false);
	assert_false(bench->alive);
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait_dead(bench, pid);
}

static void use_port(struct bench *bench)
{
	char port[16];
	unsigned number = bench_free_port();
	snprintf(port, sizeof(port), "%u", number);
	snprintf(bench->health, sizeof(bench->health), "http://127.0.0.1:%u/health", number);
	bench->config.health = (struct probe_config){ .kind = PROBE_HTTP, .address = bench->health };
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "listen", port, file, NULL);
}

static void test_listener(void **state)
{
	struct bench *bench = *state;
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	/* Who is not healthy is not looked for by its port. */
	bench_find(bench, false);
	assert_false(bench->alive);
	bench_find(bench, true);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, pid);
	adopt(bench);
	assert_true(bench->service->ops->owns(bench->service, pid));
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, pid);
	bench_stop(bench, false);
}

/* A start script that waits for what it started: the script is the service. */
static void test_listener_below_a_script(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *script = bench_path(bench, "start.sh"), *text = NULL;
	use_port(bench);
	assert_true(asprintf(&text, "#!/bin/sh\n%s listen %s %s\nexit 0\n", bench_helper(), bench->words[2],
			    bench->words[3]) > 0);
	bench_write_file(script, text, 0755);
	bench_command(bench, false, script, NULL);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	struct proc_stat stat;
	assert_int_equal(proc_read_stat(pid, &stat), 0);
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, stat.ppid);
	adopt(bench);
	bench_stop(bench, false);
	bench_wait_dead(bench, pid);
}

/* The same interpreter with another script is another program. */
static void test_interpreter_with_another_script(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *ours = bench_path(bench, "ours.sh"), *theirs = bench_path(bench, "theirs.sh"), *text = NULL;
	use_port(bench);
	assert_true(asprintf(&text, "%s listen %s %s\nexit 0\n", bench_helper(), bench->words[2], bench->words[3]) > 0);
	bench_write_file(ours, text, 0644);
	bench_write_file(theirs, text, 0644);
	bench_command(bench, false, "/bin/sh", theirs, NULL);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench_command(bench, false, "/bin/sh", ours, NULL);
	bench_find(bench, true);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, 0);
	bench_command(bench, false, "/bin/sh", theirs, NULL);
	bench_find(bench, true);
	assert_true(bench->found_pid > 1);
	adopt(bench);
	bench_stop(bench, false);
	bench_wait_dead(bench, pid);
}

/* Somebody else's program on the port: it is used, and never signalled. */
static void test_stranger(void **state)
{
	struct bench *bench = *state;
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench_command(bench, false, "/bin/sleep", "1000", NULL);
	bench_find(bench, true);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, 0);
	adopt(bench);
	assert_false(bench->service->ops->owns(bench->service, pid));
	for (unsigned i = 1; i <= 3; i++) {
		bench->service->ops->stop(bench->service, i == 3);
		bench_wait(bench, &bench->refused, i);
	}
	char wanted[64];
	snprintf(wanted, sizeof(wanted), "listens process %d (%s, user", (int)pid, bench_helper());
	assert_non_null(strstr(bench->text, wanted));
	assert_non_null(strstr(bench->text, "not the configured command /bin/sleep"));
	assert_non_null(strstr(bench->text, "set process.stop_command or process.pid_file"));
	assert_int_equal(bench->gone, 0);
	assert_int_equal(kill(pid, 0), 0);
	/* It goes by itself: a later look says so, and that ends the run. */
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait_dead(bench, pid);
	bench_find(bench, true);
	assert_true(bench->alive);
	bench_find(bench, false);
	assert_false(bench->alive);
	bench_wait(bench, &bench->gone, 1);
}

static void test_listener_of_another_user(void **state)
{
	struct bench *bench = *state;
	if (geteuid() != 0 || getpwnam("nobody") == NULL)
		skip();
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench->config.process.user = "nobody";
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, 0);
	adopt(bench);
	bench->service->ops->stop(bench->service, true);
	bench_wait(bench, &bench->refused, 1);
	assert_non_null(strstr(bench->text, "of user nobody"));
	bench->config.process.user = NULL;
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait_dead(bench, pid);
	/* And when it is stopped after its end, that is not an error. */
	bench->service->ops->stop(bench->service, false);
	bench_wait(bench, &bench->gone, 1);
}

/* The stop_command may stop what nothing else identifies; its end shows by the port. */
static void test_stop_command_for_a_stranger(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid"), *text = NULL;
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench_command(bench, false, "/bin/sleep", "1000", NULL);
	assert_true(asprintf(&text, "(sleep 0.1; kill $(cat %s)) >/dev/null 2>&1 &", file) > 0);
	bench_stop_command(bench, false, "/bin/sh", "-c", text, NULL);
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, 0);
	adopt(bench);
	bench_stop(bench, false);
	assert_non_null(strstr(bench->text, "stopped by its stop_command"));
	bench_wait_dead(bench, pid);
}

/* A stop_command that fails leaves the proof by port; without one it is refused, and what failed is said. */
static void test_failing_stop_command_for_adopted(void **state)
{
	struct bench *bench = *state;
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	char *command = bench->words[0];
	bench->words[0] = strdup("/bin/sleep");
	bench_stop_command(bench, false, "/bin/sh", "-c", "exit 3", NULL);
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, 0);
	adopt(bench);
	bench->service->ops->stop(bench->service, false);
	bench_wait(bench, &bench->refused, 1);
	assert_non_null(strstr(bench->text, "stop_command failed: exited with status 3; on its port"));
	free(bench->words[0]);
	bench->words[0] = command;
	bench_stop(bench, false);
	bench_wait_dead(bench, pid);
}

/* What could not be identified at first becomes known: then it is watched like any other. */
static void test_identity_comes_later(void **state)
{
	struct bench *bench = *state;
	bench_create(bench);
	bench->found_pid = 0;
	adopt(bench);
	use_port(bench);
	elsewhere(bench, start_by_hand);
	pid_t pid = bench_read_pid(bench, "pid");
	bench_find(bench, true);
	assert_int_equal(bench->found_pid, pid);
	assert_true(bench->service->ops->owns(bench->service, pid));
	assert_int_equal(kill(pid, SIGKILL), 0);
	bench_wait(bench, &bench->gone, 1);
}

static void test_no_port_no_file(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, "/bin/sleep", "1000", NULL);
	bench_find(bench, true);
	assert_true(bench->alive);
	adopt(bench);
	bench->service->ops->stop(bench->service, false);
	bench_wait(bench, &bench->refused, 1);
	assert_non_null(strstr(bench->text, "names no port on this host"));
	/* A record that is nonsense, of another boot, or of a recycled PID says nothing. */
	CLEANUP_FREE char *name = NULL, *record = NULL, *text = NULL;
	assert_true(asprintf(&name, "state/%s.run", bench->name) > 0);
	record = bench_path(bench, name);
	struct proc_stat self;
	char boot[64];
	assert_int_equal(proc_read_stat(getpid(), &self), 0);
	assert_true(proc_read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) > 0);
	assert_true(asprintf(&text, "%d %llu 0 %s", (int)getpid(), (unsigned long long)self.start_ticks + 1, boot) > 0);
	const char *const texts[] = { "", "nonsense\n", "1 2 3 4 5\n", "-5 1 0 00000000-0000\n", "container 12 34 56\n",
		text };
	bench_create(bench);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		bench_write_file(record, texts[i], 0600);
		bench_find(bench, false);
		assert_false(bench->alive);
	}
	unlink(record);
}

#define ONLY_WITH(test)                                                                                                \
	{                                                                                                              \
#test " (cgroup)", test, bench_setup, bench_teardown, (void *)&bench_ways[0]                           \
	}
#define WITH_AND_WITHOUT(test)                                                                                         \
	{ #test " (cgroup)", test, bench_setup, bench_teardown, (void *)&bench_ways[0] },                              \
	{                                                                                                              \
#test " (no cgroup)", test, bench_setup, bench_teardown, (void *)&bench_ways[2]                        \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_AND_WITHOUT(test_after_a_restart),
		WITH_AND_WITHOUT(test_started_behind_our_back),
		WITH_AND_WITHOUT(test_a_stop_that_was_begun),
		WITH_AND_WITHOUT(test_ends_by_itself_after_a_restart),
		WITH_AND_WITHOUT(test_died_meanwhile),
		WITH_AND_WITHOUT(test_adopted_without_descriptors),
		WITH_AND_WITHOUT(test_leader_gone_before_restart),
		WITH_AND_WITHOUT(test_forking_after_a_restart),
		ONLY_WITH(test_stray_after_a_restart),
		ONLY_WITH(test_without_a_record_the_oldest_is_the_leader),
		ONLY_WITH(test_cgroup_of_another_place),
		WITH_AND_WITHOUT(test_pid_file),
		WITH_AND_WITHOUT(test_a_stop_of_a_stranger_that_was_begun),
		WITH_AND_WITHOUT(test_recycled_pid),
		WITH_AND_WITHOUT(test_odd_pid_files),
		WITH_AND_WITHOUT(test_pid_file_of_another_user),
		WITH_AND_WITHOUT(test_pid_file_that_is_not_of_the_service),
		WITH_AND_WITHOUT(test_listener),
		WITH_AND_WITHOUT(test_listener_below_a_script),
		WITH_AND_WITHOUT(test_interpreter_with_another_script),
		WITH_AND_WITHOUT(test_stranger),
		WITH_AND_WITHOUT(test_listener_of_another_user),
		WITH_AND_WITHOUT(test_stop_command_for_a_stranger),
		WITH_AND_WITHOUT(test_failing_stop_command_for_adopted),
		WITH_AND_WITHOUT(test_identity_comes_later),
		WITH_AND_WITHOUT(test_no_port_no_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
