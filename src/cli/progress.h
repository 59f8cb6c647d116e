/*
 * The progress of one request: what its event stream told so far, and how that looks. Feeding and drawing are apart, so
 * that both are tested without a terminal.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/cli.h"

enum progress_step_state {
	PROGRESS_PENDING,
	PROGRESS_RUNNING,
	PROGRESS_DONE,
	PROGRESS_FAILED,
	PROGRESS_SKIPPED,
};

struct progress_step {
	const char *action;
	const char *service;
	const char *text; /* the daemon's line on it, "" */
	enum progress_step_state state;
	uint64_t began_ms; /* our clock; 0: not seen */
	bool has_duration;
	uint64_t duration_ms;
	bool printed; /* as a line of its own */
};

#define PROGRESS_STEPS_MAX 128

struct progress {
	struct cli *cli;
	const char *name; /* "phase 4 (video)" */
	uint64_t began_ms;
	bool accepted;
	bool has_begun; /* it runs: it cannot be withdrawn any more */
	json_int_t transition; /* 0: unknown */
	const char *waits_for; /* NULL: it does not wait */
	size_t n_steps;
	struct progress_step steps[PROGRESS_STEPS_MAX];
	bool has_result;
	long status;
	json_t *body; /* of the result; owned */
};

void progress_begin(struct progress *progress, struct cli *cli, const char *name, uint64_t now_ms);
void progress_end(struct progress *progress);

/* One event of the stream. Unknown and malformed ones are ignored. */
void progress_feed(struct progress *progress, const char *type, const char *data, uint64_t now_ms);

/* Lines for what ended since the last call: where there is no terminal. */
void progress_print_ended(struct progress *progress, FILE *out);

/* The picture for a terminal; returns how many lines it has, all of them ended by a newline. */
size_t progress_draw(const struct progress *progress, FILE *out, uint64_t now_ms, const struct terminal *terminal);
