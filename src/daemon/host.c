/* What the API asks of the daemon. */
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log_file.h"
#include "daemon/daemon.h"

#define WALL_CLOCK_SLACK_MS 5

static const struct status *host_status(void *context)
{
	struct daemon *daemon = context;
	return engine_status(daemon->engine, clock_now_ms());
}

static uint64_t host_status_version(void *context)
{
	return engine_version(((struct daemon *)context)->engine);
}

static const struct gpu_sample *host_sample(void *context)
{
	return sampler_last(((struct daemon *)context)->sampler);
}

static const char *host_sampler_problem(void *context)
{
	return ((struct daemon *)context)->sampler_problem;
}

/*
 * From engine time to the time of day. Kept until the two clocks have really parted: two looks at them never agree to
 * the last digit, and what happened at one moment must be shown as one moment, whenever somebody asks.
 */
static int64_t wall_offset_ms(struct daemon *daemon)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t offset = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - (int64_t)clock_now_ms();
	if (llabs(offset - daemon->wall_offset_ms) > WALL_CLOCK_SLACK_MS)
		daemon->wall_offset_ms = offset;
	return daemon->wall_offset_ms;
}

static double host_wall_time(void *context, uint64_t ms)
{
	return (double)(wall_offset_ms(context) + (int64_t)ms) / 1000.0;
}

/*
 * The engine decides at once, and says which transition the ticket is part of; its effects are carried out in the next
 * turn of the loop, so that no answer comes from inside this call.
 */
static int host_submit(void *context, const struct request_spec *spec, uint64_t ticket, uint64_t *ret_id)
{
	struct daemon *daemon = context;
	const struct event event = { .kind = EVENT_SUBMIT, .submit = { .ticket = ticket, .spec = *spec } };
	daemon_flush(daemon); /* effects of the submission before: they hold until the next event only */
	size_t before = daemon->effects.n;
	int result = engine_handle(daemon->engine, &event, clock_now_ms(), &daemon->effects);
	if (result < 0)
		return result;
	daemon->has_effects = true;
	uv_idle_start(&daemon->flush, daemon_handle_flush);
	for (size_t i = before; i < daemon->effects.n; i++) {
		const struct effect *effect = &daemon->effects.items[i];
		if (effect->kind == EFFECT_ACCEPT && effect->answer.ticket == ticket)
			*ret_id = effect->answer.id;
	}
	return 0;
}

static void host_withdraw(void *context, uint64_t ticket)
{
	const struct event event = { .kind = EVENT_WITHDRAW, .withdraw_ticket = ticket };
	daemon_bring(context, &event);
}

static int host_plan(void *context, const struct request_spec *spec, struct plan *ret_plan)
{
	struct daemon *daemon = context;
	return engine_plan(daemon->engine, spec, clock_now_ms(), ret_plan);
}

static const struct transition *host_transition(void *context, uint64_t id)
{
	return engine_transition(((struct daemon *)context)->engine, id);
}

static char *host_log_path(void *context, size_t service)
{
	struct daemon *daemon = context;
	return log_file_path(daemon->paths->log_dir, daemon->config->services[service].name);
}

void host_init(struct daemon *daemon)
{
	daemon->host = (struct api_host){
		.context = daemon,
		.config = daemon->config,
		.names = &daemon->names,
		.version = GPUMGR_VERSION,
		.status = host_status,
		.status_version = host_status_version,
		.sample = host_sample,
		.sampler_problem = host_sampler_problem,
		.wall_time = host_wall_time,
		.submit = host_submit,
		.withdraw = host_withdraw,
		.plan = host_plan,
		.transition = host_transition,
		.log_path = host_log_path,
	};
}
