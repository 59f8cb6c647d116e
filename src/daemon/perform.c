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
	struct driver_service *driver = daemon->services[effect->service].driver;
	if (driver != NULL)
		driver->ops->adopt(driver, effect->run, effect->pid);
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
	struct daemon_service *service = &daemon->services[effect->service];
	char gpu_ids[GPU_MAX * 66];
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
	format_gpu_ids(daemon, effect->gpus, gpu_ids, sizeof(gpu_ids));
	service->driver->ops->start(service->driver, effect->run, gpu_ids);
}

static void perform_stop(struct daemon *daemon, const struct effect *effect)
{
	struct driver_service *driver = daemon->services[effect->service].driver;
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
		api_answer(daemon->api, effect->answer.ticket, effect->answer.transition, effect->answer.outcome);
}

static void perform_publish(struct daemon *daemon, const struct effect *effect)
{
	const struct notice *notice = effect->notice;
	if (notice->transition != 0)
		log_line(notice->is_problem ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "[%llu] %s",
			(unsigned long long)notice->transition, notice->text);
	else
		log_line(notice->is_problem ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "%s", notice->text);
	if (daemon->api != NULL)
		api_publish(daemon->api, notice);
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
};

void perform_effects(struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->effects.n; i++) {
		const struct effect effect = daemon->effects.items[i]; /* the list may move while it is carried out */
		performers[effect.kind](daemon, &effect);
	}
	effects_clear(&daemon->effects);
}
