/* The kinds of values that are one scalar and stay a string: their form is checked, never whether they exist. */
#include "config/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "config/address.h"
#include "config/parse.h"
#include "config/report.h"
#include "config/schema.h"

#define TEXT_MAX 4095
#define COMPOSE_NAME_MAX 255 /* there is no limit of its own; labels and messages need one */

void value_store_string(struct parser *parser, const struct option *option, const char *text, void *base)
{
	char **target = option_at(option, base);
	char *copy = strdup(text);
	if (copy == NULL) {
		parser->out_of_memory = true;
		return;
	}
	free(*target);
	*target = copy;
}

void value_release_string(const struct option *option, void *base)
{
	char **target = option_at(option, base);
	free(*target);
	*target = NULL;
}

bool value_is_equal_string(const struct option *option, const void *a, const void *b)
{
	return string_is_equal(*(char *const *)option_of(option, a), *(char *const *)option_of(option, b));
}

static bool has_control_characters(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return true;
	return false;
}

/* What no name, path or URL has. NULL: nothing wrong. */
static const char *find_text_problem(const char *text)
{
	if (text[0] == '\0')
		return "is empty";
	if (strlen(text) > TEXT_MAX)
		return "is too long";
	return has_control_characters(text) ? "has control characters in it" : NULL;
}

static void store_or_refuse(struct parser *parser, const struct option *option, const struct scalar *scalar,
	const char *problem, const char *hint, void *base)
{
	if (problem != NULL)
		value_refuse(parser, option, scalar, problem, hint);
	else
		value_store_string(parser, option, scalar->text, base);
}

static void text_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	store_or_refuse(parser, option, scalar, find_text_problem(scalar->text), NULL, base);
}

const struct value_type type_text = {
	.name = "text",
	.expected = "text",
	.schema = "{\"type\": [\"string\", \"number\", \"boolean\"]}",
	.from_text = text_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

static const char *find_path_problem(const char *text)
{
	const char *problem = find_text_problem(text);
	if (problem != NULL)
		return problem;
	if (text[0] == '~')
		return "is not absolute: ~ is a shell's (write ${env.HOME})";
	return text[0] == '/' ? NULL : "is not absolute";
}

static void path_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	store_or_refuse(parser, option, scalar, find_path_problem(scalar->text), NULL, base);
}

#define PATH_SCHEMA "{\"type\": \"string\", \"pattern\": \"^/\"}"

const struct value_type type_path = {
	.name = "path",
	.expected = "an absolute path",
	.schema = PATH_SCHEMA,
	.from_text = path_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

static void socket_path_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *problem = find_path_problem(scalar->text);
	if (problem == NULL && strlen(scalar->text) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		problem = "is too long for a Unix socket, whose path has 107 bytes at most";
	store_or_refuse(parser, option, scalar, problem, NULL, base);
}

const struct value_type type_socket_path = {
	.name = "socket path",
	.expected = "an absolute path",
	.schema = PATH_SCHEMA,
	.from_text = socket_path_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

/* As useradd(8) allows them, with upper case and directories' DOMAIN\user and user@domain. */
static const char *find_account_problem(const char *text)
{
	const char *problem = find_text_problem(text);
	if (problem != NULL)
		return problem;
	if (text[0] == '-' || strlen(text) > 255 || strpbrk(text, " :,/") != NULL)
		return "is not the name of an account";
	return NULL;
}

static void account_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	store_or_refuse(parser, option, scalar, find_account_problem(scalar->text), NULL, base);
}

const struct value_type type_account = {
	.name = "account",
	.expected = "a name or a number",
	.schema = "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 0}, {\"type\": \"string\", \"minLength\": 1}]}",
	.from_text = account_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* It must not look like a number, since a phase is named by either. */
static void phase_name_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *text = scalar->text;
	const char *problem = NULL;
	if (strspn(text, LETTERS) == 0 || text[strspn(text, LETTERS DIGITS "_.-")] != '\0')
		problem = "is not the name of a phase";
	else if (strlen(text) > 63)
		problem = "is longer than 63 characters";
	store_or_refuse(parser, option, scalar, problem, NULL, base);
}

const struct value_type type_phase_name = {
	.name = "phase name",
	.expected = "a letter, then letters, digits, `_`, `.` and `-`",
	.schema = "{\"type\": \"string\", \"pattern\": \"^[A-Za-z][A-Za-z0-9_.-]{0,62}$\"}",
	.from_text = phase_name_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

static void lock_url_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	store_or_refuse(parser, option, scalar, address_check_lock(scalar->text), NULL, base);
}

const struct value_type type_lock_url = {
	.name = "lock URL",
	.expected = "a URL such as redis://127.0.0.1:6379/0",
	.schema = "{\"type\": \"string\", \"pattern\": \"^(rediss?|unix|redis[+]sentinel)://\"}",
	.from_text = lock_url_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

static void engine_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	char hint[128];
	const char *problem = address_check_engine(scalar->text);
	bool has_hint = problem != NULL && scalar->text[0] == '/' && strlen(scalar->text) < 100;
	if (has_hint)
		snprintf(hint, sizeof(hint), "unix://%s", scalar->text);
	store_or_refuse(parser, option, scalar, problem, has_hint ? hint : NULL, base);
}

const struct value_type type_engine = {
	.name = "engine",
	.expected = "a URL such as unix:///var/run/docker.sock",
	.schema = "{\"type\": \"string\", \"pattern\": \"^unix:///.\"}",
	.from_text = engine_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

/* Names of Docker: [a-zA-Z0-9][a-zA-Z0-9_.-]*, see `docker container create`; ids are among them. */
static void container_name_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *text = scalar->text;
	bool is_name = strspn(text, LETTERS DIGITS) > 0 && text[strspn(text, LETTERS DIGITS "_.-")] == '\0' &&
		strlen(text) <= 255;
	store_or_refuse(parser, option, scalar, is_name ? NULL : "is not the name of a container", NULL, base);
}

const struct value_type type_container_name = {
	.name = "container name",
	.expected = "letters, digits, `_`, `.` and `-`, such as mcn_ollama",
	.schema = "{\"type\": \"string\", \"pattern\": \"^[A-Za-z0-9][A-Za-z0-9_.-]*$\"}",
	.from_text = container_name_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

/* What Compose makes of the name of a folder. */
static void normalize_project(const char *text, char *buffer, size_t size)
{
	size_t used = 0;
	for (; *text != '\0' && used + 1 < size; text++) {
		char c = (char)(*text >= 'A' && *text <= 'Z' ? *text - 'A' + 'a' : *text);
		bool may_begin = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		if (may_begin || (used > 0 && (c == '_' || c == '-')))
			buffer[used++] = c;
	}
	buffer[used] = '\0';
}

/*
 * `name` in the Compose specification: a project with other characters in its name exists nowhere, so nothing would
 * ever be found.
 */
static void compose_project_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	char normal[COMPOSE_NAME_MAX + 1];
	normalize_project(scalar->text, normal, sizeof(normal));
	bool is_name = normal[0] != '\0' && strcmp(normal, scalar->text) == 0;
	bool has_hint = normal[0] != '\0' && strlen(scalar->text) <= COMPOSE_NAME_MAX;
	store_or_refuse(parser, option, scalar, is_name ? NULL : "is not the name of a Compose project",
		has_hint ? normal : NULL, base);
}

const struct value_type type_compose_project = {
	.name = "Compose project",
	.expected = "lower case letters, digits, `_` and `-`, such as studio",
	.schema = "{\"type\": [\"string\", \"integer\", \"boolean\"], \"minimum\": 0, \"pattern\": "
		  "\"^[a-z0-9][a-z0-9_-]*$\"}",
	.from_text = compose_project_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

/* The keys of `services` in the Compose specification. */
static void compose_service_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *text = scalar->text;
	bool is_name =
		text[0] != '\0' && text[strspn(text, LETTERS DIGITS "_.-")] == '\0' && strlen(text) <= COMPOSE_NAME_MAX;
	store_or_refuse(parser, option, scalar, is_name ? NULL : "is not the name of a Compose service", NULL, base);
}

const struct value_type type_compose_service = {
	.name = "Compose service",
	.expected = "letters, digits, `_`, `.` and `-`, such as ollama",
	.schema = "{\"type\": [\"string\", \"number\", \"boolean\"], \"pattern\": \"^[A-Za-z0-9_.-]+$\"}",
	.from_text = compose_service_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};

/* NAME or [INDEX], then any number of .NAME and [INDEX]. */
static bool is_json_path(const char *text)
{
	bool is_first = true;
	while (*text != '\0') {
		if (*text == '[') {
			size_t length = strspn(text + 1, DIGITS);
			if (length == 0 || length > 6 || text[length + 1] != ']')
				return false;
			text += length + 2;
		} else {
			if (!is_first && *text++ != '.')
				return false;
			size_t length = strcspn(text, ".[]");
			if (length == 0)
				return false;
			text += length;
		}
		is_first = false;
	}
	return !is_first;
}

static void json_path_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	const char *problem = find_text_problem(scalar->text);
	if (problem == NULL && !is_json_path(scalar->text))
		problem = "is not a path into JSON";
	store_or_refuse(parser, option, scalar, problem, NULL, base);
}

const struct value_type type_json_path = {
	.name = "JSON path",
	.expected = "names and indexes such as queue.running[0].count",
	.schema = "{\"type\": \"string\", \"minLength\": 1}",
	.from_text = json_path_from_text,
	.is_equal = value_is_equal_string,
	.release = value_release_string,
};
