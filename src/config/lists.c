/* The kinds of values that are lists: read item by item, each with its own place and path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/address.h"
#include "config/parse.h"
#include "config/report.h"
#include "config/schema.h"
#include "config/values.h"

static bool list_has(const struct string_list *list, const char *text)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i], text) == 0)
			return true;
	return false;
}

/* Sizes of cards */

struct size_target {
	uint32_t **mib;
	size_t *n;
};

static void read_card(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)index;
	struct size_target *sizes = target;
	uint32_t mib;
	if (!value_read_amount(parser, option, item, &mib))
		return;
	if ((int64_t)*sizes->n >= option->max) {
		parser_error(parser, item->at, "one GPU too many (expected %d at most)", (int)option->max);
		return;
	}
	uint32_t *grown = reallocarray(*sizes->mib, *sizes->n + 1, sizeof(*grown));
	if (grown == NULL) {
		parser->out_of_memory = true;
		return;
	}
	*sizes->mib = grown;
	grown[(*sizes->n)++] = mib;
}

static void sizes_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	struct size_target target = { option_at(option, base), (size_t *)((char *)base + option->count_offset) };
	parser_read_items(parser, option, node, read_card, &target);
	if (node->type == YAML_SEQUENCE_NODE && node->data.sequence.items.start == node->data.sequence.items.top)
		parser_error(parser, node_position(node), "is empty (expected a size for each GPU, such as [24GiB])");
}

static bool is_equal_sizes(const struct option *option, const void *a, const void *b)
{
	size_t n = *(const size_t *)((const char *)a + option->count_offset);
	if (n != *(const size_t *)((const char *)b + option->count_offset))
		return false;
	const uint32_t *left = *(uint32_t *const *)option_of(option, a);
	const uint32_t *right = *(uint32_t *const *)option_of(option, b);
	return n == 0 || memcmp(left, right, n * sizeof(left[0])) == 0;
}

static void release_sizes(const struct option *option, void *base)
{
	uint32_t **mib = option_at(option, base);
	free(*mib);
	*mib = NULL;
	*(size_t *)((char *)base + option->count_offset) = 0;
}

const struct value_type type_sizes = {
	.name = "list of sizes",
	.expected = "sizes such as [24GiB] or [24GiB, 16GiB]",
	.schema = "{\"type\": \"array\", \"minItems\": 1, \"maxItems\": 64, \"items\": {\"anyOf\": [{\"type\": "
		  "\"number\", \"minimum\": 64}, {\"type\": \"string\", \"pattern\": \"^[0-9]+(\\\\.[0-9]+)? "
		  "*(KiB|MiB|GiB|TiB|kB|MB|GB|TB)?$\"}]}}",
	.from_node = sizes_from_node,
	.is_equal = is_equal_sizes,
	.release = release_sizes,
};

/* Selection of GPUs */

/* As NVML gives them: GPU-8-4-4-4-12, MIG-..., and the older MIG-GPU-.../1/0. */
static bool is_uuid(const char *text)
{
	bool has_prefix = strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0;
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/");
	return has_prefix && length > 4 && text[length] == '\0' && length < 64;
}

/* -1: no index of a GPU. */
static int parse_gpu_index(const char *text)
{
	size_t length = strspn(text, "0123456789");
	if (length == 0 || length > 2 || text[length] != '\0' || (length > 1 && text[0] == '0'))
		return -1;
	int index = atoi(text);
	return index < 64 ? index : -1; /* GPU_MAX: a set of GPUs is one word */
}

static bool has_selector(const struct service_config *service, const struct gpu_selector *selector)
{
	for (size_t i = 0; i < service->n_selectors; i++) {
		const struct gpu_selector *other = &service->selectors[i];
		bool is_same_uuid =
			other->uuid != NULL && selector->uuid != NULL && strcasecmp(other->uuid, selector->uuid) == 0;
		if (is_same_uuid || (selector->index >= 0 && other->index == selector->index))
			return true;
	}
	return false;
}

static void read_selector(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)index;
	char quoted[REPORT_QUOTE_SIZE];
	struct service_config *service = target;
	CLEANUP_FREE char *uuid = strdup(item->text);
	if (uuid == NULL) {
		parser->out_of_memory = true;
		return;
	}
	struct gpu_selector selector = { .index = parse_gpu_index(item->text) };
	if (selector.index < 0 && !is_uuid(item->text)) {
		value_refuse(parser, option, item, "is neither the index nor the UUID of a GPU", NULL);
		return;
	}
	if (selector.index < 0)
		selector.uuid = uuid;
	if (has_selector(service, &selector)) {
		parser_error(parser, item->at, "%s is named twice", report_quote(item->text, quoted));
		return;
	}
	struct gpu_selector *grown = reallocarray(service->selectors, service->n_selectors + 1, sizeof(*grown));
	if (grown == NULL) {
		parser->out_of_memory = true;
		return;
	}
	if (selector.uuid != NULL)
		uuid = NULL;
	service->selectors = grown;
	grown[service->n_selectors++] = selector;
}

static void gpus_from_text(struct parser *parser, const struct option *option, const struct scalar *scalar, void *base)
{
	struct service_config *service = base;
	char hint[96];
	if (strcmp(scalar->text, "any") == 0) {
		service->any_gpu = true;
		return;
	}
	bool is_one = parse_gpu_index(scalar->text) >= 0 || is_uuid(scalar->text);
	snprintf(hint, sizeof(hint), "[%.80s]", scalar->text);
	value_refuse(parser, option, scalar, "is not a list", is_one ? hint : NULL);
}

static void gpus_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	struct service_config *service = base;
	service->any_gpu = false;
	parser_read_items(parser, option, node, read_selector, service);
	if (node->type == YAML_SEQUENCE_NODE && node->data.sequence.items.start == node->data.sequence.items.top)
		parser_error(parser, node_position(node), "is empty (expected `any`, or a list such as [0])");
}

static bool is_equal_gpus(const struct option *option, const void *a, const void *b)
{
	(void)option;
	const struct service_config *left = a, *right = b;
	if (left->any_gpu != right->any_gpu || left->n_selectors != right->n_selectors)
		return false;
	for (size_t i = 0; i < left->n_selectors; i++)
		if (left->selectors[i].index != right->selectors[i].index ||
			!string_is_equal(left->selectors[i].uuid, right->selectors[i].uuid))
			return false;
	return true;
}

static void release_gpus(const struct option *option, void *base)
{
	(void)option;
	struct service_config *service = base;
	for (size_t i = 0; i < service->n_selectors; i++)
		free(service->selectors[i].uuid);
	free(service->selectors);
	service->selectors = NULL;
	service->n_selectors = 0;
}

const struct value_type type_gpus = {
	.name = "GPUs",
	.expected = "`any`, or a list of indexes or UUIDs such as [0] or [GPU-8932f937-d72c-4106-c12f-20bd9faed9f6]",
	.schema = "{\"anyOf\": [{\"const\": \"any\"}, {\"type\": \"array\", \"minItems\": 1, \"uniqueItems\": true, "
		  "\"items\": {\"anyOf\": [{\"type\": \"integer\", \"minimum\": 0, \"maximum\": 63}, {\"type\": "
		  "\"string\", \"pattern\": \"^((GPU|MIG)-[A-Za-z0-9/-]+|[0-9]{1,2})$\"}]}}]}",
	.from_text = gpus_from_text,
	.from_node = gpus_from_node,
	.is_equal = is_equal_gpus,
	.release = release_gpus,
};

/* Addresses and hosts */

static void read_listen(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)index;
	char quoted[REPORT_QUOTE_SIZE], hint[256];
	const char *problem = address_check_host_port(item->text, strlen(item->text), false);
	const char *port = item->text + (item->text[0] == ':');
	snprintf(hint, sizeof(hint), "127.0.0.1:%.200s", port);
	bool has_hint = address_check_host_port(hint, strlen(hint), false) == NULL;
	if (problem != NULL)
		value_refuse(parser, option, item, problem, has_hint ? hint : NULL);
	else if (list_has(target, item->text))
		parser_error(parser, item->at, "%s is named twice", report_quote(item->text, quoted));
	else
		value_add_string(parser, target, item->text);
}

static void listen_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	parser_read_items(parser, option, node, read_listen, option_at(option, base));
}

const struct value_type type_listen = {
	.name = "list of addresses",
	.expected = "HOST:PORT such as [127.0.0.1:8700] or [0.0.0.0:8700]",
	.schema = "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"pattern\": \".:[0-9]{1,5}$\"}}",
	.from_node = listen_from_node,
	.is_equal = value_is_equal_list,
	.release = value_release_list,
};

static void read_host(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)index;
	char quoted[REPORT_QUOTE_SIZE], hint[256];
	const char *scheme = strstr(item->text, "://");
	const char *host = scheme == NULL ? item->text : scheme + 3;
	size_t length = strcspn(host, ":/");
	bool has_hint = length < sizeof(hint) && address_is_host(host, length);
	snprintf(hint, sizeof(hint), "%.*s", (int)length, host);
	if (!address_is_host(item->text, strlen(item->text)))
		value_refuse(parser, option, item, "is not a host name", has_hint ? hint : NULL);
	else if (list_has(target, item->text))
		parser_error(parser, item->at, "%s is named twice", report_quote(item->text, quoted));
	else
		value_add_string(parser, target, item->text);
}

static void hosts_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	parser_read_items(parser, option, node, read_host, option_at(option, base));
}

const struct value_type type_hosts = {
	.name = "list of hosts",
	.expected = "host names without a port such as [gpu.example.org]",
	.schema = "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"pattern\": \"^[A-Za-z0-9:._-]+$\"}}",
	.from_node = hosts_from_node,
	.is_equal = value_is_equal_list,
	.release = value_release_list,
};

/* Services of a phase: which of them exist is known at the end of the file. */

static void read_service_name(
	struct parser *parser, const struct option *option, const struct scalar *item, size_t index, void *target)
{
	(void)option;
	(void)index;
	char quoted[REPORT_QUOTE_SIZE];
	struct string_list *names = target;
	if (list_has(names, item->text)) {
		parser_error(parser, item->at, "%s is named twice", report_quote(item->text, quoted));
		return;
	}
	struct position **marks = &parser->reference_marks[parser->config->n_phases];
	struct position *grown = reallocarray(*marks, names->n + 1, sizeof(*grown));
	if (grown == NULL) {
		parser->out_of_memory = true;
		return;
	}
	*marks = grown;
	grown[names->n] = item->at;
	value_add_string(parser, names, item->text);
}

static void service_names_from_node(struct parser *parser, const struct option *option, yaml_node_t *node, void *base)
{
	parser_read_items(parser, option, node, read_service_name, option_at(option, base));
}

const struct value_type type_service_names = {
	.name = "list of services",
	.expected = "names of services such as [comfyui]",
	.schema = "{\"type\": \"array\", \"uniqueItems\": true, \"items\": {\"type\": [\"string\", \"integer\"]}}",
	.from_node = service_names_from_node,
	.is_equal = value_is_equal_list,
	.release = value_release_list,
};
