/* Every key of the table: what it sets, its default, and the exact line that a wrong value gets. */
#include "support.h"

#include <signal.h>

#include "base/cleanup.h"
#include "config/schema.h"
#include "core/lease.h"

static void test_defaults_of_the_file(void **state)
{
	(void)state;
	struct config *config = expect_config("version: 1\n");
	assert_string_equal(config->path, "f");
	assert_null(config->socket);
	assert_int_equal(config->socket_mode, 0660);
	assert_string_equal(config->socket_group, "gpumgr");
	assert_false(config->socket_group_set);
	assert_int_equal(config->listen.n, 0);
	assert_null(config->token_file);
	assert_false(config->open);
	assert_int_equal(config->allowed_hosts.n, 0);
	assert_null(config->state_dir);
	assert_null(config->log_dir);
	assert_int_equal(config->gpu.backend, GPU_BACKEND_AUTO);
	assert_int_equal(config->gpu.reserve.mib, 1024);
	assert_int_equal(config->gpu.reserve.percent, 0);
	assert_int_equal(config->gpu.n_gpus, 0);
	assert_int_equal(config->gpu.interval_ms, 2000);
	assert_null(config->gpu.sim_dir);
	assert_int_equal(config->gpu.n_sim_gpus, 0);
	assert_int_equal(config->lock.backend, LOCK_BACKEND_LOCAL);
	assert_null(config->lock.url);
	assert_string_equal(config->lock.key, "gpu_mutex_v2");
	assert_int_equal(config->lock.ttl_ms, 30000);
	assert_int_equal(config->lease.ttl_ms, 600000);
	assert_int_equal(config->lease.wait_ms, 600000);
	assert_int_equal(config->n_phases, 0);
	assert_int_equal(config->n_services, 0);
	config_free(config);
}

static void test_defaults_of_a_process(void **state)
{
	(void)state;
	struct config *config = expect_config(SERVICE);
	struct service_config *service = service_of(config);
	assert_string_equal(service->name, "x");
	assert_int_equal(service->line, 3);
	assert_int_equal(service->vram.mib, 4096);
	assert_int_equal(service->priority, 50);
	assert_true(service->any_gpu);
	assert_int_equal(service->n_selectors, 0);
	assert_int_equal(service->gpu_count, 1);
	assert_false(service->pinned);
	assert_false(service->yield_set);
	assert_int_equal(service->yield_after_ms, 60000);
	assert_true(service->preempt_after_ms == INT64_MAX);
	assert_int_equal(service->max_leases, 1000);
	assert_int_equal(service->driver, DRIVER_PROCESS);
	assert_int_equal(service->process.command.n, 1);
	assert_string_equal(service->process.command.items[0], "/bin/x");
	assert_false(service->process.shell);
	assert_int_equal(service->process.environment.n, 0);
	assert_null(service->process.directory);
	assert_null(service->process.user);
	assert_int_equal(service->process.type, PROCESS_SIMPLE);
	assert_null(service->process.pid_file);
	assert_int_equal(service->process.stop_command.n, 0);
	assert_int_equal(service->process.stop_signal, SIGTERM);
	assert_int_equal(service->process.stop_timeout_ms, 30000);
	assert_int_equal(service->process.log_size, 10 << 20);
	assert_int_equal(service->on_exit, ON_EXIT_KEEP);
	assert_int_equal(service->health.kind, PROBE_TCP);
	assert_int_equal(service->health_timeout_ms, 120000);
	assert_int_equal(service->health_interval_ms, 5000);
	assert_int_equal(service->health_retries, 3);
	assert_int_equal(service->busy.kind, PROBE_NONE);
	assert_null(service->busy.address);
	assert_null(service->container.engine);
	config_free(config);
}

static void test_defaults_of_a_container(void **state)
{
	(void)state;
	struct config *config = expect_config(NO_DRIVER "    container: {name: mcn_x}\n");
	struct service_config *service = service_of(config);
	assert_int_equal(service->driver, DRIVER_CONTAINER);
	assert_string_equal(service->container.name, "mcn_x");
	assert_null(service->container.compose_project);
	assert_string_equal(service->container.engine, "unix:///var/run/docker.sock");
	assert_int_equal(service->container.stop_timeout_ms, 30000);
	assert_int_equal(service->container.on_external_start, EXTERNAL_ADOPT);
	assert_int_equal(service->process.stop_timeout_ms, 0);
	config_free(config);
}

/* The fallbacks of the table are themselves values that the file could hold. */
static void test_defaults_can_be_written(void **state)
{
	(void)state;
	struct config *config = expect_config(
		"version: 1\nsocket_mode: 0660\nsocket_group: gpumgr\nopen: false\n"
		"gpu: {backend: auto, reserve: 1GiB, interval: 2s}\n"
		"lock: {backend: local, key: gpu_mutex_v2, ttl: 30s}\nlease: {ttl: 600s, wait: 600s}\n"
		"services:\n  x:\n    vram: 64\n    priority: 50\n    gpus: any\n    gpu_count: 1\n    pinned: false\n"
		"    yield_after: 60s\n    preempt_after: never\n    max_leases: 1000\n    on_exit: keep\n"
		"    process: {command: x, shell: false, type: simple, stop_signal: SIGTERM, stop_timeout: 30s, "
		"log_size: 10MiB}\n"
		"    health: {tcp: 'h:1', timeout: 120s, interval: 5s, retries: 3}\n");
	assert_true(config->socket_group_set);
	assert_true(service_of(config)->yield_set);
	assert_int_equal(service_of(config)->yield_after_ms, 60000);
	config_free(config);
}

static void test_top_of_the_file(void **state)
{
	(void)state;
	struct config *config = expect_config("version: 1\nsocket: /run/g.sock\nsocket_mode: \"0600\"\n"
					      "socket_group: 44\nlisten: [127.0.0.1:8700, \"[::1]:8700\", host.lan:1]\n"
					      "token_file: /etc/t\nallowed_hosts: [gpu.lan, 10.0.0.1]\n"
					      "state_dir: /s\nlog_dir: /l\n");
	assert_string_equal(config->socket, "/run/g.sock");
	assert_int_equal(config->socket_mode, 0600);
	assert_string_equal(config->socket_group, "44");
	assert_true(config->socket_group_set);
	assert_int_equal(config->listen.n, 3);
	assert_string_equal(config->listen.items[1], "[::1]:8700");
	assert_string_equal(config->token_file, "/etc/t");
	assert_int_equal(config->allowed_hosts.n, 2);
	assert_string_equal(config->allowed_hosts.items[0], "gpu.lan");
	assert_string_equal(config->state_dir, "/s");
	assert_string_equal(config->log_dir, "/l");
	config_free(config);
	config = expect_config("version: 1\nlisten: [\"0.0.0.0:1\"]\nopen: yes\n");
	assert_true(config->open);
	config_free(config);
}

static void test_gpu_lock_and_lease(void **state)
{
	(void)state;
	struct config *config = expect_config(
		"version: 1\ngpu:\n  backend: sim\n  reserve: 5%\n  gpus: [24GiB]\n  interval: 500ms\n"
		"  sim: {dir: /tmp/sim, gpus: [24576, 16GiB]}\n"
		"lock: {backend: redis, url: \"rediss://u:p@r.lan:6379/2\", key: \"gpu_${HOST}\", ttl: 1m}\n"
		"lease: {ttl: 5m, wait: 0}\n");
	assert_int_equal(config->gpu.backend, GPU_BACKEND_SIM);
	assert_int_equal(config->gpu.reserve.percent, 5);
	assert_int_equal(config->gpu.n_gpus, 1);
	assert_int_equal(config->gpu.gpus_mib[0], 24576);
	assert_int_equal(config->gpu.interval_ms, 500);
	assert_string_equal(config->gpu.sim_dir, "/tmp/sim");
	assert_int_equal(config->gpu.n_sim_gpus, 2);
	assert_int_equal(config->gpu.sim_gpus_mib[0], 24576);
	assert_int_equal(config->gpu.sim_gpus_mib[1], 16384);
	assert_int_equal(config->lock.backend, LOCK_BACKEND_REDIS);
	assert_string_equal(config->lock.url, "rediss://u:p@r.lan:6379/2");
	assert_string_equal(config->lock.key, "gpu_${HOST}");
	assert_int_equal(config->lock.ttl_ms, 60000);
	assert_int_equal(config->lease.ttl_ms, 300000);
	assert_int_equal(config->lease.wait_ms, 0);
	config_free(config);
	config = expect_config("version: 1\nlease: {ttl: 168h, wait: 168h}\n");
	assert_int_equal(config->lease.ttl_ms, LEASE_TTL_MAX_MS);
	assert_int_equal(config->lease.wait_ms, LEASE_WAIT_MAX_MS);
	config_free(config);
	config = expect_config("version: 1\ngpu: {backend: none, reserve: 0}\n");
	assert_int_equal(config->gpu.backend, GPU_BACKEND_NONE);
	assert_int_equal(config->gpu.reserve.mib, 0);
	config_free(config);
}

static void test_service_keys(void **state)
{
	(void)state;
	struct config *config = expect_config(SERVICE "    priority: -7\n"
						      "    gpus: [2, GPU-8932f937-d72c-4106-c12f-20bd9faed9f6]\n"
						      "    gpu_count: 2\n    pinned: true\n    yield_after: never\n"
						      "    preempt_after: 0\n    max_leases: 3\n");
	struct service_config *service = service_of(config);
	assert_int_equal(service->priority, -7);
	assert_false(service->any_gpu);
	assert_int_equal(service->n_selectors, 2);
	assert_int_equal(service->selectors[0].index, 2);
	assert_null(service->selectors[0].uuid);
	assert_int_equal(service->selectors[1].index, -1);
	assert_string_equal(service->selectors[1].uuid, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6");
	assert_int_equal(service->gpu_count, 2);
	assert_true(service->pinned);
	assert_true(service->yield_set);
	assert_true(service->yield_after_ms == INT64_MAX);
	assert_int_equal(service->preempt_after_ms, 0);
	assert_int_equal(service->max_leases, 3);
	config_free(config);
}

static void test_process_keys(void **state)
{
	(void)state;
	struct config *config = expect_config(
		"version: 1\nservices:\n  x:\n    vram: 80%\n    health: {command: \"test -e '/run/a b'\"}\n"
		"    process:\n      command: \"cd /x && exec ./run\"\n      shell: true\n"
		"      environment: {A: 1, B: \"\", C_2: \"x=y\", D: true}\n      directory: /x\n      user: 1000\n"
		"      type: forking\n      pid_file: /run/x.pid\n      stop_command: exec /x/stop $PPID\n"
		"      stop_signal: int\n      stop_timeout: 0\n      log_size: 1GiB\n");
	struct service_config *service = service_of(config);
	struct process_config *process = &service->process;
	assert_int_equal(service->vram.percent, 80);
	assert_int_equal(process->command.n, 1);
	assert_string_equal(process->command.items[0], "cd /x && exec ./run");
	assert_true(process->shell);
	assert_int_equal(process->environment.n, 4);
	assert_string_equal(process->environment.items[0], "A=1");
	assert_string_equal(process->environment.items[1], "B=");
	assert_string_equal(process->environment.items[2], "C_2=x=y");
	assert_string_equal(process->environment.items[3], "D=true");
	assert_string_equal(process->directory, "/x");
	assert_string_equal(process->user, "1000");
	assert_int_equal(process->type, PROCESS_FORKING);
	assert_string_equal(process->pid_file, "/run/x.pid");
	assert_int_equal(process->stop_command.n, 1);
	assert_string_equal(process->stop_command.items[0], "exec /x/stop $PPID");
	assert_int_equal(process->stop_signal, SIGINT);
	assert_int_equal(process->stop_timeout_ms, 0);
	assert_true(process->log_size == (uint64_t)1 << 30);
	assert_int_equal(service->health.kind, PROBE_COMMAND);
	assert_int_equal(service->health.command.n, 3);
	assert_string_equal(service->health.command.items[2], "/run/a b");
	config_free(config);
}

static void test_environment_as_list(void **state)
{
	(void)state;
	struct config *config =
		expect_config(NO_DRIVER "    process: {command: x, environment: [A=1, _B=, \"C=a b\"]}\n");
	struct string_list *environment = &service_of(config)->process.environment;
	assert_int_equal(environment->n, 3);
	assert_string_equal(environment->items[1], "_B=");
	assert_string_equal(environment->items[2], "C=a b");
	config_free(config);
}

static void test_shell_counts_wherever_it_stands(void **state)
{
	(void)state;
	struct config *config =
		expect_config(NO_DRIVER "    process: {command: [\"a && b\"], stop_command: c | d, shell: true}\n");
	struct process_config *process = &service_of(config)->process;
	assert_string_equal(process->command.items[0], "a && b");
	assert_int_equal(process->stop_command.n, 1);
	assert_string_equal(process->stop_command.items[0], "c | d");
	config_free(config);
}

static void test_signals(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int signal;
	} cases[] = {
		{ "SIGTERM", SIGTERM },
		{ "TERM", SIGTERM },
		{ "15", SIGTERM },
		{ "sigint", SIGINT },
		{ "9", SIGKILL },
		{ "HUP", SIGHUP },
		{ "QUIT", SIGQUIT },
		{ "USR1", SIGUSR1 },
		{ "40", 40 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[512];
		snprintf(text, sizeof(text), NO_DRIVER "    process: {command: x, stop_signal: %s}\n", cases[i].text);
		struct config *config = expect_config(text);
		assert_int_equal(service_of(config)->process.stop_signal, cases[i].signal);
		config_free(config);
	}
}

static void test_container_keys(void **state)
{
	(void)state;
	struct config *config =
		expect_config("version: 1\nservices:\n  x:\n    vram: 4GB\n"
			      "    container: {compose: {project: p, service: s}, engine: \"unix:///run/podman.sock\", "
			      "stop_timeout: 5, on_external_start: stop}\n"
			      "    health: {container: true, timeout: 1m30s, interval: 100ms, retries: 9}\n"
			      "    on_exit: stop\n"
			      "    busy: {http: \":8080/q\", json: \"a.b[0].c\", above: 1.5}\n");
	struct service_config *service = service_of(config);
	assert_int_equal(service->vram.mib, 3815);
	assert_null(service->container.name);
	assert_string_equal(service->container.compose_project, "p");
	assert_string_equal(service->container.compose_service, "s");
	assert_string_equal(service->container.engine, "unix:///run/podman.sock");
	assert_int_equal(service->container.stop_timeout_ms, 5000);
	assert_int_equal(service->container.on_external_start, EXTERNAL_STOP);
	assert_int_equal(service->on_exit, ON_EXIT_STOP);
	assert_int_equal(service->health.kind, PROBE_CONTAINER);
	assert_int_equal(service->health_timeout_ms, 90000);
	assert_int_equal(service->health_interval_ms, 100);
	assert_int_equal(service->health_retries, 9);
	assert_int_equal(service->busy.kind, PROBE_HTTP);
	assert_string_equal(service->busy.address, ":8080/q");
	assert_string_equal(service->busy.json, "a.b[0].c");
	assert_true(service->busy.above == 1.5);
	config_free(config);
	config = expect_config(SERVICE "    busy: {command: [/bin/busy, -x]}\n");
	assert_int_equal(service_of(config)->busy.kind, PROBE_COMMAND);
	assert_int_equal(service_of(config)->busy.command.n, 2);
	config_free(config);
}

static void test_phases(void **state)
{
	(void)state;
	struct config *config = expect_config("version: 1\nphases:\n  5: {name: render}\n  20:\n"
					      "  2: {name: both, services: [y, x]}\nservices:\n"
					      "  x: {vram: 4GiB, process: {command: x}, health: {tcp: 'h:1'}}\n"
					      "  y: {vram: 4GiB, process: {command: x}, health: {tcp: 'h:2'}}\n");
	assert_int_equal(config->n_phases, 3);
	assert_int_equal(config->phases[0].number, 2);
	assert_int_equal(config->phases[1].number, 5);
	assert_int_equal(config->phases[2].number, 20);
	assert_null(config->phases[2].name);
	assert_int_equal(config->phases[0].service_names.n, 2);
	assert_int_equal(config->phases[0].services[0], 1);
	assert_int_equal(config->phases[0].services[1], 0);
	assert_int_equal(config_find_phase(config, "2"), 0);
	assert_int_equal(config_find_phase(config, "both"), 0);
	assert_int_equal(config_find_phase(config, "render"), 1);
	assert_int_equal(config_find_phase(config, "20"), 2);
	static const char *const unknown[] = { "", "0", "-2", "+2", "02", "2x", "2.0", "2e0", " 2", "2 ", "bot", "Both",
		"4294967298", "18446744073709551618", "1e9", "99999999999999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_true(config_find_phase(config, unknown[i]) == SIZE_MAX);
	assert_int_equal(config_find_service(config, "y"), 1);
	assert_true(config_find_service(config, "z") == SIZE_MAX);
	config_free(config);
}

/* Each key of the table, written wrongly: one exact line each. */
static const struct {
	const char *path;
	const char *text;
	const char *line;
} wrong[] = {
	{ "version", "version: one\n", "f:1:10: version: \"one\" is not a version (expected 1)\n" },
	{ "version", "version: 2\n",
		"f:1:10: version: version \"2\" is not known to this gpumgr (expected 1; a newer gpumgr may know "
		"it)\n" },
	{ "socket", "version: 1\nsocket: run/g.sock\n",
		"f:2:9: socket: \"run/g.sock\" is not absolute (expected an absolute path)\n" },
	{ "socket",
		"version: 1\nsocket: /"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaa\n",
		"f:2:9: socket: \"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\" is "
		"too long "
		"for a Unix socket, whose path has 107 bytes at most (expected an absolute path)\n" },
	{ "socket_mode", "version: 1\nsocket_mode: 0888\n",
		"f:2:14: socket_mode: \"0888\" is not a file mode (expected an octal mode such as 0660)\n" },
	{ "socket_mode", "version: 1\nsocket_mode: 01777\n",
		"f:2:14: socket_mode: \"01777\" is not a file mode (expected an octal mode such as 0660)\n" },
	{ "socket_group", "version: 1\nsocket_group: a b\n",
		"f:2:15: socket_group: \"a b\" is not the name of an account (expected a name or a number)\n" },
	{ "listen", "version: 1\nopen: true\nlisten: 127.0.0.1:80\n",
		"f:3:9: listen: is a single value (expected HOST:PORT such as [127.0.0.1:8700] or [0.0.0.0:8700])\n" },
	{ "listen", "version: 1\nopen: true\nlisten: [\"1.2.3.4:0\"]\n",
		"f:3:10: listen[0]: \"1.2.3.4:0\" has a port that is not from 1 to 65535 (expected HOST:PORT such as "
		"[127.0.0.1:8700] or [0.0.0.0:8700])\n" },
	{ "listen", "version: 1\nopen: true\nlisten: [8700]\n",
		"f:3:10: listen[0]: \"8700\" has a malformed host (expected HOST:PORT such as [127.0.0.1:8700] or "
		"[0.0.0.0:8700]; did you mean 127.0.0.1:8700?)\n" },
	{ "listen", "version: 1\nopen: true\nlisten: [\"a:1\", \"a:1\"]\n",
		"f:3:17: listen[1]: \"a:1\" is named twice\n" },
	{ "token_file", "version: 1\ntoken_file: ~/t\n",
		"f:2:13: token_file: \"~/t\" is not absolute: ~ is a shell's (write ${env.HOME}) (expected an absolute "
		"path)\n" },
	{ "open", "version: 1\nopen: 1\n", "f:2:7: open: \"1\" is neither true nor false (expected true or false)\n" },
	{ "allowed_hosts", "version: 1\nallowed_hosts: [\"http://a.b:80/\"]\n",
		"f:2:17: allowed_hosts[0]: \"http://a.b:80/\" is not a host name (expected host names without a port "
		"such as "
		"[gpu.example.org]; did you mean a.b?)\n" },
	{ "allowed_hosts", "version: 1\nallowed_hosts: [a, b, a]\n",
		"f:2:23: allowed_hosts[2]: \"a\" is named twice\n" },
	{ "state_dir", "version: 1\nstate_dir: \"\"\n",
		"f:2:12: state_dir: \"\" is empty (expected an absolute path)\n" },
	{ "log_dir", "version: 1\nlog_dir: [/a]\n", "f:2:10: log_dir: is a list (expected an absolute path)\n" },
	{ "gpu", "version: 1\ngpu: none\n", "f:2:6: gpu: is a single value (expected a mapping)\n" },
	{ "gpu.backend", "version: 1\ngpu: {backend: nvmi}\n",
		"f:2:16: gpu.backend: \"nvmi\" is not among the choices (expected one of auto, nvml, sim, none; did "
		"you mean "
		"nvml?)\n" },
	{ "gpu.reserve", "version: 1\ngpu: {reserve: 1}\n",
		"f:2:16: gpu.reserve: \"1\" is under 64 MiB (expected a size such as 20GiB, or 80% of the card; did "
		"you mean "
		"1GiB?)\n" },
	{ "gpu.gpus", "version: 1\ngpu: {gpus: 24GiB}\n",
		"f:2:13: gpu.gpus: is a single value (expected sizes such as [24GiB] or [24GiB, 16GiB])\n" },
	{ "gpu.gpus", "version: 1\ngpu: {gpus: []}\n",
		"f:2:13: gpu.gpus: is empty (expected a size for each GPU, such as [24GiB])\n" },
	{ "gpu.gpus", "version: 1\ngpu: {gpus: [24]}\n",
		"f:2:14: gpu.gpus[0]: \"24\" is under 64 MiB (expected sizes such as [24GiB] or [24GiB, 16GiB]; did "
		"you mean "
		"24GiB?)\n" },
	{ "gpu.interval", "version: 1\ngpu: {interval: 1ms}\n",
		"f:2:17: gpu.interval: \"1ms\" is not between 10 ms and 1 h (expected a duration such as 30s, 5m or "
		"1m30s)\n" },
	{ "gpu.sim", "version: 1\ngpu: {backend: sim, sim: /tmp}\n",
		"f:2:26: gpu.sim: is a single value (expected a mapping)\n" },
	{ "gpu.sim.dir", "version: 1\ngpu: {backend: sim, sim: {gpus: [24GiB]}}\n",
		"f:2:21: gpu.sim.dir: is missing (expected an absolute path)\n" },
	{ "gpu.sim.gpus", "version: 1\ngpu: {backend: sim, sim: {dir: /x, gpus: [80%]}}\n",
		"f:2:43: gpu.sim.gpus[0]: \"80%\" is a share of a card, not an amount (expected sizes such as [24GiB] "
		"or "
		"[24GiB, 16GiB])\n" },
	{ "lock", "version: 1\nlock: []\n", "f:2:7: lock: is a list (expected a mapping)\n" },
	{ "lock.backend", "version: 1\nlock: {backend: etcd}\n",
		"f:2:17: lock.backend: \"etcd\" is not among the choices (expected one of local, redis)\n" },
	{ "lock.url", "version: 1\nlock: {backend: redis, url: \"http://u:secret@h\"}\n",
		"f:2:29: lock.url: the value is not a redis://, rediss://, unix:// or redis+sentinel:// URL (expected "
		"a URL "
		"such as redis://127.0.0.1:6379/0)\n" },
	{ "lock.key", "version: 1\nlock: {key: \"\"}\n", "f:2:13: lock.key: \"\" is empty (expected text)\n" },
	{ "lock.ttl", "version: 1\nlock: {ttl: 30 sec}\n",
		"f:2:13: lock.ttl: \"30 sec\" is not a duration (expected a duration such as 30s, 5m or 1m30s; did you "
		"mean "
		"30s?)\n" },
	{ "lease", "version: 1\nlease: 600\n", "f:2:8: lease: is a single value (expected a mapping)\n" },
	{ "lease.ttl", "version: 1\nlease: {ttl: never}\n",
		"f:2:14: lease.ttl: \"never\" is not a duration (expected a duration such as 30s, 5m or 1m30s)\n" },
	{ "lease.ttl", "version: 1\nlease: {ttl: 168h1s}\n",
		"f:2:14: lease.ttl: \"168h1s\" is not between 100 ms and 168 h (expected a duration such as 30s, 5m or "
		"1m30s)\n" },
	{ "lease.wait", "version: 1\nlease: {wait: 200h}\n",
		"f:2:15: lease.wait: \"200h\" is not between 0 ms and 168 h (expected a duration such as 30s, 5m or "
		"1m30s)\n" },
	{ "lease.wait", "version: 1\nlease: {wait: -1}\n",
		"f:2:15: lease.wait: \"-1\" is not a duration (expected a duration such as 30s, 5m or 1m30s)\n" },
	{ "phases", "version: 1\nphases: [crawl]\n",
		"f:2:9: phases: is a list (expected a mapping from numbers to phases such as {4: {name: video, "
		"services: "
		"[comfyui]}})\n" },
	{ "phases.*", "version: 1\nphases: {1: crawl}\n",
		"f:2:13: phases.1: is a single value (expected a mapping such as {name: video, services: "
		"[comfyui]})\n" },
	{ "phases.*.name", "version: 1\nphases: {1: {name: 4x}}\n",
		"f:2:20: phases.1.name: \"4x\" is not the name of a phase (expected a letter, then letters, digits, "
		"`_`, `.` "
		"and `-`)\n" },
	{ "phases.*.services", "version: 1\nphases: {1: {services: x}}\n",
		"f:2:24: phases.1.services: is a single value (expected names of services such as [comfyui])\n" },
	{ "services", "version: 1\nservices: [x]\n",
		"f:2:11: services: is a list (expected a mapping from names to services such as {comfyui: {vram: "
		"20GiB, "
		"...}})\n" },
	{ "services.*", "version: 1\nservices: {x: y}\n",
		"f:2:15: services.x: is a single value (expected a mapping such as {vram: 4GiB, ...})\n" },
	{ "services.*.vram",
		"version: 1\nservices:\n  x:\n    vram: 20\n    process: {command: x}\n    health: {tcp: 'h:1'}\n",
		"f:4:11: services.x.vram: \"20\" is under 64 MiB (expected a size such as 20GiB, or 80% of the card; "
		"did you "
		"mean 20GiB?)\n" },
	{ "services.*.priority", SERVICE "    priority: high\n",
		"f:7:15: services.x.priority: \"high\" is not an integer (expected an integer from -1000000 to "
		"1000000)\n" },
	{ "services.*.priority", SERVICE "    priority: 010\n",
		"f:7:15: services.x.priority: \"010\" is not an integer (expected an integer from -1000000 to "
		"1000000)\n" },
	{ "services.*.priority", SERVICE "    priority: 99999999999999999999\n",
		"f:7:15: services.x.priority: \"99999999999999999999\" is out of range (expected an integer from "
		"-1000000 to "
		"1000000)\n" },
	{ "services.*.gpus", SERVICE "    gpus: 0\n",
		"f:7:11: services.x.gpus: \"0\" is not a list (expected `any`, or a list of indexes or UUIDs such as "
		"[0] or "
		"[GPU-8932f937-d72c-4106-c12f-20bd9faed9f6]; did you mean [0]?)\n" },
	{ "services.*.gpus", SERVICE "    gpus: [64]\n",
		"f:7:12: services.x.gpus[0]: \"64\" is neither the index nor the UUID of a GPU (expected `any`, or a "
		"list of "
		"indexes or UUIDs such as [0] or [GPU-8932f937-d72c-4106-c12f-20bd9faed9f6])\n" },
	{ "services.*.gpus", SERVICE "    gpus: [1, GPU-a, 1, gpu-b]\n",
		"f:7:22: services.x.gpus[2]: \"1\" is named twice\n"
		"f:7:25: services.x.gpus[3]: \"gpu-b\" is neither the index nor the UUID of a GPU (expected `any`, or "
		"a list of "
		"indexes or UUIDs such as [0] or [GPU-8932f937-d72c-4106-c12f-20bd9faed9f6])\n" },
	{ "services.*.gpus", SERVICE "    gpus: []\n",
		"f:7:11: services.x.gpus: is empty (expected `any`, or a list such as [0])\n" },
	{ "services.*.gpu_count", SERVICE "    gpu_count: 0\n",
		"f:7:16: services.x.gpu_count: \"0\" is out of range (expected an integer from 1 to 64)\n" },
	{ "services.*.gpu_count", SERVICE "    gpus: [0, 1]\n    gpu_count: 3\n",
		"f:8:16: services.x.gpu_count: wants 3 GPUs, but `gpus` names 2 (name more, or lower it)\n" },
	{ "services.*.pinned", SERVICE "    pinned: always\n",
		"f:7:13: services.x.pinned: \"always\" is neither true nor false (expected true or false)\n" },
	{ "services.*.yield_after", SERVICE "    yield_after: 1d\n",
		"f:7:18: services.x.yield_after: \"1d\" is not a duration (expected a duration such as 60s, or never; "
		"did you "
		"mean 24h?)\n" },
	{ "services.*.preempt_after", SERVICE "    preempt_after: 20y\n",
		"f:7:20: services.x.preempt_after: \"20y\" is not a duration (expected a duration such as 60s, or "
		"never)\n" },
	{ "services.*.on_exit", SERVICE "    on_exit: kill\n",
		"f:7:14: services.x.on_exit: \"kill\" is not among the choices (expected one of keep, stop)\n" },
	{ "services.*.max_leases", SERVICE "    max_leases: -1\n",
		"f:7:17: services.x.max_leases: \"-1\" is out of range (expected an integer from 1 to 1000000)\n" },
	{ "services.*.process", NO_DRIVER "    process: /bin/x\n",
		"f:6:14: services.x.process: is a single value (expected a mapping such as {command: "
		"[/opt/x/start.sh]})\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {command: [./x]}\n",
		"f:6:25: services.x.process.command[0]: the path of the program is relative (expected an absolute "
		"path, or a "
		"bare name, which is looked up in PATH)\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {command: []}\n",
		"f:6:24: services.x.process.command: is empty (expected at least the program)\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {command: \"/x 'y\"}\n",
		"f:6:24: services.x.process.command: a single quote (') is never closed\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {command: [/x, [y]]}\n",
		"f:6:29: services.x.process.command[1]: is a list (expected a command such as [/opt/x/start.sh, "
		"--port, 8188] "
		"or \"/opt/x/start.sh --port 8188\")\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {command: [a, b], shell: true}\n",
		"f:6:24: services.x.process.command: is a list, but `shell: true` wants one string (expected a string "
		"such as "
		"\"cd /opt/x && exec ./run\", or no `shell`)\n" },
	{ "services.*.process.command", NO_DRIVER "    process: {user: u}\n",
		"f:6:5: services.x.process.command: is missing (expected a command such as [/opt/x/start.sh, --port, "
		"8188] or "
		"\"/opt/x/start.sh --port 8188\")\n" },
	{ "services.*.process.shell", NO_DRIVER "    process: {command: x, shell: bash}\n",
		"f:6:34: services.x.process.shell: \"bash\" is neither true nor false (expected true or false)\n" },
	{ "services.*.process.environment", NO_DRIVER "    process: {command: x, environment: A=1}\n",
		"f:6:40: services.x.process.environment: is a single value (expected a mapping such as {NAME: value}, "
		"or a list "
		"of NAME=VALUE)\n" },
	{ "services.*.process.environment", NO_DRIVER "    process: {command: x, environment: [A, 1B=2, C=1, C=2]}\n",
		"f:6:41: services.x.process.environment[0]: has no `=` (expected NAME=VALUE)\n"
		"f:6:44: services.x.process.environment[1]: has a malformed name (expected NAME=VALUE with letters, "
		"digits and "
		"`_` in the name)\n"
		"f:6:55: services.x.process.environment[3]: C is set twice\n" },
	{ "services.*.process.environment",
		NO_DRIVER "    process: {command: x, environment: {A-B: 1, C: 1, C: 2, D: }}\n",
		"f:6:41: services.x.process.environment.A-B: is not the name of a variable (expected letters, digits "
		"and `_`)\n"
		"f:6:55: services.x.process.environment.C: is set twice\n"
		"f:6:61: services.x.process.environment.D: has no value (expected a mapping such as {NAME: value}, or "
		"a list of "
		"NAME=VALUE)\n" },
	{ "services.*.process.directory", NO_DRIVER "    process: {command: x, directory: .}\n",
		"f:6:38: services.x.process.directory: \".\" is not absolute (expected an absolute path)\n" },
	{ "services.*.process.user", NO_DRIVER "    process: {command: x, user: -u}\n",
		"f:6:33: services.x.process.user: \"-u\" is not the name of an account (expected a name or a "
		"number)\n" },
	{ "services.*.process.type", NO_DRIVER "    process: {command: x, type: notify}\n",
		"f:6:33: services.x.process.type: \"notify\" is not among the choices (expected one of simple, "
		"forking)\n" },
	{ "services.*.process.pid_file", NO_DRIVER "    process: {command: x, pid_file: x.pid}\n",
		"f:6:37: services.x.process.pid_file: \"x.pid\" is not absolute (expected an absolute path)\n" },
	{ "services.*.process.stop_command", NO_DRIVER "    process: {command: x, stop_command: \" \"}\n",
		"f:6:41: services.x.process.stop_command: \" \" is empty (expected a command such as [/opt/x/start.sh, "
		"--port, "
		"8188] or \"/opt/x/start.sh --port 8188\")\n" },
	{ "services.*.process.stop_command", NO_DRIVER "    process: {command: x, stop_command: [a, b], shell: true}\n",
		"f:6:41: services.x.process.stop_command: is a list, but `shell: true` wants one string (expected a "
		"string such "
		"as \"cd /opt/x && exec ./run\", or no `shell`)\n" },
	{ "services.*.process.stop_signal", NO_DRIVER "    process: {command: x, stop_signal: STOP}\n",
		"f:6:40: services.x.process.stop_signal: \"STOP\" is no signal that ends a process (expected a signal "
		"such as "
		"SIGTERM, INT or 15)\n" },
	{ "services.*.process.stop_signal", NO_DRIVER "    process: {command: x, stop_signal: 0}\n",
		"f:6:40: services.x.process.stop_signal: \"0\" is no signal that ends a process (expected a signal "
		"such as "
		"SIGTERM, INT or 15)\n" },
	{ "services.*.process.stop_timeout", NO_DRIVER "    process: {command: x, stop_timeout: 2d}\n",
		"f:6:41: services.x.process.stop_timeout: \"2d\" is not a duration (expected a duration such as 30s, "
		"5m or "
		"1m30s; did you mean 48h?)\n" },
	{ "services.*.process.log_size", NO_DRIVER "    process: {command: x, log_size: 0}\n",
		"f:6:37: services.x.process.log_size: \"0\" is under 1 MiB (expected a size such as 10MiB)\n" },
	{ "services.*.process.log_size", NO_DRIVER "    process: {command: x, log_size: 2TiB}\n",
		"f:6:37: services.x.process.log_size: \"2TiB\" is out of range (expected a size such as 10MiB)\n" },
	{ "services.*.container", NO_DRIVER "    container: mcn\n",
		"f:6:16: services.x.container: is a single value (expected a mapping such as {name: mcn_ollama})\n" },
	{ "services.*.container.name", NO_DRIVER "    container: {name: a b}\n",
		"f:6:23: services.x.container.name: \"a b\" is not the name of a container (expected letters, digits, "
		"`_`, `.` "
		"and `-`, such as mcn_ollama)\n" },
	{ "services.*.container.name", NO_DRIVER "    container: {stop_timeout: 3s}\n",
		"f:6:5: services.x.container: has none of name, compose (expected exactly one of them)\n" },
	{ "services.*.container.compose", NO_DRIVER "    container: {name: a, compose: {project: p, service: s}}\n",
		"f:6:26: services.x.container: has both name and compose (expected exactly one of name, compose)\n" },
	{ "services.*.container.compose.project", NO_DRIVER "    container: {compose: {service: s}}\n",
		"f:6:17: services.x.container.compose.project: is missing (expected lower case letters, "
		"digits, `_` and `-`, such as studio)\n" },
	{ "services.*.container.compose.project",
		NO_DRIVER "    container: {compose: {project: Studio (2), service: s}}\n",
		"f:6:36: services.x.container.compose.project: \"Studio (2)\" is not the name of a Compose project "
		"(expected "
		"lower case letters, digits, `_` and `-`, such as studio; did you mean studio2?)\n" },
	{ "services.*.container.compose.project",
		NO_DRIVER "    container: {compose: {project: _studio, service: s}}\n",
		"f:6:36: services.x.container.compose.project: \"_studio\" is not the name of a Compose project "
		"(expected "
		"lower case letters, digits, `_` and `-`, such as studio; did you mean studio?)\n" },
	{ "services.*.container.compose.project", NO_DRIVER "    container: {compose: {project: \"-_\", service: s}}\n",
		"f:6:36: services.x.container.compose.project: \"-_\" is not the name of a Compose project (expected "
		"lower case letters, digits, `_` and `-`, such as studio)\n" },
	{ "services.*.container.compose.service", NO_DRIVER "    container: {compose: {project: p, service: {}}}\n",
		"f:6:48: services.x.container.compose.service: is a mapping (expected letters, digits, "
		"`_`, `.` and `-`, such as ollama)\n" },
	{ "services.*.container.compose.service", NO_DRIVER "    container: {compose: {project: p, service: a b}}\n",
		"f:6:48: services.x.container.compose.service: \"a b\" is not the name of a Compose service (expected "
		"letters, digits, `_`, `.` and `-`, such as ollama)\n" },
	{ "services.*.container.engine", NO_DRIVER "    container: {name: a, engine: /var/run/docker.sock}\n",
		"f:6:34: services.x.container.engine: \"/var/run/docker.sock\" is not the URL of a Unix socket "
		"(expected a URL "
		"such as unix:///var/run/docker.sock; did you mean unix:///var/run/docker.sock?)\n" },
	{ "services.*.container.stop_timeout", NO_DRIVER "    container: {name: a, stop_timeout: 25h}\n",
		"f:6:40: services.x.container.stop_timeout: \"25h\" is not between 0 ms and 24 h (expected a duration "
		"such as "
		"30s, 5m or 1m30s)\n" },
	{ "services.*.container.on_external_start", NO_DRIVER "    container: {name: a, on_external_start: adpot}\n",
		"f:6:45: services.x.container.on_external_start: \"adpot\" is not among the choices (expected one of "
		"adopt, "
		"stop; did you mean adopt?)\n" },
	{ "services.*.health", NO_HEALTH,
		"f:3:3: services.x.health: is missing (expected a mapping such as {http: "
		"\"http://127.0.0.1:8188/\"})\n" },
	{ "services.*.health", NO_HEALTH "    health: {timeout: 5s}\n",
		"f:6:5: services.x.health: has none of http, tcp, command, container (expected exactly one of "
		"them)\n" },
	{ "services.*.health.http", NO_HEALTH "    health: {http: \"localhost:80/x\"}\n",
		"f:6:20: services.x.health.http: \"localhost:80/x\" is not an http:// or https:// URL (expected a URL "
		"such as "
		"http://127.0.0.1:8188/health; did you mean http://localhost:80/x?)\n" },
	{ "services.*.health.http", NO_HEALTH "    health: {http: \":80/x\"}\n",
		"f:6:20: services.x.health.http: has no host, which stands for the address of a container (did you "
		"mean "
		"http://127.0.0.1:80/x?)\n" },
	{ "services.*.health.tcp", NO_HEALTH "    health: {tcp: 8080}\n",
		"f:6:19: services.x.health.tcp: \"8080\" has a malformed host (expected HOST:PORT such as "
		"127.0.0.1:8188; did "
		"you mean 127.0.0.1:8080?)\n" },
	{ "services.*.health.tcp", NO_HEALTH "    health: {tcp: \":80\"}\n",
		"f:6:19: services.x.health.tcp: has no host, which stands for the address of a container (did you mean "
		"127.0.0.1:80?)\n" },
	{ "services.*.health.command", NO_HEALTH "    health: {command: [a/b]}\n",
		"f:6:24: services.x.health.command[0]: the path of the program is relative (expected an absolute path, "
		"or a "
		"bare name, which is looked up in PATH)\n" },
	{ "services.*.health.container", NO_HEALTH "    health: {container: true}\n",
		"f:6:14: services.x.health.container: is for services with `container` (expected one of http, tcp, "
		"command)\n" },
	{ "services.*.health.container", NO_HEALTH "    health: {container: false}\n",
		"f:6:25: services.x.health.container: \"false\" is not true (expected true, or one of http, tcp and "
		"command in "
		"its place)\n" },
	{ "services.*.health.timeout", NO_HEALTH "    health: {tcp: 'h:1', timeout: 0}\n",
		"f:6:35: services.x.health.timeout: \"0\" is not between 1 ms and 168 h (expected a duration such as "
		"30s, 5m or "
		"1m30s)\n" },
	{ "services.*.health.interval", NO_HEALTH "    health: {tcp: 'h:1', interval: 9ms}\n",
		"f:6:36: services.x.health.interval: \"9ms\" is not between 10 ms and 24 h (expected a duration such "
		"as 30s, 5m "
		"or 1m30s)\n" },
	{ "services.*.health.retries", NO_HEALTH "    health: {tcp: 'h:1', retries: 0}\n",
		"f:6:35: services.x.health.retries: \"0\" is out of range (expected an integer from 1 to 1000)\n" },
	{ "services.*.busy", SERVICE "    busy: {}\n",
		"f:7:5: services.x.busy: has none of http, command (expected exactly one of them)\n" },
	{ "services.*.busy.http", SERVICE "    busy: {http: \"http://h/ x\", json: a}\n",
		"f:7:18: services.x.busy.http: \"http://h/ x\" has characters that a URL must escape (a space is %20) "
		"(expected "
		"a URL such as http://127.0.0.1:8188/health)\n" },
	{ "services.*.busy.command", SERVICE "    busy: {command: {a: b}}\n",
		"f:7:21: services.x.busy.command: is a mapping (expected a command such as [/usr/bin/test, -e, /run/x] "
		"or "
		"\"/usr/bin/test -e /run/x\")\n" },
	{ "services.*.busy.json", SERVICE "    busy: {http: \"http://h/\", json: \"a..b\"}\n",
		"f:7:37: services.x.busy.json: \"a..b\" is not a path into JSON (expected names and indexes such as "
		"queue.running[0].count)\n" },
	{ "services.*.busy.json", SERVICE "    busy: {http: \"http://h/\"}\n",
		"f:7:12: services.x.busy.json: is missing (expected the place of the number in the answer, such as "
		"queue.running[0].count)\n" },
	{ "services.*.busy.json", SERVICE "    busy: {command: x, json: a}\n",
		"f:7:24: services.x.busy.json: means nothing without `http`\n" },
	{ "services.*.busy.above", SERVICE "    busy: {http: \"http://h/\", json: a, above: 1e3}\n",
		"f:7:47: services.x.busy.above: \"1e3\" is not a number (expected a number such as 0 or 1.5)\n" },
};

static void test_wrong_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		expect_errors(wrong[i].text, wrong[i].line);
}

/* So that a new row of the table brings its row here. */
static void test_every_key_has_a_wrong_value(void **state)
{
	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		bool found = false;
		for (size_t j = 0; j < ARRAY_SIZE(wrong); j++)
			found |= strcmp(wrong[j].path, option_table[i].path) == 0;
		if (!found)
			fail_msg("no wrong value of %s is tested", option_table[i].path);
	}
	for (size_t j = 0; j < ARRAY_SIZE(wrong); j++)
		assert_non_null(option_find(wrong[j].path));
}

static void test_null_is_no_value(void **state)
{
	(void)state;
	expect_errors(SERVICE "    priority:\n",
		"f:7:5: services.x.priority: has no value (expected an integer from -1000000 to 1000000)\n");
	expect_errors(SERVICE "    priority: ~\n",
		"f:7:5: services.x.priority: has no value (expected an integer from -1000000 to 1000000)\n");
	expect_errors("version: 1\nallowed_hosts: [a, null]\n",
		"f:2:20: allowed_hosts[1]: has no value (expected host names without a port such as "
		"[gpu.example.org])\n");
	/* a section whose keys are all commented out is nothing wrong */
	config_free(expect_config("version: 1\ngpu:\nlock: ~\nphases:\nservices:\n"));
}

static void test_numbers_in_quotes_count(void **state)
{
	(void)state;
	struct config *config = expect_config(SERVICE "    priority: \"7\"\n    pinned: 'True'\n");
	assert_int_equal(service_of(config)->priority, 7);
	assert_true(service_of(config)->pinned);
	config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_of_the_file),
		cmocka_unit_test(test_defaults_of_a_process),
		cmocka_unit_test(test_defaults_of_a_container),
		cmocka_unit_test(test_defaults_can_be_written),
		cmocka_unit_test(test_top_of_the_file),
		cmocka_unit_test(test_gpu_lock_and_lease),
		cmocka_unit_test(test_service_keys),
		cmocka_unit_test(test_process_keys),
		cmocka_unit_test(test_environment_as_list),
		cmocka_unit_test(test_shell_counts_wherever_it_stands),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_container_keys),
		cmocka_unit_test(test_phases),
		cmocka_unit_test(test_wrong_values),
		cmocka_unit_test(test_every_key_has_a_wrong_value),
		cmocka_unit_test(test_null_is_no_value),
		cmocka_unit_test(test_numbers_in_quotes_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
