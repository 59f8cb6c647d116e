/* Where socket, state and logs are: what the file and the command line say, else the defaults of root or of the user.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
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

static int make_socket_folder(const char *socket, struct error *err)
{
	CLEANUP_FREE char *folder = strdup(socket);
	if (folder == NULL)
		return -ENOMEM;
	char *slash = strrchr(folder, '/');
	if (slash == NULL || slash == folder)
		return 0;
	*slash = '\0';
	/* Under /tmp nobody else may put a socket in our place. */
	mode_t mode = strncmp(folder, "/tmp/", 5) == 0 ? 0700 : 0755;
	int result = make_folder(folder, mode, "socket", err);
	struct stat status;
	bool is_guessable = geteuid() != 0 && mode == 0700;
	if (result == 0 && is_guessable && (lstat(folder, &status) < 0 || status.st_uid != geteuid()))
		return error_set(err, -EPERM,
			"socket: the folder %s belongs to somebody else; name another socket with --socket", folder);
	return result;
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
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
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
	free(paths->state_dir);
	paths->state_dir = real;
	paths->log_dir =
		config->log_dir != NULL ? strdup(config->log_dir) : default_log_dir(paths->state_dir, state_dir_given);
	if (paths->log_dir == NULL)
		return -ENOMEM;
	result = make_folder(paths->log_dir, 0750, "log_dir", err);
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
