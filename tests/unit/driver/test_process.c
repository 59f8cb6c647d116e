/* Real processes: started, watched, stopped; each test in every way that bench.h lists. */
#include "bench.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/orphans.h"

static void test_argv(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, "/bin/sh", "-c", "printf '<%s>\\n' \"$@\"", "x", "a b", "", "$HOME;*", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_string_equal(bench->order, "SG");
	CLEANUP_FREE char *log = bench_log(bench);
	assert_string_equal(log, "<a b>\n<>\n<$HOME;*>\n");
	assert_non_null(strstr(bench->text, "exited with status 0"));
	assert_non_null(strstr(bench->text, "<$HOME;*>"));
	assert_false(bench_has_cgroup(bench));
}

static void test_shell(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, true, "x=1; echo $((x + 1)) >&2; exit 3", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "exited with status 3"));
	CLEANUP_FREE char *log = bench_log(bench);
	assert_string_equal(log, "2\n");
}

static void test_path_lookup(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *program = bench_path(bench, "my tool"), *variable = NULL;
	bench_write_file(program, "#!/bin/sh\necho found\n", 0755);
	assert_true(asprintf(&variable, "PATH=relative::%s", bench->dir) > 0);
	bench_variable(bench, variable);
	bench_command(bench, false, "my tool", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "found"));
}

static void test_environment(void **state)
{
	struct bench *bench = *state;
	bench->environment.sim_dir = "/sim dir";
	bench_variable(bench, "OWN=a=b c");
	bench_variable(bench, "LANG=xx");
	setenv("GPUMGR_TOKEN", "secret", 1);
	setenv("LD_PRELOAD_NOT", "x", 1);
	bench_command(bench, false, "/usr/bin/env", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	CLEANUP_FREE char *log = bench_log(bench);
	const struct passwd *self = getpwuid(geteuid());
	char home[512];
	snprintf(home, sizeof(home), "\nHOME=%s\n", self->pw_dir);
	assert_non_null(strstr(log, "OWN=a=b c\n"));
	assert_non_null(strstr(log, "\nLANG=xx\n"));
	assert_non_null(strstr(log, "CUDA_VISIBLE_DEVICES=0\nCUDA_DEVICE_ORDER=PCI_BUS_ID\n"));
	assert_non_null(strstr(log, "GPUMGR_SIM_DIR=/sim dir\n"));
	assert_non_null(strstr(log, bench->mark));
	assert_non_null(strstr(log, "PATH=/usr/local/sbin"));
	assert_non_null(strstr(log, home));
	assert_null(strstr(log, "secret"));
	assert_null(strstr(log, "LD_PRELOAD_NOT"));
	unsigned lines = 0;
	for (const char *at = log; *at != '\0'; at++)
		lines += *at == '\n';
	assert_int_equal(lines, 11);
}

static void test_directory(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *program = bench_path(bench, "here");
	bench_write_file(program, "#!/bin/sh\npwd\n", 0755);
	bench->config.process.directory = strdup(bench->dir);
	bench_command(bench, false, "./here", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, bench->dir));
}

/* Nothing of the daemon's leaks: descriptors, blocked or ignored signals, umask, session. */
static void test_clean_start(void **state)
{
	struct bench *bench = *state;
	sigset_t block, before;
	mode_t mask = umask(077);
	int leaks[2] = { dup(1), dup(2) };
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &before);
	bench_command(bench, false, bench_helper(), "show", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGHUP, SIG_DFL);
	umask(mask);
	close(leaks[0]);
	close(leaks[1]);
	CLEANUP_FREE char *log = bench_log(bench), *wanted = NULL;
	assert_true(
		asprintf(&wanted,
			"fd 0\nfd 1\nfd 2\numask 022\nsession own\nids %u %u %u %u groups %d\ndirectory /\nready %d\n",
			getuid(), geteuid(), getgid(), getegid(), getgroups(0, NULL), (int)bench->pid) > 0);
	assert_string_equal(log, wanted);
}

static void test_other_user(void **state)
{
	struct bench *bench = *state;
	const struct passwd *nobody = getpwnam("nobody");
	if (geteuid() != 0 || nobody == NULL)
		skip();
	/* Groups of root that must not come along. */
	gid_t extra[] = { 0, 4711 }, before[256];
	int n_before = getgroups(256, before);
	assert_int_equal(setgroups(2, extra), 0);
	bench->config.process.user = "nobody";
	bench_command(bench, false, bench_helper(), "show", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_int_equal(setgroups((size_t)n_before, before), 0);
	CLEANUP_FREE char *log = bench_log(bench), *wanted = NULL;
	assert_true(asprintf(&wanted, "ids %u %u %u %u groups 1\n", nobody->pw_uid, nobody->pw_uid, nobody->pw_gid,
			    nobody->pw_gid) > 0);
	assert_non_null(strstr(log, wanted));
	bench_command(bench, true, "echo $USER $LOGNAME $HOME; cat /proc/self/status", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 2);
	CLEANUP_FREE char *names = bench_log(bench);
	assert_non_null(strstr(names, "nobody nobody /nonexistent\n"));
	assert_non_null(strstr(names, "CapEff:\t0000000000000000\n"));
	bench->config.process.user = NULL;
}

static void test_user_errors(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, "/bin/true", NULL);
	bench->config.process.user = "no-such-user";
	bench_start_fails(bench, "user \"no-such-user\" does not exist; create it");
	if (geteuid() == 0 && getpwnam("nobody") != NULL) {
		CLEANUP_FREE char *closed = bench_path(bench, "closed"), *inside = bench_path(bench, "closed/run");
		assert_int_equal(mkdir(closed, 0700), 0);
		bench_write_file(inside, "#!/bin/sh\n", 0755);
		bench->config.process.user = "nobody";
		bench_command(bench, false, inside, NULL);
		bench_start_fails(bench, "user \"nobody\" may not execute");
		bench->config.process.directory = strdup(closed);
		bench_command(bench, false, "/bin/true", NULL);
		bench_start_fails(bench, "user \"nobody\" cannot enter directory");
	}
	bench->config.process.user = NULL;
}

/* A daemon that is not root cannot become somebody else, and says so. */
static void test_not_root(void **state)
{
	struct bench *bench = *state;
	const struct passwd *nobody = getpwnam("nobody");
	if (geteuid() != 0 || nobody == NULL)
		skip();
	bench->config.process.user = "root";
	bench_command(bench, false, "/bin/true", NULL);
	assert_int_equal(seteuid(nobody->pw_uid), 0);
	unsigned failed = 0;
	if (bench->service == NULL)
		bench_create(bench);
	bench->service->ops->start(bench->service, ++bench->run, NULL);
	while (failed == 0)
		failed = uv_run(&bench->loop, UV_RUN_ONCE) >= 0 && bench->start_failed > 0;
	assert_int_equal(seteuid(0), 0);
	assert_non_null(strstr(bench->text, "cannot run as user \"root\": gpumgrd is not root"));
	bench->config.process.user = NULL;
}

static void test_exec_failures(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *plain = bench_path(bench, "plain"), *script = bench_path(bench, "script");
	CLEANUP_FREE char *dos = bench_path(bench, "dos"), *binary = bench_path(bench, "binary");
	CLEANUP_FREE char *missing = bench_path(bench, "missing");
	bench_write_file(plain, "#!/bin/sh\n", 0644);
	bench_write_file(script, "#!/no/such/interpreter -x\n", 0755);
	bench_write_file(dos, "#!/bin/sh\r\necho\r\n", 0755);
	bench_write_file(binary, "\001\002\003\004", 0755);
	bench_command(bench, false, missing, NULL);
	bench_start_fails(bench, missing);
	assert_non_null(strstr(bench->text, "does not exist"));
	bench_command(bench, false, plain, NULL);
	bench_start_fails(bench, "is not executable; chmod +x");
	bench_command(bench, false, bench->dir, NULL);
	bench_start_fails(bench, "is a folder");
	bench_command(bench, false, script, NULL);
	bench_start_fails(bench, "the interpreter /no/such/interpreter");
	bench_command(bench, false, dos, NULL);
	bench_start_fails(bench, "carriage return");
	bench_command(bench, false, binary, NULL);
	bench_start_fails(bench, "is not a program");
	bench_command(bench, false, "no-such-command-anywhere", NULL);
	bench_start_fails(bench, "in no folder of PATH (/usr/local/sbin:");
	bench_command(bench, false, "./relative", NULL);
	bench->config.process.directory = strdup(bench->dir);
	bench_start_fails(bench, "/relative does not exist");
	/* Whoever owns the program may put something else in its place: the daemon must not wait for a writer. */
	CLEANUP_FREE char *fifo = bench_path(bench, "fifo");
	assert_int_equal(mkfifo(fifo, 0755), 0);
	bench_command(bench, false, fifo, NULL);
	bench_start_fails(bench, fifo);
	bench_command(bench, false, "/bin/true", NULL);
	free(bench->config.process.directory);
	bench->config.process.directory = strdup("/no/such/directory");
	bench_start_fails(bench, "directory /no/such/directory does not exist; create it");
	free(bench->config.process.directory);
	bench->config.process.directory = strdup("/etc/passwd");
	bench_start_fails(bench, "is not a directory");
	assert_false(bench_has_cgroup(bench));
	assert_int_equal(bench_count_zombies(), 0);
	/* And after all that it can still be started. */
	free(bench->config.process.directory);
	bench->config.process.directory = NULL;
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
}

static void test_log_cannot_be_opened(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *path = log_file_path(bench->log_dir, bench->name);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	bench_command(bench, false, "/bin/true", NULL);
	bench_start_fails(bench, "symbolic link");
}

static void test_signal_and_last_lines(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, true, "for i in 1 2 3 4 5 6 7; do echo line $i; done; kill -9 $$", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "killed by signal 9 (SIGKILL)"));
	assert_non_null(strstr(bench->text, "line 3\nline 4\nline 5\nline 6\nline 7"));
	assert_null(strstr(bench->text, "line 2"));
	/* The next run does not show the words of this one. */
	bench_command(bench, false, "/bin/false", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 2);
	assert_string_equal(bench->text, "exited with status 1");
}

static void test_stop(void **state)
{
	struct bench *bench = *state;
	bool has_cgroups = bench_can_have_cgroup(bench);
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	assert_true(bench->service->ops->owns(bench->service, bench->pid));
	assert_false(bench->service->ops->owns(bench->service, getpid()));
	assert_false(bench->service->ops->owns(bench->service, 1));
	assert_true(bench_has_cgroup(bench) == has_cgroups);
	bench_stop(bench, false);
	assert_string_equal(bench->order, "SG");
	assert_string_equal(bench->text, "killed by signal 15 (SIGTERM)");
	assert_false(bench->service->ops->owns(bench->service, bench->pid));
	/* Harmless when nothing runs. */
	bench->service->ops->stop(bench->service, false);
	bench->service->ops->stop(bench->service, true);
	bench_find(bench, false);
	assert_false(bench->alive);
}

static void test_stop_signal(void **state)
{
	struct bench *bench = *state;
	bench->config.process.stop_signal = SIGINT;
	bench_command(bench, true, "trap 'echo got it; exit 5' INT; echo ready; while :; do sleep 0.01; done", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench_stop(bench, false);
	assert_string_equal(bench->text, "exited with status 5");
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "got it"));
}

static bool is_stopped(struct bench *bench, const void *argument)
{
	struct proc_stat stat;
	(void)argument;
	return proc_read_stat(bench->pid, &stat) == 0 && stat.state == 'T';
}

static void test_stopped_process_heeds(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	assert_int_equal(kill(bench->pid, SIGSTOP), 0);
	assert_true(bench_run_until(bench, is_stopped, NULL));
	bench_stop(bench, false);
}

static void test_deaf(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "deaf", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench->service->ops->stop(bench->service, false);
	bench->service->ops->stop(bench->service, false);
	for (unsigned i = 0; i < 20; i++)
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	assert_int_equal(bench->gone, 0);
	bench_stop(bench, true);
	assert_string_equal(bench->text, "killed by signal 9 (SIGKILL)");
}

static void test_stop_before_exec(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_create(bench);
	bench->service->ops->start(bench->service, ++bench->run, NULL);
	bench->service->ops->stop(bench->service, true);
	bench_wait(bench, &bench->gone, 1);
	assert_string_equal(bench->order, "SG");
}

static void test_tree(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "tree", file, NULL);
	bench_start(bench);
	pid_t grandchild = bench_read_pid(bench, "pid");
	assert_true(bench->service->ops->owns(bench->service, grandchild));
	bench_stop(bench, false);
	bench_wait_dead(bench, grandchild);
	assert_int_equal(bench_count_zombies(), 0);
}

/* A descendant that left the session and lost its parent still belongs, gets the signal, and is waited for. */
static void test_stray(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "stray", file, NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	pid_t stray = bench_read_pid(bench, "pid");
	assert_true(bench->service->ops->owns(bench->service, stray));
	bench_stop(bench, false);
	bench_wait_dead(bench, stray);
	assert_int_equal(bench_count_zombies(), 0);
}

static void test_deaf_stray(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "stray", file, "deaf", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	pid_t stray = bench_read_pid(bench, "pid");
	bench->service->ops->stop(bench->service, false);
	bench_wait_dead(bench, bench->pid);
	for (unsigned i = 0; i < 20; i++)
		uv_run(&bench->loop, UV_RUN_NOWAIT);
	/* The main process is gone, but not the whole group. */
	assert_int_equal(bench->gone, 0);
	assert_int_equal(bench->leader_ended, 0);
	bench_stop(bench, true);
	bench_wait_dead(bench, stray);
}

static void leader_leaves(struct bench *bench, const char *how)
{
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "leave", file, how, "4", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->leader_ended, 1);
	assert_string_equal(bench->order, "SL");
	assert_non_null(strstr(bench->text, "exited with status 4"));
	assert_non_null(strstr(bench->text, "type: forking"));
	assert_non_null(strstr(bench->text, "leaving"));
	pid_t child = bench_read_pid(bench, "pid");
	assert_true(bench->service->ops->owns(bench->service, child));
	assert_int_equal(bench_count_zombies(), 0);
	bench_stop(bench, false);
	assert_string_equal(bench->order, "SLG");
	bench_wait_dead(bench, child);
}

static void test_leader_leaves_child(void **state)
{
	leader_leaves(*state, "same");
}

static void test_leader_leaves_session(void **state)
{
	leader_leaves(*state, "session");
}

static void test_forking(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench->config.process.type = PROCESS_FORKING;
	bench_command(bench, false, bench_helper(), "daemon", file, NULL);
	bench_start(bench);
	bench_wait(bench, &bench->main_pids, 1);
	pid_t daemon = bench_read_pid(bench, "pid");
	assert_int_equal(bench->main_pid, daemon);
	assert_true(bench->service->ops->owns(bench->service, daemon));
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, daemon);
	assert_string_equal(bench->order, "SMF");
	/* Its end is noticed by itself, with how it came. */
	assert_int_equal(kill(daemon, SIGSEGV), 0);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "killed by signal 11 (SIGSEGV)"));
	assert_int_equal(bench->leader_ended, 0);
	assert_false(bench_has_cgroup(bench));
}

/* The pid_file says which one of several it is. */
static void test_forking_with_pid_file(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *first = bench_path(bench, "first"), *second = bench_path(bench, "second"), *text = NULL;
	bench->config.process.type = PROCESS_FORKING;
	bench->config.process.pid_file = bench_path(bench, "second");
	assert_true(asprintf(&text, "\"$0\" daemon %s; \"$0\" daemon %s", first, second) > 0);
	bench_command(bench, false, "/bin/sh", "-c", text, bench_helper(), NULL);
	bench_start(bench);
	bench_wait(bench, &bench->main_pids, 1);
	assert_int_equal(bench->main_pid, bench_read_pid(bench, "second"));
	/* When it ends, the other one still lives: the group is not gone. */
	assert_int_equal(kill(bench->main_pid, SIGKILL), 0);
	bench_wait(bench, &bench->main_pids, 2);
	assert_int_equal(bench->main_pid, bench_read_pid(bench, "first"));
	assert_int_equal(bench->gone, 0);
	bench_stop(bench, false);
}

static void test_forking_fails(void **state)
{
	struct bench *bench = *state;
	bench->config.process.type = PROCESS_FORKING;
	bench_command(bench, true, "echo no model; exit 2", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "exited with status 2"));
	assert_non_null(strstr(bench->text, "no model"));
}

static void test_zombie_is_nobody(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid");
	bench_command(bench, false, bench_helper(), "zombie", file, NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench_stop(bench, false);
	assert_int_equal(bench_count_zombies(), 0);
}

static void test_stop_command(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid"), *text = NULL;
	bench_variable(bench, "WORD=hello");
	assert_true(asprintf(&text, "echo stopping $WORD in $PWD $CUDA_VISIBLE_DEVICES; kill -9 $(cat %s)", file) > 0);
	bench_command(bench, false, bench_helper(), "wait", file, NULL);
	bench_stop_command(bench, false, "/bin/sh", "-c", text, NULL);
	bench_start(bench);
	bench_read_pid(bench, "pid");
	bench_stop(bench, false);
	assert_string_equal(bench->text, "killed by signal 9 (SIGKILL)");
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "stopping hello in / 0\n"));
	assert_int_equal(bench_count_zombies(), 0);
}

/* One that fails does not leave the service running; it is noted, and the signal takes its place. */
static void test_stop_command_fails(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_stop_command(bench, false, "/bin/sh", "-c", "exit 7", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench_stop(bench, false);
	assert_string_equal(bench->text, "killed by signal 15 (SIGTERM); stop_command failed: exited with status 7");
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "gpumgrd: stop_command failed: exited with status 7\n"));
	bench_stop_command(bench, false, "/no/such/stop", NULL);
	bench_start(bench);
	bench_stop(bench, false);
	assert_non_null(strstr(bench->text, "stop_command failed: command /no/such/stop does not exist"));
	bench_stop_command(bench, false, "no-such-stop", NULL);
	bench_start(bench);
	bench_stop(bench, false);
	assert_non_null(strstr(bench->text, "stop_command failed: command \"no-such-stop\" is in no folder of PATH"));
}

/* One that hangs is killed with the service, when the caller has waited long enough. */
static void test_stop_command_hangs(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "deaf", NULL);
	bench_stop_command(bench, false, "/bin/sh", "-c", "trap '' TERM; echo hanging; sleep 50; sleep 50", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench->service->ops->stop(bench->service, false);
	bench_wait_log(bench, "hanging");
	assert_int_equal(bench->gone, 0);
	bench_stop(bench, true);
	assert_int_equal(bench_count_zombies(), 0);
}

/* The end waits for a stop_command that is still busy, so that it cannot hit the next run. */
static void test_stop_command_lingers(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *file = bench_path(bench, "pid"), *text = NULL;
	assert_true(
		asprintf(&text, "kill -9 $(cat %s); while kill -0 $(cat %s); do sleep 0.01; done; sleep 0.2; echo end",
			file, file) > 0);
	bench_command(bench, false, bench_helper(), "wait", file, NULL);
	bench_stop_command(bench, false, "/bin/sh", "-c", text, NULL);
	bench_start(bench);
	bench_read_pid(bench, "pid");
	bench_stop(bench, false);
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "end\n"));
}

/* Who was never seen alive and has left the session is nobody's any more; the slow look takes it, once it is dead. */
static bool no_children(struct bench *bench, const void *argument)
{
	struct orphans orphans = { 0 };
	struct pid_list children;
	(void)bench;
	(void)argument;
	orphans_look(&orphans, 0);
	orphans_look(&orphans, ORPHANS_AGE_MS);
	orphans_finish(&orphans);
	assert_int_equal(proc_list_own_children(&children), 0);
	size_t n = children.n;
	pid_list_finish(&children);
	return n == 0;
}

static void test_forks_faster_than_it_is_killed(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "forks", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	bench_stop(bench, true);
	assert_int_equal(bench_count_processes(bench), 0);
	if (bench_can_have_cgroup(bench)) {
		assert_int_equal(bench_count_zombies(), 0);
		return;
	}
	assert_true(bench_run_until(bench, no_children, NULL));
}

static void test_many_runs(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, "/bin/true", NULL);
	for (unsigned i = 1; i <= 30; i++) {
		bench_start(bench);
		bench_wait(bench, &bench->gone, i);
	}
	assert_int_equal(bench_count_zombies(), 0);
	/* No descriptor is lost on the way. */
	struct rlimit limit, low;
	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	low.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &low);
	for (unsigned i = 31; i <= 100; i++) {
		bench_start(bench);
		bench_wait(bench, &bench->gone, i);
	}
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void test_no_descriptors(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, "/bin/true", NULL);
	bench_create(bench);
	struct rlimit limit, low;
	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	int next = dup(0);
	close(next);
	low.rlim_cur = (rlim_t)next + 3;
	setrlimit(RLIMIT_NOFILE, &low);
	bench->service->ops->start(bench->service, ++bench->run, NULL);
	setrlimit(RLIMIT_NOFILE, &limit);
	bench_wait(bench, &bench->start_failed, 1);
	assert_true(bench->text[0] != '\0');
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
}

/* The main process ends while nobody can be looked at: a worker that lives on still holds the card. */
static void test_nobody_can_be_looked_at(void **state)
{
	struct bench *bench = *state;
	struct rlimit limit, low;
	bench_command(bench, true, "sleep 1000 & echo ready; wait", NULL);
	bench_start(bench);
	bench_wait_log(bench, "ready");
	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	low.rlim_cur = 3; /* what is open stays */
	setrlimit(RLIMIT_NOFILE, &low);
	assert_int_equal(kill(bench->pid, SIGKILL), 0);
	bench_wait(bench, &bench->leader_ended, 1);
	bench_idle(bench, 500);
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_string_equal(bench->order, "SL");
	bench_stop(bench, true);
	/* And the end of one that nothing is left of is seen as soon as somebody can look. */
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_start(bench);
	setrlimit(RLIMIT_NOFILE, &low);
	assert_int_equal(kill(bench->pid, SIGKILL), 0);
	bench_idle(bench, 100);
	setrlimit(RLIMIT_NOFILE, &limit);
	bench_wait(bench, &bench->gone, 2);
	assert_false(bench_has_cgroup(bench));
}

/* A record that cannot be written: by its cgroup the next daemon finds it all the same; without one it may not run. */
static void test_no_record(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *name = NULL, *path = NULL;
	assert_true(asprintf(&name, "state/%s.run.new", bench->name) > 0);
	path = bench_path(bench, name);
	assert_int_equal(mkdir(path, 0700), 0);
	bench_command(bench, false, bench_helper(), "wait", NULL);
	if (!bench_can_have_cgroup(bench)) {
		bench_start_fails(bench, bench->state_dir);
		assert_non_null(
			strstr(bench->text, "by which the next gpumgrd would find the service: Is a directory"));
		assert_int_equal(bench_count_processes(bench), 0);
		assert_int_equal(rmdir(path), 0);
		bench_start(bench);
		bench_stop(bench, false);
		return;
	}
	bench_start(bench);
	bench_create(bench);
	bench_find(bench, false);
	assert_int_equal(bench->found_pid, bench->pid);
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	bench_stop(bench, false);
	assert_int_equal(rmdir(path), 0);
}

static void test_second_start_is_refused(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_start(bench);
	bench->service->ops->start(bench->service, bench->run, NULL);
	bench_wait(bench, &bench->start_failed, 1);
	assert_int_equal(bench->gone, 0);
	bench_stop(bench, false);
}

static void test_log_is_rotated_at_the_end(void **state)
{
	struct bench *bench = *state;
	bench->config.process.log_size = 4096;
	bench->environment.tick_ms = 3600 * 1000;
	bench_command(bench, true, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); done; exit 1", NULL);
	bench_start(bench);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "line 1999"));
	CLEANUP_FREE char *path = log_file_path(bench->log_dir, bench->name);
	assert_true(log_file_size(path) <= 4096);
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "line 0\n"));
	assert_non_null(strstr(log, "line 1000\n"));
	assert_non_null(strstr(log, "line 1999\n"));
}

static bool older_log_exists(struct bench *bench, const void *path)
{
	(void)bench;
	return access(path, F_OK) == 0;
}

static void test_log_is_rotated_while_it_runs(void **state)
{
	struct bench *bench = *state;
	CLEANUP_FREE char *path = log_file_path(bench->log_dir, bench->name), *older = NULL;
	assert_true(asprintf(&older, "%s.1", path) > 0);
	bench->config.process.log_size = 8192;
	bench->environment.tick_ms = 20;
	bench_command(bench, true,
		"i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i + 1)); done; read x < wait.fifo; echo last words; "
		"exit 1",
		NULL);
	bench->config.process.directory = strdup(bench->dir);
	CLEANUP_FREE char *fifo = bench_path(bench, "wait.fifo");
	assert_int_equal(mkfifo(fifo, 0666), 0);
	bench_start(bench);
	if (!bench_run_until(bench, older_log_exists, older))
		fail_msg("the log was not rotated");
	assert_true(bench->gone == 0);
	bench_write_file(fifo, "\n", 0666);
	bench_wait(bench, &bench->gone, 1);
	assert_non_null(strstr(bench->text, "last words"));
	CLEANUP_FREE char *log = bench_log(bench);
	assert_non_null(strstr(log, "line 999\n"));
}

/* The slow look reaps who died unseen while the service runs on. */
static bool no_zombies(struct bench *bench, const void *argument)
{
	(void)bench;
	(void)argument;
	return bench_count_zombies() == 0;
}

static void test_orphans_are_reaped_while_it_runs(void **state)
{
	struct bench *bench = *state;
	bench->environment.tick_ms = 20;
	bench_command(bench, true, "for i in 1 2 3; do (sleep 0.05 & ); done; sleep 0.2; echo done; sleep 100", NULL);
	bench_start(bench);
	bench_wait_log(bench, "done");
	assert_true(bench_run_until(bench, no_zombies, NULL));
	assert_int_equal(bench->leader_ended, 0);
	bench_stop(bench, false);
}

/* Let go of, it runs on; and nothing is reported any more. */
static void test_destroy_touches_nothing(void **state)
{
	struct bench *bench = *state;
	bench_command(bench, false, bench_helper(), "wait", NULL);
	bench_start(bench);
	bench->service->ops->find(bench->service, false);
	bench_destroy(bench);
	assert_int_equal(bench->found, 0);
	assert_int_equal(kill(bench->pid, 0), 0);
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_int_equal(bench->found_pid, bench->pid);
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	bench_stop(bench, false);
}

#define IN_EVERY_WAY(test)                                                                                             \
	{ #test " (cgroup)", test, bench_setup, bench_teardown, (void *)&bench_ways[0] },                              \
		{ #test " (no cgroup.kill)", test, bench_setup, bench_teardown, (void *)&bench_ways[1] },              \
		{ #test " (no cgroup)", test, bench_setup, bench_teardown, (void *)&bench_ways[2] },                   \
	{                                                                                                              \
#test " (no cgroup, no clone3)", test, bench_setup, bench_teardown, (void *)&bench_ways[3]             \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_EVERY_WAY(test_argv),
		IN_EVERY_WAY(test_shell),
		IN_EVERY_WAY(test_path_lookup),
		IN_EVERY_WAY(test_environment),
		IN_EVERY_WAY(test_directory),
		IN_EVERY_WAY(test_clean_start),
		IN_EVERY_WAY(test_other_user),
		IN_EVERY_WAY(test_user_errors),
		IN_EVERY_WAY(test_not_root),
		IN_EVERY_WAY(test_exec_failures),
		IN_EVERY_WAY(test_log_cannot_be_opened),
		IN_EVERY_WAY(test_signal_and_last_lines),
		IN_EVERY_WAY(test_stop),
		IN_EVERY_WAY(test_stop_signal),
		IN_EVERY_WAY(test_stopped_process_heeds),
		IN_EVERY_WAY(test_deaf),
		IN_EVERY_WAY(test_stop_before_exec),
		IN_EVERY_WAY(test_tree),
		IN_EVERY_WAY(test_stray),
		IN_EVERY_WAY(test_deaf_stray),
		IN_EVERY_WAY(test_leader_leaves_child),
		IN_EVERY_WAY(test_leader_leaves_session),
		IN_EVERY_WAY(test_forking),
		IN_EVERY_WAY(test_forking_with_pid_file),
		IN_EVERY_WAY(test_forking_fails),
		IN_EVERY_WAY(test_zombie_is_nobody),
		IN_EVERY_WAY(test_stop_command),
		IN_EVERY_WAY(test_stop_command_fails),
		IN_EVERY_WAY(test_stop_command_hangs),
		IN_EVERY_WAY(test_stop_command_lingers),
		IN_EVERY_WAY(test_forks_faster_than_it_is_killed),
		IN_EVERY_WAY(test_many_runs),
		IN_EVERY_WAY(test_no_descriptors),
		IN_EVERY_WAY(test_nobody_can_be_looked_at),
		IN_EVERY_WAY(test_no_record),
		IN_EVERY_WAY(test_second_start_is_refused),
		IN_EVERY_WAY(test_log_is_rotated_at_the_end),
		IN_EVERY_WAY(test_log_is_rotated_while_it_runs),
		IN_EVERY_WAY(test_orphans_are_reaped_while_it_runs),
		IN_EVERY_WAY(test_destroy_touches_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
