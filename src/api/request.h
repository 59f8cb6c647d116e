/*
 * One HTTP request while it lasts: what it asked, what it waits for, and its answer.
 */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "api/parameters.h"
#include "api/watch.h"
#include "api/writer.h"
#include "base/error.h"
#include "core/request.h"

#define SEGMENTS_MAX 8

struct api;
struct client;
struct route;
struct stream;

/* The headers that matter; borrowed from libmicrohttpd for the life of the request. NULL: not sent. */
struct headers {
	const char *host;
	const char *origin;
	const char *authorization;
	const char *accept;
	const char *content_type;
	const char *content_length;
	const char *transfer_encoding;
	const char *last_event_id;
	const char *expect;
	bool repeated; /* one of those that must not be came twice */
	bool malformed; /* a name is none, and others may take it for that of the length or the coding */
};

enum request_stage {
	REQUEST_NEW,
	REQUEST_RECEIVING, /* its headers are there, its body may follow */
	REQUEST_WAITING, /* suspended until its ticket is answered */
	REQUEST_ANSWERED,
};

struct request {
	struct api *api;
	struct client *client;
	struct MHD_Connection *connection;
	const char *method;
	bool is_head;
	struct headers headers;
	char *target; /* path and query as sent, cut into the pieces below */
	bool target_bad; /* it cannot be cut */
	size_t n_segments;
	char *segments[SEGMENTS_MAX]; /* of the path, decoded */
	char *query; /* as sent, NULL: none */
	const struct route *route;
	const char *name; /* what stands for {...} in the route */
	struct parameters parameters;
	enum request_stage stage;
	char *body;
	size_t body_length;
	size_t body_discarded;
	unsigned status;
	struct MHD_Response *response; /* ready to be sent */
	bool response_is_shared; /* the reference is somebody else's */

	uint64_t ticket; /* 0: none */
	LIST_ENTRY(request) ticket_link;
	bool breaks; /* a forced stop, see broken.h */
	LIST_ENTRY(request) breaking_link;
	struct writer broken; /* the leases that it broke so far, as JSON */
	struct request_spec spec; /* what it submitted; without the terms of a lease, which are its body's */
	uint64_t transition; /* what became of it, 0: nothing */
	bool is_attached; /* wants a lease that lives as long as the connection */
	bool may_return; /* its request_id leads back to the lease */
	uint64_t begun_run; /* of its shard, when its headers were there */
	uint64_t answered_run; /* with a lease */
	bool is_in_pieces; /* that answer, see leases.c */
	uint64_t granted_fence; /* the lease in the answer that is being sent, 0: none */
	struct watch *watch; /* notices that the client goes away */
	bool gone;
	bool is_suspended;
	struct stream *stream;
};

/* NULL: no memory. `target` is path and query as they were sent. */
struct request *request_new(
	struct api *api, struct client *client, struct MHD_Connection *connection, const char *target);
struct request *request_free(struct request *request);

/* Collects the headers from libmicrohttpd. */
void request_read_headers(struct request *request);
bool request_has_body(const struct request *request);

/* -E2BIG: more than the limit; it is dropped, and remembered. -ENOMEM. */
int request_add_body(struct request *request, const char *data, size_t length);

/* It was read; what waits must not keep it. */
void request_drop_body(struct request *request);

/* "GET /gpu/status" as a person would write it, cut to fit. Returns `buffer`. */
const char *request_title(const struct request *request, char *buffer, size_t size);
