/*
 * The routes: ONE table of method, path, handler and what the handler takes. A new route is a new row (and a file
 * where it is a new resource).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct request;

enum route_flag {
	ROUTE_OWN_BODY = 1 << 0, /* the handler reads the JSON of the body itself */
	ROUTE_NO_QUERY = 1 << 1, /* its parameters are not for the query, which ends up in histories and logs */
	ROUTE_QUIET = 1 << 2, /* what comes of it is logged, and who asked for it */
};

struct route {
	const char *method;
	const char *path; /* "{...}" stands for any one segment; at most one of them */
	void (*handle)(struct request *request);
	unsigned parameters; /* enum parameter, or'ed */
	unsigned flags;
};

/* The n-th route, NULL after the last. */
const struct route *route_at(size_t index);

/* Finds the route and sets it and the name in it. False: the request has its refusal (404, 405) as an answer. */
bool route_find(struct request *request);
