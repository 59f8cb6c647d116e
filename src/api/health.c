/* GET /health: whether the daemon lives, and whether there is a GPU with room. */
#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"

#define ENOUGH_FREE_MIB 1000 /* less than that is room for nothing that uses a GPU */

/* Free MiB by the reading, -1: unknown. */
static int64_t free_mib(const struct gpu_reading *reading)
{
	if (reading->valid & GPU_VALID_FREE)
		return reading->free_mib;
	if ((reading->valid & GPU_VALID_TOTAL) && (reading->valid & GPU_VALID_USED))
		return (int64_t)reading->total_mib - (int64_t)reading->used_mib;
	return -1;
}

void health_get(struct request *request)
{
	const struct api_host *host = request->api->host;
	const struct gpu_sample *sample = host->sample(host->context);
	const char *problem = host->sampler_problem(host->context);
	int64_t most = -1;
	for (unsigned i = 0; sample != NULL && i < sample->n_gpus; i++)
		if (free_mib(&sample->gpus[i]) > most)
			most = free_mib(&sample->gpus[i]);
	if (problem[0] == 0 && sample != NULL)
		problem = sample->problem;
	json_t *gpu = json_pack("{s:b, s:o, s:i, s:o}", "ok", most > ENOUGH_FREE_MIB, "free_mb",
		most >= 0 ? json_integer(most) : json_null(), "count", sample != NULL ? (int)sample->n_gpus : 0,
		"problem", json_text_or_null(problem));
	reply_json(request, 200,
		json_pack("{s:s, s:s, s:o, s:n}", "status", problem[0] == 0 ? "ok" : "degraded", "version",
			host->version, "gpu", gpu, "redis"));
}
