/*
 * A container's output, as it is copied into the log of its service: what is written does not depend on how the
 * engine's bytes were cut into pieces, and no byte of payload is invented. Input: options, the stream.
 */
#include <sys/mman.h>

#include "driver/container_log.c" /* for what it gives to libcurl */
#include "fuzz.h"

struct copy {
	char *text;
	size_t length;
};

static void check_frames(bool is_raw, const char *data, size_t length)
{
	struct log_frames frames = { .is_raw = is_raw };
	for (size_t at = 0; at < length;) {
		const char *bytes;
		size_t n, used = log_frames_take(&frames, data + at, length - at, &bytes, &n);
		FUZZ_CHECK(used > 0 && used <= length - at && n <= used);
		FUZZ_CHECK(n == 0 || (bytes >= data + at && bytes + n == data + at + used));
		FUZZ_CHECK(frames.header_length < sizeof(frames.header));
		at += used;
	}
}

static struct container_log *begin(uv_loop_t *loop, bool is_raw)
{
	static char path[] = "/nowhere", id[] = "0123";
	struct container_log *log = calloc(1, sizeof(*log));
	FUZZ_CHECK(log != NULL);
	log->has_terminal = is_raw;
	log->frames.is_raw = is_raw;
	log->id = id;
	log->path = path;
	log->budget = SIZE_MAX;
	log->since = log->resumed = (struct timespec){ .tv_sec = 1795452218 };
	log->n_since = log->n_resumed = 2;
	log->fd = memfd_create("log", MFD_CLOEXEC);
	log->place = memfd_create("place", MFD_CLOEXEC);
	FUZZ_CHECK(log->fd >= 0 && log->place >= 0);
	begin_message(log);
	uv_timer_init(loop, &log->timer);
	log->timer.data = log;
	return log;
}

static struct copy end(uv_loop_t *loop, struct container_log *log)
{
	struct copy copy = { .length = (size_t)lseek(log->fd, 0, SEEK_END) };
	copy.text = malloc(copy.length + 1);
	FUZZ_CHECK(copy.text != NULL && pread(log->fd, copy.text, copy.length, 0) == (ssize_t)copy.length);
	uv_close((uv_handle_t *)&log->timer, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	close(log->fd);
	close(log->place);
	free(log);
	return copy;
}

static struct copy copy_all(uv_loop_t *loop, bool is_raw, const char *data, size_t length, size_t piece)
{
	struct container_log *log = begin(loop, is_raw);
	for (size_t at = 0; at < length; at += piece) {
		size_t n = length - at < piece ? length - at : piece;
		char *bytes = malloc(n);
		FUZZ_CHECK(bytes != NULL);
		memcpy(bytes, data + at, n);
		FUZZ_CHECK(handle_data(log, bytes, n));
		free(bytes);
		FUZZ_CHECK(log->stamp_length <= STAMP_MAX);
	}
	begin_message(log);
	return end(loop, log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uv_loop_t loop;
	static bool is_ready;
	if (!is_ready)
		is_ready = uv_loop_init(&loop) == 0;
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t options = fuzz_u8(&input);
	bool is_raw = options & 1;
	const char *bytes = (const char *)input.at;
	size_t n = fuzz_left(&input);
	check_frames(is_raw, bytes, n);
	struct copy whole = copy_all(&loop, is_raw, bytes, n, n + 1);
	struct copy pieces = copy_all(&loop, is_raw, bytes, n, 1 + (options >> 4));
	FUZZ_CHECK(whole.length <= n);
	FUZZ_CHECK(whole.length == pieces.length && memcmp(whole.text, pieces.text, whole.length) == 0);
	free(whole.text);
	free(pieces.text);
	return 0;
}
