/*
 * The output of a running container, copied from the engine into the log of the service, so that reading, following
 * and rotating it work as for a process. Standard output and standard error alike.
 *
 * Source: the Engine API's attach and logs calls: without a terminal each piece has a header of 8 bytes (stream, 3
 * zeros, length in network order), with one the bytes come as they are.
 */
#pragma once

#include <time.h>

#include "driver/docker.h"

struct container_log;

struct container_log_options {
	struct docker *docker;
	uv_loop_t *loop;
	const char *id; /* of the container; copied */
	const char *path; /* of the log file; copied */
	const char *place; /* of a small file that says how far the copy has come; copied */
	uint64_t size; /* it is rotated beyond that many bytes; 0: never */
	bool has_terminal;
	struct timespec since; /* time of day: what was said before belongs to another run */
	/* After container_log_finish(): the output has ended. Or it cannot be had, and a line in the log says so. From
	 * the loop, once. */
	void (*handle_end)(void *context);
	void *context;
};

/* Goes on where an earlier daemon has stopped with this container. 0 or a negative errno. A file that cannot be opened
 * now is opened as soon as it can be, and nothing is lost meanwhile. */
int container_log_create(const struct container_log_options *options, struct container_log **ret_log);
/* The loop must run once more. NULL is fine. */
struct container_log *container_log_destroy(struct container_log *log);
/* After an outage of the engine: goes on, if the stream had broken. */
void container_log_continue(struct container_log *log);
/* The container has ended: until now the end of a stream was none of the output, but an engine's whim. */
void container_log_finish(struct container_log *log);

/* The last lines of it, as log_file_last_words() gives them. The caller frees it. */
char *container_log_last_words(const struct container_log *log, size_t n_lines);
/* Whether all of it was copied, or it cannot be had. */
bool container_log_has_ended(const struct container_log *log);

/* The container has ended and all of it was copied: the next one begins anew. */
void container_log_forget(struct container_log *log);

/* "STATE_DIR/SERVICE.copied"; the caller frees it. */
char *container_log_place(const char *state_dir, const char *service);

/*
 * Shortly before a container's start, since its first words may be older than that, but not before the end of the run
 * before (NULL or no time: there was none). Both times are told in RFC 3339. Zero: `started_at` is not a time.
 */
struct timespec container_log_since(const char *started_at, const char *finished_at);

/* ---- the framing, for itself ---- */
struct log_frames {
	bool is_raw;
	unsigned char header[8];
	size_t header_length;
	uint32_t rest; /* of the piece that is being read */
	bool is_begin; /* the payload that was taken last is the beginning of its piece */
};

/*
 * The next run of payload in `data`: `*ret_payload` of `*ret_payload_length` bytes (may be 0). Returns how many bytes
 * of `data` that took, headers included. What has no proper header makes the rest raw.
 */
size_t log_frames_take(struct log_frames *frames, const char *data, size_t length, const char **ret_payload,
	size_t *ret_payload_length);
