/* Containers in a well-behaved engine: life, names, what happens behind our back, health, output. */
#include "container_bench.h"

#include "base/cleanup.h"

static void adopt(struct container_bench *on)
{
	struct bench *bench = on->bench;
	bench_find(bench, false);
	assert_true(bench->alive);
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
}

static void test_life(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	bench_find(bench, true);
	assert_false(bench->alive);
	bench_start(bench);
	assert_int_equal(bench->pid, on->box->pid);
	assert_string_equal(on->engine->last_version, "1.43");
	bench_find(bench, false);
	assert_true(bench->alive && !bench->external);
	bench->service->ops->stop(bench->service, false);
	bench->service->ops->stop(bench->service, false);
	bench_wait(bench, &bench->gone, 1);
	assert_string_equal(bench->order, "FSFG");
	assert_int_equal(on->box->n_stops, 1);
	assert_int_equal(on->box->n_kills, 0);
	assert_int_equal(fake_engine_count(on->engine, "/stop?t=90"), 1); /* the caller's patience and a minute */
	bench_find(bench, false);
	assert_false(bench->alive);
	bench_start(bench);
	bench_stop(bench, true);
	assert_int_equal(on->box->n_kills, 1);
	assert_int_equal(on->box->n_starts, 2);
	/* What is over stays over. */
	bench->service->ops->stop(bench->service, true);
	container_idle(on, 50);
	assert_int_equal(bench->gone, 2);
	assert_int_equal(on->box->n_kills, 1);
}

static void test_force_after_patience(void **state)
{
	struct container_bench *on = *state;
	on->box->ignores_stop = true;
	bench_start(on->bench);
	on->bench->service->ops->stop(on->bench->service, false);
	container_wait_requests(on, "/stop?t=", 1);
	container_idle(on, 50);
	assert_int_equal(on->bench->gone, 0);
	bench_stop(on->bench, true);
	assert_int_equal(on->box->n_kills, 1);
}

static void test_crash(void **state)
{
	static const char words[] = "\1\0\0\0\0\0\0\6hello\n\2\0\0\0\0\0\0\7CUDA...";
	struct container_bench *on = *state;
	on->box->output = words;
	on->box->output_length = sizeof(words) - 1;
	bench_start(on->bench);
	fake_engine_end(on->engine, on->box, 139);
	bench_wait(on->bench, &on->bench->gone, 1);
	assert_string_equal(on->bench->text, "exited with status 139 (SIGSEGV); its log ends with:\nhello\nCUDA...");
	on->box->ends_at_once = true;
	on->box->exit_code = 3;
	bench_start(on->bench);
	container_wait_text(on, &on->bench->gone, "exited with status 3");
	assert_string_equal(on->bench->order, "SGSG");
}

static void test_missing(void **state)
{
	struct container_bench *on = *state;
	on->box->id[0] = '\0';
	bench_find(on->bench, false);
	assert_false(on->bench->alive);
	bench_start_fails(on->bench, "docker: container \"box\" does not exist; create it with: docker -H unix://");
	assert_int_equal(on->bench->failure, DRIVER_NOT_FOUND);
	assert_non_null(strstr(on->bench->text, "create --name box"));
	/* Made, and seen without being asked to look; it does not run. */
	on->box = fake_engine_add(on->engine, "box");
	bench_start(on->bench);
	fake_engine_remove(on->engine, on->box);
	bench_wait(on->bench, &on->bench->gone, 1);
}

/* An engine takes the beginning of an id for a name. */
static void test_beginning_of_an_id(void **state)
{
	struct container_bench *on = *state;
	snprintf(on->box->name, sizeof(on->box->name), "other");
	snprintf(on->box->id, 5, "b0b0");
	on->box->id[4] = '0';
	on->bench->config.container.name = (char *)"b0b0";
	fake_engine_start(on->engine, on->box);
	bench_find(on->bench, false);
	assert_false(on->bench->alive);
	bench_start_fails(on->bench, "container \"b0b0\" does not exist");
}

static void use_compose(struct container_bench *on)
{
	on->bench->config.container.name = NULL;
	on->bench->config.container.compose_project = (char *)"shop";
	on->bench->config.container.compose_service = (char *)"tts";
	on->box->project = "shop";
	on->box->service = "tts";
}

static void test_compose(void **state)
{
	struct container_bench *on = *state;
	use_compose(on);
	fake_engine_remove(on->engine, on->box);
	bench_start_fails(on->bench, "compose -p shop up --no-start tts");
	assert_int_equal(on->bench->failure, DRIVER_NOT_FOUND);
	fake_engine_add(on->engine, "in the way");
	on->box = fake_engine_add(on->engine, "shop-tts-1");
	use_compose(on);
	bench_start(on->bench);
	assert_int_equal(on->bench->pid, on->box->pid);
	bench_stop(on->bench, false);
}

static void test_compose_several(void **state)
{
	struct container_bench *on = *state;
	struct fake_container *two = fake_engine_add(on->engine, "shop-tts-2");
	use_compose(on);
	two->project = "shop";
	two->service = "tts";
	bench_start_fails(on->bench, "has 2 containers (box, shop-tts-2)");
	assert_int_equal(on->bench->failure, DRIVER_FAILED);
	/* Made anew by Compose: the old one until it has ended, then the new one. */
	two->replaces = on->box->id;
	fake_engine_start(on->engine, on->box);
	bench_find(on->bench, false);
	assert_true(on->bench->alive);
	assert_int_equal(on->bench->found_pid, on->box->pid);
	fake_engine_end(on->engine, on->box, 0);
	bench_start(on->bench);
	assert_int_equal(on->bench->pid, two->pid);
	bench_stop(on->bench, false);
	two->replaces = NULL;
	snprintf(on->box->name, sizeof(on->box->name), "0123456789ab_shop-tts-2");
	bench_start(on->bench);
	assert_int_equal(on->bench->pid, two->pid);
	bench_stop(on->bench, false);
}

static void test_started_by_somebody_else(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	bench_find(bench, false);
	fake_engine_start(on->engine, on->box);
	bench_wait(bench, &bench->changed, 1);
	bench_find(bench, false);
	assert_true(bench->alive && bench->external);
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	/* Told once, whatever else is told of it. */
	fake_engine_event(on->engine, on->box, "rename");
	container_idle(on, 50);
	assert_int_equal(bench->changed, 1);
	fake_engine_end(on->engine, on->box, 0);
	bench_wait(bench, &bench->gone, 1);
	fake_engine_start(on->engine, on->box);
	bench_wait(bench, &bench->changed, 2);
	bench_find(bench, false);
	assert_true(bench->external);
}

static void test_ran_before_the_daemon(void **state)
{
	struct container_bench *on = *state;
	fake_engine_start(on->engine, on->box);
	adopt(on);
	assert_false(on->bench->external);
	bench_stop(on->bench, false);
	/* And after its restart. */
	bench_start(on->bench);
	bench_create(on->bench);
	adopt(on);
	assert_false(on->bench->external);
	bench_stop(on->bench, true);
}

/* What an earlier daemon had begun to stop is known by its life: one that was started since is not meant. */
static void test_a_stop_that_was_begun(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	on->box->ignores_stop = true;
	bench_start(bench);
	bench_create(bench);
	bench_find(bench, false);
	assert_true(bench->alive && !bench->stopping);
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	bench->service->ops->stop(bench->service, false);
	container_wait_requests(on, "/stop?", 1);
	bench_create(bench);
	bench_find(bench, false);
	assert_true(bench->alive && bench->stopping && !bench->external);
	/* Nor does it forget when it dies before it has gone on with that. */
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	container_idle(on, 20);
	bench_create(bench);
	bench_find(bench, false);
	assert_true(bench->stopping);
	fake_engine_end(on->engine, on->box, 137);
	fake_engine_start(on->engine, on->box);
	bench_find(bench, false);
	assert_true(bench->alive && !bench->stopping);
}

static void test_gone_before_it_was_adopted(void **state)
{
	struct container_bench *on = *state;
	fake_engine_start(on->engine, on->box);
	bench_find(on->bench, false);
	fake_engine_end(on->engine, on->box, 1);
	on->bench->service->ops->adopt(on->bench->service, ++on->bench->run, on->bench->found_pid);
	bench_wait(on->bench, &on->bench->gone, 1);
}

/* Two lives so close that no look fell between them. */
static void test_started_again_at_once(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	fake_engine_end(on->engine, on->box, 0);
	fake_engine_start(on->engine, on->box);
	container_wait_text(on, &on->bench->gone, "was started again");
	bench_wait(on->bench, &on->bench->changed, 1);
	bench_find(on->bench, false);
	assert_true(on->bench->alive && on->bench->external);
}

static void test_restart_policy(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	bench_start(bench);
	on->box->will_restart = true;
	fake_engine_end(on->engine, on->box, 1);
	container_wait_text(on, &bench->gone, "about to start it again");
	/* It is coming: it is there, without a process. */
	bench_wait(bench, &bench->changed, 1);
	bench_find(bench, false);
	assert_true(bench->alive && bench->external);
	assert_int_equal(bench->found_pid, 0);
	bench->service->ops->adopt(bench->service, ++bench->run, 0);
	fake_engine_start(on->engine, on->box);
	bench_wait(bench, &bench->main_pids, 1);
	assert_int_equal(bench->main_pid, on->box->pid);
	fake_engine_end(on->engine, on->box, 1);
	bench_wait(bench, &bench->gone, 2);
	/* Between two lives it can be stopped, also by force, which kills nobody. */
	bench_wait(bench, &bench->changed, 2);
	adopt(on);
	bench->service->ops->stop(bench->service, true);
	bench_wait(bench, &bench->gone, 3);
	assert_int_equal(on->box->state, FAKE_EXITED);
	assert_int_equal(on->box->n_kills, 0);
	/* And started, which does not wait for the engine's own moment. */
	on->box->state = FAKE_RESTARTING;
	bench_start(bench);
	assert_int_equal(fake_engine_count(on->engine, "/restart?t=0"), 1);
}

static void test_removed_and_renamed(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	/* A run goes by its id. */
	snprintf(on->box->name, sizeof(on->box->name), "box-old");
	fake_engine_event(on->engine, on->box, "rename");
	container_idle(on, 50);
	assert_int_equal(on->bench->gone, 0);
	bench_stop(on->bench, false);
	assert_int_equal(on->box->state, FAKE_EXITED);
	bench_find(on->bench, false);
	assert_false(on->bench->alive);
	snprintf(on->box->name, sizeof(on->box->name), "box");
	bench_start(on->bench);
	on->engine->tells_no_events = true;
	fake_engine_remove(on->engine, on->box);
	on->engine->tells_no_events = false;
	fake_engine_event(on->engine, &(struct fake_container){ .name = "box" }, "destroy");
	container_wait_text(on, &on->bench->gone, "was removed");
}

static void test_paused(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	char text[300];
	bench_start(bench);
	assert_false(bench->service->ops->get_obstacle(bench->service, text, sizeof(text)));
	on->box->state = FAKE_PAUSED;
	fake_engine_event(on->engine, on->box, "pause");
	container_wait_text(on, &bench->hindered, "container \"box\" is paused by somebody");
	assert_true(bench->is_hindered);
	assert_non_null(strstr(bench->text, "go on with: docker -H unix://"));
	assert_non_null(strstr(bench->text, " unpause box"));
	assert_true(bench->service->ops->get_obstacle(bench->service, text, sizeof(text)));
	assert_string_equal(text, bench->text);
	fake_engine_event(on->engine, on->box, "update"); /* told once */
	container_idle(on, 30);
	assert_int_equal(bench->hindered, 1);
	on->box->state = FAKE_RUNNING;
	fake_engine_event(on->engine, on->box, "unpause");
	container_wait_text(on, &bench->hindered, "was paused");
	assert_false(bench->is_hindered);
	assert_false(bench->service->ops->get_obstacle(bench->service, text, sizeof(text)));
	on->box->state = FAKE_PAUSED;
	fake_engine_event(on->engine, on->box, "pause");
	bench_wait(bench, &bench->hindered, 3);
	assert_int_equal(bench->gone, 0);
	bench_stop(bench, false); /* a frozen process hears no signal */
	assert_int_equal(fake_engine_count(on->engine, "/unpause"), 1);
	assert_int_equal(bench->troubles, 0);
	container_idle(on, 30);
	on->box->state = FAKE_PAUSED;
	bench->started = bench->gone = 0;
	bench_start_fails(bench, "is paused by somebody and answers nobody; go on with: docker -H unix://");
	container_idle(on, 30);
	on->box->state = FAKE_EXITED;
	on->box->is_dead = true;
	bench_start_fails(bench, "is being removed");
}

/* As a daemon finds it that comes back. */
static void test_found_paused(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	char text[300];
	fake_engine_start(on->engine, on->box);
	on->box->state = FAKE_PAUSED;
	bench_find(bench, false);
	assert_true(bench->alive);
	assert_true(bench->service->ops->get_obstacle(bench->service, text, sizeof(text)));
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	container_wait_text(on, &bench->hindered, "is paused by somebody");
	/* Adopted again under another number, as after a start that the daemon gave up. */
	bench->service->ops->adopt(bench->service, ++bench->run, bench->found_pid);
	bench_wait(bench, &bench->hindered, 2);
	bench_stop(bench, true);
}

static void end_by_others(struct container_bench *on, int signal, int code, const char *after)
{
	on->bench->started = on->bench->gone = 0;
	bench_start(on->bench);
	unsigned before = on->engine->n_inspections;
	if (signal != 0)
		fake_engine_signal(on->engine, on->box, signal);
	fake_engine_end(on->engine, on->box, code);
	if (after != NULL) {
		container_wait_look(on, before); /* not for long: such an event is awaited for 200 ms */
		fake_engine_event(on->engine, on->box, after);
	}
	bench_wait(on->bench, &on->bench->gone, 1);
}

/* Ended by somebody on purpose, or by a fault of its own. */
static void test_who_ended_it(void **state)
{
	static const struct {
		int signal, code;
		const char *after; /* the event after its end */
		bool is_oom, by_others;
		const char *text;
	} cases[] = {
		{ 15, 143, "stop", false, true,
			"stopped by somebody else (SIGTERM): exited with status 143 (SIGTERM)" },
		{ 15, 0, "stop", false, true, "stopped by somebody else (SIGTERM): exited with status 0" },
		{ 9, 137, NULL, false, true, "stopped by somebody else (SIGKILL): exited with status 137 (SIGKILL)" },
		{ 2, 130, NULL, false, true, "stopped by somebody else (SIGINT): exited with status 130 (SIGINT)" },
		/* A stop that the program answers with a status of its own. */
		{ 15, 3, "stop", false, true, "stopped by somebody else (SIGTERM): exited with status 3" },
		/* An engine that tells of stops but not of kills. */
		{ 0, 143, "stop", false, true, "stopped by somebody else: exited with status 143 (SIGTERM)" },
		/* By itself. */
		{ 0, 0, NULL, false, true, "exited with status 0" },
		{ 0, 143, NULL, false, false, "exited with status 143 (SIGTERM)" },
		{ 0, 137, NULL, false, false, "exited with status 137 (SIGKILL)" },
		{ 0, 139, NULL, false, false, "exited with status 139 (SIGSEGV)" },
		{ 0, 1, NULL, false, false, "exited with status 1" },
		/* A signal that it outlived, and a crash later on. */
		{ 10, 139, NULL, false, false, "exited with status 139 (SIGSEGV)" },
		{ 9, 137, NULL, true, false, "out of memory" },
	};
	struct container_bench *on = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		on->box->is_oom = cases[i].is_oom;
		end_by_others(on, cases[i].signal, cases[i].code, cases[i].after);
		if (strstr(on->bench->text, cases[i].text) == NULL || on->bench->by_others != cases[i].by_others)
			fail_msg("case %zu: %d, \"%s\"", i, on->bench->by_others, on->bench->text);
		bool says_so = strstr(on->bench->text, "somebody else") != NULL;
		assert_true(says_so == (strstr(cases[i].text, "somebody else") != NULL));
	}
	/* What we ordered is nobody else's doing, whatever the engine tells of it. */
	bench_start(on->bench);
	on->bench->gone = 0;
	bench_stop(on->bench, false);
	assert_false(on->bench->by_others);
}

/* The event comes behind the look that its end brought about. */
static void test_who_ended_it_is_told_late(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	unsigned before = on->engine->n_inspections;
	fake_engine_end(on->engine, on->box, 143);
	container_wait_look(on, before);
	assert_int_equal(on->bench->gone, 0);
	fake_engine_signal(on->engine, on->box, 15);
	container_wait_text(on, &on->bench->gone, "stopped by somebody else (SIGTERM)");
	assert_true(on->bench->by_others);
	/* Removed by force: nobody can be asked how it ended any more. */
	bench_start(on->bench);
	fake_engine_signal(on->engine, on->box, 9);
	fake_engine_remove(on->engine, on->box);
	container_wait_text(
		on, &on->bench->gone, "stopped by somebody else (SIGKILL): ended: the container was removed");
	assert_true(on->bench->by_others);
}

static void test_already_running(void **state)
{
	struct container_bench *on = *state;
	fake_engine_start(on->engine, on->box);
	bench_start(on->bench);
	assert_int_equal(on->box->n_starts, 1);
	assert_int_equal(fake_engine_count(on->engine, "/start"), 0);
	on->bench->service->ops->start(on->bench->service, on->bench->run, NULL);
	container_wait_text(on, &on->bench->start_failed, "it runs already");
	bench_stop(on->bench, false);
}

static void check(struct container_bench *on, bool healthy, const char *text)
{
	struct bench *bench = on->bench;
	bench->service->ops->check(bench->service, bench->run);
	container_wait_text(on, &bench->healths, text);
	assert_true(bench->healthy == healthy);
}

static void test_health(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	check(on, false, "has no HEALTHCHECK");
	on->box->health = ""; /* so Podman says it */
	check(on, false, "has no HEALTHCHECK");
	on->box->health = "starting";
	check(on, false, "has not passed yet");
	on->box->health = "healthy";
	on->bench->text[0] = '\0';
	check(on, true, "");
	on->box->health = "unhealthy";
	on->box->health_output = "curl: (7) \\u001b[31mrefused\\n";
	check(on, false, "fails: curl: (7) ?[31mrefused");
	on->box->state = FAKE_PAUSED;
	check(on, false, "is paused");
}

static void test_address(void **state)
{
	struct container_bench *on = *state;
	struct bench *bench = on->bench;
	char address[64];
	bench_find(bench, false);
	assert_false(bench->service->ops->get_address(bench->service, address, sizeof(address)));
	bench_start(bench);
	assert_true(bench->service->ops->get_address(bench->service, address, sizeof(address)));
	assert_string_equal(address, "127.0.0.1");
	static const struct {
		const char *told, *used;
	} addresses[] = {
		{ "172.17.0.5", "172.17.0.5" },
		{ "fd00::7", "fd00::7" },
		{ "evil.example/x?", NULL },
		{ "", NULL },
	};
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		on->box->address = addresses[i].told;
		bench->service->ops->check(bench->service, bench->run); /* looks */
		bench_wait(bench, &bench->healths, (unsigned)i + 1);
		bool has = bench->service->ops->get_address(bench->service, address, sizeof(address));
		assert_true(has == (addresses[i].used != NULL));
		if (has)
			assert_string_equal(address, addresses[i].used);
	}
}

static void test_output(void **state)
{
	static const char plain[] = "as it\r\ncomes\n";
	struct container_bench *on = *state;
	on->box->output = plain;
	on->box->output_length = sizeof(plain) - 1;
	on->box->has_terminal = true;
	bench_start(on->bench);
	bench_wait_log(on->bench, "as it\r\ncomes\n");
	assert_int_equal(fake_engine_count(on->engine, "/logs?follow=1&stdout=1&stderr=1&timestamps=1&since="), 1);
	bench_stop(on->bench, false);
	fake_engine_fault(on->engine, "/logs", FAULT_RAW, 0,
		"HTTP/1.1 501 No\r\nContent-Length: 34\r\n\r\n{\"message\":\"driver \\\"none\\\" is deaf\"}");
	bench_start(on->bench);
	bench_wait_log(on->bench, "gpumgrd: the engine does not show the output of this container");
}

#define STAMPED(length, stamp, text) "\1\0\0\0\0\0\0" length stamp " " text
#define FIRST "2126-01-01T00:00:01.000000001Z"
#define SECOND "2126-01-01T00:00:02.500000000Z"
#define THIRD "2126-01-01T00:00:03.000000000Z"

/* Nothing twice and nothing lost, whoever starts anew. */
static void test_output_goes_on(void **state)
{
	static const char twice[] = STAMPED("\x23", FIRST, "one\n") STAMPED("\x23", SECOND, "two\n");
	static const char thrice[] =
		STAMPED("\x23", FIRST, "one\n") STAMPED("\x23", SECOND, "two\n") STAMPED("\x23", THIRD, "new\n");
	struct container_bench *on = *state;
	on->box->output = twice;
	on->box->output_length = sizeof(twice) - 1;
	bench_start(on->bench);
	bench_wait_log(on->bench, "one\ntwo\n");
	/* The stream breaks. */
	on->box->output = thrice;
	on->box->output_length = sizeof(thrice) - 1;
	fake_engine_break_streams(on->engine);
	bench_wait_log(on->bench, "one\ntwo\nnew\n");
	/* A new daemon. */
	bench_create(on->bench);
	adopt(on);
	container_wait_requests(on, "/logs", 3);
	assert_int_equal(fake_engine_count(on->engine, "since=4922899203.000000000"), 1);
	container_idle(on, 50);
	CLEANUP_FREE char *log = bench_log(on->bench);
	assert_string_equal(log, "one\ntwo\nnew\n");
	bench_stop(on->bench, false);
}

/* The end of a stream is not that of the container, and what it said last is copied all the same. */
static void test_output_whose_stream_ends(void **state)
{
	static const char words[] =
		STAMPED("\x23", FIRST, "one\n") STAMPED("\x23", SECOND, "two\n") STAMPED("\x23", THIRD, "new\n");
	const size_t length = (sizeof(words) - 1) / 3;
	struct container_bench *on = *state;
	on->box->output = words;
	on->box->output_length = length;
	bench_start(on->bench);
	bench_wait_log(on->bench, "one\n");
	on->box->output_length = 2 * length;
	fake_engine_end_output(on->engine, on->box);
	bench_wait_log(on->bench, "one\ntwo\n");
	fake_engine_end_output(on->engine, on->box);
	container_idle(on, 100);
	assert_int_equal(fake_engine_count(on->engine, "/logs"), 2);
	on->box->output_length = 3 * length;
	fake_engine_end(on->engine, on->box, 3);
	container_wait_text(on, &on->bench->gone, "exited with status 3; its log ends with:\none\ntwo\nnew");
}

/* A log that cannot be written now: nothing is taken, and nothing counts as copied, until it can be. */
static void test_output_without_a_file(void **state)
{
	static const char one[] = STAMPED("\x23", FIRST, "one\n");
	struct container_bench *on = *state;
	CLEANUP_FREE char *path = log_file_path(on->bench->log_dir, on->bench->name);
	on->box->output = one;
	on->box->output_length = sizeof(one) - 1;
	assert_int_equal(symlink("/nowhere", path), 0);
	bench_start(on->bench);
	container_wait_requests(on, "/logs", 1);
	container_idle(on, 100);
	assert_int_equal(unlink(path), 0);
	bench_wait_log(on->bench, "one\n");
	assert_int_equal(fake_engine_count(on->engine, "/logs"), 1);
	bench_stop(on->bench, false);
}

/* The present second, in the way of an engine that tells no fractions; not shortly before the next one. */
static void format_second(char stamp[32])
{
	struct timespec now;
	struct tm tm;
	do
		clock_gettime(CLOCK_REALTIME, &now);
	while (now.tv_nsec > 500000000);
	strftime(stamp, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now.tv_sec, &tm));
}

/* Podman: a message seems to be older than the start before it, and many have the same time. */
static void test_output_in_whole_seconds(void **state)
{
	struct container_bench *on = *state;
	char stamp[32], output[256];
	format_second(stamp);
	int length = snprintf(output, sizeof(output), "%s one\n%s two\n%s new\n", stamp, stamp, stamp);
	on->box->has_terminal = true;
	on->box->output = output;
	on->box->output_length = (size_t)length - strlen(stamp) - strlen(" new\n");
	bench_start(on->bench);
	bench_wait_log(on->bench, "one\ntwo\n");
	on->box->output_length = (size_t)length;
	fake_engine_break_streams(on->engine);
	bench_wait_log(on->bench, "one\ntwo\nnew\n");
	bench_create(on->bench);
	adopt(on);
	container_wait_requests(on, "/logs", 3);
	container_idle(on, 50);
	CLEANUP_FREE char *log = bench_log(on->bench);
	assert_string_equal(log, "one\ntwo\nnew\n");
	bench_stop(on->bench, false);
}

static void test_output_of_a_terminal(void **state)
{
	static const char lines[] = FIRST " one\r\n" SECOND " \n" THIRD " no end";
	struct container_bench *on = *state;
	on->box->output = lines;
	on->box->output_length = sizeof(lines) - 1;
	on->box->has_terminal = true;
	bench_start(on->bench);
	bench_wait_log(on->bench, "one\r\n\nno end");
	bench_stop(on->bench, false);
}

static void test_log_rotation(void **state)
{
	struct container_bench *on = *state;
	char *much = malloc(300000);
	memset(much, 'x', 300000);
	for (size_t i = 9; i < 300000; i += 100)
		much[i] = '\n';
	on->box->output = much;
	on->box->output_length = 300000;
	on->box->has_terminal = true;
	on->bench->config.process.log_size = 100000;
	bench_start(on->bench);
	CLEANUP_FREE char *path = log_file_path(on->bench->log_dir, on->bench->name);
	CLEANUP_FREE char *old = NULL;
	assert_true(asprintf(&old, "%s.1", path) > 0);
	bench_wait_file(on->bench, old);
	bench_stop(on->bench, false);
	free(much);
}

/* Two services of one engine: one connection for the events of both. */
static void test_one_stream_for_all(void **state)
{
	struct container_bench *on = *state;
	struct driver_service *other;
	struct error err;
	struct service_config config = on->bench->config;
	config.container.name = (char *)"other";
	bench_create(on->bench);
	assert_int_equal(driver_create(&on->bench->environment, &config, 3, &other, &err), 0);
	bench_find(on->bench, false);
	container_idle(on, 30);
	assert_int_equal(on->engine->n_streams, 1);
	assert_int_equal(on->engine->n_versions, 1);
	driver_destroy(other);
	bench_start(on->bench);
	bench_stop(on->bench, false);
}

static void test_bad_engines(void **state)
{
	struct container_bench *on = *state;
	struct driver_service *service = NULL;
	struct error err;
	char longest[200] = "unix:///";
	memset(longest + 8, 'x', 150);
	on->bench->config.container.engine = longest;
	assert_true(driver_create(&on->bench->environment, &on->bench->config, 3, &service, &err) < 0);
	assert_non_null(strstr(err.message, "longer than"));
	on->bench->config.container.engine = (char *)"tcp://1.2.3.4:5";
	assert_true(driver_create(&on->bench->environment, &on->bench->config, 3, &service, &err) < 0);
	assert_non_null(strstr(err.message, "is not a Unix socket"));
	assert_null(service);
	on->bench->config.container.engine = on->engine->url;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_ENGINE(test_life),
		ON_ENGINE(test_force_after_patience),
		ON_ENGINE(test_crash),
		ON_ENGINE(test_missing),
		ON_ENGINE(test_beginning_of_an_id),
		ON_ENGINE(test_compose),
		ON_ENGINE(test_compose_several),
		ON_ENGINE(test_started_by_somebody_else),
		ON_ENGINE(test_ran_before_the_daemon),
		ON_ENGINE(test_a_stop_that_was_begun),
		ON_ENGINE(test_gone_before_it_was_adopted),
		ON_ENGINE(test_started_again_at_once),
		ON_ENGINE(test_restart_policy),
		ON_ENGINE(test_removed_and_renamed),
		ON_ENGINE(test_paused),
		ON_ENGINE(test_found_paused),
		ON_ENGINE(test_who_ended_it),
		ON_ENGINE(test_who_ended_it_is_told_late),
		ON_ENGINE(test_already_running),
		ON_ENGINE(test_health),
		ON_ENGINE(test_address),
		ON_ENGINE(test_output),
		ON_ENGINE(test_output_goes_on),
		ON_ENGINE(test_output_whose_stream_ends),
		ON_ENGINE(test_output_without_a_file),
		ON_ENGINE(test_output_in_whole_seconds),
		ON_ENGINE(test_output_of_a_terminal),
		ON_ENGINE(test_log_rotation),
		ON_ENGINE(test_one_stream_for_all),
		ON_ENGINE(test_bad_engines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
