/* The answer of an HTTP server, as far as all askers see it alike. Knows no asker and no transfer. */
#include "http/curl_answer.h"

#include <string.h>

#include "base/cleanup.h"

void curl_answer_take_header(struct curl_answer *answer, const char *line, size_t length)
{
	answer->headers_length += length;
	/* An interim answer (1xx) is followed by the next status line; trailers come after the end. */
	if (length > 5 && memcmp(line, "HTTP/", 5) == 0)
		answer->headers_ended = false;
	else if (length > 0 && (line[0] == '\r' || line[0] == '\n'))
		answer->headers_ended = true;
}

CURLcode curl_answer_judge(const struct curl_answer *answer, CURLcode result)
{
	return result == CURLE_OK && !answer->headers_ended ? CURLE_PARTIAL_FILE : result;
}

const char *curl_answer_describe(CURLcode result)
{
	static const struct {
		CURLcode code;
		const char *text;
	} texts[] = {
		{ CURLE_GOT_NOTHING, "connection closed without an answer" },
		{ CURLE_WEIRD_SERVER_REPLY, "answer is not HTTP" },
		{ CURLE_UNSUPPORTED_PROTOCOL, "answer is not HTTP" }, /* HTTP/0.9 */
		{ CURLE_PARTIAL_FILE, "connection closed in the middle of the answer" },
		{ CURLE_BAD_CONTENT_ENCODING, "answer is not HTTP" },
		{ CURLE_RECV_ERROR, "connection broken off by the other side" },
		{ CURLE_SEND_ERROR, "connection broken off by the other side" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].code == result)
			return texts[i].text;
	return NULL;
}
