/*
 * The join of libcurl's multi interface with libuv. Knows transfers, not what they are for. Never waits: names are
 * resolved by the caller, for ending a transfer would wait for libcurl's own resolver thread.
 */
#include "http/curl_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/own_peer.h"

#define POOL_MAX 16

struct curl_loop {
	uv_loop_t *loop;
	CURLM *multi; /* NULL: ended, and only the timer's close callback is awaited */
	uv_timer_t timer;
	size_t n_idle;
	CURL *idle[POOL_MAX];
};

struct watch {
	uv_poll_t poll;
	struct curl_loop *owner;
	curl_socket_t fd;
};

static void report_done(struct curl_loop *self)
{
	/* A handler may end the whole: then multi is NULL, and self still there. */
	while (self->multi != NULL) {
		int left;
		CURLMsg *message = curl_multi_info_read(self->multi, &left);
		if (message == NULL)
			return;
		if (message->msg != CURLMSG_DONE)
			continue;
		CURLcode result = message->data.result;
		struct curl_job *job = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&job);
		job->handle_done(job, result);
	}
}

static void act(struct curl_loop *self, curl_socket_t fd, int events)
{
	int running;
	if (self->multi == NULL)
		return;
	curl_multi_socket_action(self->multi, fd, events, &running);
	report_done(self);
}

static void handle_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	int flags = status < 0 ? CURL_CSELECT_ERR : 0;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	act(watch->owner, watch->fd, flags);
}

static void handle_timer(uv_timer_t *timer)
{
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static void handle_watch_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watch *watch_new(struct curl_loop *self, curl_socket_t fd)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return NULL;
	if (uv_poll_init_socket(self->loop, &watch->poll, fd) < 0) {
		free(watch);
		return NULL;
	}
	watch->owner = self;
	watch->fd = fd;
	watch->poll.data = watch;
	return watch;
}

/* CURLMOPT_SOCKETFUNCTION. -1 makes libcurl give up all transfers, which then report an error. */
static int handle_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context)
{
	(void)easy;
	struct curl_loop *self = context;
	struct watch *watch = socket_context;
	if (what == CURL_POLL_REMOVE) {
		if (watch != NULL)
			uv_close((uv_handle_t *)&watch->poll, handle_watch_closed);
		curl_multi_assign(self->multi, fd, NULL);
		return 0;
	}
	if (watch == NULL) {
		watch = watch_new(self, fd);
		if (watch == NULL)
			return -1;
		curl_multi_assign(self->multi, fd, watch);
	}
	int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
	return uv_poll_start(&watch->poll, events, handle_poll) < 0 ? -1 : 0;
}

/* CURLMOPT_TIMERFUNCTION. Even 0 goes through the loop: libcurl must not be entered from its own callback. */
static int handle_timeout_wanted(CURLM *multi, long timeout_ms, void *context)
{
	(void)multi;
	struct curl_loop *self = context;
	if (timeout_ms < 0)
		uv_timer_stop(&self->timer);
	else
		uv_timer_start(&self->timer, handle_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

#define WAKEUP_FDS_MAX 4

/*
 * libcurl opens a socket pair for curl_multi_wakeup() that every process we start would inherit (seen in 7.88), and
 * offers no handle on it. New descriptors get the lowest free numbers, so it is known which ones they will be.
 */
static CURLM *multi_new(uv_loop_t *loop)
{
	int next[WAKEUP_FDS_MAX];
	for (int i = 0; i < WAKEUP_FDS_MAX; i++)
		next[i] = fcntl(uv_backend_fd(loop), F_DUPFD_CLOEXEC, 3);
	for (int i = 0; i < WAKEUP_FDS_MAX; i++)
		if (next[i] >= 0)
			close(next[i]);
	CURLM *multi = curl_multi_init();
	for (int i = 0; i < WAKEUP_FDS_MAX; i++)
		if (next[i] >= 0)
			fcntl(next[i], F_SETFD, FD_CLOEXEC);
	return multi;
}

int curl_loop_create(uv_loop_t *loop, struct curl_loop **ret_self)
{
	CLEANUP_FREE struct curl_loop *self = calloc(1, sizeof(*self));
	if (self == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return -ENOMEM;
	self->loop = loop;
	self->multi = multi_new(loop);
	if (self->multi == NULL) {
		curl_global_cleanup();
		return -ENOMEM;
	}
	uv_timer_init(loop, &self->timer);
	self->timer.data = self;
	curl_multi_setopt(self->multi, CURLMOPT_SOCKETFUNCTION, handle_socket);
	curl_multi_setopt(self->multi, CURLMOPT_SOCKETDATA, self);
	curl_multi_setopt(self->multi, CURLMOPT_TIMERFUNCTION, handle_timeout_wanted);
	curl_multi_setopt(self->multi, CURLMOPT_TIMERDATA, self);
	*ret_self = TAKE_PTR(self);
	return 0;
}

static void handle_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
	curl_global_cleanup();
}

struct curl_loop *curl_loop_destroy(struct curl_loop *self)
{
	if (self == NULL)
		return NULL;
	while (self->n_idle > 0)
		curl_easy_cleanup(self->idle[--self->n_idle]);
	curl_multi_cleanup(self->multi);
	self->multi = NULL;
	uv_close((uv_handle_t *)&self->timer, handle_timer_closed);
	return NULL;
}

static void set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/* libcurl's own sockets would be inherited by the processes that the daemon starts. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
	(void)context;
	(void)purpose;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static int close_socket(void *context, curl_socket_t fd)
{
	(void)context;
	own_peer_reset(fd);
	return close(fd);
}

CURL *curl_loop_take(struct curl_loop *self)
{
	if (self->n_idle > 0)
		return self->idle[--self->n_idle];
	CURL *easy = curl_easy_init();
	if (easy == NULL)
		return NULL;
	set_protocols(easy);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "gpumgr/" GPUMGR_VERSION);
	return easy;
}

int curl_loop_add(struct curl_loop *self, CURL *easy, struct curl_job *job)
{
	curl_easy_setopt(easy, CURLOPT_PRIVATE, job);
	return curl_multi_add_handle(self->multi, easy) == CURLM_OK ? 0 : -ENOMEM;
}

void curl_loop_remove(struct curl_loop *self, CURL *easy)
{
	if (easy == NULL)
		return;
	curl_multi_remove_handle(self->multi, easy); /* harmless when it was never added */
	if (self->n_idle < POOL_MAX)
		self->idle[self->n_idle++] = easy;
	else
		curl_easy_cleanup(easy);
}
