/* The event stream of the daemon, and waiting for a service on top of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "client/stream.h"

struct gpumgr_events {
	struct gpumgr *g;
	struct gpumgr_stream *stream;
	struct arena *arena; /* holds what the event points to */
	struct gpumgr_event event;
};

static int64_t time_left(uint64_t deadline_ms)
{
	uint64_t now = clock_now_ms();
	if (deadline_ms == PUMP_NEVER)
		return -1;
	return deadline_ms > now ? (int64_t)(deadline_ms - now) : 0;
}

static int fail_answer(struct gpumgr *g, const struct gpumgr_answer *answer)
{
	json_t *json = json_loadb(answer->body, answer->length, 0, NULL);
	int r = handle_fail_problem(g, answer->status, json);
	json_decref(json);
	return r;
}

/* What a part that is neither an event nor the opening means. */
static int fail_part(struct gpumgr *g, const struct gpumgr_part *part)
{
	if (part->kind == GPUMGR_PART_ANSWER)
		return fail_answer(g, part->answer);
	return handle_fail(g, GPUMGR_ERROR_ENDED, "gpumgrd ended the stream: it is going down");
}

static int await_opening(struct gpumgr_events *events, int64_t timeout_ms)
{
	const struct gpumgr_part *part;
	int r = gpumgr_stream_next(events->stream, timeout_ms, &part);
	if (r == 0)
		return handle_fail(
			events->g, GPUMGR_ERROR_TIMED_OUT, "no answer within %g s", (double)timeout_ms / 1000);
	if (r < 0)
		return r;
	return part->kind == GPUMGR_PART_OPEN ? GPUMGR_OK : fail_part(events->g, part);
}

int gpumgr_events_open(struct gpumgr *g, int64_t after, int64_t timeout_ms, struct gpumgr_events **ret_events)
{
	char last_id[24];
	*ret_events = NULL;
	struct gpumgr_events *events = calloc(1, sizeof(*events));
	if (events == NULL)
		return handle_no_memory(g);
	events->g = handle_ref(g);
	snprintf(last_id, sizeof(last_id), "%" PRId64, after);
	int r = gpumgr_stream_open(g, "GET", "/gpu/events", NULL, after >= 0 ? last_id : NULL, &events->stream);
	if (r == GPUMGR_OK)
		r = await_opening(events, timeout_ms);
	if (r != GPUMGR_OK)
		gpumgr_events_free(events);
	else
		*ret_events = events;
	return r;
}

int gpumgr_events_fd(const struct gpumgr_events *events)
{
	return gpumgr_stream_fd(events->stream);
}

void gpumgr_events_free(struct gpumgr_events *events)
{
	if (events == NULL)
		return;
	gpumgr_stream_free(events->stream);
	arena_free(events->arena);
	handle_unref(events->g);
	free(events);
}

static int make_event(struct gpumgr_events *events, const struct gpumgr_part *part)
{
	arena_free(events->arena);
	events->event = (struct gpumgr_event){ 0 };
	events->arena = arena_new();
	if (events->arena == NULL)
		return handle_no_memory(events->g);
	json_t *json = json_loadb(part->data, part->length, 0, NULL);
	record_fill(events->arena, &event_record, json, &events->event);
	if (json != NULL)
		arena_keep_json(events->arena, json);
	if (events->event.type == NULL)
		events->event.type = arena_copy(events->arena, part->type);
	events->event.json = arena_copy(events->arena, part->data);
	return arena_failed(events->arena) ? handle_no_memory(events->g) : 1;
}

int gpumgr_events_next(struct gpumgr_events *events, int64_t timeout_ms, const struct gpumgr_event **ret_event)
{
	const struct gpumgr_part *part;
	uint64_t deadline_ms = deadline_of(timeout_ms);
	*ret_event = NULL;
	for (;;) {
		int r = gpumgr_stream_next(events->stream, timeout_ms == 0 ? 0 : time_left(deadline_ms), &part);
		if (r <= 0)
			return r;
		if (part->kind != GPUMGR_PART_EVENT && part->kind != GPUMGR_PART_OPEN)
			return fail_part(events->g, part);
		if (part->kind != GPUMGR_PART_EVENT)
			continue;
		r = make_event(events, part);
		if (r == 1)
			*ret_event = &events->event;
		return r;
	}
}

/* ---- waiting for a service ---- */

static bool is_ready_state(const char *state)
{
	return state != NULL && (strcmp(state, "ready") == 0 || strcmp(state, "busy") == 0);
}

/* Whether something queued or under way may start it. */
static bool is_expected(const struct gpumgr_status *status, const struct gpumgr_service *service)
{
	if (service->transition != GPUMGR_UNKNOWN)
		return true;
	for (size_t i = 0; status->queue[i] != NULL; i++) {
		const struct gpumgr_transition *transition = status->queue[i];
		bool is_set = transition->kind != NULL &&
			(strcmp(transition->kind, "phase") == 0 || strcmp(transition->kind, "lease") == 0);
		if (is_set || (transition->target != NULL && strcmp(transition->target, service->name) == 0))
			return true;
	}
	return false;
}

struct vigil {
	struct gpumgr *g;
	const char *service;
	int64_t timeout_ms;
	uint64_t deadline_ms;
	char state[32]; /* when it was looked at; a longer one would be of a daemon to come */
	bool is_down; /* it was in error, and something might start it */
};

static int fail_service(struct vigil *vigil, const struct gpumgr_service *service)
{
	handle_fail(vigil->g, GPUMGR_ERROR_REFUSED, "%s is in error, and nothing is about to start it: %s",
		vigil->service, service->error != NULL ? service->error : "the reason is not known");
	vigil->g->error.name = "service_failed";
	return GPUMGR_ERROR_REFUSED;
}

static int judge_service(struct vigil *vigil, const struct gpumgr_status *status)
{
	const struct gpumgr_service *service = NULL;
	for (size_t i = 0; status->services[i] != NULL; i++)
		if (strcmp(status->services[i]->name, vigil->service) == 0)
			service = status->services[i];
	if (service == NULL)
		return handle_fail(vigil->g, GPUMGR_ERROR_UNKNOWN, "there is no service \"%s\"", vigil->service);
	if (is_ready_state(service->state))
		return 1;
	snprintf(vigil->state, sizeof(vigil->state), "%s", service->state != NULL ? service->state : "not known");
	vigil->is_down = strcmp(vigil->state, "error") == 0;
	return vigil->is_down && !is_expected(status, service) ? fail_service(vigil, service) : 0;
}

/* 1: ready, 0: not yet. */
static int look_at_service(struct vigil *vigil)
{
	struct gpumgr_status *status;
	int r = gpumgr_get_status(vigil->g, time_left(vigil->deadline_ms), &status);
	if (r != GPUMGR_OK)
		return r;
	r = judge_service(vigil, status);
	gpumgr_status_free(status);
	return r;
}

/* Whether the event says that the status is worth a look. */
static bool concerns(const struct vigil *vigil, const struct gpumgr_event *event)
{
	if (strcmp(event->type, "reset") == 0)
		return true;
	/* What was to start it may have ended without it; of a lease that had nothing to do, only the lease is told. */
	if (vigil->is_down && (strcmp(event->type, "transition") == 0 || strcmp(event->type, "lease") == 0))
		return true;
	return strcmp(event->type, "service.state") == 0 && event->subject != NULL &&
		strcmp(event->subject, vigil->service) == 0;
}

/* Waits for an event that makes the status worth a look. 1, or why there is none. */
static int await_news(struct vigil *vigil, struct gpumgr_events *events)
{
	const struct gpumgr_event *event;
	int r;
	do
		r = gpumgr_events_next(events, time_left(vigil->deadline_ms), &event);
	while (r == 1 && event != NULL && !concerns(vigil, event));
	if (r == 0)
		return handle_fail(vigil->g, GPUMGR_ERROR_TIMED_OUT, "%s is not ready after %g s: it is %s",
			vigil->service, (double)vigil->timeout_ms / 1000, vigil->state);
	return r;
}

int gpumgr_wait_ready(struct gpumgr *g, const char *service, int64_t timeout_ms)
{
	struct gpumgr_events *events;
	struct vigil vigil = {
		.g = g,
		.service = service,
		.timeout_ms = timeout_ms,
		.deadline_ms = deadline_of(timeout_ms),
	};
	/* The status is looked at once the stream is open, so that nothing falls in between. */
	int r = gpumgr_events_open(g, -1, timeout_ms, &events);
	if (r != GPUMGR_OK || events == NULL)
		return r;
	do {
		r = look_at_service(&vigil);
		if (r != 0)
			break;
		r = await_news(&vigil, events);
	} while (r == 1);
	gpumgr_events_free(events);
	return r == 1 ? GPUMGR_OK : r;
}
