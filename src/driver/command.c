/* From configuration to argv, environment and account. Must not fork, and changes nothing of the daemon itself. */
#include "driver/command.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/spawn.h"

#define SANE_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define PASSWD_BUFFER_MAX (1024 * 1024)
#define GROUPS_MAX 65536

/* Several ways to say that nobody has that name: getpwnam(3). */
static int meaning_of_lookup(int code)
{
	bool is_absent = code == 0 || code == ENOENT || code == ESRCH || code == EBADF || code == EPERM;
	return is_absent ? ENOENT : code;
}

static int lookup(const char *user, struct passwd *entry, char **ret_buffer)
{
	char *end;
	unsigned long number = user != NULL ? strtoul(user, &end, 10) : geteuid();
	bool by_number = user == NULL || (*user >= '0' && *user <= '9' && *end == '\0');
	for (size_t size = 4096; size <= PASSWD_BUFFER_MAX; size *= 4) {
		char *buffer = malloc(size);
		struct passwd *found = NULL;
		if (buffer == NULL)
			return -ENOMEM;
		int r = by_number ? getpwuid_r((uid_t)number, entry, buffer, size, &found)
				  : getpwnam_r(user, entry, buffer, size, &found);
		if (r == 0 && found != NULL) {
			*ret_buffer = buffer;
			return 0;
		}
		free(buffer);
		if (r != ERANGE)
			return -meaning_of_lookup(r);
	}
	return -E2BIG;
}

static int find_groups(struct account *account)
{
	int n = 32;
	while (n <= GROUPS_MAX) {
		int had = n;
		gid_t *groups = reallocarray(account->groups, (size_t)n, sizeof(*groups));
		if (groups == NULL)
			return -ENOMEM;
		account->groups = groups;
		if (getgrouplist(account->name, account->gid, groups, &n) >= 0) {
			account->n_groups = (size_t)n;
			return 0;
		}
		n = n > had ? n : had * 2;
	}
	return -E2BIG;
}

static int copy_names(struct account *account, const char *name, const char *home, const char *shell)
{
	account->name = strdup(name);
	account->home = strdup(home);
	account->shell = strdup(shell != NULL && *shell != '\0' ? shell : "/bin/sh");
	return account->name != NULL && account->home != NULL && account->shell != NULL ? 0 : -ENOMEM;
}

static int fill_account(const char *user, struct account *account, struct error *err)
{
	CLEANUP_FREE char *buffer = NULL;
	struct passwd entry;
	int r = lookup(user, &entry, &buffer);
	if (r < 0 && r != -ENOENT)
		return error_set(err, r, "cannot look up user \"%s\": %s%s", user != NULL ? user : "", strerror(-r),
			spawn_remedy(-r));
	if (r < 0 && user != NULL)
		return error_set(err, r, "user \"%s\" does not exist; create it or correct process.user", user);
	account->uid = r < 0 ? geteuid() : entry.pw_uid;
	account->gid = r < 0 ? getegid() : entry.pw_gid;
	if (r < 0)
		return copy_names(account, "unknown", "/", NULL);
	if (user != NULL && account->uid != geteuid() && geteuid() != 0)
		return error_set(err, -EPERM,
			"cannot run as user \"%s\": gpumgrd is not root; run gpumgrd as root, or remove process.user",
			user);
	account->change = user != NULL && geteuid() == 0;
	r = copy_names(account, entry.pw_name, entry.pw_dir, entry.pw_shell);
	if (r == 0 && account->change)
		r = find_groups(account);
	return r < 0 ? error_set(err, r, "cannot look up user \"%s\" and its groups: %s", entry.pw_name, strerror(-r))
		     : 0;
}

int account_find(const char *user, struct account *ret_account, struct error *err)
{
	struct account account = { 0 };
	int r = fill_account(user, &account, err);
	if (r < 0)
		account_finish(&account);
	else
		*ret_account = account;
	return r;
}

void account_finish(struct account *account)
{
	free(account->groups);
	free(account->name);
	free(account->home);
	free(account->shell);
	*account = (struct account){ 0 };
}

char *command_mark(const char *service)
{
	char *mark;
	return asprintf(&mark, "GPUMGR_SERVICE=%s", service) >= 0 ? mark : NULL;
}

static bool same_name(const char *entry, const char *name, size_t length)
{
	return strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* Takes `entry`; replaces the one of the same name. `environment` has room. */
static int put(char **environment, char *entry)
{
	if (entry == NULL)
		return -ENOMEM;
	size_t length = strcspn(entry, "="), i = 0;
	while (environment[i] != NULL && !same_name(environment[i], entry, length))
		i++;
	free(environment[i]);
	environment[i] = entry;
	return 0;
}

static int put_pair(char **environment, const char *name, const char *value)
{
	char *entry;
	return value == NULL ? 0 : put(environment, asprintf(&entry, "%s=%s", name, value) >= 0 ? entry : NULL);
}

/* Indexes are gpumgr's, which counts as the PCI bus does; CUDA would put the fastest card first. */
static const char *device_order(const char *gpu_ids)
{
	return gpu_ids != NULL && gpu_ids[0] >= '0' && gpu_ids[0] <= '9' ? "PCI_BUS_ID" : NULL;
}

static int make_environment(const struct driver_environment *environment, const struct service_config *config,
	const struct command_options *options, struct command *command)
{
	const struct string_list *own = &config->process.environment;
	const char *lang = getenv("LANG");
	struct {
		const char *name, *value;
	} base[] = {
		{ "GPUMGR_SERVICE", options->is_probe ? NULL : config->name },
		{ "PATH", SANE_PATH },
		{ "LANG", lang != NULL && *lang != '\0' ? lang : "C.UTF-8" },
		{ "HOME", command->account.home },
		{ "USER", command->account.name },
		{ "LOGNAME", command->account.name },
		{ "SHELL", command->account.shell },
		{ "CUDA_VISIBLE_DEVICES", options->gpu_ids },
		{ "CUDA_DEVICE_ORDER", device_order(options->gpu_ids) },
		{ "GPUMGR_SIM_DIR", options->is_probe ? NULL : environment->sim_dir },
	};
	command->environment = calloc(ARRAY_SIZE(base) + own->n + 1, sizeof(char *));
	int r = command->environment != NULL ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(base); i++)
		r = put_pair(command->environment, base[i].name, base[i].value);
	for (size_t i = 0; r == 0 && i < own->n; i++)
		r = strchr(own->items[i], '=') != NULL ? put(command->environment, strdup(own->items[i])) : 0;
	return r;
}

static int make_argv(const struct string_list *words, bool shell, struct command *command)
{
	const char *const through_shell[] = { "/bin/sh", "-c" };
	size_t n_shell = shell ? ARRAY_SIZE(through_shell) : 0;
	command->argv = calloc(n_shell + words->n + 1, sizeof(char *));
	if (command->argv == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n_shell + words->n; i++) {
		command->argv[i] = strdup(i < n_shell ? through_shell[i] : words->items[i - n_shell]);
		if (command->argv[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

static const char *environment_value(char *const *environment, const char *name)
{
	size_t length = strlen(name);
	for (; *environment != NULL; environment++)
		if (same_name(*environment, name, length))
			return *environment + length + 1;
	return NULL;
}

static bool is_program(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0111) != 0;
}

static int search_path(const char *name, const char *path, char **ret_found)
{
	for (const char *at = path; at != NULL; at = *at == ':' ? at + 1 : NULL) {
		size_t length = strcspn(at, ":");
		char *candidate;
		if (length > 0 && *at == '/') {
			if (asprintf(&candidate, "%.*s/%s", (int)length, at, name) < 0)
				return -ENOMEM;
			if (is_program(candidate)) {
				*ret_found = candidate;
				return 0;
			}
			free(candidate);
		}
		at += length;
	}
	return -ENOENT;
}

/* A relative path is meant from the service's directory, where execve() will take it from too. */
static int resolve(struct command *command, struct error *err)
{
	const char *name = command->argv[0];
	const char *directory = command->directory;
	if (strchr(name, '/') == NULL) {
		const char *path = environment_value(command->environment, "PATH");
		int r = search_path(name, path != NULL ? path : "", &command->path);
		if (r == -ENOENT)
			return error_set(err, r, "command \"%s\" is in no folder of PATH (%s); write its whole path",
				name, path != NULL ? path : "");
		if (r < 0)
			return r;
	} else {
		command->path = strdup(name);
	}
	if (command->path == NULL)
		return -ENOMEM;
	if (*command->path == '/')
		command->shown = strdup(command->path);
	else if (asprintf(&command->shown, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name) < 0)
		command->shown = NULL;
	return command->shown != NULL ? 0 : -ENOMEM;
}

int command_prepare(const struct driver_environment *environment, const struct service_config *config,
	const struct command_options *options, struct command *ret_command, struct error *err)
{
	const struct string_list *words = options->words;
	struct command command = {
		.directory = config->process.directory != NULL ? config->process.directory : "/",
	};
	if (words->n == 0 || *words->items[0] == '\0')
		return error_set(err, -EINVAL, "no command to run; set process.command");
	int r = account_find(config->process.user, &command.account, err);
	if (r == 0)
		r = make_argv(words, options->shell, &command);
	if (r == 0)
		r = make_environment(environment, config, options, &command);
	if (r == 0)
		r = resolve(&command, err);
	if (r < 0) {
		command_finish(&command);
		return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
	}
	*ret_command = command;
	return 0;
}

static void free_strings(char **strings)
{
	for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
		free(strings[i]);
	free(strings);
}

void command_finish(struct command *command)
{
	free(command->path);
	free(command->shown);
	free_strings(command->argv);
	free_strings(command->environment);
	account_finish(&command->account);
	*command = (struct command){ 0 };
}
