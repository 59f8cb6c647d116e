/* What the API sent on one connection, held against the rules of HTTP/1.1 (RFC 9112) and our own (docs/http-api.md). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Ends the run unless `text` is a row of whole, well-formed answers. `may_be_cut`: we hung up, so that an answer that
 * goes on may have been left. `may_have_no_body`: there was a HEAD among the requests. How many answers there were.
 */
unsigned http_answers_check(const char *text, size_t length, bool may_be_cut, bool may_have_no_body);
