/* The bench of the driver tests with a pretended engine and one container "box" in it. */
#pragma once

#include "fake_engine.h"

struct container_bench {
	struct bench *bench;
	struct fake_engine *engine;
	struct fake_container *box;
};

int container_setup(void **state);
int container_teardown(void **state);

#define ON_ENGINE(test) cmocka_unit_test_setup_teardown(test, container_setup, container_teardown)

/* Waits until the engine has got so many requests that contain the text. */
void container_wait_requests(struct container_bench *on, const char *text, unsigned wanted);
/* Waits until the engine has told how a container is more often than `before`, and the driver has heard it. */
void container_wait_look(struct container_bench *on, unsigned before);
/* The loop turns for a while: what should not happen has time to. */
void container_idle(struct container_bench *on, uint64_t ms);
/* Begins a start and does not wait for it. */
void container_begin_start(struct container_bench *on);
void container_wait_text(struct container_bench *on, const unsigned *count, const char *text);
