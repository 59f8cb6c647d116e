/* Server-sent events as text: begun, then the data written on one line, then ended. */
#pragma once

#include <stdint.h>

#include "api/blob.h"
#include "api/writer.h"

/* Without an id when that is 0. */
void sse_begin(struct writer *writer, uint64_t id, const char *event);
/* The event as it is sent; the writer is empty then. NULL: no memory. */
struct blob *sse_end(struct writer *writer);
