/*
 * What is worth knowing after a restart besides leases: what services were like in their runs, the last phase, and the
 * transitions under way. It survives a killed process, and a power failure most of the time.
 *
 * Each write replaces all that was there before, so what is named no more is forgotten. What goes wrong is told in
 * `err` as by the calls of state.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "state/state.h"

#define KNOWLEDGE_UNKNOWN (-1)

struct known_service {
	const char *name;
	int64_t boot_ms; /* of the last good start; KNOWLEDGE_UNKNOWN */
	int64_t peak_mib; /* over all its runs; KNOWLEDGE_UNKNOWN */
};

struct known_phase {
	int number; /* 0: none was prepared */
	int64_t at_wall_ms;
};

/* As it began. */
struct known_transition {
	const char *what; /* "phase 4 (video)" */
	const char *services; /* those of its steps, with spaces between them */
};

/* About 50 µs for a dozen services. */
int knowledge_write(struct state *state, size_t n, const struct known_service *services,
	const struct known_phase *phase, struct error *err);
int knowledge_write_transitions(
	struct state *state, size_t n, const struct known_transition *transitions, struct error *err);

/* What was written last; texts are borrowed for the length of the call. */
int knowledge_each_service(struct state *state, void (*handle)(void *context, const struct known_service *service),
	void *context, struct error *err);
int knowledge_read_phase(struct state *state, struct known_phase *ret_phase, struct error *err);
int knowledge_each_transition(struct state *state,
	void (*handle)(void *context, const struct known_transition *transition), void *context, struct error *err);
