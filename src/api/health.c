/* GET /health: whether the daemon lives, whether there is a GPU with room, and whether the lock across hosts is there.
 */
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

/* What the lock across hosts needs; null without one. */
static void put_redis(struct writer *writer, const struct lock_status *lock)
{
	if (lock->state == LOCK_STATE_LOCAL) {
		writer_null(writer, "redis");
		return;
	}
	writer_open(writer, "redis", '{');
	writer_bool(writer, "ok", lock->state != LOCK_STATE_UNAVAILABLE && lock->state != LOCK_STATE_UNKNOWN);
	writer_text_or_null(writer, "problem", lock->problem);
	writer_close(writer, '}');
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
	struct lock_status lock;
	host->lock_status(host->context, &lock);
	bool is_well = problem[0] == 0 && lock.state != LOCK_STATE_UNAVAILABLE;
	CLEANUP_WRITER struct writer writer = { 0 };
	writer_open(&writer, NULL, '{');
	writer_text(&writer, "status", is_well ? "ok" : "degraded");
	writer_text(&writer, "version", host->version);
	writer_open(&writer, "gpu", '{');
	writer_bool(&writer, "ok", most > ENOUGH_FREE_MIB);
	writer_integer_or_null(&writer, "free_mb", most >= 0, most);
	writer_integer(&writer, "count", sample != NULL ? sample->n_gpus : 0);
	writer_text_or_null(&writer, "problem", problem);
	writer_close(&writer, '}');
	put_redis(&writer, &lock);
	writer_close(&writer, '}');
	reply_json(request, 200, &writer);
}
