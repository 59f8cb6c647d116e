/*
 * What a health check or a busy probe asks. Each kind is a key of its own and all share one struct probe_config;
 * that exactly one is written is the table's business.
 */
#include "config/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "config/parse.h"
#include "config/schema.h"

static void store_address(struct parser *parser, struct probe_config *probe, enum probe_kind kind, const char *text)
{
	char *copy = strdup(text);
	if (copy == NULL) {
		parser->out_of_memory = true;
		return;
	}
	free(probe->address);
	probe->address = copy;
	probe->kind = kind;
}

static void release_probe(const struct option *option, void *base)
{
	struct probe_config *probe = option_at(option, base);
	free(probe->address);
	probe->address = NULL;
	string_list_finish(&probe->command);
}

static bool is_equal_probe(const struct option *option, const void *a, const void *b)
{
	const struct probe_config *left = option_of(option, a), *right = option_of(option, b);
	return left->kind == right->kind && string_is_equal(left->address, right->address) &&
		string_list_is_equal(&left->command, &right->command);
}

/* A guess at a URL that lacks its scheme. */
static bool guess_url(const char *text, char *buffer, size_t buffer_size)
{
	int length = snprintf(buffer, buffer_size, "http://%s%s", text[0] == ':' ? "127.0.0.1" : "", text);
	return length > 0 && (size_t)length < buffer_size && address_check_http(buffer, false) == NULL;
}

static void http_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	char hint[256];
	bool own_address = (option->flags & OPTION_OWN_ADDRESS) != 0;
	const char *problem = address_check_http(scalar->text, own_address);
	if (problem != NULL)
		value_refuse(
			parser, option, scalar, problem, guess_url(scalar->text, hint, sizeof(hint)) ? hint : NULL);
	else
		store_address(parser, option_at(option, base), PROBE_HTTP, scalar->text);
}

const struct value_type type_probe_http = {
	.name = "URL",
	.expected = "a URL such as http://127.0.0.1:8188/health",
	.schema = "{\"type\": \"string\", \"pattern\": \"^(https?://|:[0-9])\"}",
	.from_text = http_from_text,
	.is_equal = is_equal_probe,
	.release = release_probe,
};

/* A guess at HOST:PORT: the same without a scheme and a path, or with the loopback address. */
static bool guess_host_port(const char *text, char *buffer, size_t buffer_size)
{
	const char *scheme = strstr(text, "://");
	const char *host = scheme == NULL ? text : scheme + 3;
	bool is_port = host[strspn(host, "0123456789")] == '\0';
	int length =
		snprintf(buffer, buffer_size, "%s%.*s", is_port ? "127.0.0.1:" : "", (int)strcspn(host, "/"), host);
	return length > 0 && (size_t)length < buffer_size &&
		address_check_host_port(buffer, (size_t)length, false) == NULL;
}

static void tcp_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	char hint[256];
	bool own_address = (option->flags & OPTION_OWN_ADDRESS) != 0;
	const char *problem = address_check_host_port(scalar->text, strlen(scalar->text), own_address);
	if (problem != NULL)
		value_refuse(parser, option, scalar, problem,
			guess_host_port(scalar->text, hint, sizeof(hint)) ? hint : NULL);
	else
		store_address(parser, option_at(option, base), PROBE_TCP, scalar->text);
}

const struct value_type type_probe_tcp = {
	.name = "address",
	.expected = "HOST:PORT such as 127.0.0.1:8188",
	.schema = "{\"type\": \"string\", \"pattern\": \":[0-9]{1,5}$\"}",
	.from_text = tcp_from_text,
	.is_equal = is_equal_probe,
	.release = release_probe,
};

static void set_command(struct probe_config *probe)
{
	if (probe->command.n > 0)
		probe->kind = PROBE_COMMAND;
}

static void probe_command_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	struct probe_config *probe = option_at(option, base);
	command_from_text(parser, option, scalar, false, &probe->command);
	set_command(probe);
}

static void probe_command_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	struct probe_config *probe = option_at(option, base);
	command_from_node(parser, option, node, false, &probe->command);
	set_command(probe);
}

const struct value_type type_probe_command = {
	.name = "command",
	.expected = "a command such as [/usr/bin/test, -e, /run/x] or \"/usr/bin/test -e /run/x\"",
	.schema = "{\"anyOf\": [{\"type\": \"string\", \"minLength\": 1}, {\"type\": \"array\", \"minItems\": 1, "
		  "\"items\": {\"type\": [\"string\", \"number\", \"boolean\"]}}]}",
	.from_text = probe_command_from_text,
	.from_node = probe_command_from_node,
	.is_equal = is_equal_probe,
	.release = release_probe,
};

static void container_from_text(
	struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	if (strcasecmp(scalar->text, "true") == 0)
		((struct probe_config *)option_at(option, base))->kind = PROBE_CONTAINER;
	else
		value_refuse(parser, option, scalar, "is not true", NULL);
}

const struct value_type type_probe_container = {
	.name = "true",
	.expected = "true, or one of http, tcp and command in its place",
	.schema = "{\"const\": true}",
	.from_text = container_from_text,
	.is_equal = is_equal_probe,
};
