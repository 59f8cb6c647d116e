/* Server-sent events as libgpumgr reads them: whole or in pieces they say the same, and within their bounds. */
#include "client/sse.h"

#include <errno.h>

#include "fuzz.h"

struct log {
	size_t n, stop_at;
	uint64_t hash;
};

static void add(struct log *log, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		log->hash = (log->hash ^ (unsigned char)bytes[i]) * 1099511628211u;
	log->hash = (log->hash ^ 0x100) * 1099511628211u;
}

static bool handle_event(void *context, const struct sse_event *event)
{
	struct log *log = context;
	FUZZ_CHECK(event->type[0] != '\0' && event->id != NULL && event->data != NULL);
	FUZZ_CHECK(event->data_length <= SSE_EVENT_MAX && strlen(event->data) == event->data_length);
	FUZZ_CHECK(strpbrk(event->type, "\r\n") == NULL && strpbrk(event->id, "\r\n") == NULL);
	add(log, event->type, strlen(event->type));
	add(log, event->id, strlen(event->id));
	add(log, event->data, event->data_length);
	return ++log->n != log->stop_at;
}

/* In pieces as long as the low bits of `seed` say. */
static int feed(struct log *log, const char *bytes, size_t n, uint8_t seed)
{
	struct sse_parser *parser = sse_parser_new(handle_event, log);
	FUZZ_CHECK(parser != NULL);
	int r = 0;
	for (size_t at = 0; at < n && r == 0;) {
		size_t most = seed == 0 ? n : 1 + (seed & 15);
		size_t piece = n - at < most ? n - at : most;
		char *copy = malloc(piece);
		FUZZ_CHECK(copy != NULL);
		memcpy(copy, bytes + at, piece);
		r = sse_feed(parser, copy, piece);
		free(copy);
		at += piece;
		seed = seed == 0 ? 0 : (uint8_t)(seed * 5 + 1) | 1;
	}
	sse_parser_free(parser);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t seed = fuzz_u8(&input) | 1, stop_at = fuzz_u8(&input);
	struct log whole = { .stop_at = stop_at }, pieces = { .stop_at = stop_at };
	const char *bytes = (const char *)input.at;
	size_t n = fuzz_left(&input);
	int r = feed(&whole, bytes, n, 0);
	FUZZ_CHECK(r == 0 || r == -ECANCELED || r == -EMSGSIZE);
	FUZZ_CHECK(r != -ECANCELED || whole.n == stop_at);
	FUZZ_CHECK(feed(&pieces, bytes, n, seed) == r);
	FUZZ_CHECK(whole.n == pieces.n && whole.hash == pieces.hash);
	return 0;
}
