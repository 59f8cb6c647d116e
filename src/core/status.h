/*
 * What the engine knows, as plain data: for the status page, metrics and tests. Everything in it is borrowed
 * from the engine and good until its next event.
 */
#pragma once

#include "core/request.h"

struct gpu_status {
	struct gpu_account account;
	bool has_used;
	uint32_t used_mib;
	uint64_t sampled_ms; /* engine time of the reading in force, 0: none yet */
	bool stale; /* the reading is too old to decide on */
};

struct service_status {
	const struct service_definition *definition;
	enum service_state state;
	bool live;
	bool in_use;
	unsigned n_leases;
	bool says_busy; /* its busy probe's last answer */
	gpu_set gpus;
	pid_t pid; /* 0 when unknown or none */
	uint64_t since_ms; /* engine time of the last change of state */
	bool has_measured;
	uint32_t measured_mib; /* over all its GPUs */
	uint64_t committed_mib;
	bool has_boot;
	uint64_t boot_ms; /* how long its last good start took, also before a restart of the daemon */
	bool has_peak;
	uint32_t peak_mib; /* the most that it was seen to hold, likewise */
	bool is_outdated; /* it runs as it was configured before, until it is started anew */
	uint64_t external_starts; /* how often somebody else started it */
	uint64_t transition; /* the one it is part of, 0: none */
	const char *error; /* why it is in error or was, NULL: nothing known */
};

struct phase_status {
	bool any; /* a phase was prepared */
	size_t phase; /* index */
	uint64_t at_ms;
	bool satisfied; /* all its services are ready or busy now */
};

struct status {
	uint64_t now_ms;
	size_t n_gpus;
	const struct gpu_status *gpus;
	size_t n_services;
	const struct service_status *services;
	size_t n_queue; /* in the order of the queue */
	const struct transition *const *queue;
	size_t n_running;
	const struct transition *const *running;
	struct phase_status phase;
	size_t n_leases; /* the oldest first */
	const struct lease *const *leases;
};
