/* Problems: collected, put in order, and turned into lines. Decides nothing about what is a problem. */
#include "config/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Control characters, C1 (in UTF-8: C2 80 to C2 9F) included, become `?`. */
static void make_printable(char *text)
{
	unsigned char *p = (unsigned char *)text;
	for (; *p != '\0'; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
			p[0] = p[1] = '?';
	}
}

static struct config_problem *make_room(struct config_report *report)
{
	/* Grows when the count is a power of two, so that the list needs no capacity of its own. */
	size_t n = report->n;
	if ((n & (n - 1)) != 0)
		return &report->problems[n];
	struct config_problem *problems = reallocarray(report->problems, n == 0 ? 1 : 2 * n, sizeof(*problems));
	if (problems == NULL)
		return NULL;
	report->problems = problems;
	return &problems[n];
}

int report_add(struct config_report *report, bool is_warning, struct position at, const char *path, const char *format,
	va_list args)
{
	char *message;
	if (vasprintf(&message, format, args) < 0)
		return -ENOMEM;
	CLEANUP_FREE char *owned_message = message;
	CLEANUP_FREE char *owned_path = strdup(path);
	struct config_problem *problem = make_room(report);
	if (owned_path == NULL || problem == NULL)
		return -ENOMEM;
	make_printable(owned_path);
	make_printable(owned_message);
	*problem = (struct config_problem){
		.is_warning = is_warning,
		.line = at.line,
		.column = at.column,
		.path = TAKE_PTR(owned_path),
		.message = TAKE_PTR(owned_message),
	};
	report->n++;
	report->n_errors += !is_warning;
	return 0;
}

int report_addf(
	struct config_report *report, bool is_warning, struct position at, const char *path, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int r = report_add(report, is_warning, at, path, format, args);
	va_end(args);
	return r;
}

static bool comes_after(const struct config_problem *a, const struct config_problem *b)
{
	return a->line != b->line ? a->line > b->line : a->column > b->column;
}

/* By merging: what stands at one place keeps the order in which it was found, and there may be many. */
static void merge_sort(struct config_problem *problems, struct config_problem *scratch, size_t n)
{
	if (n < 2)
		return;
	size_t half = n / 2;
	merge_sort(problems, scratch, half);
	merge_sort(problems + half, scratch, n - half);
	memcpy(scratch, problems, half * sizeof(*problems));
	size_t left = 0, right = half, out = 0;
	while (left < half)
		problems[out++] = right < n && comes_after(&scratch[left], &problems[right]) ? problems[right++]
											     : scratch[left++];
}

void report_sort(struct config_report *report)
{
	if (report->n < 2)
		return;
	CLEANUP_FREE struct config_problem *scratch = calloc(report->n / 2 + 1, sizeof(*scratch));
	if (scratch != NULL) /* without memory the order is lost, but no problem is */
		merge_sort(report->problems, scratch, report->n);
}

const char *report_quote(const char *text, char buffer[static REPORT_QUOTE_SIZE])
{
	size_t length = strlen(text);
	if (length <= REPORT_QUOTE_SIZE - 3) {
		snprintf(buffer, REPORT_QUOTE_SIZE, "\"%s\"", text);
		return buffer;
	}
	length = REPORT_QUOTE_SIZE - 6;
	while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) /* never half a character */
		length--;
	snprintf(buffer, REPORT_QUOTE_SIZE, "\"%.*s...\"", (int)length, text);
	return buffer;
}

char *config_problem_line(const struct config_report *report, const struct config_problem *problem)
{
	const char *file = report->file == NULL ? "?" : report->file;
	const char *warning = problem->is_warning ? "warning: " : "";
	const char *colon = problem->path[0] == '\0' ? "" : ": ";
	char *line;
	int r;
	if (problem->line == 0)
		r = asprintf(&line, "%s: %s%s%s%s", file, problem->path, colon, warning, problem->message);
	else
		r = asprintf(&line, "%s:%u:%u: %s%s%s%s", file, problem->line, problem->column, problem->path, colon,
			warning, problem->message);
	return r < 0 ? NULL : line;
}

void config_report_finish(struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		free(report->problems[i].path);
		free(report->problems[i].message);
	}
	free(report->problems);
	free(report->file);
	*report = (struct config_report){ 0 };
}
