/*
 * What came out of the engine at one event, copied so that it can be judged (and, to prove the judge, falsified).
 */
#pragma once

#include "world.h"

#define SEEN_STEPS 24
#define SEEN_TRANSITIONS 48
#define SEEN_EFFECTS 256

struct seen_step {
	struct plan_step plan;
	enum step_state state;
	enum outcome outcome;
};

struct seen_transition {
	uint64_t id;
	struct request_spec spec;
	int priority;
	enum transition_state state;
	enum outcome outcome;
	unsigned overtaken;
	gpu_set gpus;
	size_t n_steps;
	struct seen_step steps[SEEN_STEPS];
	size_t n_blockers;
};

struct seen_effect {
	struct effect effect;
	char notice[32]; /* its type */
	size_t subject; /* of service.state: which service */
	int from, to; /* of service.state */
	bool begins; /* of transition: it has its turn */
	struct seen_transition answer; /* of a reply; id 0: none */
};

struct observation {
	uint64_t now;
	uint64_t deadline;
	uint64_t version;
	size_t n_effects;
	struct seen_effect effects[SEEN_EFFECTS];
	size_t n_gpus;
	struct gpu_status gpus[GPU_MAX];
	size_t n_services;
	struct service_status services[SIM_SERVICES];
	size_t n_queue;
	struct seen_transition queue[SEEN_TRANSITIONS];
	size_t n_running;
	struct seen_transition running[SEEN_TRANSITIONS];
	struct phase_status phase;
};

void observe(struct observation *observation, struct engine *engine, const struct effects *effects, uint64_t now);
/* Without the effects. */
void observation_copy(struct observation *to, const struct observation *from);
void observation_print(const struct observation *observation, const struct setup *setup, FILE *file);
void event_print(const struct event *event, const struct setup *setup, uint64_t now, FILE *file);
