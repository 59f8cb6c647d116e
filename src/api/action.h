/*
 * Requests that change something: submitted to the host, suspended until their ticket is answered, or followed live.
 */
#pragma once

#include <stdint.h>

#include "core/request.h"

struct api;
struct request;
struct writer;

/*
 * Submits `spec` for the request, as its parameters say: dry_run only plans, async answers at once with 202, an
 * Accept of text/event-stream follows the transition live, else it waits for the answer.
 */
void action_submit(struct request *request, const struct request_spec *spec);

/* Waits for action_answer() to what is no request to the engine. Its ticket; 0: it cannot, and was answered. */
uint64_t action_wait(struct request *request);
void action_answer(struct api *api, uint64_t ticket, unsigned status, struct writer *body);
/* Inside the call that began to wait: there is nothing to wait for after all. */
void action_stop_waiting(struct request *request);

/* Answers with what `spec` would do. */
void action_plan(struct request *request, const struct request_spec *spec);

/* The client is gone, or does not wait any more: the ticket ends. */
void action_withdraw(struct request *request);

/* Answers all that wait with `shutting_down`. */
void action_end_all(struct api *api);

/* Index of what a client named; SIZE_MAX with the refusal as the request's answer. */
size_t action_find_service(struct request *request, const char *name);
size_t action_find_phase(struct request *request, const char *name_or_number);
