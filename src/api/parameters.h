/*
 * What comes with a request: in the query, or as keys of a JSON object in the body. ONE table says what there is; a
 * route says which of them it takes; everything else is refused by name.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum parameter {
	PARAMETER_WAIT = 1 << 0,
	PARAMETER_DRY_RUN = 1 << 1,
	PARAMETER_ASYNC = 1 << 2,
	PARAMETER_FORCE = 1 << 3,
	PARAMETER_TAIL = 1 << 4,
	PARAMETER_FOLLOW = 1 << 5,
	PARAMETER_PHASE = 1 << 6,
	PARAMETER_START = 1 << 7,
	PARAMETER_TTL = 1 << 8,
	PARAMETER_FENCE = 1 << 9,
	PARAMETER_SECRET = 1 << 10,
};

struct parameters {
	unsigned given; /* enum parameter, or'ed */
	int64_t wait_ms; /* WAIT_DEFAULT_MS when not given */
	bool dry_run;
	bool async;
	bool force;
	bool follow;
	int64_t tail;
	char *phase; /* owned */
	char *start; /* owned */
	int64_t ttl_ms;
	int64_t fence;
	char *secret; /* owned */
};

void parameters_init(struct parameters *parameters);
void parameters_finish(struct parameters *parameters);

/* 0; -EINVAL with a message that names the parameter and what is accepted; -ENOMEM. `query` may be NULL; it is cut up.
 */
int parameters_read_query(struct parameters *parameters, unsigned accepted, char *query, struct error *err);
/* The same from a JSON object. An empty body is no parameters. */
int parameters_read_body(
	struct parameters *parameters, unsigned accepted, const char *body, size_t length, struct error *err);

/* The object that a body must be; the reference is the caller's. 0, or -EINVAL with a message. */
int parameters_load_body(const char *body, size_t length, json_t **ret_root, struct error *err);

/* A boolean as every parameter takes it: 1, 0, true, false, yes, no. 0, or -EINVAL with a message. */
int parameters_json_bool(const char *name, json_t *value, bool *ret_value, struct error *err);

/* Percent-decoding in place; `plus` means a space (in queries). -EINVAL: a broken escape or a NUL. */
int percent_decode(char *text, bool plus);
