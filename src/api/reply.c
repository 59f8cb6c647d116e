/* Making of answers. Sends nothing. */
#include "api/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/problem.h"
#include "api/request.h"

void reply_add_headers(struct MHD_Response *response, const char *content_type)
{
	MHD_add_response_header(response, "Content-Type", content_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
}

struct MHD_Response *reply_make(const char *content_type, char *text, size_t length)
{
	if (text == NULL)
		return NULL;
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
		free(text);
	else
		reply_add_headers(response, content_type);
	return response;
}

void reply_response(struct request *request, unsigned status, struct MHD_Response *response)
{
	if (request->response != NULL) {
		if (response != NULL)
			MHD_destroy_response(response);
		return;
	}
	request->response = response;
	request->status = status;
}

void reply_shared(struct request *request, unsigned status, struct MHD_Response *response)
{
	if (request->response != NULL)
		return;
	request->response = response;
	request->response_is_shared = true;
	request->status = status;
}

void reply_text(struct request *request, unsigned status, const char *content_type, char *text, size_t length)
{
	reply_response(request, status, reply_make(content_type, text, length));
}

static void reply_document(struct request *request, unsigned status, const char *content_type, json_t *body)
{
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	reply_text(request, status, content_type, text, text != NULL ? strlen(text) : 0);
}

void reply_json(struct request *request, unsigned status, json_t *body)
{
	reply_document(request, status, "application/json", body);
}

void reply_problem_document(struct request *request, unsigned status, json_t *document)
{
	reply_document(request, status, PROBLEM_TYPE, document);
}

void reply_problem(struct request *request, const char *code, json_t *more, const char *format, ...)
{
	char detail[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	json_t *document = problem_document(code, detail);
	if (document != NULL && more != NULL)
		json_object_update(document, more);
	json_decref(more);
	reply_problem_document(request, problem_status(code), document);
}

void reply_header(struct request *request, const char *name, const char *value)
{
	if (request->response != NULL && !request->response_is_shared)
		MHD_add_response_header(request->response, name, value);
}
