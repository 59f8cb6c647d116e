/*
 * Streams on libmicrohttpd: a content reader that suspends its connection instead of returning nothing (a reader that
 * returns 0 without that is called again at once, millions of times a second). Knows nothing of what is sent.
 */
#include "api/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "api/peer.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/server.h"

#define BLOCK_BYTES 128 /* what an HTTP/1.0 client gets at a time; others get as much as there is */
/* A stream is pinged every 6 s, and within 9 s however many there are: clients are promised 10, see also peer.h. */
#define PING_MS 6000
#define PING_TICK_MS 50
#define PING_TICKS 60 /* so many at most for one round of all */
#define STUCK_MS 60000 /* a client that takes nothing for so long is cut off */
#define STALLED_MS 100 /* between two looks whether a client takes something again */

static const char ping[] = ":\n\n";

static void handle_stalled_timer(uv_timer_t *timer);

static size_t copy_piece(struct stream *stream, char *buffer, size_t size)
{
	size_t left = stream->piece->length - stream->offset;
	size_t n = left < size ? left : size;
	memcpy(buffer, stream->piece->data + stream->offset, n);
	stream->offset += n;
	if (stream->offset == stream->piece->length)
		stream->piece = blob_unref(stream->piece);
	return n;
}

static size_t fill(struct stream *stream, char *buffer, size_t size)
{
	size_t filled = 0;
	while (filled < size) {
		if (stream->piece == NULL) {
			stream->offset = 0;
			stream->piece = stream->ended ? NULL : stream->ops->next(stream);
		}
		if (stream->piece == NULL) {
			stream->ended = stream->ended || stream->ending;
			break;
		}
		filled += copy_piece(stream, buffer + filled, size - filled);
	}
	return filled;
}

static ssize_t suspend(struct stream *stream)
{
	stream->suspended = true;
	api_suspend(stream->request);
	return 0;
}

/* Waits until the client takes something; meanwhile nothing is lost but what its kind of stream drops. */
static ssize_t stall(struct stream *stream)
{
	struct streams *streams = &stream->api->streams;
	stream->is_stalled = true;
	LIST_INSERT_HEAD(&streams->stalled, stream, stalled_link);
	if (!uv_is_active((uv_handle_t *)&streams->stalled_timer))
		uv_timer_start(&streams->stalled_timer, handle_stalled_timer, STALLED_MS, STALLED_MS);
	return suspend(stream);
}

static void end_stall(struct stream *stream)
{
	if (!stream->is_stalled)
		return;
	stream->is_stalled = false;
	LIST_REMOVE(stream, stalled_link);
}

static size_t room_for(struct stream *stream, size_t size)
{
	size_t room = stream->is_patient ? peer_room(stream->request->client, &stream->window_bytes) : size;
	return room < size ? room : size;
}

static ssize_t handle_read(void *context, uint64_t position, char *buffer, size_t size)
{
	struct stream *stream = context;
	(void)position;
	if (stream->request == NULL || stream->request->gone)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	size = room_for(stream, size);
	if (size == 0)
		return stall(stream);
	stream->progress_ms = uv_now(stream->api->loop);
	size_t filled = fill(stream, buffer, size);
	if (filled == 0 && stream->ping_due && !stream->ended && size >= sizeof(ping)) {
		memcpy(buffer, ping, sizeof(ping) - 1);
		filled = sizeof(ping) - 1;
	}
	stream->ping_due = false;
	if (filled > 0)
		return (ssize_t)filled;
	return stream->ended ? MHD_CONTENT_READER_END_OF_STREAM : suspend(stream);
}

static void handle_free(void *context)
{
	struct stream *stream = context;
	if (stream->request != NULL)
		stream_detach(stream);
	blob_unref(stream->piece);
	stream->ops->free(stream);
}

/* Keeping alive. */

static bool is_stuck(const struct stream *stream, uint64_t now)
{
	bool waits_for_client = !stream->suspended || stream->is_stalled;
	return waits_for_client && !stream->is_patient && now - stream->progress_ms > STUCK_MS;
}

static void look_after(struct stream *stream, uint64_t now)
{
	if (is_stuck(stream, now)) {
		shutdown(stream->request->client->fd, SHUT_RDWR);
		return;
	}
	/* Who does not read is not sent more and more of what only says that we are here. */
	if (!stream->ops->has_pings || !stream->suspended || peer_has_unread(stream->request->client))
		return;
	stream->ping_due = true;
	stream_wake(stream);
}

/* A part at a time: thousands of pings at once would hold up everything else. */
static void look_after_some(struct stream_queue *queue, unsigned most, uint64_t now)
{
	struct stream *stream;
	while (most-- > 0 && (stream = TAILQ_FIRST(queue)) != NULL && now - stream->pinged_ms >= PING_MS) {
		stream->pinged_ms = now;
		TAILQ_REMOVE(queue, stream, link);
		TAILQ_INSERT_TAIL(queue, stream, link);
		look_after(stream, now);
	}
}

static void handle_ping_timer(uv_timer_t *timer)
{
	struct api *api = timer->data;
	struct streams *streams = &api->streams;
	uint64_t now = uv_now(api->loop), next = now + PING_MS;
	for (size_t kind = 0; kind < STREAM_KINDS; kind++) {
		look_after_some(&streams->queues[kind], streams->n[kind] / PING_TICKS + 1, now);
		const struct stream *first = TAILQ_FIRST(&streams->queues[kind]);
		if (first != NULL && first->pinged_ms + PING_MS < next)
			next = first->pinged_ms + PING_MS;
	}
	uv_timer_start(timer, handle_ping_timer, next > now + PING_TICK_MS ? next - now : PING_TICK_MS, 0);
}

static void handle_stalled_timer(uv_timer_t *timer)
{
	struct api *api = timer->data;
	struct stream *stream, *next;
	for (stream = LIST_FIRST(&api->streams.stalled); stream != NULL; stream = next) {
		next = LIST_NEXT(stream, stalled_link);
		if (room_for(stream, SIZE_MAX) > 0)
			stream_wake(stream);
	}
	if (LIST_EMPTY(&api->streams.stalled))
		uv_timer_stop(timer);
}

void streams_init(struct api *api)
{
	struct streams *streams = &api->streams;
	for (size_t kind = 0; kind < STREAM_KINDS; kind++)
		TAILQ_INIT(&streams->queues[kind]);
	LIST_INIT(&streams->stalled);
	uv_timer_init(api->loop, &streams->ping_timer);
	uv_timer_init(api->loop, &streams->stalled_timer);
	api_handle_opened(api);
	api_handle_opened(api);
	streams->ping_timer.data = streams->stalled_timer.data = api;
}

void streams_finish(struct api *api)
{
	api_close_handle(api, (uv_handle_t *)&api->streams.ping_timer);
	api_close_handle(api, (uv_handle_t *)&api->streams.stalled_timer);
}

/* Opening. */

static unsigned count_all(const struct api *api)
{
	unsigned n = 0;
	for (size_t kind = 0; kind < STREAM_KINDS; kind++)
		n += api->streams.n[kind];
	return n;
}

static void add(struct request *request, struct stream *stream)
{
	struct api *api = request->api;
	stream->request = request;
	request->stream = stream;
	stream->pinged_ms = uv_now(api->loop);
	TAILQ_INSERT_TAIL(&api->streams.queues[stream->ops->kind], stream, link);
	api->streams.n[stream->ops->kind]++;
	if (count_all(api) == 1)
		uv_timer_start(&api->streams.ping_timer, handle_ping_timer, PING_MS, 0);
}

/* HEAD is answered with the headers alone. */
static int answer_head(struct request *request, struct stream *stream, const struct stream_ops *ops)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
	ops->free(stream);
	if (response == NULL)
		return -ENOMEM;
	reply_add_headers(response, ops->content_type);
	reply_response(request, 200, response);
	return 0;
}

static bool has_place(const struct api *api, enum stream_kind kind)
{
	return kind == STREAM_LEASE || api->streams.n[STREAM_EVENTS] + api->streams.n[STREAM_LOG] < API_STREAMS_MAX;
}

int stream_open(struct request *request, struct stream *stream, const struct stream_ops *ops)
{
	struct api *api = request->api;
	stream->ops = ops;
	stream->api = api;
	stream->progress_ms = uv_now(api->loop);
	if (request->is_head)
		return answer_head(request, stream, ops);
	if (!has_place(api, ops->kind)) {
		ops->free(stream);
		reply_problem(request, "too_many_requests", "%d streams are open already; close one", API_STREAMS_MAX);
		return -EMFILE;
	}
	int r = watch_start(request);
	struct MHD_Response *response = r < 0
		? NULL
		: MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, handle_read, stream, handle_free);
	if (response == NULL) {
		ops->free(stream);
		return r < 0 ? r : -ENOMEM;
	}
	reply_add_headers(response, ops->content_type);
	add(request, stream);
	reply_response(request, 200, response);
	return 0;
}

void stream_wake(struct stream *stream)
{
	if (!stream->suspended || stream->request == NULL)
		return;
	end_stall(stream);
	stream->suspended = false;
	api_resume(stream->request);
}

void stream_gone(struct stream *stream)
{
	if (stream->ops->handle_gone != NULL)
		stream->ops->handle_gone(stream);
	stream_wake(stream);
}

void stream_detach(struct stream *stream)
{
	struct api *api = stream->api;
	if (stream->ops->handle_gone != NULL)
		stream->ops->handle_gone(stream);
	end_stall(stream);
	stream->request->stream = NULL;
	stream->request = NULL;
	TAILQ_REMOVE(&api->streams.queues[stream->ops->kind], stream, link);
	api->streams.n[stream->ops->kind]--;
	if (count_all(api) == 0 && !api->closing)
		uv_timer_stop(&api->streams.ping_timer);
}

void stream_end_all(struct api *api)
{
	for (size_t kind = 0; kind < STREAM_KINDS; kind++) {
		struct stream *stream;
		TAILQ_FOREACH(stream, &api->streams.queues[kind], link)
		{
			stream->ending = true;
			stream->is_patient = false;
			stream_wake(stream);
		}
	}
}
