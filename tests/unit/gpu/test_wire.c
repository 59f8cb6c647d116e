/* The bytes between the sampler child and the daemon: nothing gets lost, and nothing wrong gets through. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "gpu/backend.h"
#include "gpu/sampler.h"
#include "gpu/sampler_arguments.h"
#include "gpu/sampler_wire.h"

#define HEAD sizeof(uint32_t)

struct fixture {
	struct gpu_sample sample, decoded;
	uint8_t *buffer;
	size_t buffer_size;
};

static int set_up(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return *state == NULL;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	gpu_sample_finish(&fixture->sample);
	gpu_sample_finish(&fixture->decoded);
	free(fixture->buffer);
	free(fixture);
	return 0;
}

static void add_processes(struct gpu_reading *reading, size_t n)
{
	reading->processes = calloc(n, sizeof(*reading->processes));
	assert_non_null(reading->processes);
	reading->n_processes = n;
	for (size_t i = 0; i < n; i++) {
		reading->processes[i].pid = (pid_t)(i + 1);
		reading->processes[i].mib = (uint32_t)(10 * i);
		snprintf(reading->processes[i].name, sizeof(reading->processes[i].name), "worker %zu é", i);
	}
}

static void add_migs(struct gpu_reading *reading, size_t n)
{
	reading->migs = calloc(n, sizeof(*reading->migs));
	assert_non_null(reading->migs);
	reading->n_migs = n;
	for (size_t i = 0; i < n; i++) {
		struct gpu_mig *mig = &reading->migs[i];
		mig->has_memory = i != 1;
		mig->total_mib = mig->has_memory ? 4096 : 0;
		mig->used_mib = mig->has_memory ? (uint32_t)i : 0;
		snprintf(mig->uuid, sizeof(mig->uuid), "MIG-%zu", i);
		snprintf(mig->name, sizeof(mig->name), "%0*d", (int)sizeof(mig->name) - 1, 1);
	}
}

static void fill(struct gpu_sample *sample)
{
	sample->taken_ms = 0x1122334455667788u;
	sample->n_gpus = 3;
	struct gpu_reading *reading = &sample->gpus[0];
	reading->valid = GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_TEMPERATURE |
		GPU_VALID_UTILIZATION | GPU_VALID_PROCESSES;
	reading->total_mib = 24576;
	reading->used_mib = 24000;
	reading->free_mib = 576;
	reading->temperature_c = -12;
	reading->utilization_percent = 100;
	snprintf(reading->uuid, sizeof(reading->uuid), "GPU-8a0c");
	snprintf(reading->name, sizeof(reading->name), "%0*d", (int)sizeof(reading->name) - 1, 7);
	reading->valid |= GPU_VALID_DRIVER;
	reading->driver_mib = 321;
	add_processes(reading, 5);
	add_migs(reading, 3);
	snprintf(sample->gpus[1].problem, sizeof(sample->gpus[1].problem), "fell off the bus");
	add_processes(&sample->gpus[2], 1);
	sample->gpus[2].valid = GPU_VALID_USED;
	sample->gpus[2].processes[0].mib = GPU_MIB_UNKNOWN;
}

static void expect_equal(const struct gpu_sample *a, const struct gpu_sample *b)
{
	assert_int_equal(a->taken_ms, b->taken_ms);
	assert_int_equal(a->n_gpus, b->n_gpus);
	assert_string_equal(a->problem, b->problem);
	for (unsigned i = 0; i < a->n_gpus; i++) {
		const struct gpu_reading *x = &a->gpus[i], *y = &b->gpus[i];
		assert_int_equal(x->valid, y->valid);
		assert_int_equal(x->total_mib, y->total_mib);
		assert_int_equal(x->used_mib, y->used_mib);
		assert_int_equal(x->free_mib, y->free_mib);
		assert_int_equal(x->temperature_c, y->temperature_c);
		assert_int_equal(x->utilization_percent, y->utilization_percent);
		assert_string_equal(x->uuid, y->uuid);
		assert_string_equal(x->name, y->name);
		assert_string_equal(x->problem, y->problem);
		assert_int_equal(x->n_processes, y->n_processes);
		for (size_t k = 0; k < x->n_processes; k++) {
			assert_int_equal(x->processes[k].pid, y->processes[k].pid);
			assert_int_equal(x->processes[k].mib, y->processes[k].mib);
			assert_string_equal(x->processes[k].name, y->processes[k].name);
		}
		assert_int_equal(x->driver_mib, y->driver_mib);
		assert_int_equal(x->n_migs, y->n_migs);
		for (size_t k = 0; k < x->n_migs; k++)
			assert_memory_equal(&x->migs[k], &y->migs[k], sizeof(x->migs[k]));
	}
}

/* Encodes the fixture's sample; the frame without its length stands at buffer + HEAD. */
static size_t encode(struct fixture *fixture)
{
	ssize_t length = sampler_wire_encode(&fixture->sample, &fixture->buffer, &fixture->buffer_size);
	assert_true(length > (ssize_t)HEAD && (size_t)length <= fixture->buffer_size);
	uint32_t head;
	memcpy(&head, fixture->buffer, sizeof(head));
	assert_int_equal(head, length - (ssize_t)HEAD);
	return head;
}

static int decode(struct fixture *fixture, size_t length)
{
	gpu_sample_finish(&fixture->decoded);
	CLEANUP_FREE uint8_t *copy = malloc(length > 0 ? length : 1); /* so that a sanitizer sees a read beyond it */
	assert_non_null(copy);
	memcpy(copy, fixture->buffer + HEAD, length);
	return sampler_wire_decode(copy, length, &fixture->decoded);
}

static void test_there_and_back(void **state)
{
	struct fixture *fixture = *state;
	fill(&fixture->sample);
	assert_int_equal(decode(fixture, encode(fixture)), 0);
	expect_equal(&fixture->sample, &fixture->decoded);
}

static void test_an_empty_sample(void **state)
{
	struct fixture *fixture = *state;
	fixture->sample.taken_ms = 1;
	memset(fixture->sample.problem, 'x', sizeof(fixture->sample.problem) - 1);
	assert_int_equal(decode(fixture, encode(fixture)), 0);
	expect_equal(&fixture->sample, &fixture->decoded);
}

static void test_the_largest_sample(void **state)
{
	struct fixture *fixture = *state;
	fixture->sample.n_gpus = GPU_MAX;
	memset(fixture->sample.problem, 'p', sizeof(fixture->sample.problem) - 1);
	for (unsigned i = 0; i < GPU_MAX; i++) {
		struct gpu_reading *reading = &fixture->sample.gpus[i];
		memset(reading->uuid, 'u', sizeof(reading->uuid) - 1);
		memset(reading->name, 'n', sizeof(reading->name) - 1);
		memset(reading->problem, 'p', sizeof(reading->problem) - 1);
		add_processes(reading, SAMPLER_WIRE_PROCESSES_MAX / GPU_MAX);
		for (size_t k = 0; k < reading->n_processes; k++)
			memset(reading->processes[k].name, 'c', sizeof(reading->processes[k].name) - 1);
		reading->valid = GPU_VALID_PROCESSES;
	}
	size_t length = encode(fixture);
	assert_true(length <= SAMPLER_WIRE_FRAME_MAX);
	assert_int_equal(decode(fixture, length), 0);
	expect_equal(&fixture->sample, &fixture->decoded);
}

static void test_too_many_processes_are_no_list_at_all(void **state)
{
	struct fixture *fixture = *state;
	fixture->sample.n_gpus = 2;
	fixture->sample.gpus[0].valid = GPU_VALID_USED | GPU_VALID_PROCESSES;
	fixture->sample.gpus[0].used_mib = 77;
	add_processes(&fixture->sample.gpus[0], 50000);
	fixture->sample.gpus[1].valid = GPU_VALID_PROCESSES;
	add_processes(&fixture->sample.gpus[1], 3);
	assert_int_equal(decode(fixture, encode(fixture)), 0);
	assert_int_equal(fixture->decoded.gpus[0].valid, GPU_VALID_USED);
	assert_int_equal(fixture->decoded.gpus[0].used_mib, 77);
	assert_int_equal(fixture->decoded.gpus[0].n_processes, 0);
	assert_string_equal(fixture->decoded.gpus[0].problem, "too many processes to list");
	assert_int_equal(fixture->decoded.gpus[1].valid, GPU_VALID_PROCESSES);
	assert_int_equal(fixture->decoded.gpus[1].n_processes, 3);
}

static void test_text_is_cleaned(void **state)
{
	struct fixture *fixture = *state;
	static const struct {
		const char *before, *after;
	} texts[] = {
		{ "plain", "plain" }, { "a\nb\tc\x1b[31m\x7f", "a?b?c?[31m?" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x8e\x89", "\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x8e\x89" },
		{ "cut \xe4\xb8", "cut ??" }, /* the kernel cuts names at 15 bytes */
		{ "\xc0\xaf\xff\xfe", "????" }, { "\xed\xa0\x80", "???" }, /* a surrogate */
		{ "\xf4\x90\x80\x80", "????" }, { "\xc2\x85", "??" }, /* a control character in two bytes */
	};
	fixture->sample.n_gpus = 1;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		snprintf(fixture->sample.gpus[0].name, 64, "%s", texts[i].before);
		assert_int_equal(decode(fixture, encode(fixture)), 0);
		assert_string_equal(fixture->decoded.gpus[0].name, texts[i].after);
	}
}

static void test_each_cut_and_each_surplus_is_refused(void **state)
{
	struct fixture *fixture = *state;
	fill(&fixture->sample);
	size_t length = encode(fixture);
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(decode(fixture, cut), -EBADMSG);
	assert_true(fixture->buffer_size > HEAD + length);
	assert_int_equal(decode(fixture, length + 1), -EBADMSG);
	assert_int_equal(fixture->decoded.n_gpus, 0);
}

/* What a sample may never be, whatever came in. */
static void expect_sane(const struct gpu_sample *sample)
{
	assert_true(sample->n_gpus <= GPU_MAX);
	assert_non_null(memchr(sample->problem, 0, sizeof(sample->problem)));
	for (unsigned i = 0; i < sample->n_gpus; i++) {
		const struct gpu_reading *reading = &sample->gpus[i];
		assert_true(reading->utilization_percent <= 100);
		assert_true(reading->temperature_c >= -273 && reading->temperature_c <= 1000);
		assert_non_null(memchr(reading->name, 0, sizeof(reading->name)));
		assert_non_null(memchr(reading->uuid, 0, sizeof(reading->uuid)));
		assert_non_null(memchr(reading->problem, 0, sizeof(reading->problem)));
		for (size_t k = 0; k < reading->n_processes; k++) {
			assert_true(reading->processes[k].pid > 0);
			assert_non_null(memchr(reading->processes[k].name, 0, 64));
			if (reading->valid & GPU_VALID_PROCESSES)
				assert_int_not_equal(reading->processes[k].mib, GPU_MIB_UNKNOWN);
		}
		assert_true(reading->n_migs <= GPU_MIG_MAX);
		for (size_t k = 0; k < reading->n_migs; k++) {
			assert_non_null(memchr(reading->migs[k].uuid, 0, 64));
			assert_non_null(memchr(reading->migs[k].name, 0, 64));
		}
	}
}

static void test_random_damage(void **state)
{
	struct fixture *fixture = *state;
	fill(&fixture->sample);
	size_t length = encode(fixture);
	CLEANUP_FREE uint8_t *good = malloc(length);
	assert_non_null(good);
	memcpy(good, fixture->buffer + HEAD, length);
	unsigned seed = 20240607, n_refused = 0;
	for (int round = 0; round < 100000; round++) {
		memcpy(fixture->buffer + HEAD, good, length);
		int n = 1 + rand_r(&seed) % 4;
		for (int i = 0; i < n; i++) {
			static const uint8_t favourites[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
			uint8_t byte = rand_r(&seed) % 2 ? favourites[rand_r(&seed) % 5] : (uint8_t)rand_r(&seed);
			fixture->buffer[HEAD + (size_t)rand_r(&seed) % length] = byte;
		}
		int r = decode(fixture, length - (rand_r(&seed) % 8 == 0 ? (size_t)rand_r(&seed) % length : 0));
		assert_true(r == 0 || r == -EBADMSG);
		n_refused += r != 0;
		if (r == 0)
			expect_sane(&fixture->decoded);
		else
			assert_int_equal(fixture->decoded.n_gpus, 0);
	}
	assert_true(n_refused > 10000);
}

static void test_pure_noise(void **state)
{
	struct fixture *fixture = *state;
	encode(fixture);
	unsigned seed = 7;
	for (int round = 0; round < 20000; round++) {
		size_t length = (size_t)rand_r(&seed) % (fixture->buffer_size - HEAD);
		for (size_t i = 0; i < length; i++)
			fixture->buffer[HEAD + i] = (uint8_t)rand_r(&seed);
		assert_int_equal(decode(fixture, length), -EBADMSG);
	}
}

/* A frame of one GPU with one field overwritten. */
static int decode_with(struct fixture *fixture, size_t offset, uint32_t value)
{
	fixture->sample.n_gpus = 1;
	fixture->sample.gpus[0].valid = 0x7f;
	if (fixture->sample.gpus[0].processes == NULL) {
		add_processes(&fixture->sample.gpus[0], 1);
		memset(fixture->sample.gpus[0].processes[0].name, 0, 64);
		add_migs(&fixture->sample.gpus[0], 1);
	}
	size_t length = encode(fixture);
	memcpy(fixture->buffer + HEAD + offset, &value, sizeof(value));
	return decode(fixture, length);
}

static void test_each_field_has_its_range(void **state)
{
	/* magic, time, an empty problem, the number of GPUs; then the reading */
	enum { MAGIC = 0, N_GPUS = 16, READING = 20 };
	static const struct {
		size_t offset;
		uint32_t good, bad;
	} fields[] = {
		{ N_GPUS, 1, GPU_MAX + 1 },
		{ N_GPUS, 1, UINT32_MAX },
		{ READING, 0x7f, 0xff },
		{ READING + 4, UINT32_MAX - 1, UINT32_MAX },
		{ READING + 8, UINT32_MAX - 1, UINT32_MAX },
		{ READING + 12, UINT32_MAX - 1, UINT32_MAX },
		{ READING + 16, UINT32_MAX - 1, UINT32_MAX },
		{ READING + 20, 1000, 1001 },
		{ READING + 20, (uint32_t)-273, (uint32_t)-274 },
		{ READING + 24, 100, 101 },
		{ READING + 40, 1, SAMPLER_WIRE_PROCESSES_MAX + 1 },
		{ READING + 40, 1, UINT32_MAX },
		{ READING + 44, 1, 0 }, /* pid */
		{ READING + 44, INT32_MAX, (uint32_t)INT32_MAX + 1 },
		{ READING + 48, UINT32_MAX - 1, UINT32_MAX }, /* its amount */
		{ READING + 56, 1, GPU_MIG_MAX + 1 },
		{ READING + 60, 1, 2 }, /* whether a part's memory is known */
		{ READING + 64, UINT32_MAX - 1, UINT32_MAX },
		{ READING + 68, UINT32_MAX - 1, UINT32_MAX },
	};
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		assert_int_equal(decode_with(*state, fields[i].offset, fields[i].good), 0);
		assert_int_equal(decode_with(*state, fields[i].offset, fields[i].bad), -EBADMSG);
	}
	assert_int_equal(decode_with(*state, MAGIC, 0), -EBADMSG);
}

static void test_frames_come_out_of_any_pieces(void **state)
{
	struct fixture *fixture = *state;
	struct sampler_stream stream = { 0 };
	fill(&fixture->sample);
	size_t length = HEAD + encode(fixture);
	for (size_t piece = 1; piece <= length; piece += 7) {
		unsigned n_frames = 0;
		for (size_t at = 0; at < 3 * length;) {
			size_t n = piece < 3 * length - at ? piece : 3 * length - at;
			for (size_t i = 0; i < n; i++)
				assert_int_equal(
					sampler_stream_append(&stream, &fixture->buffer[(at + i) % length], 1), 0);
			at += n;
			const uint8_t *bytes;
			size_t size;
			while (sampler_stream_next(&stream, &bytes, &size) == 1) {
				n_frames++;
				gpu_sample_finish(&fixture->decoded);
				assert_int_equal(sampler_wire_decode(bytes, size, &fixture->decoded), 0);
				expect_equal(&fixture->sample, &fixture->decoded);
			}
		}
		assert_int_equal(n_frames, 3);
	}
	sampler_stream_finish(&stream);
}

static void test_a_length_beyond_bounds_ends_the_stream(void **state)
{
	(void)state;
	static const uint32_t lengths[] = { 0, SAMPLER_WIRE_FRAME_MAX + 1, INT32_MAX, UINT32_MAX };
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct sampler_stream stream = { 0 };
		const uint8_t *bytes;
		size_t size;
		assert_int_equal(sampler_stream_append(&stream, NULL, 0), 0);
		assert_int_equal(sampler_stream_append(&stream, (const uint8_t *)&lengths[i], 4), 0);
		assert_int_equal(sampler_stream_next(&stream, &bytes, &size), -EBADMSG);
		sampler_stream_finish(&stream);
	}
}

static int count(char **argv)
{
	int n = 0;
	while (argv[n] != NULL)
		n++;
	return n;
}

static void test_the_command_line_there_and_back(void **state)
{
	(void)state;
	uint32_t sizes[GPU_MAX];
	for (unsigned i = 0; i < GPU_MAX; i++)
		sizes[i] = UINT32_MAX - 1 - i;
	static char dir[] = "/a folder/with; odd $names";
	struct gpu_config config = {
		.backend = GPU_BACKEND_SIM, .sim_dir = dir, .n_sim_gpus = GPU_MAX, .sim_gpus_mib = sizes
	};
	CLEANUP_FREE char **argv = sampler_arguments_make(4242, 5, &config);
	assert_non_null(argv);
	struct sampler_arguments arguments;
	assert_int_equal(sampler_arguments_parse(count(argv), argv, &arguments), 0);
	assert_int_equal(arguments.parent, 4242);
	assert_int_equal(arguments.interval_ms, 5);
	assert_int_equal(arguments.reopen_ms, 0);
	assert_int_equal(arguments.config.backend, GPU_BACKEND_SIM);
	assert_string_equal(arguments.config.sim_dir, dir);
	assert_int_equal(arguments.config.n_sim_gpus, GPU_MAX);
	assert_memory_equal(arguments.config.sim_gpus_mib, sizes, sizeof(sizes));

	struct gpu_config none = { .backend = GPU_BACKEND_AUTO };
	CLEANUP_FREE char **bare = sampler_arguments_make(1, SAMPLER_INTERVAL_MOST_MS, &none);
	assert_non_null(bare);
	assert_int_equal(sampler_arguments_parse(count(bare), bare, &arguments), 0);
	assert_null(arguments.config.sim_dir);
	assert_int_equal(arguments.config.backend, GPU_BACKEND_AUTO);

	config.n_sim_gpus = GPU_MAX + 1;
	assert_null(sampler_arguments_make(1, 1, &config));
}

static void test_a_wrong_command_line(void **state)
{
	(void)state;
	static char *lines[][9] = {
		{ "x", SAMPLER_ARGUMENT },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "0" },
		{ "x", "--other", "1", "5", "0", "sim" },
		{ "x", SAMPLER_ARGUMENT, "-1", "5", "0", "sim" },
		{ "x", SAMPLER_ARGUMENT, "1", "0", "0", "sim" },
		{ "x", SAMPLER_ARGUMENT, "1", "5000000000", "0", "sim" },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "5000000000", "sim" },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "-1", "sim" },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "0", "voodoo" },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "0", "sim", "/d", "24GiB" },
		{ "x", SAMPLER_ARGUMENT, "1", "5", "0", "sim", "/d", "4294967295" },
	};
	struct sampler_arguments arguments;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_int_equal(sampler_arguments_parse(count(lines[i]), lines[i], &arguments), -EINVAL);
	char *many[7 + GPU_MAX + 2] = { "x", SAMPLER_ARGUMENT, "1", "5", "0", "sim", "/d" };
	for (size_t i = 0; i <= GPU_MAX; i++)
		many[7 + i] = "1";
	assert_int_equal(sampler_arguments_parse(count(many), many, &arguments), -EINVAL);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_there_and_back),
		TEST(test_an_empty_sample),
		TEST(test_the_largest_sample),
		TEST(test_too_many_processes_are_no_list_at_all),
		TEST(test_text_is_cleaned),
		TEST(test_each_cut_and_each_surplus_is_refused),
		TEST(test_random_damage),
		TEST(test_pure_noise),
		TEST(test_each_field_has_its_range),
		TEST(test_frames_come_out_of_any_pieces),
		TEST(test_a_length_beyond_bounds_ends_the_stream),
		TEST(test_the_command_line_there_and_back),
		TEST(test_a_wrong_command_line),
	};
	return cmocka_run_group_tests_name("gpu/wire", tests, NULL, NULL);
}
