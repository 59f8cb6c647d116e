/* Another file in the place of one: what differs, who keeps his place, what stays as it was at the start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "config/config.h"
#include "config/schema.h"

#define HEAD "version: 1\n"
#define A "  a: {vram: 1GiB, process: {command: [/bin/a]}, health: {tcp: \"127.0.0.1:1\"}}\n"
#define B "  b: {vram: 2GiB, process: {command: [/bin/b]}, health: {tcp: \"127.0.0.1:2\"}}\n"
#define C "  c: {vram: 3GiB, process: {command: [/bin/c]}, health: {tcp: \"127.0.0.1:3\"}}\n"

static struct config *parse(const char *text)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_parse("test.yaml", text, strlen(text), &config, &report);
	for (size_t i = 0; r < 0 && i < report.n; i++)
		print_error("%s: %s\n", report.problems[i].path, report.problems[i].message);
	config_report_finish(&report);
	assert_int_equal(r, 0);
	return config;
}

static void cleanup_config(struct config **config)
{
	config_free(*config);
}

static void cleanup_merged(struct config **merged)
{
	config_free_merged(*merged);
}

#define CONFIG CLEANUP(cleanup_config) struct config *
#define MERGED CLEANUP(cleanup_merged) struct config *

static struct config *merge(const struct config *now, const struct config *next)
{
	struct config *merged;
	assert_int_equal(config_succeed(now, next, &merged), 0);
	return merged;
}

/* The changes as their text. */
static char *changes(const char *from, const char *to)
{
	CONFIG first = parse(from);
	CONFIG second = parse(to);
	MERGED now = merge(NULL, first);
	struct config_changes found;
	assert_int_equal(config_find_changes(now, second, &found), 0);
	char *text = config_changes_text(&found);
	assert_int_equal(config_changes_any(&found), strcmp(text, "nothing changed\n") != 0);
	config_changes_finish(&found);
	return text;
}

static void assert_changes(const char *from, const char *to, const char *expected)
{
	CLEANUP_FREE char *text = changes(from, to);
	assert_string_equal(text, expected);
}

static void test_the_same_is_no_change(void **state)
{
	(void)state;
	assert_changes(HEAD "services:\n" A B, HEAD "services:\n" B A, "nothing changed\n");
	assert_changes(HEAD "gpu: {reserve: 1024MiB}\nservices:\n" A, HEAD "gpu: {reserve: 1GiB}\nservices:\n" A,
		"nothing changed\n");
}

static void test_each_kind_of_change(void **state)
{
	(void)state;
	assert_changes(HEAD "services:\n" A B, HEAD "services:\n" A C,
		"added c\nremoved b; what runs of it is stopped when nobody uses it\n");
	assert_changes(HEAD "services:\n" A, HEAD "gpu: {reserve: 2GiB}\nsocket: /x/y\nservices:\n" A,
		"changed gpu.reserve\nnot changed: socket is read when gpumgrd starts\n");
	assert_changes(HEAD "phases: {1: {services: [a]}, 2: {name: x}}\nservices:\n" A,
		HEAD "phases: {1: {name: y, services: [a]}, 3: {name: x}}\nservices:\n" A,
		"added phase 3\nremoved phase 2; what runs of it is stopped when nobody uses it\nchanged phase 1\n");
}

/* Each key of a service, written otherwise, is noticed, and as what the table says it is. */
static void test_every_key_of_a_service(void **state)
{
	static const struct {
		const char *before, *after;
		bool at_run;
	} cases[] = {
		{ "vram: 1GiB", "vram: 2GiB", false },
		{ "vram: 10%", "vram: 11%", false },
		{ "priority: 1", "priority: 2", false },
		{ "gpus: any", "gpus: [0]", true },
		{ "gpus: [0]", "gpus: [1]", true },
		{ "gpus: [GPU-1]", "gpus: [GPU-2]", true },
		{ "gpus: [0, 1]\n    gpu_count: 1", "gpus: [0, 1]\n    gpu_count: 2", true },
		{ "pinned: false", "pinned: true", false },
		{ "priority: 50", "yield_after: 60s", false },
		{ "yield_after: never", "yield_after: 60s", false },
		{ "preempt_after: 1s", "preempt_after: 2s", false },
		{ "max_leases: 2", "max_leases: 3", false },
		{ "busy: {http: \"http://127.0.0.1/\", json: a}", "busy: {http: \"http://127.0.0.1/x\", json: a}",
			false },
		{ "busy: {http: \"http://127.0.0.1/\", json: a}", "busy: {http: \"http://127.0.0.1/\", json: b}",
			false },
		{ "busy: {http: \"http://127.0.0.1/\", json: a, above: 1}",
			"busy: {http: \"http://127.0.0.1/\", json: a, above: 1.5}", false },
		{ "busy: {command: [/bin/x]}", "busy: {command: [/bin/y]}", false },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool has_vram = strncmp(cases[i].before, "vram", 4) == 0;
		const char *format = HEAD "services:\n  a:\n    process: {command: /bin/a}\n"
					  "    health: {tcp: \"127.0.0.1:1\"}\n    %s%s\n";
		char before[512], after[512];
		snprintf(before, sizeof(before), format, has_vram ? "" : "vram: 1GiB\n    ", cases[i].before);
		snprintf(after, sizeof(after), format, has_vram ? "" : "vram: 1GiB\n    ", cases[i].after);
		assert_changes(before, after,
			cases[i].at_run ? "changed a; if it runs, it does so as before until it is started anew\n"
					: "changed a\n");
	}
}

static void test_every_key_of_a_run(void **state)
{
	static const char *const process[] = { "command: /bin/b", "shell: true", "environment: {X: y}", "directory: /x",
		"user: nobody", "type: forking", "pid_file: /x", "stop_command: /bin/x", "stop_signal: INT",
		"stop_timeout: 1s", "log_size: 1MiB" };
	const char *format = HEAD "services:\n  a:\n    vram: 1GiB\n    health: {tcp: \"127.0.0.1:1\"}\n"
				  "    process: {%s%s}\n";
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(process); i++) {
		char before[512], after[512];
		snprintf(before, sizeof(before), format, "command: /bin/a", "");
		snprintf(after, sizeof(after), format, i == 0 ? "" : "command: /bin/a, ", process[i]);
		assert_changes(before, after, "changed a; if it runs, it does so as before until it is started anew\n");
	}
	assert_changes(HEAD "services:\n" A,
		HEAD "services: {a: {vram: 1GiB, container: {name: a}, health: {tcp: \"127.0.0.1:1\"}}}\n",
		"changed a; if it runs, it does so as before until it is started anew\n");
}

static void test_everybody_keeps_his_place(void **state)
{
	CONFIG first = parse(HEAD "phases: {2: {services: [b]}, 5: {services: [a, b]}}\nservices:\n" A B);
	CONFIG second = parse(HEAD "phases: {1: {services: [c]}, 5: {services: [c, b]}}\nservices:\n" C B);
	CONFIG third = parse(HEAD "services:\n" A);
	MERGED one = merge(NULL, first);
	MERGED two = merge(one, second);
	MERGED three = merge(two, third);

	(void)state;
	assert_int_equal(two->n_services, 3);
	assert_string_equal(two->services[0].name, "a");
	assert_true(two->services[0].is_retired);
	assert_string_equal(two->services[1].name, "b");
	assert_false(two->services[1].is_retired);
	assert_string_equal(two->services[2].name, "c");
	assert_int_equal(two->n_phases, 3);
	assert_int_equal(two->phases[0].number, 2);
	assert_true(two->phases[0].is_retired);
	assert_int_equal(two->phases[1].number, 5);
	assert_int_equal(two->phases[1].services[0], 2);
	assert_int_equal(two->phases[1].services[1], 1);
	assert_int_equal(two->phases[2].number, 1);
	assert_false(three->services[0].is_retired);
	assert_true(three->services[1].is_retired && three->services[2].is_retired);
	assert_true(config_lends_to(third, three));
	assert_true(config_lends_to(second, three)); /* b and c, as they were last */
	assert_true(config_lends_to(first, three)); /* phase 2 */
	assert_true(config_owns_service(second, &three->services[1]));
	assert_false(config_owns_service(first, &three->services[1]));
}

/* Whatever differs after that is what is read at the start only: nothing else was forgotten. */
static void test_what_is_taken_over(void **state)
{
	CONFIG first = parse(HEAD "services:\n" A);
	CONFIG second = parse(
		HEAD "socket: /x/y\nsocket_mode: \"0600\"\nsocket_group: root\nlisten: [\"127.0.0.1:1\"]\n"
		     "open: true\nallowed_hosts: [x.example]\nstate_dir: /x\nlog_dir: /y\n"
		     "gpu: {backend: sim, reserve: 3GiB, gpus: [5GiB], interval: 1s, sim: {dir: /s, gpus: [4GiB]}}\n"
		     "lock: {backend: redis, url: \"redis://h\", key: k, ttl: 7s}\nlease: {ttl: 1s, wait: 2s}\n"
		     "services:\n" A);
	MERGED one = merge(NULL, first);
	MERGED two = merge(one, second);
	struct config_changes before, after;

	(void)state;
	assert_int_equal(config_find_changes(one, second, &before), 0);
	assert_int_equal(config_find_changes(two, second, &after), 0);
	assert_int_equal(before.changed.n, 5); /* allowed_hosts, gpu.reserve, gpu.gpus, lease.ttl, lease.wait */
	assert_int_equal(after.changed.n, 0);
	assert_int_equal(after.at_start.n, before.at_start.n);
	size_t n_at_start = 0;
	for (size_t i = 0; i < option_count; i++)
		n_at_start += (option_table[i].flags & OPTION_AT_START) != 0;
	assert_int_equal(after.at_start.n, n_at_start - 1); /* token_file was not written */
	config_changes_finish(&before);
	config_changes_finish(&after);
}

/* A key that is read, and neither compared nor a section, would be forgotten by every reload. */
static void test_every_value_is_compared(void **state)
{
	(void)state;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		bool is_section = option->type == &type_section || option->type == &type_phases ||
			option->type == &type_services || option->type == &type_version;
		if (!is_section && option->type->is_equal == NULL)
			fail_msg("%s is not compared", option->path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_is_no_change),
		cmocka_unit_test(test_each_kind_of_change),
		cmocka_unit_test(test_every_key_of_a_service),
		cmocka_unit_test(test_every_key_of_a_run),
		cmocka_unit_test(test_everybody_keeps_his_place),
		cmocka_unit_test(test_what_is_taken_over),
		cmocka_unit_test(test_every_value_is_compared),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
