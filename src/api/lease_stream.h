/*
 * Attached leases: a connection that waits for a lease, and then is the lease as long as it stands.
 *
 * It never keeps more than a few events: of `queued` the latest, of `warning` the first few that were not taken. A
 * client that reads nothing loses only those; its lease goes on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "core/request.h"

struct api;
struct lease_stream;
struct request;

#define LEASE_STREAM_BUCKETS 1024

/* Those that wait by their transition, those that hold by their fence. Both are dense, so they are their own hash. */
struct lease_streams {
	LIST_HEAD(lease_stream_list, lease_stream) waiting[LEASE_STREAM_BUCKETS], holding[LEASE_STREAM_BUCKETS];
	unsigned n_waiting;
	uint64_t version; /* of the status that those who wait were last told of */
	bool is_behind; /* not all were told: it was too soon again */
	uv_timer_t timer;
};

void lease_streams_init(struct api *api);
/* Before the handles are closed. */
void lease_streams_finish(struct api *api);

/* Answers the request with the stream of a waiter for transition `id` (0: it never became one). Negative errno. */
int lease_stream_wait(struct request *request, uint64_t id);
/* Answers the request with the stream of the holder; an earlier stream of the lease ends. Negative errno. */
int lease_stream_hold(struct request *request, const struct lease *lease);

/* What the waiter waited for: the lease, or why not. */
void lease_stream_grant(struct request *request, const struct lease *lease, const struct transition *transition);
void lease_stream_fail(struct request *request, unsigned status, const char *problem, size_t length);

/* Whether a connection stands for the lease. */
bool lease_stream_exists(struct api *api, uint64_t fence);
