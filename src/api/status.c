/* GET /gpu/status and /gpu/version. The page is rendered once for each version and second, and sent to all who ask. */
#include <jansson.h>
#include <time.h>

#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"

#define API_VERSION 1

static struct MHD_Response *render(const struct api_host *host)
{
	size_t length;
	struct writer writer = { 0 };
	json_status(&writer, host);
	char *text = writer_take(&writer, &length);
	return reply_make("application/json", text, length);
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
	CLEANUP_WRITER struct writer writer = { 0 };
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "version", request->api->host->version);
	writer_integer(&writer, "api", API_VERSION);
	writer_text(&writer, "libmicrohttpd", MHD_get_version());
	writer_text(&writer, "libuv", uv_version_string());
	writer_text(&writer, "jansson", jansson_version_str());
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}
