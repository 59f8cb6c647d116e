/*
 * GET /gpu/events, live progress, and publishing. A reader is a position in the ring: one that is too slow finds that
 * its next event was overwritten and is told so, and nothing was kept for it in between.
 */
#include "api/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"
#include "api/sse.h"
#include "api/stream.h"
#include "base/cleanup.h"

/* Reading the ring. */

struct event_stream {
	struct stream stream;
	uint64_t next_id; /* the event to send next */
	uint64_t end_id; /* no event from here on */
	uint64_t transition; /* only events of it, 0: all */
	struct blob *first; /* sent before the events */
	struct blob *last; /* sent after them */
	bool is_final; /* the stream ends at end_id */
};

static struct blob *render_reset(uint64_t next_id)
{
	struct writer writer = { 0 };
	sse_begin(&writer, 0, "reset");
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "text", "events were missed; ask for the status");
	writer_integer(&writer, "next", (int64_t)next_id);
	writer_close(&writer, '}');
	return sse_end(&writer);
}

/* The reader fell behind, or resumes from where nothing is any more. NULL when it did not. */
static struct blob *catch_up(struct event_stream *events)
{
	const struct ring *ring = events->stream.api->ring;
	uint64_t oldest = ring_oldest_id(ring), next = ring_next_id(ring);
	if (events->next_id >= oldest && events->next_id <= next)
		return NULL;
	events->next_id = events->next_id > next ? next : oldest;
	return render_reset(events->next_id);
}

static struct blob *next_event(struct event_stream *events)
{
	struct ring *ring = events->stream.api->ring;
	while (events->next_id < events->end_id && events->next_id < ring_next_id(ring)) {
		uint64_t transition, id = events->next_id++;
		if (!ring_find(ring, id, &transition) || (events->transition != 0 && events->transition != transition))
			continue;
		struct blob *text = ring_get(ring, id);
		if (text != NULL)
			return blob_ref(text);
	}
	return NULL;
}

static struct blob *next_piece(struct stream *stream)
{
	struct event_stream *events = (struct event_stream *)stream;
	if (events->first != NULL)
		return TAKE_PTR(events->first);
	struct blob *piece = catch_up(events);
	if (piece == NULL)
		piece = next_event(events);
	if (piece != NULL || !events->is_final)
		return piece;
	stream->ended = true;
	return TAKE_PTR(events->last);
}

static void free_events(struct stream *stream)
{
	struct event_stream *events = (struct event_stream *)stream;
	blob_unref(events->first);
	blob_unref(events->last);
	free(events);
}

static const struct stream_ops event_stream_ops = {
	.kind = STREAM_EVENTS,
	.content_type = "text/event-stream",
	.has_pings = true,
	.next = next_piece,
	.free = free_events,
};

/* GET /gpu/events. */

/* The header, strictly: digits. */
static bool read_last_id(const char *text, uint64_t *ret_id)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 18 || text[digits] != 0)
		return false;
	*ret_id = strtoull(text, NULL, 10);
	return true;
}

void events_get(struct request *request)
{
	struct api *api = request->api;
	uint64_t next_id = ring_next_id(api->ring), last_id;
	bool has_follow = (request->parameters.given & PARAMETER_FOLLOW) != 0;
	bool is_final = has_follow && !request->parameters.follow;
	if (request->headers.last_event_id != NULL) {
		if (!read_last_id(request->headers.last_event_id, &last_id)) {
			reply_problem(
				request, "bad_request", "Last-Event-ID must be the id of an event, a whole number");
			return;
		}
		next_id = last_id + 1;
	} else if (is_final) {
		next_id = ring_oldest_id(api->ring);
	}
	struct event_stream *events = calloc(1, sizeof(*events));
	if (events == NULL)
		return;
	events->next_id = next_id;
	events->end_id = is_final ? ring_next_id(api->ring) : UINT64_MAX;
	events->is_final = is_final;
	events->first = blob_from(":\n\n", 3); /* headers alone may be held back on their way */
	stream_open(request, &events->stream, &event_stream_ops);
}

/* Live progress. */

int events_follow_transition(struct request *request, uint64_t id, uint64_t first_event)
{
	struct writer writer = { 0 };
	struct event_stream *events = calloc(1, sizeof(*events));
	if (events == NULL)
		return -ENOMEM;
	events->transition = id != 0 ? id : UINT64_MAX; /* it was refused before it became one */
	events->next_id = first_event;
	events->end_id = UINT64_MAX;
	sse_begin(&writer, 0, "accepted");
	json_transition_by_id_begin(&writer, request->api->host, id);
	writer_close(&writer, '}');
	events->first = sse_end(&writer);
	return stream_open(request, &events->stream, &event_stream_ops);
}

void events_finish_transition(struct request *request, unsigned status, const char *body, size_t length)
{
	struct event_stream *events = (struct event_stream *)request->stream;
	struct writer writer = { 0 };
	sse_begin(&writer, 0, "result");
	writer_open(&writer, NULL, '{');
	writer_integer(&writer, "status", status);
	writer_json(&writer, "body", body, length);
	writer_close(&writer, '}');
	events->last = sse_end(&writer);
	events->end_id = ring_next_id(request->api->ring);
	events->is_final = true;
	stream_wake(&events->stream);
}

/* Publishing. */

/* Wakes a reader for the event. One that waits for events of another transition passes over it where it is. */
static void tell(struct stream *stream, uint64_t id, uint64_t transition)
{
	struct event_stream *events = (struct event_stream *)stream;
	bool is_other = events->transition != 0 && events->transition != transition;
	if (is_other && stream->suspended && events->next_id == id)
		events->next_id = id + 1;
	else if (!is_other)
		stream_wake(stream);
}

void api_publish(struct api *api, const struct notice *notice)
{
	uint64_t id = ring_next_id(api->ring);
	struct note *note = note_make(notice);
	metrics_count_notice(&api->metrics, api->host, notice);
	if (note == NULL)
		return;
	ring_add(api->ring, note, notice->transition);
	struct stream *stream;
	TAILQ_FOREACH(stream, &api->streams.queues[STREAM_EVENTS], link)
	tell(stream, id, notice->transition);
}
