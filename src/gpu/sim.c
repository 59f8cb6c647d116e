/*
 * The simulated GPU: DIR/<i>/<pid> holds, in decimal, the MiB that process <pid> has taken on GPU i. Made for tests and
 * demonstrations on machines without a GPU. It trusts nothing that it finds in the folder, follows no symbolic link
 * there, and must never report memory as free because it could not look.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "gpu/backend.h"
#include "gpu/decimal.h"

/* One getdents64() call sees the folder at one instant; this holds about two thousand names. */
#define LISTING_SIZE 65536
#define PASSES_MAX 4

struct sim {
	struct gpu_backend base;
	char *dir;
	unsigned n_gpus;
	uint32_t total_mib[GPU_MAX];
	_Alignas(struct dirent64) char listing[LISTING_SIZE];
};

enum folder_outcome {
	FOLDER_CHANGED = 1, /* a listed file was gone when it was opened: it may go on under another name */
};

static struct sim *sim_free(struct sim *sim)
{
	if (sim == NULL)
		return NULL;
	free(sim->dir);
	free(sim);
	return NULL;
}

static void cleanup_sim(struct sim **sim)
{
	sim_free(*sim);
}

static void sim_close(struct gpu_backend *backend)
{
	sim_free((struct sim *)backend);
}

/* "PID (comm) S ...": comm may hold any byte, also parentheses. */
static bool parse_stat(const char *text, char *name, size_t name_size)
{
	const char *open = strchr(text, '(');
	const char *close = strrchr(text, ')');
	if (open == NULL || close == NULL || close < open || close[1] != ' ')
		return false;
	size_t length = (size_t)(close - open - 1);
	if (length >= name_size)
		length = name_size - 1;
	memcpy(name, open + 1, length);
	name[length] = '\0';
	char state = close[2];
	return state != 'Z' && state != 'X' && state != 'x';
}

/* Whether the process exists and is no zombie; its name, as /proc/PID/comm has it. */
static bool is_living(pid_t pid, char *name, size_t name_size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	name[0] = '\0';
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) /* where other users' processes are hidden, kill(2) still tells */
		return kill(pid, 0) == 0 || errno == EPERM;
	char text[1024];
	ssize_t n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return parse_stat(text, name, name_size);
}

/* The amount in an open file; false where it is anything but one decimal number, perhaps with a newline. */
static bool read_amount(int fd, uint32_t *ret_mib)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	if (n <= 0)
		return false;
	if (text[n - 1] == '\n')
		n--;
	uint64_t value;
	if (!decimal_parse(text, (size_t)n, GPU_MIB_UNKNOWN - 1, &value))
		return false;
	*ret_mib = (uint32_t)value;
	return true;
}

static int add_process(struct gpu_reading *reading, const struct gpu_process *process)
{
	size_t n = reading->n_processes;
	if ((n & (n - 1)) == 0) { /* grows at powers of two */
		struct gpu_process *grown = realloc(reading->processes, (n == 0 ? 1 : 2 * n) * sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		reading->processes = grown;
	}
	reading->processes[reading->n_processes++] = *process;
	return 0;
}

/*
 * Looks at the process before it opens the file: a file that its owner handed on by rename and that is therefore gone
 * is then always noticed, and never taken for one whose process has ended.
 */
static int read_entry(int folder, const char *name, struct gpu_reading *reading)
{
	uint64_t pid;
	if (!decimal_parse(name, strlen(name), INT32_MAX, &pid) || pid == 0)
		return 0;
	struct gpu_process process = { .pid = (pid_t)pid };
	bool lives = is_living(process.pid, process.name, sizeof(process.name));
	CLEANUP_CLOSE int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return FOLDER_CHANGED;
	if (!lives || (fd < 0 && (errno == ELOOP || errno == ENXIO))) /* a symbolic link, a socket */
		return 0;
	if (fd < 0)
		return -errno;
	if (!read_amount(fd, &process.mib))
		return 0;
	return add_process(reading, &process);
}

static int read_listing(struct sim *sim, int folder, size_t length, struct gpu_reading *reading)
{
	for (size_t at = 0; at < length;) {
		const struct dirent64 *entry = (const struct dirent64 *)(sim->listing + at);
		at += entry->d_reclen;
		if (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN)
			continue;
		int r = read_entry(folder, entry->d_name, reading);
		if (r != 0)
			return r;
	}
	return 0;
}

static int read_folder(struct sim *sim, int dir, unsigned index, struct gpu_reading *reading)
{
	char name[16];
	snprintf(name, sizeof(name), "%u", index);
	CLEANUP_CLOSE int folder = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		return -errno;
	reading->n_processes = 0;
	free(reading->processes);
	reading->processes = NULL;
	for (;;) {
		ssize_t n = getdents64(folder, sim->listing, sizeof(sim->listing));
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = read_listing(sim, folder, (size_t)n, reading);
		if (r != 0)
			return r;
	}
}

static void add_up(struct gpu_reading *reading, uint32_t total_mib)
{
	uint64_t used = 0;
	for (size_t i = 0; i < reading->n_processes; i++)
		used += reading->processes[i].mib;
	reading->total_mib = total_mib;
	reading->used_mib = used < GPU_MIB_UNKNOWN ? (uint32_t)used : GPU_MIB_UNKNOWN - 1;
	reading->free_mib = reading->used_mib < total_mib ? total_mib - reading->used_mib : 0;
	reading->valid = GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_PROCESSES;
}

static void read_gpu(struct sim *sim, int dir, unsigned index, struct gpu_reading *reading)
{
	snprintf(reading->uuid, sizeof(reading->uuid), "GPU-sim-%u", index);
	snprintf(reading->name, sizeof(reading->name), "Simulated GPU");
	int r = FOLDER_CHANGED;
	for (int pass = 0; pass < PASSES_MAX && r == FOLDER_CHANGED; pass++)
		r = dir < 0 ? dir : read_folder(sim, dir, index, reading);
	if (r != 0) {
		reading->n_processes = 0;
		snprintf(reading->problem, sizeof(reading->problem), "cannot read %.80s/%u: %s", sim->dir, index,
			r < 0 ? strerror(-r) : "its files keep changing");
		return;
	}
	add_up(reading, sim->total_mib[index]);
}

/* DIR is opened again for each reading, so that one that was removed and made again is found. */
static int sim_read(struct gpu_backend *backend, struct gpu_sample *sample, struct error *err)
{
	(void)err;
	struct sim *sim = (struct sim *)backend;
	CLEANUP_CLOSE int dir = open(sim->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int dir_or_error = dir < 0 ? -errno : dir;
	sample->n_gpus = sim->n_gpus;
	for (unsigned i = 0; i < sim->n_gpus; i++)
		read_gpu(sim, dir_or_error, i, &sample->gpus[i]);
	return 0;
}

/* Services may run as other users, so a folder that is made here is everybody's, like /tmp. */
static int make_folder(int at, const char *path)
{
	if (mkdirat(at, path, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fchmodat(at, path, 01777, 0) < 0 ? -errno : 0;
}

static int write_whole(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, text, length);
		if (n < 0)
			return -errno;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

/* DIR/sizes, one decimal MiB a line: by it stand-in services know how large the card is. */
static int write_sizes(const struct sim *sim, int dir)
{
	char text[GPU_MAX * 12];
	size_t length = 0;
	for (unsigned i = 0; i < sim->n_gpus; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%u\n", sim->total_mib[i]);
	char temporary[32];
	snprintf(temporary, sizeof(temporary), ".sizes.%d", getpid());
	unlinkat(dir, temporary, 0);
	CLEANUP_CLOSE int fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	int r = fchmod(fd, 0644) < 0 ? -errno : write_whole(fd, text, length);
	if (r == 0 && renameat(dir, temporary, dir, "sizes") < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir, temporary, 0);
	return r;
}

static int prepare_folders(const struct sim *sim, struct error *err)
{
	int r = make_folder(AT_FDCWD, sim->dir);
	CLEANUP_CLOSE int dir = r < 0 ? -1 : open(sim->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && dir < 0)
		r = -errno;
	for (unsigned i = 0; i < sim->n_gpus && r == 0; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%u", i);
		r = make_folder(dir, name);
	}
	if (r == 0)
		r = write_sizes(sim, dir);
	if (r < 0)
		return error_set(err, r,
			"gpu: cannot prepare the simulated GPU in %s: %s; let gpu.sim.dir name a folder that gpumgrd "
			"may write",
			sim->dir, strerror(-r));
	return 0;
}

static int sim_open(const struct gpu_config *config, struct gpu_backend **ret_backend, struct error *err)
{
	if (config->sim_dir == NULL || config->n_sim_gpus == 0 || config->n_sim_gpus > GPU_MAX)
		return error_set(err, -EINVAL,
			"gpu: the simulated GPU needs gpu.sim.dir and, in gpu.sim.gpus, between 1 and %d sizes",
			GPU_MAX);
	CLEANUP(cleanup_sim) struct sim *sim = calloc(1, sizeof(*sim));
	if (sim == NULL)
		return error_set(err, -ENOMEM, "gpu: out of memory");
	sim->base.ops = &sim_backend;
	sim->dir = strdup(config->sim_dir);
	if (sim->dir == NULL)
		return error_set(err, -ENOMEM, "gpu: out of memory");
	sim->n_gpus = (unsigned)config->n_sim_gpus;
	for (unsigned i = 0; i < sim->n_gpus; i++)
		sim->total_mib[i] = config->sim_gpus_mib[i];
	int r = prepare_folders(sim, err);
	if (r < 0)
		return r;
	*ret_backend = &TAKE_PTR(sim)->base;
	return 0;
}

const struct gpu_backend_ops sim_backend = {
	.name = "sim",
	.open = sim_open,
	.read = sim_read,
	.close = sim_close,
};
