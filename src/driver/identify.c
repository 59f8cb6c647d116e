/*
 * Identification of processes. Reads only; must not signal. Whatever it reads may be forged by the process itself,
 * but never the kernel's own word: user, start time, executable, sockets.
 */
#include "driver/identify.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/endpoint.h"

#define ANCESTORS_MAX 32
#define WORDS_MAX 64
/* A start time is cut to a clock tick and a file's time to a jiffy: so much may they disagree. */
#define CLOCK_SLACK_S 0.02

static bool is_of_user(pid_t pid, uid_t uid)
{
	uid_t real, effective;
	return proc_read_users(pid, &real, &effective) == 0 && real == uid && effective == uid;
}

static bool may_signal(uid_t writer, pid_t pid)
{
	return writer == 0 || writer == geteuid() || is_of_user(pid, writer);
}

/* A PID with white space around it, and nothing else. */
static pid_t parse_pid(const char *text)
{
	char *end;
	long pid = strtol(text, &end, 10);
	end += strspn(end, " \t\r\n");
	return pid > 1 && pid <= INT_MAX && *end == '\0' ? (pid_t)pid : 0;
}

static int read_pid_file(const char *path, pid_t *ret_pid, struct stat *ret_status, struct error *err)
{
	char text[64];
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -ESRCH, "pid_file %s cannot be read: %s", path, strerror(errno));
	if (fstat(fd, ret_status) < 0 || !S_ISREG(ret_status->st_mode))
		return error_set(err, -ESRCH, "pid_file %s is not a regular file", path);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return error_set(err, -ESRCH, "pid_file %s cannot be read: %s", path, strerror(errno));
	text[n] = '\0';
	*ret_pid = parse_pid(text);
	return *ret_pid > 0 ? 0 : error_set(err, -ESRCH, "pid_file %s does not hold a PID", path);
}

/* A daemon that is not root has no other user's processes. */
static int check_user(const char *user, const char *path, pid_t pid, struct error *err)
{
	CLEANUP(account_finish) struct account account = { 0 };
	int r = user != NULL && geteuid() == 0 ? account_find(user, &account, err) : 0;
	if (r < 0 || !account.change || is_of_user(pid, account.uid))
		return r;
	return error_set(err, -ESRCH, "pid_file %s names process %d, which is not of user %s (process.user)", path,
		(int)pid, account.name);
}

int identify_by_pid_file(const char *path, const char *user, struct proc_stat *ret_stat, struct error *err)
{
	struct stat status;
	struct proc_stat stat;
	pid_t pid;
	int r = read_pid_file(path, &pid, &status, err);
	if (r < 0)
		return r;
	if (pid == getpid() || proc_read_stat(pid, &stat) < 0 || !proc_is_alive(&stat))
		return error_set(err, -ESRCH, "process %d, which pid_file %s names, does not run", (int)pid, path);
	double written = (double)status.st_mtim.tv_sec + (double)status.st_mtim.tv_nsec / 1e9;
	if (proc_started_at(&stat) > written + CLOCK_SLACK_S)
		return error_set(err, -ESRCH,
			"process %d, which pid_file %s names, is younger than the file: it is another one", (int)pid,
			path);
	if (!may_signal(status.st_uid, pid))
		return error_set(err, -ESRCH,
			"pid_file %s names process %d of another user than the one who owns the file", path, (int)pid);
	if (check_user(user, path, pid, err) < 0)
		return -ESRCH;
	*ret_stat = stat;
	return 0;
}

static bool same_file(const char *left, const char *right)
{
	struct stat a, b;
	return stat(left, &a) == 0 && stat(right, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Also when the file was replaced since, by an upgrade. */
static bool runs_program(pid_t pid, const char *program)
{
	char link[64], target[PATH_MAX], path[PATH_MAX + 16];
	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	if (same_file(link, program))
		return true;
	CLEANUP_FREE char *real = realpath(program, NULL);
	if (real == NULL)
		return false;
	snprintf(path, sizeof(path), "%s (deleted)", real);
	return strcmp(proc_read_exe(pid, target, sizeof(target)), path) == 0;
}

struct words {
	size_t n;
	const char *items[WORDS_MAX];
};

static void split_arguments(const char *text, size_t length, struct words *words)
{
	words->n = 0;
	for (size_t at = 0; at < length && words->n < WORDS_MAX; at += strlen(text + at) + 1)
		words->items[words->n++] = text + at;
}

/* All of `wanted` from `first` on, in their order, among the arguments of the process. */
static bool has_words(const struct words *arguments, char *const *wanted)
{
	size_t at = 1;
	for (; *wanted != NULL; wanted++, at++) {
		while (at < arguments->n && strcmp(arguments->items[at], *wanted) != 0)
			at++;
		if (at >= arguments->n)
			return false;
	}
	return true;
}

/* Programs that are somebody only by what they are told to run. */
static bool is_interpreter(const char *path)
{
	static const char *const names[] = { "ash", "bash", "busybox", "bun", "csh", "dash", "deno", "fish", "java",
		"ksh", "lua", "mono", "node", "nodejs", "perl", "php", "pypy", "python", "ruby", "sh", "tclsh", "uv",
		"zsh" };
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t length = strlen(names[i]);
		/* python3.11, perl5.36 */
		if (strncmp(name, names[i], length) == 0 &&
			strspn(name + length, "0123456789.-") == strlen(name + length))
			return true;
	}
	return false;
}

static bool is_script(const char *path)
{
	char start[3];
	return proc_read_file(path, start, sizeof(start)) == 2 && memcmp(start, "#!", 2) == 0;
}

/* The kernel runs a script as INTERPRETER [ONE ARGUMENT] PATH ARGUMENTS. */
static bool runs_script(pid_t pid, const struct words *arguments, const struct command *command)
{
	char exe[PATH_MAX];
	if (!is_interpreter(proc_read_exe(pid, exe, sizeof(exe))))
		return false;
	for (size_t i = 1; i < arguments->n && i <= 2; i++)
		if (strcmp(arguments->items[i], command->path) == 0 || strcmp(arguments->items[i], command->shown) == 0)
			return true;
	return false;
}

/*
 * `sh -c "program arguments"` leaves its place to the program, in most shells. True for text that means the same
 * without a shell; then `words` (NULL-terminated) are its words, in `copy`.
 */
static bool split_plain_text(char *copy, char *words[WORDS_MAX])
{
	size_t n = 0;
	char *rest = copy, *word;
	if (strpbrk(copy, "|&;<>()$`\\\"'*?[]#~=%!{}\n") != NULL)
		return false;
	while ((word = strsep(&rest, " \t")) != NULL) {
		if (*word == '\0')
			continue;
		if (n == WORDS_MAX - 1)
			return false;
		words[n++] = word;
	}
	words[n] = NULL;
	return n > 0;
}

static bool runs_shell_text(pid_t pid, const struct words *arguments, const char *text)
{
	CLEANUP_FREE char *copy = strdup(text);
	char *words[WORDS_MAX], exe[PATH_MAX];
	if (copy == NULL || !split_plain_text(copy, words))
		return false;
	if (strchr(words[0], '/') == NULL || !runs_program(pid, words[0]))
		return false;
	return !is_interpreter(proc_read_exe(pid, exe, sizeof(exe))) || has_words(arguments, words + 1);
}

bool identify_is_command(pid_t pid, const struct command *command)
{
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	struct words arguments;
	char exe[PATH_MAX];
	if (proc_read_arguments(pid, &text, &length) < 0)
		return false;
	split_arguments(text, length, &arguments);
	if (runs_program(pid, command->shown))
		if (!is_interpreter(proc_read_exe(pid, exe, sizeof(exe))) || has_words(&arguments, command->argv + 1))
			return true;
	if (is_script(command->shown))
		return runs_script(pid, &arguments, command);
	if (command->argv[1] != NULL && command->argv[2] != NULL && strcmp(command->argv[1], "-c") == 0)
		return runs_shell_text(pid, &arguments, command->argv[2]);
	return false;
}

/* A start script may wait for what it started: then the ancestor is the service. */
static int find_command(struct proc_stat stat, const struct command *command, struct proc_stat *ret_stat)
{
	for (unsigned i = 0; i < ANCESTORS_MAX && stat.pid > 1 && stat.pid != getpid(); i++) {
		if (is_of_user(stat.pid, command->account.uid) && identify_is_command(stat.pid, command)) {
			*ret_stat = stat;
			return 0;
		}
		if (proc_read_stat(stat.ppid, &stat) < 0)
			break;
	}
	return -EPERM;
}

static void name_user(uid_t uid, char *buffer, size_t size)
{
	char space[4096];
	struct passwd entry, *found = NULL;
	if (getpwuid_r(uid, &entry, space, sizeof(space), &found) == 0 && found != NULL)
		snprintf(buffer, size, "%s", entry.pw_name);
	else
		snprintf(buffer, size, "%u", (unsigned)uid);
}

static int refuse(
	const struct proc_stat *stat, const struct endpoint *endpoint, const struct command *command, struct error *err)
{
	char exe[256], user[64];
	uid_t real = 0, effective = 0;
	proc_read_users(stat->pid, &real, &effective);
	name_user(effective, user, sizeof(user));
	return error_set(err, -EPERM,
		"on its port %u listens process %d (%s, user %s), which is not the configured command %s of user %s",
		endpoint->port, (int)stat->pid, proc_read_exe(stat->pid, exe, sizeof(exe)), user, command->shown,
		command->account.name);
}

int identify_by_listener(const struct driver_environment *environment, const struct service_config *config,
	struct proc_stat *ret_stat, struct error *err)
{
	struct endpoint endpoint;
	struct proc_stat holder;
	if (endpoint_of_probe(&config->health, &endpoint) < 0)
		return error_set(err, -ESRCH, "its health check names no port on this host to find it by");
	int64_t inode = endpoint_listener(&endpoint);
	if (inode <= 0)
		return error_set(err, -ESRCH, "nobody listens on its port %u", endpoint.port);
	if (endpoint_holder((uint64_t)inode, &holder) < 0)
		return error_set(err, -ESRCH,
			"who listens on its port %u cannot be seen: a process of another user, or in a container",
			endpoint.port);
	const struct command_options options = { .words = &config->process.command, .shell = config->process.shell };
	CLEANUP(command_finish) struct command command = { 0 };
	int r = command_prepare(environment, config, &options, &command, err);
	if (r < 0)
		return -EPERM;
	r = find_command(holder, &command, ret_stat);
	return r < 0 ? refuse(&holder, &endpoint, &command, err) : 0;
}
