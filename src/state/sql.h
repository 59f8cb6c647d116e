/* What all SQL of the store goes through; only for this room. */
#pragma once

#include <sqlite3.h>

#include "base/error.h"

/*
 * A result code of SQLite as a negative errno, in words with the remedy: "state: cannot ACTION: REASON". `db` is asked
 * for what the system said; it may be NULL.
 */
int sql_error(sqlite3 *db, int code, struct error *err, const char *action, const char *path);

/*
 * Opens without creating, with everything set that holds for each connection. From the first statement until it is
 * closed nobody else may read or write the database. -EBADMSG: not a database, or damaged.
 */
int sql_open(const char *path, sqlite3 **ret_db, struct error *err);

/* SQLITE_OK or a result code. Several statements are fine, answers are thrown away. */
int sql_run(sqlite3 *db, const char *statements);
/* The first column of the first row; SQLITE_OK, SQLITE_NOTFOUND without a row, or a result code. */
int sql_number(sqlite3 *db, const char *statement, sqlite3_int64 *ret_number);
/* For a cleanup attribute. */
void sql_close(sqlite3 **db);
