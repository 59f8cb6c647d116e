/*
 * The daemon: the only place that joins core with the world. It owns the loop, brings what drivers, probes, the sampler
 * and the API report to the engine as events, and carries out the engine's effects in their order.
 *
 * One event at a time: what an effect causes at once is queued and brought to the engine after the effects of the event
 * before. Nothing here decides.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "api/api.h"
#include "base/error.h"
#include "config/config.h"
#include "core/engine.h"
#include "driver/driver.h"
#include "gpu/sampler.h"
#include "health/probe.h"

/* Where things are; every string is owned. */
struct daemon_paths {
	char *socket;
	char *state_dir;
	char *log_dir;
	int lock_fd; /* holds STATE_DIR/lock for the life of the process */
	char instance[24]; /* names this daemon's cgroup folder: the same after a restart, another for another state
			      folder */
};

/* What the daemon keeps of each service besides the engine's record. */
struct daemon_service {
	struct daemon *daemon;
	size_t index;
	struct driver_service *driver; /* NULL: no driver for its kind, see `why_no_driver` */
	char why_no_driver[256];
	struct probe *probe; /* of the present run */
	uint64_t probe_run;
	struct probe *find_probe;
	bool find_healthy;
};

/* An event that waits for the one before it; `text` is a copy. */
struct queued_event {
	struct queued_event *next;
	struct event event;
	char *text;
};

struct daemon {
	uv_loop_t loop;
	const struct config *config;
	struct daemon_paths *paths;
	struct service_definition *definitions;
	struct phase_definition *phases;
	struct explain_names names;
	struct engine *engine;

	struct effects effects;
	bool has_effects; /* of a submission, to be carried out in the next turn */
	bool is_pumping;
	struct queued_event *first_event, **last_event;
	uv_idle_t flush;
	uv_timer_t clock;
	uv_signal_t signals[3];

	struct sampler *sampler;
	char sampler_problem[256];
	int64_t wall_offset_ms; /* time of day less engine time, see host.c */
	uint32_t *measured_mib; /* [GPU_MAX][services]: scratch */
	struct prober *prober;
	struct driver_environment environment;
	struct driver_listener driver_listener;
	struct daemon_service *services;
	struct rlimit open_files; /* before the API raised it: what services get */
	struct api_host host;
	struct api *api;
	bool is_stopping;
};

/* Everything up to serving. `config` and `paths` are borrowed. 0, or a negative errno with a message. */
int daemon_create(const struct config *config, struct daemon_paths *paths, int listen_fd, struct daemon **ret_daemon,
	struct error *err);
/* Serves until SIGTERM or SIGINT. */
void daemon_run(struct daemon *daemon);
/* Services go on; whoever waits is told. */
struct daemon *daemon_destroy(struct daemon *daemon);

/* Brings an event to the engine, now or after the one that is being dealt with. */
void daemon_bring(struct daemon *daemon, const struct event *event);

/* Carries out what a submission left behind. */
void daemon_flush(struct daemon *daemon);
void daemon_handle_flush(uv_idle_t *idle);

/* ---- definitions.c ---- */
int definitions_create(struct daemon *daemon);
void definitions_free(struct daemon *daemon);
/* Tells the engine which GPUs UUIDs in the configuration stand for, as far as the sample tells. */
void definitions_resolve(struct daemon *daemon, const struct gpu_sample *sample);

/* ---- perform.c ---- */
void perform_effects(struct daemon *daemon);

/* ---- reports.c: what drivers, probes and the sampler report ---- */
extern const struct driver_listener driver_reports;
void report_find_begin(struct daemon *daemon, size_t service);
void report_probe_begin(struct daemon *daemon, size_t service, uint64_t run, uint64_t timeout_ms);
void report_sample(void *daemon, const struct gpu_sample *sample);
void report_sampler_trouble(void *daemon, const char *text);
void report_cancel_probes(struct daemon *daemon);

/* ---- host.c ---- */
void host_init(struct daemon *daemon);

/* ---- paths.c ---- */
/* Fills in what neither file nor command line names, makes the folders, and takes the state folder for this process. */
int paths_prepare(const struct config *config, const char *socket, const char *state_dir,
	struct daemon_paths *ret_paths, struct error *err);
void paths_finish(struct daemon_paths *paths);
/* Where the configuration is looked for when nobody says; the caller frees it. */
char *paths_default_config(void);

/* ---- supervisor.c: sd_notify(3) and sd_listen_fds(3), without their library ---- */
void supervisor_notify(const char *state);
int supervisor_take_socket(void);
bool supervisor_reads_journal(void);
