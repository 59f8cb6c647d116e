/* Streams of attached leases. Tells the host at once when a holder's connection ends, and never at shutdown. */
#include "api/lease_stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/broken.h"
#include "api/json.h"
#include "api/lease_json.h"
#include "api/peer.h"
#include "api/request.h"
#include "api/server.h"
#include "api/sse.h"
#include "api/stream.h"
#include "base/cleanup.h"
#include "base/units.h"

#define WARNINGS_MAX 8
#define PLACES_MS 250 /* how often it is looked who moved in the queue */
#define TOLD_MS 500 /* a waiter is told at most so often, */
#define TOLD_MS_A_PLACE 10 /* and those far behind less often: where they all move at once, telling takes time */
#define TOLD_MS_MAX 60000

struct lease_stream {
	struct stream stream;
	LIST_ENTRY(lease_stream) link;
	uint64_t transition; /* waits for it, or 0 */
	uint64_t fence; /* holds it, or 0 */
	uint64_t told_ms;
	uint64_t told_hash; /* of what `queued` last said */
	struct blob *queued, *granted, *last;
	unsigned n_warnings;
	struct blob *warnings[WARNINGS_MAX];
};

/* Finding. */

static struct lease_stream_list *waiting_list(struct api *api, uint64_t transition)
{
	return &api->lease_streams.waiting[transition % LEASE_STREAM_BUCKETS];
}

static struct lease_stream_list *holding_list(struct api *api, uint64_t fence)
{
	return &api->lease_streams.holding[fence % LEASE_STREAM_BUCKETS];
}

static struct lease_stream *find_holder(struct api *api, uint64_t fence)
{
	struct lease_stream *lease_stream;
	LIST_FOREACH(lease_stream, holding_list(api, fence), link)
	if (lease_stream->fence == fence)
		return lease_stream;
	return NULL;
}

bool lease_stream_exists(struct api *api, uint64_t fence)
{
	return find_holder(api, fence) != NULL;
}

static void stop_waiting(struct lease_stream *lease_stream)
{
	if (lease_stream->transition == 0)
		return;
	LIST_REMOVE(lease_stream, link);
	lease_stream->transition = 0;
	lease_stream->stream.api->lease_streams.n_waiting--;
}

static void stop_holding(struct lease_stream *lease_stream)
{
	if (lease_stream->fence == 0)
		return;
	LIST_REMOVE(lease_stream, link);
	lease_stream->fence = 0;
}

/* Sending. */

static struct blob *next_piece(struct stream *stream)
{
	struct lease_stream *lease_stream = (struct lease_stream *)stream;
	if (lease_stream->queued != NULL)
		return TAKE_PTR(lease_stream->queued);
	if (lease_stream->granted != NULL)
		return TAKE_PTR(lease_stream->granted);
	if (lease_stream->n_warnings > 0) {
		struct blob *first = lease_stream->warnings[0];
		memmove(lease_stream->warnings, lease_stream->warnings + 1,
			--lease_stream->n_warnings * sizeof(lease_stream->warnings[0]));
		return first;
	}
	if (lease_stream->last != NULL)
		stream->ended = true;
	return TAKE_PTR(lease_stream->last);
}

/* The last event (NULL: no memory for it); nobody is waited for any more. */
static void end(struct lease_stream *lease_stream, struct blob *last)
{
	stop_waiting(lease_stream);
	stop_holding(lease_stream);
	lease_stream->last = last;
	lease_stream->stream.ending = true;
	lease_stream->stream.is_patient = false;
	stream_wake(&lease_stream->stream);
}

static void lose(struct lease_stream *lease_stream, const char *reason, const char *text)
{
	struct writer writer = { 0 };
	sse_begin(&writer, 0, "lost");
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "reason", reason);
	writer_text(&writer, "text", text);
	writer_close(&writer, '}');
	end(lease_stream, sse_end(&writer));
}

static void handle_gone(struct stream *stream)
{
	struct lease_stream *lease_stream = (struct lease_stream *)stream;
	const struct api_host *host = stream->api->host;
	uint64_t fence = lease_stream->fence;
	stop_waiting(lease_stream);
	stop_holding(lease_stream);
	stream->is_patient = false;
	if (fence != 0 && !stream->api->closing)
		host->detach(host->context, fence);
}

static void free_lease_stream(struct stream *stream)
{
	struct lease_stream *lease_stream = (struct lease_stream *)stream;
	blob_unref(lease_stream->queued);
	blob_unref(lease_stream->granted);
	blob_unref(lease_stream->last);
	for (unsigned i = 0; i < lease_stream->n_warnings; i++)
		blob_unref(lease_stream->warnings[i]);
	free(lease_stream);
}

static const struct stream_ops lease_stream_ops = {
	.kind = STREAM_LEASE,
	.content_type = "text/event-stream",
	.has_pings = true,
	.next = next_piece,
	.handle_gone = handle_gone,
	.free = free_lease_stream,
};

/* Waiting. */

/* What a waiter would notice, as one number (FNV-1a). */
static uint64_t hash_of(const struct transition *transition, size_t place)
{
	uint64_t hash = 14695981039346656037u;
	size_t n_done = 0;
	for (const char *c = transition->detail; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 1099511628211u;
	for (size_t i = 0; i < transition->n_steps; i++)
		n_done += transition->steps[i].state >= STEP_DONE;
	hash = (hash ^ place) * 1099511628211u;
	hash = (hash ^ transition->n_steps) * 1099511628211u;
	hash = (hash ^ n_done) * 1099511628211u;
	return (hash ^ (unsigned)transition->state) * 1099511628211u;
}

static void set_queued(struct lease_stream *lease_stream, const struct transition *transition, size_t place)
{
	struct api *api = lease_stream->stream.api;
	struct writer writer = { 0 };
	lease_stream->told_ms = uv_now(api->loop);
	lease_stream->told_hash = hash_of(transition, place);
	blob_unref(lease_stream->queued);
	sse_begin(&writer, 0, "queued");
	json_transition(&writer, NULL, api->host, transition, place);
	lease_stream->queued = sse_end(&writer);
}

/* Tells those who wait for the transition where they are now. False: it is too soon again for one of them. */
static bool tell(struct api *api, const struct transition *transition, size_t place, uint64_t now)
{
	uint64_t pause = TOLD_MS_A_PLACE * place < TOLD_MS_MAX ? TOLD_MS_A_PLACE * place : TOLD_MS_MAX;
	bool is_told = true;
	struct lease_stream *lease_stream;
	if (pause < TOLD_MS)
		pause = TOLD_MS;
	LIST_FOREACH(lease_stream, waiting_list(api, transition->id), link)
	{
		if (lease_stream->transition != transition->id || lease_stream->told_hash == hash_of(transition, place))
			continue;
		if (now - lease_stream->told_ms < pause) {
			is_told = false;
			continue;
		}
		set_queued(lease_stream, transition, place);
		stream_wake(&lease_stream->stream);
	}
	return is_told;
}

/* One walk through the queue for all who wait, and none when nothing changed. */
static void handle_places(uv_timer_t *timer)
{
	struct api *api = timer->data;
	struct lease_streams *streams = &api->lease_streams;
	uint64_t version = api->host->status_version(api->host->context), now = uv_now(api->loop);
	if (streams->n_waiting == 0) {
		uv_timer_stop(timer);
		return;
	}
	if (version == streams->version && !streams->is_behind)
		return;
	const struct status *status = api->host->status(api->host->context);
	streams->version = version;
	streams->is_behind = false;
	for (size_t i = 0; i < status->n_running; i++)
		if (!tell(api, status->running[i], 0, now))
			streams->is_behind = true;
	for (size_t i = 0; i < status->n_queue; i++)
		if (!tell(api, status->queue[i], i + 1, now))
			streams->is_behind = true;
}

void lease_streams_init(struct api *api)
{
	uv_timer_init(api->loop, &api->lease_streams.timer);
	api->lease_streams.timer.data = api;
	api_handle_opened(api);
}

void lease_streams_finish(struct api *api)
{
	api_close_handle(api, (uv_handle_t *)&api->lease_streams.timer);
}

/* Opening. */

static struct lease_stream *open_stream(struct request *request, int *ret_error)
{
	struct lease_stream *lease_stream = calloc(1, sizeof(*lease_stream));
	*ret_error = -ENOMEM;
	if (lease_stream == NULL)
		return NULL;
	lease_stream->stream.is_patient = true;
	peer_expect_life(request->client);
	*ret_error = stream_open(request, &lease_stream->stream, &lease_stream_ops);
	return *ret_error < 0 ? NULL : lease_stream; /* it took it over */
}

int lease_stream_wait(struct request *request, uint64_t id)
{
	int error;
	struct api *api = request->api;
	const struct transition *transition = api->host->transition(api->host->context, id);
	struct lease_stream *lease_stream = open_stream(request, &error);
	if (lease_stream == NULL)
		return error;
	if (transition == NULL)
		return 0; /* its refusal comes at once */
	set_queued(lease_stream, transition, json_place(api->host, transition));
	lease_stream->transition = id;
	LIST_INSERT_HEAD(waiting_list(api, id), lease_stream, link);
	if (api->lease_streams.n_waiting++ == 0)
		uv_timer_start(&api->lease_streams.timer, handle_places, PLACES_MS, PLACES_MS);
	return 0;
}

/* Holding. */

static struct blob *render_grant(
	const struct api_host *host, const struct lease *lease, const struct transition *transition)
{
	const char *secret = host->lease_secret(host->context, lease->fence);
	struct writer writer = { 0 };
	sse_begin(&writer, 0, "granted");
	json_grant_begin(&writer, host, lease, transition);
	writer_text_or_null(&writer, "secret", secret);
	writer_close(&writer, '}');
	return sse_end(&writer);
}

/* From now on the lease lives as long as this connection. */
static void hold(struct lease_stream *lease_stream, const struct lease *lease, const struct transition *transition)
{
	struct api *api = lease_stream->stream.api;
	struct lease_stream *earlier = find_holder(api, lease->fence);
	if (earlier != NULL)
		lose(earlier, "replaced", "its holder came back on another connection; the lease goes on");
	lease_stream->fence = lease->fence;
	LIST_INSERT_HEAD(holding_list(api, lease->fence), lease_stream, link);
	lease_stream->granted = render_grant(api->host, lease, transition);
	stream_wake(&lease_stream->stream);
}

int lease_stream_hold(struct request *request, const struct lease *lease)
{
	int error;
	struct lease_stream *lease_stream = open_stream(request, &error);
	if (lease_stream == NULL)
		return error;
	hold(lease_stream, lease, NULL);
	return 0;
}

void lease_stream_grant(struct request *request, const struct lease *lease, const struct transition *transition)
{
	struct lease_stream *lease_stream = (struct lease_stream *)request->stream;
	stop_waiting(lease_stream);
	hold(lease_stream, lease, transition);
}

void lease_stream_fail(struct request *request, unsigned status, const char *problem, size_t length)
{
	struct writer writer = { 0 };
	sse_begin(&writer, 0, "error");
	writer_open(&writer, NULL, '{');
	writer_integer(&writer, "status", status);
	writer_json(&writer, "body", problem, length);
	writer_close(&writer, '}');
	end((struct lease_stream *)request->stream, sse_end(&writer));
}

/* News. */

/* `by` may be NULL; `breaks_in_ms` is UINT64_MAX for never. */
static void warn(
	struct lease_stream *lease_stream, const char *reason, const char *text, const char *by, uint64_t breaks_in_ms)
{
	struct writer writer = { 0 };
	if (lease_stream->n_warnings == WARNINGS_MAX)
		return;
	sse_begin(&writer, 0, "warning");
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "reason", reason);
	writer_text(&writer, "text", text);
	writer_text_or_null(&writer, "by", by);
	if (breaks_in_ms != UINT64_MAX)
		writer_seconds(&writer, "breaks_in_s", breaks_in_ms);
	else
		writer_null(&writer, "breaks_in_s");
	writer_close(&writer, '}');
	struct blob *warning = sse_end(&writer);
	if (warning == NULL)
		return;
	lease_stream->warnings[lease_stream->n_warnings++] = warning;
	stream_wake(&lease_stream->stream);
}

static void warn_wanted(struct lease_stream *lease_stream, const struct lease *lease)
{
	char text[256], when[32];
	const struct api_host *host = lease_stream->stream.api->host;
	uint64_t now_ms = host->status(host->context)->now_ms, left_ms = UINT64_MAX;
	if (lease->breaks_ms != UINT64_MAX)
		left_ms = lease->breaks_ms > now_ms ? lease->breaks_ms - now_ms : 0;
	if (left_ms != UINT64_MAX)
		snprintf(text, sizeof(text), "%s waits for it; it will be broken in %s", lease->wanted_by,
			format_duration(left_ms, when, sizeof(when)));
	else
		snprintf(text, sizeof(text), "%s waits for it", lease->wanted_by);
	warn(lease_stream, "wanted", text, lease->wanted_by, left_ms);
}

static void warn_failed(struct lease_stream *lease_stream, const char *service)
{
	char text[256];
	snprintf(text, sizeof(text), "%.100s ended or is unhealthy; the lease goes on", service);
	warn(lease_stream, "service_failed", text, NULL, UINT64_MAX);
}

static void warn_gone(struct lease_stream *lease_stream, const char *services)
{
	char text[256];
	snprintf(text, sizeof(text), "not configured any more: %.150s; the lease goes on with the rest", services);
	warn(lease_stream, "service_removed", text, NULL, UINT64_MAX);
}

void api_lease_news(struct api *api, const struct lease *lease, enum lease_news news, const char *text)
{
	struct lease_stream *lease_stream = find_holder(api, lease->fence);
	const char *words = text != NULL ? text : "";
	metrics_count_lease(&api->metrics, lease, news);
	if (news == LEASE_NEWS_ENDED && lease->end == LEASE_FORCED)
		broken_note(api, lease);
	if (lease_stream == NULL)
		return;
	if (news == LEASE_NEWS_WANTED)
		warn_wanted(lease_stream, lease);
	else if (news == LEASE_NEWS_SERVICE_FAILED)
		warn_failed(lease_stream, words);
	else if (news == LEASE_NEWS_SERVICES_GONE)
		warn_gone(lease_stream, words);
	else if (news == LEASE_NEWS_ENDED)
		lose(lease_stream, lease_end_name(lease->end), words[0] != '\0' ? words : "it was released");
}
