/*
 * One pass over one document. The parser carries where it is (for messages), where each key was found (for the checks
 * that look at several keys), and whether memory ran out, after which it only unwinds.
 */
#pragma once

#include <stdarg.h>

#include "config/config.h"
#include "config/schema.h"
#include "config/values.h"

/* What a file may hold at most, so that no file makes the daemon work for minutes or eat the memory. */
#define CONFIG_BYTES_MAX ((size_t)4 << 20)
#define CONFIG_ENTRIES_MAX 1000 /* of one list or mapping */
#define CONFIG_NODES_MAX 100000 /* of the file, and again with its aliases followed */
#define CONFIG_TEXT_MAX ((size_t)16 << 20) /* of all its values together, aliases followed and variables expanded */
#define CONFIG_PROBLEMS_MAX 1000 /* reported; the rest is counted */

/* Where the keys of one scope stand; line 0: the file does not have the key. */
struct marks {
	struct position keys[OPTION_MAX];
	struct position values[OPTION_MAX];
};

struct parser {
	yaml_document_t *document;
	struct config *config;
	struct config_report *report;
	bool is_root; /* the daemon will run as root */
	bool out_of_memory;
	size_t n_visits;
	size_t n_text_bytes;
	size_t n_unreported; /* problems beyond CONFIG_PROBLEMS_MAX */
	struct position key; /* of the value that is being read */
	struct marks *marks; /* of the scope that is being read */
	struct marks file_marks;
	struct marks *phase_marks; /* [n_phases] */
	const char **phase_keys; /* [n_phases], as the file writes them: the document's own texts */
	struct marks *service_marks; /* [n_services] */
	struct position **reference_marks; /* [n_phases][service_names.n] */
	size_t path_length;
	char path[1024]; /* of the value that is being read, shortened when it would not fit */
};

/* Reports on the value that is being read. */
void parser_error(struct parser *parser, struct position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void parser_warning(struct parser *parser, struct position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

void parser_report(struct parser *parser, bool is_warning, struct position at, const char *format, va_list args)
	__attribute__((format(printf, 4, 0)));

/* Makes a key or an index part of the path; the result goes to parser_leave(). */
size_t parser_enter_key(struct parser *parser, const char *key);
size_t parser_enter_index(struct parser *parser, size_t index);
void parser_leave(struct parser *parser, size_t previous);

struct position node_position(const yaml_node_t *node);

/* Nothing, `~` or `null`, unquoted. */
bool node_is_null(const yaml_node_t *node);

/* NULL: not a scalar, or one with a NUL in it. */
const char *node_text(const yaml_node_t *node);

/* Reports "is a list (expected a duration such as 30s)". */
void parser_wrong_type(struct parser *parser, const struct option *option, const yaml_node_t *node);

/*
 * The text of a scalar, expanded; the caller frees `*ret_text`. False: it is none, and that was reported.
 * `option` says what was expected.
 */
bool parser_scalar(struct parser *parser, const struct option *option, const yaml_node_t *node, char **ret_text,
	struct scalar *ret);

/* The text of a key, or NULL after reporting that it is none. */
const char *parser_key(struct parser *parser, const yaml_node_t *node);

/* Counts a visit; false when the document's aliases make it grow without bounds, which was reported. */
bool parser_visit(struct parser *parser, const yaml_node_t *node);

/* False when it has more entries than a list or mapping may have, which was reported. */
bool parser_has_few_entries(struct parser *parser, size_t n_entries);

/* Reads a list item by item, each with its own place and path. Anything but a list is reported. */
typedef void (*item_reader)(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target);
void parser_read_items(
	struct parser *parser, const struct option *option, yaml_node_t *node, item_reader read_item, void *target);

/* Reads the document into parser->config, defaults included; what is wrong goes into the report. */
void parser_read_document(struct parser *parser);

/* A positive integer without sign and leading zeros; 0: the text is none. */
int phase_number(const char *text);

/* check.c: what can only be said with the whole file in hand; resolves the names that phases use. */
void parser_check(struct parser *parser);
