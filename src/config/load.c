/* The way in: a file or a text becomes a checked configuration, or a report of all that is wrong with it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/document.h"
#include "config/load.h"
#include "config/parse.h"
#include "config/report.h"

static void parser_finish(struct parser *parser)
{
	for (size_t i = 0; parser->reference_marks != NULL && i < parser->config->n_phases; i++)
		free(parser->reference_marks[i]);
	free(parser->reference_marks);
	free(parser->phase_marks);
	free(parser->phase_keys);
	free(parser->service_marks);
}

static void report_rest(struct parser *parser)
{
	if (parser->n_unreported == 0)
		return;
	struct config_report *report = parser->report;
	if (report_addf(report, true, (struct position){ 0 }, "", "%zu more problems are not shown",
		    parser->n_unreported) < 0)
		parser->out_of_memory = true;
}

/* 0, or -ENOMEM: what is wrong with the file stands in the report alone. */
static int read_document(yaml_document_t *document, bool is_root, struct config *config, struct config_report *report)
{
	CLEANUP_FREE struct parser *parser = calloc(1, sizeof(*parser));
	if (parser == NULL)
		return -ENOMEM;
	parser->document = document;
	parser->config = config;
	parser->report = report;
	parser->is_root = is_root;
	parser_read_document(parser);
	if (!parser->out_of_memory)
		parser_check(parser);
	report_rest(parser);
	parser_finish(parser);
	return parser->out_of_memory ? -ENOMEM : 0;
}

static void cleanup_config(struct config **config)
{
	config_free(*config);
}

static int parse_into(const char *name, const char *text, size_t length, bool is_root, struct config **ret_config,
	struct config_report *report)
{
	CLEANUP(cleanup_config) struct config *config = calloc(1, sizeof(*config));
	if (report->file == NULL)
		report->file = strdup(name);
	if (config == NULL || report->file == NULL)
		return -ENOMEM;
	config->path = strdup(name);
	if (config->path == NULL)
		return -ENOMEM;
	if (length > CONFIG_BYTES_MAX) {
		int r = report_addf(
			report, false, (struct position){ 0 }, "", "is larger than 4 MiB: this is not a configuration");
		return r < 0 ? r : -EINVAL;
	}
	yaml_document_t document;
	int r = document_load(text, length, &document, report);
	if (r < 0)
		return r;
	r = read_document(&document, is_root, config, report);
	yaml_document_delete(&document);
	if (r < 0)
		return r;
	if (report->n_errors > 0)
		return -EINVAL;
	*ret_config = TAKE_PTR(config);
	return 0;
}

int config_parse_as(const char *name, const char *text, size_t length, bool is_root, struct config **ret_config,
	struct config_report *report)
{
	*report = (struct config_report){ 0 };
	int r = parse_into(name, text, length, is_root, ret_config, report);
	report_sort(report);
	return r;
}

int config_parse(
	const char *name, const char *text, size_t length, struct config **ret_config, struct config_report *report)
{
	return config_parse_as(name, text, length, geteuid() == 0, ret_config, report);
}

/* The whole file, or its first 4 MiB and one byte. */
static int read_file(const char *path, char **ret_text, size_t *ret_length)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	CLEANUP_FREE char *text = NULL;
	size_t length = 0, room = 0;
	while (length <= CONFIG_BYTES_MAX) {
		if (length == room) {
			room = room == 0 ? 16384 : 2 * room;
			char *grown = realloc(text, room);
			if (grown == NULL)
				return -ENOMEM;
			text = grown;
		}
		ssize_t n = read(fd, text + length, room - length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	*ret_text = TAKE_PTR(text);
	*ret_length = length;
	return 0;
}

static const char *remedy_for(int error)
{
	switch (error) {
	case ENOENT:
		return " (create it, or name another with -c; `gpumgr config reference` lists every key)";
	case EACCES:
		return " (let the account of the daemon read it)";
	case EISDIR:
		return " (name the file in it)";
	default:
		return "";
	}
}

int config_load(const char *path, struct config **ret_config, struct config_report *report)
{
	*report = (struct config_report){ .file = strdup(path) };
	if (report->file == NULL)
		return -ENOMEM;
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	int r = read_file(path, &text, &length);
	if (r < 0) {
		int added = r == -ENOMEM ? r
					 : report_addf(report, false, (struct position){ 0 }, "",
						   "cannot be read: %s%s", strerror(-r), remedy_for(-r));
		return added < 0 ? added : r == -EINVAL ? -EIO : r;
	}
	r = parse_into(path, text, length, geteuid() == 0, ret_config, report);
	report_sort(report);
	return r;
}
