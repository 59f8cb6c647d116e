/*
 * The routes of leases and of the lock. A lease that nobody can know of is given back; one with a request_id may still
 * be asked for again, and ends by its time.
 */
#include "api/leases.h"

#include <stdio.h>
#include <string.h>

#include "api/action.h"
#include "api/json.h"
#include "api/lease_json.h"
#include "api/lease_stream.h"
#include "api/lease_terms.h"
#include "api/peer.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"
#include "base/cleanup.h"
#include "base/log.h"

/* GET /gpu/leases. */

void leases_get(struct request *request)
{
	const struct api_host *host = request->api->host;
	CLEANUP_WRITER struct writer writer = { 0 };
	writer_open(&writer, NULL, '{');
	json_leases(&writer, "leases", host, host->status(host->context));
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}

/* POST /gpu/leases. */

static void submit(struct request *request, const struct lease_body *body)
{
	const struct lease_terms *terms = &body->terms;
	const struct request_spec spec = {
		.kind = REQUEST_LEASE,
		.target = terms->n_services > 0 ? terms->services[0] : 0,
		.lease = terms,
		.wait_ms = body->wait_ms,
	};
	request->is_attached = terms->attached;
	request->may_return = terms->request_id[0] != '\0';
	action_submit(request, &spec);
}

/* The log shows the owner of each lease; what somebody calls himself does not say who he is. */
static void log_owner(struct request *request, const struct lease_body *body)
{
	const char *name = peer_name(request->client);
	if (strcmp(name, body->terms.owner) != 0)
		log_info("%s asks for a lease as `%s`", name, body->terms.owner);
}

void leases_post(struct request *request)
{
	struct lease_body body;
	if (lease_terms_read(request, &body)) {
		log_owner(request, &body);
		submit(request, &body);
	}
	lease_terms_finish(&body);
	request_drop_body(request); /* it may wait for long */
}

/* Whoever asked went away in the very moment of the grant. */
void lease_give_back(struct api *api, const struct lease *lease)
{
	const struct api_host *host = api->host;
	if (lease->attached && !lease_stream_exists(api, lease->fence))
		host->detach(host->context, lease->fence);
	else if (!lease->attached && lease->request_id[0] == '\0')
		host->release(host->context, lease->fence);
}

/*
 * Whether an answer that libmicrohttpd ended with an error can have reached nobody; a client that has read it holds the
 * lease, and nobody else may get it. That is not what the error says: an answer that went out in one piece, headers and
 * body, is complete for the library only in its next run, and when the client has read it and closed the connection by
 * then, that is an error, too. Not so in two cases: where the request came and was answered in one run and the error
 * was met in that same run (it sends at once then, and an error is one of sending), and for an answer in two pieces (it
 * is complete in the call that sends the last byte).
 */
static bool answer_is_lost(const struct request *request)
{
	return request->is_in_pieces || request->answered_run == request->client->shard->n_runs;
}

void lease_was_not_told(struct request *request)
{
	const struct api_host *host = request->api->host;
	uint64_t fence = request->granted_fence;
	request->granted_fence = 0;
	if (fence != 0 && answer_is_lost(request) && !request->may_return && !request->api->closing)
		host->release(host->context, fence);
}

static void reply_grant(struct request *request, unsigned status, struct writer *grant)
{
	uint64_t run = request->client->shard->n_runs;
	request->answered_run = run;
	request->is_in_pieces = request->is_suspended || request->begun_run != run;
	if (request->is_in_pieces)
		reply_json_in_pieces(request, status, grant);
	else
		reply_json(request, status, grant);
}

void lease_answer(struct request *request, const struct lease *lease, const struct transition *transition)
{
	char location[64];
	CLEANUP_WRITER struct writer writer = { 0 };
	if (request->stream != NULL) {
		lease_stream_grant(request, lease, transition);
		if (lease->awaits_holder) /* over a restart, and its request_id led here */
			request->api->host->attach(request->api->host->context, lease->fence);
		return;
	}
	watch_stop(request);
	bool is_repeated = transition == NULL || request->transition == 0;
	if (!is_repeated)
		request->granted_fence = lease->fence;
	json_grant_begin(&writer, request->api->host, lease, transition);
	writer_close(&writer, '}');
	reply_grant(request, is_repeated ? 200 : 201, &writer);
	snprintf(location, sizeof(location), "/gpu/leases/%llu", (unsigned long long)lease->fence);
	reply_header(request, "Location", location);
	api_resume(request);
}

/* The lease that the path names. */

static const struct lease *find(struct request *request)
{
	const struct api_host *host = request->api->host;
	uint64_t fence = lease_id_parse(request->name);
	const struct lease *lease = fence != 0 ? host->lease(host->context, fence) : NULL;
	if (lease == NULL)
		reply_problem(request, "unknown_lease",
			"there is no lease `%.64s`: it was released, ran out or was broken, is for nothing that is "
			"configured any more, or never existed; GET "
			"/gpu/leases lists those there are",
			request->name);
	return lease;
}

/* A client that names a fence means that grant and no other. */
static bool fence_matches(struct request *request, const struct lease *lease)
{
	const struct parameters *parameters = &request->parameters;
	if ((parameters->given & PARAMETER_FENCE) == 0 || (uint64_t)parameters->fence == lease->fence)
		return true;
	reply_problem(request, "stale_fence", "lease %llu has the fence %llu, not %lld",
		(unsigned long long)lease->fence, (unsigned long long)lease->fence, (long long)parameters->fence);
	return false;
}

void lease_delete(struct request *request)
{
	const struct api_host *host = request->api->host;
	const struct lease *lease = find(request);
	if (lease == NULL || !fence_matches(request, lease))
		return;
	host->release(host->context, lease->fence);
	CLEANUP_WRITER struct writer writer = { 0 };
	writer_open(&writer, NULL, '{');
	writer_bool(&writer, "success", true);
	writer_bool(&writer, "released", true);
	writer_text(&writer, "id", request->name);
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}

static bool ttl_is_sound(struct request *request)
{
	const struct parameters *parameters = &request->parameters;
	if ((parameters->given & PARAMETER_TTL) == 0 ||
		(parameters->ttl_ms > 0 && (uint64_t)parameters->ttl_ms <= LEASE_TTL_MAX_MS))
		return true;
	reply_problem(request, "bad_request", "`ttl_s` must be a number of seconds above 0 and at most %llu (7 days)",
		LEASE_TTL_MAX_MS / 1000);
	return false;
}

void lease_renew(struct request *request)
{
	const struct api_host *host = request->api->host;
	const struct lease *lease = find(request);
	if (lease == NULL || !fence_matches(request, lease) || !ttl_is_sound(request))
		return;
	uint64_t fence = lease->fence;
	if (lease->attached) {
		reply_problem_as(request, 409, "bad_request",
			"attached leases have no time: they last as long as their connection");
		return;
	}
	host->renew(host->context, fence, (uint64_t)request->parameters.ttl_ms);
	lease = find(request);
	if (lease == NULL)
		return;
	CLEANUP_WRITER struct writer writer = { 0 };
	json_lease_begin(&writer, host, lease, host->status(host->context)->now_ms);
	writer_bool(&writer, "success", true);
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}

/* Coming back to an attached lease. */

/* Without a branch or an early end that depends on what the secret is; how long it is is no secret. "" is none. */
static bool secret_matches(const char *secret, const char *offered)
{
	size_t length = strlen(secret);
	unsigned char difference = 0;
	if (length == 0 || strlen(offered) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)(secret[i] ^ offered[i]);
	return difference == 0;
}

void lease_attach(struct request *request)
{
	const struct api_host *host = request->api->host;
	const struct lease *lease = find(request);
	if (lease == NULL)
		return;
	if (!lease->attached) {
		reply_problem_as(request, 409, "bad_request",
			"lease %s is not attached to a connection; renew it to keep it", request->name);
		return;
	}
	const char *offered = request->parameters.secret;
	const char *secret = host->lease_secret(host->context, lease->fence);
	if (offered == NULL) {
		reply_problem(request, "bad_request", "`secret` is missing: the event `granted` carried it");
		return;
	}
	if (secret == NULL || !secret_matches(secret, offered)) {
		reply_problem(request, "wrong_secret",
			"this is not the secret of lease %s; its holder got it in the event `granted`", request->name);
		return;
	}
	uint64_t fence = lease->fence;
	if (lease_stream_hold(request, lease) == 0)
		host->attach(host->context, fence);
}
