/*
 * The routes: ONE table of method, path, handler and what the handler takes. A new route is a new row (and a file
 * where it is a new resource).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct request;

enum route_flag {
	ROUTE_ANY_BODY = 1 << 0, /* the handler looks at the body itself, or not at all; nor at parameters */
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
