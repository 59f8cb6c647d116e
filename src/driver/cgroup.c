/*
 * cgroup v2 folders of services. Must not touch anything outside gpumgr-INSTANCE, and signals a process only after it
 * made sure, with a descriptor of it in hand, that it is in the folder.
 */
#include "driver/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DEPTH_MAX 16 /* of folders that a service makes below its own */
#define KILL_PASSES 256

struct cgroup {
	char *parent; /* MOUNT/.../gpumgr-INSTANCE */
	char *folder; /* PARENT/SERVICE */
	char *path; /* as /proc/PID/cgroup shows it */
	bool use_kill_file;
};

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static bool is_escape(const char *text)
{
	return text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
		text[3] >= '0' && text[3] <= '7';
}

static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from != '\0'; to++) {
		if (is_escape(from)) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* "ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS ... - TYPE SOURCE SUPER": root and mount point of a cgroup2. */
static bool parse_mount(char *line, char **ret_root, char **ret_mount)
{
	char *fields[5];
	char *type = strstr(line, " - ");
	if (type == NULL || strncmp(type + 3, "cgroup2 ", 8) != 0)
		return false;
	char *rest = line;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		fields[i] = strsep(&rest, " ");
		if (fields[i] == NULL || rest == NULL)
			return false;
	}
	unescape(fields[3]);
	unescape(fields[4]);
	*ret_root = fields[3];
	*ret_mount = fields[4];
	return true;
}

/* `path` as seen from a mount whose root is `root`: what is left of it below, or NULL when it is not below. */
static const char *below(const char *root, const char *path)
{
	size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0'))
		return NULL;
	return strcmp(path + length, "/") == 0 ? "" : path + length;
}

/* The folder of a cgroup path, through the first mount that shows it. The caller frees it. */
static char *folder_of(const char *path)
{
	CLEANUP_FCLOSE FILE *mounts = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	size_t capacity = 0;
	/* Outside our namespace: the mounts cannot show it. */
	if (mounts == NULL || strstr(path, "/..") != NULL)
		return NULL;
	while (getline(&line, &capacity, mounts) > 0) {
		char *root, *mount, *folder;
		if (!parse_mount(line, &root, &mount) || below(root, path) == NULL)
			continue;
		return asprintf(&folder, "%s%s", mount, below(root, path)) >= 0 ? folder : NULL;
	}
	return NULL;
}

/* `path` is that of the cgroup above gpumgr-INSTANCE, "" for the root of the hierarchy. */
static int create_below(
	const char *path, const char *instance, const char *service, bool use_kill_file, struct cgroup **ret_cgroup)
{
	CLEANUP_FREE char *top = folder_of(*path != '\0' ? path : "/");
	if (top == NULL)
		return -ENOTSUP;
	struct cgroup *cgroup = calloc(1, sizeof(*cgroup));
	if (cgroup == NULL)
		return -ENOMEM;
	cgroup->use_kill_file = use_kill_file;
	if (asprintf(&cgroup->parent, "%s/gpumgr-%s", top, instance) < 0)
		cgroup->parent = NULL;
	if (asprintf(&cgroup->folder, "%s/gpumgr-%s/%s", top, instance, service) < 0)
		cgroup->folder = NULL;
	if (asprintf(&cgroup->path, "%s/gpumgr-%s/%s", path, instance, service) < 0)
		cgroup->path = NULL;
	if (cgroup->parent == NULL || cgroup->folder == NULL || cgroup->path == NULL) {
		cgroup_destroy(cgroup);
		return -ENOMEM;
	}
	*ret_cgroup = cgroup;
	return 0;
}

int cgroup_create(const char *instance, const char *service, bool use_kill_file, struct cgroup **ret_cgroup)
{
	char path[PATH_MAX];
	int r = proc_read_cgroup(getpid(), path, sizeof(path));
	if (r < 0)
		return r == -ENOMEM ? r : -ENOTSUP;
	return create_below(strcmp(path, "/") == 0 ? "" : path, instance, service, use_kill_file, ret_cgroup);
}

int cgroup_create_of_process(
	const char *instance, const char *service, bool use_kill_file, pid_t pid, struct cgroup **ret_cgroup)
{
	char path[PATH_MAX];
	CLEANUP_FREE char *ending = NULL;
	int r = proc_read_cgroup(pid, path, sizeof(path));
	if (r < 0)
		return r;
	if (asprintf(&ending, "/gpumgr-%s/%s", instance, service) < 0) {
		ending = NULL;
		return -ENOMEM;
	}
	size_t length = strlen(path), tail = strlen(ending);
	if (length < tail || strcmp(path + length - tail, ending) != 0)
		return -ENOENT;
	path[length - tail] = '\0';
	return create_below(path, instance, service, use_kill_file, ret_cgroup);
}

struct cgroup *cgroup_destroy(struct cgroup *cgroup)
{
	if (cgroup == NULL)
		return NULL;
	free(cgroup->parent);
	free(cgroup->folder);
	free(cgroup->path);
	free(cgroup);
	return NULL;
}

int cgroup_make(struct cgroup *cgroup)
{
	if (mkdir(cgroup->parent, 0755) < 0 && errno != EEXIST)
		return -errno;
	if (mkdir(cgroup->folder, 0755) < 0 && errno != EEXIST) {
		int r = -errno;
		rmdir(cgroup->parent);
		return r;
	}
	/* A folder that is there but may not be joined is of no use. */
	CLEANUP_CLOSE int fd = cgroup_open_procs(cgroup);
	return fd < 0 ? fd : 0;
}

static int open_in(const struct cgroup *cgroup, const char *name, int flags)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s%s", cgroup->folder, name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	int fd = open(path, flags | O_CLOEXEC);
	return fd >= 0 ? fd : -errno;
}

int cgroup_open_folder(const struct cgroup *cgroup)
{
	return open_in(cgroup, "", O_RDONLY | O_DIRECTORY);
}

int cgroup_open_procs(const struct cgroup *cgroup)
{
	return open_in(cgroup, "/cgroup.procs", O_WRONLY);
}

int cgroup_open_events(const struct cgroup *cgroup)
{
	return open_in(cgroup, "/cgroup.events", O_RDONLY);
}

int cgroup_read_populated(int events_fd)
{
	char text[256];
	ssize_t n = pread(events_fd, text, sizeof(text) - 1, 0);
	if (n < 0)
		return errno == ENODEV ? 0 : -errno;
	text[n] = '\0';
	const char *at = strstr(text, "populated ");
	return at == NULL ? -EINVAL : at[10] == '1';
}

int cgroup_populated(const struct cgroup *cgroup)
{
	CLEANUP_CLOSE int fd = cgroup_open_events(cgroup);
	if (fd == -ENOENT)
		return 0;
	return fd < 0 ? fd : cgroup_read_populated(fd);
}

/* It was removed meanwhile. Everything else hides who is in there. */
static int not_gone(int error)
{
	return error == ENOENT || error == ENODEV ? 0 : -error;
}

/* Calls `visit` for each cgroup below (deepest first) and for the one itself. Takes `fd`. */
static int walk(int fd, unsigned depth, int (*visit)(int fd, const char *child, void *context), void *context)
{
	CLEANUP_CLOSEDIR DIR *dir = fdopendir(fd);
	if (dir == NULL) {
		int r = -errno;
		close(fd);
		return r;
	}
	struct dirent *entry;
	int r = 0;
	while (r == 0 && depth < DEPTH_MAX && (entry = readdir(dir)) != NULL) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		int child = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = child < 0 ? not_gone(errno) : walk(child, depth + 1, visit, context);
		if (r == 0 && child >= 0)
			r = visit(dirfd(dir), entry->d_name, context);
	}
	return r;
}

static int list_one(int fd, const char *child, void *context)
{
	char name[NAME_MAX + 32];
	CLEANUP_FREE char *line = NULL;
	size_t capacity = 0;
	snprintf(name, sizeof(name), "%s/cgroup.procs", child);
	CLEANUP_CLOSE int procs = openat(fd, name, O_RDONLY | O_CLOEXEC);
	if (procs < 0)
		return not_gone(errno);
	CLEANUP_FCLOSE FILE *file = fdopen(procs, "r");
	if (file == NULL)
		return -errno;
	TAKE_FD(procs);
	int r = 0;
	/* 0 stands for processes of another PID namespace, which cannot be named. */
	while (r == 0 && getline(&line, &capacity, file) > 0)
		r = atoi(line) > 0 ? pid_list_add(context, atoi(line)) : 0;
	return r;
}

static int remove_one(int fd, const char *child, void *context)
{
	(void)context;
	unlinkat(fd, child, AT_REMOVEDIR);
	return 0;
}

/* Who cannot be looked at may live. */
static void keep_alive(struct pid_list *list)
{
	size_t n = 0;
	for (size_t i = 0; i < list->n; i++) {
		struct proc_stat stat;
		int r = proc_read_stat(list->items[i], &stat);
		if (r == 0 ? proc_is_alive(&stat) : r != -ESRCH)
			list->items[n++] = list->items[i];
	}
	list->n = n;
}

int cgroup_list(const struct cgroup *cgroup, struct pid_list *ret_list)
{
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	CLEANUP_CLOSE int top = cgroup_open_folder(cgroup);
	if (top == -ENOENT) {
		*ret_list = (struct pid_list){ 0 };
		return 0;
	}
	if (top < 0)
		return top;
	int r = list_one(top, ".", &list);
	if (r == 0)
		r = walk(TAKE_FD(top), 0, list_one, &list);
	if (r < 0)
		return r;
	keep_alive(&list);
	*ret_list = list;
	list = (struct pid_list){ 0 };
	return 0;
}

void cgroup_remove(struct cgroup *cgroup)
{
	int top = cgroup_open_folder(cgroup);
	if (top >= 0)
		walk(top, 0, remove_one, NULL);
	rmdir(cgroup->folder);
	rmdir(cgroup->parent);
}

bool cgroup_has(const struct cgroup *cgroup, pid_t pid)
{
	char path[PATH_MAX];
	if (proc_read_cgroup(pid, path, sizeof(path)) < 0)
		return false;
	return below(cgroup->path, path) != NULL;
}

static int signal_one(const struct cgroup *cgroup, pid_t pid, int signal)
{
	CLEANUP_CLOSE int fd = process_open(pid);
	if (fd < 0)
		return fd;
	if (!cgroup_has(cgroup, pid))
		return -ESRCH;
	return process_signal(fd, signal);
}

int cgroup_signal(const struct cgroup *cgroup, int signal)
{
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	int r = cgroup_list(cgroup, &list);
	for (size_t i = 0; i < list.n; i++) {
		int one = signal_one(cgroup, list.items[i], signal);
		if (one < 0 && one != -ESRCH)
			r = one;
	}
	return r;
}

static bool kill_by_file(const struct cgroup *cgroup)
{
	CLEANUP_CLOSE int fd = open_in(cgroup, "/cgroup.kill", O_WRONLY);
	return fd >= 0 && write(fd, "1", 1) == 1;
}

static int compare_pids(const void *a, const void *b)
{
	return (*(const pid_t *)a > *(const pid_t *)b) - (*(const pid_t *)a < *(const pid_t *)b);
}

/*
 * A process with SIGKILL pending cannot fork any more, so once a pass finds nobody that the pass before it had not
 * already signalled, nobody is left out.
 */
static void kill_by_list(const struct cgroup *cgroup)
{
	CLEANUP(pid_list_finish) struct pid_list before = { 0 };
	for (unsigned pass = 0; pass < KILL_PASSES; pass++) {
		struct pid_list now = { 0 };
		bool any_new = false;
		if (cgroup_list(cgroup, &now) < 0)
			return;
		if (now.n > 0)
			qsort(now.items, now.n, sizeof(pid_t), compare_pids);
		for (size_t i = 0; i < now.n; i++) {
			if (before.n > 0 && bsearch(&now.items[i], before.items, before.n, sizeof(pid_t), compare_pids))
				continue;
			any_new = true;
			signal_one(cgroup, now.items[i], SIGKILL);
		}
		pid_list_finish(&before);
		before = now;
		if (!any_new)
			return;
	}
}

void cgroup_kill(const struct cgroup *cgroup)
{
	if (!cgroup->use_kill_file || !kill_by_file(cgroup))
		kill_by_list(cgroup);
}
