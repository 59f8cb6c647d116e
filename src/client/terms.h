/* What a lease is asked for with, as the JSON of the wire. */
#pragma once

#include <jansson.h>

#include "client/handle.h"

/* GPUMGR_OK, or the handle's error is set. `*ret_body` is the caller's. */
int terms_to_json(struct gpumgr *g, const struct gpumgr_terms *terms, json_t **ret_body);

/* "wait_s" anew, when part of the time has passed. -1: the daemon's default. False: no memory. */
bool terms_set_wait(json_t *body, int64_t wait_ms);
