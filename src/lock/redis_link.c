/* Bytes to and from a Redis server. Knows no command but what it is handed, and never waits. */
#include "lock/redis_link.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/resolve.h"

#define READ_SIZE 16384
#define REPLY_MAX (64 * 1024)
#define ELEMENTS_MAX 64

/* A socket; it owns itself once the link has let go of it. */
struct stream {
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} uv;
	uv_connect_t connect;
	struct redis_link *link; /* NULL: let go */
};

struct output {
	uv_write_t request;
	struct stream *stream;
	char bytes[];
};

enum link_state { LINK_CONNECTING, LINK_GREETING /* TLS */, LINK_UP, LINK_DOWN, LINK_CLOSED };

struct redis_link {
	uv_loop_t *loop;
	struct redis_place place;
	struct redis_link_listener listener;
	uint64_t limit_ms;
	enum link_state state;
	uv_timer_t timer; /* the limit of what is waited for; or, at the end, to tell of it from the loop */
	struct lookup *lookup;
	struct address_list addresses;
	size_t next_address;
	struct stream *stream;
	struct redis_tls_context *tls_context; /* NULL: none */
	struct redis_tls *tls;
	redisReader *reader;
	redisReplyObjectFunctions functions;
	__typeof__(((redisReplyObjectFunctions *)NULL)->createArray) create_array; /* hiredis' own */
	size_t n_expected; /* replies */
	size_t n_unread; /* bytes of a reply that is not whole yet */
	bool takes_messages;
	char problem[200];
	char buffer[READ_SIZE];
};

/* ---- the end ---- */

static void handle_stream_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void drop_stream(struct redis_link *link)
{
	if (link->stream == NULL)
		return;
	link->stream->link = NULL;
	uv_close(&link->stream->uv.handle, handle_stream_closed);
	link->stream = NULL;
}

static void handle_told(uv_timer_t *timer)
{
	struct redis_link *link = timer->data;
	link->listener.handle_down(link->listener.context, link->problem);
}

static void fail(struct redis_link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct redis_link *link, const char *format, ...)
{
	if (link->state >= LINK_DOWN)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(link->problem, sizeof(link->problem), format, args);
	va_end(args);
	link->state = LINK_DOWN;
	link->lookup = lookup_cancel(link->lookup);
	drop_stream(link);
	uv_timer_start(&link->timer, handle_told, 0, 0);
}

static const char *describe_status(int status)
{
	switch (status) {
	case UV_ECONNREFUSED:
		return "connection refused";
	case UV_ENOENT:
		return "there is no such socket";
	case UV_EACCES:
		return "its socket may not be opened (permission denied)";
	case UV_EOF:
	case UV_ECONNRESET:
	case UV_EPIPE:
		return "it closed the connection";
	default:
		return uv_strerror(status);
	}
}

static void handle_late(uv_timer_t *timer)
{
	struct redis_link *link = timer->data;
	fail(link, "%s within %llu ms", link->state < LINK_UP ? "no connection" : "no answer",
		(unsigned long long)link->limit_ms);
}

static void limit(struct redis_link *link, uv_timer_cb handler, uint64_t ms)
{
	uv_update_time(link->loop);
	uv_timer_start(&link->timer, handler, ms, 0);
}

/* ---- replies ---- */

#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

/* hiredis would reserve whatever room a server names. */
static void *refuse_large_array(const redisReadTask *task, element_count n)
{
	struct redis_link *link = task->privdata;
	return (size_t)n > ELEMENTS_MAX ? NULL : link->create_array(task, n);
}

static int make_reader(struct redis_link *link)
{
	link->reader = redisReaderCreate();
	if (link->reader == NULL)
		return -ENOMEM;
	link->functions = *link->reader->fn;
	link->create_array = link->functions.createArray;
	link->functions.createArray = refuse_large_array;
	link->reader->fn = &link->functions;
	link->reader->privdata = link;
	return 0;
}

static void take_reply(struct redis_link *link, const redisReply *reply)
{
	if (link->n_expected > 0)
		link->n_expected--;
	else if (!link->takes_messages) {
		fail(link, "it said something that was not asked for");
		return;
	}
	if (link->n_expected == 0)
		uv_timer_stop(&link->timer);
	else
		limit(link, handle_late, link->limit_ms);
	link->listener.handle_reply(link->listener.context, reply);
}

static void take_bytes(struct redis_link *link, const char *bytes, size_t n)
{
	link->n_unread += n;
	int r = redisReaderFeed(link->reader, bytes, n);
	while (r == REDIS_OK && link->state == LINK_UP) {
		void *reply = NULL;
		r = redisReaderGetReply(link->reader, &reply);
		if (r != REDIS_OK || reply == NULL)
			break;
		link->n_unread = link->reader->len - link->reader->pos;
		take_reply(link, reply);
		link->reader->fn->freeObject(reply);
	}
	if (link->state != LINK_UP)
		return;
	if (r != REDIS_OK || link->n_unread > REPLY_MAX)
		fail(link, "what it says is not what a Redis server says; is it another program that listens there?");
}

/* ---- the socket ---- */

static void provide_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	(void)suggested;
	struct redis_link *link = ((struct stream *)handle->data)->link;
	*buffer = link == NULL ? uv_buf_init(NULL, 0) : uv_buf_init(link->buffer, sizeof(link->buffer));
}

static void handle_written(uv_write_t *request, int status)
{
	struct output *output = request->data;
	struct redis_link *link = output->stream->link;
	if (link != NULL && status < 0)
		fail(link, "%s", describe_status(status));
	free(output);
}

static int write_bytes(struct redis_link *link, const char *bytes, size_t n)
{
	struct output *output = malloc(sizeof(*output) + n);
	if (output == NULL)
		return -ENOMEM;
	memcpy(output->bytes, bytes, n);
	uv_buf_t buffer = uv_buf_init(output->bytes, (unsigned)n);
	output->request.data = output;
	output->stream = link->stream;
	int r = uv_write(&output->request, &link->stream->uv.stream, &buffer, 1, handle_written);
	if (r < 0)
		free(output);
	return r;
}

/* ---- TLS ---- */

static void flush_tls(struct redis_link *link)
{
	char bytes[4096];
	size_t n;
	while (link->state < LINK_DOWN && (n = redis_tls_take(link->tls, bytes, sizeof(bytes))) > 0) {
		int r = write_bytes(link, bytes, n);
		if (r < 0)
			fail(link, "%s", describe_status(r));
	}
}

static void go_up(struct redis_link *link)
{
	link->state = LINK_UP;
	uv_timer_stop(&link->timer);
	link->listener.handle_up(link->listener.context);
}

static void take_encrypted(struct redis_link *link, const char *bytes, size_t n)
{
	char plain[4096];
	struct error err;
	if (redis_tls_receive(link->tls, bytes, n) < 0) {
		fail(link, "there is no memory");
		return;
	}
	while (link->state < LINK_DOWN) {
		int length = redis_tls_read(link->tls, plain, sizeof(plain), &err);
		flush_tls(link);
		if (length < 0)
			fail(link, "%.190s", err.message);
		else if (length > 0)
			take_bytes(link, plain, (size_t)length);
		else if (link->state == LINK_GREETING && redis_tls_is_ready(link->tls))
			go_up(link);
		else
			return;
	}
}

static void begin_greeting(struct redis_link *link)
{
	link->state = LINK_GREETING;
	limit(link, handle_late, link->limit_ms);
	link->tls = redis_tls_create(link->tls_context, link->place.host);
	if (link->tls == NULL)
		fail(link, "there is no memory");
	else
		flush_tls(link);
}

/* ---- reading and writing ---- */

static void handle_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buffer)
{
	struct redis_link *link = ((struct stream *)handle->data)->link;
	if (link == NULL || n == 0)
		return;
	if (n < 0)
		fail(link, "%s", describe_status((int)n));
	else if (link->tls != NULL)
		take_encrypted(link, buffer->base, (size_t)n);
	else
		take_bytes(link, buffer->base, (size_t)n);
}

static int send_bytes(struct redis_link *link, const char *bytes, size_t n)
{
	if (link->tls == NULL)
		return write_bytes(link, bytes, n);
	int r = redis_tls_write(link->tls, bytes, n, NULL);
	flush_tls(link);
	return r;
}

void redis_link_send(struct redis_link *link, int argc, const char *const *argv)
{
	char *bytes = NULL;
	if (link->state != LINK_UP)
		return;
	long long n = redisFormatCommandArgv(&bytes, argc, (const char **)argv, NULL);
	if (n < 0) {
		fail(link, "there is no memory");
		return;
	}
	int r = send_bytes(link, bytes, (size_t)n);
	redisFreeCommand(bytes);
	if (r < 0)
		fail(link, "%s", describe_status(r));
	else if (link->n_expected++ == 0)
		limit(link, handle_late, link->limit_ms);
}

void redis_link_authenticate(struct redis_link *link, const struct redis_url *url)
{
	const char *const with_user[] = { "AUTH", url->user, url->password };
	const char *const without[] = { "AUTH", url->password };
	if (url->user[0] != '\0')
		redis_link_send(link, ARRAY_SIZE(with_user), with_user);
	else
		redis_link_send(link, ARRAY_SIZE(without), without);
}

void redis_link_take_messages(struct redis_link *link)
{
	link->takes_messages = true;
}

/* ---- the connection ---- */

static int try_next_address(struct redis_link *link);

static void handle_connected(uv_connect_t *request, int status)
{
	struct redis_link *link = ((struct stream *)request->data)->link;
	if (link == NULL)
		return;
	if (status < 0) {
		drop_stream(link);
		if (try_next_address(link) < 0) /* of several addresses the last one's reason is told */
			fail(link, "%s", describe_status(status));
		return;
	}
	int r = uv_read_start(&link->stream->uv.stream, provide_buffer, handle_read);
	if (r < 0)
		fail(link, "%s", describe_status(r));
	else if (link->tls_context != NULL)
		begin_greeting(link);
	else
		go_up(link);
}

static struct stream *stream_new(struct redis_link *link)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	if (stream == NULL)
		return NULL;
	int r = link->place.path[0] != '\0' ? uv_pipe_init(link->loop, &stream->uv.pipe, 0)
					    : uv_tcp_init(link->loop, &stream->uv.tcp);
	if (r < 0) {
		free(stream);
		return NULL;
	}
	stream->uv.handle.data = stream;
	stream->connect.data = stream;
	stream->link = link;
	return stream;
}

static void handle_slow_address(uv_timer_t *timer)
{
	struct redis_link *link = timer->data;
	drop_stream(link);
	if (try_next_address(link) < 0)
		handle_late(timer);
}

/* 0: a connection is being made. -ENOENT: no address is left. */
static int try_next_address(struct redis_link *link)
{
	while (link->next_address < link->addresses.n) {
		link->stream = stream_new(link);
		if (link->stream == NULL)
			return -ENOMEM;
		int r = uv_tcp_connect(&link->stream->connect, &link->stream->uv.tcp,
			&link->addresses.items[link->next_address++].any, handle_connected);
		if (r == 0) {
			uv_tcp_nodelay(&link->stream->uv.tcp, 1);
			limit(link, handle_slow_address, link->limit_ms / link->addresses.n);
			return 0;
		}
		drop_stream(link);
	}
	return -ENOENT;
}

static void handle_resolved(void *context, int status, const struct address_list *addresses)
{
	struct redis_link *link = context;
	link->lookup = NULL;
	link->addresses = *addresses;
	if (status < 0)
		fail(link, "its name cannot be resolved: %s", uv_strerror(status));
	else if (try_next_address(link) < 0)
		fail(link, "no connection can be made to it");
}

static int begin_socket(struct redis_link *link)
{
	link->stream = stream_new(link);
	if (link->stream == NULL)
		return -ENOMEM;
	uv_pipe_connect(&link->stream->connect, &link->stream->uv.pipe, link->place.path, handle_connected);
	return 0;
}

static int begin_host(struct redis_link *link)
{
	enum resolve_outcome outcome = resolve_now(link->place.host, link->place.port, &link->addresses);
	if (outcome == RESOLVE_NEEDS_LOOKUP)
		return lookup_start(
			link->loop, link->place.host, link->place.port, handle_resolved, link, &link->lookup);
	if (try_next_address(link) < 0)
		fail(link, "no connection can be made to it");
	return 0;
}

static void handle_timer_closed(uv_handle_t *handle)
{
	struct redis_link *link = handle->data;
	if (link->reader != NULL)
		redisReaderFree(link->reader);
	redis_tls_destroy(link->tls);
	free(link);
}

struct redis_link *redis_link_close(struct redis_link *link)
{
	if (link == NULL)
		return NULL;
	link->state = LINK_CLOSED;
	link->lookup = lookup_cancel(link->lookup);
	drop_stream(link);
	uv_close((uv_handle_t *)&link->timer, handle_timer_closed);
	return NULL;
}

int redis_link_open(uv_loop_t *loop, const struct redis_place *place, struct redis_tls_context *tls, uint64_t limit_ms,
	const struct redis_link_listener *listener, struct redis_link **ret_link, struct error *err)
{
	struct redis_link *link = calloc(1, sizeof(*link));
	if (link == NULL)
		return error_set(err, -ENOMEM, "there is no memory");
	link->loop = loop;
	link->place = *place;
	link->tls_context = tls;
	link->limit_ms = limit_ms;
	link->listener = *listener;
	uv_timer_init(loop, &link->timer);
	uv_unref((uv_handle_t *)&link->timer);
	link->timer.data = link;
	int r = make_reader(link);
	if (r == 0) {
		limit(link, handle_late, limit_ms);
		r = place->path[0] != '\0' ? begin_socket(link) : begin_host(link);
	}
	if (r < 0) {
		redis_link_close(link);
		return error_set(err, r, "%s", uv_strerror(r));
	}
	*ret_link = link;
	return 0;
}
