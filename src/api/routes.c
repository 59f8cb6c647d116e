/* The table of routes, and finding one. Handlers live in the files of their resources. */
#include "api/routes.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "api/parameters.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "base/cleanup.h"
#include "base/distance.h"

#define STARTING (PARAMETER_WAIT | PARAMETER_DRY_RUN | PARAMETER_ASYNC)
#define STOPPING (PARAMETER_WAIT | PARAMETER_FORCE | PARAMETER_ASYNC)
#define ACTING (PARAMETER_WAIT | PARAMETER_ASYNC)

static const struct route routes[] = {
	{ "GET", "/gpu/events", events_get, PARAMETER_FOLLOW, 0 },
	{ "GET", "/gpu/leases", leases_get, 0, 0 },
	{ "POST", "/gpu/leases", leases_post, 0, ROUTE_OWN_BODY | ROUTE_QUIET },
	{ "DELETE", "/gpu/leases/{id}", lease_delete, PARAMETER_FENCE, 0 },
	{ "POST", "/gpu/leases/{id}/attach", lease_attach, PARAMETER_SECRET, ROUTE_NO_QUERY },
	{ "POST", "/gpu/leases/{id}/renew", lease_renew, PARAMETER_TTL | PARAMETER_FENCE, ROUTE_QUIET },
	{ "POST", "/gpu/lock/release", lock_release, 0, 0 },
	{ "GET", "/gpu/plan", plan_get, PARAMETER_PHASE | PARAMETER_START, 0 },
	{ "POST", "/gpu/prepare-phase/{phase}", phase_prepare, STARTING, 0 },
	{ "POST", "/gpu/release-all", service_release_all, ACTING, 0 },
	{ "POST", "/gpu/reload", reload_post, 0, 0 },
	{ "GET", "/gpu/service/{name}/logs", logs_get, PARAMETER_TAIL | PARAMETER_FOLLOW, 0 },
	{ "POST", "/gpu/service/{name}/restart", service_restart, ACTING, 0 },
	{ "POST", "/gpu/service/{name}/start", service_start, STARTING, 0 },
	{ "POST", "/gpu/service/{name}/stop", service_stop, STOPPING, 0 },
	{ "GET", "/gpu/status", status_get, 0, 0 },
	{ "GET", "/gpu/transitions/{id}", transition_get, 0, 0 },
	{ "GET", "/gpu/version", version_get, 0, 0 },
	{ "GET", "/health", health_get, 0, 0 },
	{ "GET", "/metrics", metrics_get, 0, 0 },
};

const struct route *route_at(size_t index)
{
	return index < ARRAY_SIZE(routes) ? &routes[index] : NULL;
}

/* Whether the path of the request is that of the route; `*ret_name` is what stands for {...}. */
static bool path_matches(const struct route *route, const struct request *request, const char **ret_name)
{
	const char *pattern = route->path + 1;
	*ret_name = NULL;
	for (size_t i = 0; i < request->n_segments; i++) {
		size_t length = strcspn(pattern, "/");
		const char *segment = request->segments[i];
		if (*pattern == '{' && *segment != 0)
			*ret_name = segment;
		else if (strlen(segment) != length || memcmp(pattern, segment, length) != 0)
			return false;
		pattern += length;
		if ((*pattern == 0) != (i + 1 == request->n_segments))
			return false;
		pattern += *pattern == '/';
	}
	return request->n_segments > 0;
}

/* How far the path is from the route's, what stands for {...} taken as given. */
static unsigned path_distance(const struct route *route, const struct request *request)
{
	char asked[DISTANCE_LENGTH_MAX + 2] = "", pattern[DISTANCE_LENGTH_MAX + 2] = "";
	const char *rest = route->path + 1;
	size_t used = 0, taken = 0;
	for (size_t i = 0; i < request->n_segments && used < sizeof(asked); i++) {
		bool is_wildcard = *rest == '{' && *request->segments[i] != 0;
		used += (size_t)snprintf(
			asked + used, sizeof(asked) - used, "/%s", is_wildcard ? "{}" : request->segments[i]);
		rest += strcspn(rest, "/");
		rest += *rest == '/';
	}
	for (const char *c = route->path; *c != 0 && taken + 1 < sizeof(pattern); c++) {
		pattern[taken++] = *c;
		if (*c == '{')
			c += strcspn(c, "}") - 1;
	}
	pattern[taken] = 0;
	return edit_distance(asked, pattern);
}

static bool refuse_unknown(struct request *request)
{
	const struct route *nearest = NULL;
	unsigned least = 5;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		unsigned distance = path_distance(&routes[i], request);
		if (distance < least) {
			least = distance;
			nearest = &routes[i];
		}
	}
	char title[256];
	request_title(request, title, sizeof(title));
	if (nearest != NULL)
		reply_problem(request, "not_found", "%s: there is no such resource; did you mean %s %s?", title,
			nearest->method, nearest->path);
	else
		reply_problem(request, "not_found",
			"%s: there is no such resource; try GET /gpu/status, or see docs/http-api.md", title);
	return false;
}

static bool refuse_method(struct request *request, const char *allow)
{
	char title[256];
	reply_problem(request, "method_not_allowed", "%s: this resource takes %s",
		request_title(request, title, sizeof(title)), allow);
	reply_header(request, "Allow", allow);
	return false;
}

bool route_find(struct request *request)
{
	char allow[64] = "";
	const char *method = request->is_head ? "GET" : request->method;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const char *name;
		if (!path_matches(&routes[i], request, &name))
			continue;
		if (strcmp(routes[i].method, method) == 0) {
			request->route = &routes[i];
			request->name = name;
			return true;
		}
		size_t used = strlen(allow);
		snprintf(allow + used, sizeof(allow) - used, "%s%s%s", used > 0 ? ", " : "", routes[i].method,
			strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
	}
	return allow[0] != 0 ? refuse_method(request, allow) : refuse_unknown(request);
}
