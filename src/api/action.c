/* Submitting, waiting, answering. The host decides; this file only carries the question there and the answer back. */
#include "api/action.h"

#include <stdio.h>
#include <string.h>

#include "api/broken.h"
#include "api/events.h"
#include "api/json.h"
#include "api/lease_stream.h"
#include "api/leases.h"
#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/routes.h"
#include "api/server.h"
#include "base/distance.h"

/* Names. */

size_t action_find_service(struct request *request, const char *name)
{
	const struct api_host *host = request->api->host;
	const struct explain_names *names = host->names;
	const char *nearest = NULL;
	unsigned least = 3;
	for (size_t i = 0; i < names->n_services; i++) {
		if (names->services[i].is_retired && !json_shows_service(&host->status(host->context)->services[i]))
			continue;
		if (strcmp(names->services[i].name, name) == 0)
			return i;
		unsigned distance = edit_distance(names->services[i].name, name);
		if (distance < least) {
			least = distance;
			nearest = names->services[i].name;
		}
	}
	if (nearest != NULL)
		reply_problem(
			request, "unknown_service", "there is no service `%.128s`; did you mean `%s`?", name, nearest);
	else
		reply_problem(request, "unknown_service",
			"there is no service `%.128s`; GET /gpu/status lists them, services: in the configuration "
			"makes them",
			name);
	return SIZE_MAX;
}

static bool names_phase(const struct phase_definition *phase, const char *name_or_number)
{
	char number[16];
	snprintf(number, sizeof(number), "%d", phase->number);
	return strcmp(number, name_or_number) == 0 || (phase->name != NULL && strcmp(phase->name, name_or_number) == 0);
}

size_t action_find_phase(struct request *request, const char *name_or_number)
{
	const struct explain_names *names = request->api->host->names;
	char known[512] = "";
	size_t used = 0;
	for (size_t i = 0; i < names->n_phases; i++) {
		const struct phase_definition *phase = &names->phases[i];
		if (phase->is_retired)
			continue;
		if (names_phase(phase, name_or_number))
			return i;
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%d%s%s", used > 0 ? ", " : "",
				phase->number, phase->name != NULL ? " " : "", phase->name != NULL ? phase->name : "");
	}
	reply_problem(request, "unknown_phase", "there is no phase `%.128s`; phases: %s", name_or_number,
		used > 0 ? known : "none, phases: in the configuration makes them");
	return SIZE_MAX;
}

/* Planning. */

void action_plan(struct request *request, const struct request_spec *spec)
{
	const struct api_host *host = request->api->host;
	struct plan plan = { 0 };
	int r = host->plan(host->context, spec, &plan);
	if (r < 0) {
		reply_problem(request, "internal", "the plan cannot be made: %s", strerror(-r));
		return;
	}
	CLEANUP_WRITER struct writer writer = { 0 };
	json_plan(&writer, host, spec, &plan, r == PLAN_OK);
	reply_json(request, 200, &writer);
	plan_finish(&plan);
}

/* Submitting. */

static bool may_wait(struct request *request)
{
	struct api *api = request->api;
	if (api->tickets.n < API_WAITING_MAX)
		return true;
	reply_problem(request, "too_many_requests", "%d requests wait already; try again later", API_WAITING_MAX);
	reply_header(request, "Retry-After", "1");
	return false;
}

static void flush(struct request *request)
{
	const struct api_host *host = request->api->host;
	if (host->flush != NULL)
		host->flush(host->context);
}

static void answer_accepted(struct request *request, uint64_t id)
{
	const struct api_host *host = request->api->host;
	char location[64];
	if (request->breaks)
		flush(request); /* by then it is known what it broke */
	snprintf(location, sizeof(location), "/gpu/transitions/%llu", (unsigned long long)id);
	CLEANUP_WRITER struct writer writer = { 0 };
	json_transition_by_id_begin(&writer, host, id);
	writer_bool(&writer, "success", true);
	broken_put(request, &writer);
	writer_close(&writer, '}');
	reply_json(request, 202, &writer);
	reply_header(request, "Location", location);
}

static bool wants_stream(const struct request *request)
{
	return request->headers.accept != NULL && strcasestr(request->headers.accept, "text/event-stream") != NULL;
}

/* What can be answered at once does not wait at all. */
static int wait_without_stream(struct request *request)
{
	flush(request);
	if (request->ticket == 0)
		return 0;
	request->stage = REQUEST_WAITING;
	return watch_start(request);
}

/* The connection waits from now on; `id` is what for. */
static void wait_for_answer(struct request *request, uint64_t ticket, uint64_t id, uint64_t first_event)
{
	int r;
	tickets_add(&request->api->tickets, request, ticket);
	if (request->is_attached) {
		r = lease_stream_wait(request, id);
		if (r == 0)
			flush(request);
	} else if (wants_stream(request) && request->spec.kind != REQUEST_LEASE) {
		r = events_follow_transition(request, id, first_event);
	} else {
		r = wait_without_stream(request);
	}
	if (r < 0) {
		request->stage = REQUEST_RECEIVING;
		action_withdraw(request);
		reply_problem(request, "internal", "the request cannot wait: %s", strerror(-r));
	}
}

void action_submit(struct request *request, const struct request_spec *spec)
{
	struct api *api = request->api;
	const struct api_host *host = api->host;
	const struct parameters *parameters = &request->parameters;
	if (parameters->dry_run && parameters->async) {
		reply_problem(request, "bad_request", "`dry_run` and `async` cannot be combined");
		return;
	}
	if (parameters->dry_run) {
		action_plan(request, spec);
		return;
	}
	if (!may_wait(request))
		return;
	request->spec = *spec;
	if (spec->kind == REQUEST_STOP && spec->force) {
		flush(request); /* what ended before is none of its doing */
		broken_begin(request);
	}
	uint64_t ticket = tickets_new(&api->tickets), id = 0, first_event = ring_next_id(api->ring);
	int r = host->submit(host->context, spec, ticket, &id);
	request->spec.lease = NULL; /* it was only lent */
	request->transition = id;
	if (r < 0)
		reply_problem(request, "internal", "the request cannot be queued: %s", strerror(-r));
	else if (parameters->async && id != 0)
		answer_accepted(request, id);
	else
		wait_for_answer(request, ticket, id, first_event);
}

uint64_t action_wait(struct request *request)
{
	if (!may_wait(request))
		return 0;
	tickets_add(&request->api->tickets, request, tickets_new(&request->api->tickets));
	request->stage = REQUEST_WAITING;
	int r = watch_start(request);
	if (r == 0)
		return request->ticket;
	action_stop_waiting(request);
	reply_problem(request, "internal", "the request cannot wait: %s", strerror(-r));
	return 0;
}

void action_stop_waiting(struct request *request)
{
	request->stage = REQUEST_RECEIVING;
	watch_stop(request);
	tickets_remove(&request->api->tickets, request);
}

void action_withdraw(struct request *request)
{
	struct api *api = request->api;
	uint64_t ticket = request->ticket;
	tickets_remove(&api->tickets, request);
	api->host->withdraw(api->host->context, ticket);
}

/* Answering. */

/* Hands a result to the request that waited for it. */
static void deliver(struct request *request, unsigned status, struct writer *body)
{
	const char *text = body->has_failed ? "null" : body->text;
	size_t length = body->has_failed ? strlen(text) : body->length;
	tickets_remove(&request->api->tickets, request);
	if (request->is_attached) {
		lease_stream_fail(request, status, text, length);
		return;
	}
	watch_stop(request);
	if (request->stream != NULL) {
		events_finish_transition(request, status, text, length);
		return;
	}
	reply_json(request, status, body);
	api_resume(request);
}

void api_answer(struct api *api, uint64_t ticket, const struct transition *transition, const struct lease *lease,
	enum outcome outcome)
{
	struct request *request = tickets_find(&api->tickets, ticket);
	if (request == NULL) { /* async, or gone */
		if (lease != NULL)
			lease_give_back(api, lease);
		return;
	}
	if (lease != NULL && outcome == OUTCOME_DONE) {
		tickets_remove(&api->tickets, request);
		lease_answer(request, lease, transition);
		return;
	}
	CLEANUP_WRITER struct writer writer = { 0 };
	unsigned status = json_result(&writer, api->host, request, transition, outcome);
	deliver(request, status, &writer);
}

void action_answer(struct api *api, uint64_t ticket, unsigned status, struct writer *body)
{
	struct request *request = tickets_find(&api->tickets, ticket);
	if (request != NULL)
		deliver(request, status, body);
}

void action_end_all(struct api *api)
{
	struct request *request;
	while ((request = tickets_any(&api->tickets)) != NULL) {
		CLEANUP_WRITER struct writer writer = { 0 };
		unsigned status = problem_status("shutting_down");
		problem_begin(&writer, status, "shutting_down",
			"gpumgrd is shutting down; what was begun may still complete");
		writer_close(&writer, '}');
		deliver(request, status, &writer);
	}
}
