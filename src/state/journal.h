/*
 * The journal: what was put and forgotten since the database was written last, in one file of a fixed size beside it.
 * Its room is taken when it is made, so a full disk does not keep a record from being written. Only for this room.
 *
 * A record that was written survives a killed process; it reaches the disk when somebody has the file synced (sync.h).
 *
 * Each record is written under a generation, a random number that the database holds, and its checksum covers all
 * records before it. So a database that has taken the records over says so by another generation in the same
 * transaction, and nothing need be removed here: the next record is written over the first. What a cut, a hit or
 * another history left behind is not read.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define JOURNAL_SIZE (1024 * 1024)
#define JOURNAL_RECORD_MAX 4096

enum journal_kind { JOURNAL_PUT = 1, JOURNAL_FORGET = 2 };

struct journal_record {
	enum journal_kind kind;
	uint64_t fence;
	const void *content; /* at an address that is a multiple of 8 */
	size_t size; /* of the content */
	size_t place; /* for journal_read() */
};

struct journal;

/* Makes the file where there is none. -EINVAL: not a regular file. -ENOSPC and others: as the system said. */
int journal_open(const char *path, struct journal **ret_journal, struct error *err);
struct journal *journal_close(struct journal *journal);
/* One more descriptor of the file, or a negative errno. */
int journal_descriptor(const struct journal *journal);

/*
 * Hands out the records of `generation` in their order, but for those in the first `taken` bytes, until there is no
 * other or `handle` returns a positive number, and goes on after them; a negative one is forwarded. Returns how many,
 * or what the system said.
 */
int64_t journal_replay(struct journal *journal, uint64_t generation, size_t taken,
	int (*handle)(void *context, const struct journal_record *record), void *context, struct error *err);
/* From the beginning, under another generation. */
void journal_begin(struct journal *journal, uint64_t generation);

/* 0; -EFBIG: more than JOURNAL_RECORD_MAX; -ENOSPC: it is used up; else what the system said. Then it is as before. */
int journal_append(struct journal *journal, enum journal_kind kind, uint64_t fence, const void *content, size_t size,
	size_t *ret_place);
/* The content of a record. 0, or what the system said. */
int journal_read(const struct journal *journal, size_t place, void *content, size_t size);

/* Bytes. */
size_t journal_used(const struct journal *journal);
