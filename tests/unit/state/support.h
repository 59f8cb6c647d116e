/* What the tests of the store share: a folder and a loop of their own, whose end checks that nothing is left. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "state/state.h"

struct bench {
	char folder[64];
	char path[96]; /* of the database, in it */
	uv_loop_t loop;
	uv_timer_t alive; /* as long as nothing else keeps a loop alive it runs no timers */
	struct state *state;
	char *moved; /* by the last bench_open() */
	int n_fds;
};

/* cmocka's setup and teardown. */
int bench_begin(void **state);
/* In memory where that is possible: for tests that open the store thousands of times. */
int bench_begin_in_memory(void **state);
int bench_end(void **state);

/* Fails the test unless the store opens. */
void bench_open(struct bench *bench, uint64_t fence_floor);
/* Whatever comes of it. */
int bench_try_open(struct bench *bench, uint64_t fence_floor, struct error *err);
void bench_close(struct bench *bench);
/* The loop, for so long. */
void run_for(struct bench *bench, uint64_t ms);

uint64_t reserve(struct bench *bench, uint64_t count);
/* A lease with that fence; `variant` makes it another one in every field. */
void put(struct bench *bench, uint64_t fence, unsigned variant);
void fill_lease(struct state_lease *lease, uint64_t fence, unsigned variant);

/* The fences that are there, in order; every lease must be one of fill_lease()'s, whatever the variant. */
size_t read_fences(struct bench *bench, uint64_t *fences, size_t max);
/* The variant of the lease with that fence; -1: there is none. */
int read_variant(struct bench *bench, uint64_t fence);

bool file_exists(const char *path);
void write_file(const char *path, const void *data, size_t size);
/* The caller frees it. */
char *read_file(const char *path, size_t *ret_size);
/* The same beside the database: suffix "-wal", ".lock", ... */
char *beside(const struct bench *bench, const char *suffix, char *buffer, size_t size);

/* Runs `act` in a child that is then killed with SIGKILL, its store open: what a kill -9 leaves. */
void run_and_kill(struct bench *bench, void (*act)(struct bench *bench));

/* Runs `act` and returns what it logged, which must not be more than a pipe holds. The caller frees it. */
char *run_and_listen(struct bench *bench, void (*act)(struct bench *bench));

void remove_folder(const char *path);
uint64_t now_us(void);
