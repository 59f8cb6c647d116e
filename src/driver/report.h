/*
 * Reports of one driver service on their way to the listener: kept in order and delivered from the loop, never from
 * inside the call that caused them.
 */
#pragma once

#include "driver/driver.h"

enum report_kind {
	REPORT_FOUND,
	REPORT_CHANGED,
	REPORT_STARTED,
	REPORT_START_FAILED,
	REPORT_MAIN_PID,
	REPORT_LEADER_ENDED,
	REPORT_GONE,
	REPORT_HINDERED,
	REPORT_STOP_REFUSED,
	REPORT_HEALTH,
};

struct report {
	struct report *next; /* set by reports_push() */
	enum report_kind kind;
	uint64_t run;
	bool alive; /* FOUND; HEALTH: it is healthy */
	bool external; /* FOUND: started by somebody else; GONE: ended by them */
	bool untold; /* FOUND */
	bool stopping; /* FOUND */
	bool is_over; /* HINDERED */
	enum driver_failure failure; /* START_FAILED */
	pid_t pid;
	const char *text;
};

/* So many that are not delivered yet need no memory: an end that nobody hears of would be waited for in vain. */
#define REPORTS_SPARE 8

struct reports {
	uv_idle_t idle; /* runs while there is something to deliver */
	const struct driver_listener *listener;
	size_t service;
	struct report *first, **last;
	struct report spare[REPORTS_SPARE];
	bool spare_used[REPORTS_SPARE];
	bool closing;
	void (*handle_closed)(struct reports *reports);
};

int reports_init(struct reports *reports, uv_loop_t *loop, const struct driver_listener *listener, size_t service);

/* Nothing is delivered any more; `handle_closed` is called once the loop has let go, and may free the memory. */
void reports_close(struct reports *reports, void (*handle_closed)(struct reports *reports));

/* A copy of `report` and of its text. Out of memory costs the text, and the report only when the spare ones are used
 * up. */
void reports_push(struct reports *reports, const struct report *report);

/* The same for reports that need no more. */
void reports_add(struct reports *reports, enum report_kind kind, uint64_t run, bool alive, pid_t pid, const char *text);
