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
#include "health/busy.h"
#include "health/probe.h"
#include "lock/lock.h"
#include "state/state.h"

/* Where things are; every string is owned. */
struct daemon_paths {
	char *socket;
	char *state_dir;
	char *log_dir;
	int lock_fd; /* holds STATE_DIR/lock for the life of the process */
	char instance[24]; /* names this daemon's cgroup folder: the same after a restart, another for another state
			      folder */
};

/* The command of a probe, made for one run of its service: users are not looked up for each check. */
struct probe_command {
	struct command command;
	bool is_ready;
	uint64_t run;
};

/* What the daemon keeps of each service besides the engine's record. */
struct daemon_service {
	struct daemon *daemon;
	size_t index;
	struct driver_service *driver; /* NULL: no driver for its kind, see `why_no_driver` */
	struct service_config driver_config; /* what the driver was made of; borrows from the file */
	bool is_alive; /* a run was ordered or adopted, and has not ended */
	bool is_outdated; /* the driver is of an earlier configuration: made anew once nothing runs */
	char why_no_driver[256];
	struct probe *probe; /* of the present run */
	uint64_t probe_run;
	struct probe_command health_command, busy_command;
	struct probe *find_probe;
	bool find_healthy;
	struct probe *busy_probe;
	uint64_t busy_run;
	bool busy_is_unknown; /* its busy probe could not be asked the last time */
};

/* What only the holder of an attached lease knows. */
struct lease_secret {
	uint64_t fence;
	char text[STATE_SECRET_SIZE];
};

/* An event that waits for the one before it; `text` is a copy. */
struct queued_event {
	struct queued_event *next;
	struct event event;
	char *text;
};

#define EVENTS_SPARE 64

/* A configuration as the engine wants it; borrows from it. */
struct definitions {
	struct service_definition *services;
	struct phase_definition *phases;
};

/* A configuration file as it was read; the first one and the last one stay, others as long as something uses them. */
struct config_file {
	struct config_file *older;
	struct config *config;
};

/* What is kept besides leases; see knowledge.c. */
struct knowledge_keeper {
	uint64_t seen; /* engine_knowledge() */
	uint64_t under_way; /* stands for the transitions that are noted as such */
	bool is_due; /* something is to be written soon */
	bool has_trouble; /* it could not be written the last time */
	uv_timer_t lazy;
	size_t n_interrupted;
	struct interrupted *interrupted; /* by the end of an earlier daemon, and not told yet */
};

struct daemon {
	uv_loop_t loop;
	const struct config *config; /* merged of the files, see config_succeed() */
	struct config_file *files; /* the newest first */
	struct daemon_paths *paths;
	struct definitions definitions;
	struct explain_names names;
	struct engine *engine;

	struct effects effects;
	bool has_effects; /* of a submission, to be carried out in the next turn */
	bool is_pumping;
	struct queued_event *first_event, **last_event;
	struct queued_event spare_events[EVENTS_SPARE]; /* used where there is no memory */
	bool spare_used[EVENTS_SPARE];
	uv_idle_t flush;
	uv_prepare_t before_poll;
	uv_timer_t clock;
	uv_timer_t watchdog; /* shows a supervisor that the loop goes round */
	uv_timer_t ready; /* until a supervisor has been told that we serve */
	uv_signal_t signals[3];

	struct sampler *sampler;
	char sampler_problem[256];
	int64_t wall_offset_ms; /* time of day less engine time, see host.c */
	uint32_t *measured_mib; /* [GPU_MAX][services]: scratch */
	struct prober *prober;
	struct driver_environment environment;
	struct driver_listener driver_listener;
	struct driver_shared driver_shared;
	struct daemon_service **services; /* [config->n_services] */
	struct rlimit open_files; /* before the API raised it: what services get */
	uint64_t boot; /* of the machine, see clock_boot_number() */
	struct state *state;
	struct lock *lock;
	size_t n_secrets, secrets_capacity;
	struct lease_secret *secrets; /* by fence */
	const char **lease_services; /* [services] scratch */
	bool has_unsaved; /* some could not be written; tried again by the timer */
	uv_timer_t save_again;
	struct knowledge_keeper keeper;
	struct api_host host;
	struct api *api;
	bool is_exiting; /* some services are stopped, then it ends */
	bool is_stopping;
};

/* Everything up to serving. Takes `config`, also on failure; `paths` is borrowed. 0, or a negative errno with a
 * message. */
int daemon_create(struct config *config, struct daemon_paths *paths, int listen_fd, struct daemon **ret_daemon,
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
/* `sample` (NULL: none yet) tells which GPUs UUIDs stand for. 0 or -ENOMEM. */
int definitions_create(
	const struct config *config, const struct gpu_sample *sample, struct definitions *ret_definitions);
void definitions_free(struct definitions *definitions);
/* They count from now on. */
void definitions_use(struct daemon *daemon, const struct definitions *definitions);
struct engine_config definitions_engine_config(const struct config *config, const struct definitions *definitions);
/* Tells the engine which GPUs UUIDs in the configuration stand for, as far as the sample tells. */
void definitions_resolve(struct daemon *daemon, const struct gpu_sample *sample);

/* ---- services.c ---- */
/* NULL: no memory. Its driver comes later. */
struct daemon_service *service_create(struct daemon *daemon, size_t index);
struct daemon_service *service_destroy(struct daemon_service *service);
/* It is made anew for the next check. */
void service_forget_command(struct probe_command *kept);
/* A service of a kind that this build cannot drive does not keep the others from running. */
void service_create_driver(struct daemon_service *service);
/* Its configuration is another one now: the driver is made anew, now or when what runs has ended. */
void service_renew_driver(struct daemon_service *service);
/* Before it is looked for or started. */
void service_refresh_driver(struct daemon_service *service);

/* ---- reload.c ---- */
/* Keeps the file that the daemon begins with. 0 or -ENOMEM; takes `config` in any case. */
int reload_begin(struct daemon *daemon, struct config *config);
void reload_finish(struct daemon *daemon);
/*
 * Reads the configuration file again and applies what is different, or nothing. 0: `ret_changes` says what that was.
 * Another errno: `ret_report` says what is wrong with the file, or, when it has no errors, there is no memory. The
 * caller ends both. The log says it, too.
 */
int reload(struct daemon *daemon, struct config_changes *ret_changes, struct config_report *ret_report);

/* ---- perform.c ---- */
void perform_effects(struct daemon *daemon);

/* ---- reports.c: what drivers, probes and the sampler report ---- */
extern const struct driver_listener driver_reports;
void report_find_begin(struct daemon *daemon, size_t service);
void report_probe_begin(struct daemon *daemon, size_t service, uint64_t run, uint64_t timeout_ms);
void report_busy_begin(struct daemon *daemon, size_t service, uint64_t run, uint64_t timeout_ms);
void report_sample(void *daemon, const struct gpu_sample *sample);
/* The service that the process belongs to; NULL: none. */
const struct daemon_service *report_owner(const struct daemon *daemon, pid_t pid);
void report_sampler_trouble(void *daemon, const char *text);
void report_sampler_recovery(void *daemon, const char *text);
void report_cancel_probes(struct daemon *daemon);

/* ---- leases.c ---- */
/* Opens the state, makes the lock, and brings the leases of before to the engine. */
int leases_create(struct daemon *daemon, struct error *err);
void leases_destroy(struct daemon *daemon);
/* Keeps what has to be kept and tells the API. */
void leases_note(struct daemon *daemon, const struct lease *lease, enum lease_news news, const char *text);
/* NULL: there is no such attached lease. */
const char *leases_secret(const struct daemon *daemon, uint64_t fence);

/* ---- knowledge.c ---- */
/* After the engine and the state, and before the first event. */
int keeper_create(struct daemon *daemon, struct error *err);
/* After each event, before its effects: notes what begins with them, and plans to write what is new. */
void keeper_look(struct daemon *daemon);
/* Before the state is closed. */
void keeper_destroy(struct daemon *daemon);

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
/* False: it could not be told now, and may be soon. */
bool supervisor_notify(const char *state);
/* How often WATCHDOG=1 is due: half of what sd_watchdog_enabled(3) tells; 0: nobody watches. */
uint64_t supervisor_watchdog_ms(void);
int supervisor_take_socket(void);
bool supervisor_reads_journal(void);
