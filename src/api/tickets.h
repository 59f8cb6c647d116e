/* The requests that wait, found by their ticket. */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

#define TICKET_BUCKETS 4096

struct request;

struct tickets {
	uint64_t last; /* the last ticket given out */
	unsigned n;
	LIST_HEAD(, request) buckets[TICKET_BUCKETS];
};

/* A ticket that nobody waits for. */
uint64_t tickets_new(struct tickets *tickets);
void tickets_add(struct tickets *tickets, struct request *request, uint64_t ticket);
void tickets_remove(struct tickets *tickets, struct request *request);
/* NULL: nobody (any more). */
struct request *tickets_find(struct tickets *tickets, uint64_t ticket);
/* Any one of them, NULL when there is none. */
struct request *tickets_any(struct tickets *tickets);
