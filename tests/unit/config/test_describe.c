/* What is told of the keys: hints, the reference, the JSON schema, the documentation, and the examples. */
#include "support.h"

#include <jansson.h>

#include "base/cleanup.h"
#include "config/hints.h"
#include "config/schema.h"

static const char *source_root;

static char *read_source(const char *name)
{
	char path[4096];
	size_t length;
	snprintf(path, sizeof(path), "%s/%s", source_root, name);
	return read_whole(path, &length);
}

static void expect_hint(const char *section, const char *key, const char *expected)
{
	char hint[512];
	const struct option *option = section[0] == '\0' ? &option_root : option_find(section);
	assert_non_null(option);
	hint_for_key(option, key, hint, sizeof(hint));
	if (strcmp(hint, expected) != 0)
		fail_msg("%s.%s: %s, expected %s", section, key, hint, expected);
}

static void test_slips(void **state)
{
	(void)state;
	expect_hint("", "vresion", "did you mean `version`?");
	expect_hint("", "service", "did you mean `services`?");
	expect_hint("", "Phases", "did you mean `phases`?");
	expect_hint("", "stateDir", "did you mean `state_dir`?");
	expect_hint("", "log-dir", "did you mean `log_dir`?");
	expect_hint("", "backend", "did you mean `gpu.backend`?");
	expect_hint("services.*", "vrma", "did you mean `vram`?");
	expect_hint("services.*", "yieldAfter", "did you mean `yield_after`?");
	expect_hint("services.*", "gpucount", "did you mean `gpu_count`?");
	expect_hint("services.*", "command", "did you mean `process.command`?");
	expect_hint("services.*", "user", "did you mean `process.user`?");
	expect_hint("services.*", "http", "did you mean `health.http`?");
	expect_hint("services.*.process", "vram", "did you mean `services.NAME.vram`?");
	expect_hint("services.*.process", "enviroment", "did you mean `environment`?");
	expect_hint("services.*.health", "htp", "did you mean `http`?");
	expect_hint("phases.*", "servces", "did you mean `services`?");
	expect_hint("phases.*", "x", "expected one of name, services");
	expect_hint("gpu.sim", "folder", "expected one of dir, gpus");
	expect_hint("gpu", "", "expected one of backend, reserve, gpus, interval, sim");
}

static void test_names_of_other_tools(void **state)
{
	(void)state;
	expect_hint("services.*", "cmd", "did you mean `process.command`?");
	expect_hint("services.*.process", "cmd", "did you mean `command`?");
	expect_hint("services.*.health", "cmd", "did you mean `command`?");
	expect_hint("services.*", "cmdStop", "did you mean `process.stop_command`?");
	expect_hint("services.*", "ttl", "did you mean `yield_after`?");
	expect_hint("services.*", "checkEndpoint", "did you mean `health.http`?");
	expect_hint("services.*", "vram_mb", "did you mean `vram`?");
	expect_hint("services.*", "start_cmd", "did you mean `process.command`?");
	expect_hint("services.*", "stop_cmd", "did you mean `process.stop_command`?");
	expect_hint("services.*", "health_endpoint", "did you mean `health.http`?");
	expect_hint("services.*", "health_timeout", "did you mean `health.timeout`?");
	expect_hint("services.*", "container_name", "did you mean `container.name`?");
	expect_hint("services.*", "pipeline_phases", "did you mean `phases.N.services`?");
	expect_hint("services.*", "env", "did you mean `process.environment`?");
	expect_hint("services.*", "workdir", "did you mean `process.directory`?");
	expect_hint("services.*", "working_dir", "did you mean `process.directory`?");
	expect_hint("services.*", "warm_time", "not needed: a service is ready as soon as its health check passes");
	expect_hint("services.*", "evict_api", "not needed: a service is evicted by stopping it");
	expect_hint("", "models", "did you mean `services`?");
	expect_hint("", "ExecStart", "did you mean `services.NAME.process.command`?");
}

static void test_foreign_keys_lead_somewhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < foreign_key_count; i++) {
		const struct foreign_key *foreign = &foreign_keys[i];
		bool is_known_section = foreign->section == NULL || foreign->section[0] == '\0' ||
			option_find(foreign->section) != NULL;
		if (!is_known_section || (foreign->ours == NULL) == (foreign->note == NULL) ||
			(foreign->ours != NULL && option_find(foreign->ours) == NULL))
			fail_msg("row %zu, %s", i, foreign->name);
		/* a key that we do have is nobody else's */
		const char *section = foreign->section == NULL ? "services.*" : foreign->section;
		const struct option *option = section[0] == '\0' ? &option_root : option_find(section);
		if (option_child(option, foreign->name) != NULL)
			fail_msg("row %zu: %s has a %s", i, section, foreign->name);
	}
}

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		char expected[256];
		assert_ptr_equal(option_find(option->path), option);
		assert_int_equal(option_index(option), i);
		assert_non_null(option->type);
		assert_true(strlen(option->meaning) > 5);
		assert_true(option->meaning[strlen(option->meaning) - 1] != '.');
		assert_true(strlen(option_expected(option, expected, sizeof(expected))) > 0);
		assert_true(strlen(expected) < sizeof(expected) - 1);
		assert_true(option->type->from_text != NULL || option->type->from_node != NULL);
		/* every parent is a row too */
		char parent[128];
		snprintf(parent, sizeof(parent), "%s", option->path);
		char *dot = strrchr(parent, '.');
		if (dot != NULL) {
			*dot = '\0';
			assert_non_null(option_find(parent));
		}
	}
	assert_null(option_find("services.x"));
	assert_null(option_child(&option_root, "gpu.backend"));
	assert_null(option_child(option_find("gpu"), "sim.dir"));
}

/* As a whole word: "socket" is not found in "socket_mode". */
static bool has_line(const char *text, const char *line)
{
	size_t length = strlen(line);
	for (const char *p = text; (p = strstr(p, line)) != NULL; p++)
		if ((p == text || p[-1] == '\n') && (p[length] == '\n' || strncmp(p + length, ":\n", 2) == 0))
			return true;
	return false;
}

static void test_reference(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = config_reference();
	assert_non_null(text);
	for (size_t i = 0; i < option_count; i++) {
		char path[128];
		if (!has_line(text, option_display(&option_table[i], path, sizeof(path))))
			fail_msg("the reference lacks %s", path);
	}
	assert_non_null(strstr(text,
		"\nservices.NAME.health.timeout\n    From the start to the first good check; later than "
		"that, the start has\n    failed.\n    a duration such as 30s, 5m or 1m30s; default: "
		"120s.\n"));
	for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 80);
}

/* The schema of an option: properties, or what stands for names that the file chooses. */
static json_t *find_in_schema(json_t *schema, const char *path)
{
	char part[64];
	while (*path != '\0' && schema != NULL) {
		size_t length = strcspn(path, ".");
		snprintf(part, sizeof(part), "%.*s", (int)length, path);
		if (strcmp(part, "*") == 0)
			schema = json_object_iter_value(json_object_iter(json_object_get(schema, "patternProperties")));
		else
			schema = json_object_get(json_object_get(schema, "properties"), part);
		path += length + (path[length] == '.');
	}
	return schema;
}

static void test_schema(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = config_schema();
	assert_non_null(text);
	json_error_t error;
	json_t *schema = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (schema == NULL)
		fail_msg("%s", error.text);
	assert_string_equal(
		json_string_value(json_object_get(schema, "$schema")), "https://json-schema.org/draft/2020-12/schema");
	for (size_t i = 0; i < option_count; i++) {
		json_t *found = find_in_schema(schema, option_table[i].path);
		if (!json_is_object(found))
			fail_msg("the schema lacks %s", option_table[i].path);
		bool is_named = strcmp(option_name(&option_table[i]), "*") == 0;
		if (!is_named)
			assert_string_equal(
				json_string_value(json_object_get(found, "description")), option_table[i].meaning);
	}
	json_t *service = find_in_schema(schema, "services.*");
	assert_int_equal(json_array_size(json_object_get(service, "required")), 2);
	assert_int_equal(json_array_size(json_object_get(service, "oneOf")), 2);
	assert_true(json_is_false(json_object_get(service, "additionalProperties")));
	assert_int_equal(
		json_integer_value(json_object_get(find_in_schema(schema, "services.*.priority"), "default")), 50);
	json_decref(schema);
}

/* Every key stands in the documentation, in code quotes. */
static void test_documentation(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = read_source("docs/configuration.md");
	for (size_t i = 0; i < option_count; i++) {
		char path[128], quoted[160];
		snprintf(quoted, sizeof(quoted), "`%s`", option_display(&option_table[i], path, sizeof(path)));
		if (strstr(text, quoted) == NULL)
			fail_msg("docs/configuration.md lacks %s", quoted);
	}
}

/* What a text fences as YAML and begins with `version: 1` is a whole file: it must load. */
static void test_documentation_loads(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = read_source("docs/configuration.md");
	size_t n = 0;
	for (char *p = text; (p = strstr(p, "```yaml\n")) != NULL;) {
		p += strlen("```yaml\n");
		char *end = strstr(p, "```");
		assert_non_null(end);
		if (strncmp(p, "version: 1\n", 11) == 0) {
			CLEANUP_FREE char *block = strndup(p, (size_t)(end - p));
			config_free(expect_config(block));
			n++;
		}
		p = end + 3;
	}
	assert_true(n > 0);
}

static void test_example(void **state)
{
	(void)state;
	CLEANUP_FREE char *text = read_source("examples/mcn.yaml");
	struct config *config = expect_config(text);
	assert_int_equal(config->n_phases, 5);
	assert_int_equal(config->n_services, 4);
	static const struct {
		const char *name;
		uint32_t mib;
		int priority;
		enum service_driver driver;
		uint64_t timeout_ms;
		const char *health;
	} services[] = {
		{ "comfyui", 20000, 100, DRIVER_PROCESS, 120000, "http://127.0.0.1:8188/system_stats" },
		{ "cosyvoice", 4000, 50, DRIVER_CONTAINER, 60000, "http://127.0.0.1:50000/docs" },
		{ "vidi", 4000, 40, DRIVER_PROCESS, 90000, "http://127.0.0.1:8099/health" },
		{ "ollama", 18000, 10, DRIVER_CONTAINER, 30000, "http://127.0.0.1:11434/api/tags" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
		const struct service_config *service = &config->services[config_find_service(config, services[i].name)];
		assert_int_equal(service->vram.mib, services[i].mib);
		assert_int_equal(service->priority, services[i].priority);
		assert_int_equal(service->driver, services[i].driver);
		assert_int_equal(service->health_timeout_ms, services[i].timeout_ms);
		assert_int_equal(service->health.kind, PROBE_HTTP);
		assert_string_equal(service->health.address, services[i].health);
	}
	static const char *const needs[] = { NULL, "vidi", "cosyvoice", "comfyui", NULL };
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		assert_int_equal(config->phases[i].number, i + 1);
		assert_int_equal(config->phases[i].service_names.n, needs[i] != NULL);
		if (needs[i] != NULL)
			assert_string_equal(config->phases[i].service_names.items[0], needs[i]);
	}
	config_free(config);
}

static void test_a_small_pipeline(void **state)
{
	(void)state;
	struct config *config = expect_config(
		"version: 1\ngpu: {reserve: 1GiB}\nphases:\n  1: {name: crawl}\n  2: {name: analysis, services: "
		"[vidi]}\n"
		"  4: {name: video, services: [comfyui]}\nservices:\n  comfyui:\n    vram: 20000MiB\n    priority: "
		"100\n"
		"    process: {command: [/opt/comfyui/start.sh], user: comfy}\n"
		"    health: {http: \"http://127.0.0.1:8188/system_stats\", timeout: 120s}\n  cosyvoice:\n"
		"    vram: 4000MiB\n    priority: 50\n    container: {name: mcn_cosyvoice}\n"
		"    health: {http: \"http://127.0.0.1:50000/docs\", timeout: 60s}\n  vidi:\n    vram: 4000MiB\n"
		"    process: {command: [/opt/vidi/start.sh]}\n    health: {http: \"http://127.0.0.1:8099/health\"}\n");
	assert_int_equal(config_find_phase(config, "video"), 2);
	assert_int_equal(config_find_phase(config, "4"), 2);
	assert_int_equal(config->phases[2].services[0], 0);
	config_free(config);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slips),
		cmocka_unit_test(test_names_of_other_tools),
		cmocka_unit_test(test_foreign_keys_lead_somewhere),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_schema),
		cmocka_unit_test(test_documentation),
		cmocka_unit_test(test_documentation_loads),
		cmocka_unit_test(test_example),
		cmocka_unit_test(test_a_small_pipeline),
	};
	if (argc != 2) {
		fprintf(stderr, "usage: %s SOURCE_ROOT\n", argv[0]);
		return 2;
	}
	source_root = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
