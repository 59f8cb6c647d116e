/*
 * What the tests of the probes share: a loop with a prober whose end checks that nothing is left, and a little server
 * in threads that misbehaves as the path asks.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "health/busy.h"

struct bench {
	uv_loop_t loop;
	struct prober *prober;
	int n_fds; /* at the start */
};

/* One answer, as the handler got it. */
struct answer {
	int n; /* how often the handler was called */
	bool passed;
	char text[512];
	uint64_t took_ms;
};

#define SOON_MS 4000 /* less than anything here waits in vain, and enough for a machine that has other work */

void bench_begin(struct bench *bench);
/* Destroys the prober if it is still there, closes the loop, and asserts that no handle, fd or child is left. */
void bench_end(struct bench *bench);

/* As probe_start() and busy_start(); commands run as the test does. */
int bench_start(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms, probe_handler handler,
	void *context, struct probe **ret_probe);
int bench_start_busy(struct prober *prober, const struct probe_config *config, uint64_t timeout_ms,
	busy_handler handler, void *context, struct probe **ret_probe);

/* A whole check, to its answer. */
struct answer ask(struct bench *bench, const struct probe_config *config, uint64_t timeout_ms);
void take_answer(void *context, bool passed, const char *text);

uint64_t now_ms(void);
int count_fds(void);

/* A listening socket on 127.0.0.1. */
int listen_somewhere(uint16_t *ret_port);
/* Whether a service could bind it now, also one that does not ask for SO_REUSEADDR. */
bool is_free_port(uint16_t port);

struct server;
struct server *server_start(void);
void server_stop(struct server *server);
uint16_t server_port(const struct server *server);
/* Connections accepted so far. */
int server_count(const struct server *server);
/* What /body answers with from now on; copied. */
void server_set_body(struct server *server, const void *body, size_t size);
