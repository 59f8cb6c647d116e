/*
 * STATE_DIR/lock.redis: what a daemon must know of its lock after a restart. 0600; made by rename, then written over in
 * place by one write each time, also after a restart: so it has its room on a full disk. Not synced: it survives a
 * killed process, and costs microseconds. After a power failure it may be an older one or damaged; what that loses the
 * lock's time limit makes good, for it names the boot.
 */
#pragma once

#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"
#include "lock/redis_value.h"

#define REDIS_SERVER_MAX 127

struct redis_record {
	char *path;
	char boot_id[CLOCK_BOOT_ID_SIZE]; /* of now */
	char *key; /* expanded, made printable */
	char server[REDIS_SERVER_MAX + 1]; /* identity of the data set that was last relied on; "": none */
	char value[REDIS_VALUE_MAX + 1]; /* what may stand in the key by our hand; "": nothing */
	uint64_t believed_until; /* clock_boot_ms() of this boot; 0: it is to be given back */
	uint64_t fence; /* the highest that was told */
	int fd; /* of the file as it was written last, -1: none */
	long fence_offset; /* in it; 0: not known yet */
};

/*
 * Reads what is there. A file that is missing, damaged, of another key, or (for the belief) of another boot tells
 * nothing. 0, or -ENOMEM; `ret_problem` says what is damaged ("" when nothing is).
 */
int redis_record_open(
	const char *state_dir, const char *key, struct redis_record *ret_record, struct error *ret_problem);

/* 0, or a negative errno with a message that names the file. */
int redis_record_write(struct redis_record *record, struct error *err);

/* The same for a fence alone, for a fraction of the time. */
int redis_record_note_fence(struct redis_record *record, uint64_t fence, struct error *err);

/* As if nothing was ever written. */
void redis_record_remove(struct redis_record *record);

void redis_record_close(struct redis_record *record);
