/* GET /gpu/service/{name}/logs: the end of a service's log, and what is added to it. Only reads. */
#include <stdlib.h>
#include <string.h>

#include "api/action.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"
#include "api/stream.h"
#include "base/cleanup.h"
#include "base/log_file.h"

#define LOOK_MS 200
#define LOG_TYPE "text/plain; charset=utf-8"

struct log_stream {
	struct stream stream;
	struct blob *first;
	char *path;
	uint64_t offset;
};

static struct blob *next_piece(struct stream *stream)
{
	struct log_stream *log = (struct log_stream *)stream;
	CLEANUP_FREE char *text = NULL;
	size_t length = 0;
	if (log->first != NULL)
		return TAKE_PTR(log->first);
	if (log_file_since(log->path, &log->offset, &text, &length) < 0 || text == NULL || length == 0)
		return NULL;
	return blob_from(text, length);
}

static void free_log(struct stream *stream)
{
	struct log_stream *log = (struct log_stream *)stream;
	blob_unref(log->first);
	free(log->path);
	free(log);
}

static const struct stream_ops log_stream_ops = {
	.kind = STREAM_LOG,
	.content_type = LOG_TYPE,
	.next = next_piece,
	.free = free_log,
};

/* Followers look by themselves: the file is written by the service, not by us. */
static void handle_look(uv_timer_t *timer)
{
	struct api *api = timer->data;
	struct stream *stream;
	TAILQ_FOREACH(stream, &api->streams.queues[STREAM_LOG], link)
	stream_wake(stream);
	if (api->streams.n[STREAM_LOG] == 0)
		uv_timer_stop(timer);
}

/* Takes over path and text. */
static void follow(struct request *request, char *path, char *text, uint64_t offset)
{
	struct api *api = request->api;
	struct log_stream *log = calloc(1, sizeof(*log));
	if (log == NULL) {
		free(path);
		free(text);
		return;
	}
	log->path = path;
	log->offset = offset;
	log->first = text[0] != 0 ? blob_from(text, strlen(text)) : NULL;
	free(text);
	if (stream_open(request, &log->stream, &log_stream_ops) < 0 || request->is_head)
		return;
	api->log_timer.data = api;
	uv_timer_start(&api->log_timer, handle_look, LOOK_MS, LOOK_MS);
}

void logs_get(struct request *request)
{
	const struct api_host *host = request->api->host;
	size_t service = action_find_service(request, request->name);
	if (service == SIZE_MAX)
		return;
	CLEANUP_FREE char *path = host->log_path(host->context, service);
	CLEANUP_FREE char *text = NULL;
	uint64_t offset = 0;
	if (path == NULL)
		return;
	int r = log_file_tail(path, (size_t)request->parameters.tail, &text, &offset);
	if (r < 0) {
		reply_problem(request, "internal", "the log %s cannot be read: %s", path, strerror(-r));
		return;
	}
	if (request->parameters.follow) {
		follow(request, TAKE_PTR(path), TAKE_PTR(text), offset);
		return;
	}
	size_t length = strlen(text);
	reply_text(request, 200, LOG_TYPE, TAKE_PTR(text), length);
}
