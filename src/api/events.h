/* The event stream, and transitions followed live. Both read the ring of events. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct api;
struct request;

/*
 * Answers the request with the events of transition `id` from `first_event` on. 0, or negative with nothing changed
 * but perhaps the refusal as the request's answer.
 */
int events_follow_transition(struct request *request, uint64_t id, uint64_t first_event);

/* The transition ended for this request: sends the result after the events so far, then the end. */
void events_finish_transition(struct request *request, unsigned status, const char *body, size_t length);
