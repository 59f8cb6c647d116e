/* Guesses at what was meant. Pure: looks at names and at the option table, never at values of a configuration. */
#include "config/hints.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/distance.h"
#include "base/units.h"

#define NAME_LENGTH_MAX 40

/* What llama-swap, large-model-proxy, Compose, systemd and the like call the things that we have. */
const struct foreign_key foreign_keys[] = {
	/* in a section of their own first: there they mean something else */
	{ "services.*.health", "cmd", "services.*.health.command", NULL },
	{ "services.*.health", "test", "services.*.health.command", NULL },
	{ "services.*.health", "url", "services.*.health.http", NULL },
	{ "services.*.health", "endpoint", "services.*.health.http", NULL },
	{ "services.*.health", "path", "services.*.health.http", NULL },
	{ "services.*.health", "port", "services.*.health.tcp", NULL },
	{ "services.*.health", "address", "services.*.health.tcp", NULL },
	{ "services.*.health", "start_period", "services.*.health.timeout", NULL },
	{ "services.*.busy", "url", "services.*.busy.http", NULL },
	{ "services.*.busy", "cmd", "services.*.busy.command", NULL },
	{ "services.*.container", "container_name", "services.*.container.name", NULL },
	{ "services.*.container", "id", "services.*.container.name", NULL },
	{ "services.*.container", "docker_host", "services.*.container.engine", NULL },
	{ "services.*.container", "socket", "services.*.container.engine", NULL },
	{ "services.*.container", "timeout", "services.*.container.stop_timeout", NULL },
	{ "services.*.process", "timeout", "services.*.process.stop_timeout", NULL },
	{ "phases.*", "title", "phases.*.name", NULL },
	{ "phases.*", "needs", "phases.*.services", NULL },
	{ "gpu", "vram", "gpu.gpus", NULL },
	{ "gpu", "total", "gpu.gpus", NULL },
	{ "gpu", "vram_total_mb", "gpu.gpus", NULL },
	{ "gpu", "reserve_mb", "gpu.reserve", NULL },
	{ "gpu", "vram_reserve_mb", "gpu.reserve", NULL },
	{ "gpu", "margin", "gpu.reserve", NULL },
	{ "gpu", "type", "gpu.backend", NULL },
	{ "lock", "redis_url", "lock.url", NULL },
	{ "lock", "name", "lock.key", NULL },
	{ "lock", "timeout", "lock.ttl", NULL },
	{ "lease", "timeout", "lease.wait", NULL },
	{ "", "models", "services", NULL },
	{ "", "model", "services", NULL },
	{ "", "pipeline", "phases", NULL },
	{ "", "pipeline_phases", "phases", NULL },
	{ "", "groups", "phases", NULL },
	{ "", "redis", "lock.url", NULL },
	{ "", "redis_url", "lock.url", NULL },
	{ "", "port", "listen", NULL },
	{ "", "bind", "listen", NULL },
	{ "", "host", "listen", NULL },
	{ "", "address", "listen", NULL },
	{ "", "listen_port", "listen", NULL },
	{ "", "token", "token_file", NULL },
	{ "", "api_key", "token_file", NULL },
	{ "", "api_keys", "token_file", NULL },
	{ "", "reserve", "gpu.reserve", NULL },
	{ "", "reserve_mb", "gpu.reserve", NULL },
	{ "", "vram_reserve_mb", "gpu.reserve", NULL },
	{ "", "resources_available", "gpu.gpus", NULL },
	{ "", "health_check_timeout", "services.*.health.timeout", NULL },
	{ "", "log_level", NULL, "the daemon's log goes to stderr; no key is needed" },
	{ "", "start_port", NULL, "ports are part of each service's own command" },
	{ "", "macros", NULL, "not here: ${env.NAME} and anchors (&name, *name) save repetition" },

	/* a registry of services in Python */
	{ NULL, "vram_mb", "services.*.vram", NULL },
	{ NULL, "type", NULL, "not needed: say `process` or `container`" },
	{ NULL, "start_cmd", "services.*.process.command", NULL },
	{ NULL, "stop_cmd", "services.*.process.stop_command", NULL },
	{ NULL, "health_endpoint", "services.*.health.http", NULL },
	{ NULL, "health_timeout", "services.*.health.timeout", NULL },
	{ NULL, "container_name", "services.*.container.name", NULL },
	{ NULL, "pipeline_phases", "phases.*.services", NULL },
	{ NULL, "warm_time", NULL, "not needed: a service is ready as soon as its health check passes" },
	{ NULL, "evict_api", NULL, "not needed: a service is evicted by stopping it" },

	/* llama-swap */
	{ NULL, "cmd", "services.*.process.command", NULL },
	{ NULL, "cmdStop", "services.*.process.stop_command", NULL },
	{ NULL, "checkEndpoint", "services.*.health.http", NULL },
	{ NULL, "proxy", "services.*.health.http", NULL },
	{ NULL, "ttl", "services.*.yield_after", NULL },
	{ NULL, "env", "services.*.process.environment", NULL },
	{ NULL, "persistent", "services.*.pinned", NULL },
	{ NULL, "concurrencyLimit", "services.*.max_leases", NULL },
	{ NULL, "unlisted", NULL, "not needed: every service is listed" },
	{ NULL, "useModelName", NULL, "gpumgr does not look into requests" },

	/* large-model-proxy */
	{ NULL, "Args", "services.*.process.command", NULL },
	{ NULL, "WorkDir", "services.*.process.directory", NULL },
	{ NULL, "LogFilePath", "log_dir", NULL },
	{ NULL, "HealthcheckCommand", "services.*.health.command", NULL },
	{ NULL, "HealthcheckIntervalMilliseconds", "services.*.health.interval", NULL },
	{ NULL, "StartupTimeoutMilliseconds", "services.*.health.timeout", NULL },
	{ NULL, "ShutDownAfterInactivitySeconds", "services.*.yield_after", NULL },
	{ NULL, "ResourceRequirements", "services.*.vram", NULL },
	{ NULL, "KillCommand", "services.*.process.stop_command", NULL },
	{ NULL, "ListenPort", NULL, "gpumgr does not proxy: clients talk to the service itself" },
	{ NULL, "ProxyTargetHost", "services.*.health.tcp", NULL },
	{ NULL, "ProxyTargetPort", "services.*.health.tcp", NULL },

	/* Compose */
	{ NULL, "image", NULL,
		"gpumgr starts containers that exist: create it with `docker compose up --no-start SERVICE`" },
	{ NULL, "entrypoint", "services.*.process.command", NULL },
	{ NULL, "working_dir", "services.*.process.directory", NULL },
	{ NULL, "env_file", NULL, "not here: `process.environment` takes ${env.NAME}" },
	{ NULL, "healthcheck", "services.*.health", NULL },
	{ NULL, "health_check", "services.*.health", NULL },
	{ NULL, "stop_grace_period", "services.*.process.stop_timeout", NULL },
	{ NULL, "restart", NULL, "not needed: a service that is wanted is started again" },
	{ NULL, "depends_on", NULL, "not here: put the services into one phase, or lease them together" },
	{ NULL, "ports", NULL, "ports are the container's own" },
	{ NULL, "volumes", NULL, "volumes are the container's own" },
	{ NULL, "docker", "services.*.container", NULL },

	/* systemd */
	{ NULL, "ExecStart", "services.*.process.command", NULL },
	{ NULL, "ExecStop", "services.*.process.stop_command", NULL },
	{ NULL, "WorkingDirectory", "services.*.process.directory", NULL },
	{ NULL, "TimeoutStopSec", "services.*.process.stop_timeout", NULL },
	{ NULL, "TimeoutStartSec", "services.*.health.timeout", NULL },
	{ NULL, "KillSignal", "services.*.process.stop_signal", NULL },

	/* anybody */
	{ NULL, "exec", "services.*.process.command", NULL },
	{ NULL, "script", "services.*.process.command", NULL },
	{ NULL, "start_command", "services.*.process.command", NULL },
	{ NULL, "start", "services.*.process.command", NULL },
	{ NULL, "stop", "services.*.process.stop_command", NULL },
	{ NULL, "cwd", "services.*.process.directory", NULL },
	{ NULL, "dir", "services.*.process.directory", NULL },
	{ NULL, "username", "services.*.process.user", NULL },
	{ NULL, "pidfile", "services.*.process.pid_file", NULL },
	{ NULL, "signal", "services.*.process.stop_signal", NULL },
	{ NULL, "log_max_size", "services.*.process.log_size", NULL },
	{ NULL, "start_timeout", "services.*.health.timeout", NULL },
	{ NULL, "port", "services.*.health.tcp", NULL },
	{ NULL, "url", "services.*.health.http", NULL },
	{ NULL, "memory", "services.*.vram", NULL },
	{ NULL, "gpu_memory", "services.*.vram", NULL },
	{ NULL, "gpu", "services.*.gpus", NULL },
	{ NULL, "gpu_ids", "services.*.gpus", NULL },
	{ NULL, "device", "services.*.gpus", NULL },
	{ NULL, "devices", "services.*.gpus", NULL },
	{ NULL, "cuda_visible_devices", "services.*.gpus", NULL },
	{ NULL, "num_gpus", "services.*.gpu_count", NULL },
	{ NULL, "keep_alive", "services.*.yield_after", NULL },
	{ NULL, "idle_timeout", "services.*.yield_after", NULL },
	{ NULL, "unload_after", "services.*.yield_after", NULL },
	{ NULL, "grace", "services.*.preempt_after", NULL },
	{ NULL, "max_clients", "services.*.max_leases", NULL },
	{ NULL, "<<", NULL, "merge keys are not supported; an alias (*name) may stand for a whole value" },
};
const size_t foreign_key_count = ARRAY_SIZE(foreign_keys);

/* Small letters, without what people put between words. False: too long to be a slip of a key of ours. */
static bool fold(const char *text, char buffer[static NAME_LENGTH_MAX + 1])
{
	size_t length = 0;
	for (; *text != '\0'; text++) {
		if (*text == '_' || *text == '-' || *text == ' ')
			continue;
		if (length == NAME_LENGTH_MAX)
			return false;
		buffer[length++] = *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text;
	}
	buffer[length] = '\0';
	return true;
}

bool hint_is_close(const char *written, const char *candidate, unsigned *ret_distance)
{
	char a[NAME_LENGTH_MAX + 1], b[NAME_LENGTH_MAX + 1];
	if (!fold(written, a) || !fold(candidate, b) || a[0] == '\0')
		return false;
	unsigned distance = edit_distance(a, b);
	unsigned length = (unsigned)strlen(a);
	unsigned most = length <= 2 ? 0 : length <= 5 ? 1 : length <= 8 ? 2 : 3;
	*ret_distance = distance;
	return distance <= most;
}

static const struct foreign_key *find_foreign(const struct option *section, const char *key)
{
	char written[NAME_LENGTH_MAX + 1], name[NAME_LENGTH_MAX + 1];
	if (!fold(key, written))
		return NULL;
	for (size_t i = 0; i < foreign_key_count; i++) {
		const struct foreign_key *foreign = &foreign_keys[i];
		bool is_here = foreign->section == NULL || strcmp(foreign->section, section->path) == 0;
		if (is_here && fold(foreign->name, name) && strcmp(name, written) == 0)
			return foreign;
	}
	return NULL;
}

static const struct option *find_close(const struct option *section, const char *key)
{
	const struct option *option = NULL, *found = NULL;
	unsigned distance, best = UINT32_MAX;
	while ((option = option_next_child(section, option)) != NULL) {
		if (hint_is_close(key, option_name(option), &distance) && distance < best) {
			best = distance;
			found = option;
		}
	}
	return found;
}

static bool is_below(const struct option *section, const struct option *option)
{
	size_t length = strlen(section->path);
	return length == 0 || (strncmp(option->path, section->path, length) == 0 && option->path[length] == '.');
}

/* A key of ours that stands in another place: further inside first, for a level is easily forgotten. */
static const struct option *find_elsewhere(const struct option *section, const char *key)
{
	const struct option *outside = NULL;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		if (option == section || strcmp(option_name(option), key) != 0)
			continue;
		if (is_below(section, option))
			return option;
		if (outside == NULL && option_scope(option) == option_scope(section))
			outside = option;
	}
	return outside;
}

/* The path as seen from the section: process.command, or services.NAME.vram from elsewhere. */
static const char *path_from(
	const struct option *section, const struct option *option, char *buffer, size_t buffer_size)
{
	size_t length = strlen(section->path);
	if (length > 0 && is_below(section, option))
		snprintf(buffer, buffer_size, "%s", option->path + length + 1);
	else
		option_display(option, buffer, buffer_size);
	return buffer;
}

static void list_keys(const struct option *section, char *buffer, size_t buffer_size)
{
	size_t length = (size_t)snprintf(buffer, buffer_size, "expected one of ");
	const struct option *option = NULL;
	const char *separator = "";
	while ((option = option_next_child(section, option)) != NULL && length < buffer_size) {
		length +=
			(size_t)snprintf(buffer + length, buffer_size - length, "%s%s", separator, option_name(option));
		separator = ", ";
	}
}

const char *hint_for_key(const struct option *section, const char *key, char *buffer, size_t buffer_size)
{
	char path[128];
	const struct foreign_key *foreign = find_foreign(section, key);
	const struct option *option = foreign == NULL ? NULL
		: foreign->ours != NULL               ? option_find(foreign->ours)
						      : NULL;
	if (foreign == NULL)
		option = find_close(section, key);
	if (foreign == NULL && option == NULL)
		option = find_elsewhere(section, key);
	if (option == NULL && strchr(key, '.') != NULL)
		option = option_find(key);
	if (foreign != NULL && foreign->note != NULL)
		snprintf(buffer, buffer_size, "%s", foreign->note);
	else if (option != NULL)
		snprintf(buffer, buffer_size, "did you mean `%s`?", path_from(section, option, path, sizeof(path)));
	else
		list_keys(section, buffer, buffer_size);
	return buffer;
}

struct unit_slip {
	const char *written; /* folded */
	const char *meant;
};

static bool find_slip(const struct unit_slip *slips, size_t n, const char *unit, const char **ret_meant)
{
	char folded[NAME_LENGTH_MAX + 1];
	if (!fold(unit, folded))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(slips[i].written, folded) == 0) {
			*ret_meant = slips[i].meant;
			return true;
		}
	}
	return false;
}

/* Splits "1,5 GiB" into "1.5" and "GiB". False: no number. */
static bool split_number(const char *text, char number[static 24], const char **ret_unit)
{
	size_t length = strspn(text, "0123456789.,");
	if (length == 0 || length >= 24)
		return false;
	for (size_t i = 0; i < length; i++)
		number[i] = text[i] == ',' ? '.' : text[i];
	number[length] = '\0';
	while (text[length] == ' ')
		length++;
	*ret_unit = text + length;
	return true;
}

bool hint_for_size(const char *text, char *buffer, size_t buffer_size)
{
	static const struct unit_slip slips[] = {
		{ "", "MiB" },
		{ "k", "KiB" },
		{ "ki", "KiB" },
		{ "kib", "KiB" },
		{ "kb", "kB" },
		{ "m", "MiB" },
		{ "mi", "MiB" },
		{ "mib", "MiB" },
		{ "mb", "MB" },
		{ "mbyte", "MB" },
		{ "g", "GiB" },
		{ "gi", "GiB" },
		{ "gib", "GiB" },
		{ "gb", "GB" },
		{ "gbyte", "GB" },
		{ "gig", "GiB" },
		{ "gigabytes", "GB" },
		{ "t", "TiB" },
		{ "ti", "TiB" },
		{ "tib", "TiB" },
		{ "tb", "TB" },
	};
	char number[24];
	const char *unit, *meant;
	struct size_value size;
	if (!split_number(text, number, &unit) || !find_slip(slips, ARRAY_SIZE(slips), unit, &meant))
		return false;
	int length = snprintf(buffer, buffer_size, "%s%s", number, meant);
	return length > 0 && (size_t)length < buffer_size && parse_size(buffer, &size) == 0;
}

bool hint_for_small_size(const char *text, char *buffer, size_t buffer_size)
{
	static const struct unit_slip slips[] = {
		{ "", "GiB" },
		{ "mib", "GiB" },
		{ "mb", "GB" },
		{ "kib", "MiB" },
		{ "kb", "MB" },
	};
	char number[24];
	const char *unit, *meant;
	struct size_value size;
	if (!split_number(text, number, &unit) || !find_slip(slips, ARRAY_SIZE(slips), unit, &meant))
		return false;
	int length = snprintf(buffer, buffer_size, "%s%s", number, meant);
	return length > 0 && (size_t)length < buffer_size && parse_size(buffer, &size) == 0 && size.mib >= 64;
}

bool hint_for_duration(const char *text, char *buffer, size_t buffer_size)
{
	static const struct unit_slip slips[] = {
		{ "", "s" },
		{ "s", "s" },
		{ "sec", "s" },
		{ "secs", "s" },
		{ "second", "s" },
		{ "seconds", "s" },
		{ "m", "m" },
		{ "min", "m" },
		{ "mins", "m" },
		{ "minute", "m" },
		{ "minutes", "m" },
		{ "h", "h" },
		{ "hr", "h" },
		{ "hrs", "h" },
		{ "hour", "h" },
		{ "hours", "h" },
		{ "msec", "ms" },
		{ "msecs", "ms" },
		{ "millis", "ms" },
		{ "milliseconds", "ms" },
	};
	char number[24];
	const char *unit, *meant;
	uint64_t ms;
	if (!split_number(text, number, &unit))
		return false;
	int length = -1;
	if (strcmp(unit, "d") == 0 || strcmp(unit, "day") == 0 || strcmp(unit, "days") == 0) {
		if (strlen(number) <= 4 && strchr(number, '.') == NULL)
			length = snprintf(buffer, buffer_size, "%dh", 24 * atoi(number));
	} else if (find_slip(slips, ARRAY_SIZE(slips), unit, &meant)) {
		length = snprintf(buffer, buffer_size, "%s%s", number, meant);
	}
	return length > 0 && (size_t)length < buffer_size && parse_duration(buffer, &ms) == 0;
}
