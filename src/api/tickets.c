/* A hash of the waiting requests; tickets are dense, so the ticket itself is the hash. */
#include "api/tickets.h"

#include "api/request.h"

uint64_t tickets_new(struct tickets *tickets)
{
	return ++tickets->last;
}

void tickets_add(struct tickets *tickets, struct request *request, uint64_t ticket)
{
	request->ticket = ticket;
	LIST_INSERT_HEAD(&tickets->buckets[ticket % TICKET_BUCKETS], request, ticket_link);
	tickets->n++;
}

void tickets_remove(struct tickets *tickets, struct request *request)
{
	LIST_REMOVE(request, ticket_link);
	request->ticket = 0;
	tickets->n--;
}

struct request *tickets_find(struct tickets *tickets, uint64_t ticket)
{
	struct request *request;
	LIST_FOREACH(request, &tickets->buckets[ticket % TICKET_BUCKETS], ticket_link)
	if (request->ticket == ticket)
		return request;
	return NULL;
}

struct request *tickets_any(struct tickets *tickets)
{
	for (size_t i = 0; i < TICKET_BUCKETS && tickets->n > 0; i++)
		if (!LIST_EMPTY(&tickets->buckets[i]))
			return LIST_FIRST(&tickets->buckets[i]);
	return NULL;
}
