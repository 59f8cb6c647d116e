/* What becomes of a request for a lease once it is answered. The routes are in resources.h. */
#pragma once

#include "core/request.h"

struct api;
struct request;

/* The lease was granted to the request. */
void lease_answer(struct request *request, const struct lease *lease, const struct transition *transition);

/* It was granted to a ticket whose client went away: nobody knows of it, unless its request_id leads back to it. */
void lease_give_back(struct api *api, const struct lease *lease);

/* The answer with a lease did not get as far as the kernel: as lease_give_back(). */
void lease_was_not_told(struct request *request);
