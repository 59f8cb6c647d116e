/* POST /gpu/reload: the configuration file is read again, and applied as a whole or not at all. */
#include <stdlib.h>

#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"
#include "base/cleanup.h"

static void put_list(struct writer *writer, const char *key, const struct string_list *list)
{
	writer_open(writer, key, '[');
	for (size_t i = 0; i < list->n; i++)
		writer_text(writer, NULL, list->items[i]);
	writer_close(writer, ']');
}

/* Mistakes, or warnings, as lines with their places. */
static void put_problems(struct writer *writer, const char *key, const struct config_report *report, bool warnings)
{
	writer_open(writer, key, '[');
	for (size_t i = 0; i < report->n; i++) {
		CLEANUP_FREE char *line = config_problem_line(report, &report->problems[i]);
		if (report->problems[i].is_warning == warnings && line != NULL)
			writer_text(writer, NULL, line);
	}
	writer_close(writer, ']');
}

static void answer_done(
	struct request *request, const struct config_changes *changes, const struct config_report *report)
{
	CLEANUP_WRITER struct writer writer = { 0 };
	CLEANUP_FREE char *text = config_changes_text(changes);
	writer_open(&writer, NULL, '{');
	writer_bool(&writer, "success", true);
	put_list(&writer, "added", &changes->added);
	put_list(&writer, "removed", &changes->removed);
	put_list(&writer, "changed", &changes->changed);
	put_list(&writer, "outdated", &changes->changed_runs);
	put_list(&writer, "at_start", &changes->at_start);
	put_problems(&writer, "warnings", report, true);
	writer_text_or_null(&writer, "text", text);
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}

static void answer_wrong(struct request *request, const struct config_report *report)
{
	CLEANUP_WRITER struct writer writer = { 0 };
	unsigned status = problem_status("bad_configuration");
	problem_begin(&writer, status, "bad_configuration",
		"the configuration file is wrong, so everything stays as it was; mend what `errors` lists, and try "
		"again");
	put_problems(&writer, "errors", report, false);
	writer_close(&writer, '}');
	reply_json(request, status, &writer);
}

void reload_post(struct request *request)
{
	const struct api_host *host = request->api->host;
	struct config_changes changes;
	struct config_report report;
	int r = host->reload(host->context, &changes, &report);
	if (r == 0)
		answer_done(request, &changes, &report);
	else if (report.n_errors > 0)
		answer_wrong(request, &report);
	else
		reply_problem(request, "internal", "there is no memory for it; everything stays as it was");
	config_changes_finish(&changes);
	config_report_finish(&report);
}
