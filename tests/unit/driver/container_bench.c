/* The bench with a pretended engine. */
#include "container_bench.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

int container_setup(void **state)
{
	struct container_bench *on = calloc(1, sizeof(*on));
	void *inner = NULL;
	signal(SIGPIPE, SIG_IGN); /* the engine writes to whoever may have hung up */
	if (bench_setup(&inner) < 0)
		return -1;
	on->bench = inner;
	on->engine = fake_engine_create(on->bench);
	on->box = fake_engine_add(on->engine, "box");
	/* Machines that are said to be slow get the time that a user would give. */
	const char *slowness = getenv("GPUMGR_TEST_SLOWNESS");
	on->bench->environment.hurry = slowness != NULL && atoi(slowness) > 1 ? 2 : 5;
	on->bench->config.driver = DRIVER_CONTAINER;
	on->bench->config.container =
		(struct container_config){ .name = "box", .engine = on->engine->url, .stop_timeout_ms = 30000 };
	*state = on;
	return 0;
}

/* Of what lives on there is a record for the next daemon; of all else there must be none. */
static void forget_living(struct container_bench *on)
{
	CLEANUP_FREE char *name = NULL, *path = NULL;
	assert_true(asprintf(&name, "state/%s.run", on->bench->name) > 0);
	path = bench_path(on->bench, name);
	for (unsigned i = 0; i < FAKE_CONTAINERS; i++) {
		const struct fake_container *container = &on->engine->containers[i];
		if (container->id[0] != '\0' && container->state != FAKE_CREATED && container->state != FAKE_EXITED)
			unlink(path);
	}
}

int container_teardown(void **state)
{
	struct container_bench *on = *state;
	void *inner = on->bench;
	bench_destroy(on->bench);
	forget_living(on);
	bool is_left = on->bench->shared.dockers != NULL || on->bench->shared.owners != NULL;
	fake_engine_destroy(on->engine);
	free(on);
	return bench_teardown(&inner) < 0 || is_left ? -1 : 0;
}

struct wanted {
	struct fake_engine *engine;
	const char *text;
	unsigned n;
};

static bool has_requests(struct bench *bench, const void *argument)
{
	const struct wanted *wanted = argument;
	(void)bench;
	return fake_engine_count(wanted->engine, wanted->text) >= wanted->n;
}

void container_wait_requests(struct container_bench *on, const char *text, unsigned wanted)
{
	struct wanted argument = { on->engine, text, wanted };
	if (!bench_run_until(on->bench, has_requests, &argument))
		fail_msg("no %u requests with \"%s\" in:\n%s", wanted, text, on->engine->log);
}

struct inspected {
	const struct fake_engine *engine;
	unsigned before;
};

static bool is_inspected(struct bench *bench, const void *argument)
{
	const struct inspected *inspected = argument;
	(void)bench;
	return inspected->engine->n_inspections > inspected->before;
}

void container_wait_look(struct container_bench *on, unsigned before)
{
	struct inspected argument = { on->engine, before };
	if (!bench_run_until(on->bench, is_inspected, &argument))
		fail_msg("nobody looked; requests:\n%s", on->engine->log);
	bench_idle(on->bench, 4);
}

void container_idle(struct container_bench *on, uint64_t ms)
{
	bench_idle(on->bench, ms);
}

void container_begin_start(struct container_bench *on)
{
	if (on->bench->service == NULL)
		bench_create(on->bench);
	on->bench->service->ops->start(on->bench->service, ++on->bench->run, NULL);
}

void container_wait_text(struct container_bench *on, const unsigned *count, const char *text)
{
	bench_wait(on->bench, count, *count + 1);
	if (strstr(on->bench->text, text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, on->bench->text);
}
