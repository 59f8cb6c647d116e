/* Helpers of the configuration's tests. */
#include "support.h"

#include "base/cleanup.h"
#include "config/load.h"

char *problems_of(const char *text, size_t length, bool is_root, struct config **ret_config)
{
	struct config_report report;
	char *lines = NULL;
	size_t size;
	FILE *out = open_memstream(&lines, &size);
	assert_non_null(out);
	*ret_config = NULL;
	int r = config_parse_as("f", text, length, is_root, ret_config, &report);
	size_t n_errors = 0;
	for (size_t i = 0; i < report.n; i++) {
		CLEANUP_FREE char *line = config_problem_line(&report, &report.problems[i]);
		assert_non_null(line);
		fprintf(out, "%s\n", line);
		n_errors += !report.problems[i].is_warning;
	}
	assert_int_equal(fclose(out), 0);
	if (report.n < 1000)
		assert_int_equal(report.n_errors, n_errors);
	assert_int_equal(r, report.n_errors > 0 ? -EINVAL : 0);
	assert_true((*ret_config != NULL) == (r == 0));
	config_report_finish(&report);
	return lines;
}

static void expect_lines(const char *text, const char *got, const char *expected)
{
	if (strcmp(got, expected) != 0)
		fail_msg("in:\n%s\ngot:\n%s\nexpected:\n%s", text, got, expected);
}

struct config *expect_config(const char *text)
{
	struct config *config;
	CLEANUP_FREE char *lines = problems_of(text, strlen(text), false, &config);
	expect_lines(text, lines, "");
	return config;
}

void expect_errors(const char *text, const char *lines)
{
	struct config *config;
	CLEANUP_FREE char *got = problems_of(text, strlen(text), false, &config);
	expect_lines(text, got, lines);
	assert_null(config);
}

void expect_warnings(const char *text, bool is_root, const char *lines)
{
	struct config *config;
	CLEANUP_FREE char *got = problems_of(text, strlen(text), is_root, &config);
	expect_lines(text, got, lines);
	assert_non_null(config);
	config_free(config);
}

struct service_config *service_of(struct config *config)
{
	size_t index = config_find_service(config, "x");
	assert_true(index != SIZE_MAX);
	return &config->services[index];
}

char *read_whole(const char *path, size_t *ret_length)
{
	FILE *file = fopen(path, "re");
	if (file == NULL)
		fail_msg("%s: %s", path, strerror(errno));
	char *text = NULL;
	size_t length = 0, room = 0;
	for (;;) {
		if (length + 1 >= room) {
			room = room == 0 ? 4096 : 2 * room;
			text = realloc(text, room);
			assert_non_null(text);
		}
		size_t n = fread(text + length, 1, room - length - 1, file);
		if (n == 0)
			break;
		length += n;
	}
	fclose(file);
	text[length] = '\0';
	*ret_length = length;
	return text;
}
