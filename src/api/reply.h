/*
 * Answers of requests. Each sets what the request will be answered with; server.c sends it. The first one counts.
 * When memory runs out there is no answer and the connection is closed.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct MHD_Response;
struct request;

/* `body` is taken over. */
void reply_json(struct request *request, unsigned status, json_t *body);

/* `text` (from malloc) is taken over. */
void reply_text(struct request *request, unsigned status, const char *content_type, char *text, size_t length);

/* A problem document; the members of `more` (taken over, may be NULL) are added to it. */
void reply_problem(struct request *request, const char *code, json_t *more, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* A problem document that is complete already, taken over. */
void reply_problem_document(struct request *request, unsigned status, json_t *document);

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
