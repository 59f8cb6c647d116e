/* Leases as JSON. Each writes one value; those that only begin leave the closing bracket to who has more to say. */
#pragma once

#include "api/api.h"
#include "api/writer.h"

void json_lease_begin(struct writer *writer, const struct api_host *host, const struct lease *lease, uint64_t now_ms);
/* All that are held, the oldest first. */
void json_leases(struct writer *writer, const char *key, const struct api_host *host, const struct status *status);

/* What its holder is told; without `transition` (NULL) nothing of how it came about. */
void json_grant_begin(struct writer *writer, const struct api_host *host, const struct lease *lease,
	const struct transition *transition);

/* What a request that waits wants. */
void json_lease_terms(
	struct writer *writer, const char *key, const struct api_host *host, const struct lease_terms *terms);

/* The lock as one name and one time: whose it is, and for how long. */
void json_lock(struct writer *writer, const char *key, const struct api_host *host, const struct status *status);
