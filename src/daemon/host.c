/* What the API asks of the daemon. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
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

static const char *host_service_of_process(void *context, pid_t pid)
{
	const struct daemon *daemon = context;
	const struct daemon_service *owner = report_owner(context, pid);
	return owner != NULL ? daemon->config->services[owner->index].name : NULL;
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

static void host_flush(void *context)
{
	daemon_flush(context);
}

static const struct lease *host_lease(void *context, uint64_t fence)
{
	return engine_lease(((struct daemon *)context)->engine, fence);
}

static const char *host_lease_secret(void *context, uint64_t fence)
{
	return leases_secret(context, fence);
}

static void bring_lease(struct daemon *daemon, enum event_kind kind, uint64_t fence, uint64_t ttl_ms)
{
	const struct event event = { .kind = kind, .lease = { .fence = fence, .ttl_ms = ttl_ms } };
	daemon_bring(daemon, &event);
}

static void host_release(void *context, uint64_t fence)
{
	bring_lease(context, EVENT_RELEASE, fence, 0);
}

static void host_renew(void *context, uint64_t fence, uint64_t ttl_ms)
{
	bring_lease(context, EVENT_RENEW, fence, ttl_ms);
}

static void host_detach(void *context, uint64_t fence)
{
	bring_lease(context, EVENT_DETACH, fence, 0);
}

static void host_attach(void *context, uint64_t fence)
{
	bring_lease(context, EVENT_ATTACH, fence, 0);
}

static void host_unlock(void *context)
{
	bring_lease(context, EVENT_UNLOCK, 0, 0);
}

static void host_lock_status(void *context, struct lock_status *ret_status)
{
	lock_describe(((struct daemon *)context)->lock, ret_status);
}

static int host_reload(void *context, struct config_changes *ret_changes, struct config_report *ret_report)
{
	return reload(context, ret_changes, ret_report);
}

struct forcing {
	struct daemon *daemon;
	uint64_t ticket;
};

static void handle_forced(void *context, bool is_released, const char *holder, const char *problem)
{
	struct forcing *forcing = context;
	if (is_released)
		log_warning("the lock was taken away from %s by force", holder);
	if (forcing->daemon->api != NULL)
		api_lock_forced(forcing->daemon->api, forcing->ticket, is_released, holder, problem);
	free(forcing);
}

static int host_force_lock(void *context, uint64_t ticket)
{
	struct daemon *daemon = context;
	if (daemon->lock->ops->force == NULL)
		return -ENOTSUP;
	struct forcing *forcing = malloc(sizeof(*forcing));
	if (forcing == NULL)
		return -ENOMEM;
	*forcing = (struct forcing){ .daemon = daemon, .ticket = ticket };
	int r = daemon->lock->ops->force(daemon->lock, handle_forced, forcing);
	if (r < 0)
		free(forcing);
	return r;
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
		.service_of_process = host_service_of_process,
		.sampler_problem = host_sampler_problem,
		.wall_time = host_wall_time,
		.submit = host_submit,
		.withdraw = host_withdraw,
		.plan = host_plan,
		.transition = host_transition,
		.flush = host_flush,
		.lease = host_lease,
		.lease_secret = host_lease_secret,
		.release = host_release,
		.renew = host_renew,
		.detach = host_detach,
		.attach = host_attach,
		.unlock = host_unlock,
		.lock_status = host_lock_status,
		.force_lock = host_force_lock,
		.reload = host_reload,
		.log_path = host_log_path,
	};
}
