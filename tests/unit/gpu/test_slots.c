/* The places of GPUs from sample to sample, and what is told of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "gpu/sampler_news.h"
#include "gpu/sampler_slots.h"

struct fixture {
	struct sampler_slots slots;
	struct sampler_news news;
	struct gpu_sample sample;
	char text[SAMPLER_NEWS_SIZE];
	bool is_problem;
};

static int set_up(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return *state == NULL;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

/* A sample of GPUs by letter; '-' is one that does not say which it is. Then where they are, '.' for a place that is
 * empty. */
static const char *arrange(struct fixture *fixture, const char *gpus, const char *problem)
{
	static char places[GPU_MAX + 1];
	memset(&fixture->sample, 0, sizeof(fixture->sample));
	memset(places, 0, sizeof(places));
	snprintf(fixture->sample.problem, sizeof(fixture->sample.problem), "%s", problem);
	fixture->sample.n_gpus = (unsigned)strlen(gpus);
	for (size_t i = 0; gpus[i] != '\0'; i++) {
		struct gpu_reading *reading = &fixture->sample.gpus[i];
		reading->valid = GPU_VALID_USED;
		reading->used_mib = (uint32_t)(gpus[i] - '0' + 1);
		if (gpus[i] != '-')
			snprintf(reading->uuid, sizeof(reading->uuid), "GPU-%c", gpus[i]);
	}
	sampler_slots_arrange(&fixture->slots, &fixture->sample);
	for (unsigned i = 0; i < fixture->sample.n_gpus; i++) {
		const struct gpu_reading *reading = &fixture->sample.gpus[i];
		places[i] = '.';
		if (reading->valid != 0)
			places[i] = reading->used_mib > 1000 ? '-' : (char)('0' - 1 + (int)reading->used_mib);
		else
			assert_string_not_equal(reading->problem, "");
	}
	return places;
}

static void test_each_gpu_keeps_its_number(void **state)
{
	static const struct {
		const char *sample, *places;
	} steps[] = {
		{ "", "" },
		{ "ABC", "ABC" },
		{ "AC", "A.C" },
		{ "CA", "A.C" },
		{ "C", "..C" },
		{ "BC", ".BC" },
		{ "A-C", "A-C" },
		{ "-BC", "-BC" },
		{ "AD", "A..D" },
		{ "DCBA", "ABCD" },
		{ "E", "....E" },
		{ "", "....." },
		{ "ABCDE", "ABCDE" },
	};
	struct fixture *fixture = *state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		assert_string_equal(arrange(fixture, steps[i].sample, ""), steps[i].places);
	arrange(fixture, "A", "");
	assert_string_equal(fixture->sample.gpus[3].uuid, "GPU-D"); /* configurations name GPUs by UUID */
	assert_non_null(strstr(fixture->sample.gpus[3].problem, "fell off the bus"));
}

static void test_a_gpu_that_says_later_who_it_is(void **state)
{
	assert_string_equal(arrange(*state, "A-C", ""), "A-C");
	assert_string_equal(arrange(*state, "AC", ""), "A.C");
	assert_string_equal(arrange(*state, "ABC", ""), "ABC");
	assert_string_equal(arrange(*state, "BAC", ""), "ABC");
}

static void test_no_readings_at_all(void **state)
{
	struct fixture *fixture = *state;
	assert_string_equal(arrange(fixture, "", "no driver"), "");
	arrange(fixture, "AB", "");
	assert_string_equal(arrange(fixture, "", "no driver"), "..");
	assert_string_equal(fixture->sample.gpus[1].uuid, "GPU-B");
	assert_string_equal(fixture->sample.gpus[1].problem, "no driver");
}

static void test_more_gpus_than_places(void **state)
{
	struct fixture *fixture = *state;
	char gpus[GPU_MAX + 1] = "";
	for (int i = 0; i < GPU_MAX; i++)
		gpus[i] = (char)('0' + i);
	assert_string_equal(arrange(fixture, gpus, ""), gpus);
	gpus[3] = (char)('0' + GPU_MAX); /* another card in its place, and nowhere else to go */
	assert_string_equal(arrange(fixture, gpus, ""), gpus);
	assert_string_equal(
		arrange(fixture, "0-", ""), "0-..............................................................");
}

static bool next(struct fixture *fixture, uint64_t now_ms)
{
	return sampler_news_next(&fixture->news, &fixture->sample, now_ms, &fixture->is_problem, fixture->text);
}

static void set_problem(struct fixture *fixture, unsigned gpu, const char *problem)
{
	snprintf(fixture->sample.gpus[gpu].problem, sizeof(fixture->sample.gpus[gpu].problem), "%s", problem);
}

static void test_trouble_is_told_once(void **state)
{
	struct fixture *fixture = *state;
	arrange(fixture, "AB", "");
	assert_false(next(fixture, 1000));
	set_problem(fixture, 1, "lost");
	assert_true(next(fixture, 1005));
	assert_true(fixture->is_problem);
	assert_string_equal(fixture->text, "gpu1 (GPU-B): lost");
	assert_false(next(fixture, 1010));
	set_problem(fixture, 1, ""); /* it comes and goes */
	assert_false(next(fixture, 1015));
	set_problem(fixture, 1, "lost");
	assert_false(next(fixture, 1020));
	set_problem(fixture, 1, "");
	assert_false(next(fixture, 1025));
	assert_true(next(fixture, 9000));
	assert_false(fixture->is_problem);
	assert_string_equal(fixture->text, "gpu1 (GPU-B): well again");
	assert_false(next(fixture, 9005));
	set_problem(fixture, 1, "lost");
	assert_true(next(fixture, 9010));
	set_problem(fixture, 1, "needs a reset");
	assert_true(next(fixture, 9015));
}

static void test_what_is_wrong_with_all_is_told_once_for_all(void **state)
{
	struct fixture *fixture = *state;
	arrange(fixture, "AB", "");
	arrange(fixture, "", "no driver");
	assert_true(next(fixture, 1000));
	assert_string_equal(fixture->text, "GPU readings: no driver");
	assert_false(next(fixture, 1005));
	arrange(fixture, "AB", "");
	assert_false(next(fixture, 1010));
	assert_true(next(fixture, 4000));
	assert_string_equal(fixture->text, "GPU readings: well again");
	assert_false(next(fixture, 4005));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_gpu_keeps_its_number),
		TEST(test_a_gpu_that_says_later_who_it_is),
		TEST(test_no_readings_at_all),
		TEST(test_more_gpus_than_places),
		TEST(test_trouble_is_told_once),
		TEST(test_what_is_wrong_with_all_is_told_once_for_all),
	};
	return cmocka_run_group_tests_name("gpu/slots", tests, NULL, NULL);
}
