/* Where socket, state and logs are: what the file and the command line say, else the defaults of root or of the user.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "base/owned.h"
#include "daemon/daemon.h"

static char *join(const char *folder, const char *rest)
{
	char *path;
	return asprintf(&path, "%s%s", folder, rest) < 0 ? NULL : path;
}

static const char *environment_path(const char *name)
{
	const char *value = getenv(name);
	return value != NULL && value[0] == '/' ? value : NULL; /* the XDG specification: relative ones are ignored */
}

static char *user_path(const char *variable, const char *home_part, const char *rest)
{
	const char *base = environment_path(variable);
	if (base != NULL)
		return join(base, rest);
	const char *home = environment_path("HOME");
	CLEANUP_FREE char *below = join(home != NULL ? home : "/", home_part);
	return below != NULL ? join(below, rest) : NULL;
}

static char *default_socket(void)
{
	if (geteuid() == 0)
		return strdup("/run/gpumgr/gpumgr.sock");
	const char *runtime = environment_path("XDG_RUNTIME_DIR");
	if (runtime != NULL)
		return join(runtime, "/gpumgr/gpumgr.sock");
	char *path;
	return asprintf(&path, "/tmp/gpumgr-%u/gpumgr.sock", geteuid()) < 0 ? NULL : path;
}

static char *default_state_dir(void)
{
	return geteuid() == 0 ? strdup("/var/lib/gpumgr") : user_path("XDG_STATE_HOME", "/.local/state", "/gpumgr");
}

char *paths_default_config(void)
{
	return geteuid() == 0 ? strdup("/etc/gpumgr/gpumgr.yaml")
			      : user_path("XDG_CONFIG_HOME", "/.config", "/gpumgr/gpumgr.yaml");
}

/* The log folder of root is the system's, unless the state folder was put somewhere else. */
static char *default_log_dir(const char *state_dir, bool state_dir_given)
{
	return geteuid() == 0 && !state_dir_given ? strdup("/var/log/gpumgr") : join(state_dir, "/log");
}

static int make_folder(const char *path, mode_t mode, const char *key, struct error *err)
{
	CLEANUP_FREE char *part = strdup(path);
	if (part == NULL)
		return -ENOMEM;
	for (char *slash = part + 1; *slash != '\0'; slash++) {
		if (*slash != '/')
			continue;
		*slash = '\0';
		mkdir(part, 0755); /* what it cannot make, the last one reports */
		*slash = '/';
	}
	struct stat status;
	if (mkdir(part, mode) < 0 && errno != EEXIST)
		return error_set(err, -errno, "%s: cannot make the folder %s: %s; make it, or name another one", key,
			path, strerror(errno));
	if (stat(part, &status) < 0 || !S_ISDIR(status.st_mode))
		return error_set(err, -ENOTDIR, "%s: %s is not a folder; name another one", key, path);
	if (access(part, W_OK | X_OK) < 0)
		return error_set(err, -errno,
			"%s: the folder %s cannot be written by uid %u: %s; chown it, or name another one", key, path,
			geteuid(), strerror(errno));
	return 0;
}

static bool is_below_tmp(const char *folder)
{
	return strncmp(folder, "/tmp/", 5) == 0;
}

/*
 * Who can put another socket in the place of ours is told all that clients mean for us. Below /tmp anybody may have
 * been there first; elsewhere somebody may have meant it so.
 */
static int check_socket_folder(const char *folder, struct error *err)
{
	char why[PATH_MAX + 64];
	int result = owned_check(folder, true, why, sizeof(why));
	if (result < 0)
		return error_set(err, result, "socket: %s: %s", folder, strerror(-result));
	if (result == OWNED_BY_OTHERS && is_below_tmp(folder))
		return error_set(err, -EPERM,
			"socket: %s: who that is could serve in our place; make it yours (chown, chmod go-w), or name "
			"another socket with --socket",
			why);
	if (result == OWNED_BY_OTHERS)
		log_warning("socket: %s: who that is could serve in our place; name a socket in another folder", why);
	return 0;
}

static int make_socket_folder(const char *socket, struct error *err)
{
	CLEANUP_FREE char *folder = strdup(socket);
	if (folder == NULL)
		return -ENOMEM;
	char *slash = strrchr(folder, '/');
	if (slash == NULL || slash == folder)
		return 0;
	*slash = '\0';
	int result = make_folder(folder, is_below_tmp(folder) ? 0700 : 0755, "socket", err);
	return result == 0 ? check_socket_folder(folder, err) : result;
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	bool found = dir == NULL;
	const struct dirent *entry;
	while (!found && (entry = readdir(dir)) != NULL)
		found = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (dir != NULL)
		closedir(dir);
	return !found;
}

/* A fresh tmpfs or volume is open to everybody; as long as nothing is in it, closing it is all it takes. */
static void close_fresh_folder(const char *path)
{
	struct stat status;
	if (stat(path, &status) < 0 || status.st_uid != geteuid() || owned_is_closed(&status) || !is_empty(path) ||
		chmod(path, 0700) < 0)
		return;
	if (is_empty(path))
		log_info("state_dir: the folder %s was open to others, and empty: it is closed to them now", path);
	else
		chmod(path, status.st_mode & 07777); /* somebody was quicker; the check after this refuses it */
}

/* What lies in the state folder is believed: whom to signal, which leases there are. */
static int check_state_dir(const char *path, struct error *err)
{
	char why[PATH_MAX + 64];
	int result = owned_check(path, true, why, sizeof(why));
	if (result == OWNED_BY_OTHERS)
		return error_set(err, -EPERM,
			"state_dir: %s: who that is could tell gpumgrd whom to end; make it yours (chown, chmod go-w), "
			"or "
			"name another folder",
			why);
	return result < 0 ? error_set(err, result, "state_dir: %s: %s", path, strerror(-result)) : 0;
}

/* Log files are opened with care, so the folder may be others' to write; where it lies should not be. */
static void warn_of_log_dir(const char *path)
{
	char why[PATH_MAX + 64];
	if (owned_check(path, false, why, sizeof(why)) == OWNED_BY_OTHERS)
		log_warning(
			"log_dir: %s: who that is can lead the files in %s elsewhere; name another folder", why, path);
}

/* FNV-1a: a short name that stays the same for the same folder. */
static void name_instance(const char *state_dir, char *buffer, size_t size)
{
	uint32_t hash = 2166136261u;
	for (const char *c = state_dir; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	snprintf(buffer, size, "%08x", hash);
}

static int lock_state_dir(struct daemon_paths *paths, struct error *err)
{
	CLEANUP_FREE char *path = join(paths->state_dir, "/lock");
	if (path == NULL)
		return -ENOMEM;
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(err, -errno, "state_dir: cannot open %s: %s", path, strerror(errno));
	char holder[32] = "";
	int r = file_lock_take(fd);
	if (r < 0 && r != -EWOULDBLOCK)
		return error_set(err, r, "state_dir: cannot lock %s: %s", path, strerror(-r));
	if (r < 0) {
		ssize_t length = read(fd, holder, sizeof(holder) - 1);
		holder[length > 0 ? strcspn(holder, "\n") : 0] = '\0';
		return error_set(err, -EADDRINUSE,
			"state_dir: another gpumgrd (pid %s) uses %s; stop it, or name another folder with --state-dir",
			holder[0] != '\0' ? holder : "unknown", paths->state_dir);
	}
	int length = snprintf(holder, sizeof(holder), "%d\n", getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, holder, (size_t)length, 0) != length)
		return error_set(err, -EIO, "state_dir: cannot write %s: %s", path, strerror(errno));
	paths->lock_fd = TAKE_FD(fd);
	return 0;
}

static char *choose(const char *given, const char *configured, char *(*make_default)(void))
{
	if (given != NULL)
		return strdup(given);
	return configured != NULL ? strdup(configured) : make_default();
}

int paths_prepare(const struct config *config, const char *socket, const char *state_dir,
	struct daemon_paths *ret_paths, struct error *err)
{
	struct daemon_paths *paths = ret_paths;
	bool state_dir_given = state_dir != NULL || config->state_dir != NULL;
	*paths = (struct daemon_paths){ .lock_fd = -1 };
	paths->socket = choose(socket, config->socket, default_socket);
	paths->state_dir = choose(state_dir, config->state_dir, default_state_dir);
	if (paths->socket == NULL || paths->state_dir == NULL)
		return -ENOMEM;
	int result = make_folder(paths->state_dir, 0700, "state_dir", err);
	if (result < 0)
		return result;
	char *real = realpath(paths->state_dir, NULL); /* later working directories do not matter then */
	if (real == NULL)
		return error_set(err, -errno, "state_dir: %s: %s", paths->state_dir, strerror(errno));
	close_fresh_folder(paths->state_dir);
	result = check_state_dir(paths->state_dir, err);
	free(paths->state_dir);
	paths->state_dir = real;
	if (result < 0)
		return result;
	paths->log_dir =
		config->log_dir != NULL ? strdup(config->log_dir) : default_log_dir(paths->state_dir, state_dir_given);
	if (paths->log_dir == NULL)
		return -ENOMEM;
	result = make_folder(paths->log_dir, 0750, "log_dir", err);
	if (result == 0)
		warn_of_log_dir(paths->log_dir);
	if (result == 0)
		result = make_socket_folder(paths->socket, err);
	if (result < 0)
		return result;
	name_instance(paths->state_dir, paths->instance, sizeof(paths->instance));
	return lock_state_dir(paths, err);
}

void paths_finish(struct daemon_paths *paths)
{
	free(paths->socket);
	free(paths->state_dir);
	free(paths->log_dir);
	if (paths->lock_fd >= 0)
		close(paths->lock_fd);
	*paths = (struct daemon_paths){ .lock_fd = -1 };
}
