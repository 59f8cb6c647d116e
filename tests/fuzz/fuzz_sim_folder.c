/*
 * The folder of the simulated GPU, where anybody may have left anything. Input: for each file a kind, a name, a
 * newline, the content, a zero; and last what /proc says of a process.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "gpu/sim.c" /* for how it reads /proc */
#include "scratch.h"

#define FILES_MAX 8

static char folder[128];
static struct gpu_backend *backend;

static void begin(void)
{
	static uint32_t sizes[] = { 24576 };
	snprintf(folder, sizeof(folder), "%s/card", scratch_folder());
	const struct gpu_config config = { .sim_dir = folder, .n_sim_gpus = 1, .sim_gpus_mib = sizes };
	struct error err;
	FUZZ_CHECK(sim_backend.open(&config, &backend, &err) == 0);
}

/* The path, or "": no file can have that name. */
static void path_of(const char *name, char *path, size_t size)
{
	bool is_name = name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
		strcmp(name, "..") != 0 && strlen(name) < 200;
	snprintf(path, size, "%s%s%s", is_name ? folder : "", is_name ? "/0/" : "", is_name ? name : "");
}

static void make_file(uint8_t kind, const char *path, const char *content, size_t length)
{
	int fd;
	switch (kind % 4) {
	case 0:
		mkdir(path, 0700);
		break;
	case 1:
		if (symlink("/etc/passwd", path) < 0)
			return;
		break;
	default:
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
		if (fd < 0)
			return;
		FUZZ_CHECK(write(fd, content, length) == (ssize_t)length);
		close(fd);
	}
}

static void make_files(struct fuzz_input *input, char paths[FILES_MAX][512])
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		paths[i][0] = '\0';
		if (fuzz_left(input) == 0)
			continue;
		size_t length;
		uint8_t kind = fuzz_u8(input);
		char *name = fuzz_text(input, '\n', NULL);
		char *content = fuzz_text(input, '\0', &length);
		path_of(name, paths[i], sizeof(paths[i]));
		if (paths[i][0] != '\0')
			make_file(kind, paths[i], content, length);
		free(name);
		free(content);
	}
}

static void check_reading(const struct gpu_reading *reading)
{
	uint64_t used = 0;
	FUZZ_CHECK(reading->n_processes <= FILES_MAX && reading->problem[0] == '\0');
	for (size_t i = 0; i < reading->n_processes; i++) {
		FUZZ_CHECK(reading->processes[i].pid > 0 && reading->processes[i].mib != GPU_MIB_UNKNOWN);
		used += reading->processes[i].mib;
	}
	FUZZ_CHECK(reading->total_mib == 24576 && reading->used_mib != GPU_MIB_UNKNOWN);
	FUZZ_CHECK(reading->used_mib == used || used >= GPU_MIB_UNKNOWN);
	FUZZ_CHECK(reading->free_mib == (used >= 24576 ? 0 : 24576 - used));
}

static void check_stat(const char *text)
{
	char name[16];
	memset(name, 'x', sizeof(name));
	if (parse_stat(text, name, sizeof(name)))
		FUZZ_CHECK(strnlen(name, sizeof(name)) < sizeof(name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gpu_sample sample;
	char paths[FILES_MAX][512];
	struct error err;
	if (backend == NULL)
		begin();
	struct fuzz_input input = fuzz_input(data, size);
	make_files(&input, paths);
	char *stat = fuzz_rest(&input, NULL);
	check_stat(stat);
	free(stat);
	memset(&sample, 0, sizeof(sample));
	FUZZ_CHECK(sim_backend.read(backend, &sample, &err) == 0 && sample.n_gpus == 1);
	check_reading(&sample.gpus[0]);
	free(sample.gpus[0].processes);
	for (size_t i = 0; i < FILES_MAX; i++)
		if (paths[i][0] != '\0')
			remove(paths[i]);
	return 0;
}
