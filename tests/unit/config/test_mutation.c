/*
 * Files that no person wrote: a corpus, mutilated at random. Whatever comes in, the outcome is a configuration that
 * keeps its promises or a report that says why not. The seed is printed; GPUMGR_TEST_SEED and GPUMGR_TEST_RUNS change
 * what is tried.
 */
#include "support.h"

#include "base/cleanup.h"
#include "config/load.h"

static const char *source_root;

static const char *const texts[] = {
	SERVICE "    priority: 7\n    gpus: [0, GPU-a]\n    gpu_count: 2\n    yield_after: 5m\n    max_leases: 3\n",
	"version: 1\nlisten: [\"[::1]:80\", \"a.b:1\"]\nopen: true\nallowed_hosts: [x.y]\nsocket_mode: 0660\n"
	"gpu: {backend: sim, reserve: 5%, gpus: [24GiB, 1000MB], sim: {dir: \"${env.HOME:-/x}\", gpus: [24576]}}\n"
	"lock: {backend: redis, url: \"redis+sentinel://u:p@a:1,b/m\", key: \"$${HOST}\", ttl: 1m30s}\n",
	"version: 1\nphases: &p\n  1: {name: a, services: [x, y]}\n  2: ~\nservices:\n"
	"  x: {vram: &v 80%, container: {compose: {project: p, service: s}}, health: &h {container: true}}\n"
	"  y: {vram: *v, container: {compose: {project: p, service: t}}, health: *h}\n",
	NO_DRIVER "    process:\n      command: |\n        'a b' \"c\\\" $d\" e\\ f\n      shell: false\n"
		  "      environment: {A: 1, B: \"x\\ty\"}\n      stop_signal: 15\n      log_size: 1GiB\n"
		  "    busy: {http: \"http://h/\", json: \"a[0].b\", above: -1.5}\n",
};

static const char *const words[] = { "vram", "services", "phases", "process", "health", "${env.", "${env.A:-b}", "}",
	"{", "[", "]", ": ", "\n  ", "\n    ", "\n- ", "&a ", "*a", "~", "never", "any", "0", "-1",
	"99999999999999999999", "80%", "20GiB", "1m30s", "http://", "[::1]:", "!!binary ", "|\n", "\"", "'", "\\",
	"<<: *a", "---\n", "\t", "#", "\xc3\xa4", "\xff", "? ", ", ", "true", "\"\\0\"", "\"\\e[1m\"", "command",
	"shell", "GPU-", "$", "`", "..", "%" };

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64*: any seed but 0 */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

static size_t below(uint64_t *state, size_t n)
{
	return n == 0 ? 0 : (size_t)(next_random(state) % n);
}

struct text {
	size_t length;
	char bytes[32768];
};

static void replace(struct text *text, size_t at, size_t n_old, const char *new, size_t n_new)
{
	if (text->length - n_old + n_new > sizeof(text->bytes))
		return;
	char copy[4096];
	n_new = n_new > sizeof(copy) ? sizeof(copy) : n_new;
	if (n_new > 0)
		memcpy(copy, new, n_new); /* it may be a part of the text itself */
	memmove(text->bytes + at + n_new, text->bytes + at + n_old, text->length - at - n_old);
	memcpy(text->bytes + at, copy, n_new);
	text->length += n_new - n_old;
}

static void mutate(struct text *text, uint64_t *random)
{
	size_t at = below(random, text->length + 1);
	size_t rest = text->length - at;
	size_t some = below(random, rest > 40 ? 40 : rest + 1);
	const char *word = words[below(random, ARRAY_SIZE(words))];
	char byte = (char)next_random(random);
	switch (below(random, 6)) {
	case 0:
		replace(text, at, rest > 0, &byte, 1);
		break;
	case 1:
		replace(text, at, some, NULL, 0);
		break;
	case 2:
		replace(text, at, 0, word, strlen(word));
		break;
	case 3:
		replace(text, at, some, word, strlen(word));
		break;
	case 4:
		replace(text, below(random, text->length + 1), 0, text->bytes + at, some);
		break;
	default:
		text->length = at > 8 ? at : text->length;
	}
}

static void check_service(const struct service_config *service)
{
	assert_true(service->vram.mib >= 64 || (service->vram.percent >= 1 && service->vram.percent <= 100));
	assert_true(service->any_gpu || service->n_selectors > 0);
	assert_true(service->gpu_count >= 1 && service->max_leases >= 1 && service->health_retries >= 1);
	assert_true(service->health_timeout_ms > 0 && service->health_interval_ms >= 10);
	assert_true(service->health.kind != PROBE_NONE);
	size_t length = strlen(service->name);
	assert_true(length >= 1 && length <= 63);
	if (service->driver == DRIVER_PROCESS) {
		assert_true(service->process.command.n >= 1 && service->process.stop_signal > 0);
		assert_true(!service->process.shell || service->process.command.n == 1);
		for (size_t i = 0; i < service->process.environment.n; i++)
			assert_non_null(strchr(service->process.environment.items[i], '='));
	} else {
		bool is_compose =
			service->container.compose_project != NULL && service->container.compose_service != NULL;
		assert_true((service->container.name != NULL) != is_compose);
		assert_non_null(service->container.engine);
	}
}

static void check_config(const struct config *config)
{
	for (size_t i = 0; i < config->n_services; i++) {
		check_service(&config->services[i]);
		assert_int_equal(config_find_service(config, config->services[i].name), i);
	}
	for (size_t i = 0; i < config->n_phases; i++) {
		const struct phase_config *phase = &config->phases[i];
		assert_true(phase->number > (i == 0 ? 0 : config->phases[i - 1].number));
		for (size_t j = 0; j < phase->service_names.n; j++) {
			assert_true(phase->services[j] < config->n_services);
			assert_string_equal(config->services[phase->services[j]].name, phase->service_names.items[j]);
		}
	}
	assert_true(config->listen.n == 0 || config->open || config->token_file != NULL);
	assert_true(config->gpu.backend != GPU_BACKEND_SIM || config->gpu.n_sim_gpus > 0);
}

static void check_report(const struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		CLEANUP_FREE char *line = config_problem_line(report, &report->problems[i]);
		assert_non_null(line);
		for (const char *p = line; *p != '\0'; p++)
			assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
		const struct config_problem *a = &report->problems[i > 0 ? i - 1 : 0], *b = &report->problems[i];
		assert_true(a->line < b->line || (a->line == b->line && a->column <= b->column));
	}
}

static bool try_text(const struct text *text)
{
	struct config *config = NULL;
	struct config_report report;
	int r = config_parse_as("f", text->bytes, text->length, true, &config, &report);
	assert_true(r == 0 || r == -EINVAL);
	assert_true((r == 0) == (config != NULL));
	assert_true((r == -EINVAL) == (report.n_errors > 0));
	check_report(&report);
	if (config != NULL)
		check_config(config);
	config_report_finish(&report);
	config_free(config);
	return r == 0;
}

static uint64_t from_environment(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);
	return text == NULL ? fallback : strtoull(text, NULL, 10);
}

static void take(struct text *text, const char *bytes, size_t length)
{
	assert_true(length <= sizeof(text->bytes));
	memcpy(text->bytes, bytes, length);
	text->length = length;
}

static void test_mutations(void **state)
{
	(void)state;
	uint64_t seed = from_environment("GPUMGR_TEST_SEED", 20240611);
	uint64_t runs = from_environment("GPUMGR_TEST_RUNS", 20000);
	uint64_t random = seed | 1;
	size_t n_good = 0, length;
	char path[4096];
	print_message("seed %llu, %llu runs\n", (unsigned long long)seed, (unsigned long long)runs);
	snprintf(path, sizeof(path), "%s/examples/mcn.yaml", source_root);
	CLEANUP_FREE char *example = read_whole(path, &length);
	struct text text;
	for (uint64_t run = 0; run < runs; run++) {
		size_t which = below(&random, ARRAY_SIZE(texts) + 1);
		if (which == ARRAY_SIZE(texts))
			take(&text, example, length);
		else
			take(&text, texts[which], strlen(texts[which]));
		for (size_t n = 1 + below(&random, 4); n > 0; n--)
			mutate(&text, &random);
		n_good += try_text(&text);
	}
	/* both outcomes are met, or the mutations have lost their point */
	assert_true(n_good > runs / 100 && n_good < runs * 3 / 4);
}

static void test_corpus_is_good(void **state)
{
	(void)state;
	struct text text;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		take(&text, texts[i], strlen(texts[i]));
		if (!try_text(&text)) {
			struct config *config;
			CLEANUP_FREE char *lines = problems_of(text.bytes, text.length, true, &config);
			fail_msg("%s", lines);
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_corpus_is_good),
		cmocka_unit_test(test_mutations),
	};
	if (argc != 2) {
		fprintf(stderr, "usage: %s SOURCE_ROOT\n", argv[0]);
		return 2;
	}
	source_root = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
