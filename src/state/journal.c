/*
 * One file, written with pwrite() and not through a mapping: a disk that fails is then an error of a call and no
 * SIGBUS, and what a killed process has written is whole. The microsecond that it takes is small beside the rest of a
 * lease.
 */
#include "state/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "state/place.h"

#define MAGIC UINT64_C(0x67706d6c00000002) /* "gpml" and the version of what is written */

struct header {
	uint64_t sum; /* over the sum before, the rest of the header and the content */
	uint64_t fence;
	uint32_t kind;
	uint32_t size; /* of the content; zeros follow, up to a multiple of 8 */
};

struct journal {
	int fd;
	size_t used;
	uint64_t sum; /* of the last record, or of the generation */
	struct {
		struct header header;
		char content[JOURNAL_RECORD_MAX];
	} record; /* being written */
};

static size_t padded(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

/* It finds accidents, not forgers: who may write the file may write the database. */
static uint64_t mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return sum ^ sum >> 29;
}

static uint64_t begin_sum(uint64_t generation)
{
	return mix(mix(0, MAGIC), generation);
}

static uint64_t sum_up(uint64_t sum, const struct header *header, const void *content)
{
	sum = mix(mix(sum, header->fence), (uint64_t)header->kind << 32 | header->size);
	for (size_t i = 0; i < padded(header->size); i += sizeof(uint64_t)) {
		uint64_t word;
		memcpy(&word, (const char *)content + i, sizeof(word));
		sum = mix(sum, word);
	}
	return sum;
}

int journal_open(const char *path, struct journal **ret_journal, struct error *err)
{
	CLEANUP_FREE struct journal *journal = calloc(1, sizeof(*journal));
	if (journal == NULL)
		return error_set(err, -ENOMEM, "state: there is no memory for the journal of %s", path);
	int r = place_open_journal(path, JOURNAL_SIZE, &journal->fd, err);
	if (r < 0)
		return r;
	journal_begin(journal, 0);
	*ret_journal = TAKE_PTR(journal);
	return 0;
}

struct journal *journal_close(struct journal *journal)
{
	if (journal != NULL)
		close(journal->fd);
	free(journal);
	return NULL;
}

int journal_descriptor(const struct journal *journal)
{
	int fd = fcntl(journal->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

void journal_begin(struct journal *journal, uint64_t generation)
{
	journal->used = 0;
	journal->sum = begin_sum(generation);
}

size_t journal_used(const struct journal *journal)
{
	return journal->used;
}

static int read_at(int fd, void *bytes, size_t size, size_t offset, size_t *ret_n)
{
	size_t n = 0;
	while (n < size) {
		ssize_t one = pread(fd, (char *)bytes + n, size - n, (off_t)(offset + n));
		if (one < 0 && errno == EINTR)
			continue;
		if (one < 0)
			return -errno;
		if (one == 0)
			break;
		n += (size_t)one;
	}
	*ret_n = n;
	return 0;
}

int journal_read(const struct journal *journal, size_t place, void *content, size_t size)
{
	size_t n = 0;
	int r = read_at(journal->fd, content, size, place, &n);
	return r == 0 && n < size ? -EIO : r;
}

/* The record after those that were read; false: there is none, or it is not whole. */
static bool next_record(const struct journal *journal, const char *bytes, size_t size,
	struct journal_record *ret_record, uint64_t *ret_sum)
{
	const struct header *header = (const struct header *)(bytes + journal->used);
	if (size - journal->used < sizeof(*header) || header->size > JOURNAL_RECORD_MAX ||
		size - journal->used - sizeof(*header) < padded(header->size))
		return false;
	*ret_record = (struct journal_record){
		.kind = (enum journal_kind)header->kind,
		.fence = header->fence,
		.content = header + 1,
		.size = header->size,
		.place = journal->used + sizeof(*header),
	};
	*ret_sum = sum_up(journal->sum, header, header + 1);
	return *ret_sum == header->sum;
}

int64_t journal_replay(struct journal *journal, uint64_t generation, size_t taken,
	int (*handle)(void *context, const struct journal_record *record), void *context, struct error *err)
{
	CLEANUP_FREE char *bytes = malloc(JOURNAL_SIZE);
	struct journal_record record;
	uint64_t sum;
	size_t size = 0;
	int64_t n = 0;
	if (bytes == NULL)
		return error_set(err, -ENOMEM, "state: there is no memory to read the journal");
	int r = read_at(journal->fd, bytes, JOURNAL_SIZE, 0, &size);
	if (r < 0)
		return error_set(err, r,
			"state: the journal cannot be read: %s; look after the disk that it lies on (errors in the "
			"kernel's "
			"log)",
			strerror(-r));
	journal_begin(journal, generation);
	while (next_record(journal, bytes, size, &record, &sum)) {
		bool is_taken = journal->used < taken;
		r = is_taken ? 0 : handle(context, &record);
		if (r != 0)
			break;
		journal->sum = sum;
		journal->used = record.place + padded(record.size);
		n += !is_taken;
	}
	return r < 0 ? r : n;
}

static int write_at(int fd, const void *bytes, size_t size, size_t offset)
{
	ssize_t n;
	do
		n = pwrite(fd, bytes, size, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO; /* half a record is none, and is written over */
}

int journal_append(struct journal *journal, enum journal_kind kind, uint64_t fence, const void *content, size_t size,
	size_t *ret_place)
{
	struct header *header = &journal->record.header;
	size_t whole = sizeof(*header) + padded(size);
	if (size > JOURNAL_RECORD_MAX)
		return -EFBIG;
	if (whole > JOURNAL_SIZE - journal->used)
		return -ENOSPC;
	if (size > 0)
		memcpy(journal->record.content, content, size);
	memset(journal->record.content + size, 0, padded(size) - size);
	*header = (struct header){ .fence = fence, .kind = (uint32_t)kind, .size = (uint32_t)size };
	header->sum = sum_up(journal->sum, header, journal->record.content);
	int r = write_at(journal->fd, &journal->record, whole, journal->used);
	if (r < 0)
		return r;
	if (ret_place != NULL)
		*ret_place = journal->used + sizeof(*header);
	journal->sum = header->sum;
	journal->used += whole;
	return 0;
}
