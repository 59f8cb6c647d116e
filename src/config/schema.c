/*
 * The option table and the ways to walk it. It says everything that is known of a key; it must hold no code that is
 * about one key alone (that is what value types and check.c are for).
 */
#include "config/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "core/gpu.h"
#include "core/lease.h"

#define FILE_AT(field) .offset = offsetof(struct config, field)
#define PHASE_AT(field) .offset = offsetof(struct phase_config, field)
#define SERVICE_AT(field) .offset = offsetof(struct service_config, field)

#define MS(seconds) ((int64_t)(seconds)*1000)
#define YEARS_10 MS(10 * 365 * 24 * 3600LL)

static const struct choice gpu_backends[] = {
	{ "auto", GPU_BACKEND_AUTO },
	{ "nvml", GPU_BACKEND_NVML },
	{ "sim", GPU_BACKEND_SIM },
	{ "none", GPU_BACKEND_NONE },
	{ NULL, 0 },
};

static const struct choice lock_backends[] = {
	{ "local", LOCK_BACKEND_LOCAL },
	{ "redis", LOCK_BACKEND_REDIS },
	{ NULL, 0 },
};

static const struct choice process_types[] = {
	{ "simple", PROCESS_SIMPLE },
	{ "forking", PROCESS_FORKING },
	{ NULL, 0 },
};

static const struct choice exits[] = {
	{ "keep", ON_EXIT_KEEP },
	{ "stop", ON_EXIT_STOP },
	{ NULL, 0 },
};
static const struct choice external_starts[] = {
	{ "adopt", EXTERNAL_ADOPT },
	{ "stop", EXTERNAL_STOP },
	{ NULL, 0 },
};

const struct option option_root = {
	.path = "",
	.type = &type_section,
	.meaning = "the file",
	.example = "version: 1",
};

const struct option option_table[] = {
	{ .path = "version",
		.type = &type_version,
		.flags = OPTION_REQUIRED,
		.meaning = "The version of this file's format, which is 1" },
	{ .path = "socket",
		.type = &type_socket_path,
		FILE_AT(socket),
		.example = "/run/gpumgr/gpumgr.sock",
		.fallback_text = "/run/gpumgr/gpumgr.sock; as a user $XDG_RUNTIME_DIR/gpumgr/gpumgr.sock",
		.flags = OPTION_AT_START,
		.meaning = "The Unix socket that clients connect to" },
	{ .path = "socket_mode",
		.type = &type_mode,
		FILE_AT(socket_mode),
		.fallback = "0660",
		.flags = OPTION_AT_START,
		.meaning = "Permissions of the socket, in octal" },
	{ .path = "socket_group",
		.type = &type_account,
		FILE_AT(socket_group),
		.fallback = "gpumgr",
		.fallback_text = "gpumgr, where that group exists",
		.written_offset = offsetof(struct config, socket_group_set),
		.example = "video",
		.flags = OPTION_AT_START,
		.meaning = "Group of the socket, as a name or a number. Its members may use the GPU; when it is "
			   "written here, it must exist" },
	{ .path = "listen",
		.type = &type_listen,
		FILE_AT(listen),
		.example = "[127.0.0.1:8700]",
		.flags = OPTION_AT_START,
		.meaning = "TCP addresses to listen on besides the socket, also such as come up later. Needs "
			   "`token_file`, or `open: true`" },
	{ .path = "token_file",
		.type = &type_path,
		FILE_AT(token_file),
		.example = "/etc/gpumgr/token",
		.flags = OPTION_AT_START,
		.meaning = "File with the secret that TCP clients send as a bearer token" },
	{ .path = "open",
		.type = &type_boolean,
		FILE_AT(open),
		.fallback = "false",
		.flags = OPTION_AT_START,
		.meaning = "Let everybody in who reaches a TCP address, without a token" },
	{ .path = "allowed_hosts",
		.type = &type_hosts,
		FILE_AT(allowed_hosts),
		.example = "[gpu.example.org]",
		.meaning = "Names that clients may call this host by, besides loopback, its own addresses and names "
			   "that end in .internal" },
	{ .path = "state_dir",
		.type = &type_path,
		FILE_AT(state_dir),
		.example = "/var/lib/gpumgr",
		.fallback_text = "/var/lib/gpumgr; as a user $XDG_STATE_HOME/gpumgr",
		.flags = OPTION_AT_START,
		.meaning = "Folder for what must survive a restart of the daemon" },
	{ .path = "log_dir",
		.type = &type_path,
		FILE_AT(log_dir),
		.example = "/var/log/gpumgr",
		.fallback_text = "/var/log/gpumgr; as a user `log` in the state folder",
		.flags = OPTION_AT_START,
		.meaning = "Folder for what the services write" },

	{ .path = "gpu", .type = &type_section, .meaning = "The GPUs of this host" },
	{ .path = "gpu.backend",
		.type = &type_choice,
		FILE_AT(gpu.backend),
		.fallback = "auto",
		.choices = gpu_backends,
		.flags = OPTION_AT_START,
		.meaning = "Where readings come from: the first that works, the NVIDIA library, the simulated GPU, or "
			   "nowhere" },
	{ .path = "gpu.reserve",
		.type = &type_size,
		FILE_AT(gpu.reserve),
		.fallback = "1GiB",
		.min = 64,
		.flags = OPTION_OR_ZERO,
		.meaning = "Kept free on each GPU for the desktop and the driver" },
	{ .path = "gpu.gpus",
		.type = &type_sizes,
		FILE_AT(gpu.gpus_mib),
		.count_offset = offsetof(struct config, gpu.n_gpus),
		.min = 64,
		.max = GPU_MAX,
		.fallback_text = "from readings",
		.example = "[24GiB]",
		.meaning = "The memory of each GPU, in order. Needed only where nothing can be read" },
	{ .path = "gpu.interval",
		.type = &type_duration,
		FILE_AT(gpu.interval_ms),
		.fallback = "2s",
		.min = 10,
		.max = MS(3600),
		.flags = OPTION_AT_START,
		.meaning = "Between two readings while nothing happens" },
	{ .path = "gpu.sim",
		.type = &type_section,
		.flags = OPTION_IF_WRITTEN,
		.meaning = "The simulated GPU, for tests and demonstrations. Needs `backend: sim`" },
	{ .path = "gpu.sim.dir",
		.type = &type_path,
		FILE_AT(gpu.sim_dir),
		.flags = OPTION_REQUIRED | OPTION_AT_START,
		.example = "/tmp/gpumgr-sim",
		.meaning = "Folder with a file for each process and what it holds" },
	{ .path = "gpu.sim.gpus",
		.type = &type_sizes,
		FILE_AT(gpu.sim_gpus_mib),
		.count_offset = offsetof(struct config, gpu.n_sim_gpus),
		.min = 64,
		.max = GPU_MAX,
		.flags = OPTION_REQUIRED | OPTION_AT_START,
		.example = "[24GiB]",
		.meaning = "The memory of each simulated GPU" },

	{ .path = "lock", .type = &type_section, .meaning = "The lock that keeps the managers of several hosts apart" },
	{ .path = "lock.backend",
		.type = &type_choice,
		FILE_AT(lock.backend),
		.fallback = "local",
		.choices = lock_backends,
		.flags = OPTION_AT_START,
		.meaning = "local: this host alone. redis: shared through a Redis server" },
	{ .path = "lock.url",
		.type = &type_lock_url,
		FILE_AT(lock.url),
		.flags = OPTION_SECRET | OPTION_AT_START,
		.example = "redis://127.0.0.1:6379/0",
		.meaning = "The Redis server: redis://, rediss://, unix:// or redis+sentinel://" },
	{ .path = "lock.key",
		.type = &type_text,
		FILE_AT(lock.key),
		.fallback = "gpu_mutex_v2",
		.example = "gpu_mutex_v2",
		.flags = OPTION_AT_START,
		.meaning = "Name of the lock in Redis; `${HOST}` in it becomes the name of this host" },
	{ .path = "lock.ttl",
		.type = &type_duration,
		FILE_AT(lock.ttl_ms),
		.fallback = "30s",
		.min = 100,
		.max = MS(86400),
		.flags = OPTION_AT_START,
		.meaning = "For how long the lock outlives a daemon that died; it is renewed long before" },

	{ .path = "lease", .type = &type_section, .meaning = "Defaults of leases" },
	{ .path = "lease.ttl",
		.type = &type_duration,
		FILE_AT(lease.ttl_ms),
		.fallback = "600s",
		.min = 100,
		.max = LEASE_TTL_MAX_MS,
		.meaning = "For how long a lease lives that is not attached to a connection and is not renewed; at "
			   "most 168h" },
	{ .path = "lease.wait",
		.type = &type_duration,
		FILE_AT(lease.wait_ms),
		.fallback = "600s",
		.max = LEASE_WAIT_MAX_MS,
		.meaning = "For how long a request waits for its turn when it does not say; at most 168h" },

	{ .path = "phases", .type = &type_phases, .meaning = "The steps of the pipeline, by number" },
	{ .path = "phases.*",
		.type = &type_section,
		.example = "{name: video, services: [comfyui]}",
		.meaning = "One step; its number is a positive integer" },
	{ .path = "phases.*.name",
		.type = &type_phase_name,
		PHASE_AT(name),
		.example = "video",
		.meaning = "The name of the phase, which works wherever its number does" },
	{ .path = "phases.*.services",
		.type = &type_service_names,
		PHASE_AT(service_names),
		.example = "[comfyui]",
		.fallback_text = "none",
		.meaning = "The services that must be ready in this phase" },

	{ .path = "services", .type = &type_services, .meaning = "The programs that use the GPU, by name" },
	{ .path = "services.*",
		.type = &type_section,
		.example = "{vram: 4GiB, ...}",
		.meaning = "One service; its name has small letters, digits, `_` and `-`, begins with a letter or "
			   "digit and is 63 characters at most" },
	{ .path = "services.*.vram",
		.type = &type_size,
		SERVICE_AT(vram),
		.min = 64,
		.flags = OPTION_REQUIRED,
		.meaning = "The most that it holds on one GPU" },
	{ .path = "services.*.priority",
		.type = &type_integer,
		SERVICE_AT(priority),
		.fallback = "50",
		.min = -1000000,
		.max = 1000000,
		.meaning = "Higher is more important" },
	{ .path = "services.*.gpus",
		.type = &type_gpus,
		.fallback = "any",
		.example = "[0]",
		.flags = OPTION_AT_RUN,
		.meaning = "The GPUs that it may use: any, or a list of indexes or UUIDs. A container stands where its "
			   "definition puts it, so name the same ones here" },
	{ .path = "services.*.gpu_count",
		.type = &type_count,
		SERVICE_AT(gpu_count),
		.fallback = "1",
		.min = 1,
		.max = GPU_MAX,
		.flags = OPTION_AT_RUN,
		.meaning = "On how many of them it runs at a time; `vram` is needed on each" },
	{ .path = "services.*.pinned",
		.type = &type_boolean,
		SERVICE_AT(pinned),
		.fallback = "false",
		.meaning = "Never evicted for others, only stopped by name" },
	{ .path = "services.*.yield_after",
		.type = &type_duration_or_never,
		SERVICE_AT(yield_after_ms),
		.fallback = "60s",
		.max = YEARS_10,
		.written_offset = offsetof(struct service_config, yield_set),
		.fallback_text = "60s once it was leased, before that never",
		.meaning = "Idle for so long, it may be evicted by any request" },
	{ .path = "services.*.preempt_after",
		.type = &type_duration_or_never,
		SERVICE_AT(preempt_after_ms),
		.fallback = "never",
		.max = YEARS_10,
		.meaning = "Grace after which a lease on it may be broken for a higher priority or a phase" },
	{ .path = "services.*.max_leases",
		.type = &type_count,
		SERVICE_AT(max_leases),
		.fallback = "1000",
		.min = 1,
		.max = 1000000,
		.meaning = "Shared leases at a time" },
	{ .path = "services.*.on_exit",
		.type = &type_choice,
		SERVICE_AT(on_exit),
		.fallback = "keep",
		.choices = exits,
		.meaning = "When gpumgrd is told to end: keep it running, for the next gpumgrd to find, or stop it "
			   "first" },

	{ .path = "services.*.process",
		.type = &type_section,
		.flags = OPTION_IF_WRITTEN,
		.one_of = 1,
		.example = "{command: [/opt/x/start.sh]}",
		.meaning = "The service is a process that the daemon starts" },
	{ .path = "services.*.process.command",
		.type = &type_command,
		SERVICE_AT(process.command),
		.flags = OPTION_REQUIRED | OPTION_SHELL | OPTION_AT_RUN,
		.meaning =
			"What to run: a list of words, or a string that is split into words at spaces outside quotes. "
			"What has no / in its name is looked up in the service's PATH, the system's folders" },
	{ .path = "services.*.process.shell",
		.type = &type_boolean,
		SERVICE_AT(process.shell),
		.fallback = "false",
		.flags = OPTION_EARLY | OPTION_AT_RUN,
		.meaning = "Give `command` and `stop_command` to /bin/sh as they stand" },
	{ .path = "services.*.process.environment",
		.type = &type_environment,
		SERVICE_AT(process.environment),
		.fallback_text = "nothing added",
		.example = "{HF_HOME: /srv/hf}",
		.flags = OPTION_AT_RUN,
		.meaning = "Environment variables, as a mapping or as a list of NAME=VALUE" },
	{ .path = "services.*.process.directory",
		.type = &type_path,
		SERVICE_AT(process.directory),
		.fallback_text = "/",
		.example = "/opt/comfyui",
		.flags = OPTION_AT_RUN,
		.meaning = "The folder it runs in" },
	{ .path = "services.*.process.user",
		.type = &type_account,
		SERVICE_AT(process.user),
		.fallback_text = "that of the daemon",
		.example = "comfy",
		.flags = OPTION_AT_RUN,
		.meaning =
			"The user it runs as, by name or number. A daemon of root should have one for each service" },
	{ .path = "services.*.process.type",
		.type = &type_choice,
		SERVICE_AT(process.type),
		.fallback = "simple",
		.choices = process_types,
		.flags = OPTION_AT_RUN,
		.meaning = "simple: the command is the service. forking: the command ends and leaves the service "
			   "running" },
	{ .path = "services.*.process.pid_file",
		.type = &type_path,
		SERVICE_AT(process.pid_file),
		.example = "/run/x.pid",
		.flags = OPTION_AT_RUN,
		.meaning =
			"File in which the service writes its process id, to find it when it was started by others" },
	{ .path = "services.*.process.stop_command",
		.type = &type_command,
		SERVICE_AT(process.stop_command),
		.flags = OPTION_SHELL | OPTION_AT_RUN,
		.fallback_text = "the stop signal",
		.meaning = "Stops the service in place of the signal" },
	{ .path = "services.*.process.stop_signal",
		.type = &type_signal,
		SERVICE_AT(process.stop_signal),
		.fallback = "SIGTERM",
		.flags = OPTION_AT_RUN,
		.meaning = "What asks the service to end" },
	{ .path = "services.*.process.stop_timeout",
		.type = &type_duration,
		SERVICE_AT(process.stop_timeout_ms),
		.fallback = "30s",
		.max = MS(86400),
		.flags = OPTION_AT_RUN,
		.meaning = "From the stop signal to the kill" },
	{ .path = "services.*.process.log_size",
		.type = &type_bytes,
		SERVICE_AT(process.log_size),
		.fallback = "10MiB",
		.min = 1,
		.max = 1 << 20,
		.flags = OPTION_AMOUNT | OPTION_AT_RUN,
		.meaning = "The log is rotated at this size; one older part is kept" },

	{ .path = "services.*.container",
		.type = &type_section,
		.flags = OPTION_IF_WRITTEN,
		.one_of = 1,
		.example = "{name: mcn_ollama}",
		.meaning = "The service is a container that exists already; the daemon starts and stops it, and never "
			   "makes one" },
	{ .path = "services.*.container.name",
		.type = &type_container_name,
		SERVICE_AT(container.name),
		.one_of = 2,
		.example = "mcn_ollama",
		.flags = OPTION_AT_RUN,
		.meaning =
			"The name of the container, as `docker create --name` or Compose's `container_name` gave it" },
	{ .path = "services.*.container.compose",
		.type = &type_section,
		.one_of = 2,
		.example = "{project: mcn, service: ollama}",
		.meaning =
			"A service of a Compose project in place of a name: found by Compose's labels, and found again "
			"when Compose re-creates it" },
	{ .path = "services.*.container.compose.project",
		.type = &type_compose_project,
		SERVICE_AT(container.compose_project),
		.flags = OPTION_REQUIRED | OPTION_AT_RUN,
		.example = "mcn",
		.meaning =
			"The Compose project: the name of its folder in lower case, unless Compose was told another" },
	{ .path = "services.*.container.compose.service",
		.type = &type_compose_service,
		SERVICE_AT(container.compose_service),
		.flags = OPTION_REQUIRED | OPTION_AT_RUN,
		.example = "ollama",
		.meaning = "The service within the project, as the Compose file calls it" },
	{ .path = "services.*.container.engine",
		.type = &type_engine,
		SERVICE_AT(container.engine),
		.fallback = "unix:///var/run/docker.sock",
		.flags = OPTION_AT_RUN,
		.meaning = "The socket of the container engine: Docker's, or Podman's compatible one, "
			   "unix:///run/podman/podman.sock. Not written, it is that of DOCKER_HOST, if that is set" },
	{ .path = "services.*.container.stop_timeout",
		.type = &type_duration,
		SERVICE_AT(container.stop_timeout_ms),
		.fallback = "30s",
		.max = MS(86400),
		.flags = OPTION_AT_RUN,
		.meaning = "From asking the container to stop, by the signal that its image names, to killing it" },
	{ .path = "services.*.container.on_external_start",
		.type = &type_choice,
		SERVICE_AT(container.on_external_start),
		.fallback = "adopt",
		.choices = external_starts,
		.flags = OPTION_AT_RUN,
		.meaning = "When somebody else starts the container: adopt it and make room for it, or stop it again" },

	{ .path = "services.*.health",
		.type = &type_section,
		.flags = OPTION_REQUIRED | OPTION_IF_WRITTEN,
		.example = "{http: \"http://127.0.0.1:8188/\"}",
		.meaning = "How to see that the service works. Exactly one of http, tcp, command, container" },
	{ .path = "services.*.health.http",
		.type = &type_probe_http,
		SERVICE_AT(health),
		.one_of = 3,
		.flags = OPTION_OWN_ADDRESS,
		.meaning = "URL that answers with a status of 200 to 299. `:8080/path` means the container's own "
			   "address" },
	{ .path = "services.*.health.tcp",
		.type = &type_probe_tcp,
		SERVICE_AT(health),
		.one_of = 3,
		.flags = OPTION_OWN_ADDRESS,
		.meaning = "HOST:PORT that accepts connections. `:8080` means the container's own address" },
	{ .path = "services.*.health.command",
		.type = &type_probe_command,
		SERVICE_AT(health),
		.one_of = 3,
		.meaning = "Command that ends with status 0; run with `process.user`, its folder and environment" },
	{ .path = "services.*.health.container",
		.type = &type_probe_container,
		SERVICE_AT(health),
		.one_of = 3,
		.example = "true",
		.meaning = "The engine's own check of the container: HEALTHCHECK of the image, or `healthcheck` of "
			   "Compose" },
	{ .path = "services.*.health.timeout",
		.type = &type_duration,
		SERVICE_AT(health_timeout_ms),
		.fallback = "120s",
		.min = 1,
		.max = MS(7 * 86400),
		.meaning = "From the start to the first good check; later than that, the start has failed" },
	{ .path = "services.*.health.interval",
		.type = &type_duration,
		SERVICE_AT(health_interval_ms),
		.fallback = "5s",
		.min = 10,
		.max = MS(86400),
		.meaning = "Between two checks of a ready service" },
	{ .path = "services.*.health.retries",
		.type = &type_count,
		SERVICE_AT(health_retries),
		.fallback = "3",
		.min = 1,
		.max = 1000,
		.meaning = "That many failures in a row make a ready service unhealthy" },

	{ .path = "services.*.busy",
		.type = &type_section,
		.flags = OPTION_IF_WRITTEN,
		.example = "{http: \"http://127.0.0.1:8188/prompt\", json: exec_info.queue_remaining}",
		.meaning = "How to see that the service works on something although nobody holds a lease. Exactly one "
			   "of http, command" },
	{ .path = "services.*.busy.http",
		.type = &type_probe_http,
		SERVICE_AT(busy),
		.one_of = 4,
		.flags = OPTION_OWN_ADDRESS,
		.meaning = "URL to ask" },
	{ .path = "services.*.busy.command",
		.type = &type_probe_command,
		SERVICE_AT(busy),
		.one_of = 4,
		.meaning = "Command that ends with status 0 while the service is busy; run as that of `health`" },
	{ .path = "services.*.busy.json",
		.type = &type_json_path,
		SERVICE_AT(busy.json),
		.example = "queue.running[0].count",
		.meaning = "Where in the answer the number stands that says how busy it is" },
	{ .path = "services.*.busy.above",
		.type = &type_number,
		SERVICE_AT(busy.above),
		.fallback = "0",
		.meaning = "A larger number than this is busy" },
};
const size_t option_count = ARRAY_SIZE(option_table);

_Static_assert(ARRAY_SIZE(option_table) <= OPTION_MAX, "struct marks has no room for so many options");

enum option_scope option_scope(const struct option *option)
{
	if (strncmp(option->path, "services.*.", strlen("services.*.")) == 0)
		return SCOPE_SERVICE;
	if (strncmp(option->path, "phases.*.", strlen("phases.*.")) == 0)
		return SCOPE_PHASE;
	return SCOPE_FILE;
}

size_t option_index(const struct option *option)
{
	return (size_t)(option - option_table);
}

const struct option *option_find(const char *path)
{
	for (size_t i = 0; i < option_count; i++)
		if (strcmp(option_table[i].path, path) == 0)
			return &option_table[i];
	return NULL;
}

static bool is_child(const struct option *section, const struct option *option)
{
	size_t length = strlen(section->path);
	const char *rest = option->path;
	if (length > 0) {
		if (strncmp(rest, section->path, length) != 0 || rest[length] != '.')
			return false;
		rest += length + 1;
	}
	return strchr(rest, '.') == NULL;
}

const struct option *option_next_child(const struct option *section, const struct option *previous)
{
	const struct option *option = previous == NULL ? option_table : previous + 1;
	for (; option < option_table + option_count; option++)
		if (is_child(section, option))
			return option;
	return NULL;
}

const struct option *option_child(const struct option *section, const char *key)
{
	const struct option *option = NULL;
	while ((option = option_next_child(section, option)) != NULL)
		if (strcmp(option_name(option), key) == 0)
			return option;
	return NULL;
}

const char *option_name(const struct option *option)
{
	const char *dot = strrchr(option->path, '.');
	return dot == NULL ? option->path : dot + 1;
}

const char *option_display(const struct option *option, char *buffer, size_t buffer_size)
{
	const char *name = strncmp(option->path, "phases", strlen("phases")) == 0 ? "N" : "NAME";
	const char *star = strchr(option->path, '*');
	if (star == NULL)
		snprintf(buffer, buffer_size, "%s", option->path);
	else
		snprintf(buffer, buffer_size, "%.*s%s%s", (int)(star - option->path), option->path, name, star + 1);
	return buffer;
}

static void list_choices(const struct choice *choices, char *buffer, size_t buffer_size)
{
	size_t length = (size_t)snprintf(buffer, buffer_size, "one of ");
	for (const struct choice *choice = choices; choice->name != NULL && length < buffer_size; choice++)
		length += (size_t)snprintf(
			buffer + length, buffer_size - length, "%s%s", choice == choices ? "" : ", ", choice->name);
}

const char *option_expected(const struct option *option, char *buffer, size_t buffer_size)
{
	if (option->choices != NULL)
		list_choices(option->choices, buffer, buffer_size);
	else if (option->type->is_number)
		snprintf(buffer, buffer_size, "an integer from %" PRId64 " to %" PRId64, option->min, option->max);
	else if (option->type == &type_section && option->example != NULL)
		snprintf(buffer, buffer_size, "%s such as %s", option->type->expected, option->example);
	else
		snprintf(buffer, buffer_size, "%s", option->type->expected);
	return buffer;
}
