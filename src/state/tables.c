/* Statements, and rows bound to them and read from them. Decides nothing, and writes no message but one. */
#include "state/tables.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "state/sql.h"

enum statement { BEGIN, COMMIT, ROLLBACK, SET_NEXT, SET_GENERATIONS, PUT, FORGET, EACH, STATEMENTS };

#define COLUMNS                                                                                                        \
	"fence, mode, services, phase, gpus, room_mib, priority, attached, ttl_ms, granted_ms, expires_ms, "           \
	"owner, request_id, secret, boot, room_base_mib"

static const char *const statement_texts[STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[SET_NEXT] = "UPDATE fences SET next = ?1",
	[SET_GENERATIONS] = "UPDATE journal SET now = ?1, before = ?2, taken = ?3",
	[PUT] = "INSERT OR REPLACE INTO leases (" COLUMNS ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	[FORGET] = "DELETE FROM leases WHERE fence = ?1",
	[EACH] = "SELECT " COLUMNS " FROM leases ORDER BY fence",
};

struct tables {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
};

struct tables *tables_destroy(struct tables *tables)
{
	for (size_t i = 0; tables != NULL && i < STATEMENTS; i++)
		sqlite3_finalize(tables->statements[i]);
	free(tables);
	return NULL;
}

static void destroy(struct tables **tables)
{
	*tables = tables_destroy(*tables);
}

/* The tables are as they should be when every statement means something. */
int tables_prepare(sqlite3 *db, const char *path, struct tables **ret_tables, struct error *err)
{
	CLEANUP(destroy) struct tables *tables = calloc(1, sizeof(*tables));
	if (tables == NULL)
		return error_set(err, -ENOMEM, "state: there is no memory to read %s", path);
	tables->db = db;
	for (size_t i = 0; i < STATEMENTS; i++) {
		int code = sqlite3_prepare_v3(
			db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &tables->statements[i], NULL);
		if ((code & 0xff) == SQLITE_ERROR)
			return error_set(err, -EBADMSG, "state: %s is damaged: %s", path, sqlite3_errmsg(db));
		if (code != SQLITE_OK)
			return sql_error(db, code, err, "read the tables", path);
	}
	*ret_tables = TAKE_PTR(tables);
	return 0;
}

/* One statement that answers with nothing. */
static int run(struct tables *tables, enum statement which)
{
	sqlite3_step(tables->statements[which]);
	return sqlite3_reset(tables->statements[which]);
}

/* One that changes the only row of its table. */
static int run_on_the_row(struct tables *tables, enum statement which)
{
	int code = run(tables, which);
	return code == SQLITE_OK && sqlite3_changes(tables->db) != 1 ? SQLITE_CORRUPT : code;
}

int tables_roll_back(struct tables *tables)
{
	return sqlite3_get_autocommit(tables->db) != 0 ? SQLITE_OK : run(tables, ROLLBACK);
}

int tables_begin(struct tables *tables)
{
	int code = tables_roll_back(tables);
	return code == SQLITE_OK ? run(tables, BEGIN) : code;
}

int tables_commit(struct tables *tables)
{
	return run(tables, COMMIT);
}

static void bind_text(sqlite3_stmt *statement, int place, const char *text)
{
	sqlite3_bind_text(statement, place, text, -1, SQLITE_STATIC);
}

int tables_put(struct tables *tables, const struct row *row)
{
	sqlite3_stmt *put = tables->statements[PUT];
	const struct state_lease *lease = &row->lease;
	sqlite3_bind_int64(put, 1, (sqlite3_int64)lease->fence);
	bind_text(put, 2, row_mode_name(lease->mode));
	bind_text(put, 3, row->names);
	sqlite3_bind_int64(put, 4, lease->phase);
	sqlite3_bind_int64(put, 5, (sqlite3_int64)lease->gpus);
	sqlite3_bind_int64(put, 6, lease->room_mib);
	sqlite3_bind_int64(put, 7, lease->priority);
	sqlite3_bind_int64(put, 8, lease->attached);
	sqlite3_bind_int64(put, 9, (sqlite3_int64)lease->ttl_ms);
	sqlite3_bind_int64(put, 10, lease->granted_ms);
	sqlite3_bind_int64(put, 11, lease->expires_ms);
	bind_text(put, 12, lease->owner);
	bind_text(put, 13, lease->request_id);
	bind_text(put, 14, lease->secret);
	sqlite3_bind_int64(put, 15, (sqlite3_int64)lease->boot);
	if (lease->room_base_mib == GPU_MIB_UNKNOWN)
		sqlite3_bind_null(put, 16);
	else
		sqlite3_bind_int64(put, 16, lease->room_base_mib);
	return run(tables, PUT);
}

int tables_forget(struct tables *tables, uint64_t fence)
{
	sqlite3_bind_int64(tables->statements[FORGET], 1, (sqlite3_int64)fence);
	return run(tables, FORGET);
}

int tables_set_next_fence(struct tables *tables, uint64_t fence)
{
	sqlite3_bind_int64(tables->statements[SET_NEXT], 1, (sqlite3_int64)fence);
	return run_on_the_row(tables, SET_NEXT);
}

int tables_set_generations(struct tables *tables, const struct generations *generations)
{
	sqlite3_stmt *set = tables->statements[SET_GENERATIONS];
	sqlite3_bind_int64(set, 1, (sqlite3_int64)generations->now);
	sqlite3_bind_int64(set, 2, (sqlite3_int64)generations->before);
	sqlite3_bind_int64(set, 3, (sqlite3_int64)generations->taken);
	return run_on_the_row(tables, SET_GENERATIONS);
}

int tables_get_generations(struct tables *tables, struct generations *ret_generations)
{
	sqlite3_int64 now = 0, before = 0, taken = 0;
	int code = sql_number(tables->db, "SELECT now FROM journal", &now);
	if (code == SQLITE_OK)
		code = sql_number(tables->db, "SELECT before FROM journal", &before);
	if (code == SQLITE_OK)
		code = sql_number(tables->db, "SELECT taken FROM journal", &taken);
	*ret_generations = (struct generations){
		.now = (uint64_t)now,
		.before = (uint64_t)before,
		.taken = (size_t)taken,
	};
	return code;
}

int tables_get_last_fence(struct tables *tables, uint64_t *ret_fence)
{
	sqlite3_int64 fence = 0;
	int code = sql_number(tables->db, "SELECT max(fence) FROM leases", &fence);
	*ret_fence = (uint64_t)fence;
	return code;
}

int tables_count(struct tables *tables, size_t *ret_n)
{
	sqlite3_int64 n = 0;
	int code = sql_number(tables->db, "SELECT count(*) FROM leases", &n);
	*ret_n = (size_t)n;
	return code;
}

static void read_numbers(sqlite3_stmt *row, struct state_lease *lease)
{
	lease->fence = (uint64_t)sqlite3_column_int64(row, 0);
	lease->phase = sqlite3_column_int(row, 3);
	lease->gpus = (gpu_set)sqlite3_column_int64(row, 4);
	lease->room_mib = (uint32_t)sqlite3_column_int64(row, 5);
	lease->priority = sqlite3_column_int(row, 6);
	lease->attached = sqlite3_column_int(row, 7) != 0;
	lease->ttl_ms = (uint64_t)sqlite3_column_int64(row, 8);
	lease->granted_ms = sqlite3_column_int64(row, 9);
	lease->expires_ms = sqlite3_column_int64(row, 10);
	lease->boot = (uint64_t)sqlite3_column_int64(row, 14);
	bool has_base = sqlite3_column_type(row, 15) != SQLITE_NULL;
	lease->room_base_mib = has_base ? (uint32_t)sqlite3_column_int64(row, 15) : GPU_MIB_UNKNOWN;
}

static const char *text_of(sqlite3_stmt *row, int column)
{
	return (const char *)sqlite3_column_text(row, column);
}

int tables_next(struct tables *tables, struct row *ret_row)
{
	sqlite3_stmt *each = tables->statements[EACH];
	int code = sqlite3_step(each);
	if (code != SQLITE_ROW)
		return code;
	struct state_lease *lease = &ret_row->lease;
	*ret_row = (struct row){ .names = text_of(each, 2) };
	read_numbers(each, lease);
	const char *mode = text_of(each, 1);
	lease->owner = text_of(each, 11);
	lease->request_id = text_of(each, 12);
	lease->secret = text_of(each, 13);
	if (mode == NULL || ret_row->names == NULL || lease->owner == NULL || lease->request_id == NULL ||
		lease->secret == NULL)
		return SQLITE_NOMEM;
	return row_find_mode(mode, &lease->mode) ? SQLITE_ROW : SQLITE_CORRUPT;
}

void tables_rewind(struct tables *tables)
{
	sqlite3_reset(tables->statements[EACH]);
}
