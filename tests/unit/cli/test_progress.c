/* Progress: from events to lines and pictures, without a terminal or a daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/progress.h"
#include "cli/text.h"

struct fixture {
	struct cli cli;
	struct progress progress;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	progress_begin(&fixture->progress, &fixture->cli, "phase 4", 1000);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	progress_end(&fixture->progress);
	for (size_t i = 0; i < fixture->cli.n_kept; i++)
		free(fixture->cli.kept[i]);
	free(fixture->cli.kept);
	free(fixture);
	return 0;
}

static char *ended(struct fixture *fixture)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	progress_print_ended(&fixture->progress, out);
	fclose(out);
	return text;
}

static char *picture(struct fixture *fixture, uint64_t now_ms, struct terminal terminal)
{
	char *text = NULL;
	size_t size, n_newlines = 0;
	FILE *out = open_memstream(&text, &size);
	size_t n = progress_draw(&fixture->progress, out, now_ms, &terminal);
	fclose(out);
	for (const char *c = text; *c != '\0'; c++)
		n_newlines += *c == '\n';
	assert_int_equal(n_newlines, n);
	return text;
}

#define STOP_RUNNING                                                                                                   \
	"{\"subject\": \"a\", \"data\": {\"action\": \"stop\", \"state\": \"running\", \"text\": \"stop a: frees 5 "   \
	"MiB: running\"}}"
#define STOP_DONE                                                                                                      \
	"{\"subject\": \"a\", \"data\": {\"action\": \"stop\", \"state\": \"done\", \"duration_ms\": 12, \"text\": "   \
	"\"stop a: frees 5 MiB: done\"}}"

static void test_each_step_is_told_once(void **state)
{
	struct fixture *fixture = *state;
	progress_feed(&fixture->progress, "accepted", "{\"id\": 7, \"state\": \"running\", \"steps\": []}", 1000);
	assert_int_equal(fixture->progress.transition, 7);
	progress_feed(&fixture->progress, "step", STOP_RUNNING, 1000);
	CLEANUP_FREE char *nothing = ended(fixture);
	assert_string_equal(nothing, "");
	progress_feed(&fixture->progress, "step", STOP_DONE, 1010);
	CLEANUP_FREE char *first = ended(fixture);
	assert_string_equal(first, "stop a: frees 5 MiB: done (12 ms)\n");
	progress_feed(&fixture->progress, "step", STOP_DONE, 1010);
	progress_feed(&fixture->progress, "step", STOP_RUNNING, 1010); /* late: it does not run again */
	progress_feed(&fixture->progress, "result",
		"{\"status\": 200, \"body\": {\"steps\": [{\"action\": \"stop\", \"service\": \"a\", \"state\": "
		"\"done\"}, "
		"{\"action\": \"start\", \"service\": \"b\", \"state\": \"skipped\", \"text\": \"start b: takes 5 "
		"MiB\"}]}}",
		1020);
	CLEANUP_FREE char *rest = ended(fixture);
	assert_string_equal(rest, "start b: takes 5 MiB: skipped\n");
	assert_true(fixture->progress.has_result);
	assert_int_equal(fixture->progress.status, 200);
}

static void test_whether_it_has_begun(void **state)
{
	struct fixture *fixture = *state;
	struct progress *progress = &fixture->progress;
	progress_feed(progress, "accepted",
		"{\"id\": 7, \"state\": \"queued\", \"waits_for\": \"transition 6\", \"steps\": []}", 1000);
	assert_false(progress->has_begun);
	assert_string_equal(progress->waits_for, "transition 6");
	progress_feed(progress, "transition", "{\"data\": {\"state\": \"parked\", \"text\": \"a lease on b\"}}", 1000);
	assert_false(progress->has_begun);
	assert_string_equal(progress->waits_for, "a lease on b");
	progress_feed(progress, "transition", "{\"data\": {\"state\": \"running\", \"text\": \"running\"}}", 1000);
	assert_true(progress->has_begun);
	assert_null(progress->waits_for);
}

static void test_picture(void **state)
{
	struct fixture *fixture = *state;
	struct terminal plain = { .is_tty = true, .width = 40, .height = 24 };
	progress_feed(&fixture->progress, "step", STOP_DONE, 1000);
	progress_feed(&fixture->progress, "step",
		"{\"subject\": \"b\", \"data\": {\"action\": \"start\", \"state\": \"running\", \"text\": \"start b: "
		"takes a "
		"very great deal of memory\"}}",
		1100);
	CLEANUP_FREE char *text = picture(fixture, 2600, plain);
	assert_string_equal(text,
		"| phase 4  1.6 s\n"
		"  + stop a (12 ms): frees 5 MiB\n"
		"  | start b (1.5 s): takes a very great\n");
	struct terminal rich = { .is_tty = true, .colors = true, .utf8 = true, .width = 40, .height = 24 };
	CLEANUP_FREE char *colored = picture(fixture, 2600, rich);
	assert_non_null(strstr(colored, "\x1b[32m\xe2\x9c\x93\x1b[0m stop a"));
	for (size_t width = 20; width < 60; width++) {
		plain.width = width;
		CLEANUP_FREE char *narrow = picture(fixture, 2600, plain);
		char *rest = narrow, *line;
		while ((line = strsep(&rest, "\n")) != NULL)
			assert_true(text_width(line) < width);
	}
}

static void test_more_steps_than_lines(void **state)
{
	struct fixture *fixture = *state;
	struct terminal terminal = { .is_tty = true, .width = 80, .height = 10 };
	for (int i = 0; i < 1000; i++) {
		char event[200];
		snprintf(event, sizeof(event),
			"{\"subject\": \"s%d\", \"data\": {\"action\": \"stop\", \"state\": \"done\", \"text\": "
			"\"x\"}}",
			i);
		progress_feed(&fixture->progress, "step", event, 1000);
	}
	assert_int_equal(fixture->progress.n_steps, PROGRESS_STEPS_MAX);
	size_t n = 0;
	CLEANUP_FREE char *text = picture(fixture, 2000, terminal);
	for (const char *c = text; *c != '\0'; c++)
		n += *c == '\n';
	assert_int_equal(n, 9);
}

static void test_malformed_events_change_nothing(void **state)
{
	struct fixture *fixture = *state;
	static const char *const types[] = { "accepted", "step", "transition", "result", "message", "" };
	static const char *const data[] = { "", "{", "null", "5", "[]", "\"x\"", "{}", "{\"steps\": 5}",
		"{\"body\": 5}", "{\"body\": null}", "{\"subject\": 5, \"data\": {\"action\": 5}}",
		"{\"steps\": [null, {}, [], 5]}", "{\"id\": \"x\", \"state\": {}}", "\xff\xfe" };
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		for (size_t j = 0; j < ARRAY_SIZE(data); j++)
			progress_feed(&fixture->progress, types[i], data[j], 1000);
	assert_int_equal(fixture->progress.n_steps, 0);
	assert_false(fixture->progress.has_result);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_each_step_is_told_once),
		WITH(test_whether_it_has_begun),
		WITH(test_picture),
		WITH(test_more_steps_than_lines),
		WITH(test_malformed_events_change_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
