/* Notes what forced stops broke. Must not end a lease, nor ask who ended it: the engine says which ended by force. */
#include "api/broken.h"

#include "api/lease_json.h"
#include "api/request.h"
#include "api/server.h"

void broken_begin(struct request *request)
{
	request->breaks = true;
	LIST_INSERT_HEAD(&request->api->breaking, request, breaking_link);
}

static bool is_on(const struct lease *lease, size_t service)
{
	for (size_t i = 0; i < lease->n_services; i++)
		if (lease->services[i] == service)
			return true;
	return false;
}

void broken_note(struct api *api, const struct lease *lease)
{
	struct request *request;
	LIST_FOREACH(request, &api->breaking, breaking_link)
	{
		if (!is_on(lease, request->spec.target))
			continue;
		json_lease_begin(&request->broken, api->host, lease, api->host->status(api->host->context)->now_ms);
		writer_close(&request->broken, '}');
	}
}

void broken_put(const struct request *request, struct writer *writer)
{
	if (!request->breaks)
		return;
	writer_open(writer, "broken", '[');
	if (request->broken.length > 0)
		writer_json(writer, NULL, request->broken.text, request->broken.length);
	writer_close(writer, ']');
	writer->has_failed |= request->broken.has_failed;
}

void broken_finish(struct request *request)
{
	if (request->breaks)
		LIST_REMOVE(request, breaking_link);
	request->breaks = false;
	writer_finish(&request->broken);
}
