/*
 * What the sampler child writes, as the daemon reads it: a stream in pieces, frames, samples. What is taken is within
 * its bounds, and encoded again it is the same.
 */
#include "gpu/sampler_wire.h"

#include <errno.h>
#include <limits.h>

#include "fuzz.h"
#include "gpu/backend.h"
#include "gpu/sampler_news.h"

static bool is_text(const char *text, size_t size)
{
	size_t length = strnlen(text, size);
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return length < size;
}

static void check_processes(const struct gpu_reading *reading)
{
	for (size_t i = 0; i < reading->n_processes; i++) {
		const struct gpu_process *process = &reading->processes[i];
		FUZZ_CHECK(process->pid > 0 && is_text(process->name, sizeof(process->name)));
		FUZZ_CHECK(!(reading->valid & GPU_VALID_PROCESSES) || process->mib != GPU_MIB_UNKNOWN);
	}
	for (size_t i = 0; i < reading->n_migs; i++) {
		const struct gpu_mig *mig = &reading->migs[i];
		FUZZ_CHECK(is_text(mig->uuid, sizeof(mig->uuid)) && is_text(mig->name, sizeof(mig->name)));
		FUZZ_CHECK(mig->total_mib != GPU_MIB_UNKNOWN && mig->used_mib != GPU_MIB_UNKNOWN);
	}
}

static void check_reading(const struct gpu_reading *reading)
{
	FUZZ_CHECK(reading->total_mib != GPU_MIB_UNKNOWN && reading->used_mib != GPU_MIB_UNKNOWN);
	FUZZ_CHECK(reading->free_mib != GPU_MIB_UNKNOWN && reading->driver_mib != GPU_MIB_UNKNOWN);
	FUZZ_CHECK((reading->valid & GPU_VALID_TOTAL) || reading->total_mib == 0);
	FUZZ_CHECK(reading->temperature_c >= -273 && reading->temperature_c <= 1000);
	FUZZ_CHECK(reading->utilization_percent <= 100 && reading->n_migs <= GPU_MIG_MAX);
	FUZZ_CHECK(is_text(reading->uuid, sizeof(reading->uuid)) && is_text(reading->name, sizeof(reading->name)));
	FUZZ_CHECK(is_text(reading->problem, sizeof(reading->problem)));
	check_processes(reading);
}

static void check_sample(const struct gpu_sample *sample)
{
	size_t n_processes = 0;
	FUZZ_CHECK(sample->n_gpus <= GPU_MAX && is_text(sample->problem, sizeof(sample->problem)));
	for (unsigned i = 0; i < sample->n_gpus; i++) {
		check_reading(&sample->gpus[i]);
		n_processes += sample->gpus[i].n_processes;
	}
	FUZZ_CHECK(n_processes <= SAMPLER_WIRE_PROCESSES_MAX);
}

/* Fields of a reading that are not valid may have stood on the wire with anything: the second time they do not. */
static void check_again(const struct gpu_sample *sample)
{
	static uint8_t *first, *second;
	static size_t first_size, second_size;
	struct gpu_sample *again = calloc(1, sizeof(*again));
	FUZZ_CHECK(again != NULL);
	ssize_t n = sampler_wire_encode(sample, &first, &first_size);
	FUZZ_CHECK(n > 4 && n - 4 <= SAMPLER_WIRE_FRAME_MAX);
	FUZZ_CHECK(sampler_wire_decode(first + 4, (size_t)n - 4, again) == 0);
	FUZZ_CHECK(sampler_wire_encode(again, &second, &second_size) == n && memcmp(first, second, (size_t)n) == 0);
	gpu_sample_finish(again);
	free(again);
}

static void check_news(const struct gpu_sample *sample)
{
	static struct sampler_news news;
	char text[SAMPLER_NEWS_SIZE];
	bool is_problem;
	memset(&news, 0, sizeof(news));
	unsigned n = 0;
	while (sampler_news_next(&news, sample, 1000, &is_problem, text)) {
		FUZZ_CHECK(strnlen(text, sizeof(text)) < sizeof(text));
		FUZZ_CHECK(++n <= GPU_MAX + 1);
	}
}

static int read_frames(struct sampler_stream *stream, struct gpu_sample *sample)
{
	const uint8_t *bytes;
	size_t length;
	int r;
	while ((r = sampler_stream_next(stream, &bytes, &length)) > 0) {
		FUZZ_CHECK(length > 0 && length <= SAMPLER_WIRE_FRAME_MAX);
		int decoded = sampler_wire_decode(bytes, length, sample);
		FUZZ_CHECK(decoded == 0 || decoded == -EBADMSG);
		if (decoded < 0)
			return decoded;
		check_sample(sample);
		check_again(sample);
		check_news(sample);
		gpu_sample_finish(sample);
	}
	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gpu_sample sample;
	struct sampler_stream stream = { 0 };
	memset(&sample, 0, sizeof(sample));
	size_t half = size / 2;
	FUZZ_CHECK(sampler_stream_append(&stream, data, half) == 0);
	if (read_frames(&stream, &sample) == 0) {
		FUZZ_CHECK(sampler_stream_append(&stream, data + half, size - half) == 0);
		read_frames(&stream, &sample);
	}
	for (unsigned i = 0; i < GPU_MAX; i++)
		FUZZ_CHECK(sample.gpus[i].processes == NULL && sample.gpus[i].migs == NULL);
	sampler_stream_finish(&stream);
	return 0;
}
