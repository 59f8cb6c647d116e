/* gpumgr-simsvc as a real process: what it takes of the simulated card, and that it misbehaves exactly as told. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "folder.h"
#include "gpu/backend.h"

#define PATIENCE_MS 10000
#define ARGUMENTS_MAX 16

struct process {
	pid_t pid;
	unsigned number; /* of its log */
	unsigned port;
};

struct fixture {
	struct folder folder;
	struct gpu_backend *backend;
	struct gpu_sample sample;
	unsigned n_processes;
};

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	*state = fixture;
	if (fixture == NULL)
		return 1;
	folder_make(&fixture->folder);
	setenv("GPUMGR_SIM_DIR", fixture->folder.path, 1);
	unsetenv("CUDA_VISIBLE_DEVICES");
	struct error err;
	return gpu_backend_open(&fixture->folder.config, &fixture->backend, &err);
}

/* State and parent of a process; false when there is none. */
static bool read_stat(int pid, char *ret_state, int *ret_parent, int *ret_group, int *ret_session)
{
	char path[64], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *after = strrchr(text, ')');
	return after != NULL && sscanf(after, ") %c %d %d %d", ret_state, ret_parent, ret_group, ret_session) == 4;
}

/* The children of this process. It is their subreaper, so daemons and orphans are among them. */
static unsigned find_children(pid_t *pids, unsigned most)
{
	unsigned n = 0;
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
		char state;
		int pid = atoi(entry->d_name), parent, group, session;
		if (pid > 0 && n < most && read_stat(pid, &state, &parent, &group, &session) && parent == getpid())
			pids[n++] = pid;
	}
	if (proc != NULL)
		closedir(proc);
	return n;
}

static void end_children(void)
{
	pid_t pids[64];
	for (unsigned n; (n = find_children(pids, ARRAY_SIZE(pids))) > 0;) {
		for (unsigned i = 0; i < n; i++) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
	}
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	end_children();
	gpu_sample_finish(&fixture->sample);
	if (fixture->backend != NULL)
		fixture->backend->ops->close(fixture->backend);
	folder_remove(&fixture->folder);
	free(fixture);
	return 0;
}

/* Processes */

static void log_path(const struct fixture *fixture, unsigned number, char path[512])
{
	snprintf(path, 512, "%s/log-%u", fixture->folder.path, number);
}

static const char *read_log(const struct fixture *fixture, unsigned number)
{
	static char text[65536];
	char path[512];
	log_path(fixture, number, path);
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	assert_non_null(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	return text;
}

/* Runs gpumgr-simsvc with these arguments, the last of them NULL. */
static struct process run(struct fixture *fixture, const char *const *arguments)
{
	struct process process = { .number = fixture->n_processes++ };
	char path[512];
	char *argv[ARGUMENTS_MAX + 2] = { "gpumgr-simsvc" };
	for (size_t i = 0; arguments[i] != NULL; i++) {
		assert_true(i < ARGUMENTS_MAX);
		argv[i + 1] = (char *)arguments[i];
	}
	log_path(fixture, process.number, path);
	int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(log >= 0);
	process.pid = fork();
	if (process.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		dup2(log, STDOUT_FILENO);
		dup2(log, STDERR_FILENO);
		execv(SIMSVC, argv);
		_exit(127);
	}
	close(log);
	assert_true(process.pid > 0);
	return process;
}

#define RUN(fixture, ...) run((fixture), (const char *const[]){ __VA_ARGS__, NULL })

static void wait_for_port(struct fixture *fixture, struct process *process)
{
	for (uint64_t limit = now_ms() + PATIENCE_MS; now_ms() < limit; usleep(1000)) {
		const char *said = strstr(read_log(fixture, process->number), " port ");
		if (said != NULL && strchr(said, '\n') != NULL) {
			process->port = (unsigned)atoi(said + strlen(" port "));
			return;
		}
	}
	fail_msg("it does not listen: %s", read_log(fixture, process->number));
}

static struct process serve(struct fixture *fixture, const char *const *arguments)
{
	struct process process = run(fixture, arguments);
	wait_for_port(fixture, &process);
	return process;
}

#define SERVE(fixture, ...) serve((fixture), (const char *const[]){ "--port=0", __VA_ARGS__, NULL })

/* The wait status; fails when it does not end. */
static int wait_for_end(pid_t pid)
{
	int status;
	for (uint64_t limit = now_ms() + PATIENCE_MS; now_ms() < limit; usleep(1000))
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
	fail_msg("process %d does not end", pid);
	return -1;
}

static void expect_exit(pid_t pid, int code)
{
	int status = wait_for_end(pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
}

static void stop(pid_t pid)
{
	kill(pid, SIGTERM);
	expect_exit(pid, 0);
}

/* The card */

static unsigned used(struct fixture *fixture, unsigned gpu)
{
	struct error err;
	gpu_sample_finish(&fixture->sample);
	memset(&fixture->sample, 0, sizeof(fixture->sample));
	assert_int_equal(fixture->backend->ops->read(fixture->backend, &fixture->sample, &err), 0);
	assert_true(fixture->sample.gpus[gpu].valid & GPU_VALID_USED);
	return fixture->sample.gpus[gpu].used_mib;
}

static void wait_for_used(struct fixture *fixture, unsigned gpu, unsigned mib)
{
	for (uint64_t limit = now_ms() + PATIENCE_MS; now_ms() < limit && used(fixture, gpu) != mib;)
		usleep(1000);
	assert_int_equal(used(fixture, gpu), mib);
}

/* HTTP */

static int dial(unsigned port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	const struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Sends `request` and reads until the end or until `answer` is full. How much came, or -1. */
static ssize_t exchange(unsigned port, const char *request, size_t length, char *answer, size_t size)
{
	CLEANUP_CLOSE int fd = dial(port);
	if (fd < 0)
		return -1;
	if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length)
		return -1;
	size_t have = 0;
	for (ssize_t n; have < size - 1 && (n = recv(fd, answer + have, size - 1 - have, 0)) > 0;)
		have += (size_t)n;
	answer[have] = '\0';
	return (ssize_t)have;
}

/* The status of the answer to a GET; 0: none that is HTTP, -1: no connection. */
static int get(unsigned port, const char *path, char answer[4096])
{
	char request[512];
	int length = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
	if (exchange(port, request, (size_t)length, answer, 4096) < 0)
		return -1;
	int status = 0;
	return sscanf(answer, "HTTP/1.1 %d ", &status) == 1 ? status : 0;
}

static int status_of(unsigned port, const char *path)
{
	char answer[4096];
	return get(port, path, answer);
}

static void wait_for_status(unsigned port, const char *path, int status)
{
	for (uint64_t limit = now_ms() + PATIENCE_MS; now_ms() < limit && status_of(port, path) != status;)
		usleep(1000);
	assert_int_equal(status_of(port, path), status);
}

/* Taking and giving back */

static void test_it_serves_takes_and_gives_back(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=4000", "--name=comfy");
	char answer[4096], path[512], name[16];
	wait_for_status(service.port, "/health", 200);
	assert_int_equal(get(service.port, "/health?x=1", answer), 200);
	assert_non_null(strstr(answer, "\r\n\r\nok\n"));
	assert_non_null(strstr(answer, "Content-Length: 3\r\n"));
	assert_int_equal(used(fixture, 0), 4000);
	assert_int_equal(fixture->sample.gpus[0].processes[0].pid, service.pid);
	assert_string_equal(fixture->sample.gpus[0].processes[0].name, "gpumgr-simsvc");
	assert_int_equal(get(service.port, "/vram", answer), 200);
	assert_non_null(strstr(answer, "\r\n\r\n4000\n"));
	stop(service.pid);
	snprintf(name, sizeof(name), "%d", service.pid);
	assert_int_equal(access(folder_path(&fixture->folder, 0, name, path), F_OK), -1);
	assert_int_equal(used(fixture, 0), 0);
	assert_non_null(strstr(read_log(fixture, service.number), "comfy: ready, with 4000 MiB"));
}

static void test_an_overflow_is_refused_in_cudas_words(void **state)
{
	struct fixture *fixture = *state;
	folder_take(&fixture->folder, 0, getpid(), 20577);
	struct process service = RUN(fixture, "--port=0", "--vram=3000", "--extra=1000");
	expect_exit(service.pid, 1);
	assert_non_null(strstr(read_log(fixture, service.number),
		"CUDA out of memory. Tried to allocate 4000 MiB (GPU 0; 24576 MiB total; 3999 MiB free)"));
	assert_int_equal(used(fixture, 0), 20577);
	folder_take(&fixture->folder, 0, getpid(), 20576);
	struct process fitting = SERVE(fixture, "--vram=3000", "--extra=1000");
	wait_for_used(fixture, 0, 24576);
	stop(fitting.pid);
}

static void test_racing_services_never_overflow_the_card(void **state)
{
	struct fixture *fixture = *state;
	for (int round = 0; round < 5; round++) {
		struct process services[10];
		unsigned n_refused = 0;
		for (size_t i = 0; i < ARRAY_SIZE(services); i++)
			services[i] = RUN(fixture, "--no-listen", "--vram=4000");
		for (uint64_t limit = now_ms() + PATIENCE_MS; n_refused < 4 && now_ms() < limit;) {
			assert_true(used(fixture, 0) <= 24576);
			for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
				int status;
				if (services[i].pid == 0 || waitpid(services[i].pid, &status, WNOHANG) == 0)
					continue;
				assert_int_equal(WEXITSTATUS(status), 1);
				services[i].pid = 0;
				n_refused++;
			}
		}
		assert_int_equal(n_refused, 4); /* six times 4000 fit into 24576 */
		wait_for_used(fixture, 0, 24000);
		for (size_t i = 0; i < ARRAY_SIZE(services); i++)
			if (services[i].pid != 0)
				stop(services[i].pid);
		assert_int_equal(used(fixture, 0), 0);
	}
}

static void test_what_the_dead_left_is_cleared_away(void **state)
{
	struct fixture *fixture = *state;
	struct process crashing = SERVE(fixture, "--vram=20000");
	wait_for_used(fixture, 0, 20000);
	kill(crashing.pid, SIGKILL);
	wait_for_end(crashing.pid);
	char path[512], name[16];
	snprintf(name, sizeof(name), "%d", crashing.pid);
	folder_path(&fixture->folder, 0, name, path);
	assert_int_equal(access(path, F_OK), 0);
	struct process next = SERVE(fixture, "--vram=20000");
	wait_for_used(fixture, 0, 20000);
	assert_int_equal(access(path, F_OK), -1);
	stop(next.pid);
}

static void test_several_gpus_all_or_none(void **state)
{
	struct fixture *fixture = *state;
	struct process both = SERVE(fixture, "--vram=5000", "--gpu=GPU-sim-1,0");
	wait_for_used(fixture, 1, 5000);
	wait_for_used(fixture, 0, 5000);
	struct process refused = RUN(fixture, "--port=0", "--vram=5000", "--gpu=0,1");
	expect_exit(refused.pid, 1);
	assert_non_null(strstr(read_log(fixture, refused.number), "(GPU 1; 8192 MiB total; 3192 MiB free)"));
	assert_int_equal(used(fixture, 0), 5000);
	stop(both.pid);
	assert_int_equal(used(fixture, 1), 0);
}

static void test_the_visible_devices(void **state)
{
	struct fixture *fixture = *state;
	setenv("CUDA_VISIBLE_DEVICES", "GPU-sim-1", 1);
	struct process by_uuid = SERVE(fixture, "--vram=100");
	wait_for_used(fixture, 1, 100);
	setenv("CUDA_VISIBLE_DEVICES", "1", 1);
	struct process by_index = SERVE(fixture, "--vram=100");
	wait_for_used(fixture, 1, 200);
	struct process by_option = SERVE(fixture, "--vram=100", "--gpu=0");
	wait_for_used(fixture, 0, 100);
	setenv("CUDA_VISIBLE_DEVICES", "", 1);
	struct process without = RUN(fixture, "--port=0", "--vram=100");
	expect_exit(without.pid, 1);
	assert_non_null(strstr(read_log(fixture, without.number), "no CUDA-capable device"));
	unsetenv("CUDA_VISIBLE_DEVICES");
	stop(by_uuid.pid);
	stop(by_index.pid);
	stop(by_option.pid);
}

static void test_without_a_simulated_gpu(void **state)
{
	struct fixture *fixture = *state;
	unsetenv("GPUMGR_SIM_DIR");
	struct process refused = RUN(fixture, "--port=0", "--vram=100");
	expect_exit(refused.pid, 1);
	assert_non_null(strstr(read_log(fixture, refused.number), "GPUMGR_SIM_DIR"));
	struct process modest = SERVE(fixture, "--vram=0");
	wait_for_status(modest.port, "/health", 200);
	stop(modest.pid);
	struct process elsewhere = RUN(fixture, "--port=0", "--vram=100", "--sim-dir=/nowhere");
	expect_exit(elsewhere.pid, 1);
	assert_non_null(strstr(read_log(fixture, elsewhere.number), "/nowhere/0"));
}

static void test_a_lazy_one_takes_on_the_first_load(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=4000", "--lazy");
	wait_for_status(service.port, "/health", 200);
	assert_int_equal(used(fixture, 0), 0);
	assert_int_equal(status_of(service.port, "/load"), 200);
	assert_int_equal(used(fixture, 0), 4000);
	assert_int_equal(status_of(service.port, "/load"), 200);
	assert_int_equal(used(fixture, 0), 4000);
	stop(service.pid);
}

static void test_a_leak_grows_until_the_card_is_full(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=1000", "--leak=4000", "--gpu=1");
	expect_exit(service.pid, 1);
	/* It had 1000, and then 5000. */
	assert_non_null(strstr(read_log(fixture, service.number),
		"Tried to allocate 4000 MiB (GPU 1; 8192 MiB total; 3192 MiB free)"));
	assert_int_equal(used(fixture, 1), 0);
}

static void test_lingering_memory_comes_back_with_another_process(void **state)
{
	struct fixture *fixture = *state;
	struct process heir = RUN(fixture, "--no-listen");
	char argument[64];
	snprintf(argument, sizeof(argument), "--linger-pid=%d", heir.pid);
	for (unsigned i = 1; i <= 2; i++) {
		struct process service = SERVE(fixture, "--vram=4000", argument);
		wait_for_used(fixture, 0, 4000 * i);
		kill(service.pid, SIGTERM);
		while (waitpid(service.pid, NULL, WNOHANG) == 0)
			assert_true(used(fixture, 0) >= 4000 * i); /* at no moment less */
		assert_int_equal(used(fixture, 0), 4000 * i);
	}
	kill(heir.pid, SIGKILL);
	wait_for_end(heir.pid);
	assert_int_equal(used(fixture, 0), 0);
}

/* Health */

static void test_booting(void **state)
{
	struct fixture *fixture = *state;
	struct process booting = SERVE(fixture, "--vram=4000", "--boot=1h");
	assert_int_equal(status_of(booting.port, "/health"), 503);
	assert_int_equal(status_of(booting.port, "/load"), 503);
	assert_int_equal(used(fixture, 0), 0);
	stop(booting.pid); /* a boot can be interrupted */

	uint64_t before = now_ms();
	struct process service = SERVE(fixture, "--vram=4000", "--boot=0.3");
	wait_for_status(service.port, "/health", 200);
	assert_true(now_ms() - before >= 300);
	assert_int_equal(used(fixture, 0), 4000);
	stop(service.pid);

	before = now_ms();
	struct process refusing = SERVE(fixture, "--vram=4000", "--boot=300ms", "--boot-refuse");
	assert_true(now_ms() - before >= 300);
	assert_int_equal(status_of(refusing.port, "/health"), 200);
	stop(refusing.pid);
}

static void test_health_can_be_wrong_in_many_ways(void **state)
{
	struct fixture *fixture = *state;
	char answer[4096];
	struct process service = SERVE(fixture, "--redirect-health", "--health-path=/system_stats");
	assert_int_equal(get(service.port, "/system_stats", answer), 302);
	assert_non_null(strstr(answer, "Location: /elsewhere\r\n"));
	assert_int_equal(status_of(service.port, "/health"), 404);
	stop(service.pid);

	service = SERVE(fixture, "--rubbish-health");
	assert_int_equal(get(service.port, "/health", answer), 0);
	assert_int_equal(answer[0], 0);
	stop(service.pid);

	service = SERVE(fixture, "--never-healthy");
	wait_for_status(service.port, "/health", 503);
	usleep(50000);
	assert_int_equal(status_of(service.port, "/health"), 503);
	stop(service.pid);

	service = SERVE(fixture, "--endless-health");
	static char much[4 << 20];
	static const char request[] = "GET /health HTTP/1.1\r\n\r\n";
	assert_int_equal(exchange(service.port, request, strlen(request), much, sizeof(much)), sizeof(much) - 1);
	assert_memory_equal(much, "HTTP/1.1 200 OK\r\n", 17);
	assert_int_equal(status_of(service.port, "/vram"), 200);
	stop(service.pid);
}

static void test_a_hanging_health_check_hangs_alone(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--hang-health");
	static const char request[] = "GET /health HTTP/1.1\r\n\r\n";
	CLEANUP_CLOSE int fd = dial(service.port);
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	char byte;
	const struct timeval patience = { .tv_usec = 200000 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(status_of(service.port, "/vram"), 200);
	stop(service.pid);
}

static void test_health_by_command(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=1");
	wait_for_status(service.port, "/health", 200);
	assert_int_equal(status_of(service.port, "/unhealthy"), 200);
	assert_int_equal(status_of(service.port, "/health"), 503);
	assert_int_equal(status_of(service.port, "/healthy"), 200);
	assert_int_equal(status_of(service.port, "/health"), 200);
	stop(service.pid);
}

static void test_bad_requests(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=0");
	static char large[6000];
	memset(large, 'x', sizeof(large) - 1);
	static const struct {
		const char *request;
		size_t length; /* 0: as it is long */
		const char *answer;
	} cases[] = {
		{ "rubbish\r\n\r\n", 0, "HTTP/1.1 400 " },
		{ "GET /health\r\n\r\n", 0, "HTTP/1.1 400 " },
		{ "GET health HTTP/1.1\r\n\r\n", 0, "HTTP/1.1 400 " },
		{ "GET /health HTTP/9.1\r\n\r\n", 0, "HTTP/1.1 400 " },
		{ "GET /he\0alth HTTP/1.1\r\n\r\n", 26, "HTTP/1.1 400 " },
		{ "\r\n\r\n", 0, "HTTP/1.1 400 " },
		{ "POST /health HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 0, "HTTP/1.1 405 " },
		{ "HEAD /health HTTP/1.1\r\n\r\n", 0, "HTTP/1.1 200 " },
		{ "GET /nowhere HTTP/1.0\n\n", 0, "HTTP/1.1 404 " },
		{ large, 0, "HTTP/1.1 431 " },
	};
	wait_for_status(service.port, "/health", 200);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char answer[4096];
		size_t length = cases[i].length != 0 ? cases[i].length : strlen(cases[i].request);
		assert_true(exchange(service.port, cases[i].request, length, answer, sizeof(answer)) > 0);
		assert_memory_equal(answer, cases[i].answer, strlen(cases[i].answer));
	}
	stop(service.pid);
}

static void test_more_callers_than_it_has_places_for(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=0");
	int callers[100];
	wait_for_status(service.port, "/health", 200);
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
		callers[i] = dial(service.port);
	for (size_t i = 0; i < ARRAY_SIZE(callers); i++)
		if (callers[i] >= 0)
			close(callers[i]);
	assert_int_equal(status_of(service.port, "/health"), 200);
	stop(service.pid);
}

/* Ends */

static void test_a_deaf_one(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=4000", "--ignore-term");
	wait_for_used(fixture, 0, 4000);
	kill(service.pid, SIGTERM);
	usleep(100000);
	assert_int_equal(status_of(service.port, "/health"), 200);
	kill(service.pid, SIGINT);
	expect_exit(service.pid, 0);
	assert_int_equal(used(fixture, 0), 0);
}

static void test_a_slow_end(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--vram=4000", "--stop-delay=3");
	wait_for_used(fixture, 0, 4000);
	uint64_t before = now_ms();
	kill(service.pid, SIGTERM);
	kill(service.pid, SIGTERM);
	wait_for_status(service.port, "/health", 503);
	assert_int_equal(used(fixture, 0), 4000);
	expect_exit(service.pid, 0);
	assert_true(now_ms() - before >= 3000);
	assert_int_equal(used(fixture, 0), 0);
}

static void test_crashes(void **state)
{
	struct fixture *fixture = *state;
	struct process service = RUN(fixture, "--no-listen", "--crash-after=0.05", "--exit-code=7");
	expect_exit(service.pid, 7);
	service = RUN(fixture, "--no-listen", "--crash-after=0", "--crash-signal=11");
	int status = wait_for_end(service.pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	service = RUN(fixture, "--port=1", "--fail-start=3", "--log-lines=5");
	expect_exit(service.pid, 3);
	assert_non_null(strstr(read_log(fixture, service.number), "log line 5 of 5\n"));
	assert_non_null(strstr(read_log(fixture, service.number), "failing to start with status 3"));
	service = SERVE(fixture, "--vram=4000");
	wait_for_used(fixture, 0, 4000);
	assert_int_equal(status_of(service.port, "/crash"), 0);
	expect_exit(service.pid, 1);
	assert_int_equal(used(fixture, 0), 0);
}

static void test_a_port_that_is_taken(void **state)
{
	struct fixture *fixture = *state;
	struct process first = SERVE(fixture, "--vram=0");
	char port[32];
	snprintf(port, sizeof(port), "--port=%u", first.port);
	struct process second = RUN(fixture, port);
	expect_exit(second.pid, 1);
	assert_non_null(strstr(read_log(fixture, second.number), "cannot listen on 127.0.0.1"));
	struct process background = RUN(fixture, port, "--fork");
	expect_exit(background.pid, 1);
	stop(first.pid);
}

static void test_wrong_usage(void **state)
{
	struct fixture *fixture = *state;
	static const char *const lines[][3] = {
		{ NULL },
		{ "--port=65536" },
		{ "--port=x" },
		{ "--port=0", "--vram=-1" },
		{ "--port=0", "--vram=80%" },
		{ "--port=0", "--boot=soon" },
		{ "--port=0", "--gpu=64" },
		{ "--port=0", "--gpu=first" },
		{ "--port=0", "--health-path=health" },
		{ "--port=0", "--no-such-option" },
		{ "--port=0", "surplus" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		const char *arguments[] = { lines[i][0], lines[i][1], NULL };
		expect_exit(run(fixture, arguments).pid, 2);
	}
	struct process helped = RUN(fixture, "--help");
	expect_exit(helped.pid, 0);
	assert_non_null(strstr(read_log(fixture, helped.number), "--linger-pid PID"));
}

/* Families */

static pid_t read_pid(const char *path)
{
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	int pid = 0;
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d\n", &pid), 1);
	return pid;
}

static void test_into_the_background(void **state)
{
	struct fixture *fixture = *state;
	static const char *const ways[] = { "--keep-session", "--name=classic" };
	char pid_file[600], path[512];
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		snprintf(path, sizeof(path), "%s/pid", fixture->folder.path);
		snprintf(pid_file, sizeof(pid_file), "--pid-file=%s", path);
		struct process front = RUN(fixture, "--port=0", "--vram=4000", "--fork", pid_file, ways[i]);
		char state_now;
		int parent, group, session;
		expect_exit(front.pid, 0);
		pid_t daemon = read_pid(path); /* is there as soon as the front is gone */
		wait_for_port(fixture, &front);
		wait_for_status(front.port, "/health", 200);
		assert_int_equal(used(fixture, 0), 4000);
		assert_int_equal(fixture->sample.gpus[0].processes[0].pid, daemon);
		assert_true(read_stat(daemon, &state_now, &parent, &group, &session));
		assert_int_equal(parent, getpid()); /* the subreaper: its own parent is gone */
		assert_int_equal(session == getsid(0), i == 0);
		assert_int_equal(group == front.pid, i == 0);
		stop(daemon);
		assert_int_equal(access(path, F_OK), -1);
		assert_int_equal(used(fixture, 0), 0);
	}
}

static void test_helpers(void **state)
{
	struct fixture *fixture = *state;
	struct process service = SERVE(fixture, "--children=2", "--children-deaf", "--new-session-child");
	wait_for_status(service.port, "/health", 200);
	stop(service.pid);
	pid_t pids[8];
	unsigned n_deaf = 0, n_escaped = 0;
	assert_int_equal(find_children(pids, ARRAY_SIZE(pids)), 3); /* orphans, come to their subreaper */
	for (int i = 0; i < 3; i++) {
		char state_now;
		int parent, group, session;
		assert_true(read_stat(pids[i], &state_now, &parent, &group, &session));
		kill(pids[i], SIGTERM);
		if (session == pids[i]) {
			n_escaped++;
			assert_int_equal(WTERMSIG(wait_for_end(pids[i])), SIGTERM);
			continue;
		}
		assert_int_equal(group, service.pid);
		usleep(50000);
		n_deaf += kill(pids[i], 0) == 0 && waitpid(pids[i], NULL, WNOHANG) == 0;
	}
	assert_int_equal(n_escaped, 1);
	assert_int_equal(n_deaf, 2);
	kill(-service.pid, SIGKILL);
}

int main(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_it_serves_takes_and_gives_back),
		TEST(test_an_overflow_is_refused_in_cudas_words),
		TEST(test_racing_services_never_overflow_the_card),
		TEST(test_what_the_dead_left_is_cleared_away),
		TEST(test_several_gpus_all_or_none),
		TEST(test_the_visible_devices),
		TEST(test_without_a_simulated_gpu),
		TEST(test_a_lazy_one_takes_on_the_first_load),
		TEST(test_a_leak_grows_until_the_card_is_full),
		TEST(test_lingering_memory_comes_back_with_another_process),
		TEST(test_booting),
		TEST(test_health_can_be_wrong_in_many_ways),
		TEST(test_a_hanging_health_check_hangs_alone),
		TEST(test_health_by_command),
		TEST(test_bad_requests),
		TEST(test_more_callers_than_it_has_places_for),
		TEST(test_a_deaf_one),
		TEST(test_a_slow_end),
		TEST(test_crashes),
		TEST(test_a_port_that_is_taken),
		TEST(test_wrong_usage),
		TEST(test_into_the_background),
		TEST(test_helpers),
	};
	return cmocka_run_group_tests_name("simsvc/behaviour", tests, NULL, NULL);
}
