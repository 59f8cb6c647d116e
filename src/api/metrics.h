/* Counters of the API, and GET /metrics in the text format of Prometheus (version 0.0.4). */
#pragma once

#include <stdint.h>

#include "core/notice.h"
#include "core/request.h"

struct api_host;

#define METRICS_KINDS (REQUEST_MAKE_ROOM + 1) /* the last of its enum */
#define METRICS_OUTCOMES (OUTCOME_REQUEST_ID_REUSED + 1) /* likewise */
#define METRICS_MODES (LEASE_GPU + 1) /* likewise */
#define METRICS_ENDS (LEASE_UNCONFIGURED + 1) /* likewise */
#define METRICS_BUCKETS 12
#define METRICS_STATUSES 600
#define METRICS_TYPES 16

struct metrics {
	uint64_t answers[METRICS_STATUSES];
	uint64_t transitions[METRICS_KINDS][METRICS_OUTCOMES];
	struct {
		uint64_t buckets[METRICS_BUCKETS]; /* not cumulated */
		uint64_t n;
		uint64_t sum_ms;
	} durations[METRICS_KINDS];
	struct {
		const char *type; /* a string literal of core */
		uint64_t n;
	} events[METRICS_TYPES];
	uint64_t other_events;
	uint64_t lease_grants[METRICS_MODES];
	uint64_t lease_ends[METRICS_ENDS];
};

void metrics_count_answer(struct metrics *metrics, unsigned status);
void metrics_count_lease(struct metrics *metrics, const struct lease *lease, enum lease_news news);
/* Counts the event, and the transition whose end it tells. */
void metrics_count_notice(struct metrics *metrics, const struct api_host *host, const struct notice *notice);
