/*
 * Streams on libmicrohttpd: a content reader that suspends its connection instead of returning nothing (a reader that
 * returns 0 without that is called again at once, millions of times a second). Knows nothing of what is sent.
 */
#include "api/stream.h"

#include <errno.h>
#include <sys/socket.h>

#include "api/reply.h"
#include "api/request.h"
#include "api/server.h"

#define BLOCK_BYTES 8192
#define PING_MS 15000
#define STUCK_MS 60000 /* a client that takes nothing for so long is cut off */

static const char ping[] = ":\n\n";

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

static ssize_t handle_read(void *context, uint64_t position, char *buffer, size_t size)
{
	struct stream *stream = context;
	(void)position;
	if (stream->request == NULL || stream->request->gone)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	stream->progress_ms = uv_now(stream->api->loop);
	size_t filled = fill(stream, buffer, size);
	if (filled == 0 && stream->ping_due && !stream->ended && size >= sizeof(ping)) {
		memcpy(buffer, ping, sizeof(ping) - 1);
		filled = sizeof(ping) - 1;
	}
	stream->ping_due = false;
	if (filled > 0)
		return (ssize_t)filled;
	if (stream->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	stream->suspended = true;
	MHD_suspend_connection(stream->request->connection);
	return 0;
}

static void handle_free(void *context)
{
	struct stream *stream = context;
	if (stream->request != NULL)
		stream_detach(stream);
	blob_unref(stream->piece);
	stream->ops->free(stream);
}

static void handle_ping_timer(uv_timer_t *timer)
{
	struct api *api = timer->data;
	uint64_t now = uv_now(api->loop);
	struct stream *stream;
	LIST_FOREACH(stream, &api->streams, link)
	{
		if (!stream->suspended && now - stream->progress_ms > STUCK_MS) {
			shutdown(stream->request->client->fd, SHUT_RDWR);
		} else if (stream->ops->has_pings) {
			stream->ping_due = true;
			stream_wake(stream);
		}
	}
}

static void add(struct request *request, struct stream *stream)
{
	struct api *api = request->api;
	stream->request = request;
	request->stream = stream;
	LIST_INSERT_HEAD(&api->streams, stream, link);
	api->n_streams++;
	api->ping_timer.data = api;
	if (api->n_streams == 1)
		uv_timer_start(&api->ping_timer, handle_ping_timer, PING_MS, PING_MS);
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

int stream_open(struct request *request, struct stream *stream, const struct stream_ops *ops)
{
	struct api *api = request->api;
	stream->ops = ops;
	stream->api = api;
	stream->progress_ms = uv_now(api->loop);
	if (request->is_head)
		return answer_head(request, stream, ops);
	if (api->n_streams >= API_STREAMS_MAX) {
		ops->free(stream);
		reply_problem(
			request, "too_many_requests", NULL, "%d streams are open already; close one", API_STREAMS_MAX);
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
	stream->suspended = false;
	api_resume(stream->request);
}

void stream_detach(struct stream *stream)
{
	struct api *api = stream->api;
	stream->request->stream = NULL;
	stream->request = NULL;
	LIST_REMOVE(stream, link);
	if (--api->n_streams == 0 && !api->closing)
		uv_timer_stop(&api->ping_timer);
}

void stream_end_all(struct api *api)
{
	struct stream *stream;
	LIST_FOREACH(stream, &api->streams, link)
	{
		stream->ending = true;
		stream_wake(stream);
	}
}
