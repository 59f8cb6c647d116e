/*
 * What the sampler child and the daemon say to each other, over one stream socket.
 *
 * Child to daemon: frames, each a length (uint32) and so many bytes: one sample. Daemon to child: commands of a fixed
 * size. Both ends are the same executable, so numbers stand in the machine's own order.
 *
 * The child runs a vendor's library, which may do anything: nothing that it writes is believed before the whole frame
 * was checked. Text is valid UTF-8 without control characters, every amount is in its range, every list in its bounds.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/gpu.h"

#define SAMPLER_WIRE_PROCESSES_MAX 4096 /* of all GPUs together */
#define SAMPLER_WIRE_FRAME_MAX (1024 * 1024)

enum sampler_command_kind {
	SAMPLER_COMMAND_INTERVAL = 1, /* value: milliseconds between readings; one is due at once */
	SAMPLER_COMMAND_READ_NOW = 2,
};

struct sampler_command {
	uint32_t kind;
	uint32_t value;
};

/* Bytes on their way to be frames. All zero is an empty stream. */
struct sampler_stream {
	uint8_t *bytes;
	size_t start, end, size;
};

/*
 * Writes the frame of `sample`, length included, into `*buffer`, which grows as needed and is reused (start with NULL,
 * 0). Text is cleaned on the way. A GPU whose processes do not fit loses the list, its validity, and says so in its
 * problem. The frame's size, or -ENOMEM.
 */
ssize_t sampler_wire_encode(const struct gpu_sample *sample, uint8_t **buffer, size_t *buffer_size);

/*
 * Reads a frame without its length. `sample` must be zeroed or finished before; what it holds then is the caller's
 * (gpu_sample_finish). 0; -EBADMSG when anything at all is wrong, -ENOMEM; then `sample` holds nothing.
 */
int sampler_wire_decode(const uint8_t *bytes, size_t length, struct gpu_sample *sample);

/* 0 or -ENOMEM. */
int sampler_stream_append(struct sampler_stream *stream, const uint8_t *bytes, size_t length);

/*
 * 1: the next frame, without its length, good until the next call on the stream; 0: none yet; -EBADMSG: no frame is of
 * that length, and the stream is lost.
 */
int sampler_stream_next(struct sampler_stream *stream, const uint8_t **ret_bytes, size_t *ret_length);

void sampler_stream_finish(struct sampler_stream *stream);
