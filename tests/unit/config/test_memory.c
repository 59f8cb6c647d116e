/*
 * Memory that runs out: the N-th allocation fails, for every N, alone or with all that follow. Each time the answer is
 * -ENOMEM (or NULL) and nothing leaks, which the address sanitizer sees. The linker hands our allocations to the
 * __wrap_ functions; jansson takes them as its own.
 */
#include "support.h"

#include <jansson.h>

static size_t countdown = SIZE_MAX; /* allocations until one fails; SIZE_MAX: none does */
static bool fails_once; /* and there is memory again after it */
static bool has_failed;

static bool fails(void)
{
	if (countdown == SIZE_MAX || (has_failed && fails_once))
		return false;
	if (countdown > 0) {
		countdown--;
		return false;
	}
	has_failed = true;
	errno = ENOMEM;
	return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *pointer, size_t size);
void *__wrap_realloc(void *pointer, size_t size);
void *__wrap_realloc(void *pointer, size_t size)
{
	return fails() ? NULL : __real_realloc(pointer, size);
}

void *__real_reallocarray(void *pointer, size_t n, size_t size);
void *__wrap_reallocarray(void *pointer, size_t n, size_t size);
void *__wrap_reallocarray(void *pointer, size_t n, size_t size)
{
	return fails() ? NULL : __real_reallocarray(pointer, n, size);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

char *__real_strndup(const char *text, size_t length);
char *__wrap_strndup(const char *text, size_t length);
char *__wrap_strndup(const char *text, size_t length)
{
	return fails() ? NULL : __real_strndup(text, length);
}

int __real_vasprintf(char **ret, const char *format, va_list args);
int __wrap_vasprintf(char **ret, const char *format, va_list args);
int __wrap_vasprintf(char **ret, const char *format, va_list args)
{
	*ret = NULL;
	return fails() ? -1 : __real_vasprintf(ret, format, args);
}

int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int r = __wrap_vasprintf(ret, format, args);
	va_end(args);
	return r;
}

FILE *__real_open_memstream(char **ret, size_t *ret_length);
FILE *__wrap_open_memstream(char **ret, size_t *ret_length);
FILE *__wrap_open_memstream(char **ret, size_t *ret_length)
{
	return fails() ? NULL : __real_open_memstream(ret, ret_length);
}

/* libyaml's own allocations cannot be reached; its calls can. */
int __real_yaml_parser_initialize(void *parser);
int __wrap_yaml_parser_initialize(void *parser);
int __wrap_yaml_parser_initialize(void *parser)
{
	return fails() ? 0 : __real_yaml_parser_initialize(parser);
}

static const char good[] =
	"version: 1\nsocket: /s\nlisten: [\"a:1\", \"b:2\"]\nopen: true\nallowed_hosts: [a, b, c]\n"
	"gpu: {backend: sim, gpus: [24GiB, 16GiB], sim: {dir: \"${env.NOT_THERE:-/x}\", gpus: [24576, 1GiB]}}\n"
	"lock: {backend: redis, url: \"redis://h\"}\n"
	"phases: {4: {name: a, services: [x, y]}, 2: {name: b}}\n"
	"services:\n"
	"  x:\n    vram: 4GiB\n    gpus: [0, GPU-a]\n    health: {command: \"a 'b c'\"}\n"
	"    process: {command: \"a b c\", environment: {A: 1, B: 2}, user: u, stop_command: [a, b]}\n"
	"  y: {vram: 5%, container: {compose: {project: p, service: s}}, health: {http: \":80/\"}, "
	"busy: {http: \":80/\", json: a}}\n";

static const char bad[] = "vesion: 1\nlisten: [a]\ngpu: {reserve: 1, reserve: 2}\nphases: {x: ~, 2: {services: [q]}}\n"
			  "services: {X: {vram: 1}, x: {process: {command: \"'\"}, health: {tcp: a, http: b}}}\n";

/* What config_parse() answers when the n-th allocation fails. */
static int parse_failing_at(const char *text, size_t n)
{
	struct config *config = NULL;
	struct config_report report;
	countdown = n;
	has_failed = false;
	int r = config_parse("f", text, strlen(text), &config, &report);
	countdown = SIZE_MAX;
	assert_true((config != NULL) == (r == 0));
	config_free(config);
	config_report_finish(&report);
	return r;
}

static void try_all(const char *text, int outcome, bool once)
{
	size_t n = 0;
	fails_once = once;
	for (;; n++) {
		int r = parse_failing_at(text, n);
		if (!has_failed) {
			assert_int_equal(r, outcome);
			break;
		}
		/* sorting the report needs memory, but only to put it in order */
		assert_true(r == -ENOMEM || (outcome == -EINVAL && r == -EINVAL));
	}
	assert_true(n > 50);
	print_message("%zu allocations\n", n);
}

static void test_good_file(void **state)
{
	(void)state;
	try_all(good, 0, false);
	try_all(good, 0, true);
}

static void test_bad_file(void **state)
{
	(void)state;
	try_all(bad, -EINVAL, false);
	try_all(bad, -EINVAL, true);
}

static void try_text(char *(*make)(void), bool once)
{
	size_t n = 0;
	fails_once = once;
	for (;; n++) {
		countdown = n;
		has_failed = false;
		char *text = make();
		countdown = SIZE_MAX;
		if ((text == NULL) != has_failed)
			fail_msg("allocation %zu: %s", n, text == NULL ? "no text" : "a text all the same");
		free(text);
		if (!has_failed)
			break;
	}
	assert_true(n > 0);
	print_message("%zu allocations\n", n);
}

static void test_reference(void **state)
{
	(void)state;
	try_text(config_reference, false);
	try_text(config_reference, true);
}

static void test_schema(void **state)
{
	(void)state;
	json_set_alloc_funcs(__wrap_malloc, free);
	/* Never one failure alone: jansson 2.14 does not notice when its lexer's buffer could not grow, and then reads
	 * behind it, unless the next allocation fails too. */
	try_text(config_schema, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_file),
		cmocka_unit_test(test_bad_file),
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_schema),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
