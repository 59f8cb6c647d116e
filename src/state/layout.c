/*
 * The tables, layout by layout. A layout that was ever released is never changed: add a step.
 *
 * The constraints say what can be, so that a check of the database also finds values that nobody wrote.
 */
#include "state/layout.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "state/sql.h"

#define APPLICATION_ID 0x67706d67 /* "gpmg", as file(1) and others show it */
#define TEXT_OF(x) #x
#define NUMBER_TEXT(x) TEXT_OF(x)

/*
 * `begun` is written for no other reason than to be written (checkpoint.c). `now` and `before` are generations of the
 * journal (journal.h), `taken` are the bytes of the one before that these tables have taken over.
 */
static const char *const steps[] = {
	"CREATE TABLE fences ("
	" only INTEGER PRIMARY KEY CHECK (only = 1),"
	" next INTEGER NOT NULL CHECK (typeof(next) = 'integer' AND next >= 1 AND next <= 9007199254740992),"
	" begun INTEGER NOT NULL DEFAULT 0);"
	"CREATE TABLE leases ("
	" fence INTEGER PRIMARY KEY CHECK (fence >= 1 AND fence < 9007199254740992),"
	" mode TEXT NOT NULL CHECK (mode IN ('exclusive', 'shared', 'gpu')),"
	" services TEXT NOT NULL CHECK (typeof(services) = 'text'),"
	" phase INTEGER NOT NULL CHECK (typeof(phase) = 'integer' AND phase >= 0 AND phase <= 2147483647),"
	" gpus INTEGER NOT NULL CHECK (typeof(gpus) = 'integer'),"
	" room_mib INTEGER NOT NULL CHECK (typeof(room_mib) = 'integer' AND room_mib >= 0 AND room_mib <= 4294967295),"
	" priority INTEGER NOT NULL CHECK (typeof(priority) = 'integer' AND abs(priority) <= 2147483648),"
	" attached INTEGER NOT NULL CHECK (attached IN (0, 1)),"
	" ttl_ms INTEGER NOT NULL CHECK (typeof(ttl_ms) = 'integer' AND ttl_ms >= 0),"
	" granted_wall_ms INTEGER NOT NULL CHECK (typeof(granted_wall_ms) = 'integer'),"
	" expires_wall_ms INTEGER NOT NULL CHECK (typeof(expires_wall_ms) = 'integer'),"
	" owner TEXT NOT NULL CHECK (typeof(owner) = 'text'),"
	" request_id TEXT NOT NULL CHECK (typeof(request_id) = 'text'),"
	" secret TEXT NOT NULL CHECK (typeof(secret) = 'text'));",
	"CREATE TABLE journal ("
	" only INTEGER PRIMARY KEY CHECK (only = 1),"
	" now INTEGER NOT NULL CHECK (typeof(now) = 'integer'),"
	" before INTEGER NOT NULL CHECK (typeof(before) = 'integer'),"
	" taken INTEGER NOT NULL CHECK (typeof(taken) = 'integer' AND taken >= 0));"
	"INSERT INTO journal (only, now, before, taken) VALUES (1, random(), 0, 0);",
	/* A lease of before has no boot: its times are the time of day. */
	"ALTER TABLE leases RENAME COLUMN granted_wall_ms TO granted_ms;"
	"ALTER TABLE leases RENAME COLUMN expires_wall_ms TO expires_ms;"
	"ALTER TABLE leases ADD COLUMN boot INTEGER NOT NULL DEFAULT 0 CHECK (typeof(boot) = 'integer');"
	"CREATE TABLE services ("
	" name TEXT PRIMARY KEY CHECK (typeof(name) = 'text' AND name <> ''),"
	" boot_ms INTEGER CHECK (boot_ms IS NULL OR (typeof(boot_ms) = 'integer' AND boot_ms >= 0)),"
	" peak_mib INTEGER CHECK (peak_mib IS NULL OR (typeof(peak_mib) = 'integer' AND peak_mib >= 0))"
	") WITHOUT ROWID;"
	"CREATE TABLE phase ("
	" only INTEGER PRIMARY KEY CHECK (only = 1),"
	" number INTEGER NOT NULL CHECK (typeof(number) = 'integer' AND number >= 1 AND number <= 2147483647),"
	" at_wall_ms INTEGER NOT NULL CHECK (typeof(at_wall_ms) = 'integer'));"
	"CREATE TABLE transitions ("
	" place INTEGER PRIMARY KEY,"
	" what TEXT NOT NULL CHECK (typeof(what) = 'text'),"
	" services TEXT NOT NULL CHECK (typeof(services) = 'text'));",
	/* NULL: not known, as of the leases of before. */
	"ALTER TABLE leases ADD COLUMN room_base_mib INTEGER"
	" CHECK (room_base_mib IS NULL OR"
	" (typeof(room_base_mib) = 'integer' AND room_base_mib >= 0 AND room_base_mib < 4294967295));",
};

const struct layout layout_today = { .n = ARRAY_SIZE(steps), .steps = steps };

static int set_damaged(struct error *err, const char *path, const char *what)
{
	return error_set(err, -EBADMSG, "state: %s is damaged: %s", path, what);
}

/* SQL that means nothing or breaks a constraint is our mistake elsewhere; here it is what a damaged schema does. */
static int set_read_error(sqlite3 *db, int code, struct error *err, const char *action, const char *path)
{
	int kind = code & 0xff;
	if (kind == SQLITE_ERROR || kind == SQLITE_CONSTRAINT || kind == SQLITE_SCHEMA)
		return set_damaged(err, path, sqlite3_errmsg(db));
	return sql_error(db, code, err, action, path);
}

/* A file of ours, empty (*ret_layout is 0), or nothing that we may touch. */
static int identify(sqlite3 *db, const char *path, sqlite3_int64 *ret_layout, struct error *err)
{
	sqlite3_int64 id = 0, n_tables = 0, n_own = 0;
	int code = sql_number(db, "PRAGMA application_id", &id);
	if (code == SQLITE_OK)
		code = sql_number(db, "PRAGMA user_version", ret_layout);
	if (code == SQLITE_OK)
		code = sql_number(db, "SELECT count(*) FROM sqlite_master", &n_tables);
	if (code == SQLITE_OK)
		code = sql_number(db, "SELECT count(*) FROM sqlite_master WHERE name IN ('fences', 'leases')", &n_own);
	if (code != SQLITE_OK)
		return set_read_error(db, code, err, "read", path);
	if (id == APPLICATION_ID || (id == 0 && *ret_layout == 0 && n_tables == 0))
		return 0;
	if (n_own > 0)
		return set_damaged(err, path, "its header is wrong");
	return error_set(err, -EINVAL,
		"state: %s is the database of another program; move it away, or name another folder (state_dir)", path);
}

/* Reads every page and row; a few milliseconds for thousands of leases. */
static int check_content(sqlite3 *db, const char *path, struct error *err)
{
	sqlite3_stmt *check = NULL;
	char said[256] = "ok";
	int code = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &check, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(check);
	if (code == SQLITE_ROW)
		snprintf(said, sizeof(said), "%s", (const char *)sqlite3_column_text(check, 0));
	sqlite3_finalize(check);
	if (code != SQLITE_ROW)
		return set_read_error(db, code, err, "check the database", path);
	return strcmp(said, "ok") == 0 ? 0 : set_damaged(err, path, said);
}

static int upgrade(sqlite3 *db, const struct layout *layout, size_t from, uint64_t first_fence)
{
	char text[128];
	int code = sql_run(db, "BEGIN IMMEDIATE");
	for (size_t i = from; code == SQLITE_OK && i < layout->n; i++)
		code = sql_run(db, layout->steps[i]);
	if (code == SQLITE_OK && from == 0) {
		snprintf(text, sizeof(text), "INSERT INTO fences (only, next) VALUES (1, %llu)",
			(unsigned long long)first_fence);
		code = sql_run(db, text);
	}
	if (code == SQLITE_OK) {
		snprintf(text, sizeof(text),
			"PRAGMA application_id=" NUMBER_TEXT(APPLICATION_ID) "; PRAGMA user_version=%zu", layout->n);
		code = sql_run(db, text);
	}
	if (code == SQLITE_OK)
		code = sql_run(db, "COMMIT");
	if (code != SQLITE_OK && sqlite3_get_autocommit(db) == 0)
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return code;
}

/* Leases are small: small pages make the log, and with it each write, small. Only heard before the first write. */
static int switch_to_log(sqlite3 *db, const char *path, struct error *err)
{
	sqlite3_int64 is_wal = 0;
	int code = sql_run(db, "PRAGMA page_size=1024; PRAGMA journal_mode=WAL");
	if (code == SQLITE_OK)
		code = sql_number(db, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &is_wal);
	if (code != SQLITE_OK)
		return sql_error(db, code, err, "begin a log", path);
	if (!is_wal)
		return error_set(err, -ENOTSUP,
			"state: %s: this file system cannot hold a write-ahead log; name a folder on a local disk "
			"(state_dir)",
			path);
	return 0;
}

static int bring_up_to_date(sqlite3 *db, const char *path, const struct layout *layout, size_t from,
	uint64_t first_fence, struct error *err)
{
	if (from == layout->n)
		return 0;
	int code = upgrade(db, layout, from, first_fence);
	return code == SQLITE_OK ? 0 : set_read_error(db, code, err, "prepare the tables", path);
}

int layout_prepare(sqlite3 *db, const char *path, const struct layout *layout, uint64_t first_fence, uint64_t *ret_next,
	struct error *err)
{
	sqlite3_int64 found = 0, next = 0, last = 0;
	int r = identify(db, path, &found, err);
	if (r < 0)
		return r;
	if (found < 0 || (uint64_t)found > layout->n)
		return error_set(err, -EPROTO,
			"state: %s was written by a newer gpumgrd (layout %lld, this one knows up to %zu); install "
			"that one, "
			"or move the file away, which forgets the leases",
			path, (long long)found, layout->n);
	r = check_content(db, path, err);
	if (r == 0)
		r = switch_to_log(db, path, err);
	if (r == 0)
		r = bring_up_to_date(db, path, layout, (size_t)found, first_fence, err);
	if (r < 0)
		return r;
	int code = sql_number(db, "SELECT next FROM fences", &next);
	if (code == SQLITE_NOTFOUND || (code & 0xff) == SQLITE_ERROR || (code == SQLITE_OK && next < 1))
		return set_damaged(err, path, "it holds no fence");
	/* Nothing in a file says that the one follows from the other, and a fence is never given twice. */
	if (code == SQLITE_OK)
		code = sql_number(db, "SELECT max(fence) FROM leases", &last);
	if ((code & 0xff) == SQLITE_ERROR)
		return set_damaged(err, path, "it holds no leases");
	if (code != SQLITE_OK)
		return sql_error(db, code, err, "read the fences", path);
	*ret_next = (uint64_t)(next > last ? next : last + 1);
	return 0;
}

uint64_t layout_salvage_fence(const char *path)
{
	CLEANUP(sql_close) sqlite3 *db = NULL;
	sqlite3_int64 next = 0, last = 0;
	if (sql_open(path, &db, NULL) < 0)
		return 0;
	if (sql_number(db, "SELECT next FROM fences", &next) != SQLITE_OK || next < 1)
		next = 0;
	if (sql_number(db, "SELECT max(fence) FROM leases", &last) != SQLITE_OK || last < 0)
		last = 0;
	uint64_t fence = (uint64_t)(next > last ? next : last + 1);
	return fence <= FENCE_BELIEVED_MAX ? fence : 0;
}
