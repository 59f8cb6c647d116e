/*
 * The walk over the document along the option table: sections, defaults, required keys, and the two mappings whose
 * keys the file chooses. It never goes deeper than the table does, whatever the document holds.
 */
#include "config/parse.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/hints.h"
#include "config/report.h"

static bool is_set(struct position at)
{
	return at.line != 0;
}

static void apply_defaults(struct parser *parser, const struct option *section, void *base)
{
	const struct option *option = NULL;
	while ((option = option_next_child(section, option)) != NULL) {
		if (option->type == &type_section && (option->flags & OPTION_IF_WRITTEN) == 0) {
			apply_defaults(parser, option, base);
		} else if (option->fallback != NULL) {
			struct scalar scalar = { .text = option->fallback };
			option->type->from_text(parser, option, &scalar, base);
		}
	}
}

static void read_value(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	const struct value_type *type = option->type;
	if (!parser_visit(parser, node))
		return;
	if (node->type != YAML_SCALAR_NODE || type->from_text == NULL) {
		if (type->from_node != NULL)
			type->from_node(parser, option, node, base);
		else
			parser_wrong_type(parser, option, node);
		return;
	}
	CLEANUP_FREE char *text = NULL;
	struct scalar scalar;
	if (!parser_scalar(parser, option, node, &text, &scalar))
		return;
	type->from_text(parser, option, &scalar, base);
	if (option->written_offset != 0)
		*(bool *)((char *)base + option->written_offset) = true;
}

/* False: the section has the key already, which was reported. */
static bool mark_key(
	struct parser *parser, const struct option *option, const yaml_node_t *key, const yaml_node_t *value)
{
	struct position *first = &parser->marks->keys[option_index(option)];
	if (is_set(*first)) {
		parser_error(parser, node_position(key), "is written twice (the first is in line %u; remove one)",
			first->line);
		return false;
	}
	*first = node_position(key);
	parser->marks->values[option_index(option)] = node_position(value);
	return true;
}

static void read_pair(
	struct parser *parser, const struct option *section, const yaml_node_pair_t *pair, bool early, void *base)
{
	yaml_node_t *key = yaml_document_get_node(parser->document, pair->key);
	yaml_node_t *value = yaml_document_get_node(parser->document, pair->value);
	const char *name = early ? node_text(key) : parser_key(parser, key);
	if (name == NULL)
		return;
	const struct option *option = option_child(section, name);
	if (option == NULL ? early : early != ((option->flags & OPTION_EARLY) != 0))
		return;
	size_t previous = parser_enter_key(parser, name);
	parser->key = node_position(key);
	if (option == NULL) {
		char hint[512];
		parser_error(parser, parser->key, "unknown key (%s)", hint_for_key(section, name, hint, sizeof(hint)));
	} else if (mark_key(parser, option, key, value)) {
		read_value(parser, option, value, base);
	}
	parser_leave(parser, previous);
}

static void check_required(struct parser *parser, const struct option *section, struct position at)
{
	char expected[256];
	const struct option *option = NULL;
	while ((option = option_next_child(section, option)) != NULL) {
		if ((option->flags & OPTION_REQUIRED) == 0 || is_set(parser->marks->keys[option_index(option)]))
			continue;
		size_t previous = parser_enter_key(parser, option_name(option));
		parser_error(
			parser, at, "is missing (expected %s)", option_expected(option, expected, sizeof(expected)));
		parser_leave(parser, previous);
	}
}

/* "http, tcp, command" */
static void list_alternatives(const struct option *section, unsigned one_of, char *buffer, size_t buffer_size)
{
	const struct option *option = NULL;
	size_t length = 0;
	buffer[0] = '\0';
	while ((option = option_next_child(section, option)) != NULL)
		if (option->one_of == one_of && length < buffer_size)
			length += (size_t)snprintf(buffer + length, buffer_size - length, "%s%s",
				length == 0 ? "" : ", ", option_name(option));
}

static void check_alternatives(struct parser *parser, const struct option *section, unsigned one_of, struct position at)
{
	char names[128];
	const struct option *found = NULL;
	const struct option *option = NULL;
	list_alternatives(section, one_of, names, sizeof(names));
	while ((option = option_next_child(section, option)) != NULL) {
		struct position key = parser->marks->keys[option_index(option)];
		if (option->one_of != one_of || !is_set(key))
			continue;
		if (found != NULL)
			parser_error(parser, key, "has both %s and %s (expected exactly one of %s)", option_name(found),
				option_name(option), names);
		found = option;
	}
	if (found == NULL)
		parser_error(parser, at, "has none of %s (expected exactly one of them)", names);
}

static void check_all_alternatives(struct parser *parser, const struct option *section, struct position at)
{
	unsigned last = 0; /* siblings with the same number stand together in the table */
	const struct option *option = NULL;
	while ((option = option_next_child(section, option)) != NULL) {
		if (option->one_of != 0 && option->one_of != last)
			check_alternatives(parser, section, option->one_of, at);
		last = option->one_of;
	}
}

static void read_section(struct parser *parser, const struct option *section, yaml_node_t *node, void *base)
{
	struct position at = parser->key;
	apply_defaults(parser, section, base);
	if (node->type != YAML_MAPPING_NODE && !node_is_null(node)) {
		parser_wrong_type(parser, section, node);
		return;
	}
	if (node->type == YAML_MAPPING_NODE) {
		const yaml_node_pair_t *first = node->data.mapping.pairs.start;
		size_t n = (size_t)(node->data.mapping.pairs.top - first);
		if (!parser_has_few_entries(parser, n))
			return;
		for (size_t i = 0; i < n; i++)
			read_pair(parser, section, &first[i], true, base);
		for (size_t i = 0; i < n && !parser->out_of_memory; i++)
			read_pair(parser, section, &first[i], false, base);
	}
	check_required(parser, section, at);
	check_all_alternatives(parser, section, at);
}

const struct value_type type_section = {
	.name = "section",
	.expected = "a mapping",
	.from_node = read_section,
};

/* Calls `read` for each pair of a mapping whose keys the file chooses; the key is part of the path then. */
typedef void (*named_reader)(
	struct parser *parser, const struct option *option, const char *name, yaml_node_t *key, yaml_node_t *value);

static void read_named(struct parser *parser, const struct option *option, yaml_node_t *node, named_reader read_one)
{
	const yaml_node_pair_t *first = node->data.mapping.pairs.start;
	size_t n = (size_t)(node->data.mapping.pairs.top - first);
	struct marks *outer = parser->marks;
	for (size_t i = 0; i < n && !parser->out_of_memory; i++) {
		yaml_node_t *key = yaml_document_get_node(parser->document, first[i].key);
		yaml_node_t *value = yaml_document_get_node(parser->document, first[i].value);
		const char *name = parser_key(parser, key);
		if (name == NULL)
			continue;
		size_t previous = parser_enter_key(parser, name);
		parser->key = node_position(key);
		if (parser_visit(parser, value))
			read_one(parser, option, name, key, value);
		parser_leave(parser, previous);
	}
	parser->marks = outer;
}

/* How many entries the mapping has; 0 also for what is none or has too many, which was reported. */
static size_t count_named(struct parser *parser, const struct option *option, yaml_node_t *node)
{
	if (node_is_null(node))
		return 0;
	if (node->type != YAML_MAPPING_NODE) {
		parser_wrong_type(parser, option, node);
		return 0;
	}
	size_t n = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
	return parser_has_few_entries(parser, n) ? n : 0;
}

static void read_phase(
	struct parser *parser, const struct option *option, const char *name, yaml_node_t *key, yaml_node_t *value)
{
	(void)option;
	struct config *config = parser->config;
	struct phase_config *phase = &config->phases[config->n_phases];
	struct position at = node_position(key);
	phase->number = phase_number(name);
	if (phase->number == 0)
		parser_error(parser, at,
			"is not the number of a phase (expected a positive integer; the name goes inside: 4: {name: "
			"video})");
	for (size_t i = 0; i < config->n_phases; i++)
		if (phase->number != 0 && config->phases[i].number == phase->number)
			parser_error(parser, at, "is written twice (expected each number once)");
	parser->marks = &parser->phase_marks[config->n_phases];
	parser->phase_keys[config->n_phases] = name;
	read_section(parser, option_find("phases.*"), value, phase);
	config->n_phases++;
}

static void phases_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	struct config *config = base;
	size_t n = count_named(parser, option, node);
	if (n == 0)
		return;
	config->phases = calloc(n, sizeof(*config->phases));
	parser->phase_marks = calloc(n, sizeof(*parser->phase_marks));
	parser->phase_keys = calloc(n, sizeof(*parser->phase_keys));
	parser->reference_marks = calloc(n, sizeof(*parser->reference_marks));
	if (config->phases == NULL || parser->phase_marks == NULL || parser->phase_keys == NULL ||
		parser->reference_marks == NULL)
		parser->out_of_memory = true;
	else
		read_named(parser, option, node, read_phase);
}

const struct value_type type_phases = {
	.name = "phases by number",
	.expected = "a mapping from numbers to phases such as {4: {name: video, services: [comfyui]}}",
	.from_node = phases_from_node,
};

#define SERVICE_NAME_FIRST "abcdefghijklmnopqrstuvwxyz0123456789"
#define SERVICE_NAME_MAX 63

/* The name as it would be right: false when there is no telling. */
static bool mend_service_name(const char *name, char *buffer, size_t buffer_size)
{
	size_t length = strlen(name);
	if (length == 0 || length > SERVICE_NAME_MAX || length >= buffer_size)
		return false;
	for (size_t i = 0; i <= length; i++) {
		char c = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
		buffer[i] = c == ' ' || c == '.' || c == '/' ? '-' : c;
	}
	return strspn(buffer, SERVICE_NAME_FIRST) > 0 && buffer[strspn(buffer, SERVICE_NAME_FIRST "_-")] == '\0';
}

static void check_service_name(struct parser *parser, const char *name, struct position at)
{
	char mended[SERVICE_NAME_MAX + 1];
	size_t length = strlen(name);
	if (length <= SERVICE_NAME_MAX && strspn(name, SERVICE_NAME_FIRST) > 0 &&
		name[strspn(name, SERVICE_NAME_FIRST "_-")] == '\0')
		return;
	bool has_hint = mend_service_name(name, mended, sizeof(mended));
	parser_error(parser, at,
		"is not the name of a service (expected small letters, digits, `_` and `-`, 63 at most%s%s%s)",
		has_hint ? "; did you mean " : "", has_hint ? mended : "", has_hint ? "?" : "");
}

static void read_service(
	struct parser *parser, const struct option *option, const char *name, yaml_node_t *key, yaml_node_t *value)
{
	(void)option;
	struct config *config = parser->config;
	struct service_config *service = &config->services[config->n_services];
	struct position at = node_position(key);
	check_service_name(parser, name, at);
	size_t first = config_find_service(config, name);
	if (first != SIZE_MAX)
		parser_error(parser, at, "is written twice (the first is in line %u; remove one)",
			config->services[first].line);
	service->name = strdup(name);
	if (service->name == NULL) {
		parser->out_of_memory = true;
		return;
	}
	service->line = at.line;
	parser->marks = &parser->service_marks[config->n_services];
	/* Counted first, so that it is freed when reading it fails half way. */
	config->n_services++;
	read_section(parser, option_find("services.*"), value, service);
}

static void services_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	struct config *config = base;
	size_t n = count_named(parser, option, node);
	if (n == 0)
		return;
	config->services = calloc(n, sizeof(*config->services));
	parser->service_marks = calloc(n, sizeof(*parser->service_marks));
	if (config->services == NULL || parser->service_marks == NULL)
		parser->out_of_memory = true;
	else
		read_named(parser, option, node, read_service);
}

const struct value_type type_services = {
	.name = "services by name",
	.expected = "a mapping from names to services such as {comfyui: {vram: 20GiB, ...}}",
	.from_node = services_from_node,
};

void parser_read_document(struct parser *parser)
{
	yaml_node_t *root = yaml_document_get_root_node(parser->document);
	if (root == NULL || node_is_null(root)) {
		parser_error(parser, (struct position){ 0 },
			"is empty (expected at least `version: 1`; `gpumgr config reference` lists every key)");
		return;
	}
	parser->marks = &parser->file_marks;
	if (parser_visit(parser, root))
		read_section(parser, &option_root, root, parser->config);
}
