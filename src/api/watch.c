/* Noticing that the client of a suspended connection went away. What follows from it is the action's business. */
#include "api/watch.h"

#include <errno.h>
#include <stdlib.h>

#include "api/action.h"
#include "api/request.h"
#include "api/server.h"
#include "api/stream.h"

static void handle_event(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	struct request *request = watch->request;
	if (status == 0 && (events & UV_DISCONNECT) == 0)
		return;
	watch_stop(request);
	request->gone = true;
	if (request->ticket != 0)
		action_withdraw(request);
	if (request->stream != NULL)
		stream_gone(request->stream);
	else
		api_resume(request);
}

static void handle_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;
	struct api *api = watch->api;
	free(watch);
	api_handle_closed(api);
}

int watch_start(struct request *request)
{
	if (request->watch != NULL)
		return 0;
	struct watch *watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return -ENOMEM;
	int r = uv_poll_init(request->api->loop, &watch->poll, request->client->fd);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->api = request->api;
	watch->request = request;
	watch->poll.data = watch;
	api_handle_opened(request->api);
	request->watch = watch;
	return uv_poll_start(&watch->poll, UV_DISCONNECT, handle_event);
}

void watch_stop(struct request *request)
{
	struct watch *watch = request->watch;
	if (watch == NULL)
		return;
	request->watch = NULL;
	watch->request = NULL;
	uv_close((uv_handle_t *)&watch->poll, handle_closed);
}
