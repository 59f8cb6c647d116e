/*
 * Samples to bytes and back. The decoder is a border: it must not believe a length, an amount or a text before it has
 * looked at it, and must leave nothing half-built behind.
 */
#include "gpu/sampler_wire.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "gpu/backend.h"

#define MAGIC 0x32535047u /* "GPS2" */
#define VALID_ALL                                                                                                      \
	(GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_TEMPERATURE | GPU_VALID_UTILIZATION |           \
		GPU_VALID_PROCESSES | GPU_VALID_DRIVER)
#define CELSIUS_LEAST (-273)
#define CELSIUS_MOST 1000

/* Upper bounds of what one thing takes on the wire. */
#define SAMPLE_BYTES 512
#define GPU_BYTES 512
#define PROCESS_BYTES 80
#define MIG_BYTES 160

_Static_assert(sizeof(((struct gpu_sample *)0)->problem) + 64 <= SAMPLE_BYTES, "a sample's head must fit");
_Static_assert(sizeof(struct gpu_reading) + 64 <= GPU_BYTES, "a reading must fit");
_Static_assert(sizeof(struct gpu_process) + 8 <= PROCESS_BYTES, "a process must fit");
_Static_assert(sizeof(struct gpu_mig) + 8 <= MIG_BYTES, "a part of a GPU must fit");
_Static_assert(
	SAMPLE_BYTES + GPU_MAX * (GPU_BYTES + GPU_MIG_MAX * MIG_BYTES) + SAMPLER_WIRE_PROCESSES_MAX * PROCESS_BYTES <=
		SAMPLER_WIRE_FRAME_MAX,
	"the largest sample must be a legal frame");

/* How many bytes the character at `text` takes; 0 when it is not valid UTF-8 (RFC 3629) or a control character. */
static size_t character_length(const uint8_t *text, size_t left)
{
	static const struct {
		uint8_t first, last, least, most; /* of the first byte; of the second */
		size_t length;
	} forms[] = {
		{ 0x20, 0x7e, 0, 0, 1 },
		{ 0xc2, 0xc2, 0xa0, 0xbf, 2 }, /* without U+0080..U+009F */
		{ 0xc3, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, /* without surrogates */
		{ 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (text[0] < forms[i].first || text[0] > forms[i].last)
			continue;
		if (forms[i].length > left)
			return 0;
		if (forms[i].length > 1 && (text[1] < forms[i].least || text[1] > forms[i].most))
			return 0;
		for (size_t k = 2; k < forms[i].length; k++)
			if ((text[k] & 0xc0) != 0x80)
				return 0;
		return forms[i].length;
	}
	return 0;
}

/* Writing. The buffer was made large enough before. */

static void put(uint8_t **at, const void *value, size_t size)
{
	memcpy(*at, value, size);
	*at += size;
}

static void put_u32(uint8_t **at, uint32_t value)
{
	put(at, &value, sizeof(value));
}

static void put_text(uint8_t **at, const char *text, size_t size)
{
	size_t length = strnlen(text, size - 1);
	put_u32(at, (uint32_t)length);
	const uint8_t *from = (const uint8_t *)text;
	while (length > 0) {
		size_t n = character_length(from, length);
		if (n > 0)
			put(at, from, n);
		else
			put(at, "?", n = 1);
		from += n;
		length -= n;
	}
}

#define PUT_TEXT(at, array) put_text((at), (array), sizeof(array))

static void put_migs(uint8_t **at, const struct gpu_reading *reading)
{
	size_t n = reading->n_migs < GPU_MIG_MAX ? reading->n_migs : GPU_MIG_MAX;
	put_u32(at, (uint32_t)n);
	for (size_t i = 0; i < n; i++) {
		const struct gpu_mig *mig = &reading->migs[i];
		put_u32(at, mig->has_memory);
		put_u32(at, mig->total_mib);
		put_u32(at, mig->used_mib);
		PUT_TEXT(at, mig->uuid);
		PUT_TEXT(at, mig->name);
	}
}

static void put_reading(uint8_t **at, const struct gpu_reading *reading, size_t *processes_left)
{
	static const char too_many[] = "too many processes to list";
	bool fits = reading->n_processes <= *processes_left;
	size_t n_processes = fits ? reading->n_processes : 0;
	*processes_left -= n_processes;
	put_u32(at, fits ? reading->valid : reading->valid & ~(unsigned)GPU_VALID_PROCESSES);
	put_u32(at, reading->total_mib);
	put_u32(at, reading->used_mib);
	put_u32(at, reading->free_mib);
	put_u32(at, reading->driver_mib);
	put_u32(at, reading->valid & GPU_VALID_TEMPERATURE ? (uint32_t)reading->temperature_c : 0);
	put_u32(at, reading->valid & GPU_VALID_UTILIZATION ? reading->utilization_percent : 0);
	PUT_TEXT(at, reading->uuid);
	PUT_TEXT(at, reading->name);
	if (fits)
		PUT_TEXT(at, reading->problem);
	else
		PUT_TEXT(at, too_many);
	put_u32(at, (uint32_t)n_processes);
	for (size_t i = 0; i < n_processes; i++) {
		put_u32(at, (uint32_t)reading->processes[i].pid);
		put_u32(at, reading->processes[i].mib);
		PUT_TEXT(at, reading->processes[i].name);
	}
	put_migs(at, reading);
}

ssize_t sampler_wire_encode(const struct gpu_sample *sample, uint8_t **buffer, size_t *buffer_size)
{
	size_t processes_left = SAMPLER_WIRE_PROCESSES_MAX;
	size_t bound = SAMPLE_BYTES;
	for (unsigned i = 0; i < sample->n_gpus; i++)
		bound += GPU_BYTES + sample->gpus[i].n_processes * PROCESS_BYTES + GPU_MIG_MAX * MIG_BYTES;
	if (bound > SAMPLER_WIRE_FRAME_MAX)
		bound = SAMPLER_WIRE_FRAME_MAX;
	if (*buffer_size < bound) {
		uint8_t *grown = realloc(*buffer, bound);
		if (grown == NULL)
			return -ENOMEM;
		*buffer = grown;
		*buffer_size = bound;
	}
	uint8_t *at = *buffer + sizeof(uint32_t);
	put_u32(&at, MAGIC);
	put(&at, &sample->taken_ms, sizeof(sample->taken_ms));
	PUT_TEXT(&at, sample->problem);
	put_u32(&at, sample->n_gpus);
	for (unsigned i = 0; i < sample->n_gpus; i++)
		put_reading(&at, &sample->gpus[i], &processes_left);
	uint8_t *head = *buffer;
	put_u32(&head, (uint32_t)(at - *buffer - (ptrdiff_t)sizeof(uint32_t)));
	return at - *buffer;
}

/* Reading. After the first thing that is wrong everything reads as zero, and the frame is refused at the end. */

struct cursor {
	const uint8_t *at, *end;
	bool is_bad;
};

static void get(struct cursor *cursor, void *ret_value, size_t size)
{
	if (cursor->is_bad || (size_t)(cursor->end - cursor->at) < size) {
		cursor->is_bad = true;
		memset(ret_value, 0, size);
		return;
	}
	memcpy(ret_value, cursor->at, size);
	cursor->at += size;
}

static uint32_t get_u32(struct cursor *cursor, uint32_t most)
{
	uint32_t value;
	get(cursor, &value, sizeof(value));
	if (value > most) {
		cursor->is_bad = true;
		return 0;
	}
	return value;
}

static void get_text(struct cursor *cursor, char *text, size_t size)
{
	uint32_t length = get_u32(cursor, (uint32_t)size - 1);
	text[0] = '\0';
	if (cursor->is_bad || (size_t)(cursor->end - cursor->at) < length) {
		cursor->is_bad = true;
		return;
	}
	for (size_t i = 0; i < length;) {
		size_t n = character_length(cursor->at + i, length - i);
		if (n == 0) {
			cursor->is_bad = true;
			return;
		}
		i += n;
	}
	memcpy(text, cursor->at, length);
	text[length] = '\0';
	cursor->at += length;
}

#define GET_TEXT(cursor, array) get_text((cursor), (array), sizeof(array))

/* An amount that is not valid counts for nothing, so nobody takes it for one. */
static uint32_t get_mib(struct cursor *cursor, bool is_valid)
{
	uint32_t mib = get_u32(cursor, UINT32_MAX);
	if (!is_valid)
		return 0;
	if (mib == GPU_MIB_UNKNOWN)
		cursor->is_bad = true;
	return mib;
}

static int32_t get_celsius(struct cursor *cursor)
{
	int32_t value;
	get(cursor, &value, sizeof(value));
	if (value < CELSIUS_LEAST || value > CELSIUS_MOST)
		cursor->is_bad = true;
	return value;
}

static int get_processes(struct cursor *cursor, struct gpu_reading *reading, size_t *processes_left)
{
	uint32_t n = get_u32(cursor, (uint32_t)*processes_left);
	if (n == 0 || cursor->is_bad)
		return 0;
	reading->processes = calloc(n, sizeof(*reading->processes));
	if (reading->processes == NULL)
		return -ENOMEM;
	*processes_left -= n;
	reading->n_processes = n;
	for (uint32_t i = 0; i < n && !cursor->is_bad; i++) {
		struct gpu_process *process = &reading->processes[i];
		process->pid = (pid_t)get_u32(cursor, INT_MAX);
		process->mib = get_u32(cursor, UINT32_MAX);
		GET_TEXT(cursor, process->name);
		bool needs_amount = reading->valid & GPU_VALID_PROCESSES;
		if (process->pid == 0 || (needs_amount && process->mib == GPU_MIB_UNKNOWN))
			cursor->is_bad = true;
	}
	return 0;
}

static int get_migs(struct cursor *cursor, struct gpu_reading *reading)
{
	uint32_t n = get_u32(cursor, GPU_MIG_MAX);
	if (n == 0 || cursor->is_bad)
		return 0;
	reading->migs = calloc(n, sizeof(*reading->migs));
	if (reading->migs == NULL)
		return -ENOMEM;
	reading->n_migs = n;
	for (uint32_t i = 0; i < n && !cursor->is_bad; i++) {
		struct gpu_mig *mig = &reading->migs[i];
		mig->has_memory = get_u32(cursor, 1) != 0;
		mig->total_mib = get_mib(cursor, mig->has_memory);
		mig->used_mib = get_mib(cursor, mig->has_memory);
		GET_TEXT(cursor, mig->uuid);
		GET_TEXT(cursor, mig->name);
	}
	return 0;
}

static int get_reading(struct cursor *cursor, struct gpu_reading *reading, size_t *processes_left)
{
	memset(reading, 0, sizeof(*reading));
	reading->valid = get_u32(cursor, VALID_ALL);
	reading->total_mib = get_mib(cursor, reading->valid & GPU_VALID_TOTAL);
	reading->used_mib = get_mib(cursor, reading->valid & GPU_VALID_USED);
	reading->free_mib = get_mib(cursor, reading->valid & GPU_VALID_FREE);
	reading->driver_mib = get_mib(cursor, reading->valid & GPU_VALID_DRIVER);
	reading->temperature_c = get_celsius(cursor);
	reading->utilization_percent = get_u32(cursor, 100);
	GET_TEXT(cursor, reading->uuid);
	GET_TEXT(cursor, reading->name);
	GET_TEXT(cursor, reading->problem);
	int r = get_processes(cursor, reading, processes_left);
	return r < 0 ? r : get_migs(cursor, reading);
}

int sampler_wire_decode(const uint8_t *bytes, size_t length, struct gpu_sample *sample)
{
	struct cursor cursor = { .at = bytes, .end = bytes + length };
	if (get_u32(&cursor, UINT32_MAX) != MAGIC)
		cursor.is_bad = true;
	get(&cursor, &sample->taken_ms, sizeof(sample->taken_ms));
	GET_TEXT(&cursor, sample->problem);
	sample->n_gpus = get_u32(&cursor, GPU_MAX);
	size_t processes_left = SAMPLER_WIRE_PROCESSES_MAX;
	int r = 0;
	for (unsigned i = 0; i < sample->n_gpus && r == 0 && !cursor.is_bad; i++)
		r = get_reading(&cursor, &sample->gpus[i], &processes_left);
	if (r == 0 && (cursor.is_bad || cursor.at != cursor.end))
		r = -EBADMSG;
	if (r < 0)
		gpu_sample_finish(sample);
	return r;
}

/* Frames out of a stream. */

int sampler_stream_append(struct sampler_stream *stream, const uint8_t *bytes, size_t length)
{
	if (length == 0)
		return 0;
	if (stream->start > 0) {
		memmove(stream->bytes, stream->bytes + stream->start, stream->end - stream->start);
		stream->end -= stream->start;
		stream->start = 0;
	}
	if (stream->size - stream->end < length) {
		size_t size = stream->end + length < 8192 ? 8192 : 2 * (stream->end + length);
		uint8_t *grown = realloc(stream->bytes, size);
		if (grown == NULL)
			return -ENOMEM;
		stream->bytes = grown;
		stream->size = size;
	}
	memcpy(stream->bytes + stream->end, bytes, length);
	stream->end += length;
	return 0;
}

int sampler_stream_next(struct sampler_stream *stream, const uint8_t **ret_bytes, size_t *ret_length)
{
	uint32_t length;
	size_t left = stream->end - stream->start;
	if (left < sizeof(length))
		return 0;
	memcpy(&length, stream->bytes + stream->start, sizeof(length));
	if (length == 0 || length > SAMPLER_WIRE_FRAME_MAX)
		return -EBADMSG;
	if (left - sizeof(length) < length)
		return 0;
	*ret_bytes = stream->bytes + stream->start + sizeof(length);
	*ret_length = length;
	stream->start += sizeof(length) + length;
	return 1;
}

void sampler_stream_finish(struct sampler_stream *stream)
{
	free(stream->bytes);
	*stream = (struct sampler_stream){ 0 };
}
