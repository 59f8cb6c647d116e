/*
 * What is worth telling about the readings: that something is wrong with a GPU or with all of them, once, and that it
 * is over. What comes and goes all the time is told once, too.
 */
#pragma once

#include "core/gpu.h"

#define SAMPLER_NEWS_SIZE 384

/* All zero is one that has told nothing. */
struct sampler_news {
	struct {
		char told[256]; /* "": nothing */
		uint64_t well_ms; /* since when it is over, 0: it is not */
	} items[GPU_MAX + 1]; /* the last one is about all */
};

/* The next thing to tell of `sample` into `text`; false: nothing (more). Call it until then. */
bool sampler_news_next(struct sampler_news *news, const struct gpu_sample *sample, uint64_t now_ms,
	bool *ret_is_problem, char text[SAMPLER_NEWS_SIZE]);
