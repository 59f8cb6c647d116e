/* Rows of the tables `services`, `phase` and `transitions`. Knows nothing of leases, and decides nothing. */
#include "state/knowledge.h"

#include <errno.h>

#include "state/sql.h"
#include "state/transact.h"

/* ---- writing ---- */

/* Prepares, lets `bind` fill in one row after the other, and runs it for each. */
static int insert_each(sqlite3 *db, const char *text, size_t n,
	void (*bind)(sqlite3_stmt *insert, const void *context, size_t i), const void *context)
{
	sqlite3_stmt *insert = NULL;
	int code = sqlite3_prepare_v2(db, text, -1, &insert, NULL);
	for (size_t i = 0; code == SQLITE_OK && i < n; i++) {
		bind(insert, context, i);
		sqlite3_step(insert);
		code = sqlite3_reset(insert);
	}
	sqlite3_finalize(insert);
	return code;
}

struct knowledge {
	size_t n;
	const struct known_service *services;
	const struct known_phase *phase;
};

static void bind_known(sqlite3_stmt *insert, int place, int64_t number)
{
	if (number == KNOWLEDGE_UNKNOWN)
		sqlite3_bind_null(insert, place);
	else
		sqlite3_bind_int64(insert, place, number);
}

static void bind_service(sqlite3_stmt *insert, const void *context, size_t i)
{
	const struct known_service *service = &((const struct knowledge *)context)->services[i];
	sqlite3_bind_text(insert, 1, service->name, -1, SQLITE_STATIC);
	bind_known(insert, 2, service->boot_ms);
	bind_known(insert, 3, service->peak_mib);
}

static void bind_phase(sqlite3_stmt *insert, const void *context, size_t i)
{
	const struct known_phase *phase = ((const struct knowledge *)context)->phase;
	(void)i;
	sqlite3_bind_int64(insert, 1, phase->number);
	sqlite3_bind_int64(insert, 2, phase->at_wall_ms);
}

static int write_knowledge(sqlite3 *db, const void *context)
{
	const struct knowledge *knowledge = context;
	int code = sql_run(db, "DELETE FROM services; DELETE FROM phase");
	if (code == SQLITE_OK)
		code = insert_each(db, "INSERT INTO services (name, boot_ms, peak_mib) VALUES (?, ?, ?)", knowledge->n,
			bind_service, knowledge);
	if (code == SQLITE_OK)
		code = insert_each(db, "INSERT INTO phase (only, number, at_wall_ms) VALUES (1, ?, ?)",
			knowledge->phase->number != 0, bind_phase, knowledge);
	return code;
}

int knowledge_write(struct state *state, size_t n, const struct known_service *services,
	const struct known_phase *phase, struct error *err)
{
	const struct knowledge knowledge = { .n = n, .services = services, .phase = phase };
	return state_transact(state, write_knowledge, &knowledge, "keep what services need", err);
}

struct transitions {
	size_t n;
	const struct known_transition *items;
};

static void bind_transition(sqlite3_stmt *insert, const void *context, size_t i)
{
	const struct known_transition *transition = &((const struct transitions *)context)->items[i];
	sqlite3_bind_text(insert, 1, transition->what, -1, SQLITE_STATIC);
	sqlite3_bind_text(insert, 2, transition->services, -1, SQLITE_STATIC);
}

static int write_transitions(sqlite3 *db, const void *context)
{
	const struct transitions *transitions = context;
	int code = sql_run(db, "DELETE FROM transitions");
	return code != SQLITE_OK ? code
				 : insert_each(db, "INSERT INTO transitions (what, services) VALUES (?, ?)",
					   transitions->n, bind_transition, transitions);
}

int knowledge_write_transitions(
	struct state *state, size_t n, const struct known_transition *transitions, struct error *err)
{
	const struct transitions all = { .n = n, .items = transitions };
	return state_transact(state, write_transitions, &all, "note what is under way", err);
}

/* ---- reading ---- */

static int read_each(struct state *state, const char *text, int (*take)(sqlite3_stmt *row, void *context),
	void *context, const char *action, struct error *err)
{
	sqlite3 *db = state_database(state);
	sqlite3_stmt *select = NULL;
	int code = sqlite3_prepare_v2(db, text, -1, &select, NULL);
	while (code == SQLITE_OK && (code = sqlite3_step(select)) == SQLITE_ROW)
		code = take(select, context);
	sqlite3_finalize(select);
	return code == SQLITE_DONE ? 0 : sql_error(db, code, err, action, state_path(state));
}

struct service_reader {
	void (*handle)(void *context, const struct known_service *service);
	void *context;
};

static int64_t known_column(sqlite3_stmt *row, int column)
{
	bool is_known = sqlite3_column_type(row, column) == SQLITE_INTEGER;
	return is_known ? sqlite3_column_int64(row, column) : KNOWLEDGE_UNKNOWN;
}

static int take_service(sqlite3_stmt *row, void *context)
{
	const struct service_reader *reader = context;
	const struct known_service service = {
		.name = (const char *)sqlite3_column_text(row, 0),
		.boot_ms = known_column(row, 1),
		.peak_mib = known_column(row, 2),
	};
	if (service.name == NULL)
		return SQLITE_NOMEM;
	reader->handle(reader->context, &service);
	return SQLITE_OK;
}

int knowledge_each_service(struct state *state, void (*handle)(void *context, const struct known_service *service),
	void *context, struct error *err)
{
	struct service_reader reader = { .handle = handle, .context = context };
	return read_each(state, "SELECT name, boot_ms, peak_mib FROM services", take_service, &reader,
		"read what services need", err);
}

static int take_phase(sqlite3_stmt *row, void *context)
{
	*(struct known_phase *)context = (struct known_phase){
		.number = sqlite3_column_int(row, 0),
		.at_wall_ms = sqlite3_column_int64(row, 1),
	};
	return SQLITE_OK;
}

int knowledge_read_phase(struct state *state, struct known_phase *ret_phase, struct error *err)
{
	*ret_phase = (struct known_phase){ 0 };
	return read_each(state, "SELECT number, at_wall_ms FROM phase", take_phase, ret_phase, "read the phase", err);
}

struct transition_reader {
	void (*handle)(void *context, const struct known_transition *transition);
	void *context;
};

static int take_transition(sqlite3_stmt *row, void *context)
{
	const struct transition_reader *reader = context;
	const struct known_transition transition = {
		.what = (const char *)sqlite3_column_text(row, 0),
		.services = (const char *)sqlite3_column_text(row, 1),
	};
	if (transition.what == NULL || transition.services == NULL)
		return SQLITE_NOMEM;
	reader->handle(reader->context, &transition);
	return SQLITE_OK;
}

int knowledge_each_transition(struct state *state,
	void (*handle)(void *context, const struct known_transition *transition), void *context, struct error *err)
{
	struct transition_reader reader = { .handle = handle, .context = context };
	return read_each(state, "SELECT what, services FROM transitions ORDER BY place", take_transition, &reader,
		"read what was under way", err);
}
