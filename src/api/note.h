/*
 * A notice as the ring of events keeps it: copied, no larger than what it says, and not rendered before somebody wants
 * to read it. Most events are never read.
 */
#pragma once

#include <stdint.h>

#include "api/blob.h"
#include "core/notice.h"

struct note;

/* The time of the event is now. NULL: no memory. */
struct note *note_make(const struct notice *notice);
struct note *note_free(struct note *note);

/* As a server-sent event with that id; NULL: no memory. */
struct blob *note_render(const struct note *note, uint64_t id);
