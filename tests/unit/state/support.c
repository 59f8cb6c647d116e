/* A folder, a loop, and leases whose every field follows from a number. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

#define VARIANTS 7

uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static void handle_alive(uv_timer_t *timer)
{
	(void)timer;
}

static int begin_loop(struct bench *bench)
{
	int r = uv_loop_init(&bench->loop);
	if (r < 0)
		return r;
	uv_timer_init(&bench->loop, &bench->alive);
	return uv_timer_start(&bench->alive, handle_alive, 1000000, 1000000);
}

static int begin_in(void **state, const char *parent)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	uv_loop_t first;
	/* libuv keeps a pipe of its own from the first loop on. */
	uv_loop_init(&first);
	uv_loop_close(&first);
	snprintf(bench->folder, sizeof(bench->folder), "%s/gpumgr-state-XXXXXX", parent);
	if (mkdtemp(bench->folder) == NULL)
		return -1;
	snprintf(bench->path, sizeof(bench->path), "%s/state.db", bench->folder);
	bench->n_fds = count_fds();
	*state = bench;
	return begin_loop(bench);
}

int bench_begin(void **state)
{
	return begin_in(state, "/tmp");
}

int bench_begin_in_memory(void **state)
{
	return begin_in(state, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)type;
	(void)place;
	remove(path);
	return 0;
}

void remove_folder(const char *path)
{
	nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int bench_end(void **state)
{
	struct bench *bench = *state;
	bench_close(bench);
	uv_close((uv_handle_t *)&bench->alive, NULL);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&bench->loop);
	remove_folder(bench->folder);
	free(bench->moved);
	if (count_fds() != bench->n_fds) {
		print_error("descriptors are left: %d before, %d now\n", bench->n_fds, count_fds());
		r = -1;
	}
	free(bench);
	return r;
}

int bench_try_open(struct bench *bench, uint64_t fence_floor, struct error *err)
{
	free(bench->moved);
	bench->moved = NULL;
	return state_open(&bench->loop, bench->path, fence_floor, &bench->state, &bench->moved, err);
}

void bench_open(struct bench *bench, uint64_t fence_floor)
{
	struct error error = { 0 };
	if (bench_try_open(bench, fence_floor, &error) != 0)
		fail_msg("%s", error.message);
}

void bench_close(struct bench *bench)
{
	bench->state = state_close(bench->state);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
}

/* The loop gets its turns, too, when the machine was elsewhere all that time. */
void run_for(struct bench *bench, uint64_t ms)
{
	uint64_t end = now_us() + ms * 1000, n_turns = 0;
	do {
		uv_run(&bench->loop, UV_RUN_NOWAIT);
		uv_sleep(1);
	} while (now_us() < end || ++n_turns < ms / 2);
}

uint64_t reserve(struct bench *bench, uint64_t count)
{
	struct error error = { 0 };
	uint64_t first = 0;
	if (state_reserve_fences(bench->state, count, &first, &error) != 0)
		fail_msg("%s", error.message);
	return first;
}

static const char *const several[] = { "comfyui", "cosyvoice", "vidi_2", "a", "b-c" };

void fill_lease(struct state_lease *lease, uint64_t fence, unsigned variant)
{
	static const char *const owners[VARIANTS] = { "uid 1000 pid 4711 (python3)", "", "10.0.0.7",
		"J\xc3\xbcrgen's worker; DROP TABLE leases;--", "'\"\\", "a b", "%s%n" };
	static const char *const ids[VARIANTS] = { "worker-17", "", "x", "''", "request id", "?1", "~" };
	variant %= VARIANTS;
	*lease = (struct state_lease){
		.fence = fence,
		.mode = (enum lease_mode)(variant % 3),
		.n_services = variant % (ARRAY_SIZE(several) + 1),
		.services = several,
		.phase = variant % 2 == 0 ? 0 : (int)(variant * 300000000),
		.gpus = variant == 2   ? UINT64_MAX
			: variant == 3 ? UINT64_C(1) << 63
				       : variant,
		.room_mib = variant == 4 ? UINT32_MAX : variant * 1000,
		.room_base_mib = variant == 4 ? GPU_MIB_UNKNOWN : variant * 100,
		.priority = variant == 5 ? INT32_MIN
			: variant == 6   ? INT32_MAX
					 : (int)variant * 10,
		.attached = variant % 2 == 1,
		.ttl_ms = variant == 1 ? 0 : variant * 1000,
		.boot = variant % 3 == 1 ? 0 : UINT64_MAX - variant,
		.granted_ms = variant == 4 ? INT64_MIN : 1700000000000 + variant,
		.expires_ms = variant % 2 == 1 ? INT64_MAX : 1700000600000 + variant,
		.owner = owners[variant],
		.request_id = ids[variant],
		.secret = variant % 2 == 1 ? "0123456789abcdef0123456789abcdef" : "",
	};
}

void put(struct bench *bench, uint64_t fence, unsigned variant)
{
	struct state_lease lease;
	struct error error = { 0 };
	fill_lease(&lease, fence, variant);
	if (state_put_lease(bench->state, &lease, &error) != 0)
		fail_msg("%s", error.message);
}

static bool is_same(const struct state_lease *a, const struct state_lease *b)
{
	if (a->n_services != b->n_services)
		return false;
	for (size_t i = 0; i < a->n_services; i++)
		if (strcmp(a->services[i], b->services[i]) != 0)
			return false;
	return a->mode == b->mode && a->phase == b->phase && a->gpus == b->gpus && a->room_mib == b->room_mib &&
		a->room_base_mib == b->room_base_mib && a->priority == b->priority && a->attached == b->attached &&
		a->ttl_ms == b->ttl_ms && a->granted_ms == b->granted_ms && a->boot == b->boot &&
		a->expires_ms == b->expires_ms && strcmp(a->owner, b->owner) == 0 &&
		strcmp(a->request_id, b->request_id) == 0 && strcmp(a->secret, b->secret) == 0;
}

struct reading {
	uint64_t *fences;
	size_t n, max;
	uint64_t wanted;
	int variant;
};

static void take_lease(void *context, const struct state_lease *lease)
{
	struct reading *reading = context;
	struct state_lease expected;
	unsigned variant = 0;
	for (; variant < VARIANTS; variant++) {
		fill_lease(&expected, lease->fence, variant);
		if (is_same(lease, &expected))
			break;
	}
	if (variant == VARIANTS)
		fail_msg("lease %llu is none that was put (owner \"%s\")", (unsigned long long)lease->fence,
			lease->owner);
	if (reading->n < reading->max)
		reading->fences[reading->n] = lease->fence;
	reading->n++;
	if (lease->fence == reading->wanted)
		reading->variant = (int)variant;
}

size_t read_fences(struct bench *bench, uint64_t *fences, size_t max)
{
	struct reading reading = { .fences = fences, .max = max };
	struct error error = { 0 };
	if (state_each_lease(bench->state, take_lease, &reading, &error) != 0)
		fail_msg("%s", error.message);
	return reading.n;
}

int read_variant(struct bench *bench, uint64_t fence)
{
	struct reading reading = { .wanted = fence, .variant = -1 };
	assert_int_equal(state_each_lease(bench->state, take_lease, &reading, NULL), 0);
	return reading.variant;
}

bool file_exists(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0;
}

void write_file(const char *path, const void *data, size_t size)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
}

char *read_file(const char *path, size_t *ret_size)
{
	struct stat status;
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	char *data = calloc(1, (size_t)status.st_size + 1);
	*ret_size = (size_t)status.st_size;
	assert_int_equal(read(fd, data, *ret_size), *ret_size);
	return data;
}

char *beside(const struct bench *bench, const char *suffix, char *buffer, size_t size)
{
	snprintf(buffer, size, "%s%s", bench->path, suffix);
	return buffer;
}

void run_and_kill(struct bench *bench, void (*act)(struct bench *bench))
{
	int status;
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct error error = { 0 };
		if (begin_loop(bench) < 0 || bench_try_open(bench, 0, &error) != 0) {
			fprintf(stderr, "%s\n", error.message);
			_exit(1);
		}
		act(bench);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

char *run_and_listen(struct bench *bench, void (*act)(struct bench *bench))
{
	const size_t most = 65536;
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	CLEANUP_CLOSE int read_end = ends[0], saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	act(bench);
	dup2(saved, STDERR_FILENO);
	char *text = calloc(1, most);
	ssize_t n = read(read_end, text, most - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}
