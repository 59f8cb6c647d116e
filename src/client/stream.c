/* Answers that come bit by bit, and the public stream of any route. */
#include "client/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* ---- the row of parts ---- */

static bool add(struct flow *flow, enum gpumgr_part_kind kind, const char *const texts[2], const char *data, size_t n)
{
	size_t type_size = texts[0] != NULL ? strlen(texts[0]) + 1 : 0;
	size_t id_size = texts[1] != NULL ? strlen(texts[1]) + 1 : 0;
	struct part *part = malloc(sizeof(*part) + type_size + id_size + n + 1);
	if (part == NULL) {
		flow->has_failed = true;
		return false;
	}
	char *bytes = part->bytes;
	*part = (struct part){ .kind = kind, .length = n };
	if (type_size > 0)
		part->type = memcpy(bytes, texts[0], type_size);
	if (id_size > 0)
		part->id = memcpy(bytes + type_size, texts[1], id_size);
	if (n > 0)
		memcpy(bytes + type_size + id_size, data, n);
	bytes[type_size + id_size + n] = '\0';
	part->data = bytes + type_size + id_size;
	*flow->last = part;
	flow->last = &part->next;
	return true;
}

static bool handle_event(void *context, const struct sse_event *event)
{
	const char *const texts[2] = { event->type, event->id };
	return add(context, GPUMGR_PART_EVENT, texts, event->data, event->data_length);
}

static bool handle_bytes(void *context, const char *bytes, size_t n)
{
	static const char *const none[2] = { NULL };
	return add(context, GPUMGR_PART_BYTES, none, bytes, n);
}

static bool handle_open(void *context)
{
	static const char *const none[2] = { NULL };
	return add(context, GPUMGR_PART_OPEN, none, NULL, 0);
}

struct part *flow_take(struct flow *flow)
{
	struct part *part = flow->first;
	if (part == NULL)
		return NULL;
	flow->first = part->next;
	if (flow->first == NULL)
		flow->last = &flow->first;
	return part;
}

/* ---- flows ---- */

int flow_init(struct flow *flow, struct gpumgr *g)
{
	*flow = (struct flow){ .last = &flow->first };
	int r = pump_init(&flow->pump);
	if (r == 0)
		flow->g = handle_ref(g);
	return r;
}

void flow_end(struct flow *flow)
{
	flow->exchange = exchange_free(flow->exchange);
	for (struct part *part = flow_take(flow); part != NULL; part = flow_take(flow))
		free(part);
}

void flow_finish(struct flow *flow)
{
	flow_end(flow);
	pump_finish(&flow->pump);
	handle_unref(flow->g);
}

int flow_begin(struct flow *flow, unsigned kinds, const char *method, const char *path, const char *body,
	const char *last_event_id)
{
	struct exchange_request request = {
		.method = method,
		.path = path,
		.body = body,
		.last_event_id = last_event_id,
		.handle_event = (kinds & FLOW_EVENTS) != 0 ? handle_event : NULL,
		.handle_bytes = (kinds & FLOW_BYTES) != 0 ? handle_bytes : NULL,
		.handle_open = handle_open,
		.context = flow,
		.connects_anew = true,
	};
	flow_end(flow);
	return exchange_begin(&flow->pump, &flow->g->address, &request, &flow->exchange);
}

int flow_turn(struct flow *flow)
{
	int r = pump_turn(&flow->pump, exchange_done);
	return flow->has_failed ? -ENOMEM : r;
}

bool flow_is_over(const struct flow *flow)
{
	return flow->exchange == NULL || exchange_is_over(flow->exchange);
}

int flow_wait(struct flow *flow, uint64_t deadline_ms)
{
	int r = pump_wait(&flow->pump, flow->g->interrupt_fd, deadline_ms);
	return r >= 0 ? r : handle_fail(flow->g, GPUMGR_ERROR_INTERRUPTED, "interrupted");
}

/* ---- the public stream ---- */

struct gpumgr_stream {
	struct flow flow;
	struct part *part; /* that the caller looks at */
	struct gpumgr_part public;
	struct gpumgr_answer answer;
	bool ended;
};

int gpumgr_stream_open(struct gpumgr *g, const char *method, const char *path, const char *body,
	const char *last_event_id, struct gpumgr_stream **ret_stream)
{
	*ret_stream = NULL;
	int r = handle_check(g);
	if (r != GPUMGR_OK)
		return r;
	struct gpumgr_stream *stream = calloc(1, sizeof(*stream));
	if (stream == NULL)
		return handle_no_memory(g);
	r = flow_init(&stream->flow, g);
	if (r < 0) {
		free(stream);
		return handle_errno(g, r, "cannot begin a connection");
	}
	r = flow_begin(&stream->flow, FLOW_EVENTS | FLOW_BYTES, method, path, body, last_event_id);
	if (r < 0) {
		gpumgr_stream_free(stream);
		return handle_errno(g, r, "cannot begin a request");
	}
	*ret_stream = stream;
	return GPUMGR_OK;
}

int gpumgr_stream_fd(const struct gpumgr_stream *stream)
{
	return stream->flow.pump.fd;
}

void gpumgr_stream_free(struct gpumgr_stream *stream)
{
	if (stream == NULL)
		return;
	free(stream->part);
	flow_finish(&stream->flow);
	free(stream);
}

static int hand_out_part(struct gpumgr_stream *stream, const struct gpumgr_part **ret_part)
{
	const struct part *part = stream->part;
	stream->public = (struct gpumgr_part){
		.kind = part->kind,
		.type = part->type,
		.id = part->id,
		.data = part->data,
		.length = part->length,
	};
	*ret_part = &stream->public;
	return 1;
}

/* Nothing more will come: the last part, or why there is none. */
static int conclude(struct gpumgr_stream *stream, const struct gpumgr_part **ret_part)
{
	struct exchange *exchange = stream->flow.exchange;
	stream->ended = true;
	int r = handle_fail_exchange(stream->flow.g, exchange);
	if (r != GPUMGR_OK)
		return r;
	bool streamed = exchange_was_streamed(exchange);
	stream->public = (struct gpumgr_part){ .kind = streamed ? GPUMGR_PART_END : GPUMGR_PART_ANSWER, .data = "" };
	if (!streamed) {
		stream->answer.status = exchange_status(exchange);
		stream->answer.type = exchange_type(exchange);
		stream->answer.body = exchange_body(exchange, &stream->answer.length);
		stream->public.answer = &stream->answer;
	}
	*ret_part = &stream->public;
	return 1;
}

int gpumgr_stream_next(struct gpumgr_stream *stream, int64_t timeout_ms, const struct gpumgr_part **ret_part)
{
	struct flow *flow = &stream->flow;
	uint64_t deadline_ms = deadline_of(timeout_ms);
	*ret_part = NULL;
	int r = handle_check(flow->g);
	if (r != GPUMGR_OK)
		return r;
	free(stream->part);
	stream->part = NULL;
	for (;;) {
		stream->part = flow_take(flow);
		if (stream->part != NULL)
			return hand_out_part(stream, ret_part);
		if (stream->ended)
			return handle_fail(flow->g, GPUMGR_ERROR_ENDED, "the stream has ended");
		if (flow_is_over(flow))
			return conclude(stream, ret_part);
		r = flow_turn(flow);
		if (r < 0)
			return handle_errno(flow->g, r, "the stream");
		if (flow->first != NULL || flow_is_over(flow))
			continue;
		r = timeout_ms == 0 ? 0 : flow_wait(flow, deadline_ms);
		if (r <= 0)
			return r;
	}
}
