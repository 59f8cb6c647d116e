/*
 * What the kinds of probes share; only for this room.
 *
 * A probe ends exactly once, by probe_finish() (an answer), probe_cancel() or prober_destroy(). Each of them calls the
 * kind's release(), which lets go of whatever is under way; what libuv still holds then (a connection being closed, a
 * name being looked up, a child being reaped) owns itself and has forgotten the probe.
 */
#pragma once

#include "health/probe.h"
#include "http/curl_loop.h"

#define PROBE_TEXT_SIZE 320

struct probe {
	const struct probe_ops *ops;
	struct prober *prober;
	struct probe *previous, *next; /* those under way */
	probe_handler handler;
	void *context;
	uint64_t timeout_ms;
	uv_timer_t deadline;
	struct question *question; /* of a busy probe; NULL: a health check */
	int exit_status; /* command: what it ended with by itself, else -1 */
	char *body; /* http with a question: the answer */
	size_t body_length;
	bool is_body_cut; /* it was longer than is read */
	bool failed_early; /* before the loop ran: `text` says why, told by the deadline timer */
	char text[PROBE_TEXT_SIZE];
};

struct probe_ops {
	size_t size; /* of the kind's struct, whose first member is the probe */
	/* Begins, or calls probe_fail_early(). Negative only for lack of memory or descriptors. */
	int (*begin)(struct probe *probe, const struct probe_config *config, const struct probe_runner *runner);
	void (*release)(struct probe *probe);
	/* The text of a timeout. */
	void (*describe_timeout)(struct probe *probe, const char *timeout, char *text, size_t size);
};

struct prober {
	uv_loop_t *loop;
	struct curl_loop *curl;
	struct probe *probes;
	struct child *children; /* of the kind `command`: not reaped yet */
};

extern const struct probe_ops http_probe_ops;
extern const struct probe_ops tcp_probe_ops;
extern const struct probe_ops command_probe_ops;

/*
 * Begins a check. `question` (may be NULL) is the probe's from here on, whatever comes of it; the answer goes to
 * question_answer() then, else to the probe's handler, which the caller sets.
 */
int probe_begin(struct prober *prober, const struct probe_config *config, const struct probe_runner *runner,
	uint64_t timeout_ms, struct question *question, struct probe **ret_probe);

/* busy.c: the probe has ended so; the answer is told at once or later. */
void question_answer(struct probe *probe, bool passed, const char *text);
/* What is being judged is not told any more. */
struct question *question_free(struct question *question);

/* The answer; the probe is gone for the caller afterwards. Only from the loop, never from begin(). */
void probe_finish(struct probe *probe, bool passed, const char *text);

/* The answer is no and known in begin() already: it is told from the loop. Returns 0. */
int probe_fail_early(struct probe *probe, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reaps what the kind `command` still has, waiting a moment for killed children. */
void command_probe_end(struct prober *prober);

/* The text in printable ASCII: what comes from outside must not speak to a terminal. Returns `text`. */
char *probe_clean_text(char *text);
