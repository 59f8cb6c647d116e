/*
 * Taking and giving back VRAM in the folder of the simulated GPU. Whoever changes a GPU's files holds its lock file; a
 * file appears and changes by rename only, so that readers without the lock always see whole amounts.
 */
#include "simsvc/vram.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define LOCK_TRIES 5000 /* of 2 ms */

/* Opens what is there first: a folder that is everybody's forbids O_CREAT on another user's file. */
static int open_lock(int folder)
{
	for (;;) {
		int fd = openat(folder, ".lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 || errno != ENOENT)
			return fd >= 0 ? fd : -errno;
		fd = openat(folder, ".lock", O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd >= 0 || errno != EEXIST)
			return fd >= 0 ? fd : -errno;
	}
}

/* The lock is held until the descriptor is closed. */
static int lock_folder(int folder)
{
	CLEANUP_CLOSE int fd = open_lock(folder);
	if (fd < 0)
		return fd;
	const struct timespec pause = { .tv_nsec = 2000000 };
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return TAKE_FD(fd);
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return -ETIMEDOUT;
}

static bool is_living(pid_t pid)
{
	char path[64], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kill(pid, 0) == 0 || errno == EPERM;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	const char *state = strrchr(text, ')');
	return state != NULL && state[1] == ' ' && strchr("ZXx", state[2]) == NULL;
}

/* Digits only, as file names and amounts are written; false for anything else. */
static bool parse_digits(const char *text, size_t length, uint64_t *ret_number)
{
	if (length == 0 || length > 10 || (text[0] == '0' && length > 1))
		return false;
	*ret_number = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*ret_number = *ret_number * 10 + (uint64_t)(text[i] - '0');
	}
	return true;
}

/* The amount in a file; 0 for a file that holds none. */
static uint64_t read_amount(int folder, const char *name)
{
	CLEANUP_CLOSE int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char text[32];
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	ssize_t n = read(fd, text, sizeof(text));
	if (n > 0 && text[n - 1] == '\n')
		n--;
	uint64_t mib;
	return n > 0 && parse_digits(text, (size_t)n, &mib) ? mib : 0;
}

/* What living processes hold, but for this one. Files of ended ones are cleared away on the way. */
static int sum_of_others(int folder, uint64_t *ret_mib)
{
	int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = again < 0 ? NULL : fdopendir(again);
	if (listing == NULL) {
		int r = -errno;
		if (again >= 0)
			close(again);
		return r;
	}
	*ret_mib = 0;
	for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
		uint64_t pid;
		if (!parse_digits(entry->d_name, strlen(entry->d_name), &pid) || pid == 0 || pid > INT32_MAX ||
			(pid_t)pid == getpid())
			continue;
		if (is_living((pid_t)pid))
			*ret_mib += read_amount(folder, entry->d_name);
		else
			unlinkat(folder, entry->d_name, 0);
	}
	closedir(listing);
	return 0;
}

/* Line `gpu` of DIR/sizes. */
static int read_total(const char *dir, unsigned gpu, uint64_t *ret_mib)
{
	char path[4096], line[64];
	snprintf(path, sizeof(path), "%s/sizes", dir);
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	if (file == NULL)
		return -errno;
	for (unsigned i = 0; fgets(line, sizeof(line), file) != NULL; i++)
		if (i == gpu)
			return parse_digits(line, strcspn(line, "\n"), ret_mib) ? 0 : -EBADMSG;
	return -ENODEV;
}

static int write_amount(int folder, pid_t pid, uint64_t mib)
{
	char name[32], temporary[32], text[32];
	snprintf(name, sizeof(name), "%d", pid);
	snprintf(temporary, sizeof(temporary), ".%d", getpid());
	int length = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)mib);
	unlinkat(folder, temporary, 0);
	CLEANUP_CLOSE int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	int r = write(fd, text, (size_t)length) == length ? 0 : -EIO;
	if (r == 0 && renameat(folder, temporary, folder, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(folder, temporary, 0);
	return r;
}

static int remove_amount(int folder)
{
	char name[32];
	snprintf(name, sizeof(name), "%d", getpid());
	return unlinkat(folder, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* A GPU's folder and its lock, both closed by the caller. */
static int open_gpu(const struct vram *vram, unsigned gpu, int *ret_folder, int *ret_lock, struct error *err)
{
	char path[4096];
	if (vram->dir == NULL)
		return error_set(err, -ENODEV, "there is no simulated GPU: set GPUMGR_SIM_DIR, or say --sim-dir");
	snprintf(path, sizeof(path), "%s/%u", vram->dir, gpu);
	CLEANUP_CLOSE int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return error_set(err, -errno, "GPU %u: %s: %s; is a gpumgrd with gpu.backend: sim running?", gpu, path,
			strerror(errno));
	int lock = lock_folder(folder);
	if (lock < 0)
		return error_set(err, lock, "GPU %u: cannot lock %s/.lock: %s", gpu, path, strerror(-lock));
	*ret_folder = TAKE_FD(folder);
	*ret_lock = lock;
	return 0;
}

static int take_on(const struct vram *vram, unsigned gpu, uint64_t mib, struct error *err)
{
	CLEANUP_CLOSE int folder = -1;
	CLEANUP_CLOSE int lock = -1;
	uint64_t total = 0, others = 0;
	int r = open_gpu(vram, gpu, &folder, &lock, err);
	if (r < 0)
		return r;
	r = read_total(vram->dir, gpu, &total);
	if (r < 0)
		return error_set(err, r, "GPU %u: no size in %s/sizes: %s", gpu, vram->dir, strerror(-r));
	r = sum_of_others(folder, &others);
	if (r < 0)
		return error_set(err, r, "GPU %u: cannot read %s/%u: %s", gpu, vram->dir, gpu, strerror(-r));
	uint64_t used = others + vram->taken_mib;
	if (used + mib > total)
		return error_set(err, -ENOMEM,
			"CUDA out of memory. Tried to allocate %llu MiB (GPU %u; %llu MiB total; %llu MiB free)",
			(unsigned long long)mib, gpu, (unsigned long long)total,
			(unsigned long long)(used < total ? total - used : 0));
	r = write_amount(folder, getpid(), vram->taken_mib + mib);
	if (r < 0)
		return error_set(err, r, "GPU %u: cannot write in %s/%u: %s", gpu, vram->dir, gpu, strerror(-r));
	return 0;
}

/* Back to what was held before. */
static void undo(const struct vram *vram, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		CLEANUP_CLOSE int folder = -1;
		CLEANUP_CLOSE int lock = -1;
		if (open_gpu(vram, vram->gpus[i], &folder, &lock, NULL) < 0)
			continue;
		if (vram->taken_mib > 0)
			write_amount(folder, getpid(), vram->taken_mib);
		else
			remove_amount(folder);
	}
}

int vram_take(struct vram *vram, uint64_t mib, struct error *err)
{
	if (mib == 0)
		return 0;
	if (vram->n_gpus == 0)
		return error_set(err, -ENODEV, "no CUDA-capable device is detected (CUDA_VISIBLE_DEVICES names none)");
	for (unsigned i = 0; i < vram->n_gpus; i++) {
		int r = take_on(vram, vram->gpus[i], mib, err);
		if (r < 0) {
			undo(vram, i);
			return r;
		}
	}
	vram->taken_mib += mib;
	return 0;
}

/* No reader ever sees the memory as free: by rename, or added to what the heir holds before it is taken away here. */
static int hand_over(int folder, pid_t heir)
{
	char own[32], other[32];
	snprintf(own, sizeof(own), "%d", getpid());
	snprintf(other, sizeof(other), "%d", heir);
	uint64_t held = read_amount(folder, other);
	if (held == 0)
		return renameat(folder, own, folder, other) < 0 ? -errno : 0;
	int r = write_amount(folder, heir, held + read_amount(folder, own));
	return r < 0 ? r : remove_amount(folder);
}

int vram_give_back(struct vram *vram, pid_t heir, struct error *err)
{
	int result = 0;
	for (unsigned i = 0; vram->taken_mib > 0 && i < vram->n_gpus; i++) {
		CLEANUP_CLOSE int folder = -1;
		CLEANUP_CLOSE int lock = -1;
		int r = open_gpu(vram, vram->gpus[i], &folder, &lock, err);
		if (r == 0) {
			r = heir != 0 ? hand_over(folder, heir) : remove_amount(folder);
			if (r < 0)
				error_set(
					err, r, "GPU %u: cannot give the memory back: %s", vram->gpus[i], strerror(-r));
		}
		if (r < 0)
			result = r;
	}
	vram->taken_mib = 0;
	return result;
}
