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

#include "api/blob.h"

struct api;
struct request;
struct stream;

struct stream_ops {
	const char *content_type;
	bool has_pings; /* a comment line now and then keeps proxies and clients patient */
	/* The next piece (the reference is handed over), NULL: nothing now, or for good when it set `ended`. */
	struct blob *(*next)(struct stream *stream);
	void (*free)(struct stream *stream);
};

struct stream {
	const struct stream_ops *ops;
	struct api *api;
	struct request *request; /* NULL once the request is over */
	LIST_ENTRY(stream) link;
	struct blob *piece; /* being sent */
	size_t offset; /* sent of it */
	bool suspended;
	bool ending; /* nothing comes after what is there now */
	bool ended; /* nothing comes after the piece */
	bool ping_due;
	uint64_t progress_ms; /* when the client last took something */
};

/*
 * Answers the request with the stream and takes it over, also when it fails. 0; -EMFILE when there are too many, with
 * the refusal as the request's answer; another negative errno.
 */
int stream_open(struct request *request, struct stream *stream, const struct stream_ops *ops);

/* There may be something to send. */
void stream_wake(struct stream *stream);

/* The request is over; the stream itself ends with its response. */
void stream_detach(struct stream *stream);

/* Ends every stream after what it still has to send. */
void stream_end_all(struct api *api);
