/*
 * The kinds of values that options have. A kind turns what stands in the file into the field of a struct, or reports
 * why it cannot; it describes itself to people and to JSON Schema. One `const struct value_type` each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yaml.h>

#include "config/config.h"

struct option;
struct parser;

struct position {
	unsigned line, column; /* 1-based; 0: of the whole file */
};

/* One scalar of the file, or a default of the table. */
struct scalar {
	const char *text; /* `${env.NAME}` expanded; no NUL inside */
	struct position at;
};

struct value_type {
	const char *name; /* for the reference, and of its definition in the JSON schema */
	const char *expected; /* "a duration such as 30s"; NULL: follows from the option's bounds or choices */
	const char *schema; /* JSON Schema of what may be written, as JSON; NULL: follows from bounds or choices */
	bool is_number; /* the schema is that of an integer within the bounds */
	/* NULL: a scalar is the wrong type. */
	void (*from_text)(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base);
	/* Called for lists and mappings, and for any node where from_text is NULL. NULL: they are the wrong type. */
	void (*from_node)(struct parser *parser, const struct option *option, yaml_node_t *node, void *base);
	/* Whether the field is the same in both. NULL: what has keys of its own, or no field. */
	bool (*is_equal)(const struct option *option, const void *a, const void *b);
	/* Frees what the field owns. NULL: nothing. */
	void (*release)(const struct option *option, void *base);
};

/* parse.c: what has keys of its own */
extern const struct value_type type_section;
extern const struct value_type type_phases;
extern const struct value_type type_services;

/* values.c: one scalar each */
extern const struct value_type type_version;
extern const struct value_type type_boolean;
extern const struct value_type type_integer; /* int */
extern const struct value_type type_count; /* unsigned */
extern const struct value_type type_number; /* double */
extern const struct value_type type_size; /* struct size_value */
extern const struct value_type type_bytes; /* uint64_t */
extern const struct value_type type_duration; /* uint64_t ms */
extern const struct value_type type_duration_or_never; /* int64_t ms */
extern const struct value_type type_choice; /* an enum */
extern const struct value_type type_mode; /* unsigned, written in octal */
extern const struct value_type type_signal; /* int */

/* strings.c: one scalar each, kept as a string */
extern const struct value_type type_text;
extern const struct value_type type_path;
extern const struct value_type type_socket_path;
extern const struct value_type type_account; /* a user or a group */
extern const struct value_type type_phase_name;
extern const struct value_type type_lock_url;
extern const struct value_type type_engine;
extern const struct value_type type_json_path;
extern const struct value_type type_container_name;
extern const struct value_type type_compose_project;
extern const struct value_type type_compose_service;

/* probes.c: the kinds of probes, each in a struct probe_config */
extern const struct value_type type_probe_http;
extern const struct value_type type_probe_tcp;
extern const struct value_type type_probe_command;
extern const struct value_type type_probe_container;

/* commands.c */
extern const struct value_type type_command;
extern const struct value_type type_environment;

/* lists.c */
extern const struct value_type type_sizes;
extern const struct value_type type_gpus;
extern const struct value_type type_listen;
extern const struct value_type type_hosts;
extern const struct value_type type_service_names;

/* A size in MiB that is no share of a card, within the option's bounds; false: it is none, and that was reported. */
bool value_read_amount(
	struct parser *parser, const struct option *option, const struct scalar *scalar, uint32_t *ret_mib);

/* Reports "X PROBLEM (expected EXPECTED; did you mean HINT?)"; `hint` may be NULL. A secret is not quoted. */
void value_refuse(struct parser *parser, const struct option *option, const struct scalar *scalar, const char *problem,
	const char *hint);

/* Copies the text into the `char *` of the option, freeing what was there. */
void value_store_string(struct parser *parser, const struct option *option, const char *text, void *base);
void value_release_string(const struct option *option, void *base);
bool value_is_equal_string(const struct option *option, const void *a, const void *b);

/* 0 or -ENOMEM; the list is unchanged then. */
int string_list_add(struct string_list *list, const char *text, size_t length);
void string_list_finish(struct string_list *list);
void value_add_string(struct parser *parser, struct string_list *list, const char *text);
void value_release_list(const struct option *option, void *base);
bool value_is_equal_list(const struct option *option, const void *a, const void *b);
bool string_is_equal(const char *a, const char *b); /* NULL is a value of its own */
bool string_list_is_equal(const struct string_list *a, const struct string_list *b);

/*
 * Fills `list` with an argv from a string or a list; reports what is wrong with it. With `shell` a string stays whole,
 * to be given to a shell.
 */
void command_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, bool shell,
	struct string_list *list);
void command_from_node(
	struct parser *parser, const struct option *option, yaml_node_t *node, bool shell, struct string_list *list);
