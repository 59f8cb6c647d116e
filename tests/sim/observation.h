/*
 * What came out of the engine at one event, copied so that it can be judged (and, to prove the judge, falsified).
 */
#pragma once

#include "world.h"

#define SEEN_STEPS 24
#define SEEN_TRANSITIONS 48
#define SEEN_EFFECTS 512
#define SEEN_LEASES 64
#define SEEN_HOLDING 8

/* What somebody asks for, in memory of its own. */
struct asked {
	enum request_kind kind;
	size_t target; /* a service, or a phase */
	bool force;
	int64_t wait_ms;
	/* Of a lease: */
	enum lease_mode mode;
	gpu_set services; /* bits over the services, not over GPUs */
	uint32_t room_mib;
	bool attached;
	uint64_t ttl_ms;
	bool has_priority;
	int priority;
	unsigned request_id; /* 0: none */
	unsigned client;
	size_t n_holding;
	uint64_t holding[SEEN_HOLDING];
};

struct seen_lease {
	uint64_t fence;
	enum lease_mode mode;
	gpu_set services; /* bits over the services */
	gpu_set gpus;
	uint32_t room_mib;
	int priority;
	bool attached;
	uint64_t ttl_ms;
	uint64_t granted_ms;
	uint64_t expires_ms;
	bool awaits_holder;
	bool is_wanted;
	uint64_t wanted_ms;
	uint64_t breaks_ms;
	enum lease_end end;
	unsigned request_id;
	unsigned client;
};

struct seen_step {
	struct plan_step plan;
	enum step_state state;
	enum outcome outcome;
};

struct seen_transition {
	uint64_t id;
	struct asked spec;
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
	bool parks; /* of transition: it is parked */
	struct seen_transition answer; /* of a reply; id 0: none */
	struct seen_lease lease; /* of a reply, or of news of a lease; fence 0: none */
	size_t named; /* of news of a lease: the service that its text names; SIM_SERVICES: none */
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
	size_t n_leases;
	struct seen_lease leases[SEEN_LEASES];
};

/* Clients and the names of their requests are numbers here: owner "client 3", request_id "request 7". */
void asked_copy(struct asked *to, const struct request_spec *from);

void observe(struct observation *observation, struct engine *engine, const struct effects *effects, uint64_t now);
/* Without the effects. */
void observation_copy(struct observation *to, const struct observation *from);
void observation_print(const struct observation *observation, const struct setup *setup, FILE *file);
void event_print(const struct event *event, const struct setup *setup, uint64_t now, FILE *file);
