/*
 * Moves what the write-ahead log holds into the database when the log has grown, and begins the log anew. Both wait for
 * the disk, on the loop's thread, since nobody but the one connection may open the database: so it happens rarely,
 * once in thousands of leases, and in a moment when nothing is written where there is one. Only for this room.
 */
#pragma once

#include <sqlite3.h>
#include <uv.h>

struct checkpointer;

/* `db` outlives it. The database is in WAL mode already. */
int checkpointer_create(uv_loop_t *loop, sqlite3 *db, const char *path, struct checkpointer **ret_self);
/* The loop must still run once to close the handle. */
struct checkpointer *checkpointer_destroy(struct checkpointer *self);

/* After each commit: so many pages are in the log now. Takes no time. */
void checkpointer_note(struct checkpointer *self, int log_pages);
