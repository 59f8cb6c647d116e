/* State files for the targets that open them: a folder of their own, and what must be true of what was opened. */
#pragma once

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

/* "FOLDER/state.db", in a folder that is empty each time. */
const char *state_files_begin(void);
#define STATE_FILES_FENCE 5000
/* A database without leases, whose next fence is that and whose journal is of generation 1, and before of 2. */
sqlite3 *state_files_open_new(void);
void state_files_write(const char *suffix, const void *bytes, size_t size);
/*
 * Opens the file as the daemon does, reads all leases, changes some, and opens it again. Ends the run when a lease is
 * out of its range, when a fence could be given twice, or when what was written is lost.
 */
void state_files_check(void);
