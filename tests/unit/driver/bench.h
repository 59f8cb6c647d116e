/*
 * A place to try a driver service in: a loop, folders, a configuration, and a listener that remembers. Waiting means
 * running the loop until something has happened, with a deadline that only a broken driver reaches.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/log_file.h"
#include "driver/driver.h"
#include "driver/proc.h"

struct bench {
	uv_loop_t loop;
	char dir[64];
	char log_dir[80], state_dir[80];
	char instance[32], name[32], mark[64];
	struct driver_environment environment;
	struct driver_listener listener;
	struct driver_shared shared;
	struct service_config config;
	char *words[16], *stop_words[16], *variables[16];
	char health[64];
	struct driver_service *service;
	/* What was reported, counted; and the last of each. */
	unsigned found, changed, healths, troubles, started, start_failed, main_pids, leader_ended, gone, hindered,
		refused;
	bool alive, external, stopping, untold, healthy, trouble_over, by_others, is_hindered;
	enum driver_failure failure;
	pid_t found_pid, pid, main_pid;
	uint64_t run;
	char text[4096];
	char *order; /* a letter per report: F C S f M L G P R H T */
};

/* The ways in which the same tests are run: `state` of cmocka points to one of these. */
struct bench_way {
	const char *name;
	unsigned without;
};
extern const struct bench_way bench_ways[];
#define BENCH_WAYS 4

/* A cgroup beside that of the service, which the teardown removes too. */
#define BENCH_OTHER_PLACE "place"

/* cmocka's setup and teardown. The teardown fails when anything is left behind, and removes it. */
int bench_setup(void **state);
int bench_teardown(void **state);

/* The command: words up to NULL. With `shell` there is one. */
void bench_command(struct bench *bench, int shell, ...);
void bench_stop_command(struct bench *bench, int shell, ...);
void bench_variable(struct bench *bench, const char *variable);

/* Makes a new driver service, as after a restart of the daemon, if there is one already. */
void bench_create(struct bench *bench);
/* The old one is let go and the loop has closed its handles. */
void bench_destroy(struct bench *bench);

/* Runs the loop until the condition holds; false at the deadline. */
bool bench_run_until(
	struct bench *bench, bool (*holds)(struct bench *bench, const void *argument), const void *argument);
/* The loop turns for a while: what should not happen has time to. */
void bench_idle(struct bench *bench, uint64_t ms);
void bench_wait(struct bench *bench, const unsigned *count, unsigned wanted);
void bench_wait_log(struct bench *bench, const char *text);
void bench_wait_file(struct bench *bench, const char *path);
void bench_wait_dead(struct bench *bench, pid_t pid);

/* Starts and waits for the outcome. */
void bench_start(struct bench *bench);
void bench_start_fails(struct bench *bench, const char *text);
/* Stops and waits for the end. */
void bench_stop(struct bench *bench, bool force);
void bench_find(struct bench *bench, bool healthy);

char *bench_log(struct bench *bench);
void bench_write_file(const char *path, const char *text, unsigned mode);
char *bench_path(struct bench *bench, const char *name);
/* A number that a service has written into a file, as soon as it is there. */
pid_t bench_read_pid(struct bench *bench, const char *name);
/* Processes that carry the mark of the service, zombies not counted. */
size_t bench_count_processes(const struct bench *bench);
/* Zombies among the children of this process. */
size_t bench_count_zombies(void);
/* Whether this host and this way of testing give a service one. */
bool bench_can_have_cgroup(const struct bench *bench);
bool bench_has_cgroup(const struct bench *bench);
/* The small program that misbehaves on request. */
const char *bench_helper(void);
uint16_t bench_free_port(void);
