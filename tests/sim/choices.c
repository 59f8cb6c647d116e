/* Recorded random choices. Must not know what is chosen. */
#include "choices.h"

#include <stdlib.h>
#include <string.h>

uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void *grown(void *items, size_t size)
{
	void *bigger = realloc(items, size);

	if (bigger == NULL)
		abort();
	return bigger;
}

static struct choice_step *add_step(struct choices *choices)
{
	if (choices->n_steps == choices->capacity) {
		choices->capacity = choices->capacity * 2 + 16;
		choices->steps = grown(choices->steps, choices->capacity * sizeof(*choices->steps));
	}
	choices->steps[choices->n_steps] = (struct choice_step){ 0 };
	return &choices->steps[choices->n_steps++];
}

static void add_value(struct choice_step *step, uint32_t value)
{
	if (step->n == step->capacity) {
		step->capacity = step->capacity * 2 + 8;
		step->values = grown(step->values, step->capacity * sizeof(*step->values));
	}
	step->values[step->n++] = value;
}

void choices_begin(struct choices *choices, uint64_t seed)
{
	*choices = (struct choices){ .random = seed };
}

void choices_rewind(struct choices *choices)
{
	choices->replay = true;
	choices->current = 0;
	choices->cursor = 0;
}

void choices_finish(struct choices *choices)
{
	for (size_t i = 0; i < choices->n_steps; i++)
		free(choices->steps[i].values);
	free(choices->steps);
	*choices = (struct choices){ 0 };
}

void choices_copy(struct choices *to, const struct choices *from)
{
	choices_begin(to, from->random);
	for (size_t i = 0; i < from->n_steps; i++) {
		struct choice_step *step = add_step(to);

		for (size_t j = 0; j < from->steps[i].n; j++)
			add_value(step, from->steps[i].values[j]);
	}
}

bool choices_next_step(struct choices *choices)
{
	choices->cursor = 0;
	if (!choices->replay) {
		add_step(choices);
		choices->current = choices->n_steps;
		return true;
	}
	if (choices->current >= choices->n_steps)
		return false;
	choices->current++;
	return true;
}

uint32_t choose(struct choices *choices, uint32_t n)
{
	struct choice_step *step;
	uint32_t value = 0;

	if (choices->current == 0 || n == 0)
		return 0;
	step = &choices->steps[choices->current - 1];
	if (!choices->replay) {
		value = (uint32_t)(splitmix64(&choices->random) >> 32) % n;
		add_value(step, value);
	} else if (choices->cursor < step->n) {
		value = step->values[choices->cursor++] % n;
	}
	return value;
}

uint64_t choose_between(struct choices *choices, uint64_t least, uint64_t most)
{
	return least + choose(choices, (uint32_t)(most - least + 1));
}

bool chance(struct choices *choices, unsigned permille)
{
	if (permille == 0)
		return false;
	return choose(choices, 1000) >= 1000 - permille;
}

bool choices_drop_steps(struct choices *choices, size_t first, size_t n)
{
	if (first >= choices->n_steps || n == 0)
		return false;
	if (n > choices->n_steps - first)
		n = choices->n_steps - first;
	for (size_t i = first; i < first + n; i++)
		free(choices->steps[i].values);
	memmove(&choices->steps[first], &choices->steps[first + n],
		(choices->n_steps - first - n) * sizeof(*choices->steps));
	choices->n_steps -= n;
	return true;
}

bool choices_lower(struct choices *choices, size_t step, size_t index, uint32_t value)
{
	if (step >= choices->n_steps || index >= choices->steps[step].n)
		return false;
	if (choices->steps[step].values[index] <= value)
		return false;
	choices->steps[step].values[index] = value;
	return true;
}

void choices_write(const struct choices *choices, FILE *file)
{
	for (size_t i = 0; i < choices->n_steps; i++) {
		fputs("step", file);
		for (size_t j = 0; j < choices->steps[i].n; j++)
			fprintf(file, " %u", choices->steps[i].values[j]);
		fputc('\n', file);
	}
}

static bool read_line(struct choices *choices, char *line)
{
	struct choice_step *step;
	char *save = NULL, *word = strtok_r(line, " \n", &save);

	if (word == NULL || strcmp(word, "step") != 0)
		return false;
	step = add_step(choices);
	while ((word = strtok_r(NULL, " \n", &save)) != NULL)
		add_value(step, (uint32_t)strtoul(word, NULL, 10));
	return true;
}

bool choices_read(struct choices *choices, FILE *file)
{
	char *line = NULL;
	size_t size = 0;

	choices_begin(choices, 0);
	while (getline(&line, &size, file) > 0)
		read_line(choices, line); /* other lines (seed, remarks) are skipped */
	free(line);
	choices_rewind(choices);
	return choices->n_steps > 0;
}
