/*
 * Watching one descriptor in the loop, on the heap, so that whoever watches may go away before libuv has let go.
 */
#pragma once

#include <uv.h>

struct fd_watch;

typedef void (*fd_watch_handler)(void *context);

/*
 * Calls `handler` from the loop whenever one of `events` (enum uv_poll_event) holds. Takes `fd` in any case.
 * 0 or a negative errno.
 */
int fd_watch_create(
	uv_loop_t *loop, int fd, int events, fd_watch_handler handler, void *context, struct fd_watch **ret_watch);

/* Borrowed. */
int fd_watch_fd(const struct fd_watch *watch);

/* No more calls; the descriptor stays open. */
void fd_watch_stop(struct fd_watch *watch);

/* Also closes the descriptor. The loop must run once more to free the memory. */
struct fd_watch *fd_watch_destroy(struct fd_watch *watch);
