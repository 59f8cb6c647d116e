/*
 * The probe `http`: one GET, passes on a 2xx status whose answer was complete or longer than we care to read.
 * Redirects are not followed: where they lead is somebody else's health.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "health/kind.h"
#include "http/curl_answer.h"
#include "net/resolve.h"

#define ANSWER_MAX (64 * 1024) /* of a health check, and of the headers of both */
#define BODY_MAX (1024 * 1024) /* that is kept for a busy probe */

struct http_probe {
	struct probe base;
	struct curl_job job;
	CURL *easy;
	struct curl_slist *resolved; /* for CURLOPT_RESOLVE */
	struct lookup *lookup;
	char *host;
	uint16_t port;
	size_t n_read; /* headers and body */
	struct curl_answer answer;
	bool cut_in_body;
	bool cut_in_headers;
	char curl_error[CURL_ERROR_SIZE];
};

static void describe_connect_error(struct http_probe *http, char *text, size_t size)
{
	long os_errno = 0;
	curl_easy_getinfo(http->easy, CURLINFO_OS_ERRNO, &os_errno);
	if (os_errno == ECONNREFUSED)
		snprintf(text, size, "connection refused");
	else if (os_errno != 0)
		snprintf(text, size, "cannot connect: %s", strerror((int)os_errno));
	else
		snprintf(text, size, "cannot connect: %s", http->curl_error);
}

/* net/own_peer.h: then nobody else is there, and what came as an answer was the request. */
static bool has_met_itself(struct http_probe *http)
{
	long own_port = 0, port = 0;
	char *own_address = NULL, *address = NULL;
	curl_easy_getinfo(http->easy, CURLINFO_LOCAL_PORT, &own_port);
	curl_easy_getinfo(http->easy, CURLINFO_PRIMARY_PORT, &port);
	curl_easy_getinfo(http->easy, CURLINFO_LOCAL_IP, &own_address);
	curl_easy_getinfo(http->easy, CURLINFO_PRIMARY_IP, &address);
	return port != 0 && port == own_port && own_address != NULL && address != NULL &&
		strcmp(own_address, address) == 0;
}

static void describe_curl_error(struct http_probe *http, CURLcode result, char *text, size_t size)
{
	if (has_met_itself(http)) {
		snprintf(text, size, "connection refused");
		return;
	}
	if (http->cut_in_headers) {
		snprintf(text, size, "answer is not usable: more than 64 KiB of headers");
		return;
	}
	if (result == CURLE_COULDNT_CONNECT) {
		describe_connect_error(http, text, size);
		return;
	}
	const char *why = curl_answer_describe(result);
	if (why == NULL)
		why = http->curl_error[0] != '\0' ? http->curl_error : curl_easy_strerror(result);
	snprintf(text, size, "%s", why);
}

/* Whether the status passes; else what is wrong with it. */
static bool judge_status(struct http_probe *http, char *text, size_t size)
{
	long status = 0;
	char *location = NULL;
	curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(http->easy, CURLINFO_REDIRECT_URL, &location);
	text[0] = '\0';
	if (status >= 200 && status < 300)
		return true;
	if (status >= 300 && status < 400 && location != NULL)
		snprintf(text, size, "status %ld: redirects to %.200s (not followed)", status, location);
	else
		snprintf(text, size, "status %ld", status);
	return false;
}

static void handle_done(struct curl_job *job, CURLcode result)
{
	struct http_probe *http = (struct http_probe *)((char *)job - offsetof(struct http_probe, job));
	char *text = http->base.text;
	bool passed = false;
	result = curl_answer_judge(&http->answer, result);
	if (result == CURLE_OK || http->cut_in_body)
		passed = judge_status(http, text, sizeof(http->base.text));
	else
		describe_curl_error(http, result, text, sizeof(http->base.text));
	probe_finish(&http->base, passed, probe_clean_text(text));
}

/* Keeps it for whoever asks what it says. False: it becomes too much. */
static bool keep_body(struct probe *probe, const char *data, size_t size)
{
	size_t capacity = 4096;
	probe->is_body_cut = size > BODY_MAX - probe->body_length;
	if (probe->is_body_cut)
		return false;
	while (capacity < probe->body_length + size)
		capacity *= 2;
	char *body = realloc(probe->body, capacity);
	if (body == NULL)
		return false;
	probe->body = body;
	memcpy(body + probe->body_length, data, size);
	probe->body_length += size;
	return true;
}

static size_t handle_body(char *data, size_t size, size_t n, void *context)
{
	struct http_probe *http = context;
	http->n_read += size * n;
	if (http->base.question != NULL) {
		bool is_kept = keep_body(&http->base, data, size * n);
		http->cut_in_body = http->base.is_body_cut;
		return is_kept ? size * n : 0;
	}
	http->cut_in_body = http->n_read > ANSWER_MAX;
	return http->cut_in_body ? 0 : size * n;
}

static size_t handle_header(char *data, size_t size, size_t n, void *context)
{
	struct http_probe *http = context;
	http->n_read += size * n;
	curl_answer_take_header(&http->answer, data, size * n);
	http->cut_in_headers = http->answer.headers_length > ANSWER_MAX;
	return http->cut_in_headers ? 0 : size * n;
}

static int begin_transfer(struct http_probe *http)
{
	curl_easy_setopt(http->easy, CURLOPT_RESOLVE, http->resolved);
	curl_easy_setopt(http->easy, CURLOPT_WRITEFUNCTION, handle_body);
	curl_easy_setopt(http->easy, CURLOPT_WRITEDATA, http);
	curl_easy_setopt(http->easy, CURLOPT_HEADERFUNCTION, handle_header);
	curl_easy_setopt(http->easy, CURLOPT_HEADERDATA, http);
	curl_easy_setopt(http->easy, CURLOPT_ERRORBUFFER, http->curl_error);
	http->job.handle_done = handle_done;
	return curl_loop_add(http->base.prober->curl, http->easy, &http->job);
}

/* "+HOST:PORT:ADDRESS[,ADDRESS]": the plus lets libcurl forget it again. */
static struct curl_slist *resolve_list(const struct http_probe *http, const struct address_list *addresses)
{
	char text[512 + ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3)];
	int used = snprintf(text, sizeof(text), "+%.255s:%u:", http->host, http->port);
	for (size_t i = 0; i < addresses->n; i++) {
		const union address *address = &addresses->items[i];
		char name[INET6_ADDRSTRLEN];
		bool is_v6 = address->any.sa_family == AF_INET6;
		if (is_v6)
			uv_ip6_name(&address->v6, name, sizeof(name));
		else
			uv_ip4_name(&address->v4, name, sizeof(name));
		used += snprintf(
			text + used, sizeof(text) - (size_t)used, is_v6 ? "%s[%s]" : "%s%s", i > 0 ? "," : "", name);
	}
	return curl_slist_append(NULL, text);
}

static void handle_resolved(void *context, int status, const struct address_list *addresses)
{
	struct http_probe *http = context;
	char *text = http->base.text;
	http->lookup = NULL;
	int r = status;
	if (status == 0) {
		http->resolved = resolve_list(http, addresses);
		r = http->resolved == NULL ? -ENOMEM : begin_transfer(http);
	}
	if (r == 0)
		return;
	snprintf(text, sizeof(http->base.text), "%s%s", status < 0 ? "the host name cannot be resolved: " : "",
		uv_strerror(r));
	probe_finish(&http->base, false, text);
}

/* Host and port of the URL. Positive: not a URL that can be asked. */
static int split_url(const char *text, char **ret_host, uint16_t *ret_port)
{
	CURLU *url = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL;
	int r = 1;
	if (url == NULL)
		return -ENOMEM;
	if (curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		(strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0) &&
		curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
		*ret_host = strdup(host);
		*ret_port = (uint16_t)strtoul(port, NULL, 10);
		r = *ret_host == NULL ? -ENOMEM : 0;
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(url);
	return r;
}

/* libcurl answers for these itself; brackets are how it gives back an IPv6 address. */
static bool needs_lookup(const char *host)
{
	struct address_list ignored;
	return host[0] != '[' && resolve_now(host, 0, &ignored) == RESOLVE_NEEDS_LOOKUP;
}

static int http_begin(struct probe *probe, const struct probe_config *config, const struct probe_runner *runner)
{
	(void)runner;
	struct http_probe *http = (struct http_probe *)probe;
	int r = split_url(config->address, &http->host, &http->port);
	if (r < 0)
		return r;
	if (r > 0)
		return probe_fail_early(probe, "not a URL that can be asked; write http://HOST:PORT/PATH");
	http->easy = curl_loop_take(probe->prober->curl);
	if (http->easy == NULL || curl_easy_setopt(http->easy, CURLOPT_URL, config->address) != CURLE_OK)
		return -ENOMEM;
	if (!needs_lookup(http->host))
		return begin_transfer(http);
	return lookup_start(probe->prober->loop, http->host, http->port, handle_resolved, http, &http->lookup);
}

static void http_release(struct probe *probe)
{
	struct http_probe *http = (struct http_probe *)probe;
	http->lookup = lookup_cancel(http->lookup);
	if (http->easy != NULL) {
		curl_easy_setopt(http->easy, CURLOPT_ERRORBUFFER, NULL);
		curl_easy_setopt(http->easy, CURLOPT_RESOLVE, NULL);
		curl_loop_remove(probe->prober->curl, http->easy);
	}
	http->easy = NULL;
	curl_slist_free_all(http->resolved);
	http->resolved = NULL;
	free(http->host);
	http->host = NULL;
}

static void http_describe_timeout(struct probe *probe, const char *timeout, char *text, size_t size)
{
	struct http_probe *http = (struct http_probe *)probe;
	long status = 0;
	if (http->easy != NULL)
		curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
	if (http->n_read == 0)
		snprintf(text, size, "no answer within %s", timeout);
	else
		snprintf(text, size, "answer not complete within %s (status %ld)", timeout, status);
}

const struct probe_ops http_probe_ops = {
	.size = sizeof(struct http_probe),
	.begin = http_begin,
	.release = http_release,
	.describe_timeout = http_describe_timeout,
};
