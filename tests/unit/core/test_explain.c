/* Words: never more than the buffer holds, always ended, and the things that a reader needs are in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "core/explain.h"

#define LONG_NAME "a-service-with-a-name-of-sixty-three-characters-which-is-the-most0"

static const struct service_definition services[] = {
	{ .name = "comfyui", .vram = { .mib = 20000 }, .priority = 100, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "cosyvoice", .vram = { .mib = 4000 }, .priority = 50, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = LONG_NAME, .vram = { .mib = 4000 }, .priority = 50, .allowed = GPU_SET_ALL, .gpu_count = 2 },
};
static const size_t phase_needs[] = { 0 };
static const struct phase_definition phases[] = {
	{ .number = 4, .name = "video", .services = phase_needs, .n_services = 1 },
	{ .number = 5 },
};
static const struct explain_names names = {
	.n_services = ARRAY_SIZE(services), .services = services, .n_phases = ARRAY_SIZE(phases), .phases = phases
};

static const struct request_spec specs[] = {
	{ .kind = REQUEST_PHASE, .target = 0 },
	{ .kind = REQUEST_PHASE, .target = 1 },
	{ .kind = REQUEST_START, .target = 0 },
	{ .kind = REQUEST_START, .target = 2 },
	{ .kind = REQUEST_STOP, .target = 1, .force = true },
	{ .kind = REQUEST_RESTART, .target = 1 },
	{ .kind = REQUEST_RELEASE_ALL },
};

static struct plan_step steps[] = {
	{ .action = PLAN_STOP, .reason = PLAN_MAKES_ROOM, .service = 1, .gpus = GPU_BIT(0), .mib = 4000 },
	{ .action = PLAN_STOP, .reason = PLAN_BROKEN, .service = 1, .gpus = GPU_BIT(0), .mib = 4000 },
	{ .action = PLAN_STOP, .reason = PLAN_YIELDS, .service = 2, .gpus = GPU_SET_ALL, .mib = UINT32_MAX },
	{ .action = PLAN_STOP, .reason = PLAN_RESTART, .service = 1, .gpus = GPU_BIT(0), .mib = 4000 },
	{ .action = PLAN_STOP, .reason = PLAN_ASKED, .service = 1, .gpus = GPU_BIT(63), .mib = 0 },
	{ .action = PLAN_SLEEP, .reason = PLAN_MAKES_ROOM, .service = 1, .gpus = GPU_BIT(0), .mib = 4000 },
	{ .action = PLAN_START, .reason = PLAN_NEEDED, .service = 0, .gpus = GPU_BIT(0) | GPU_BIT(1), .mib = 20000 },
};

static struct plan_blocker blockers[] = {
	{ .reason = BLOCKED_BY_PRIORITY, .service = 0, .gpu = 0, .mib = 20000, .priority = 100 },
	{ .reason = BLOCKED_BY_PIN, .service = 1, .gpu = 0, .mib = 4000, .priority = 50 },
	{ .reason = BLOCKED_BY_USE, .service = 1, .gpu = 0, .mib = 4000, .priority = 50 },
	{ .reason = BLOCKED_BY_NEED, .service = 2, .gpu = 0, .mib = UINT32_MAX, .priority = INT32_MIN },
	{ .reason = BLOCKED_BY_TRANSITION, .service = 1, .gpu = 0, .mib = 4000, .priority = 50 },
	{ .reason = BLOCKED_BY_FOREIGN, .service = PLAN_NO_SERVICE, .gpu = 0, .mib = 1500 },
	{ .reason = BLOCKED_BY_UNRECLAIMED, .service = PLAN_NO_SERVICE, .gpu = 0, .mib = 700 },
	{ .reason = BLOCKED_BY_RESERVE, .service = PLAN_NO_SERVICE, .gpu = 0, .mib = 1024 },
	{ .reason = BLOCKED_BY_SIZE, .service = PLAN_NO_SERVICE, .gpu = -1, .mib = 24576 },
	{ .reason = BLOCKED_BY_NO_TOTAL, .service = PLAN_NO_SERVICE, .gpu = 1 },
	{ .reason = BLOCKED_BY_NO_GPU, .service = PLAN_NO_SERVICE, .gpu = -1 },
};

static const struct plan plan_ok = { .n_steps = ARRAY_SIZE(steps), .steps = steps, .gpus = GPU_SET_ALL };
static const struct plan plan_empty = { 0 };
static const struct plan plan_refused = {
	.n_blockers = ARRAY_SIZE(blockers),
	.blockers = blockers,
	.needed_service = 0,
	.needed_mib = 20000,
	.best_mib = -300,
};

/* One function call per number; returns what it returned, or NULL when there is no such number. */
static const char *explain_nth(size_t n, char *buffer, size_t size)
{
	if (n < ARRAY_SIZE(specs))
		return explain_request(&names, &specs[n], buffer, size);
	n -= ARRAY_SIZE(specs);
	if (n < ARRAY_SIZE(steps))
		return explain_step(&names, &steps[n], buffer, size);
	n -= ARRAY_SIZE(steps);
	if (n < ARRAY_SIZE(blockers))
		return explain_blocker(&names, &specs[2], &blockers[n], buffer, size);
	n -= ARRAY_SIZE(blockers);
	if (n < ARRAY_SIZE(specs))
		return explain_plan(&names, &specs[n], &plan_ok, buffer, size);
	n -= ARRAY_SIZE(specs);
	if (n < ARRAY_SIZE(specs))
		return explain_refusal(&names, &specs[n], &plan_refused, buffer, size);
	n -= ARRAY_SIZE(specs);
	if (n == 0)
		return explain_plan(&names, &specs[0], &plan_empty, buffer, size);
	if (n == 1)
		return explain_gpus(GPU_SET_ALL, buffer, size);
	if (n == 2)
		return explain_gpus(0, buffer, size);
	return NULL;
}

/* Whatever the size: nothing behind it is touched, the text is ended, and it is the beginning of the whole. */
static void test_never_overflow(void **state)
{
	char whole[8192], buffer[8192 + 16];

	(void)state;
	for (size_t n = 0; explain_nth(n, whole, sizeof(whole)) != NULL; n++) {
		size_t length = strlen(whole);

		assert_true(length < sizeof(whole) - 1);
		for (size_t size = 1; size <= length + 2; size++) {
			memset(buffer, 0x7f, sizeof(buffer));
			assert_ptr_equal(explain_nth(n, buffer, size), buffer);
			assert_non_null(memchr(buffer, 0, size));
			assert_int_equal(strncmp(buffer, whole, strlen(buffer)), 0);
			for (size_t i = size; i < size + 16; i++)
				assert_int_equal(buffer[i], 0x7f);
		}
	}
}

/* Plans and refusals of the longest names and largest numbers that there can be are still sentences. */
static void test_says_something(void **state)
{
	char whole[8192];

	(void)state;
	for (size_t n = 0; explain_nth(n, whole, sizeof(whole)) != NULL; n++) {
		for (size_t i = 0; i < strlen(whole); i++)
			assert_true(whole[i] == '\n' || (unsigned char)whole[i] >= ' ');
		assert_null(strstr(whole, "(null)"));
		assert_null(strstr(whole, "18446744073709551615"));
	}
}

static void test_requests(void **state)
{
	char text[256];

	(void)state;
	assert_string_equal(explain_request(&names, &specs[0], text, sizeof(text)), "phase 4 (video)");
	assert_string_equal(explain_request(&names, &specs[1], text, sizeof(text)), "phase 5");
	assert_string_equal(explain_request(&names, &specs[2], text, sizeof(text)), "start comfyui");
	assert_string_equal(explain_request(&names, &specs[6], text, sizeof(text)), "release-all");
	assert_string_equal(explain_gpus(GPU_BIT(0), text, sizeof(text)), "gpu0");
	assert_string_equal(explain_gpus(GPU_BIT(0) | GPU_BIT(1), text, sizeof(text)), "gpu0+gpu1");
}

static void test_empty_plan(void **state)
{
	char text[256];

	(void)state;
	assert_non_null(strstr(explain_plan(&names, &specs[0], &plan_empty, text, sizeof(text)), "nothing to do"));
}

/* A refusal lists every blocker with its MiB, and says what was needed. */
static void test_refusal_is_complete(void **state)
{
	static const char *const wanted[] = { "comfyui", "20000 MiB", "cosyvoice", "4000 MiB", "1500 MiB", "700 MiB",
		"priority", "Nothing was evicted", "gpu.gpus" };
	char text[8192];

	(void)state;
	explain_refusal(&names, &specs[2], &plan_refused, text, sizeof(text));
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		if (strstr(text, wanted[i]) == NULL)
			fail_msg("\"%s\" is not in: %s", wanted[i], text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_never_overflow),
		cmocka_unit_test(test_says_something),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_empty_plan),
		cmocka_unit_test(test_refusal_is_complete),
	};

	return cmocka_run_group_tests_name("core/explain", tests, NULL, NULL);
}
