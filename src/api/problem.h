/*
 * Problem documents (RFC 9457): what a failure looks like on the wire. One table of codes; a new code is a new row.
 */
#pragma once

#include "api/writer.h"

#define PROBLEM_TYPE "application/problem+json"

/* The HTTP status of a code; 500 for one that the table does not have. */
unsigned problem_status(const char *code);

/* {"type", "title", "status", "detail", "code", "success": false without the closing bracket. */
void problem_begin(struct writer *writer, unsigned status, const char *code, const char *detail);

/* Every code with its status, for the tests that hold the description of the API to it. NULL ends it. */
const char *problem_code(size_t index);
