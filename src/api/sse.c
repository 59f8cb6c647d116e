/* Rendering of server-sent events. Sends nothing. */
#include "api/sse.h"

#include <stdio.h>

void sse_begin(struct writer *writer, uint64_t id, const char *event)
{
	char head[160];
	int length = id != 0
		? snprintf(head, sizeof(head), "id: %llu\nevent: %s\ndata: ", (unsigned long long)id, event)
		: snprintf(head, sizeof(head), "event: %s\ndata: ", event);
	writer_raw(writer, head, (size_t)length);
}

struct blob *sse_end(struct writer *writer)
{
	writer_raw(writer, "\n\n", 2);
	struct blob *blob = writer->has_failed ? NULL : blob_from(writer->text, writer->length);
	writer_finish(writer);
	return blob;
}
