/*
 * Reports of one driver service on their way to the listener: kept in order and delivered from the loop, never from
 * inside the call that caused them.
 */
#pragma once

#include "driver/driver.h"

enum report_kind {
	REPORT_FOUND,
	REPORT_STARTED,
	REPORT_START_FAILED,
	REPORT_MAIN_PID,
	REPORT_LEADER_ENDED,
	REPORT_GONE,
	REPORT_STOP_REFUSED,
};

struct report;

struct reports {
	uv_idle_t idle; /* runs while there is something to deliver */
	const struct driver_listener *listener;
	size_t service;
	struct report *first, **last;
	bool closing;
	void (*handle_closed)(struct reports *reports);
};

int reports_init(struct reports *reports, uv_loop_t *loop, const struct driver_listener *listener, size_t service);

/* Nothing is delivered any more; `handle_closed` is called once the loop has let go, and may free the memory. */
void reports_close(struct reports *reports, void (*handle_closed)(struct reports *reports));

/* `alive` only for FOUND; `text` is copied, NULL where there is none. Out of memory costs the text, then the report. */
void reports_add(struct reports *reports, enum report_kind kind, uint64_t run, bool alive, pid_t pid, const char *text);
