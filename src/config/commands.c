/* Commands and environments: what a process is started with. Whether the program exists is not asked here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/parse.h"
#include "config/report.h"
#include "config/schema.h"
#include "config/split.h"
#include "config/values.h"

static void check_program(struct parser *parser, struct position at, const char *program)
{
	if (program[0] == '\0')
		parser_error(parser, at, "the program is empty (expected a path or a name)");
	else if (program[0] == '~')
		parser_error(parser, at, "~ is a shell's (write ${env.HOME}, or set `shell: true`)");
	else if (program[0] != '/' && strchr(program, '/') != NULL)
		parser_error(parser, at,
			"the path of the program is relative (expected an absolute path, or a bare name, which is "
			"looked "
			"up in PATH)");
}

static void check_shell(struct parser *parser, const struct option *option, struct position at)
{
	parser_warning(parser, at,
		"there is no shell here, so operators and variables are passed on as they stand (%s)",
		(option->flags & OPTION_SHELL) != 0 ? "set `shell: true` to have one"
						    : "write [/bin/sh, -c, \"...\"] to have one");
}

void command_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, bool shell,
	struct string_list *list)
{
	if (scalar->text[strspn(scalar->text, " \t\r\n")] == '\0') {
		value_refuse(parser, option, scalar, "is empty", NULL);
		return;
	}
	if (shell) {
		value_add_string(parser, list, scalar->text);
		return;
	}
	struct error err;
	bool needs_shell;
	CLEANUP(string_list_finish) struct string_list words = { 0 };
	int r = split_words(scalar->text, &words, &needs_shell, &err);
	if (r == -ENOMEM) {
		parser->out_of_memory = true;
		return;
	}
	if (r < 0) {
		parser_error(parser, scalar->at, "%s", err.message);
		return;
	}
	if (words.n == 0)
		return;
	check_program(parser, scalar->at, words.items[0]);
	if (needs_shell)
		check_shell(parser, option, scalar->at);
	string_list_finish(list);
	*list = words;
	words = (struct string_list){ 0 };
}

static void read_argument(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)option;
	if (index == 0)
		check_program(parser, item->at, item->text);
	value_add_string(parser, target, item->text);
}

static void read_shell_argument(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)option;
	(void)index;
	value_add_string(parser, target, item->text);
}

void command_from_node(
	struct parser *parser, const struct option *option, yaml_node_t *node, bool shell, struct string_list *list)
{
	parser_read_items(parser, option, node, shell ? read_shell_argument : read_argument, list);
	if (node->type != YAML_SEQUENCE_NODE)
		return;
	size_t n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
	if (n == 0)
		parser_error(parser, node_position(node), "is empty (expected at least the program)");
	else if (shell && n > 1)
		parser_error(parser, node_position(node),
			"is a list, but `shell: true` wants one string (expected a string such as \"cd /opt/x && exec "
			"./run\", or no `shell`)");
}

static void service_command_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	bool shell = ((struct service_config *)base)->process.shell;
	command_from_text(parser, option, scalar, shell, option_at(option, base));
}

static void service_command_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	bool shell = ((struct service_config *)base)->process.shell;
	command_from_node(parser, option, node, shell, option_at(option, base));
}

#define SCALARS "{\"type\": [\"string\", \"number\", \"boolean\"]}"

const struct value_type type_command = {
	.name = "command",
	.expected = "a command such as [/opt/x/start.sh, --port, 8188] or \"/opt/x/start.sh --port 8188\"",
	.schema = "{\"anyOf\": [{\"type\": \"string\", \"minLength\": 1}, {\"type\": \"array\", \"minItems\": 1, "
		  "\"items\": " SCALARS "}]}",
	.from_text = service_command_from_text,
	.from_node = service_command_from_node,
	.is_equal = value_is_equal_list,
	.release = value_release_list,
};

/* Environment */

static bool is_variable_name(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		bool is_letter =
			(text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') || text[i] == '_';
		if (!is_letter && (i == 0 || text[i] < '0' || text[i] > '9'))
			return false;
	}
	return length > 0;
}

static bool has_variable(const struct string_list *list, const char *name, size_t length)
{
	for (size_t i = 0; i < list->n; i++)
		if (strncmp(list->items[i], name, length) == 0 && list->items[i][length] == '=')
			return true;
	return false;
}

static void read_variable(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)option;
	(void)index;
	struct string_list *list = target;
	size_t length = strcspn(item->text, "=");
	if (item->text[length] != '=') /* not quoted: "KEY secret" and "KEY: secret" are likely slips */
		parser_error(parser, item->at, "has no `=` (expected NAME=VALUE)");
	else if (!is_variable_name(item->text, length))
		parser_error(parser, item->at,
			"has a malformed name (expected NAME=VALUE with letters, digits and `_` in the name)");
	else if (has_variable(list, item->text, length))
		parser_error(parser, item->at, "%.*s is set twice", (int)length, item->text);
	else
		value_add_string(parser, list, item->text);
}

static void read_named_variable(struct parser *parser, const struct option *option, const char *name,
	const struct scalar *value, struct string_list *list)
{
	(void)option;
	if (!is_variable_name(name, strlen(name))) {
		parser_error(parser, parser->key, "is not the name of a variable (expected letters, digits and `_`)");
		return;
	}
	if (has_variable(list, name, strlen(name))) {
		parser_error(parser, parser->key, "is set twice");
		return;
	}
	CLEANUP_FREE char *entry = NULL;
	if (asprintf(&entry, "%s=%s", name, value->text) < 0) {
		entry = NULL;
		parser->out_of_memory = true;
		return;
	}
	value_add_string(parser, list, entry);
}

static void environment_from_mapping(
	struct parser *parser, const struct option *option, yaml_node_t *node, struct string_list *list)
{
	const yaml_node_pair_t *first = node->data.mapping.pairs.start;
	size_t n = (size_t)(node->data.mapping.pairs.top - first);
	if (!parser_has_few_entries(parser, n))
		return;
	for (size_t i = 0; i < n && !parser->out_of_memory; i++) {
		yaml_node_t *key = yaml_document_get_node(parser->document, first[i].key);
		yaml_node_t *value = yaml_document_get_node(parser->document, first[i].value);
		const char *name = parser_key(parser, key);
		if (name == NULL)
			continue;
		parser->key = node_position(key);
		size_t previous = parser_enter_key(parser, name);
		CLEANUP_FREE char *text = NULL;
		struct scalar scalar;
		if (parser_visit(parser, value) && parser_scalar(parser, option, value, &text, &scalar))
			read_named_variable(parser, option, name, &scalar, list);
		parser_leave(parser, previous);
	}
}

static void environment_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	if (node->type == YAML_MAPPING_NODE)
		environment_from_mapping(parser, option, node, option_at(option, base));
	else
		parser_read_items(parser, option, node, read_variable, option_at(option, base));
}

const struct value_type type_environment = {
	.name = "environment",
	.expected = "a mapping such as {NAME: value}, or a list of NAME=VALUE",
	.schema = "{\"anyOf\": [{\"type\": \"object\", \"propertyNames\": {\"pattern\": "
		  "\"^[A-Za-z_][A-Za-z0-9_]*$\"}, \"additionalProperties\": " SCALARS "}, "
		  "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"pattern\": "
		  "\"^[A-Za-z_][A-Za-z0-9_]*=\"}}]}",
	.from_node = environment_from_node,
	.is_equal = value_is_equal_list,
	.release = value_release_list,
};
