/*
 * What can only be said with the whole file in hand: names that refer to each other, keys that need or exclude each
 * other across sections, and what is allowed but rarely meant. Reads the file's places from the parser's marks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/address.h"
#include "config/hints.h"
#include "config/parse.h"
#include "config/report.h"

static struct position key_of(const struct marks *marks, const char *path)
{
	return marks->keys[option_index(option_find(path))];
}

static struct position value_of(const struct marks *marks, const char *path)
{
	return marks->values[option_index(option_find(path))];
}

static bool has_key(const struct marks *marks, const char *path)
{
	return key_of(marks, path).line != 0;
}

/* Makes a path of the table, with `name` for its `*`, that of the next problem. */
static void go_to(struct parser *parser, const char *path, const char *name)
{
	char part[64];
	parser_leave(parser, 0);
	while (*path != '\0') {
		size_t length = strcspn(path, ".");
		snprintf(part, sizeof(part), "%.*s", (int)length, path);
		parser_enter_key(parser, strcmp(part, "*") == 0 ? name : part);
		path += length + (path[length] == '.');
	}
}

/* The top of the file */

static void check_listen(struct parser *parser)
{
	const struct config *config = parser->config;
	const struct marks *marks = &parser->file_marks;
	bool has_token = has_key(marks, "token_file");
	if (config->listen.n > 0 && !has_token && !config->open) {
		go_to(parser, "listen", NULL);
		parser_error(parser, key_of(marks, "listen"),
			"would let everybody in who reaches these addresses (expected `token_file: /path` beside it; "
			"or "
			"`open: true`, if that is what you want)");
	}
	if (config->open && has_token) {
		go_to(parser, "open", NULL);
		parser_warning(
			parser, key_of(marks, "open"), "lets everybody in, so that `token_file` keeps nobody out");
	}
	if ((config->socket_mode & 02) != 0) {
		go_to(parser, "socket_mode", NULL);
		parser_warning(parser, value_of(marks, "socket_mode"),
			"lets every user of this host start and stop services (0660 and `socket_group` let some)");
	}
}

static void check_lock(struct parser *parser)
{
	const struct lock_config *lock = &parser->config->lock;
	const struct marks *marks = &parser->file_marks;
	if (lock->backend == LOCK_BACKEND_REDIS && !has_key(marks, "lock.url")) {
		go_to(parser, "lock.url", NULL);
		parser_error(parser, value_of(marks, "lock.backend"),
			"is missing (`backend: redis` needs one, such as redis://127.0.0.1:6379/0)");
	}
	if (lock->backend == LOCK_BACKEND_LOCAL && has_key(marks, "lock.url")) {
		go_to(parser, "lock.url", NULL);
		parser_warning(parser, key_of(marks, "lock.url"), "is not used without `backend: redis`");
	}
}

static void check_gpu(struct parser *parser)
{
	const struct gpu_config *gpu = &parser->config->gpu;
	const struct marks *marks = &parser->file_marks;
	bool is_sim = gpu->backend == GPU_BACKEND_SIM;
	if (is_sim && !has_key(marks, "gpu.sim")) {
		go_to(parser, "gpu.sim", NULL);
		parser_error(parser, value_of(marks, "gpu.backend"),
			"is missing (`backend: sim` needs one, such as {dir: /tmp/gpumgr-sim, gpus: [24GiB]})");
	}
	if (!is_sim && has_key(marks, "gpu.sim")) {
		go_to(parser, "gpu.sim", NULL);
		parser_warning(parser, key_of(marks, "gpu.sim"), "is not used without `backend: sim`");
	}
}

/* The cards that the file declares; none: what there is is known only when readings come. */
struct cards {
	size_t n;
	const uint32_t *mib;
	uint32_t largest, smallest;
	uint64_t sum; /* without the reserve of each */
};

static uint32_t usable(const struct gpu_config *gpu, uint32_t mib)
{
	uint32_t reserve = size_on_card(gpu->reserve, mib);
	return mib > reserve ? mib - reserve : 0;
}

static struct cards find_cards(const struct gpu_config *gpu)
{
	bool is_sim = gpu->backend == GPU_BACKEND_SIM;
	struct cards cards = {
		.n = is_sim ? gpu->n_sim_gpus : gpu->n_gpus,
		.mib = is_sim ? gpu->sim_gpus_mib : gpu->gpus_mib,
		.smallest = UINT32_MAX,
	};
	for (size_t i = 0; i < cards.n; i++) {
		cards.largest = cards.mib[i] > cards.largest ? cards.mib[i] : cards.largest;
		cards.smallest = cards.mib[i] < cards.smallest ? cards.mib[i] : cards.smallest;
		cards.sum += usable(gpu, cards.mib[i]);
	}
	return cards;
}

/* One service */

struct service_context {
	struct parser *parser;
	const struct service_config *service;
	const struct marks *marks;
};

static void check_driver(const struct service_context *context)
{
	struct parser *parser = context->parser;
	const struct service_config *service = context->service;
	if (service->driver != DRIVER_PROCESS || !parser->is_root || service->process.user != NULL ||
		!has_key(context->marks, "services.*.process"))
		return;
	go_to(parser, "services.*.process", service->name);
	parser_warning(parser, key_of(context->marks, "services.*.process"),
		"runs as root, as the daemon does (`user: NAME` gives it an account of its own)");
}

/* The engine that is not written is the one that the docker command would use, if that is one of this host. */
static void choose_engine(const struct service_context *context, struct service_config *service)
{
	const char *host = getenv("DOCKER_HOST");
	struct parser *parser = context->parser;
	char quoted[REPORT_QUOTE_SIZE];
	if (service->driver != DRIVER_CONTAINER || has_key(context->marks, "services.*.container.engine") ||
		host == NULL || host[0] == '\0')
		return;
	if (address_check_engine(host) != NULL) {
		go_to(parser, "services.*.container.engine", service->name);
		parser_warning(parser, key_of(context->marks, "services.*.container"),
			"is %s: DOCKER_HOST is %s, and gpumgr needs an engine of this host (unix:///PATH)",
			service->container.engine, report_quote(host, quoted));
		return;
	}
	char *engine = strdup(host);
	parser->out_of_memory |= engine == NULL;
	if (engine == NULL)
		return;
	free(service->container.engine);
	service->container.engine = engine;
}

static void check_own_address(const struct service_context *context, const char *path, const struct probe_config *probe)
{
	bool is_written = has_key(context->marks, path);
	if (!is_written || probe->address == NULL || probe->address[0] != ':' ||
		context->service->driver == DRIVER_CONTAINER)
		return;
	bool is_http = probe->kind == PROBE_HTTP;
	go_to(context->parser, path, context->service->name);
	parser_error(context->parser, value_of(context->marks, path),
		"has no host, which stands for the address of a container (did you mean %s127.0.0.1%.200s?)",
		is_http ? "http://" : "", probe->address);
}

static void check_health(const struct service_context *context)
{
	const struct service_config *service = context->service;
	check_own_address(context, "services.*.health.http", &service->health);
	check_own_address(context, "services.*.health.tcp", &service->health);
	if (service->health.kind != PROBE_CONTAINER || service->driver == DRIVER_CONTAINER)
		return;
	go_to(context->parser, "services.*.health.container", service->name);
	parser_error(context->parser, key_of(context->marks, "services.*.health.container"),
		"is for services with `container` (expected one of http, tcp, command)");
}

static void check_busy(const struct service_context *context)
{
	static const char *const http_only[] = { "services.*.busy.json", "services.*.busy.above" };
	struct parser *parser = context->parser;
	bool has_http = has_key(context->marks, "services.*.busy.http");
	check_own_address(context, "services.*.busy.http", &context->service->busy);
	for (size_t i = 0; i < ARRAY_SIZE(http_only); i++) {
		if (!has_key(context->marks, http_only[i]) || has_http)
			continue;
		go_to(parser, http_only[i], context->service->name);
		parser_error(parser, key_of(context->marks, http_only[i]), "means nothing without `http`");
	}
	if (has_http && !has_key(context->marks, "services.*.busy.json")) {
		go_to(parser, "services.*.busy.json", context->service->name);
		parser_error(parser, key_of(context->marks, "services.*.busy.http"),
			"is missing (expected the place of the number in the answer, such as queue.running[0].count)");
	}
}

/* Services stand on whole GPUs. */
static void check_part(const struct service_context *context, const struct gpu_selector *selector)
{
	char quoted[REPORT_QUOTE_SIZE];
	if (selector->uuid == NULL || strncmp(selector->uuid, "MIG-", 4) != 0)
		return;
	go_to(context->parser, "services.*.gpus", context->service->name);
	parser_warning(context->parser, value_of(context->marks, "services.*.gpus"),
		"names %s, which is a part of a GPU, so that nothing matches it (name the GPU; the part goes into "
		"CUDA_VISIBLE_DEVICES of the service's environment)",
		report_quote(selector->uuid, quoted));
}

static void check_selection(const struct service_context *context, const struct cards *cards)
{
	struct parser *parser = context->parser;
	const struct service_config *service = context->service;
	const struct marks *marks = context->marks;
	size_t n = service->any_gpu ? cards->n : service->n_selectors;
	if (service->gpu_count > n && n > 0) {
		struct position at = value_of(marks, "services.*.gpu_count");
		go_to(parser, "services.*.gpu_count", service->name);
		if (service->any_gpu)
			parser_warning(parser, at, "wants %u GPUs, but the file declares %zu", service->gpu_count, n);
		else
			parser_error(parser, at, "wants %u GPUs, but `gpus` names %zu (name more, or lower it)",
				service->gpu_count, n);
	}
	for (size_t i = 0; i < service->n_selectors; i++) {
		check_part(context, &service->selectors[i]);
		if (cards->n == 0 || service->selectors[i].index < (int)cards->n)
			continue;
		go_to(parser, "services.*.gpus", service->name);
		parser_warning(parser, value_of(marks, "services.*.gpus"),
			"names GPU %d, but the file declares %zu (the first is 0)", service->selectors[i].index,
			cards->n);
	}
}

static void check_fit(const struct service_context *context, const struct cards *cards)
{
	struct parser *parser = context->parser;
	const struct service_config *service = context->service;
	if (cards->n == 0 || service->vram.percent != 0)
		return;
	uint32_t room = usable(&parser->config->gpu, cards->largest);
	if (service->vram.mib <= room)
		return;
	go_to(parser, "services.*.vram", service->name);
	parser_warning(parser, value_of(context->marks, "services.*.vram"),
		"%" PRIu32 " MiB fit on no declared GPU: the largest has %" PRIu32
		" MiB beside its reserve, so it will never start",
		service->vram.mib, room);
}

/* Two services behind one address: the check of either would pass for the other. */
static void check_shared_address(struct parser *parser, size_t index)
{
	const struct service_config *service = &parser->config->services[index];
	const char *path = service->health.kind == PROBE_TCP ? "services.*.health.tcp" : "services.*.health.http";
	if (service->health.address == NULL || service->health.address[0] == ':')
		return;
	for (size_t i = 0; i < index; i++) {
		const struct service_config *other = &parser->config->services[i];
		if (other->health.address == NULL || strcmp(other->health.address, service->health.address) != 0)
			continue;
		go_to(parser, path, service->name);
		parser_warning(parser, value_of(&parser->service_marks[index], path),
			"is the address of %s too (line %u), so that either seems healthy when the other runs",
			other->name, other->line);
		return;
	}
}

static bool is_same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool is_same_container(const struct service_config *a, const struct service_config *b)
{
	return a->driver == DRIVER_CONTAINER && b->driver == DRIVER_CONTAINER &&
		is_same_text(a->container.engine, b->container.engine) &&
		is_same_text(a->container.name, b->container.name) &&
		is_same_text(a->container.compose_project, b->container.compose_project) &&
		is_same_text(a->container.compose_service, b->container.compose_service);
}

/* Its memory would be counted for both, and each would take the other's starts and stops for somebody else's. */
static void check_shared_container(struct parser *parser, size_t index)
{
	const struct service_config *service = &parser->config->services[index];
	const struct container_config *container = &service->container;
	for (size_t i = 0; i < index; i++) {
		const struct service_config *other = &parser->config->services[i];
		if (!is_same_container(service, other) ||
			(container->name == NULL && container->compose_service == NULL))
			continue;
		go_to(parser, "services.*.container", service->name);
		parser_error(parser, key_of(&parser->service_marks[index], "services.*.container"),
			"is the container of %s too (line %u; expected each container once)", other->name, other->line);
		return;
	}
}

static void check_service(struct parser *parser, size_t index, const struct cards *cards)
{
	struct service_config *service = &parser->config->services[index];
	const struct marks *marks = &parser->service_marks[index];
	struct service_context context = { parser, service, marks };
	service->driver = has_key(marks, "services.*.container") ? DRIVER_CONTAINER : DRIVER_PROCESS;
	check_driver(&context);
	choose_engine(&context, service);
	check_health(&context);
	check_busy(&context);
	check_selection(&context, cards);
	check_fit(&context, cards);
	check_shared_address(parser, index);
	check_shared_container(parser, index);
}

/* Phases */

static void report_unknown_service(struct parser *parser, struct position at, const char *name)
{
	const struct config *config = parser->config;
	const char *close = NULL;
	unsigned distance, best = UINT32_MAX;
	char quoted[REPORT_QUOTE_SIZE], close_quoted[REPORT_QUOTE_SIZE];
	for (size_t i = 0; i < config->n_services; i++) {
		if (hint_is_close(name, config->services[i].name, &distance) && distance < best) {
			best = distance;
			close = config->services[i].name;
		}
	}
	parser_error(parser, at, "unknown service %s (%s%s%s)", report_quote(name, quoted),
		close == NULL ? "expected one of the names under `services`" : "did you mean ",
		close == NULL ? "" : report_quote(close, close_quoted), close == NULL ? "" : "?");
}

static void resolve_services(struct parser *parser, size_t index)
{
	struct phase_config *phase = &parser->config->phases[index];
	if (phase->service_names.n == 0)
		return;
	phase->services = calloc(phase->service_names.n, sizeof(*phase->services));
	if (phase->services == NULL) {
		parser->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < phase->service_names.n; i++) {
		const char *name = phase->service_names.items[i];
		phase->services[i] = config_find_service(parser->config, name);
		if (phase->services[i] != SIZE_MAX)
			continue;
		go_to(parser, "phases.*.services", parser->phase_keys[index]);
		parser_enter_index(parser, i);
		report_unknown_service(parser, parser->reference_marks[index][i], name);
	}
}

static void check_phase_name(struct parser *parser, size_t index)
{
	const struct phase_config *phase = &parser->config->phases[index];
	for (size_t i = 0; i < index && phase->name != NULL; i++) {
		const struct phase_config *other = &parser->config->phases[i];
		if (other->name == NULL || strcmp(other->name, phase->name) != 0)
			continue;
		go_to(parser, "phases.*.name", parser->phase_keys[index]);
		struct position at = value_of(&parser->phase_marks[index], "phases.*.name");
		if (other->number != 0)
			parser_error(
				parser, at, "is the name of phase %d too (expected each name once)", other->number);
		else
			parser_error(parser, at, "is the name of another phase too (expected each name once)");
		return;
	}
}

/* Only what can be said for sure: with several cards it may not fit although the sum would. */
static void check_phase_fit(struct parser *parser, size_t index, const struct cards *cards)
{
	const struct phase_config *phase = &parser->config->phases[index];
	const struct marks *marks = &parser->phase_marks[index];
	uint64_t need = 0;
	for (size_t i = 0; i < phase->service_names.n; i++) {
		if (phase->services[i] == SIZE_MAX)
			continue;
		const struct service_config *service = &parser->config->services[phase->services[i]];
		need += (uint64_t)size_on_card(service->vram, cards->smallest) * service->gpu_count;
	}
	if (need <= cards->sum || cards->n == 0 || phase->service_names.n < 2)
		return;
	go_to(parser, "phases.*.services", parser->phase_keys[index]);
	parser_warning(parser, value_of(marks, "phases.*.services"),
		"need %" PRIu64 " MiB together, but the declared GPUs have %" PRIu64
		" MiB beside their reserve, so this phase can never be prepared",
		need, cards->sum);
}

static int compare_phases(const void *a, const void *b)
{
	int first = ((const struct phase_config *)a)->number;
	int second = ((const struct phase_config *)b)->number;
	return (first > second) - (first < second);
}

void parser_check(struct parser *parser)
{
	struct config *config = parser->config;
	struct cards cards = find_cards(&config->gpu);
	check_listen(parser);
	check_lock(parser);
	check_gpu(parser);
	for (size_t i = 0; i < config->n_services && !parser->out_of_memory; i++)
		check_service(parser, i, &cards);
	for (size_t i = 0; i < config->n_phases && !parser->out_of_memory; i++) {
		check_phase_name(parser, i);
		resolve_services(parser, i);
		if (!parser->out_of_memory)
			check_phase_fit(parser, i, &cards);
	}
	parser_leave(parser, 0);
	/* Last: until here the marks go by the order of the file. */
	if (config->n_phases > 1)
		qsort(config->phases, config->n_phases, sizeof(*config->phases), compare_phases);
}
