/*
 * Copies a container's output into the log file of its service. Must not take the loop for itself: a container that
 * talks without end is read no faster than some MiB a second.
 */
#include "driver/container_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log_file.h"
#include "driver/proc.h"

#define TICK_MS 100
#define REOPEN_MS 1000 /* between tries to open the file */
/* Between a stream that ended though the container lives and the next one. */
#define REST_FIRST_MS 500
#define REST_MAX_MS 5000
#define LONG_LIFE_MS 10000
#define BUDGET ((size_t)2 * 1024 * 1024) /* in a tick */
#define HEADER_SIZE 8
#define STAMP_MAX 40
#define SLACK_NS 100000000 /* the engine takes the time of a start after the process has begun to speak */

struct container_log {
	uv_timer_t timer; /* runs while bytes are taken, and while it rests */
	struct docker *docker;
	struct docker_call *call;
	char *id, *path;
	uint64_t size;
	struct timespec born; /* what was said before belongs to another run */
	struct timespec since; /* of the last message that was copied, or `born` */
	unsigned n_since; /* messages of that very time that were copied */
	struct timespec resumed; /* the same when the stream was opened: what it repeats is left out */
	unsigned n_resumed;
	bool is_new; /* what comes: the repetition is over */
	struct log_frames frames;
	enum { IN_STAMP, IN_TEXT, IN_REPETITION } where;
	char stamp[STAMP_MAX + 1];
	size_t stamp_length;
	bool has_terminal, has_ended, is_halted, has_moved;
	bool is_last; /* the container has ended: so does the output with its stream */
	bool is_resting; /* the stream ended, and is opened again when the timer fires */
	uint64_t rest_ms, opened_ms;
	int fd; /* -1: could not be opened; nothing is taken then */
	char *place_path;
	int place; /* -1: nothing to keep there yet */
	uint64_t begin; /* of this run's output in the file */
	size_t budget;
	void (*handle_end)(void *context);
	void *context;
};

/* ---- framing ---- */

static bool is_header(const unsigned char header[HEADER_SIZE])
{
	return header[0] <= 2 && header[1] == 0 && header[2] == 0 && header[3] == 0;
}

size_t log_frames_take(struct log_frames *frames, const char *data, size_t length, const char **ret_payload,
	size_t *ret_payload_length)
{
	size_t used = 0;
	frames->is_begin = false;
	*ret_payload = data;
	*ret_payload_length = 0;
	while (!frames->is_raw && frames->rest == 0 && used < length) {
		frames->header[frames->header_length++] = (unsigned char)data[used++];
		if (frames->header_length < HEADER_SIZE)
			continue;
		frames->header_length = 0;
		frames->is_raw = !is_header(frames->header);
		frames->is_begin = true;
		const unsigned char *h = frames->header + 4;
		frames->rest = (uint32_t)h[0] << 24 | (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
	}
	if (!frames->is_raw && frames->rest == 0)
		return used;
	*ret_payload = data + used;
	*ret_payload_length = length - used;
	if (!frames->is_raw && *ret_payload_length > frames->rest)
		*ret_payload_length = frames->rest;
	if (!frames->is_raw)
		frames->rest -= (uint32_t)*ret_payload_length;
	return used + *ret_payload_length;
}

/* ---- the file ---- */

static bool open_file(struct container_log *log)
{
	struct error err;
	if (log->fd < 0)
		log->fd = log_file_open(log->path, &err);
	return log->fd >= 0;
}

/* Between two writes nobody writes: renaming is enough. */
static void rotate(struct container_log *log)
{
	if (log->size == 0 || log_file_size(log->path) <= log->size)
		return;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
	log_file_rotate_idle(log->path, log->size);
	log->begin = 0;
	open_file(log);
}

static void append(struct container_log *log, const char *data, size_t length)
{
	while (length > 0 && open_file(log)) {
		ssize_t n = write(log->fd, data, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* a full disk costs the log, not the service */
		data += n;
		length -= (size_t)n;
	}
}

static void note(struct container_log *log, const char *text)
{
	char line[900];
	int length = snprintf(line, sizeof(line), "gpumgrd: %s\n", text);
	append(log, line, length < (int)sizeof(line) ? (size_t)length : sizeof(line) - 1);
}

/* ---- time stamps ---- */

/* "2026-11-23T16:43:38.962351072Z", or with +01:00 at its end. Zero: not a time. */
static struct timespec parse_time(const char *text)
{
	struct tm tm = { 0 };
	struct timespec time = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest == NULL)
		return time;
	long scale = 100000000;
	if (*rest == '.')
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, scale /= 10)
			time.tv_nsec += (*rest - '0') * scale;
	int hours = 0, minutes = 0;
	bool has_offset = (*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2;
	time.tv_sec = timegm(&tm);
	if (has_offset)
		time.tv_sec -= (*rest == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
	return time;
}

static bool is_later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

struct timespec container_log_since(const char *started_at, const char *finished_at)
{
	struct timespec start = parse_time(started_at), since = start;
	struct timespec end = finished_at != NULL ? parse_time(finished_at) : (struct timespec){ 0 };
	/* Docker's word for never is of the year 1; no engine takes a time before the epoch. */
	if (since.tv_sec <= 0)
		return (struct timespec){ 0 };
	since.tv_nsec -= SLACK_NS;
	if (since.tv_nsec < 0) {
		since.tv_sec--;
		since.tv_nsec += 1000000000;
	}
	return is_later(end, since) && !is_later(end, start) ? end : since;
}

char *container_log_place(const char *state_dir, const char *service)
{
	char *path;
	return asprintf(&path, "%s/%s.copied", state_dir, service) >= 0 ? path : NULL;
}

/* What was kept of this container, unless that is of an earlier run: a time in whole seconds may seem so and is not. */
static void read_place(struct container_log *log)
{
	char text[160], id[80];
	long long seconds;
	long nanoseconds;
	unsigned n;
	if (proc_read_file(log->place_path, text, sizeof(text)) < 0 ||
		sscanf(text, "%79s %lld.%9ld %u", id, &seconds, &nanoseconds, &n) != 4 || strcmp(id, log->id) != 0)
		return;
	struct timespec kept = { .tv_sec = (time_t)seconds, .tv_nsec = nanoseconds };
	if (!is_later(kept, log->since) && (nanoseconds != 0 || kept.tv_sec != log->since.tv_sec))
		return;
	log->since = kept;
	log->n_since = n;
}

/* One write over what was there: whenever the daemon is killed, it is whole. */
static void keep_place(struct container_log *log)
{
	char text[160];
	if (log->place < 0)
		log->place = open(log->place_path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int length = snprintf(text, sizeof(text), "%s %lld.%09ld %010u\n", log->id, (long long)log->since.tv_sec,
		log->since.tv_nsec, log->n_since);
	if (log->place < 0 || pwrite(log->place, text, (size_t)length, 0) != length)
		return; /* then some lines come twice after a restart */
	log->has_moved = false;
}

/* What was taken for a stamp is none, and belongs to the text. */
static void end_stamp_as_text(struct container_log *log)
{
	append(log, log->stamp, log->stamp_length);
	log->stamp_length = 0;
	log->where = IN_TEXT;
}

static bool is_same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Podman tells whole seconds: many messages then have one time, which may seem to be before the start. */
static bool is_repetition(struct container_log *log, struct timespec time, bool is_whole)
{
	struct timespec from = log->resumed;
	if (is_whole)
		from.tv_nsec = 0;
	if (log->is_new || is_later(time, from)) {
		log->is_new = true;
		return false;
	}
	if (is_later(from, time))
		return true;
	log->is_new = log->n_resumed == 0;
	if (!log->is_new)
		log->n_resumed--;
	return !log->is_new;
}

static void note_time(struct container_log *log, struct timespec time, bool is_whole)
{
	bool is_later_here = is_later(time, log->since) || (is_whole && time.tv_sec == log->since.tv_sec);
	if (is_same(time, log->since)) {
		log->n_since++;
	} else if (is_later_here) {
		log->since = time;
		log->n_since = 1;
	}
	log->has_moved = true;
}

static void end_stamp(struct container_log *log)
{
	log->stamp[log->stamp_length] = '\0';
	struct timespec time = parse_time(log->stamp);
	bool is_whole = strchr(log->stamp, '.') == NULL;
	if (time.tv_sec == 0) {
		end_stamp_as_text(log);
		append(log, " ", 1);
		return;
	}
	log->stamp_length = 0;
	log->where = is_repetition(log, time, is_whole) ? IN_REPETITION : IN_TEXT;
	if (log->where == IN_TEXT)
		note_time(log, time, is_whole);
}

static void take_stamp_byte(struct container_log *log, char byte)
{
	if (byte == ' ') {
		end_stamp(log);
		return;
	}
	log->stamp[log->stamp_length++] = byte;
	if (byte != '\n' && log->stamp_length < STAMP_MAX)
		return;
	end_stamp_as_text(log);
	if (byte == '\n' && log->has_terminal)
		log->where = IN_STAMP;
}

/* With a terminal, each line begins with a stamp, else each piece. */
static void take_payload(struct container_log *log, const char *data, size_t length)
{
	while (length > 0) {
		if (log->where == IN_STAMP) {
			take_stamp_byte(log, *data++);
			length--;
			continue;
		}
		const char *newline = log->has_terminal ? memchr(data, '\n', length) : NULL;
		size_t n = newline != NULL ? (size_t)(newline - data) + 1 : length;
		if (log->where == IN_TEXT)
			append(log, data, n);
		if (newline != NULL)
			log->where = IN_STAMP;
		data += n;
		length -= n;
	}
}

static void begin_message(struct container_log *log)
{
	if (log->stamp_length > 0)
		end_stamp_as_text(log);
	log->where = IN_STAMP;
}

/* ---- the stream ---- */

static void handle_tick(uv_timer_t *timer)
{
	struct container_log *log = timer->data;
	bool was_halted = log->is_halted, was_resting = log->is_resting;
	log->budget = BUDGET;
	log->is_halted = log->is_resting = false;
	rotate(log);
	if (was_halted)
		docker_resume(log->call);
	if (was_resting)
		container_log_continue(log);
}

static bool handle_data(void *context, const char *data, size_t length)
{
	struct container_log *log = context;
	bool is_open = open_file(log);
	if (!uv_is_active((uv_handle_t *)&log->timer))
		uv_timer_start(&log->timer, handle_tick, is_open ? TICK_MS : REOPEN_MS, 0);
	if (log->budget < length || !is_open) {
		log->is_halted = true;
		return false;
	}
	log->budget -= length;
	while (length > 0) {
		const char *payload;
		size_t payload_length;
		size_t used = log_frames_take(&log->frames, data, length, &payload, &payload_length);
		if (log->frames.is_begin)
			begin_message(log);
		take_payload(log, payload, payload_length);
		data += used;
		length -= used;
	}
	if (log->has_moved)
		keep_place(log);
	return true;
}

static void end_output(struct container_log *log)
{
	log->has_ended = true;
	log->handle_end(log->context);
}

/* An engine may end a stream though the container lives on, and each time. */
static void rest_a_while(struct container_log *log)
{
	bool lived_long = clock_now_ms() - log->opened_ms >= LONG_LIFE_MS;
	log->rest_ms = log->rest_ms == 0 || lived_long ? REST_FIRST_MS
		: log->rest_ms * 2 < REST_MAX_MS       ? log->rest_ms * 2
						       : REST_MAX_MS;
	log->is_resting = true;
	uv_timer_start(&log->timer, handle_tick, log->rest_ms, 0);
}

static void handle_stream_end(void *context, const struct docker_answer *answer)
{
	struct container_log *log = context;
	char text[700];
	log->call = NULL;
	begin_message(log);
	if (answer->result != DOCKER_ANSWERED)
		return; /* it goes on when the engine is back */
	if (answer->status < 200 || answer->status > 299) {
		snprintf(text, sizeof(text), "the engine does not show the output of this container: %s", answer->text);
		note(log, text);
		end_output(log);
	} else if (log->is_last) {
		end_output(log);
	} else {
		rest_a_while(log);
	}
}

void container_log_finish(struct container_log *log)
{
	log->is_last = true;
	if (!log->is_resting)
		return;
	log->is_resting = false;
	/* One that had never ended before ended just now, with the container. */
	if (log->rest_ms == REST_FIRST_MS)
		log->has_ended = true;
	else
		container_log_continue(log);
}

void container_log_continue(struct container_log *log)
{
	char path[256];
	const struct docker_request request = {
		.method = "GET",
		.path = path,
		.handler = handle_stream_end,
		.context = log,
		.handle_data = handle_data,
	};
	if (log->call != NULL || log->has_ended || log->is_resting)
		return;
	log->opened_ms = clock_now_ms();
	log->frames = (struct log_frames){ .is_raw = log->has_terminal };
	log->resumed = log->since;
	log->n_resumed = log->n_since;
	/* In whole seconds the last message may seem older than its run, and the run before has spoken in that second,
	 * too. */
	struct timespec since = is_later(log->born, log->since) ? log->born : log->since;
	log->is_new = false;
	begin_message(log);
	snprintf(path, sizeof(path), "/containers/%s/logs?follow=1&stdout=1&stderr=1&timestamps=1&since=%lld.%09ld",
		log->id, (long long)since.tv_sec, since.tv_nsec);
	if (docker_call(log->docker, &request, &log->call) < 0)
		rest_a_while(log);
}

/* ---- life ---- */

static void free_log(struct container_log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	if (log->place >= 0)
		close(log->place);
	free(log->place_path);
	free(log->id);
	free(log->path);
	free(log);
}

static void handle_closed(uv_handle_t *handle)
{
	free_log(handle->data);
}

int container_log_create(const struct container_log_options *options, struct container_log **ret_log)
{
	struct container_log *log = calloc(1, sizeof(*log));
	if (log == NULL)
		return -ENOMEM;
	log->docker = options->docker;
	log->id = strdup(options->id);
	log->path = strdup(options->path);
	log->place_path = strdup(options->place);
	log->place = -1;
	log->size = options->size;
	log->born = log->since = options->since;
	log->has_terminal = options->has_terminal;
	log->handle_end = options->handle_end;
	log->context = options->context;
	log->budget = BUDGET;
	log->begin = log_file_size(options->path);
	log->fd = -1;
	if (log->id == NULL || log->path == NULL || log->place_path == NULL) {
		free_log(log);
		return -ENOMEM;
	}
	open_file(log);
	uv_timer_init(options->loop, &log->timer);
	log->timer.data = log;
	read_place(log);
	*ret_log = log;
	container_log_continue(log);
	return 0;
}

struct container_log *container_log_destroy(struct container_log *log)
{
	if (log == NULL)
		return NULL;
	log->call = docker_cancel(log->call);
	uv_close((uv_handle_t *)&log->timer, handle_closed);
	return NULL;
}

void container_log_forget(struct container_log *log)
{
	unlink(log->place_path);
}

char *container_log_last_words(const struct container_log *log, size_t n_lines)
{
	return log_file_last_words(log->path, log->begin, n_lines);
}

bool container_log_has_ended(const struct container_log *log)
{
	return log->has_ended;
}
