/*
 * Deadlines of connections. libmicrohttpd's own timeout starts again with each byte, so a client that sends (or
 * takes) one now and then would stay for ever; these do not start again. All deadlines of a kind last equally long,
 * so each kind is a queue with one timer.
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

enum deadline_kind {
	DEADLINE_RECEIVE, /* a request must be complete */
	DEADLINE_IDLE, /* the next request on a kept connection must begin */
	DEADLINE_SEND, /* an answer must be taken */
	DEADLINE_KINDS,
	DEADLINE_NONE, /* suspended, or a stream */
};

struct deadline {
	enum deadline_kind kind;
	uint64_t due_ms;
	TAILQ_ENTRY(deadline) link;
};

struct deadlines {
	uv_loop_t *loop;
	/* Called once for a deadline that passed; it is of kind NONE by then. */
	void (*handle_passed)(struct deadline *deadline);
	struct deadline_queue {
		struct deadlines *deadlines;
		uv_timer_t timer;
		TAILQ_HEAD(, deadline) head;
	} queues[DEADLINE_KINDS];
};

void deadlines_init(struct deadlines *deadlines, uv_loop_t *loop, void (*handle_passed)(struct deadline *deadline));

/* Lets go of whatever was set before and starts anew. */
void deadline_set(struct deadlines *deadlines, struct deadline *deadline, enum deadline_kind kind);
