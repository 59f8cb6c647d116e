/*
 * Lets what the journal holds reach the disk, in libuv's thread pool, some time after it was written: a lease that has
 * stood for that long survives a power failure. Only for this room.
 */
#pragma once

#include <stdint.h>
#include <uv.h>

struct syncer;

/*
 * Called on the loop's thread after a sync that failed, and again until it answers with 0: brings what was written to
 * the disk by another way. A further sync cannot: the kernel takes pages that it could not write for written
 * (fsync(2)), so it succeeds without them.
 */
struct syncer_rescue {
	void *context;
	int (*handle_lost)(void *context);
};

/* `fd`, of the journal of `path`, is the syncer's from now on, also when this fails. */
int syncer_create(uv_loop_t *loop, int fd, const char *path, uint64_t delay_ms, const struct syncer_rescue *rescue,
	struct syncer **ret_self);
/* Waits for a run that has begun. The loop must still run once to close the handles. */
struct syncer *syncer_destroy(struct syncer *self);

/*
 * Something was written: it is on the disk `delay_ms` from now, or as soon after it as the disk can. Thousands of
 * writes are not let wait that long.
 */
void syncer_note(struct syncer *self);
