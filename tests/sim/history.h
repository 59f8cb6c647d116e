/*
 * One random history: a world, an engine, clients, and the judge. What happens comes from the choices alone, so
 * the same choices are the same history.
 */
#pragma once

#include "checker.h"

/* A lie told to the judge about what the engine did, to prove that he would notice. */
struct mutant {
	const char *name;
	const char *rule; /* the one that has to notice; NULL: any */
	void (*configure)(struct setup *setup); /* what he believes the configuration is; may be NULL */
	void (*falsify)(struct observation *observation, uint64_t *memory); /* may be NULL */
};

struct history_options {
	size_t n_steps;
	FILE *trace; /* NULL: silent */
	const struct mutant *mutant; /* NULL: the truth */
	bool fail_allocations; /* needs faulty_malloc.c wrapped in */
	struct checker_stats *stats; /* NULL: not counted */
};

struct history_result {
	const char *rule; /* NULL: all rules held */
	char message[400];
	size_t n_steps; /* played, those of the end included */
};

void history_run(struct choices *choices, const struct history_options *options, struct history_result *ret_result);

/* Leaves out and lowers choices while the same rule is still broken, for at most `seconds`. */
void history_shrink(struct choices *choices, const struct history_options *options, const char *rule, unsigned seconds);
