/* The table of drivers, and the scripted twin. */
#include "bench.h"

#include <errno.h>

#include "driver/driver_fake.h"

static void test_unknown_kind(void **state)
{
	struct bench *bench = *state;
	struct driver_service *service = NULL;
	struct error err;
	bench->config.driver = (enum service_driver)77;
	assert_int_equal(driver_create(&bench->environment, &bench->config, 0, &service, &err), -ENOTSUP);
	assert_null(service);
	assert_non_null(strstr(err.message, bench->name));
	assert_null(driver_destroy(NULL));
}

static void create_fake(struct bench *bench)
{
	struct error err;
	assert_int_equal(fake_driver.create(&bench->environment, &bench->config, 3, &bench->service, &err), 0);
}

static void test_fake_run(void **state)
{
	struct bench *bench = *state;
	create_fake(bench);
	bench_find(bench, true);
	assert_false(bench->alive);
	assert_true(fake_driver_calls(bench->service)->last_healthy);
	bench_start(bench);
	assert_int_equal(bench->pid, 1000003);
	assert_string_equal(fake_driver_calls(bench->service)->last_gpu_ids, "0");
	assert_true(bench->service->ops->owns(bench->service, 1000003));
	assert_false(bench->service->ops->owns(bench->service, 77));
	fake_driver_script(bench->service)->owns[0] = 77;
	assert_true(bench->service->ops->owns(bench->service, 77));
	fake_driver_end_leader(bench->service, "helper left");
	bench_wait(bench, &bench->leader_ended, 1);
	bench_stop(bench, false);
	assert_string_equal(bench->order, "FSLG");
	assert_false(fake_driver_is_alive(bench->service));
	assert_int_equal(fake_driver_calls(bench->service)->stops, 1);
}

static void test_fake_news(void **state)
{
	struct bench *bench = *state;
	char address[32];
	create_fake(bench);
	struct fake_script *script = fake_driver_script(bench->service);
	assert_false(bench->service->ops->get_address(bench->service, address, sizeof(address)));
	script->address = "172.17.0.2";
	assert_true(bench->service->ops->get_address(bench->service, address, sizeof(address)));
	assert_string_equal(address, "172.17.0.2");
	script->found_alive = script->found_external = true;
	bench_find(bench, false);
	assert_true(bench->alive && bench->external);
	fake_driver_change(bench->service);
	bench_wait(bench, &bench->changed, 1);
	script->start_failure = "no such container";
	script->failure = DRIVER_NOT_FOUND;
	bench_start_fails(bench, "no such container");
	assert_int_equal(bench->failure, DRIVER_NOT_FOUND);
	script->start_failure = NULL;
	bench_start(bench);
	bench_find(bench, false);
	assert_true(bench->alive && !bench->external);
	script->unhealthy = "still loading";
	bench->service->ops->check(bench->service, bench->run);
	bench_wait(bench, &bench->healths, 1);
	assert_false(bench->healthy);
	assert_string_equal(bench->text, "still loading");
	script->unhealthy = NULL;
	bench->service->ops->check(bench->service, bench->run);
	bench_wait(bench, &bench->healths, 2);
	assert_true(bench->healthy);
	assert_int_equal(fake_driver_calls(bench->service)->checks, 2);
}

static void test_fake_script(void **state)
{
	struct bench *bench = *state;
	create_fake(bench);
	struct fake_script *script = fake_driver_script(bench->service);
	script->start_failure = "no such file";
	bench_start_fails(bench, "no such file");
	script->start_failure = NULL;
	script->hold_start = script->deaf = true;
	bench->service->ops->start(bench->service, ++bench->run, NULL);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
	assert_int_equal(bench->started, 0);
	fake_driver_release(bench->service);
	bench_wait(bench, &bench->started, 1);
	bench->service->ops->stop(bench->service, false);
	uv_run(&bench->loop, UV_RUN_NOWAIT);
	assert_int_equal(bench->gone, 0);
	script->stop_refusal = "set stop_command";
	bench->service->ops->stop(bench->service, true);
	bench_wait(bench, &bench->refused, 1);
	script->stop_refusal = NULL;
	bench_stop(bench, true);
	assert_int_equal(fake_driver_calls(bench->service)->forced_stops, 2);
	script->found_alive = true;
	script->found_pid = 42;
	bench_find(bench, false);
	assert_true(bench->alive);
	bench->service->ops->adopt(bench->service, ++bench->run, 42);
	assert_true(bench->service->ops->owns(bench->service, 42));
	fake_driver_end(bench->service, "crashed");
	bench_wait(bench, &bench->gone, 2);
	assert_string_equal(bench->text, "crashed");
}

/* A listener that lets go of the service while it is being told something. */
static void destroy_in_report(void *context, size_t service, uint64_t run, pid_t pid)
{
	struct bench *bench = context;
	(void)service;
	(void)run;
	(void)pid;
	bench->started++;
	bench->service = driver_destroy(bench->service);
}

static void test_destroy_in_report(void **state)
{
	struct bench *bench = *state;
	create_fake(bench);
	bench->listener.handle_started = destroy_in_report;
	bench->service->ops->start(bench->service, 1, NULL);
	fake_driver_end(bench->service, "never told");
	uv_run(&bench->loop, UV_RUN_DEFAULT);
	assert_int_equal(bench->started, 1);
	assert_int_equal(bench->gone, 0);
}

#define ON_BENCH(test) cmocka_unit_test_setup_teardown(test, bench_setup, bench_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_BENCH(test_unknown_kind),
		ON_BENCH(test_fake_run),
		ON_BENCH(test_fake_news),
		ON_BENCH(test_fake_script),
		ON_BENCH(test_destroy_in_report),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
