/* Small helpers over SQLite, and its result codes in words. Knows no table. */
#include "state/sql.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Somebody's sqlite3 shell may hold the file for a moment when it is opened; the loop cannot wait for longer. */
#define BUSY_TIMEOUT_MS 250

/* errno 0: whatever the system said, and its words. */
static const struct {
	int code, error;
	const char *reason;
} reasons[] = {
	{ SQLITE_FULL, ENOSPC, "the disk is full; make room on that file system" },
	{ SQLITE_BUSY, EAGAIN, "another program holds the file locked; end it" },
	{ SQLITE_LOCKED, EAGAIN, "another program holds the file locked; end it" },
	{ SQLITE_READONLY, EROFS, "it cannot be written; make the file, its folder and its file system writable" },
	{ SQLITE_CORRUPT, EBADMSG, "the file is damaged; restart gpumgrd, which moves it aside and begins a new one" },
	{ SQLITE_NOTADB, EBADMSG, "the file is no database; restart gpumgrd, which moves it aside" },
	{ SQLITE_NOMEM, ENOMEM, "there is no memory" },
	{ SQLITE_PERM, EACCES, "permission is denied" },
	{ SQLITE_TOOBIG, E2BIG, "it is too long" },
	{ SQLITE_CONSTRAINT, EINVAL, "the values do not fit the table" },
	{ SQLITE_CANTOPEN, 0, "the file, or one beside it, cannot be opened" },
	{ SQLITE_IOERR, 0, "reading or writing failed" },
};

/*
 * What the system said. sqlite3_system_errno() is whatever errno was left at the end, often 0; the files remember it:
 * first the log, where almost all writing is, then the database.
 */
static int find_system_error(sqlite3 *db, int code)
{
	sqlite3_file *log = NULL;
	int said = 0;
	if (db == NULL)
		return 0;
	if ((code & 0xff) == SQLITE_IOERR) {
		sqlite3_file_control(db, NULL, SQLITE_FCNTL_JOURNAL_POINTER, &log);
		if (log != NULL && log->pMethods != NULL)
			log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &said);
		if (said == 0)
			sqlite3_file_control(db, NULL, SQLITE_FCNTL_LAST_ERRNO, &said);
	}
	return said != 0 ? said : sqlite3_system_errno(db);
}

static int set_other_error(sqlite3 *db, int code, struct error *err, const char *action, const char *path)
{
	int said = find_system_error(db, code);
	const char *words = db == NULL ? sqlite3_errstr(code) : sqlite3_errmsg(db);
	if (said != 0)
		words = strerror(said);
	return error_set(err, said != 0 ? -said : -EIO,
		"state: cannot %s in %s: %s; look after the file system that it lies on (permissions, room, errors in "
		"the kernel's log)",
		action, path, words);
}

int sql_error(sqlite3 *db, int code, struct error *err, const char *action, const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].code == (code & 0xff) && reasons[i].error != 0)
			return error_set(
				err, -reasons[i].error, "state: cannot %s in %s: %s", action, path, reasons[i].reason);
	return set_other_error(db, code, err, action, path);
}

void sql_close(sqlite3 **db)
{
	sqlite3_close_v2(*db);
	*db = NULL;
}

int sql_open(const char *path, sqlite3 **ret_db, struct error *err)
{
	CLEANUP(sql_close) sqlite3 *db = NULL;
	/* No mutex of SQLite's own: a connection is never used by two threads at a time. */
	int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code == SQLITE_OK) {
		sqlite3_extended_result_codes(db, 1);
		sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
		sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
		sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
		/*
		 * Exclusive: no lock is taken and given back, and no memory shared, for each transaction. FULL: what is
		 * written has reached the disk, else the journal could not be begun anew.
		 */
		code = sql_run(db,
			"PRAGMA locking_mode=EXCLUSIVE;"
			"PRAGMA synchronous=FULL; PRAGMA cell_size_check=ON; PRAGMA wal_autocheckpoint=0;"
			"PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=4194304;");
	}
	if ((code & 0xff) == SQLITE_ERROR) /* the schema, which is read here, makes no sense */
		return error_set(err, -EBADMSG, "state: %s is damaged: %s", path, sqlite3_errmsg(db));
	if (code != SQLITE_OK)
		return sql_error(db, code, err, "open the database", path);
	*ret_db = TAKE_PTR(db);
	return 0;
}

int sql_run(sqlite3 *db, const char *statements)
{
	return sqlite3_exec(db, statements, NULL, NULL, NULL);
}

int sql_number(sqlite3 *db, const char *statement, sqlite3_int64 *ret_number)
{
	sqlite3_stmt *prepared = NULL;
	int code = sqlite3_prepare_v2(db, statement, -1, &prepared, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(prepared);
	if (code == SQLITE_ROW) {
		*ret_number = sqlite3_column_int64(prepared, 0);
		code = SQLITE_OK;
	} else if (code == SQLITE_DONE) {
		code = SQLITE_NOTFOUND;
	}
	sqlite3_finalize(prepared);
	return code;
}
