/*
 * `config schema`: the option table as JSON Schema (2020-12), for editors that check and complete YAML. It accepts
 * whatever the parser accepts, but for numbers in quotes; what crosses sections is left to the parser.
 */
#include <jansson.h>
#include <stdio.h>

#include "config/config.h"
#include "config/schema.h"

/* Any scalar may come from the environment instead. */
#define FROM_ENVIRONMENT "{\"type\": \"string\", \"pattern\": \"\\\\$\\\\{env\\\\.\"}"

static json_t *section_schema(const struct option *section);

static json_t *choices_schema(const struct choice *choices)
{
	json_t *names = json_array();
	for (; choices->name != NULL; choices++)
		if (json_array_append_new(names, json_string(choices->name)) < 0) {
			json_decref(names);
			return NULL;
		}
	return json_pack("{s:o}", "enum", names);
}

static json_t *value_schema(const struct option *option)
{
	if (option->choices != NULL)
		return choices_schema(option->choices);
	if (option->type->is_number)
		return json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum", (json_int_t)option->min, "maximum",
			(json_int_t)option->max);
	return json_loads(option->type->schema, 0, NULL);
}

/* {"anyOf": [SCHEMA, {"$ref": "#/$defs/environment"}]} */
static json_t *or_from_environment(json_t *schema)
{
	return json_pack("{s:[o, {s:s}]}", "anyOf", schema, "$ref", "#/$defs/environment");
}

/* The same for the items of a list, wherever the schema of a value has one. */
static int add_environment_to_items(json_t *schema)
{
	size_t i;
	json_t *alternative;
	json_t *items = json_object_get(schema, "items");
	if (items != NULL && json_object_set_new(schema, "items", or_from_environment(json_incref(items))) < 0)
		return -1;
	json_array_foreach(json_object_get(schema, "anyOf"), i, alternative)
	{
		if (add_environment_to_items(alternative) < 0)
			return -1;
	}
	return 0;
}

/* A mapping whose keys the file chooses. */
static json_t *family_schema(const char *pattern, const char *child)
{
	return json_pack("{s:[s,s], s:{s:o}, s:b}", "type", "object", "null", "patternProperties", pattern,
		section_schema(option_find(child)), "additionalProperties", 0);
}

static json_t *option_schema(const struct option *option)
{
	if (option->type == &type_section)
		return section_schema(option);
	if (option->type == &type_phases)
		return family_schema("^[1-9][0-9]{0,8}$", "phases.*");
	if (option->type == &type_services)
		return family_schema("^[a-z0-9][a-z0-9_-]{0,62}$", "services.*");
	json_t *schema = value_schema(option);
	if (schema == NULL || add_environment_to_items(schema) < 0) {
		json_decref(schema);
		return NULL;
	}
	return option->type->from_text != NULL ? or_from_environment(schema) : schema;
}

static int add_default(const struct option *option, json_t *schema)
{
	if (option->fallback == NULL || option->fallback_text != NULL)
		return 0;
	bool is_literal = option->type->is_number || option->type == &type_boolean || option->type == &type_number;
	json_t *value =
		is_literal ? json_loads(option->fallback, JSON_DECODE_ANY, NULL) : json_string(option->fallback);
	return json_object_set_new(schema, "default", value);
}

static int add_property(const struct option *option, json_t *properties)
{
	json_t *schema = option_schema(option);
	if (schema == NULL || json_object_set_new(properties, option_name(option), schema) < 0)
		return -1;
	if (json_object_set_new(schema, "description", json_string(option->meaning)) < 0)
		return -1;
	return add_default(option, schema);
}

static int add_to_group(json_t *groups, const struct option *option)
{
	char key[16];
	snprintf(key, sizeof(key), "%u", option->one_of);
	json_t *group = json_object_get(groups, key);
	if (group == NULL) {
		group = json_array();
		if (json_object_set_new(groups, key, group) < 0)
			return -1;
	}
	return json_array_append_new(group, json_pack("{s:[s]}", "required", option_name(option)));
}

/* Fills the parts of a section's schema from its children. */
static int add_children(const struct option *section, json_t *properties, json_t *required, json_t *groups)
{
	const struct option *option = NULL;
	while ((option = option_next_child(section, option)) != NULL) {
		if (add_property(option, properties) < 0)
			return -1;
		bool is_required = (option->flags & OPTION_REQUIRED) != 0;
		if (is_required && json_array_append_new(required, json_string(option_name(option))) < 0)
			return -1;
		if (option->one_of != 0 && add_to_group(groups, option) < 0)
			return -1;
	}
	return 0;
}

/* A section has one group of alternatives at most: `oneOf` takes it as it is. */
static int add_group(json_t *schema, json_t *groups)
{
	void *first = json_object_iter(groups);
	return first == NULL ? 0 : json_object_set(schema, "oneOf", json_object_iter_value(first));
}

static json_t *section_schema(const struct option *section)
{
	json_t *properties = json_object(), *required = json_array(), *groups = json_object(), *schema = NULL;
	if (properties != NULL && required != NULL && groups != NULL &&
		add_children(section, properties, required, groups) == 0) {
		/* a section without anything in it may be left empty */
		bool may_be_empty = json_array_size(required) == 0 && json_object_size(groups) == 0;
		schema = may_be_empty ? json_pack("{s:[s,s]}", "type", "object", "null")
				      : json_pack("{s:s}", "type", "object");
		bool failed = schema == NULL || json_object_set(schema, "properties", properties) < 0 ||
			json_object_set(schema, "required", required) < 0 ||
			json_object_set_new(schema, "additionalProperties", json_false()) < 0 ||
			add_group(schema, groups) < 0;
		if (failed) {
			json_decref(schema);
			schema = NULL;
		}
	}
	json_decref(properties);
	json_decref(required);
	json_decref(groups);
	return schema;
}

char *config_schema(void)
{
	json_t *schema = section_schema(&option_root);
	json_t *definitions = json_pack("{s:o}", "environment", json_loads(FROM_ENVIRONMENT, 0, NULL));
	char *text = NULL;
	if (schema != NULL && definitions != NULL &&
		json_object_set_new(schema, "$schema", json_string("https://json-schema.org/draft/2020-12/schema")) ==
			0 &&
		json_object_set_new(schema, "title", json_string("gpumgr configuration")) == 0 &&
		json_object_set(schema, "$defs", definitions) == 0)
		text = json_dumps(schema, JSON_INDENT(2));
	json_decref(schema);
	json_decref(definitions);
	return text;
}
