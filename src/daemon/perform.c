/* Carries out the engine's effects, in their order: one small function a kind, in one table. */
#include <stdio.h>

#include "base/log.h"
#include "daemon/daemon.h"

static void perform_find(struct daemon *daemon, const struct effect *effect)
{
	report_find_begin(daemon, effect->service);
}

static void perform_adopt(struct daemon *daemon, const struct effect *effect)
{
	struct daemon_service *service = daemon->services[effect->service];
	service->is_alive = true;
	if (service->driver != NULL)
		service->driver->ops->adopt(service->driver, effect->run, effect->pid);
}

/* UUIDs where the readings tell them, since CUDA may count the cards in another order than the driver does. */
static void format_gpu_ids(const struct daemon *daemon, gpu_set gpus, char *buffer, size_t size)
{
	const struct gpu_sample *sample = sampler_last(daemon->sampler);
	size_t used = 0;
	buffer[0] = '\0';
	for (gpu_set rest = gpus; rest != 0 && used < size; rest &= rest - 1) {
		unsigned gpu = (unsigned)__builtin_ctzll(rest);
		const char *separator = used > 0 ? "," : "";
		bool has_uuid = sample != NULL && gpu < sample->n_gpus && sample->gpus[gpu].uuid[0] != '\0';
		int length = has_uuid ? snprintf(buffer + used, size - used, "%s%s", separator, sample->gpus[gpu].uuid)
				      : snprintf(buffer + used, size - used, "%s%u", separator, gpu);
		used += length > 0 ? (size_t)length : 0;
	}
}

static void perform_start(struct daemon *daemon, const struct effect *effect)
{
	struct daemon_service *service = daemon->services[effect->service];
	char gpu_ids[GPU_MAX * 66];
	service_refresh_driver(service);
	if (service->driver == NULL) {
		const struct event event = {
			.kind = EVENT_START_FAILED,
			.service = effect->service,
			.run = effect->run,
			.text = service->why_no_driver,
		};
		daemon_bring(daemon, &event);
		return;
	}
	service->is_alive = true;
	format_gpu_ids(daemon, effect->gpus, gpu_ids, sizeof(gpu_ids));
	service->driver->ops->start(service->driver, effect->run, gpu_ids);
}

static void perform_stop(struct daemon *daemon, const struct effect *effect)
{
	struct driver_service *driver = daemon->services[effect->service]->driver;
	if (driver != NULL)
		driver->ops->stop(driver, effect->force);
}

static void perform_probe(struct daemon *daemon, const struct effect *effect)
{
	report_probe_begin(daemon, effect->service, effect->run, effect->probe_timeout_ms);
}

static void perform_sampling(struct daemon *daemon, const struct effect *effect)
{
	sampler_set_fast(daemon->sampler, effect->fast);
}

static void perform_sample(struct daemon *daemon, const struct effect *effect)
{
	(void)effect;
	sampler_read_now(daemon->sampler);
}

static void perform_nothing(struct daemon *daemon, const struct effect *effect)
{
	(void)daemon; /* the ticket's transition was noted when it was submitted */
	(void)effect;
}

static void perform_reply(struct daemon *daemon, const struct effect *effect)
{
	if (daemon->api != NULL)
		api_answer(daemon->api, effect->answer.ticket, effect->answer.transition, effect->answer.lease,
			effect->answer.outcome);
}

static void log_notice(const struct notice *notice)
{
	enum log_level level = notice->is_problem ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO;
	if (notice->is_routine)
		return;
	if (notice->transition != 0)
		log_line(level, "[%llu] %s", (unsigned long long)notice->transition, notice->text);
	else
		log_line(level, "%s", notice->text);
}

static void perform_publish(struct daemon *daemon, const struct effect *effect)
{
	log_notice(effect->notice);
	if (daemon->api != NULL)
		api_publish(daemon->api, effect->notice);
}

static void perform_ask_busy(struct daemon *daemon, const struct effect *effect)
{
	report_busy_begin(daemon, effect->service, effect->run, effect->probe_timeout_ms);
}

static void perform_fence(struct daemon *daemon, const struct effect *effect)
{
	daemon->lock->ops->want_fence(daemon->lock, effect->answer.id);
}

static void perform_lock(struct daemon *daemon, const struct effect *effect)
{
	bool is_for_service = effect->service < daemon->config->n_services;
	if (daemon->lock->ops->want != NULL)
		daemon->lock->ops->want(daemon->lock, effect->lock_wanted,
			is_for_service ? daemon->config->services[effect->service].name : NULL);
}

static void perform_lease(struct daemon *daemon, const struct effect *effect)
{
	leases_note(daemon, effect->lease.lease, effect->lease.news, effect->lease.text);
}

static void (*const performers[])(struct daemon *daemon, const struct effect *effect) = {
	[EFFECT_FIND] = perform_find,
	[EFFECT_ADOPT] = perform_adopt,
	[EFFECT_START] = perform_start,
	[EFFECT_STOP] = perform_stop,
	[EFFECT_PROBE] = perform_probe,
	[EFFECT_SAMPLING] = perform_sampling,
	[EFFECT_SAMPLE] = perform_sample,
	[EFFECT_ACCEPT] = perform_nothing,
	[EFFECT_REPLY] = perform_reply,
	[EFFECT_PUBLISH] = perform_publish,
	[EFFECT_FENCE] = perform_fence,
	[EFFECT_LOCK] = perform_lock,
	[EFFECT_LEASE] = perform_lease,
	[EFFECT_ASK_BUSY] = perform_ask_busy,
};

void perform_effects(struct daemon *daemon)
{
	keeper_look(daemon);
	for (size_t i = 0; i < daemon->effects.n; i++) {
		const struct effect effect = daemon->effects.items[i]; /* the list may move while it is carried out */
		performers[effect.kind](daemon, &effect);
	}
	effects_clear(&daemon->effects);
}
