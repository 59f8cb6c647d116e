/* Submitting, waiting, answering. The host decides; this file only carries the question there and the answer back. */
#include "api/action.h"

#include <stdio.h>
#include <string.h>

#include "api/events.h"
#include "api/json.h"
#include "api/problem.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/routes.h"
#include "api/server.h"
#include "base/distance.h"

/* Names. */

size_t action_find_service(struct request *request, const char *name)
{
	const struct explain_names *names = request->api->host->names;
	const char *nearest = NULL;
	unsigned least = 3;
	for (size_t i = 0; i < names->n_services; i++) {
		if (strcmp(names->services[i].name, name) == 0)
			return i;
		unsigned distance = edit_distance(names->services[i].name, name);
		if (distance < least) {
			least = distance;
			nearest = names->services[i].name;
		}
	}
	if (nearest != NULL)
		reply_problem(request, "unknown_service", NULL, "there is no service `%.128s`; did you mean `%s`?",
			name, nearest);
	else
		reply_problem(request, "unknown_service", NULL,
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
		if (names_phase(phase, name_or_number))
			return i;
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%d%s%s", used > 0 ? ", " : "",
				phase->number, phase->name != NULL ? " " : "", phase->name != NULL ? phase->name : "");
	}
	reply_problem(request, "unknown_phase", NULL, "there is no phase `%.128s`; phases: %s", name_or_number,
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
		reply_problem(request, "internal", NULL, "the plan cannot be made: %s", strerror(-r));
		return;
	}
	reply_json(request, 200, json_plan(host, spec, &plan, r == PLAN_OK));
	plan_finish(&plan);
}

/* Submitting. */

static bool may_wait(struct request *request)
{
	struct api *api = request->api;
	if (api->tickets.n < API_WAITING_MAX)
		return true;
	reply_problem(request, "too_many_requests", NULL, "%d requests wait already; try again later", API_WAITING_MAX);
	reply_header(request, "Retry-After", "1");
	return false;
}

static void answer_accepted(struct request *request, uint64_t id)
{
	const struct api_host *host = request->api->host;
	char location[64];
	snprintf(location, sizeof(location), "/gpu/transitions/%llu", (unsigned long long)id);
	json_t *body = json_transition_by_id(host, id);
	if (body != NULL)
		json_object_set_new(body, "success", json_true());
	reply_json(request, 202, body);
	reply_header(request, "Location", location);
}

static bool wants_stream(const struct request *request)
{
	return request->headers.accept != NULL && strcasestr(request->headers.accept, "text/event-stream") != NULL;
}

/* The connection waits from now on; `id` is what for. */
static void wait_for_answer(struct request *request, uint64_t ticket, uint64_t id, uint64_t first_event)
{
	tickets_add(&request->api->tickets, request, ticket);
	int r = watch_start(request);
	if (r == 0 && wants_stream(request))
		r = events_follow_transition(request, id, first_event);
	else if (r == 0)
		request->stage = REQUEST_WAITING;
	if (r < 0) {
		action_withdraw(request);
		reply_problem(request, "internal", NULL, "the request cannot wait: %s", strerror(-r));
	}
}

void action_submit(struct request *request, const struct request_spec *spec)
{
	struct api *api = request->api;
	const struct api_host *host = api->host;
	const struct parameters *parameters = &request->parameters;
	if (parameters->dry_run && parameters->async) {
		reply_problem(request, "bad_request", NULL, "`dry_run` and `async` cannot be combined");
		return;
	}
	if (parameters->dry_run) {
		action_plan(request, spec);
		return;
	}
	if (!may_wait(request))
		return;
	request->spec = *spec;
	uint64_t ticket = tickets_new(&api->tickets), id = 0, first_event = ring_next_id(api->ring);
	int r = host->submit(host->context, spec, ticket, &id);
	if (r < 0)
		reply_problem(request, "internal", NULL, "the request cannot be queued: %s", strerror(-r));
	else if (parameters->async && id != 0)
		answer_accepted(request, id);
	else
		wait_for_answer(request, ticket, id, first_event);
}

void action_withdraw(struct request *request)
{
	struct api *api = request->api;
	uint64_t ticket = request->ticket;
	tickets_remove(&api->tickets, request);
	api->host->withdraw(api->host->context, ticket);
}

/* Answering. */

/* Hands a result to the request that waited for it; the result is taken over. */
static void deliver(struct request *request, unsigned status, json_t *body)
{
	tickets_remove(&request->api->tickets, request);
	watch_stop(request);
	if (request->stream != NULL) {
		events_finish_transition(request, status, body);
		return;
	}
	if (status >= 400)
		reply_problem_document(request, status, body);
	else
		reply_json(request, status, body);
	api_resume(request);
}

void api_answer(struct api *api, uint64_t ticket, const struct transition *transition, enum outcome outcome)
{
	struct request *request = tickets_find(&api->tickets, ticket);
	if (request == NULL)
		return; /* async, or gone */
	unsigned status;
	json_t *body = json_result(api->host, &request->spec, transition, outcome, &status);
	deliver(request, status, body);
}

void action_end_all(struct api *api)
{
	struct request *request;
	while ((request = tickets_any(&api->tickets)) != NULL)
		deliver(request, problem_status("shutting_down"),
			problem_document(
				"shutting_down", "gpumgrd is shutting down; what was begun may still complete"));
}
