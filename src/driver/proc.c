/*
 * Reading /proc. Every read is bounded and every field is checked; nothing here decides what a process means.
 */
#include "driver/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ARGUMENTS_MAX (64 * 1024)
#define ENVIRONMENT_MAX (256 * 1024)
#define PROCESSES_MAX (1 << 18)

/* A process that vanished shows as either of these, depending on when it did. */
static int vanished(int error)
{
	return error == ENOENT || error == ESRCH || error == ENOTDIR ? -ESRCH : -error;
}

static ssize_t read_fd(int fd, char *buffer, size_t size)
{
	size_t have = 0;
	while (have + 1 < size) {
		ssize_t n = read(fd, buffer + have, size - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return vanished(errno);
		if (n == 0)
			break;
		have += (size_t)n;
	}
	buffer[have] = '\0';
	return (ssize_t)have;
}

ssize_t proc_read_file(const char *path, char *buffer, size_t size)
{
	/* In the place of a file of a service's user there may be a FIFO: then it must not be waited for a writer. */
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return vanished(errno);
	return read_fd(fd, buffer, size);
}

static ssize_t read_of_process(pid_t pid, const char *name, char *buffer, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return proc_read_file(path, buffer, size);
}

int proc_parse_stat(const char *line, struct proc_stat *ret_stat)
{
	struct proc_stat stat = { 0 };
	char *end;
	long pid = strtol(line, &end, 10);
	/* The name stands in parentheses and may itself hold any character: only the last one closes it. */
	const char *closing = strrchr(line, ')');
	if (end == line || pid <= 0 || pid > INT_MAX || *end != ' ' || closing == NULL || closing[1] != ' ')
		return -EINVAL;
	int ppid, pgrp, session;
	if (sscanf(closing + 2, "%c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
		    &stat.state, &ppid, &pgrp, &session, &stat.start_ticks) != 5)
		return -EINVAL;
	stat.pid = (pid_t)pid;
	stat.ppid = ppid;
	stat.pgrp = pgrp;
	stat.session = session;
	*ret_stat = stat;
	return 0;
}

int proc_read_stat(pid_t pid, struct proc_stat *ret_stat)
{
	char line[1024];
	if (pid <= 0)
		return -ESRCH;
	ssize_t n = read_of_process(pid, "stat", line, sizeof(line));
	if (n < 0)
		return (int)n;
	return n == 0 ? -ESRCH : proc_parse_stat(line, ret_stat);
}

bool proc_is_alive(const struct proc_stat *stat)
{
	return stat->state != 'Z' && stat->state != 'X' && stat->state != 'x';
}

bool proc_is_older(const struct proc_stat *a, const struct proc_stat *b)
{
	return a->start_ticks != b->start_ticks ? a->start_ticks < b->start_ticks : a->pid < b->pid;
}

int proc_check_still(pid_t pid, uint64_t start_ticks)
{
	struct proc_stat stat;
	int r = proc_read_stat(pid, &stat);
	if (r < 0)
		return r;
	return stat.start_ticks == start_ticks && proc_is_alive(&stat) ? 0 : -ESRCH;
}

int pid_list_add(struct pid_list *list, pid_t pid)
{
	if (list->n == list->capacity) {
		size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
		pid_t *items = reallocarray(list->items, capacity, sizeof(*items));
		if (items == NULL)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n++] = pid;
	return 0;
}

void pid_list_finish(struct pid_list *list)
{
	free(list->items);
	*list = (struct pid_list){ 0 };
}

static pid_t parse_pid(const char *name)
{
	char *end;
	long pid = strtol(name, &end, 10);
	return *name >= '1' && *name <= '9' && *end == '\0' && pid <= INT_MAX ? (pid_t)pid : 0;
}

static int list_pids(struct pid_list *list)
{
	CLEANUP_CLOSEDIR DIR *dir = opendir("/proc");
	if (dir == NULL)
		return -errno;
	struct dirent *entry;
	while ((entry = readdir(dir)) != NULL && list->n < PROCESSES_MAX) {
		pid_t pid = parse_pid(entry->d_name);
		int r = pid > 0 ? pid_list_add(list, pid) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Not the process is the reason, but what this one may have. */
static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

int proc_list_all(struct proc_list *ret_list)
{
	CLEANUP(pid_list_finish) struct pid_list pids = { 0 };
	int r = list_pids(&pids);
	if (r < 0)
		return r;
	struct proc_list list = { .items = calloc(pids.n + 1, sizeof(*list.items)) };
	if (list.items == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < pids.n && !is_shortage(r); i++) {
		r = proc_read_stat(pids.items[i], &list.items[list.n]);
		list.n += r == 0;
	}
	if (is_shortage(r)) {
		free(list.items);
		return r;
	}
	*ret_list = list;
	return 0;
}

static int add_pids_of_line(char *line, struct pid_list *list)
{
	char *rest = line, *word;
	while ((word = strsep(&rest, " \n")) != NULL) {
		pid_t pid = parse_pid(word);
		int r = pid > 0 ? pid_list_add(list, pid) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where the kernel keeps no list of children, the parents are asked for. */
static int children_by_parent(struct pid_list *list)
{
	struct proc_list all;
	int r = proc_list_all(&all);
	if (r < 0)
		return r;
	for (size_t i = 0; i < all.n && r == 0; i++)
		if (all.items[i].ppid == getpid())
			r = pid_list_add(list, all.items[i].pid);
	free(all.items);
	return r;
}

int proc_list_own_children(struct pid_list *ret_list)
{
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	CLEANUP_FREE char *line = malloc(ENVIRONMENT_MAX);
	CLEANUP_CLOSEDIR DIR *threads = opendir("/proc/self/task");
	if (line == NULL)
		return -ENOMEM;
	struct dirent *entry;
	bool listed = false;
	int r = 0;
	while (threads != NULL && r == 0 && (entry = readdir(threads)) != NULL) {
		char path[64];
		if (parse_pid(entry->d_name) == 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)parse_pid(entry->d_name));
		if (proc_read_file(path, line, ENVIRONMENT_MAX) < 0)
			continue;
		listed = true;
		r = add_pids_of_line(line, &list);
	}
	if (r == 0 && !listed)
		r = children_by_parent(&list);
	if (r < 0)
		return r;
	*ret_list = list;
	list = (struct pid_list){ 0 };
	return 0;
}

int proc_read_users(pid_t pid, uid_t *ret_real, uid_t *ret_effective)
{
	char text[4096];
	ssize_t n = read_of_process(pid, "status", text, sizeof(text));
	if (n < 0)
		return (int)n;
	/* The name comes first and has its newlines escaped, so a line of its own is never of its making. */
	const char *line = strstr(text, "\nUid:");
	unsigned real, effective;
	if (line == NULL || sscanf(line, "\nUid: %u %u", &real, &effective) != 2)
		return -ESRCH;
	*ret_real = real;
	*ret_effective = effective;
	return 0;
}

const char *proc_read_exe(pid_t pid, char *buffer, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	ssize_t n = readlink(path, buffer, size - 1);
	if (n <= 0)
		snprintf(buffer, size, "?");
	else
		buffer[n] = '\0';
	return buffer;
}

int proc_read_arguments(pid_t pid, char **ret_text, size_t *ret_length)
{
	CLEANUP_FREE char *text = malloc(ARGUMENTS_MAX);
	if (text == NULL)
		return -ENOMEM;
	ssize_t n = read_of_process(pid, "cmdline", text, ARGUMENTS_MAX);
	if (n < 0)
		return (int)n;
	*ret_length = (size_t)n;
	*ret_text = TAKE_PTR(text);
	return 0;
}

int proc_parse_cgroup(const char *text, char *buffer, size_t size)
{
	static const char deleted[] = " (deleted)";
	const char *line = text;
	while (line != NULL && strncmp(line, "0::", 3) != 0) {
		line = strchr(line, '\n');
		line = line != NULL ? line + 1 : NULL;
	}
	if (line == NULL)
		return -ENOENT;
	size_t length = strcspn(line + 3, "\n");
	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(buffer, line + 3, length);
	buffer[length] = '\0';
	size_t tail = sizeof(deleted) - 1;
	if (length > tail && strcmp(buffer + length - tail, deleted) == 0)
		buffer[length - tail] = '\0';
	return 0;
}

int proc_read_cgroup(pid_t pid, char *buffer, size_t size)
{
	char text[8192];
	ssize_t n = read_of_process(pid, "cgroup", text, sizeof(text));
	if (n < 0)
		return (int)n;
	return proc_parse_cgroup(text, buffer, size);
}

bool proc_has_environment(pid_t pid, const char *entry)
{
	CLEANUP_FREE char *text = malloc(ENVIRONMENT_MAX);
	if (text == NULL)
		return false;
	ssize_t n = read_of_process(pid, "environ", text, ENVIRONMENT_MAX);
	for (const char *at = text; n > 0 && at < text + n; at += strlen(at) + 1)
		if (strcmp(at, entry) == 0)
			return true;
	return false;
}

static double seconds(clockid_t clock)
{
	struct timespec now = { 0 };
	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double proc_started_at(const struct proc_stat *stat)
{
	double booted = seconds(CLOCK_REALTIME) - seconds(CLOCK_BOOTTIME);
	return booted + (double)stat->start_ticks / (double)sysconf(_SC_CLK_TCK);
}

int process_open(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd >= 0 ? fd : vanished(errno);
}

int process_signal(int pidfd, int signal)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 ? 0 : -errno;
}

int process_signal_exactly(pid_t pid, uint64_t start_ticks, int signal)
{
	CLEANUP_CLOSE int fd = process_open(pid);
	if (fd < 0)
		return fd;
	int r = proc_check_still(pid, start_ticks);
	if (r < 0)
		return r;
	return process_signal(fd, signal);
}
