/* What every reader of values needs of the parser: reporting, paths, and scalars. Knows no option. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/expand.h"
#include "config/parse.h"
#include "config/report.h"
#include "config/utf8.h"

void parser_report(struct parser *parser, bool is_warning, struct position at, const char *format, va_list args)
{
	if (parser->out_of_memory)
		return;
	if (parser->report->n >= CONFIG_PROBLEMS_MAX) {
		parser->n_unreported++;
		parser->report->n_errors += !is_warning;
		return;
	}
	if (report_add(parser->report, is_warning, at, parser->path, format, args) < 0)
		parser->out_of_memory = true;
}

void parser_error(struct parser *parser, struct position at, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	parser_report(parser, false, at, format, args);
	va_end(args);
}

void parser_warning(struct parser *parser, struct position at, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	parser_report(parser, true, at, format, args);
	va_end(args);
}

static void append(struct parser *parser, const char *text)
{
	size_t room = sizeof(parser->path) - parser->path_length;
	int length = snprintf(parser->path + parser->path_length, room, "%s", text);
	parser->path_length += (size_t)length < room ? (size_t)length : room - 1;
}

static bool is_plain(const char *key)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	return key[0] != '\0' && key[strspn(key, plain)] == '\0' && strlen(key) < REPORT_QUOTE_SIZE;
}

size_t parser_enter_key(struct parser *parser, const char *key)
{
	char quoted[REPORT_QUOTE_SIZE];
	size_t previous = parser->path_length;
	if (previous > 0)
		append(parser, ".");
	append(parser, is_plain(key) ? key : report_quote(key, quoted));
	return previous;
}

size_t parser_enter_index(struct parser *parser, size_t index)
{
	char text[32];
	size_t previous = parser->path_length;
	snprintf(text, sizeof(text), "[%zu]", index);
	append(parser, text);
	return previous;
}

void parser_leave(struct parser *parser, size_t previous)
{
	parser->path_length = previous;
	parser->path[previous] = '\0';
}

struct position node_position(const yaml_node_t *node)
{
	return (struct position){
		.line = (unsigned)node->start_mark.line + 1,
		.column = (unsigned)node->start_mark.column + 1,
	};
}

bool node_is_null(const yaml_node_t *node)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
	if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(nulls); i++)
		if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
			return true;
	return false;
}

void parser_wrong_type(struct parser *parser, const struct option *option, const yaml_node_t *node)
{
	char expected[256];
	option_expected(option, expected, sizeof(expected));
	if (node_is_null(node))
		parser_error(parser, parser->key, "has no value (expected %s)", expected);
	else
		parser_error(parser, node_position(node), "is %s (expected %s)",
			node->type == YAML_MAPPING_NODE            ? "a mapping"
				: node->type == YAML_SEQUENCE_NODE ? "a list"
								   : "a single value",
			expected);
}

static bool has_nul(const yaml_node_t *node)
{
	return memchr(node->data.scalar.value, '\0', node->data.scalar.length) != NULL;
}

/* Counts text that is about to be kept; false when that becomes too much, which was reported. */
static bool count_text(struct parser *parser, struct position at, size_t length)
{
	bool had_room = parser->n_text_bytes <= CONFIG_TEXT_MAX;
	if (had_room)
		parser->n_text_bytes += length;
	bool has_room = parser->n_text_bytes <= CONFIG_TEXT_MAX;
	if (had_room && !has_room)
		parser_error(parser, at,
			"the aliases (*name) and variables of this file stand for too much text (expected 16 MiB at "
			"most)");
	return has_room;
}

bool parser_scalar(struct parser *parser, const struct option *option, const yaml_node_t *node, char **ret_text,
	struct scalar *ret)
{
	if (node->type != YAML_SCALAR_NODE || node_is_null(node)) {
		parser_wrong_type(parser, option, node);
		return false;
	}
	struct position at = node_position(node);
	if (has_nul(node)) {
		parser_error(parser, at, "has a NUL character in it, which nothing accepts");
		return false;
	}
	if (!count_text(parser, at, 0))
		return false;
	struct error err;
	int r = expand_text((const char *)node->data.scalar.value, ret_text, &err);
	if (r == -ENOMEM)
		parser->out_of_memory = true;
	else if (r < 0)
		parser_error(parser, at, "%s", err.message);
	if (r < 0)
		return false;
	size_t length = strlen(*ret_text);
	if (utf8_valid_length(*ret_text, length) != length) { /* the checks of the file do not cover the environment */
		parser_error(parser, at, "is not UTF-8 once its environment variables are expanded");
		return false;
	}
	*ret = (struct scalar){ .text = *ret_text, .at = at };
	return count_text(parser, at, length);
}

const char *node_text(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE && !has_nul(node) ? (const char *)node->data.scalar.value : NULL;
}

const char *parser_key(struct parser *parser, const yaml_node_t *node)
{
	const char *text = node_text(node);
	if (text == NULL)
		parser_error(
			parser, node_position(node), "has a key that is not plain text (expected the name of a key)");
	return text != NULL && count_text(parser, node_position(node), strlen(text)) ? text : NULL;
}

/* Tags that say what is understood anyway. */
static bool is_known_tag(const yaml_node_t *node)
{
	static const char *const names[] = { "str", "int", "float", "bool", "null", "seq", "map" };
	static const char prefix[] = "tag:yaml.org,2002:";
	const char *tag = (const char *)node->tag;
	if (tag == NULL || tag[0] == '\0' || strcmp(tag, "!") == 0)
		return true;
	if (strncmp(tag, prefix, sizeof(prefix) - 1) != 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(tag + sizeof(prefix) - 1, names[i]) == 0)
			return true;
	return false;
}

bool parser_visit(struct parser *parser, const yaml_node_t *node)
{
	char quoted[REPORT_QUOTE_SIZE];
	if (parser->out_of_memory)
		return false;
	if (++parser->n_visits > CONFIG_NODES_MAX) {
		if (parser->n_visits == CONFIG_NODES_MAX + 1)
			parser_error(parser, node_position(node),
				"the aliases (*name) of this file stand for too much (expected 100000 values at most)");
		return false;
	}
	if (!is_known_tag(node)) {
		parser_error(parser, node_position(node), "has the tag %s, which means nothing here (remove it)",
			report_quote((const char *)node->tag, quoted));
		return false;
	}
	return true;
}

bool parser_has_few_entries(struct parser *parser, size_t n_entries)
{
	if (n_entries <= CONFIG_ENTRIES_MAX)
		return true;
	parser_error(parser, parser->key, "has %zu entries (expected %d at most)", n_entries, CONFIG_ENTRIES_MAX);
	return false;
}

void parser_read_items(
	struct parser *parser, const struct option *option, yaml_node_t *node, item_reader read_item, void *target)
{
	if (node->type != YAML_SEQUENCE_NODE) {
		parser_wrong_type(parser, option, node);
		return;
	}
	const yaml_node_item_t *first = node->data.sequence.items.start;
	size_t n = (size_t)(node->data.sequence.items.top - first);
	if (!parser_has_few_entries(parser, n))
		return;
	for (size_t i = 0; i < n && !parser->out_of_memory; i++) {
		yaml_node_t *item = yaml_document_get_node(parser->document, first[i]);
		size_t previous = parser_enter_index(parser, i);
		CLEANUP_FREE char *text = NULL;
		struct scalar scalar;
		parser->key = node_position(item);
		if (parser_visit(parser, item) && parser_scalar(parser, option, item, &text, &scalar))
			read_item(parser, option, &scalar, i, target);
		parser_leave(parser, previous);
	}
}
