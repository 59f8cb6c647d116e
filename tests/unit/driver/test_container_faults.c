/* An engine that fails, hangs, lies or talks nonsense: clear errors, nothing done twice, recovery by itself. */
#include "container_bench.h"
#include "parallel.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

static void stop(struct container_bench *on, bool force)
{
	on->bench->service->ops->stop(on->bench->service, force);
}

/* What it says of a container that does not run now; and it is gone then. The caller frees it. */
static char *take_record(struct container_bench *on)
{
	CLEANUP_FREE char *name = NULL, *path = NULL;
	char text[320];
	assert_true(asprintf(&name, "state/%s.run", on->bench->name) > 0);
	path = bench_path(on->bench, name);
	assert_true(proc_read_file(path, text, sizeof(text)) > 0);
	assert_int_equal(unlink(path), 0);
	return strdup(text);
}

static void put_record(struct container_bench *on, const char *text)
{
	CLEANUP_FREE char *name = NULL, *path = NULL;
	assert_true(asprintf(&name, "state/%s.run", on->bench->name) > 0);
	path = bench_path(on->bench, name);
	bench_write_file(path, text, 0600);
}

static void find_news(struct container_bench *on, unsigned n)
{
	bench_wait(on->bench, &on->bench->changed, n);
	bench_find(on->bench, false);
	assert_true(on->bench->alive);
}

static void adopt(struct container_bench *on)
{
	on->bench->service->ops->adopt(on->bench->service, ++on->bench->run, on->bench->found_pid);
}

/* ---- starts ---- */

static void test_start_with_a_lost_answer(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/start", FAULT_LOSE, 0, NULL);
	bench_start(on->bench);
	assert_int_equal(on->box->n_starts, 1);
	bench_stop(on->bench, false);
}

static void test_start_that_was_not_heard(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/start", FAULT_CLOSE, 2, NULL);
	bench_start(on->bench);
	assert_int_equal(on->box->n_starts, 1);
	assert_int_equal(fake_engine_count(on->engine, "/start"), 3);
	bench_stop(on->bench, false);
	on->bench->started = on->bench->gone = 0;
	fake_engine_fault(on->engine, "/start", FAULT_CLOSE, 0, NULL);
	bench_start_fails(on->bench, "gave no usable answer: connection closed without an answer");
	assert_int_equal(fake_engine_count(on->engine, "/start"), 6);
	free(take_record(on)); /* it may come up yet */
}

static void test_start_lost_and_ended_again(void **state)
{
	struct container_bench *on = *state;
	on->box->ends_at_once = true;
	on->box->exit_code = 9;
	fake_engine_fault(on->engine, "/start", FAULT_LOSE, 0, NULL);
	bench_start(on->bench);
	container_wait_text(on, &on->bench->gone, "exited with status 9");
	assert_int_equal(on->box->n_starts, 1);
}

static void test_start_refused(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 500 No\r\n\r\n{\"message\":\"driver failed: address\\nin \\u001buse\"}",
		"HTTP/1.1 404 No\r\n\r\n{\"message\":\"network shop not found\"}",
		"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\n<html>",
		"HTTP/1.1 409 No\r\nContent-Length: 3\r\n\r\n[7]",
	};
	static const char *const texts[] = { "docker: driver failed: address in ?use", "docker: network shop not found",
		"docker: the engine answered with status 500", "status 409" };
	struct container_bench *on = *state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		fake_engine_fault(on->engine, "/start", FAULT_RAW, 1, answers[i]);
		bench_start_fails(on->bench, texts[i]);
		assert_int_equal(on->bench->failure, DRIVER_FAILED);
	}
	bench_start(on->bench);
	bench_stop(on->bench, false);
}

static void test_start_of_what_was_removed_meanwhile(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/start", FAULT_HANG, 1, NULL);
	container_begin_start(on);
	container_wait_requests(on, "/start", 1);
	fake_engine_remove(on->engine, on->box);
	fake_engine_break_streams(on->engine);
	fake_engine_go(on->engine);
	fake_engine_come(on->engine);
	container_wait_text(on, &on->bench->start_failed, "does not exist");
	assert_int_equal(on->bench->failure, DRIVER_NOT_FOUND);
}

/* The engine answers everything but the start; whoever asked loses patience. */
static void test_start_undone(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/start", FAULT_HANG, 0, NULL);
	container_begin_start(on);
	container_wait_requests(on, "/start", 1);
	stop(on, false);
	container_wait_text(on, &on->bench->start_failed, "before the engine at unix://");
	assert_int_equal(on->bench->gone, 0);
	/* The other way: it comes up after all, and is stopped. */
	container_begin_start(on);
	container_wait_requests(on, "/start", 2);
	stop(on, false);
	stop(on, true);
	fake_engine_start(on->engine, on->box);
	bench_wait(on->bench, &on->bench->gone, 1);
	assert_int_equal(on->box->state, FAKE_EXITED);
}

/* It was given up, and the engine was not asked to forget it. */
static void undo_start(struct container_bench *on)
{
	unsigned n = fake_engine_count(on->engine, "/start"), before = on->bench->start_failed;
	fake_engine_fault(on->engine, "/start", FAULT_HANG, 1, NULL);
	container_begin_start(on);
	container_wait_requests(on, "/start", n + 1);
	stop(on, false);
	bench_wait(on->bench, &on->bench->start_failed, before + 1);
	assert_non_null(strstr(on->bench->text, "before the engine at unix://"));
}

/* The engine needs longer than anybody waits: what was undone is nobody else's doing, and is stopped again. */
/* Nor is that waited for: whoever wanted the stop would take it for a process that cannot be killed. */
static void test_start_undone_at_an_engine_that_hangs(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/start", FAULT_HANG, 0, NULL);
	container_begin_start(on);
	container_wait_requests(on, "/start", 1);
	fake_engine_fault(on->engine, "/json", FAULT_HANG, 0, NULL);
	stop(on, false);
	container_wait_text(on, &on->bench->start_failed, "is it hanging? (systemctl restart docker)");
	CLEANUP_FREE char *record = take_record(on);
	assert_non_null(strstr(record, " stopping\n")); /* should it come up yet */
}

static void test_start_undone_and_done_later(void **state)
{
	struct container_bench *on = *state;
	bench_find(on->bench, false);
	undo_start(on);
	container_idle(on, 50);
	fake_engine_start(on->engine, on->box);
	find_news(on, 1);
	assert_true(on->bench->stopping && !on->bench->external);
	adopt(on);
	/* So it is for the next daemon. */
	bench_create(on->bench);
	bench_find(on->bench, false);
	assert_true(on->bench->alive && on->bench->stopping);
	adopt(on);
	bench_stop(on->bench, false);
	/* And that was all: what comes now is of others. */
	fake_engine_start(on->engine, on->box);
	find_news(on, 2);
	assert_true(on->bench->external && !on->bench->stopping);
}

/* What the engine has not done within its time is not awaited for ever. */
static void test_start_undone_and_forgotten(void **state)
{
	struct container_bench *on = *state;
	bench_find(on->bench, false);
	undo_start(on);
	CLEANUP_FREE char *record = take_record(on), *old = NULL;
	char *at = strstr(record, " starting ");
	assert_non_null(at);
	assert_string_equal(at + 10 + strspn(at + 10, "0123456789"), " stopping\n");
	uint64_t asked_ms = strtoull(at + 10, NULL, 10);
	assert_in_range(asked_ms, clock_boot_ms() - 30000, clock_boot_ms());
	*at = '\0';
	assert_true(asprintf(&old, "%s starting %llu stopping\n", record, (unsigned long long)asked_ms - 61000) > 0);
	put_record(on, old);
	fake_engine_start(on->engine, on->box);
	find_news(on, 1);
	assert_true(on->bench->external && !on->bench->stopping);
}

/* Whoever asks again wants it to run. */
static void test_start_undone_and_wanted_again(void **state)
{
	struct container_bench *on = *state;
	for (unsigned is_running = 0; is_running < 2; is_running++) {
		bench_create(on->bench);
		on->bench->started = on->bench->gone = 0;
		undo_start(on);
		on->engine->tells_no_events = true;
		if (is_running)
			fake_engine_start(on->engine, on->box);
		on->engine->tells_no_events = false;
		bench_start(on->bench);
		bench_create(on->bench);
		bench_find(on->bench, false);
		assert_true(on->bench->alive && !on->bench->stopping);
		adopt(on);
		bench_stop(on->bench, false);
	}
}

/* The daemon is killed while the engine starts what it was asked for: the next one finds nothing at first. */
static void test_killed_in_a_start(void **state)
{
	struct container_bench *on = *state;
	for (unsigned is_undone = 0; is_undone < 2; is_undone++) {
		bench_create(on->bench);
		fake_engine_fault(on->engine, "/start", FAULT_HANG, 1, NULL);
		container_begin_start(on);
		container_wait_requests(on, "/start", is_undone + 1);
		if (is_undone)
			stop(on, false);
		bench_create(on->bench);
		bench_find(on->bench, false);
		assert_false(on->bench->alive);
		fake_engine_start(on->engine, on->box);
		find_news(on, is_undone + 1);
		assert_false(on->bench->external);
		assert_int_equal(on->bench->stopping, is_undone);
		adopt(on);
		bench_stop(on->bench, false);
	}
}

/* The answer to the start comes when its undoing is under way: it runs once, and ends once. */
static void test_start_answered_late(void **state)
{
	struct container_bench *on = *state;
	on->box->ignores_stop = true;
	fake_engine_fault(on->engine, "/start", FAULT_HOLD, 1, NULL);
	container_begin_start(on);
	container_wait_requests(on, "/start", 1);
	stop(on, false);
	container_wait_requests(on, "/stop", 1);
	fake_engine_release(on->engine);
	container_idle(on, 50);
	bench_stop(on->bench, true);
	assert_string_equal(on->bench->order, "SG");
	assert_int_equal(on->box->n_starts, 1);
}

static void test_start_without_an_engine(void **state)
{
	struct container_bench *on = *state;
	fake_engine_go(on->engine);
	bench_start_fails(on->bench, "docker: the engine at unix://");
	assert_non_null(strstr(on->bench->text, "there is no such socket; is it running? (systemctl status docker)"));
	assert_int_equal(on->bench->failure, DRIVER_UNTOLD);
	assert_int_equal(on->bench->troubles, 1);
	fake_engine_come(on->engine);
	bench_wait(on->bench, &on->bench->troubles, 2);
	assert_true(on->bench->trouble_over);
	/* It comes back while it is waited for. */
	fake_engine_go(on->engine);
	container_begin_start(on);
	container_idle(on, 100);
	fake_engine_come(on->engine);
	bench_wait(on->bench, &on->bench->started, 1);
	assert_int_equal(on->box->n_starts, 1);
}

static void test_nobody_listens(void **state)
{
	struct container_bench *on = *state;
	fake_engine_go(on->engine);
	int fd = open(on->engine->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	bench_start_fails(on->bench, "connection refused; is it running?");
	unlink(on->engine->path);
	fake_engine_come(on->engine);
}

/* ---- stops ---- */

static void test_stop_with_a_lost_answer(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/stop", FAULT_LOSE, 0, NULL);
	bench_start(on->bench);
	bench_stop(on->bench, false);
	assert_int_equal(on->box->n_stops, 1);
}

static void test_stop_that_was_not_heard(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/stop", FAULT_CLOSE, 2, NULL);
	bench_start(on->bench);
	bench_stop(on->bench, false);
	assert_int_equal(on->box->n_stops, 1);
	bench_start(on->bench);
	fake_engine_fault(on->engine, "/kill", FAULT_CLOSE, 0, NULL);
	stop(on, true);
	container_wait_text(on, &on->bench->refused, "cannot be stopped: docker: the engine at unix://");
	assert_int_equal(on->bench->gone, 1);
	fake_engine_heal(on->engine);
	bench_stop(on->bench, true);
}

static void test_stop_refused(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	fake_engine_fault(
		on->engine, "/stop", FAULT_RAW, 0, "HTTP/1.1 500 No\r\n\r\n{\"message\":\"tried to kill, failed\"}");
	stop(on, false);
	container_wait_text(on, &on->bench->refused, "tried to kill, failed");
	/* What is over meanwhile was not refused: the look decides. */
	fake_engine_fault(on->engine, "/kill", FAULT_RAW, 0, "HTTP/1.1 409 No\r\n\r\n{\"message\":\"is not running\"}");
	on->engine->tells_no_events = true;
	on->box->state = FAKE_EXITED;
	bench_stop(on->bench, true);
}

static void test_stop_without_an_engine(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	fake_engine_go(on->engine);
	stop(on, false);
	container_wait_text(on, &on->bench->refused, "there is no such socket");
	assert_int_equal(on->bench->gone, 0);
	/* It was only away: nothing had ended. */
	fake_engine_come(on->engine);
	bench_wait(on->bench, &on->bench->troubles, 2);
	container_idle(on, 50);
	assert_int_equal(on->bench->gone, 0);
	bench_stop(on->bench, false);
}

/* Whoever asked waits 10 s for the end after a kill, and must not take the engine's silence for a process that does not
 * die. */
static void test_kill_without_an_answer(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	fake_engine_fault(on->engine, "/kill", FAULT_HANG, 0, NULL);
	fake_engine_fault(on->engine, "/json", FAULT_HANG, 0, NULL);
	uint64_t began = clock_now_ms();
	stop(on, true);
	container_wait_text(on, &on->bench->refused, "did not answer within");
	/* Three times what it should be: a busy machine is no fault, waiting for ever is. */
	assert_true(clock_now_ms() - began < 3 * 9000 / on->bench->environment.hurry);
	fake_engine_heal(on->engine);
	bench_stop(on->bench, true);
}

/* The engine hears nothing from the beginning on: by the time of the kill that is known, and not waited for again. */
static void test_gentle_stop_without_an_answer(void **state)
{
	struct container_bench *on = *state;
	unsigned hurry = on->bench->environment.hurry;
	bench_start(on->bench);
	fake_engine_fault(on->engine, "/stop", FAULT_HANG, 0, NULL);
	fake_engine_fault(on->engine, "/kill", FAULT_HANG, 0, NULL);
	fake_engine_fault(on->engine, "/json", FAULT_HANG, 0, NULL);
	stop(on, false);
	container_idle(on, 7000 / hurry);
	assert_int_equal(on->bench->refused, 0);
	uint64_t began = clock_now_ms();
	stop(on, true);
	container_wait_text(on, &on->bench->refused, "is it hanging? (systemctl restart docker)");
	assert_true(clock_now_ms() - began <
		5000 / hurry); /* 1000 are needed; 6000 for an engine not yet known to be silent */
	assert_int_equal(fake_engine_count(on->engine, "/stop"), 1);
	assert_int_equal(fake_engine_count(on->engine, "/kill"), 1);
	/* It wakes up, and does what it was asked to long ago: no crash. */
	fake_engine_heal(on->engine);
	fake_engine_signal(on->engine, on->box, 15);
	fake_engine_end(on->engine, on->box, 143);
	container_wait_text(on, &on->bench->gone, "a stop that was given up came true: exited with status 143");
	assert_true(on->bench->by_others);
}

/* Nothing at all is heard of an engine that takes connections: the error says so, and what helps. */
static void test_start_on_an_engine_that_hangs(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/", FAULT_HANG, 0, NULL);
	bench_start_fails(on->bench, "is it hanging? (systemctl restart docker)");
}

/* ---- the engine goes and comes ---- */

static void test_engine_restarts(void **state)
{
	struct container_bench *on = *state;
	bench_start(on->bench);
	fake_engine_go(on->engine);
	container_idle(on, 200);
	assert_int_equal(on->bench->gone, 0);
	on->box->state = FAKE_EXITED; /* without live-restore */
	on->box->exit_code = 0;
	fake_engine_come(on->engine);
	container_wait_text(on, &on->bench->gone, "exited with status 0");
	assert_int_equal(on->bench->troubles, 2);
	/* What was started while nobody could look is found as soon as one can. */
	bench_find(on->bench, false);
	assert_false(on->bench->alive);
	fake_engine_go(on->engine);
	container_idle(on, 50);
	fake_engine_start(on->engine, on->box);
	fake_engine_come(on->engine);
	bench_wait(on->bench, &on->bench->changed, 1);
}

static void test_find_without_an_engine(void **state)
{
	struct container_bench *on = *state;
	fake_engine_start(on->engine, on->box);
	fake_engine_go(on->engine);
	bench_find(on->bench, true);
	assert_true(!on->bench->alive && on->bench->untold);
	assert_non_null(strstr(on->bench->text, "there is no such socket; is it running? (systemctl status docker)"));
	fake_engine_come(on->engine);
	bench_wait(on->bench, &on->bench->changed, 1);
	bench_find(on->bench, true);
	assert_true(on->bench->alive && !on->bench->external && !on->bench->untold);
}

/* That what was stopped cannot be seen any more is news, once for each outage. */
static void test_out_of_sight(void **state)
{
	struct container_bench *on = *state;
	bench_find(on->bench, false);
	assert_true(!on->bench->alive && !on->bench->untold);
	for (unsigned i = 0; i < 2; i++) {
		fake_engine_go(on->engine);
		bench_wait(on->bench, &on->bench->changed, 2 * i + 1);
		bench_find(on->bench, false);
		assert_true(on->bench->untold);
		container_idle(on, 300);
		assert_int_equal(on->bench->changed, 2 * i + 1);
		fake_engine_come(on->engine);
		bench_wait(on->bench, &on->bench->changed, 2 * i + 2);
		bench_find(on->bench, false);
		assert_true(!on->bench->alive && !on->bench->untold);
	}
}

static void test_engine_hangs(void **state)
{
	struct container_bench *on = *state;
	fake_engine_start(on->engine, on->box);
	fake_engine_fault(on->engine, "/box/json", FAULT_HANG, 0, NULL);
	bench_find(on->bench, false); /* in a bounded time */
	assert_true(!on->bench->alive && on->bench->untold);
	assert_non_null(strstr(on->bench->text, "is it hanging? (systemctl restart docker)"));
	/* Another one is not kept from anything. */
	struct service_config config = on->bench->config;
	struct driver_service *other;
	struct error err;
	config.container.name = (char *)"other";
	fake_engine_add(on->engine, "other");
	assert_int_equal(driver_create(&on->bench->environment, &config, 3, &other, &err), 0);
	other->ops->start(other, on->bench->run, NULL);
	bench_wait(on->bench, &on->bench->started, 1);
	driver_destroy(other);
	fake_engine_heal(on->engine);
	bench_wait(on->bench, &on->bench->changed, 1);
}

/* ---- versions ---- */

static void test_versions(void **state)
{
	static const struct {
		const char *most, *least, *used, *text;
		bool is_podman;
	} versions[] = {
		{ "1.41", "1.12", "1.41", NULL, false },
		{ "1.51", "1.24", "1.47", NULL, false },
		{ "1.40", "1.12", NULL, "speaks API 1.40 at most; gpumgr needs 1.41", false },
		{ "1.40", "1.24", "1.40", NULL, true },
		{ "1.60", "1.48", NULL, "no API older than 1.48", false },
		{ "2.0", "1.0", NULL, "is no container engine", false },
		{ "", "", NULL, "is no container engine", false },
		{ "1.41x", "", NULL, "is no container engine", false },
	};
	struct container_bench *on = *state;
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		on->engine->version = versions[i].most;
		on->engine->least = versions[i].least;
		on->engine->is_podman = versions[i].is_podman;
		bench_create(on->bench);
		on->bench->started = on->bench->gone = 0;
		if (versions[i].text != NULL) {
			bench_start_fails(on->bench, versions[i].text);
			continue;
		}
		bench_start(on->bench);
		assert_string_equal(on->engine->last_version, versions[i].used);
		bench_stop(on->bench, false);
	}
}

/* ---- nonsense ---- */

static void test_nonsense(void **state)
{
	static char headers[200 * 1024], deep[100000];
	static const char *const answers[] = {
		"\x7f"
		"ELF no http\r\n\r\n",
		"HTTP/1.1 200 OK\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Id\":",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
		"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{\"Id\":[],\"State\":{\"Pid\":\"x\"}}",
		"HTTP/1.1 500 Disk\r\nContent-Length: 23\r\n\r\n{\"message\":\"disk full\"}",
		"HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		headers,
		deep,
	};
	struct container_bench *on = *state;
	memset(headers, 'h', sizeof(headers) - 1);
	memcpy(headers, "HTTP/1.1 200 OK\r\nX-A: ", 22);
	memset(deep, '[', sizeof(deep) - 1);
	memcpy(deep, "HTTP/1.1 200 OK\r\n\r\n", 19);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		fake_engine_fault(on->engine, "/box/json", FAULT_RAW, 0, answers[i]);
		bench_start_fails(on->bench, "docker: ");
		assert_non_null(strstr(on->bench->text, on->engine->url));
		assert_int_equal(on->box->n_starts, 0);
		fake_engine_heal(on->engine);
	}
	bench_start(on->bench);
	/* In the middle of a run it changes nothing, and a stop goes through. */
	fake_engine_fault(on->engine, "/json", FAULT_RAW, 0, answers[3]);
	fake_engine_event(on->engine, on->box, "update");
	container_idle(on, 50);
	assert_int_equal(on->bench->gone, 0);
	bench_stop(on->bench, false);
	assert_int_equal(on->box->state, FAKE_EXITED);
}

/* Started, as the engine says, and nothing that makes sense since; then it does again. */
static void test_nonsense_after_a_start(void **state)
{
	struct container_bench *on = *state;
	bench_find(on->bench, false);
	on->engine->spoils_after_start = true;
	container_begin_start(on);
	bench_wait(on->bench, &on->bench->started, 1);
	assert_int_equal(on->bench->pid, 0);
	fake_engine_heal(on->engine);
	fake_engine_event(on->engine, on->box, "update");
	bench_wait(on->bench, &on->bench->main_pids, 1);
	assert_int_equal(on->bench->main_pid, on->box->pid);
	bench_stop(on->bench, false);
}

static void test_endless_answer(void **state)
{
	static char much[1024 * 1024];
	struct container_bench *on = *state;
	memset(much, ' ', sizeof(much));
	memcpy(much, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", 47);
	much[sizeof(much) - 1] = '\0';
	fake_engine_fault(on->engine, "/box/json", FAULT_ENDLESS, 0, much);
	bench_start_fails(on->bench, "longer than any that makes sense");
}

/* ---- events ---- */

static void begin_events(struct container_bench *on)
{
	bench_find(on->bench, false);
	container_wait_requests(on, "/events", 1);
	container_idle(on, 20);
}

/* The engine is asked at a bounded pace. */
static void expect_few_requests(struct container_bench *on)
{
	container_idle(on, 300);
	unsigned before = on->engine->n_requests;
	container_idle(on, 1000);
	assert_true(on->engine->n_requests - before < 40);
}

/* And what happens is seen all the same. */
static void expect_calm(struct container_bench *on)
{
	expect_few_requests(on);
	fake_engine_heal(on->engine);
	fake_engine_start(on->engine, on->box);
	bench_wait(on->bench, &on->bench->changed, 1);
}

static void test_events_that_break(void **state)
{
	struct container_bench *on = *state;
	begin_events(on);
	on->engine->tells_no_events = true;
	fake_engine_start(on->engine, on->box);
	container_idle(on, 50);
	assert_int_equal(on->bench->changed, 0);
	fake_engine_break_streams(on->engine);
	bench_wait(on->bench, &on->bench->changed, 1);
}

static void test_events_refused(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/events", FAULT_RAW, 0, "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}");
	begin_events(on);
	expect_calm(on);
}

static void test_events_hang_up(void **state)
{
	struct container_bench *on = *state;
	fake_engine_fault(on->engine, "/events", FAULT_CLOSE, 0, NULL);
	begin_events(on);
	expect_calm(on);
}

/* What else breaks off each time while the version is told: neither is that asked in circles. */
static void test_answers_that_hang_up(void **state)
{
	static const char *const paths[] = { "/logs", "/json" };
	struct container_bench *on = *state;
	bench_start(on->bench);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		fake_engine_fault(on->engine, paths[i], FAULT_CLOSE, 0, NULL);
		fake_engine_break_streams(on->engine);
		expect_few_requests(on);
		fake_engine_heal(on->engine);
	}
	bench_stop(on->bench, false);
}

static void test_events_without_headers(void **state)
{
	struct container_bench *on = *state;
	on->engine->sends_no_headers = true;
	on->bench->environment.tick_ms = 100; /* pings */
	begin_events(on);
	container_idle(on, 300);
	assert_true(fake_engine_count(on->engine, "/_ping") > 0);
	bench_start(on->bench);
	bench_stop(on->bench, false);
}

static void test_events_of_nonsense(void **state)
{
	static const char *const bytes[] = {
		"HTTP/1.1 200 OK\r\n\r\n\xff{{{]\n\n[]\n7\nnull\n{\"Actor\":3}\n{}\n\"x\"\n",
		"HTTP/1.1 200 OK\r\n\r\n{\"Type\":\"container\",\"Action\":7,\"Actor\":{\"ID\":{}}}\n"
	};
	for (size_t i = 0; i < ARRAY_SIZE(bytes); i++) {
		struct container_bench *on = *state;
		on->bench->changed = 0;
		on->box->state = FAKE_EXITED;
		bench_create(on->bench);
		fake_engine_fault(on->engine, "/events", FAULT_ENDLESS, 0, bytes[i]);
		begin_events(on);
		expect_calm(on);
	}
}

static void test_event_longer_than_any(void **state)
{
	static char line[200 * 1024];
	struct container_bench *on = *state;
	memset(line, 'x', sizeof(line));
	begin_events(on);
	on->engine->tells_no_events = true;
	fake_engine_start(on->engine, on->box);
	/* It may have been about anybody. */
	fake_engine_say(on->engine, line, sizeof(line));
	bench_wait(on->bench, &on->bench->changed, 1);
	/* And what comes behind it is read again. */
	on->engine->tells_no_events = false;
	fake_engine_say(on->engine, "\n", 1);
	unsigned before = on->engine->n_inspections;
	fake_engine_event(on->engine, on->box, "update");
	container_idle(on, 50);
	assert_int_equal(on->engine->n_inspections, before + 1);
}

/* What does not concern it costs nothing. */
static void test_events_of_others(void **state)
{
	struct container_bench *on = *state;
	struct fake_container *other = fake_engine_add(on->engine, "other");
	begin_events(on);
	unsigned before = on->engine->n_inspections;
	for (size_t i = 0; i < 100; i++)
		fake_engine_event(on->engine, other, "start");
	fake_engine_event(on->engine, on->box, "exec_create: /bin/healthcheck");
	fake_engine_event(on->engine, on->box, "health_status: healthy");
	container_idle(on, 50);
	assert_int_equal(on->engine->n_inspections, before);
	for (size_t i = 0; i < 1000; i++)
		fake_engine_event(on->engine, on->box, "update");
	container_idle(on, 100);
	assert_true(on->engine->n_inspections - before < 400); /* they are looked at together */
}

/* ---- the end at any moment ---- */

static void test_destroyed_at_any_moment(void **state)
{
	struct container_bench *on = *state;
	for (unsigned turns = 0; turns < 60; turns++) {
		bench_create(on->bench);
		on->bench->service->ops->find(on->bench->service, false);
		on->bench->service->ops->start(on->bench->service, ++on->bench->run, NULL);
		for (unsigned i = 0; i < turns; i++)
			uv_run(&on->bench->loop, UV_RUN_NOWAIT);
		if (turns % 3 == 0)
			stop(on, turns % 2 == 0);
		on->bench->service->ops->check(on->bench->service, on->bench->run);
		bench_destroy(on->bench);
		on->box->state = FAKE_EXITED;
	}
	on->box->state = FAKE_RUNNING; /* as far as the last daemon knew: it has left its record */
}

/* Nothing of it may end up in what the daemon starts. */
static void test_descriptors(void **state)
{
	struct container_bench *on = *state;
	char path[64], target[128] = "";
	bool before[64];
	for (int fd = 3; fd < 64; fd++)
		before[fd] = fcntl(fd, F_GETFD) >= 0;
	bench_start(on->bench);
	for (int fd = 3; fd < 64; fd++) {
		int flags = fcntl(fd, F_GETFD);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (flags >= 0 && (flags & FD_CLOEXEC) == 0 && !before[fd]) {
			assert_true(readlink(path, target, sizeof(target) - 1) > 0);
			fail_msg("descriptor %d (%s) would be inherited", fd, target);
		}
	}
	bench_stop(on->bench, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* The longest first. */
		ON_ENGINE(test_nonsense),
		ON_ENGINE(test_out_of_sight),
		ON_ENGINE(test_events_of_nonsense),
		ON_ENGINE(test_stop_that_was_not_heard),
		ON_ENGINE(test_answers_that_hang_up),
		ON_ENGINE(test_start_with_a_lost_answer),
		ON_ENGINE(test_start_that_was_not_heard),
		ON_ENGINE(test_start_lost_and_ended_again),
		ON_ENGINE(test_start_refused),
		ON_ENGINE(test_start_of_what_was_removed_meanwhile),
		ON_ENGINE(test_start_undone),
		ON_ENGINE(test_start_undone_at_an_engine_that_hangs),
		ON_ENGINE(test_start_undone_and_done_later),
		ON_ENGINE(test_start_undone_and_forgotten),
		ON_ENGINE(test_start_undone_and_wanted_again),
		ON_ENGINE(test_killed_in_a_start),
		ON_ENGINE(test_start_answered_late),
		ON_ENGINE(test_start_without_an_engine),
		ON_ENGINE(test_nobody_listens),
		ON_ENGINE(test_stop_with_a_lost_answer),
		ON_ENGINE(test_stop_refused),
		ON_ENGINE(test_stop_without_an_engine),
		ON_ENGINE(test_kill_without_an_answer),
		ON_ENGINE(test_gentle_stop_without_an_answer),
		ON_ENGINE(test_start_on_an_engine_that_hangs),
		ON_ENGINE(test_engine_restarts),
		ON_ENGINE(test_find_without_an_engine),
		ON_ENGINE(test_engine_hangs),
		ON_ENGINE(test_versions),
		ON_ENGINE(test_nonsense_after_a_start),
		ON_ENGINE(test_endless_answer),
		ON_ENGINE(test_events_that_break),
		ON_ENGINE(test_events_refused),
		ON_ENGINE(test_events_hang_up),
		ON_ENGINE(test_events_without_headers),
		ON_ENGINE(test_event_longer_than_any),
		ON_ENGINE(test_events_of_others),
		ON_ENGINE(test_destroyed_at_any_moment),
		ON_ENGINE(test_descriptors),
	};
	return parallel_run(tests, ARRAY_SIZE(tests));
}
