/*
 * Transactions over tables that are not those of the leases. Only for this room.
 */
#pragma once

#include <sqlite3.h>

#include "state/state.h"

/*
 * All that `write` does, or nothing; it answers with a result code of SQLite. It survives a killed process when this
 * has returned, but waits for no disk: a power failure may take it along, and leases never with it.
 */
int state_transact(struct state *state, int (*write)(sqlite3 *db, const void *context), const void *context,
	const char *action, struct error *err);
/* For reading. */
sqlite3 *state_database(const struct state *state);
const char *state_path(const struct state *state);
