/*
 * The way from bytes to libyaml's document tree. libyaml itself has no bounds on size, nodes or anchors, and looks an
 * anchor up by walking all of them: so the events are counted first, and only a document within bounds is loaded. Of
 * directives, which it looks up in the same way, it tells by no event: those are counted in the text.
 */
#include "config/document.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/parse.h"
#include "config/report.h"
#include "config/utf8.h"

#define DEPTH_MAX 32
#define ANCHORS_MAX 256
#define DIRECTIVES_MAX 256

static struct position position_of(yaml_mark_t mark)
{
	return (struct position){ .line = (unsigned)mark.line + 1, .column = (unsigned)mark.column + 1 };
}

/* Where a byte stands, columns counted in characters. */
static struct position position_at(const char *text, size_t offset)
{
	struct position at = { 1, 1 };
	for (size_t i = 0; i < offset; i++) {
		if (text[i] == '\n')
			at = (struct position){ at.line + 1, 1 };
		else if (((unsigned char)text[i] & 0xc0) != 0x80)
			at.column++;
	}
	return at;
}

/* The byte at a place, '\0' when there is none. libyaml counts characters, so its index is no offset. */
static char byte_at(const char *text, size_t length, yaml_mark_t mark)
{
	size_t i = 0;
	for (size_t line = 0; i < length && line < mark.line; i++)
		line += text[i] == '\n';
	for (size_t column = 0; i < length && column < mark.column; column++) {
		i++;
		while (i < length && ((unsigned char)text[i] & 0xc0) == 0x80)
			i++;
	}
	return i < length ? text[i] : '\0';
}

/* 0, or -EINVAL after reporting the first byte that no YAML file has. */
static int check_bytes(const char *text, size_t length, struct config_report *report)
{
	size_t n_valid = utf8_valid_length(text, length);
	const char *nul = memchr(text, '\0', n_valid);
	if (nul == NULL && n_valid == length)
		return 0;
	int r = report_addf(report, false, position_at(text, nul == NULL ? n_valid : (size_t)(nul - text)), "", "%s",
		nul == NULL ? "is not UTF-8 here (save the file in that encoding)"
			    : "has a NUL byte here (is it a text file?)");
	return r < 0 ? r : -EINVAL;
}

/* Whether a line begins at that byte. YAML 1.1 has more line breaks than two: NEL, LS and PS. */
static bool begins_line(const char *text, size_t offset)
{
	static const char *const breaks[] = { "\n", "\r", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9" };
	bool does = offset == 0;
	for (size_t i = 0; i < ARRAY_SIZE(breaks) && !does; i++) {
		size_t n = strlen(breaks[i]);
		does = offset >= n && memcmp(text + offset - n, breaks[i], n) == 0;
	}
	return does;
}

/* 0, or -EINVAL after reporting the first directive (%TAG and the like) too many. */
static int check_directives(const char *text, size_t length, struct config_report *report)
{
	size_t n = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] != '%' || !begins_line(text, i) || ++n <= DIRECTIVES_MAX)
			continue;
		int r = report_addf(
			report, false, position_at(text, i), "", "more than 256 directives (%%TAG) in one file");
		return r < 0 ? r : -EINVAL;
	}
	return 0;
}

/* What libyaml says, and what helps. */
static const struct {
	const char *problem;
	const char *hint;
} syntax_hints[] = {
	{ "mapping values are not allowed in this context",
		"a value with `: ` in it needs quotes; or is the indentation off?" },
	{ "found character that cannot start any token", "a value that begins with @, ` or % needs quotes" },
	{ "did not find expected ',' or '}'", "is a comma missing? `${env.NAME}` within {...} or [...] needs quotes" },
	{ "did not find expected ',' or ']'", "is a comma missing? `${env.NAME}` within {...} or [...] needs quotes" },
	{ "could not find expected ':'", "is a colon missing after the key?" },
	{ "did not find expected key", "is the indentation off?" },
	{ "did not find expected '-' indicator", "is the indentation off?" },
	{ "found undefined alias",
		"an anchor (&name) must stand before its alias (*name); a value that begins with * needs quotes" },
	{ "found unexpected end of stream", "is a quote or bracket never closed?" },
	{ "did not find expected node content",
		"is a value missing? `${env.NAME}` within {...} or [...] needs quotes" },
	{ "control characters are not allowed", "is it a text file?" },
};

static const char *syntax_hint(const char *problem, char at)
{
	if (at == '\t')
		return "YAML does not take tabs for indentation: use spaces";
	for (size_t i = 0; i < ARRAY_SIZE(syntax_hints); i++)
		if (strcmp(problem, syntax_hints[i].problem) == 0)
			return syntax_hints[i].hint;
	return NULL;
}

static int report_syntax(const yaml_parser_t *yaml, const char *text, size_t length, struct config_report *report)
{
	if (yaml->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	const char *problem = yaml->problem == NULL ? "malformed" : yaml->problem;
	bool is_reader = yaml->error == YAML_READER_ERROR;
	size_t offset = yaml->problem_offset > length ? length : yaml->problem_offset;
	struct position at = is_reader ? position_at(text, offset) : position_of(yaml->problem_mark);
	char c = is_reader ? '\0' : byte_at(text, length, yaml->problem_mark);
	const char *hint = syntax_hint(problem, c);
	int r = report_addf(report, false, at, "", "YAML: %s%s%s%s", problem, hint == NULL ? "" : " (",
		hint == NULL ? "" : hint, hint == NULL ? "" : ")");
	return r < 0 ? r : -EINVAL;
}

struct census {
	size_t n_documents, n_nodes, n_anchors, depth;
	struct position second; /* document */
};

static void count_anchor(struct census *census, const yaml_char_t *anchor)
{
	census->n_anchors += anchor != NULL;
}

static void count_event(struct census *census, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (++census->n_documents == 2)
			census->second = position_of(event->start_mark);
		break;
	case YAML_SCALAR_EVENT:
		census->n_nodes++;
		count_anchor(census, event->data.scalar.anchor);
		break;
	case YAML_SEQUENCE_START_EVENT:
		census->n_nodes++;
		census->depth++;
		count_anchor(census, event->data.sequence_start.anchor);
		break;
	case YAML_MAPPING_START_EVENT:
		census->n_nodes++;
		census->depth++;
		count_anchor(census, event->data.mapping_start.anchor);
		break;
	case YAML_ALIAS_EVENT:
		census->n_nodes++;
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		census->depth--;
		break;
	default:
		break;
	}
}

static const char *find_excess(const struct census *census)
{
	if (census->n_nodes > CONFIG_NODES_MAX)
		return "more than 100000 values: this is not a configuration";
	if (census->n_anchors > ANCHORS_MAX)
		return "more than 256 anchors (&name) in one file";
	if (census->depth > DEPTH_MAX)
		return "nested deeper than 32 levels";
	return NULL;
}

static int take_census(
	yaml_parser_t *yaml, const char *text, size_t length, struct census *census, struct config_report *report)
{
	bool is_end = false;
	while (!is_end && census->n_documents < 2) {
		yaml_event_t event;
		if (!yaml_parser_parse(yaml, &event))
			return report_syntax(yaml, text, length, report);
		count_event(census, &event);
		struct position at = position_of(event.start_mark);
		is_end = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
		const char *excess = find_excess(census);
		if (excess != NULL) {
			int r = report_addf(report, false, at, "", "%s", excess);
			return r < 0 ? r : -EINVAL;
		}
	}
	return 0;
}

static int with_parser(const char *text, size_t length,
	int (*use)(yaml_parser_t *yaml, const char *text, size_t length, void *argument, struct config_report *report),
	void *argument, struct config_report *report)
{
	yaml_parser_t yaml;
	if (!yaml_parser_initialize(&yaml))
		return -ENOMEM;
	yaml_parser_set_encoding(&yaml, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&yaml, (const unsigned char *)text, length);
	int r = use(&yaml, text, length, argument, report);
	yaml_parser_delete(&yaml);
	return r;
}

static int check_document(
	yaml_parser_t *yaml, const char *text, size_t length, void *argument, struct config_report *report)
{
	(void)argument;
	struct census census = { 0 };
	int r = take_census(yaml, text, length, &census, report);
	if (r < 0)
		return r;
	if (census.n_documents == 0) {
		r = report_addf(report, false, (struct position){ 0 }, "",
			"is empty (expected at least `version: 1`; `gpumgr config reference` lists every key)");
		return r < 0 ? r : -EINVAL;
	}
	if (census.n_documents > 1)
		return report_addf(report, false, census.second, "",
			"a second document begins here (expected one: remove the `---`, or make two files of it)");
	return 0;
}

static int load_document(
	yaml_parser_t *yaml, const char *text, size_t length, void *argument, struct config_report *report)
{
	return yaml_parser_load(yaml, argument) ? 0 : report_syntax(yaml, text, length, report);
}

int document_load(const char *text, size_t length, yaml_document_t *document, struct config_report *report)
{
	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark is no content */
		text += 3;
		length -= 3;
	}
	int r = check_bytes(text, length, report);
	if (r == 0)
		r = check_directives(text, length, report);
	if (r == 0)
		r = with_parser(text, length, check_document, NULL, report);
	if (r == 0)
		r = with_parser(text, length, load_document, document, report);
	return r;
}
