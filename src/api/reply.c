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

void reply_json(struct request *request, unsigned status, struct writer *body)
{
	size_t length;
	char *text = writer_take(body, &length);
	reply_text(request, status, status >= 400 ? PROBLEM_TYPE : "application/json", text, length);
}

static ssize_t handle_read(void *context, uint64_t position, char *buffer, size_t size)
{
	const struct writer *body = context;
	size_t left = body->length - (size_t)position;
	size_t n = left < size ? left : size;
	memcpy(buffer, body->text + position, n);
	return (ssize_t)n;
}

static void handle_free(void *context)
{
	struct writer *body = context;
	writer_finish(body);
	free(body);
}

void reply_json_in_pieces(struct request *request, unsigned status, struct writer *body)
{
	struct writer *kept = body->has_failed ? NULL : malloc(sizeof(*kept));
	if (kept == NULL)
		return;
	*kept = *body;
	*body = (struct writer){ 0 };
	struct MHD_Response *response =
		MHD_create_response_from_callback(kept->length, kept->length, handle_read, kept, handle_free);
	if (response == NULL) {
		handle_free(kept);
		return;
	}
	reply_add_headers(response, "application/json");
	reply_response(request, status, response);
}

static void reply_problem_v(
	struct request *request, unsigned status, const char *code, const char *format, va_list args)
{
	char detail[1024];
	CLEANUP_WRITER struct writer writer = { 0 };
	vsnprintf(detail, sizeof(detail), format, args);
	problem_begin(&writer, status, code, detail);
	writer_close(&writer, '}');
	reply_json(request, status, &writer);
}

void reply_problem(struct request *request, const char *code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	reply_problem_v(request, problem_status(code), code, format, args);
	va_end(args);
}

void reply_problem_as(struct request *request, unsigned status, const char *code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	reply_problem_v(request, status, code, format, args);
	va_end(args);
}

void reply_header(struct request *request, const char *name, const char *value)
{
	if (request->response != NULL && !request->response_is_shared)
		MHD_add_response_header(request->response, name, value);
}
