/*
 * The configuration file: read, checked whole, and handed out as plain structs.
 *
 * Everything a file gets wrong is found in one pass and reported as `file:line:column: path: problem (hint)`.
 * schema.c holds ONE table of all options; parsing, defaults, checks, `config reference` and the JSON schema
 * all come from it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/units.h"

struct string_list {
	size_t n;
	char **items;
};

enum gpu_backend_choice { GPU_BACKEND_AUTO, GPU_BACKEND_NVML, GPU_BACKEND_SIM, GPU_BACKEND_NONE };

struct gpu_config {
	enum gpu_backend_choice backend;
	struct size_value reserve;
	size_t n_gpus; /* gpu.gpus: sizes where there are no readings */
	uint32_t *gpus_mib;
	uint64_t interval_ms;
	char *sim_dir; /* NULL unless gpu.sim */
	size_t n_sim_gpus;
	uint32_t *sim_gpus_mib;
};

enum lock_backend_choice { LOCK_BACKEND_LOCAL, LOCK_BACKEND_REDIS };

struct lock_config {
	enum lock_backend_choice backend;
	char *url; /* may hold a password: never log it */
	char *key;
	uint64_t ttl_ms;
};

struct lease_config {
	uint64_t ttl_ms;
	uint64_t wait_ms;
};

struct phase_config {
	int number;
	char *name; /* NULL when not given */
	struct string_list service_names;
	size_t *services; /* the same as indexes; service_names.n of them */
	bool is_retired; /* merged: a later file has it no more */
};

enum process_type { PROCESS_SIMPLE, PROCESS_FORKING };

struct process_config {
	struct string_list command; /* argv; with `shell` one string */
	bool shell;
	struct string_list environment; /* "NAME=VALUE" */
	char *directory; /* NULL: / */
	char *user; /* NULL: the daemon's */
	enum process_type type;
	char *pid_file; /* NULL */
	struct string_list stop_command; /* n == 0: none; one item given as a string runs in a shell iff `shell` */
	int stop_signal;
	uint64_t stop_timeout_ms;
	uint64_t log_size; /* bytes */
};

enum external_start { EXTERNAL_ADOPT, EXTERNAL_STOP };

struct container_config {
	char *name; /* NULL with compose */
	char *compose_project;
	char *compose_service;
	char *engine; /* unix:///... */
	uint64_t stop_timeout_ms;
	enum external_start on_external_start;
};

enum probe_kind { PROBE_NONE, PROBE_HTTP, PROBE_TCP, PROBE_COMMAND, PROBE_CONTAINER };

/* A health check or a busy probe. */
struct probe_config {
	enum probe_kind kind;
	char *address; /* http: URL; tcp: HOST:PORT. ":8080/path" and ":8080" mean the service's own address
			  (containers) */
	struct string_list command;
	char *json; /* busy, http: path into the answer, "a.b[0].c" */
	double above; /* busy: more than this is busy */
};

/* What becomes of a service when the daemon is told to end. */
enum on_exit { ON_EXIT_KEEP, ON_EXIT_STOP };

enum service_driver { DRIVER_PROCESS, DRIVER_CONTAINER };

struct gpu_selector {
	int index; /* -1 with uuid */
	char *uuid; /* NULL with index */
};

struct service_config {
	char *name;
	struct size_value vram;
	int priority;
	bool any_gpu;
	size_t n_selectors;
	struct gpu_selector *selectors;
	unsigned gpu_count;
	bool pinned;
	bool yield_set;
	int64_t yield_after_ms; /* INT64_MAX: never (only when yield_set) */
	int64_t preempt_after_ms; /* INT64_MAX: never */
	unsigned max_leases;
	enum on_exit on_exit;
	enum service_driver driver;
	struct process_config process;
	struct container_config container;
	struct probe_config health;
	uint64_t health_timeout_ms;
	uint64_t health_interval_ms;
	unsigned health_retries;
	struct probe_config busy;
	unsigned line; /* where it stands in the file, for warnings */
	bool is_retired; /* merged: a later file has it no more */
};

struct config {
	char *path;
	char *socket; /* NULL: default */
	unsigned socket_mode;
	char *socket_group;
	bool socket_group_set; /* written in the file: then a missing group is an error */
	struct string_list listen;
	char *token_file;
	bool open;
	struct string_list allowed_hosts;
	char *state_dir; /* NULL: default */
	char *log_dir; /* NULL: default */
	struct gpu_config gpu;
	struct lock_config lock;
	struct lease_config lease;
	size_t n_phases; /* by number, ascending */
	struct phase_config *phases;
	size_t n_services; /* in the order of the file */
	struct service_config *services;
};

/* What a file says, problem by problem. */
struct config_problem {
	bool is_warning;
	unsigned line, column; /* 1-based; 0: of the whole file */
	char *path; /* "services.comfyui.vram", "" for the whole file */
	char *message; /* "unknown key (did you mean `command`?)" */
};

struct config_report {
	char *file;
	size_t n;
	struct config_problem *problems; /* in the order of the file */
	size_t n_errors;
};

/*
 * Reads and checks `path`. 0: `ret_config` is the caller's (config_free); the report may hold warnings.
 * -EINVAL: the report holds errors, in one pass. Another negative errno: the file could not be read (the report
 * says so too). The report is filled in any case and must be ended with config_report_finish().
 * `${env.NAME}` is expanded from the process's environment.
 */
int config_load(const char *path, struct config **ret_config, struct config_report *report);

/* The same from memory; `name` stands in messages for the file. */
int config_parse(
	const char *name, const char *text, size_t length, struct config **ret_config, struct config_report *report);

struct config *config_free(struct config *config);
void config_report_finish(struct config_report *report);

/* One problem as the line that people and editors read: "FILE:LINE:COL: PATH: MESSAGE". The caller frees it. NULL: no
 * memory. */
char *config_problem_line(const struct config_report *report, const struct config_problem *problem);

/* ---- another file, while the daemon runs ---- */

enum config_difference {
	CONFIG_SAME,
	CONFIG_DIFFERS, /* in what counts at once */
	CONFIG_DIFFERS_IN_RUN, /* in what a service that runs keeps until it is started anew */
};

enum config_difference config_compare_services(const struct service_config *a, const struct service_config *b);

/* What is different in another file: names of services, "phase 4", paths of other options. */
struct config_changes {
	struct string_list added;
	struct string_list removed;
	struct string_list changed; /* counts at once */
	struct string_list changed_runs; /* services: what runs goes on as it was until it is started anew */
	struct string_list at_start; /* options that are read at the start of the daemon only: nothing changed */
};

/* `now` is merged. 0 or -ENOMEM; end it with config_changes_finish() in any case. */
int config_find_changes(const struct config *now, const struct config *next, struct config_changes *ret_changes);
void config_changes_finish(struct config_changes *changes);
bool config_changes_any(const struct config_changes *changes);
/* A line for each change. The caller frees it; NULL: no memory. */
char *config_changes_text(const struct config_changes *changes);

/*
 * `next` in the place of `now` (merged itself; NULL: it is the first): services and phases of `now` keep their indexes,
 * those that `next` has not are retired, new ones follow. What is read at the start only stays as it is in `now`.
 * Everything but the arrays is borrowed from the files that the parts come from. 0 or -ENOMEM.
 */
int config_succeed(const struct config *now, const struct config *next, struct config **ret_merged);
struct config *config_free_merged(struct config *merged);
/* Whether a service or phase there comes from that file (what is not of either comes from the last one, or, read at the
 * start, from the first); and whether this service does. */
bool config_lends_to(const struct config *config, const struct config *merged);
bool config_owns_service(const struct config *config, const struct service_config *service);

/* Index of a service or phase; SIZE_MAX: unknown. A phase is named by its name or its number, exactly ("4x" is
 * neither). */
size_t config_find_service(const struct config *config, const char *name);
size_t config_find_phase(const struct config *config, const char *name_or_number);

/* `config reference`: every option with type, default and meaning, as text for a terminal. The caller frees it. */
char *config_reference(void);

/* `config schema`: JSON Schema (2020-12) of the file, for editors. The caller frees it. */
char *config_schema(void);
