/*
 * One request to a container engine: what goes out, and what may come back. Must not believe anything: an answer is
 * whole or it is lost, has a largest size, and its texts are cleaned before anybody sees them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "driver/docker_private.h"

#define BODY_MAX ((size_t)4 * 1024 * 1024)
#define HEADERS_MAX ((size_t)64 * 1024)

const char *docker_clean(const char *text, char *buffer, size_t size)
{
	size_t used = 0;
	for (const char *c = text; *c != '\0' && used + 1 < size; c++) {
		bool is_space = *c == '\n' || *c == '\r' || *c == '\t' || *c == ' ';
		if (is_space && (used == 0 || buffer[used - 1] == ' '))
			continue;
		buffer[used++] = (char)(is_space ? ' ' : *c < ' ' || *c > '~' ? '?' : *c);
	}
	while (used > 0 && buffer[used - 1] == ' ')
		used--;
	buffer[used] = '\0';
	return buffer;
}

char *docker_escape(const char *text)
{
	static const char digits[] = "0123456789ABCDEF";
	char *escaped = malloc(strlen(text) * 3 + 1), *to = escaped;
	if (escaped == NULL)
		return NULL;
	for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
		bool is_plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
			strchr("-._~", *c) != NULL;
		if (is_plain) {
			*to++ = (char)*c;
			continue;
		}
		*to++ = '%';
		*to++ = digits[*c >> 4];
		*to++ = digits[*c & 15];
	}
	*to = '\0';
	return escaped;
}

/* ---- from list to list ---- */

static void link_call(struct docker *docker, struct docker_call *call)
{
	call->docker = docker;
	call->next = docker->calls;
	if (call->next != NULL)
		call->next->previous = call;
	docker->calls = call;
}

static void unlink_call(struct docker_call *call)
{
	if (call->next != NULL)
		call->next->previous = call->previous;
	if (call->previous != NULL)
		call->previous->next = call->next;
	else
		call->docker->calls = call->next;
	call->next = call->previous = NULL;
}

/* The handle goes back into a pool: nothing that points to this request may stay on it. */
static void release_easy(struct docker_call *call)
{
	if (call->easy == NULL)
		return;
	curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, NULL);
	curl_loop_remove(call->docker->curl, call->easy);
	call->easy = NULL;
}

static void free_call(struct docker_call *call)
{
	release_easy(call);
	free(call->path);
	free(call->body);
	free(call);
}

struct docker_call *docker_cancel(struct docker_call *call)
{
	if (call != NULL) {
		unlink_call(call);
		free_call(call);
	}
	return NULL;
}

/* ---- the answer ---- */

static void finish(struct docker_call *call, const struct docker_answer *answer)
{
	unlink_call(call);
	release_easy(call);
	call->handler(call->context, answer);
	free_call(call);
}

static const char *message_of(const json_t *json)
{
	const char *message = json_string_value(json_object_get(json, "message"));
	return message != NULL ? message : json_string_value(json_object_get(json, "cause"));
}

static void answer_with_status(struct docker_call *call)
{
	char text[512] = "";
	struct docker_answer answer = { .result = DOCKER_ANSWERED, .text = text };
	json_t *json = NULL;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &answer.status);
	if (call->length > 0)
		json = json_loadb(call->body, call->length, JSON_DECODE_ANY, NULL);
	if (answer.status < 200 || (answer.status >= 300 && answer.status != 304)) {
		const char *message = message_of(json);
		if (message != NULL)
			docker_clean(message, text, sizeof(text));
		else
			snprintf(text, sizeof(text), "the engine answered with status %ld", answer.status);
	}
	answer.json = json;
	finish(call, &answer);
	json_decref(json);
}

static void describe_unreachable(const struct docker_call *call, char *text, size_t size)
{
	const struct docker *docker = call->docker;
	long reason = 0;
	curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &reason);
	if (reason == EACCES || reason == EPERM)
		snprintf(text, size,
			"docker: the engine at %s may not be opened: permission denied; let the user of gpumgrd join "
			"the "
			"group of that socket (usermod -aG docker USER), or run gpumgrd as root",
			docker->address);
	else
		snprintf(text, size,
			"docker: the engine at %s does not answer: %s; is it running? (systemctl status %s)",
			docker->address,
			reason == ECONNREFUSED     ? "connection refused"
				: reason == ENOENT ? "there is no such socket"
				: reason != 0      ? strerror((int)reason)
						   : call->curl_error,
			docker->is_podman ? "podman.socket" : "docker");
}

static void describe_lost(const struct docker_call *call, CURLcode result, char *text, size_t size)
{
	const char *why =
		call->is_too_long ? "its answer is longer than any that makes sense" : curl_answer_describe(result);
	char clean[CURL_ERROR_SIZE];
	if (result == CURLE_OPERATION_TIMEDOUT && !call->is_too_long) {
		docker_describe_silence(call->docker, call->timeout_ms, text, size);
		return;
	}
	if (why == NULL)
		why = call->curl_error[0] != '\0' ? call->curl_error : curl_easy_strerror(result);
	snprintf(text, size, "docker: the engine at %s gave no usable answer: %s; is that the right socket? (engine:)",
		call->docker->address, docker_clean(why, clean, sizeof(clean)));
}

static void handle_done(struct curl_job *job, CURLcode result)
{
	struct docker_call *call = (struct docker_call *)((char *)job - offsetof(struct docker_call, job));
	struct docker *docker = call->docker;
	char text[768];
	result = curl_answer_judge(&call->answer, result);
	if (result == CURLE_OK) {
		answer_with_status(call);
		return;
	}
	bool is_sent = result != CURLE_COULDNT_CONNECT;
	if (is_sent)
		describe_lost(call, result, text, sizeof(text));
	else
		describe_unreachable(call, text, sizeof(text));
	/* A stream of events that broke has a pace of its own at which it is opened again. */
	if (call->is_versioned && call != docker->events)
		docker_doubt(docker);
	finish(call, &(struct docker_answer){ .result = is_sent ? DOCKER_LOST : DOCKER_NOT_SENT, .text = text });
}

/* ---- the way there ---- */

static size_t handle_header(char *data, size_t size, size_t n, void *context)
{
	struct docker_call *call = context;
	curl_answer_take_header(&call->answer, data, size * n);
	call->is_too_long |= call->answer.headers_length > HEADERS_MAX;
	return call->is_too_long ? 0 : size * n;
}

static bool is_stream(const struct docker_call *call)
{
	long status = 0;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	return call->handle_data != NULL && status >= 200 && status < 300;
}

static size_t handle_body(char *data, size_t size, size_t n, void *context)
{
	struct docker_call *call = context;
	size_t length = size * n;
	if (is_stream(call))
		return call->handle_data(call->context, data, length) ? length : CURL_WRITEFUNC_PAUSE;
	if (call->length + length > BODY_MAX) {
		call->is_too_long = true;
		return 0;
	}
	char *body = realloc(call->body, call->length + length);
	if (body == NULL)
		return 0;
	memcpy(body + call->length, data, length);
	call->body = body;
	call->length += length;
	return length;
}

static int set_url(struct docker_call *call)
{
	CLEANUP_FREE char *url = NULL;
	const char *version = call->is_versioned ? call->docker->version : "";
	if (asprintf(&url, "http://localhost%s%s%s", call->is_versioned ? "/v" : "", version, call->path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	return curl_easy_setopt(call->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -ENOMEM;
}

static int send_call(struct docker_call *call)
{
	struct docker *docker = call->docker;
	call->easy = curl_loop_take(docker->curl);
	if (call->easy == NULL || set_url(call) < 0 ||
		curl_easy_setopt(call->easy, CURLOPT_UNIX_SOCKET_PATH, docker->socket_path) != CURLE_OK)
		return -ENOMEM;
	/* Handles come from a pool: each of these is set each time. */
	if (call->is_post) {
		curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE, 0L);
	} else {
		curl_easy_setopt(call->easy, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
	curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, handle_body);
	curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_HEADERFUNCTION, handle_header);
	curl_easy_setopt(call->easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, call->curl_error);
	call->job.handle_done = handle_done;
	return curl_loop_add(docker->curl, call->easy, &call->job);
}

static int new_call(struct docker *docker, const struct docker_request *request, struct docker_call **ret_call)
{
	struct docker_call *call = calloc(1, sizeof(*call));
	if (call == NULL)
		return -ENOMEM;
	call->path = strdup(request->path);
	call->is_post = strcmp(request->method, "POST") == 0;
	call->timeout_ms = request->timeout_ms;
	call->handler = request->handler;
	call->context = request->context;
	call->handle_data = request->handle_data;
	call->docker = docker;
	if (call->path == NULL) {
		free_call(call);
		return -ENOMEM;
	}
	*ret_call = call;
	return 0;
}

int docker_call_bare(struct docker *docker, const struct docker_request *request, struct docker_call **ret_call)
{
	struct docker_call *call;
	int r = new_call(docker, request, &call);
	if (r < 0)
		return r;
	r = send_call(call);
	if (r < 0) {
		free_call(call);
		return r;
	}
	link_call(docker, call);
	*ret_call = call;
	return 0;
}

int docker_call(struct docker *docker, const struct docker_request *request, struct docker_call **ret_call)
{
	struct docker_call *call;
	int r = new_call(docker, request, &call);
	if (r < 0)
		return r;
	call->is_versioned = true;
	if (docker->state == DOCKER_UP)
		r = send_call(call);
	if (r < 0) {
		free_call(call);
		return r;
	}
	link_call(docker, call);
	*ret_call = call;
	if (docker->state != DOCKER_UP)
		docker_ask(docker);
	return 0;
}

void docker_resume(struct docker_call *call)
{
	if (call != NULL && call->easy != NULL)
		curl_easy_pause(call->easy, CURLPAUSE_CONT);
}

/* The handlers may add and cancel calls, so the list is begun anew each time. */
static struct docker_call *first_waiting(const struct docker *docker)
{
	struct docker_call *last = NULL;
	for (struct docker_call *call = docker->calls; call != NULL; call = call->next)
		if (call->easy == NULL)
			last = call;
	return last;
}

void docker_send_waiting(struct docker *docker)
{
	struct docker_call *call;
	while (docker->state == DOCKER_UP && (call = first_waiting(docker)) != NULL)
		if (send_call(call) < 0)
			finish(call, &(struct docker_answer){ .result = DOCKER_NOT_SENT, .text = "out of memory" });
}

/* Only those that wait now: a handler that asks again waits for the next answer. */
void docker_fail_waiting(struct docker *docker, const char *why)
{
	char text[768];
	size_t n = 0;
	for (struct docker_call *call = docker->calls; call != NULL; call = call->next)
		n += call->easy == NULL;
	snprintf(text, sizeof(text), "%s", why);
	while (n-- > 0) {
		struct docker_call *call = first_waiting(docker);
		if (call != NULL)
			finish(call, &(struct docker_answer){ .result = DOCKER_NOT_SENT, .text = text });
	}
}
