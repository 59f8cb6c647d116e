/* Turns readings into the few lines that a person wants to see in a log. It must not fill the log. */
#include "gpu/sampler_news.h"

#include <stdio.h>
#include <string.h>

#define WELL_MS 2000 /* what is over for so long is over */

static void describe(const struct gpu_sample *sample, unsigned item, char *buffer, size_t size)
{
	if (item == GPU_MAX)
		snprintf(buffer, size, "GPU readings");
	else if (sample->gpus[item].uuid[0] == '\0')
		snprintf(buffer, size, "gpu%u", item);
	else
		snprintf(buffer, size, "gpu%u (%s)", item, sample->gpus[item].uuid);
}

static bool look(struct sampler_news *news, const struct gpu_sample *sample, unsigned item, uint64_t now_ms,
	bool *ret_is_problem, char *text)
{
	char *told = news->items[item].told;
	const char *problem = item == GPU_MAX ? sample->problem : sample->gpus[item].problem;
	char what[96];
	describe(sample, item, what, sizeof(what));
	if (problem[0] != '\0') {
		news->items[item].well_ms = 0;
		if (strncmp(told, problem, sizeof(news->items[item].told) - 1) == 0)
			return false;
		snprintf(told, sizeof(news->items[item].told), "%s", problem);
		snprintf(text, SAMPLER_NEWS_SIZE, "%s: %s", what, problem);
		*ret_is_problem = true;
		return true;
	}
	if (told[0] == '\0')
		return false;
	if (news->items[item].well_ms == 0)
		news->items[item].well_ms = now_ms;
	if (now_ms - news->items[item].well_ms < WELL_MS)
		return false;
	told[0] = '\0';
	snprintf(text, SAMPLER_NEWS_SIZE, "%s: well again", what);
	*ret_is_problem = false;
	return true;
}

bool sampler_news_next(struct sampler_news *news, const struct gpu_sample *sample, uint64_t now_ms,
	bool *ret_is_problem, char text[SAMPLER_NEWS_SIZE])
{
	if (look(news, sample, GPU_MAX, now_ms, ret_is_problem, text))
		return true;
	if (sample->problem[0] != '\0')
		return false; /* each GPU would only say the same */
	for (unsigned i = 0; i < sample->n_gpus; i++)
		if (look(news, sample, i, now_ms, ret_is_problem, text))
			return true;
	return false;
}
