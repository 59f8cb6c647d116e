/*
 * The tables of the database, through statements that are prepared once. Each call is one of SQLite's and answers with
 * its result codes. Only for this room.
 */
#pragma once

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "state/row.h"

struct tables;

/* `db` outlives them. -EBADMSG: they are not as they should be. */
int tables_prepare(sqlite3 *db, const char *path, struct tables **ret_tables, struct error *err);
struct tables *tables_destroy(struct tables *tables);

/* Ends a transaction that is still open, which happens only when there was no memory to end it. */
int tables_begin(struct tables *tables);
int tables_commit(struct tables *tables);
int tables_roll_back(struct tables *tables);

int tables_put(struct tables *tables, const struct row *row);
int tables_forget(struct tables *tables, uint64_t fence);
/* SQLITE_CORRUPT: there is no place for it. */
int tables_set_next_fence(struct tables *tables, uint64_t fence);
/* Which records of the journal are not in the tables: all of generation `now`, and those of `before` after `taken`. */
struct generations {
	uint64_t now, before;
	size_t taken; /* bytes */
};
int tables_set_generations(struct tables *tables, const struct generations *generations);
int tables_get_generations(struct tables *tables, struct generations *ret_generations);
int tables_get_last_fence(struct tables *tables, uint64_t *ret_fence);
int tables_count(struct tables *tables, size_t *ret_n);

/* The next lease in the order of their fences, borrowed until the next call: SQLITE_ROW, SQLITE_DONE, or an error. */
int tables_next(struct tables *tables, struct row *ret_row);
/* From the first one again. */
void tables_rewind(struct tables *tables);
