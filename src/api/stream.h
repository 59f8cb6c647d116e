/*
 * Answers that go on: text that comes piece by piece, as fast as the client takes it and no faster. While there is
 * nothing to send the connection is suspended; a source of text never waits for a client.
 *
 * A kind of stream embeds `struct stream` as its first member.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "api/blob.h"

struct api;
struct request;
struct stream;

/* Each kind has a list of its own, so that news for one is not carried past the thousands of another. */
enum stream_kind {
	STREAM_EVENTS,
	STREAM_LOG,
	STREAM_LEASE, /* as many as there are leases and waiters; of the others API_STREAMS_MAX in all */
	STREAM_KINDS,
};

struct stream_ops {
	enum stream_kind kind;
	const char *content_type;
	bool has_pings; /* a comment line now and then keeps proxies and clients patient */
	/* The next piece (the reference is handed over), NULL: nothing now, or for good when it set `ended`. */
	struct blob *(*next)(struct stream *stream);
	/* Its client went away, or its request is over, whichever comes first; may come twice. NULL: never mind. */
	void (*handle_gone)(struct stream *stream);
	void (*free)(struct stream *stream);
};

struct stream {
	const struct stream_ops *ops;
	struct api *api;
	struct request *request; /* NULL once the request is over */
	TAILQ_ENTRY(stream) link; /* of its kind, those pinged longest ago first */
	struct blob *piece; /* being sent */
	size_t offset; /* sent of it */
	bool suspended;
	bool ending; /* nothing comes after what is there now */
	bool ended; /* nothing comes after the piece */
	bool ping_due;
	bool is_patient; /* a client that takes nothing is not cut off, and not pushed, see peer.h */
	bool is_stalled; /* suspended until the client takes what it was sent */
	LIST_ENTRY(stream) stalled_link;
	uint64_t pinged_ms;
	uint64_t progress_ms; /* when the client last took something */
	uint32_t window_bytes; /* of a patient one: the largest that its client offered */
};

TAILQ_HEAD(stream_queue, stream);

/* All streams there are. */
struct streams {
	struct stream_queue queues[STREAM_KINDS];
	unsigned n[STREAM_KINDS];
	LIST_HEAD(, stream) stalled;
	uv_timer_t ping_timer;
	uv_timer_t stalled_timer;
};

void streams_init(struct api *api);
/* Before the handles are closed. */
void streams_finish(struct api *api);

/*
 * Answers the request with the stream and takes it over, also when it fails. 0; -EMFILE when there are too many, with
 * the refusal as the request's answer; another negative errno.
 */
int stream_open(struct request *request, struct stream *stream, const struct stream_ops *ops);

/* There may be something to send. */
void stream_wake(struct stream *stream);

/* The client went away; its request will be over soon. */
void stream_gone(struct stream *stream);

/* The request is over; the stream itself ends with its response. */
void stream_detach(struct stream *stream);

/* Ends every stream after what it still has to send. */
void stream_end_all(struct api *api);
