/* What a forced stop broke: the leases on its service that end by force while it is under way, for its answer. */
#pragma once

#include "core/lease.h"

struct api;
struct request;
struct writer;

/* Before it is submitted: its leases end at once. */
void broken_begin(struct request *request);
/* One more ended by force. */
void broken_note(struct api *api, const struct lease *lease);
/* `broken: [...]`; nothing for what breaks none. */
void broken_put(const struct request *request, struct writer *writer);
void broken_finish(struct request *request);
