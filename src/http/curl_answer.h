/* What libcurl tells of an HTTP answer besides its body: whether the headers are whole, and what went wrong. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

/* Embedded by whoever transfers; all zero at first. */
struct curl_answer {
	size_t headers_length;
	bool headers_ended; /* the empty line came */
};

/* One line of the headers, as CURLOPT_HEADERFUNCTION gets it. */
void curl_answer_take_header(struct curl_answer *answer, const char *line, size_t length);

/* The result of the transfer: CURLE_PARTIAL_FILE also for a lone status line, which libcurl takes for an answer. */
CURLcode curl_answer_judge(const struct curl_answer *answer, CURLcode result);

/* What that means when a server was reached. NULL: libcurl's own words are best. */
const char *curl_answer_describe(CURLcode result);
