/* What concerns several keys at once, and that all of a file's problems come in one pass, in its order. */
#include "support.h"

#include "base/cleanup.h"

static void test_all_in_one_pass(void **state)
{
	(void)state;
	expect_errors("version: 1\n"
		      "vesion: 2\n"
		      "listen: [\"0.0.0.0:1\"]\n"
		      "gpu: {reserve: 20G, reserve: 1GiB}\n"
		      "phases:\n"
		      "  2: {name: two, services: [comfy, vdi]}\n"
		      "  02: {name: two}\n"
		      "services:\n"
		      "  Vidi: {vram: 4GiB, process: {command: /bin/x}, health: {tcp: 'h:1'}}\n"
		      "  comfyui:\n"
		      "    vram_mb: 20000\n"
		      "    priority: 1e2\n"
		      "    start_cmd: ./start.sh\n"
		      "    health: {http: 127.0.0.1:8188, timeout: 2 min}\n",
		"f:2:1: vesion: unknown key (did you mean `version`?)\n"
		"f:3:1: listen: would let everybody in who reaches these addresses (expected `token_file: /path` "
		"beside it; "
		"or `open: true`, if that is what you want)\n"
		"f:4:16: gpu.reserve: \"20G\" is not a size (expected a size such as 20GiB, or 80% of the card; did "
		"you mean "
		"20GiB?)\n"
		"f:4:21: gpu.reserve: is written twice (the first is in line 4; remove one)\n"
		"f:6:29: phases.2.services[0]: unknown service \"comfy\" (expected one of the names under `services`)\n"
		"f:6:36: phases.2.services[1]: unknown service \"vdi\" (did you mean \"Vidi\"?)\n"
		"f:7:3: phases.02: is not the number of a phase (expected a positive integer; the name goes inside: 4: "
		"{name: "
		"video})\n"
		"f:7:14: phases.02.name: is the name of phase 2 too (expected each name once)\n"
		"f:9:3: services.Vidi: is not the name of a service (expected small letters, digits, `_` and `-`, 63 "
		"at most; "
		"did you mean vidi?)\n"
		"f:10:3: services.comfyui.vram: is missing (expected a size such as 20GiB, or 80% of the card)\n"
		"f:10:3: services.comfyui: has none of process, container (expected exactly one of them)\n"
		"f:11:5: services.comfyui.vram_mb: unknown key (did you mean `vram`?)\n"
		"f:12:15: services.comfyui.priority: \"1e2\" is not an integer (expected an integer from -1000000 to "
		"1000000)\n"
		"f:13:5: services.comfyui.start_cmd: unknown key (did you mean `process.command`?)\n"
		"f:14:20: services.comfyui.health.http: \"127.0.0.1:8188\" is not an http:// or https:// URL (expected "
		"a URL "
		"such as http://127.0.0.1:8188/health; did you mean http://127.0.0.1:8188?)\n"
		"f:14:45: services.comfyui.health.timeout: \"2 min\" is not a duration (expected a duration such as "
		"30s, 5m or "
		"1m30s; did you mean 2m?)\n");
}

static void test_names(void **state)
{
	(void)state;
	static const char *const good[] = { "a", "0", "a-b_c",
		"123456789012345678901234567890123456789012345678901234567890123" };
	static const char *const bad[] = { "A", "-a", "_a", "a.b", "a b", "\xc3\xa4", "\"\"",
		"1234567890123456789012345678901234567890123456789012345678901234", "a/b", "\"a\\nb\"" };
	char text[512];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text),
			"version: 1\nservices: {%s: {vram: 4GiB, process: {command: x}, health: {tcp: 'h:1'}}}\n",
			good[i]);
		config_free(expect_config(text));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config *config;
		snprintf(text, sizeof(text),
			"version: 1\nservices: {%s: {vram: 4GiB, process: {command: x}, health: {tcp: 'h:1'}}}\n",
			bad[i]);
		CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
		if (strstr(lines, "is not the name of a service") == NULL)
			fail_msg("%s: %s", bad[i], lines);
	}
}

static void test_phase_numbers(void **state)
{
	(void)state;
	static const char *const bad[] = { "0", "-1", "+1", "01", "1.0", "1e9", "4x", "x", "\"\"", "\" 1\"", "~",
		"1234567890", "99999999999999999999" };
	char text[256];
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config *config;
		snprintf(text, sizeof(text), "version: 1\nphases: {%s: {name: a}}\n", bad[i]);
		CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
		if (strstr(lines, "is not the number of a phase (expected a positive integer") == NULL)
			fail_msg("%s: %s", bad[i], lines);
	}
	struct config *config = expect_config("version: 1\nphases: {999999999: {}, \"1\": ~, 2: }\n");
	assert_int_equal(config->phases[2].number, 999999999);
	config_free(config);
	expect_errors("version: 1\n"
		      "phases:\n"
		      "  video: {name: x, services: [a]}\n"
		      "  2: {name: x}\n",
		"f:3:3: phases.video: is not the number of a phase (expected a positive integer; the name goes inside: "
		"4: {name: video})\n"
		"f:3:31: phases.video.services[0]: unknown service \"a\" (expected one of the names under "
		"`services`)\n"
		"f:4:13: phases.2.name: is the name of another phase too (expected each name once)\n");
}

static void test_listen(void **state)
{
	(void)state;
	expect_errors("version: 1\nopen: false\nlisten: [\"127.0.0.1:1\"]\n",
		"f:3:1: listen: would let everybody in who reaches these addresses (expected `token_file: /path` "
		"beside it; "
		"or `open: true`, if that is what you want)\n");
	config_free(expect_config("version: 1\ntoken_file: /t\nlisten: [\"127.0.0.1:1\"]\n"));
	config_free(expect_config("version: 1\nlisten: []\n"));
	expect_warnings("version: 1\ntoken_file: /t\nopen: true\nlisten: [\"127.0.0.1:1\"]\n", false,
		"f:3:1: open: warning: lets everybody in, so that `token_file` keeps nobody out\n");
	expect_warnings("version: 1\nsocket_mode: 0666\n", false,
		"f:2:14: socket_mode: warning: lets every user of this host start and stop services (0660 and "
		"`socket_group` "
		"let some)\n");
}

static void test_backends(void **state)
{
	(void)state;
	expect_errors("version: 1\ngpu: {backend: sim}\n",
		"f:2:16: gpu.sim: is missing (`backend: sim` needs one, such as {dir: /tmp/gpumgr-sim, gpus: "
		"[24GiB]})\n");
	expect_warnings("version: 1\ngpu: {sim: {dir: /x, gpus: [24GiB]}}\n", false,
		"f:2:7: gpu.sim: warning: is not used without `backend: sim`\n");
	expect_errors("version: 1\nlock: {backend: redis}\n",
		"f:2:17: lock.url: is missing (`backend: redis` needs one, such as redis://127.0.0.1:6379/0)\n");
	expect_warnings("version: 1\nlock: {url: \"redis://h\"}\n", false,
		"f:2:8: lock.url: warning: is not used without `backend: redis`\n");
}

static void test_secrets_stay_secret(void **state)
{
	(void)state;
	setenv("GPUMGR_TEST_SECRET", "hunter2", 1);
	static const char *const texts[] = {
		"version: 1\nlock: {backend: redis, url: \"rdis://:hunter2@h\"}\n",
		"version: 1\nlock: {backend: redis, url: \"redis://:${env.GPUMGR_TEST_SECRET}@h:x\"}\n",
		SERVICE "    process: {command: x, environment: {T: hunter2, T: hunter2}}\n",
		NO_DRIVER "    process: {command: x, environment: [\"1T=hunter2\", T=hunter2, T=hunter2]}\n",
		NO_DRIVER "    process: {command: \"./x --token hunter2 | y\"}\n",
		NO_DRIVER "    process: {command: \"x --token 'hunter2\"}\n",
		NO_HEALTH "    health: {http: \"http://me:hunter2@h/\"}\n",
		NO_HEALTH "    health: {http: \"me:hunter2@h/\"}\n",
		NO_HEALTH "    health: {http: \"http://me:${env.GPUMGR_TEST_SECRET}/x@h/\"}\n",
		NO_HEALTH "    health: {tcp: \"http://me:hunter2@h:80\"}\n",
		NO_DRIVER "    container: {name: x, engine: \"tcp://me:hunter2@h:2375\"}\n",
		"version: 1\nopen: true\nlisten: [\"me:hunter2@h:80\"]\nallowed_hosts: [\"http://me:hunter2@h\"]\n",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct config *config;
		CLEANUP_FREE char *lines = problems_of(texts[i], strlen(texts[i]), true, &config);
		config_free(config);
		assert_true(strlen(lines) > 0);
		if (strstr(lines, "hunter2") != NULL)
			fail_msg("%s", lines);
	}
}

static void test_root_without_user(void **state)
{
	(void)state;
	expect_warnings(SERVICE, true,
		"f:5:5: services.x.process: warning: runs as root, as the daemon does (`user: NAME` gives it an "
		"account of its "
		"own)\n");
	expect_warnings(SERVICE, false, "");
	expect_warnings(NO_DRIVER "    process: {command: x, user: root}\n", true, "");
	expect_warnings(NO_DRIVER "    container: {name: x}\n", true, "");
}

static void test_engine_of_the_environment(void **state)
{
	(void)state;
	const char *text = NO_DRIVER "    container: {name: x}\n";
	setenv("DOCKER_HOST", "unix:///run/other.sock", 1);
	struct config *config = expect_config(text);
	assert_string_equal(service_of(config)->container.engine, "unix:///run/other.sock");
	config_free(config);
	config = expect_config(NO_DRIVER "    container: {name: x, engine: \"unix:///mine.sock\"}\n");
	assert_string_equal(service_of(config)->container.engine, "unix:///mine.sock");
	config_free(config);
	setenv("DOCKER_HOST", "tcp://10.0.0.1:2375", 1);
	expect_warnings(text, false,
		"f:6:5: services.x.container.engine: warning: is unix:///var/run/docker.sock: DOCKER_HOST is "
		"\"tcp://10.0.0.1:2375\", and gpumgr needs an engine of this host (unix:///PATH)\n");
	expect_warnings(SERVICE, false, "");
	setenv("DOCKER_HOST", "", 1);
	config = expect_config(text);
	assert_string_equal(service_of(config)->container.engine, "unix:///var/run/docker.sock");
	config_free(config);
	unsetenv("DOCKER_HOST");
}

static void test_own_address_of_a_container(void **state)
{
	(void)state;
	struct config *config = expect_config("version: 1\nservices:\n"
					      "  x: {vram: 4GiB, container: {name: x}, health: {http: \":80/a\"}}\n"
					      "  y: {vram: 4GiB, container: {name: y}, health: {http: \":80/a\"}}\n"
					      "  z: {vram: 4GiB, container: {name: z}, health: {tcp: \":80\"}}\n");
	assert_string_equal(config->services[0].health.address, ":80/a");
	assert_string_equal(config->services[2].health.address, ":80");
	config_free(config);
	expect_errors(SERVICE "    busy: {http: \":80/a\", json: q}\n",
		"f:7:18: services.x.busy.http: has no host, which stands for the address of a container (did you mean "
		"http://127.0.0.1:80/a?)\n");
}

static void test_shared_health_address(void **state)
{
	(void)state;
	expect_warnings("version: 1\nservices:\n"
			"  a: {vram: 4GiB, process: {command: x}, health: {http: \"http://h/\"}}\n"
			"  b: {vram: 4GiB, process: {command: x}, health: {tcp: \"h:1\"}}\n"
			"  c: {vram: 4GiB, process: {command: x}, health: {http: \"http://h/\"}}\n"
			"  d: {vram: 4GiB, container: {name: x}, health: {tcp: \"h:1\"}}\n",
		false,
		"f:5:57: services.c.health.http: warning: is the address of a too (line 3), so that either seems "
		"healthy when "
		"the other runs\n"
		"f:6:55: services.d.health.tcp: warning: is the address of b too (line 4), so that either seems "
		"healthy when "
		"the other runs\n");
}

#define CONTAINER(name, container, port)                                                                               \
	"  " name ": {vram: 4GiB, container: " container ", health: {tcp: \"h:" port "\"}}\n"

static void test_shared_container(void **state)
{
	(void)state;
	expect_errors("version: 1\nservices:\n"
		/* clang-format off */
		CONTAINER("a", "{name: x}", "1")
		CONTAINER("b", "{name: x, engine: \"unix:///other.sock\"}", "2")
		CONTAINER("c", "{name: x}", "3")
		CONTAINER("d", "{compose: {project: p, service: s}}", "4")
		CONTAINER("e", "{compose: {project: q, service: s}}", "5")
		CONTAINER("f", "{compose: {project: p, service: s}, on_external_start: stop}", "6")
		CONTAINER("g", "{}", "7"),
		/* clang-format on */
		"f:5:19: services.c.container: is the container of a too (line 3; expected each container once)\n"
		"f:8:19: services.f.container: is the container of d too (line 6; expected each container once)\n"
		"f:9:19: services.g.container: has none of name, compose (expected exactly one of them)\n");
}

#define TWO(vram_a, vram_b)                                                                                            \
	"phases: {1: {services: [a, b]}, 2: {services: [a]}}\nservices:\n"                                             \
	"  a: {vram: " vram_a ", process: {command: x}, health: {tcp: \"h:1\"}}\n"                                     \
	"  b: {vram: " vram_b ", process: {command: x}, health: {tcp: \"h:2\"}}\n"

static void test_what_cannot_fit(void **state)
{
	(void)state;
	expect_warnings("version: 1\ngpu: {gpus: [24GiB]}\n" TWO("12GiB", "11GiB"), false, "");
	expect_warnings("version: 1\ngpu: {gpus: [24GiB]}\n" TWO("12GiB", "12GiB"), false,
		"f:3:24: phases.1.services: warning: need 24576 MiB together, but the declared GPUs have 23552 MiB "
		"beside their "
		"reserve, so this phase can never be prepared\n");
	expect_warnings("version: 1\ngpu: {reserve: 0, gpus: [24GiB]}\n" TWO("12GiB", "12GiB"), false, "");
	expect_warnings("version: 1\ngpu: {gpus: [16GiB, 16GiB]}\n" TWO("12GiB", "12GiB"), false, "");
	expect_warnings("version: 1\ngpu: {gpus: [16GiB, 16GiB]}\n" TWO("16GiB", "80%"), false,
		"f:5:13: services.a.vram: warning: 16384 MiB fit on no declared GPU: the largest has 15360 MiB beside "
		"its "
		"reserve, so it will never start\n");
	expect_warnings("version: 1\ngpu: {backend: sim, sim: {dir: /x, gpus: [8GiB]}}\n" TWO("5GiB", "50%"), false,
		"f:3:24: phases.1.services: warning: need 9216 MiB together, but the declared GPUs have 7168 MiB "
		"beside their "
		"reserve, so this phase can never be prepared\n");
	expect_warnings("version: 1\n" TWO("900GiB", "900GiB"), false, "");
}

static void test_selection(void **state)
{
	(void)state;
	expect_warnings(
		"version: 1\ngpu: {gpus: [24GiB]}\nservices:\n  x: {vram: 4GiB, gpus: [0, 1], process: {command: x}, "
		"health: {tcp: 'h:1'}}\n",
		false, "f:4:25: services.x.gpus: warning: names GPU 1, but the file declares 1 (the first is 0)\n");
	expect_warnings(
		"version: 1\ngpu: {gpus: [24GiB]}\nservices:\n  x: {vram: 4GiB, gpu_count: 2, process: {command: x}, "
		"health: {tcp: 'h:1'}}\n",
		false, "f:4:30: services.x.gpu_count: warning: wants 2 GPUs, but the file declares 1\n");
	expect_warnings(SERVICE "    gpus: [0, MIG-9a, GPU-b]\n", false,
		"f:7:11: services.x.gpus: warning: names \"MIG-9a\", which is a part of a GPU, so that nothing matches "
		"it "
		"(name the GPU; the part goes into CUDA_VISIBLE_DEVICES of the service's environment)\n");
}

static void test_commands_without_a_shell(void **state)
{
	(void)state;
	expect_warnings(NO_DRIVER "    process: {command: \"cd /x && ./y\"}\n", false,
		"f:6:24: services.x.process.command: warning: there is no shell here, so operators and variables are "
		"passed on "
		"as they stand (set `shell: true` to have one)\n");
	expect_warnings(NO_HEALTH "    health: {command: \"test -e $HOME/x\"}\n", false,
		"f:6:23: services.x.health.command: warning: there is no shell here, so operators and variables are "
		"passed on "
		"as they stand (write [/bin/sh, -c, \"...\"] to have one)\n");
	expect_warnings(NO_DRIVER "    process: {command: \"cd /x && ./y $HOME\", shell: true}\n", false, "");
	expect_errors(NO_DRIVER "    process: {command: ~/x}\n",
		"f:6:24: services.x.process.command: ~ is a shell's (write ${env.HOME}, or set `shell: true`)\n");
	expect_errors(NO_DRIVER "    process: {command: [\"\", a]}\n",
		"f:6:25: services.x.process.command[0]: the program is empty (expected a path or a name)\n");
	/* forking needs no pid file: the group is what is watched */
	config_free(expect_config(NO_DRIVER "    process: {command: x, type: forking}\n"));
}

static void test_sizes(void **state)
{
	(void)state;
	static const struct {
		const char *vram;
		const char *hint;
	} cases[] = {
		{ "20", "; did you mean 20GiB?)" },
		{ "20MiB", "; did you mean 20GiB?)" },
		{ "20MB", "; did you mean 20GB?)" },
		{ "63", "; did you mean 63GiB?)" },
		{ "20000KiB", "; did you mean 20000MiB?)" },
		{ "0", "card)" },
		{ "20G", "; did you mean 20GiB?)" },
		{ "20Gi", "; did you mean 20GiB?)" },
		{ "20gb", "; did you mean 20GB?)" },
		{ "20 gib", "; did you mean 20GiB?)" },
		{ "1,5GiB", "; did you mean 1.5GiB?)" },
		{ "4096M", "; did you mean 4096MiB?)" },
		{ "-4GiB", "card)" },
		{ "4 GiB free", "card)" },
		{ "much", "card)" },
		{ "0%", "card)" },
		{ "101%", "card)" },
		{ "9999999TiB", "card)" },
		{ "\"\"", "card)" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *config;
		char text[512], expected[64];
		snprintf(text, sizeof(text),
			"version: 1\nservices: {x: {vram: '%s', process: {command: x}, health: {tcp: 'h:1'}}}\n",
			cases[i].vram);
		CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
		snprintf(expected, sizeof(expected), "%s\n", cases[i].hint);
		assert_null(config);
		size_t length = strlen(lines), tail = strlen(expected);
		if (strncmp(lines, "f:2:22: services.x.vram: ", 25) != 0 || length < tail ||
			strcmp(lines + length - tail, expected) != 0)
			fail_msg("%s: %s", cases[i].vram, lines);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_in_one_pass),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_phase_numbers),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_backends),
		cmocka_unit_test(test_secrets_stay_secret),
		cmocka_unit_test(test_root_without_user),
		cmocka_unit_test(test_engine_of_the_environment),
		cmocka_unit_test(test_own_address_of_a_container),
		cmocka_unit_test(test_shared_health_address),
		cmocka_unit_test(test_shared_container),
		cmocka_unit_test(test_what_cannot_fit),
		cmocka_unit_test(test_selection),
		cmocka_unit_test(test_commands_without_a_shell),
		cmocka_unit_test(test_sizes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
