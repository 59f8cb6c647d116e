/* GET /gpu/status and /gpu/version. The page is rendered once for each version and second, and sent to all who ask. */
#include <string.h>
#include <time.h>

#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"

static struct MHD_Response *render(const struct api_host *host)
{
	json_t *page = json_status(host);
	char *text = page != NULL ? json_dumps(page, JSON_COMPACT) : NULL;
	json_decref(page);
	return reply_make("application/json", text, text != NULL ? strlen(text) : 0);
}

/* A reference to the page as it is now; NULL: no memory. */
static struct MHD_Response *current_page(struct api *api)
{
	struct status_cache *cache = &api->status_cache;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	uint64_t version = api->host->status_version(api->host->context);
	if (cache->response != NULL && cache->version == version && cache->second == now.tv_sec)
		return cache->response;
	if (cache->response != NULL)
		MHD_destroy_response(cache->response); /* whoever is being sent it has a reference of his own */
	*cache = (struct status_cache){ .response = render(api->host), .version = version, .second = now.tv_sec };
	return cache->response;
}

void status_get(struct request *request)
{
	struct MHD_Response *page = current_page(request->api);
	if (page != NULL)
		reply_shared(request, 200, page);
}

void version_get(struct request *request)
{
	reply_json(request, 200,
		json_pack("{s:s, s:i, s:s, s:s, s:s}", "version", request->api->host->version, "api", 1,
			"libmicrohttpd", MHD_get_version(), "libuv", uv_version_string(), "jansson",
			jansson_version_str()));
}
