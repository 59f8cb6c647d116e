/*
 * A driver that only pretends, for tests of whoever calls drivers: nothing runs, what would happen is scripted, and
 * every call is counted. Reports come as those of a real driver: in order, from the loop.
 *
 * By default find() finds nothing, start() succeeds with PID 1000000 + index, stop() ends it.
 */
#pragma once

#include "driver/driver.h"

struct fake_script {
	bool found_alive; /* what find() says as long as nothing was started or adopted */
	pid_t found_pid;
	bool found_external;
	const char *start_failure; /* borrowed; NULL: starts succeed */
	enum driver_failure failure;
	bool hold_start; /* start() reports nothing until fake_driver_release() */
	bool deaf; /* only force ends it */
	const char *stop_refusal; /* borrowed; NULL: stops are carried out */
	pid_t owns[8]; /* besides its main process */
	const char *unhealthy; /* borrowed; what check() answers, NULL: healthy */
	const char *address; /* borrowed; NULL: it has none */
};

struct fake_calls {
	unsigned finds, adopts, starts, stops, forced_stops, checks;
	bool last_healthy;
	char last_gpu_ids[64]; /* "" for none */
};

/* Of a service of fake_driver; the script may be changed at any time. */
struct fake_script *fake_driver_script(struct driver_service *service);
const struct fake_calls *fake_driver_calls(const struct driver_service *service);
bool fake_driver_is_alive(const struct driver_service *service);

/* Reports the start that hold_start held back. */
void fake_driver_release(struct driver_service *service);
/* Reports a change that nobody asked for. */
void fake_driver_change(struct driver_service *service);
/* The main process ends while others live on; then, or without it, the whole group. */
void fake_driver_end_leader(struct driver_service *service, const char *text);
void fake_driver_end(struct driver_service *service, const char *text);
