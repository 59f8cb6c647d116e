/*
 * Answers of requests. Each sets what the request will be answered with; server.c sends it. The first one counts.
 * When memory runs out there is no answer and the connection is closed.
 */
#pragma once

#include <stddef.h>

#include "api/writer.h"

struct MHD_Response;
struct request;

/* What was written, which is a problem document when the status says so. The writer is empty then. */
void reply_json(struct request *request, unsigned status, struct writer *body);

/* The same in two pieces, the headers first, which takes longer; see answer_is_lost() in leases.c for what it is good
 * for.
 */
void reply_json_in_pieces(struct request *request, unsigned status, struct writer *body);

/* `text` (from malloc) is taken over. */
void reply_text(struct request *request, unsigned status, const char *content_type, char *text, size_t length);

void reply_problem(struct request *request, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with another status than the code has elsewhere. */
void reply_problem_as(struct request *request, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* A response made elsewhere; its reference is taken over. NULL: no memory. */
void reply_response(struct request *request, unsigned status, struct MHD_Response *response);

/* The same with a response that others send, too; it stays theirs. No header can be added to it. */
void reply_shared(struct request *request, unsigned status, struct MHD_Response *response);

/* Adds a header to the answer that was set. */
void reply_header(struct request *request, const char *name, const char *value);

/* A response with the headers that all answers have; takes over `text`, also when it fails. */
struct MHD_Response *reply_make(const char *content_type, char *text, size_t length);
/* Only the headers, on a response made elsewhere. */
void reply_add_headers(struct MHD_Response *response, const char *content_type);
