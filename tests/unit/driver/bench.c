/* The place to try a driver service in. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/cgroup.h"
#include "driver/orphans.h"

#define DEADLINE_MS 15000
#define LOOK_MS 2
#define FIRST_PORT 32250 /* the integration tests take those below */
#define N_PORTS 500

const struct bench_way bench_ways[BENCH_WAYS] = {
	{ "cgroup", 0 },
	{ "cgroup without cgroup.kill", DRIVER_WITHOUT_CGROUP_KILL },
	{ "no cgroup", DRIVER_WITHOUT_CGROUP },
	{ "no cgroup, no clone3", DRIVER_WITHOUT_CGROUP | DRIVER_WITHOUT_CLONE3 },
};

static void note(struct bench *bench, char letter, const char *text)
{
	size_t length = strlen(bench->order);
	bench->order = realloc(bench->order, length + 2);
	bench->order[length] = letter;
	bench->order[length + 1] = '\0';
	if (text != NULL)
		snprintf(bench->text, sizeof(bench->text), "%s", text);
}

static void handle_found(void *context, size_t service, const struct driver_sighting *sighting)
{
	struct bench *bench = context;
	assert_int_equal(service, 3);
	note(bench, 'F', sighting->is_untold ? sighting->text : NULL);
	bench->alive = sighting->alive;
	bench->external = sighting->is_external;
	bench->stopping = sighting->is_stopping;
	bench->untold = sighting->is_untold;
	bench->found_pid = sighting->pid;
	bench->found++;
}

static void handle_changed(void *context, size_t service)
{
	struct bench *bench = context;
	assert_int_equal(service, 3);
	note(bench, 'C', NULL);
	bench->changed++;
}

static void handle_started(void *context, size_t service, uint64_t run, pid_t pid)
{
	struct bench *bench = context;
	assert_int_equal(service, 3);
	assert_int_equal(run, bench->run);
	note(bench, 'S', NULL);
	bench->pid = bench->main_pid = pid;
	bench->started++;
}

static void handle_main_pid(void *context, size_t service, uint64_t run, pid_t pid)
{
	struct bench *bench = context;
	assert_int_equal(service, 3);
	assert_int_equal(run, bench->run);
	note(bench, 'M', NULL);
	bench->main_pid = pid;
	bench->main_pids++;
}

static void count(struct bench *bench, size_t service, uint64_t run, char letter, unsigned *counter, const char *text)
{
	assert_int_equal(service, 3);
	assert_int_equal(run, bench->run);
	note(bench, letter, text);
	(*counter)++;
}

static void handle_start_failed(
	void *context, size_t service, uint64_t run, enum driver_failure failure, const char *text)
{
	struct bench *bench = context;
	bench->failure = failure;
	count(bench, service, run, 'f', &bench->start_failed, text);
}

static void handle_leader_ended(void *context, size_t service, uint64_t run, const char *text)
{
	struct bench *bench = context;
	count(bench, service, run, 'L', &bench->leader_ended, text);
}

static void handle_gone(void *context, size_t service, uint64_t run, bool by_others, const char *text)
{
	struct bench *bench = context;
	bench->by_others = by_others;
	count(bench, service, run, 'G', &bench->gone, text);
}

static void handle_hindered(void *context, size_t service, uint64_t run, bool is_over, const char *text)
{
	struct bench *bench = context;
	bench->is_hindered = !is_over;
	count(bench, service, run, 'P', &bench->hindered, text);
}

static void handle_stop_refused(void *context, size_t service, uint64_t run, const char *text)
{
	struct bench *bench = context;
	count(bench, service, run, 'R', &bench->refused, text);
}

static void handle_health(void *context, size_t service, uint64_t run, bool healthy, const char *text)
{
	struct bench *bench = context;
	bench->healthy = healthy;
	count(bench, service, run, 'H', &bench->healths, text);
}

static void handle_trouble(void *context, const char *subject, bool is_over, const char *text)
{
	struct bench *bench = context;
	assert_non_null(subject);
	note(bench, 'T', text);
	bench->trouble_over = is_over;
	bench->troubles++;
}

int bench_setup(void **state)
{
	static unsigned number;
	const struct bench_way *way = *state;
	struct bench *bench = calloc(1, sizeof(*bench));
	snprintf(bench->dir, sizeof(bench->dir), "/tmp/gpumgr-driver-XXXXXX");
	if (mkdtemp(bench->dir) == NULL || chmod(bench->dir, 0755) < 0)
		return -1;
	snprintf(bench->log_dir, sizeof(bench->log_dir), "%s/log", bench->dir);
	snprintf(bench->state_dir, sizeof(bench->state_dir), "%s/state", bench->dir);
	mkdir(bench->log_dir, 0755);
	mkdir(bench->state_dir, 0755);
	snprintf(bench->instance, sizeof(bench->instance), "test%d-%u", (int)getpid(), ++number);
	snprintf(bench->name, sizeof(bench->name), "svc%d-%u", (int)getpid(), number);
	snprintf(bench->mark, sizeof(bench->mark), "GPUMGR_SERVICE=%s", bench->name);
	uv_loop_init(&bench->loop);
	bench->listener = (struct driver_listener){
		.context = bench,
		.handle_found = handle_found,
		.handle_changed = handle_changed,
		.handle_started = handle_started,
		.handle_start_failed = handle_start_failed,
		.handle_leader_ended = handle_leader_ended,
		.handle_gone = handle_gone,
		.handle_hindered = handle_hindered,
		.handle_stop_refused = handle_stop_refused,
		.handle_main_pid = handle_main_pid,
		.handle_health = handle_health,
		.handle_trouble = handle_trouble,
	};
	bench->environment = (struct driver_environment){
		.loop = &bench->loop,
		.listener = &bench->listener,
		.shared = &bench->shared,
		.log_dir = bench->log_dir,
		.state_dir = bench->state_dir,
		.instance = bench->instance,
		.without = way != NULL ? way->without : 0,
	};
	bench->config = (struct service_config){
		.name = bench->name,
		.driver = DRIVER_PROCESS,
		.process = { .stop_signal = SIGTERM, .stop_timeout_ms = 30000, .log_size = 1024 * 1024 },
	};
	bench->config.process.command.items = bench->words;
	bench->config.process.stop_command.items = bench->stop_words;
	bench->config.process.environment.items = bench->variables;
	bench->order = calloc(1, 1);
	*state = bench;
	return 0;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	return remove(path);
}

static void free_words(char **words)
{
	for (size_t i = 0; i < 16; i++) {
		free(words[i]);
		words[i] = NULL;
	}
}

static size_t kill_marked(const struct bench *bench, int signal)
{
	struct proc_list list;
	size_t n = 0;
	if (proc_list_all(&list) < 0)
		return 0;
	for (size_t i = 0; i < list.n; i++) {
		if (!proc_is_alive(&list.items[i]) || !proc_has_environment(list.items[i].pid, bench->mark))
			continue;
		n++;
		if (signal != 0)
			process_signal_exactly(list.items[i].pid, list.items[i].start_ticks, signal);
	}
	free(list.items);
	return n;
}

size_t bench_count_processes(const struct bench *bench)
{
	return kill_marked(bench, 0);
}

size_t bench_count_zombies(void)
{
	struct pid_list children;
	size_t n = 0;
	if (proc_list_own_children(&children) < 0)
		return 0;
	for (size_t i = 0; i < children.n; i++) {
		struct proc_stat stat;
		n += proc_read_stat(children.items[i], &stat) == 0 && stat.state == 'Z';
	}
	pid_list_finish(&children);
	return n;
}

bool bench_has_cgroup(const struct bench *bench)
{
	struct cgroup *cgroup;
	if (cgroup_create(bench->instance, bench->name, true, &cgroup) < 0)
		return false;
	int fd = cgroup_open_folder(cgroup);
	if (fd >= 0)
		close(fd);
	cgroup_destroy(cgroup);
	return fd >= 0;
}

bool bench_can_have_cgroup(const struct bench *bench)
{
	struct cgroup *cgroup;
	if (bench->environment.without & DRIVER_WITHOUT_CGROUP)
		return false;
	if (cgroup_create(bench->instance, "probe", true, &cgroup) < 0)
		return false;
	int r = cgroup_make(cgroup);
	cgroup_remove(cgroup);
	cgroup_destroy(cgroup);
	return r == 0;
}

static void reap_zombies(void)
{
	struct orphans orphans = { 0 };
	orphans_look(&orphans, 0);
	orphans_look(&orphans, ORPHANS_AGE_MS);
	orphans_finish(&orphans);
}

static void remove_cgroup(const struct bench *bench, const char *name)
{
	struct cgroup *cgroup;
	if (cgroup_create(bench->instance, name, true, &cgroup) < 0)
		return;
	cgroup_kill(cgroup);
	for (unsigned i = 0; i < 1000 && cgroup_populated(cgroup) > 0; i++)
		usleep(1000);
	cgroup_remove(cgroup);
	cgroup_destroy(cgroup);
}

static unsigned complain(bool wrong, const char *what)
{
	if (wrong)
		fprintf(stderr, "left behind: %s\n", what);
	return wrong;
}

int bench_teardown(void **state)
{
	struct bench *bench = *state;
	unsigned wrong = 0;
	bench_destroy(bench);
	wrong += complain(kill_marked(bench, SIGKILL) > 0, "a process");
	wrong += complain(bench_has_cgroup(bench), "a cgroup");
	remove_cgroup(bench, bench->name);
	remove_cgroup(bench, BENCH_OTHER_PLACE);
	for (unsigned i = 0; i < 1000 && kill_marked(bench, SIGKILL) > 0; i++)
		usleep(1000);
	wrong += complain(bench_count_zombies() > 0, "a zombie");
	/* So that a test that failed does not make the next one fail. */
	reap_zombies();
	char *record = bench_path(bench, "state");
	wrong += complain(rmdir(record) < 0, "a file in the state folder");
	free(record);
	wrong += complain(uv_loop_close(&bench->loop) < 0, "an open handle");
	nftw(bench->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free_words(bench->words);
	free_words(bench->stop_words);
	free_words(bench->variables);
	free(bench->config.process.directory);
	free(bench->config.process.pid_file);
	free(bench->order);
	free(bench);
	return wrong > 0 ? -1 : 0;
}

static size_t take_words(char **words, va_list args)
{
	size_t n = 0;
	free_words(words);
	for (const char *word; (word = va_arg(args, const char *)) != NULL;)
		words[n++] = strdup(word);
	return n;
}

void bench_command(struct bench *bench, int shell, ...)
{
	va_list args;
	va_start(args, shell);
	bench->config.process.command.n = take_words(bench->words, args);
	bench->config.process.shell = shell;
	va_end(args);
}

void bench_stop_command(struct bench *bench, int shell, ...)
{
	va_list args;
	va_start(args, shell);
	bench->config.process.stop_command.n = take_words(bench->stop_words, args);
	bench->config.process.shell = shell;
	va_end(args);
}

void bench_variable(struct bench *bench, const char *variable)
{
	bench->variables[bench->config.process.environment.n++] = strdup(variable);
}

void bench_destroy(struct bench *bench)
{
	if (bench->service == NULL)
		return;
	bench->service = driver_destroy(bench->service);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
}

void bench_create(struct bench *bench)
{
	struct error err = { "" };
	bench_destroy(bench);
	assert_int_equal(driver_create(&bench->environment, &bench->config, 3, &bench->service, &err), 0);
}

static void handle_tick(uv_timer_t *timer)
{
	(void)timer;
}

bool bench_run_until(
	struct bench *bench, bool (*holds)(struct bench *bench, const void *argument), const void *argument)
{
	uv_timer_t tick;
	uv_timer_init(&bench->loop, &tick);
	uv_timer_start(&tick, handle_tick, LOOK_MS, LOOK_MS);
	uv_update_time(&bench->loop);
	uint64_t end = uv_now(&bench->loop) + DEADLINE_MS;
	bool held;
	while (!(held = holds(bench, argument)) && uv_now(&bench->loop) < end)
		uv_run(&bench->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
	return held;
}

struct idleness {
	uint64_t end_ms;
	uint64_t *turns_left;
};

static bool is_over(struct bench *bench, const void *argument)
{
	const struct idleness *idleness = argument;
	if (*idleness->turns_left > 0)
		--*idleness->turns_left;
	return uv_now(&bench->loop) >= idleness->end_ms && *idleness->turns_left == 0;
}

/* The loop gets its turns, too, when the machine was elsewhere all that time. */
void bench_idle(struct bench *bench, uint64_t ms)
{
	uint64_t turns_left = ms / (2 * LOOK_MS) + 2;
	uv_update_time(&bench->loop);
	struct idleness idleness = { .end_ms = uv_now(&bench->loop) + ms, .turns_left = &turns_left };
	bench_run_until(bench, is_over, &idleness);
}

struct counter {
	const unsigned *count;
	unsigned wanted;
};

static bool has_count(struct bench *bench, const void *argument)
{
	const struct counter *counter = argument;
	(void)bench;
	return *counter->count >= counter->wanted;
}

void bench_wait(struct bench *bench, const unsigned *counted, unsigned wanted)
{
	struct counter counter = { counted, wanted };
	if (!bench_run_until(bench, has_count, &counter))
		fail_msg("nothing happened; reports so far: \"%s\" (%s)", bench->order, bench->text);
	assert_int_equal(*counted, wanted);
}

char *bench_log(struct bench *bench)
{
	char *path = log_file_path(bench->log_dir, bench->name);
	char *text = NULL;
	assert_int_equal(log_file_tail(path, 100000, &text, NULL), 0);
	free(path);
	return text;
}

static bool log_has(struct bench *bench, const void *text)
{
	CLEANUP_FREE char *log = bench_log(bench);
	return strstr(log, text) != NULL;
}

void bench_wait_log(struct bench *bench, const char *text)
{
	if (!bench_run_until(bench, log_has, text)) {
		CLEANUP_FREE char *log = bench_log(bench);
		fail_msg("\"%s\" is not in the log: \"%s\"", text, log);
	}
}

static bool file_has_line(struct bench *bench, const void *path)
{
	char text[64];
	(void)bench;
	return proc_read_file(path, text, sizeof(text)) > 0 && strchr(text, '\n') != NULL;
}

void bench_wait_file(struct bench *bench, const char *path)
{
	if (!bench_run_until(bench, file_has_line, path))
		fail_msg("%s did not appear", path);
}

static bool is_dead(struct bench *bench, const void *argument)
{
	struct proc_stat stat;
	(void)bench;
	return proc_read_stat(*(const pid_t *)argument, &stat) < 0 || !proc_is_alive(&stat);
}

void bench_wait_dead(struct bench *bench, pid_t pid)
{
	if (!bench_run_until(bench, is_dead, &pid))
		fail_msg("process %d still runs", (int)pid);
}

void bench_start(struct bench *bench)
{
	unsigned before = bench->started;
	if (bench->service == NULL)
		bench_create(bench);
	bench->service->ops->start(bench->service, ++bench->run, "0");
	assert_int_equal(bench->started, before);
	bench_wait(bench, &bench->started, before + 1);
}

void bench_start_fails(struct bench *bench, const char *text)
{
	unsigned before = bench->start_failed;
	if (bench->service == NULL)
		bench_create(bench);
	bench->service->ops->start(bench->service, ++bench->run, NULL);
	assert_int_equal(bench->start_failed, before);
	bench_wait(bench, &bench->start_failed, before + 1);
	if (strstr(bench->text, text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, bench->text);
	assert_int_equal(bench->started, 0);
	assert_int_equal(bench->gone, 0);
}

void bench_stop(struct bench *bench, bool force)
{
	unsigned before = bench->gone;
	bench->service->ops->stop(bench->service, force);
	assert_int_equal(bench->gone, before);
	bench_wait(bench, &bench->gone, before + 1);
	assert_int_equal(bench_count_processes(bench), 0);
	assert_false(bench_has_cgroup(bench));
}

void bench_find(struct bench *bench, bool healthy)
{
	unsigned before = bench->found;
	if (bench->service == NULL)
		bench_create(bench);
	bench->service->ops->find(bench->service, healthy);
	assert_int_equal(bench->found, before);
	bench_wait(bench, &bench->found, before + 1);
}

void bench_write_file(const char *path, const char *text, unsigned mode)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
}

char *bench_path(struct bench *bench, const char *name)
{
	char *path;
	assert_true(asprintf(&path, "%s/%s", bench->dir, name) > 0);
	return path;
}

pid_t bench_read_pid(struct bench *bench, const char *name)
{
	char text[64];
	CLEANUP_FREE char *path = bench_path(bench, name);
	bench_wait_file(bench, path);
	assert_true(proc_read_file(path, text, sizeof(text)) > 0);
	return (pid_t)atoi(text);
}

const char *bench_helper(void)
{
	return DRIVER_HELPER;
}

/* Below those that the kernel gives to whoever connects: nobody takes it before its service listens there. */
uint16_t bench_free_port(void)
{
	static unsigned n_taken;
	for (unsigned i = 0; i < N_PORTS; i++) {
		CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		uint16_t port = (uint16_t)(FIRST_PORT + ((unsigned)getpid() + n_taken++) % N_PORTS);
		struct sockaddr_in address = {
			.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
			.sin_port = htons(port),
		};
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return port;
	}
	fail_msg("no free port");
	return 0;
}
