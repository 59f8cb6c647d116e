/*
 * The random choices of one history. Drawn from a seed (splitmix64), they are recorded step by step, so that a
 * history is its list of choices: played again it is the same history, and with choices left out or made smaller
 * it is a simpler one of the same kind. Choice 0 is always the plainest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct choice_step {
	size_t n;
	size_t capacity;
	uint32_t *values;
};

struct choices {
	uint64_t random;
	bool replay;
	size_t n_steps;
	size_t capacity;
	struct choice_step *steps;
	size_t current; /* the step being chosen for, counted from 1; 0: none yet */
	size_t cursor; /* in it, when replaying */
};

uint64_t splitmix64(uint64_t *state);

void choices_begin(struct choices *choices, uint64_t seed);
/* Plays what is recorded from the beginning; where a step has no more choices, they are 0. */
void choices_rewind(struct choices *choices);
void choices_finish(struct choices *choices);
void choices_copy(struct choices *to, const struct choices *from);

/* false: a replay has no more steps. */
bool choices_next_step(struct choices *choices);

/* 0 .. n - 1. */
uint32_t choose(struct choices *choices, uint32_t n);
uint64_t choose_between(struct choices *choices, uint64_t least, uint64_t most);
/* True in about so many of 1000. */
bool chance(struct choices *choices, unsigned permille);

/* For shrinking: each returns whether it changed anything. */
bool choices_drop_steps(struct choices *choices, size_t first, size_t n);
bool choices_lower(struct choices *choices, size_t step, size_t index, uint32_t value);

/* As text, one step a line; what choices_read() takes. */
void choices_write(const struct choices *choices, FILE *file);
bool choices_read(struct choices *choices, FILE *file);
