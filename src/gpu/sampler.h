/*
 * The sampler: a child process of the daemon that reads the GPUs and writes samples into a pipe. A GPU library
 * call can hang in the kernel and make its process unkillable; then the child is abandoned and replaced, and the
 * daemon has lost nothing but freshness.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"
#include "config/config.h"
#include "core/gpu.h"

struct sampler;

struct sampler_listener {
	void *context;
	/*
	 * A sample arrived; it is the sampler's and good until the next one (or the end of the sampler). Each GPU keeps
	 * its number as long as the sampler lives (sampler_slots.h). With a `problem` nothing is known, and its
	 * readings say only which GPUs there were.
	 */
	void (*handle_sample)(void *context, const struct gpu_sample *sample);
	/*
	 * The child hung, died or could not be started, and is replaced; or a reading says that something is wrong
	 * with a GPU or with all of them. Once for each such spell.
	 */
	void (*handle_trouble)(void *context, const char *text);
	/* What a reading said is over. May be NULL. */
	void (*handle_recovery)(void *context, const char *text);
};

/*
 * Starts the child (this program again, with SAMPLER_ARGUMENT) and goes on reading until sampler_destroy().
 * `config` is borrowed. 0 or a negative errno with a message.
 */
int sampler_create(uv_loop_t *loop, const struct gpu_config *config, const struct sampler_listener *listener,
	struct sampler **ret_sampler, struct error *err);
/* The loop must run once more to close the handles. */
struct sampler *sampler_destroy(struct sampler *sampler);

/* Every 5 ms instead of every gpu.interval. */
void sampler_set_fast(struct sampler *sampler, bool fast);

/* One extra reading now. */
void sampler_read_now(struct sampler *sampler);

/* The last sample, or NULL. */
const struct gpu_sample *sampler_last(const struct sampler *sampler);

/* main() hands over to sampler_child_main() when argv[1] is this; argv holds what sampler_create() put there. */
#define SAMPLER_ARGUMENT "--sampler-child"
int sampler_child_main(int argc, char **argv);
