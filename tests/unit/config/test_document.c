/* The way from bytes to a document: syntax, encodings, bounds, aliases, and the file itself. */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define EMPTY "f: is empty (expected at least `version: 1`; `gpumgr config reference` lists every key)\n"

static void expect_bytes(const char *text, size_t length, const char *lines)
{
	struct config *config;
	CLEANUP_FREE char *got = problems_of(text, length, false, &config);
	assert_string_equal(got, lines);
	config_free(config);
}

static void test_empty(void **state)
{
	(void)state;
	expect_errors("", EMPTY);
	expect_errors("# nothing yet\n", EMPTY);
	expect_errors("---\n", EMPTY);
	expect_errors("~", EMPTY);
	expect_errors("\xef\xbb\xbf", EMPTY);
	expect_errors("{}", "f: version: is missing (expected 1)\n");
}

static void test_not_a_mapping(void **state)
{
	(void)state;
	expect_errors("- version: 1\n", "f:1:1: is a list (expected a mapping such as version: 1)\n");
	expect_errors("just text\n", "f:1:1: is a single value (expected a mapping such as version: 1)\n");
}

static void test_syntax(void **state)
{
	(void)state;
	expect_errors("version: 1\ngpu:\n\treserve: 1GiB\n",
		"f:3:1: YAML: found character that cannot start any token (YAML does not take tabs for indentation: "
		"use "
		"spaces)\n");
	expect_errors("# \xc3\xa4\xc3\xb6\xc3\xbc\nversion: 1\nsocket: \t@x\n",
		"f:3:10: YAML: found character that cannot start any token (a value that begins with @, ` or % needs "
		"quotes)\n");
	expect_errors("version: 1\nsocket: a: b\n",
		"f:2:10: YAML: mapping values are not allowed in this context (a value with `: ` in it needs quotes; "
		"or is "
		"the indentation off?)\n");
	expect_errors("version: 1\nlisten: [a, b\nopen: true\n",
		"f:3:5: YAML: did not find expected ',' or ']' (is a comma missing? `${env.NAME}` within {...} or "
		"[...] "
		"needs quotes)\n");
	expect_errors("version: 1\ngpu: {sim: {dir: ${env.X}}}\n",
		"f:2:19: YAML: did not find expected ',' or '}' (is a comma missing? `${env.NAME}` within {...} or "
		"[...] "
		"needs quotes)\n");
	expect_errors("version: 1\nsocket: \"abc\n",
		"f:3:1: YAML: found unexpected end of stream (is a quote or bracket never closed?)\n");
	expect_errors("version: 1\nsocket: *nobody\n",
		"f:2:9: YAML: found undefined alias (an anchor (&name) must stand before its alias (*name); a value "
		"that "
		"begins with * needs quotes)\n");
}

static void test_bytes(void **state)
{
	(void)state;
	expect_bytes("version: 1\n\0\n", 13, "f:2:1: has a NUL byte here (is it a text file?)\n");
	expect_bytes(
		"version: 1\n# \xc3\xa4 \xe4\n", 18, "f:2:5: is not UTF-8 here (save the file in that encoding)\n");
	expect_bytes("\xff\xfev\0e\0", 6, "f:1:1: is not UTF-8 here (save the file in that encoding)\n");
	expect_bytes("version: 1 # \xc0\xaf", 15, "f:1:14: is not UTF-8 here (save the file in that encoding)\n");
	expect_bytes("version: 1 # \xed\xa0\x80", 16, "f:1:14: is not UTF-8 here (save the file in that encoding)\n");
	expect_bytes(
		"version: 1 # \xf4\x90\x80\x80", 17, "f:1:14: is not UTF-8 here (save the file in that encoding)\n");
	expect_bytes("version: 1 # \xe2\x82", 15, "f:1:14: is not UTF-8 here (save the file in that encoding)\n");
	expect_errors("version: 1\nsocket: a\x01"
		      "b\n",
		"f:2:10: YAML: control characters are not allowed (is it a text file?)\n");
	config_free(expect_config("\xef\xbb\xbfversion: 1\n"));
	config_free(expect_config("version: 1\r\nlease: {ttl: 5s}\r\n"));
	/* columns count characters */
	expect_errors("version: 1\nlease: {\"\xc3\xa4\": 1, x: 2}\n",
		"f:2:9: lease.\"\xc3\xa4\": unknown key (expected one of ttl, wait)\n"
		"f:2:17: lease.x: unknown key (expected one of ttl, wait)\n");
}

static void test_several_documents(void **state)
{
	(void)state;
	expect_errors("version: 1\nopen: 3\n---\nversion: 1\n",
		"f:2:7: open: \"3\" is neither true nor false (expected true or false)\n"
		"f:3:1: a second document begins here (expected one: remove the `---`, or make two files of it)\n");
	config_free(expect_config("%YAML 1.1\n---\nversion: 1\n...\n"));
}

static void test_duplicates(void **state)
{
	(void)state;
	expect_errors(SERVICE "    vram: 5GiB\n  x: {}\nversion: 1\n",
		"f:7:5: services.x.vram: is written twice (the first is in line 4; remove one)\n"
		"f:8:3: services.x: is written twice (the first is in line 3; remove one)\n"
		"f:8:3: services.x.vram: is missing (expected a size such as 20GiB, or 80% of the card)\n"
		"f:8:3: services.x.health: is missing (expected a mapping such as {http: \"http://127.0.0.1:8188/\"})\n"
		"f:8:3: services.x: has none of process, container (expected exactly one of them)\n"
		"f:9:1: version: is written twice (the first is in line 1; remove one)\n");
	expect_errors("version: 1\nphases: {4: {name: a}, \"4\": {name: a}}\n",
		"f:2:24: phases.4: is written twice (expected each number once)\n"
		"f:2:36: phases.4.name: is the name of phase 4 too (expected each name once)\n");
}

static void test_strange_keys(void **state)
{
	(void)state;
	expect_errors(
		"version: 1\n? [a]\n: 1\n", "f:2:3: has a key that is not plain text (expected the name of a key)\n");
	expect_errors(
		"version: 1\n\"a\\0b\": 1\n", "f:2:1: has a key that is not plain text (expected the name of a key)\n");
	expect_errors("version: 1\n\"gpu.reserve\": 1GiB\n",
		"f:2:1: \"gpu.reserve\": unknown key (did you mean `gpu.reserve`?)\n");
	expect_errors("version: 1\n\"a\\e[31mb\\n\": 1\n",
		"f:2:1: \"a?[31mb?\": unknown key (expected one of version, socket, socket_mode, socket_group, listen, "
		"token_file, open, allowed_hosts, state_dir, log_dir, gpu, lock, lease, phases, services)\n");
	expect_errors("version: 1\nlog_dir: \"/a\\0b\"\n",
		"f:2:10: log_dir: has a NUL character in it, which nothing accepts\n");
	expect_errors("version: 1\nlog_dir: \"/a\\u009b31m\"\nopen: \"\\u009b31m\"\n",
		"f:3:7: open: \"\?\?31m\" is neither true nor false (expected true or false)\n");
	expect_errors("version: 1\nopen: !!binary aGk=\nsocket: !x /a\nlog_dir: !!str /b\n",
		"f:2:7: open: has the tag \"tag:yaml.org,2002:binary\", which means nothing here (remove it)\n"
		"f:3:9: socket: has the tag \"!x\", which means nothing here (remove it)\n");
}

static void test_aliases(void **state)
{
	(void)state;
	struct config *config =
		expect_config("version: 1\nservices:\n  x: {vram: &size 4GiB, process: &p {command: [/x]}, "
			      "health: {tcp: 'h:1'}}\n  y: {vram: *size, process: *p, health: {tcp: 'h:2'}}\n");
	assert_int_equal(config->services[1].vram.mib, 4096);
	assert_string_equal(config->services[1].process.command.items[0], "/x");
	config_free(config);
	expect_errors("version: 1\nlease: &l {ttl: 5s}\nlock: {<<: *l}\n",
		"f:3:8: lock.\"<<\": unknown key (merge keys are not supported; an alias (*name) may stand for a whole "
		"value)\n");
	/* a mapping that holds itself */
	expect_errors("version: 1\ngpu: &g\n  sim: *g\n",
		"f:3:3: gpu.sim.sim: unknown key (expected one of dir, gpus)\n"
		"f:3:3: gpu.sim.dir: is missing (expected an absolute path)\n"
		"f:3:3: gpu.sim.gpus: is missing (expected sizes such as [24GiB] or [24GiB, 16GiB])\n"
		"f:3:3: gpu.sim: warning: is not used without `backend: sim`\n");
	expect_errors("version: 1\nallowed_hosts: &h [*h]\n",
		"f:2:16: allowed_hosts[0]: is a list (expected host names without a port such as [gpu.example.org])\n");
}

static void test_laughs_are_bounded(void **state)
{
	(void)state;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	fputs("version: 1\nservices:\n  x: &x\n    vram: 4GiB\n    health: {tcp: 'h:1'}\n    process:\n      command: "
	      "[/x",
		out);
	for (int i = 0; i < 900; i++)
		fputs(", a", out);
	fputs("]\n", out);
	for (int i = 0; i < 900; i++)
		fprintf(out, "  x%d: *x\n", i);
	fclose(out);
	struct config *config;
	CLEANUP_FREE char *lines = problems_of(text, length, false, &config);
	assert_null(config);
	assert_non_null(strstr(lines, "the aliases (*name) of this file stand for too much"));
	free(text);
}

/* What is said once and meant a thousand times is memory a thousand times. */
static void test_long_laughs_are_bounded(void **state)
{
	(void)state;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	fputs("version: 1\nservices:\n  x: &x\n    vram: 4GiB\n    health: {tcp: 'h:1'}\n    process:\n      command: "
	      "[/x, &a ",
		out);
	for (int i = 0; i < 100000; i++)
		fputc('a', out);
	fputs(", *a, *a, *a, *a, *a, *a, *a, *a, *a]\n", out);
	for (int i = 0; i < 17; i++)
		fprintf(out, "  x%d: *x\n", i);
	fclose(out);
	struct config *config;
	CLEANUP_FREE char *lines = problems_of(text, length, false, &config);
	const char *said = strstr(lines, "of this file stand for too much text");
	assert_null(config);
	assert_non_null(said);
	assert_null(strstr(strchr(said, '\n'), "too much text")); /* once */
	text[strlen(text) - strlen("  x15: *x\n  x16: *x\n")] = '\0'; /* two less fit */
	CLEANUP_FREE char *warnings = problems_of(text, strlen(text), false, &config);
	assert_null(strstr(warnings, "too much text"));
	assert_non_null(config);
	config_free(config);
	free(text);
}

static char *repeat(const char *head, const char *part, size_t n, const char *tail)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	fputs(head, out);
	for (size_t i = 0; i < n; i++)
		fputs(part, out);
	fputs(tail, out);
	fclose(out);
	return text;
}

static void expect_error_of(char *text, const char *line)
{
	struct config *config;
	CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
	assert_null(config);
	if (strstr(lines, line) == NULL)
		fail_msg("expected %s\ngot %.2000s", line, lines);
	free(text);
}

static void test_bounds(void **state)
{
	(void)state;
	expect_error_of(repeat("version: 1\nx: ", "[", 40, ""), "f:2:35: nested deeper than 32 levels\n");
	expect_error_of(repeat("version: 1\nx: ", "[", 500000, ""), "nested deeper than 32 levels\n");
	expect_error_of(repeat("version: 1\nx: [", "1,", 200000, "1]\n"), "more than 100000 values");
	expect_error_of(repeat("version: 1\nx: [", "&a 1,", 300, "1]\n"), "more than 256 anchors");
	/* libyaml looks each one up among all: minutes for what fits into a file, before and behind a document */
	expect_error_of(repeat("", "%TAG !a! x:\n", 300, "---\nversion: 1\n"),
		"f:257:1: more than 256 directives (%TAG) in one file\n");
	expect_error_of(repeat("version: 1\n...\n", "%TAG !a! x:\xc2\x85", 300, "---\nversion: 1\n"),
		"more than 256 directives (%TAG)");
	expect_error_of(repeat("", "# %TAG\n", 300, "version: 2\n"), "is not known to this gpumgr");
	expect_error_of(repeat("version: 1\nallowed_hosts: [", "a,", 1001, "]\n"),
		"f:2:1: allowed_hosts: has 1001 entries (expected 1000 at most)\n");
	expect_error_of(
		repeat("version: 1\n#", "x", 4 << 20, "\n"), "f: is larger than 4 MiB: this is not a configuration\n");
	expect_error_of(repeat("version: 1\nallowed_hosts: [", "/,", 1000, "]\nbusy: 1\n"),
		"f: warning: 1 more problems are not shown\n");
}

/* Files */

static int expect_unreadable(const char *path, const char *lines)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_load(path, &config, &report);
	assert_true(r < 0);
	assert_null(config);
	assert_int_equal(report.n, 1);
	CLEANUP_FREE char *line = config_problem_line(&report, &report.problems[0]);
	assert_string_equal(line, lines);
	config_report_finish(&report);
	return r;
}

static void test_files(void **state)
{
	(void)state;
	assert_int_equal(
		expect_unreadable("/nonexistent/g.yaml",
			"/nonexistent/g.yaml: cannot be read: No such file or directory (create it, or name another "
			"with -c; `gpumgr config reference` lists every key)"),
		-ENOENT);
	assert_int_equal(expect_unreadable("/", "/: cannot be read: Is a directory (name the file in it)"), -EISDIR);
	assert_int_equal(
		expect_unreadable("/dev/null",
			"/dev/null: is empty (expected at least `version: 1`; `gpumgr config reference` lists every "
			"key)"),
		-EINVAL);
	assert_int_equal(expect_unreadable("/dev/zero", "/dev/zero: is larger than 4 MiB: this is not a configuration"),
		-EINVAL);
}

static void test_file_that_is_read(void **state)
{
	(void)state;
	char path[] = "/tmp/gpumgr-test-config-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	static const char text[] = "version: 1\nlease: {ttl: 7s}\n";
	ssize_t written = write(fd, text, sizeof(text) - 1);
	close(fd);
	struct config *config = NULL;
	struct config_report report;
	int r = config_load(path, &config, &report);
	unlink(path);
	assert_int_equal(written, sizeof(text) - 1);
	assert_int_equal(r, 0);
	assert_int_equal(report.n, 0);
	assert_string_equal(report.file, path);
	assert_string_equal(config->path, path);
	assert_int_equal(config->lease.ttl_ms, 7000);
	config_report_finish(&report);
	config_free(config);
	config_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_not_a_mapping),
		cmocka_unit_test(test_syntax),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_several_documents),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_strange_keys),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_laughs_are_bounded),
		cmocka_unit_test(test_long_laughs_are_bounded),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_file_that_is_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
