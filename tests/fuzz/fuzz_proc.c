/*
 * What /proc and the cgroup file system say, and the small files that are left for the next daemon: all of it is
 * written by strangers. Input: a kind, then the text; where a kind has two texts a zero stands between them.
 *
 * The functions that are tried open these files themselves, so open(), fopen() and opendir() are taken from them: a
 * process that cannot exist has the text as its file, and nothing else of the machine is seen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/cgroup.h"
#include "driver/container_owners.h"
#include "driver/endpoint.h"
#include "driver/identify.h"
#include "driver/proc.h"
#include "driver/record.h"
#include "fuzz.h"

#define NOBODY 4194305 /* one more than PIDs can be, see proc(5) on pid_max */
#define BOOT "0f6b2a8e-1111-2222-3333-444455556666\n"

static struct {
	const char *name; /* below /proc/PID/, or a whole path */
	const char *text;
	size_t length;
} files[4];

static size_t n_files;

static void add_file(const char *name, const char *text, size_t length)
{
	FUZZ_CHECK(n_files < ARRAY_SIZE(files));
	files[n_files].name = name;
	files[n_files].text = text;
	files[n_files++].length = length;
}

static const char *name_of(const char *path)
{
	char nobody[32], self[32];
	snprintf(nobody, sizeof(nobody), "/proc/%d/", NOBODY);
	snprintf(self, sizeof(self), "/proc/%d/", (int)getpid());
	const char *const prefixes[] = { nobody, self, "/proc/self/" };
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(path, prefixes[i], strlen(prefixes[i])) == 0)
			return path + strlen(prefixes[i]);
	return path;
}

static int open_text(const char *path)
{
	for (size_t i = 0; i < n_files; i++) {
		if (strcmp(files[i].name, name_of(path)) != 0)
			continue;
		int fd = memfd_create("text", MFD_CLOEXEC);
		FUZZ_CHECK(fd >= 0 && write(fd, files[i].text, files[i].length) == (ssize_t)files[i].length);
		lseek(fd, 0, SEEK_SET);
		return fd;
	}
	errno = ENOENT;
	return -1;
}

static bool is_trying;

/* libFuzzer itself opens files, too, and not only between two inputs. */
static bool is_meant(const char *path)
{
	bool is_known = strncmp(path, "/proc/", 6) == 0;
	for (size_t i = 0; i < n_files; i++)
		is_known |= strcmp(files[i].name, path) == 0;
	return is_trying && is_known;
}

int __real_open64(const char *path, int flags, ...);
FILE *__real_fopen64(const char *path, const char *mode);
DIR *__real_opendir(const char *path);
int __wrap_open64(const char *path, int flags, ...);
FILE *__wrap_fopen64(const char *path, const char *mode);
DIR *__wrap_opendir(const char *path);

int __wrap_open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (!is_meant(path))
		return __real_open64(path, flags, mode);
	FUZZ_CHECK((flags & O_ACCMODE) == O_RDONLY && (flags & O_CLOEXEC));
	return open_text(path);
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
	if (!is_meant(path))
		return __real_fopen64(path, mode);
	int fd = open_text(path);
	return fd < 0 ? NULL : fdopen(fd, mode);
}

DIR *__wrap_opendir(const char *path)
{
	if (!is_meant(path))
		return __real_opendir(path);
	errno = ENOENT;
	return NULL;
}

/* ---- of one process ---- */

static void check_stat(const struct proc_stat *stat)
{
	FUZZ_CHECK(stat->pid > 0);
	proc_is_alive(stat);
	FUZZ_CHECK(!proc_is_older(stat, stat));
	proc_started_at(stat);
}

static void try_stat(const char *text, size_t length)
{
	struct proc_stat stat;
	int r = proc_parse_stat(text, &stat);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	if (r == 0)
		check_stat(&stat);
	add_file("stat", text, length);
	if (proc_read_stat(NOBODY, &stat) == 0) {
		check_stat(&stat);
		FUZZ_CHECK((proc_check_still(NOBODY, stat.start_ticks) == 0) == proc_is_alive(&stat));
	}
	FUZZ_CHECK(process_signal_exactly(NOBODY, 1, SIGKILL) < 0);
}

static void try_users(const char *text, size_t length)
{
	uid_t real, effective;
	add_file("status", text, length);
	int r = proc_read_users(NOBODY, &real, &effective);
	FUZZ_CHECK(r == 0 || r == -ESRCH);
}

static void try_arguments(const char *text, size_t length)
{
	char *arguments = NULL;
	size_t n = 0;
	add_file("cmdline", text, length);
	FUZZ_CHECK(proc_read_arguments(NOBODY, &arguments, &n) == 0);
	FUZZ_CHECK(n <= length && memcmp(arguments, text, n) == 0 && arguments[n] == '\0');
	free(arguments);
	add_file("environ", text, length);
	bool has_mark = proc_has_environment(NOBODY, "GPUMGR_MARK=a");
	FUZZ_CHECK(!has_mark || memmem(text, length, "GPUMGR_MARK=a", 13) != NULL);
}

/* ---- cgroups ---- */

static void check_ids(const char *text)
{
	char ids[CONTAINER_IDS_MAX][65];
	size_t n = container_parse_cgroup(text, ids);
	FUZZ_CHECK(n <= CONTAINER_IDS_MAX);
	for (size_t i = 0; i < n; i++) {
		FUZZ_CHECK(strlen(ids[i]) == 64 && strspn(ids[i], "0123456789abcdef") == 64);
		FUZZ_CHECK(strstr(text, ids[i]) != NULL);
		for (size_t j = 0; j < i; j++)
			FUZZ_CHECK(strcmp(ids[i], ids[j]) != 0);
	}
}

static void try_cgroup_text(const char *text, size_t length)
{
	char path[PATH_MAX], small[16];
	int r = proc_parse_cgroup(text, path, sizeof(path));
	FUZZ_CHECK(r == 0 || r == -ENOENT || r == -ENAMETOOLONG);
	FUZZ_CHECK(r < 0 || (strlen(path) < sizeof(path) && strchr(path, '\n') == NULL));
	if (proc_parse_cgroup(text, small, sizeof(small)) == 0)
		FUZZ_CHECK(strlen(small) < sizeof(small));
	check_ids(text);
	add_file("cgroup", text, length);
	bool has = container_has_process("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", NOBODY);
	FUZZ_CHECK(!has || strstr(text, "0123456789abcdef0123456789abcdef") != NULL);
}

static void try_mounts(const char *cgroup, size_t cgroup_length, const char *mounts, size_t length)
{
	struct cgroup *found = NULL;
	add_file("cgroup", cgroup, cgroup_length);
	add_file("mountinfo", mounts, length);
	int r = cgroup_create("test", "comfyui", true, &found);
	FUZZ_CHECK((r == 0) == (found != NULL));
	if (r == 0)
		FUZZ_CHECK(!cgroup_has(found, NOBODY) || strstr(cgroup, "gpumgr-test/comfyui") != NULL);
	cgroup_destroy(found);
	found = NULL;
	r = cgroup_create_of_process("test", "comfyui", true, NOBODY, &found);
	FUZZ_CHECK((r == 0) == (found != NULL));
	cgroup_destroy(found);
}

static void try_events(const char *text, size_t length)
{
	add_file("events", text, length);
	int fd = open_text("events");
	int r = cgroup_read_populated(fd);
	FUZZ_CHECK(r == 0 || r == 1 || r == -EINVAL);
	FUZZ_CHECK(r != 1 || memmem(text, length, "populated 1", 11) != NULL);
	close(fd);
}

/* ---- the network ---- */

static void try_sockets(const char *v4, size_t v4_length, const char *v6, size_t v6_length)
{
	const struct probe_config probe = { .kind = PROBE_TCP, .address = (char[]){ "localhost:8188" } };
	struct endpoint endpoint;
	FUZZ_CHECK(endpoint_of_probe(&probe, &endpoint) == 0 && endpoint.port == 8188);
	add_file("net/tcp", v4, v4_length);
	add_file("net/tcp6", v6, v6_length);
	endpoint_listener(&endpoint);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		uint64_t inode = 0;
		int r = endpoint_match_line(&endpoint, is_v6 ? v6 : v4, is_v6, &inode);
		FUZZ_CHECK(r == -EINVAL || (r >= 0 && r <= 2));
	}
}

static void try_address(const char *text)
{
	char host[64];
	uint16_t port = 0;
	int r = endpoint_split(text, host, sizeof(host), &port);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	if (r < 0)
		return;
	FUZZ_CHECK(port > 0 && host[0] != '\0' && strlen(host) < sizeof(host));
	FUZZ_CHECK(strpbrk(host, "/?#") == NULL);
}

/* ---- files of gpumgr's own and of services ---- */

static void try_record(const char *text, size_t length)
{
	struct record_trace trace = { .session = -1 };
	static const char alive[] = "4194305 (x) S 1 1 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 77 0 0";
	add_file("record", text, length);
	add_file("/proc/sys/kernel/random/boot_id", BOOT, sizeof(BOOT) - 1);
	add_file("stat", alive, sizeof(alive) - 1);
	int r = record_find("record", "MARK=a", &trace);
	FUZZ_CHECK(r == 0 || r == -ESRCH);
	if (r == 0)
		FUZZ_CHECK(trace.stat.pid == NOBODY && trace.stat.start_ticks == 77 && trace.session >= 0);
	bool stopping;
	enum record_match match = record_match_container("record", "12", "34", UINT64_MAX, &stopping);
	FUZZ_CHECK(match != RECORD_OF_OTHERS ? r == -ESRCH : !stopping);
}

static void try_pid_file(const char *text, size_t length)
{
	struct proc_stat stat = { 0 };
	struct error err = { 0 };
	static const char alive[] = "4194305 (x) S 1 1 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0";
	add_file("pid_file", text, length);
	add_file("stat", alive, sizeof(alive) - 1);
	int r = identify_by_pid_file("pid_file", NULL, &stat, &err);
	FUZZ_CHECK(r == 0 ? stat.pid == NOBODY : err.message[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t kind = fuzz_u8(&input);
	size_t length, second_length = 0;
	bool has_two = kind == '4' || kind == '6';
	char *text = has_two ? fuzz_text(&input, '\0', &length) : fuzz_rest(&input, &length);
	char *second = has_two ? fuzz_rest(&input, &second_length) : NULL;
	n_files = 0;
	is_trying = true;
	switch (kind) {
	case '0':
		try_stat(text, length);
		break;
	case '1':
		try_users(text, length);
		break;
	case '2':
		try_arguments(text, length);
		break;
	case '3':
		try_cgroup_text(text, length);
		break;
	case '4':
		try_mounts(text, length, second, second_length);
		break;
	case '5':
		try_events(text, length);
		break;
	case '6':
		try_sockets(text, length, second, second_length);
		break;
	case '7':
		try_address(text);
		break;
	case '8':
		try_record(text, length);
		break;
	case '9':
		try_pid_file(text, length);
		break;
	}
	is_trying = false;
	free(text);
	free(second);
	return 0;
}
