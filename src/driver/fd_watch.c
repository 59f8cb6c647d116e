/* One descriptor in the loop. Knows nothing of what the descriptor is. */
#include "driver/fd_watch.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct fd_watch {
	uv_poll_t poll; /* first: the close callback gets it */
	int fd;
	fd_watch_handler handler;
	void *context;
};

static void handle_poll(uv_poll_t *poll, int status, int events)
{
	struct fd_watch *watch = (struct fd_watch *)poll;
	(void)status;
	(void)events;
	watch->handler(watch->context);
}

static void handle_closed(uv_handle_t *handle)
{
	free(handle);
}

int fd_watch_create(
	uv_loop_t *loop, int fd, int events, fd_watch_handler handler, void *context, struct fd_watch **ret_watch)
{
	CLEANUP_CLOSE int owned = fd;
	CLEANUP_FREE struct fd_watch *watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return -ENOMEM;
	int r = uv_poll_init(loop, &watch->poll, fd);
	if (r < 0)
		return r;
	watch->fd = TAKE_FD(owned);
	watch->handler = handler;
	watch->context = context;
	struct fd_watch *begun = TAKE_PTR(watch);
	r = uv_poll_start(&begun->poll, events, handle_poll);
	if (r < 0) {
		fd_watch_destroy(begun);
		return r;
	}
	*ret_watch = begun;
	return 0;
}

int fd_watch_fd(const struct fd_watch *watch)
{
	return watch->fd;
}

void fd_watch_stop(struct fd_watch *watch)
{
	uv_poll_stop(&watch->poll);
}

struct fd_watch *fd_watch_destroy(struct fd_watch *watch)
{
	if (watch == NULL)
		return NULL;
	uv_close((uv_handle_t *)&watch->poll, handle_closed);
	close(watch->fd);
	return NULL;
}
