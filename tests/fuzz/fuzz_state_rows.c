/*
 * A sound database with rows that nobody wrote: any value in any column, whatever the tables forbid. Input: how many
 * rows, the next fence, then for each column a kind and a value.
 */
#include <sqlite3.h>

#include "fuzz.h"
#include "state_files.h"

#define COLUMNS 16
#define ROWS_MAX 4

static void run(sqlite3 *db, const char *text)
{
	FUZZ_CHECK(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK);
}

/* What is right in this column, or what the input says. */
static void bind(sqlite3_stmt *row, int column, struct fuzz_input *input)
{
	static const char *const texts[COLUMNS + 1] = {
		[2] = "exclusive", [3] = "comfyui vidi", [12] = "me", [13] = "r", [14] = "0123"
	};
	uint8_t kind = fuzz_u8(input);
	uint8_t n = kind >> 3;
	double real;
	switch (kind & 7) {
	case 0:
		if (texts[column] != NULL)
			sqlite3_bind_text(row, column, texts[column], -1, SQLITE_STATIC);
		else
			sqlite3_bind_int(row, column, n % 2);
		break;
	case 1:
		sqlite3_bind_int64(row, column, (sqlite3_int64)fuzz_u64(input));
		break;
	case 2:
		sqlite3_bind_int64(row, column, (int16_t)fuzz_u16(input));
		break;
	case 3:
		sqlite3_bind_null(row, column);
		break;
	case 4:
		fuzz_take(input, &real, sizeof(real));
		sqlite3_bind_double(row, column, real);
		break;
	case 5:
		n = n < fuzz_left(input) ? n : (uint8_t)fuzz_left(input);
		sqlite3_bind_blob(row, column, input->at, n, SQLITE_TRANSIENT);
		input->at += n;
		break;
	default:
		n = n < fuzz_left(input) ? n : (uint8_t)fuzz_left(input);
		sqlite3_bind_text(row, column, (const char *)input->at, n, SQLITE_TRANSIENT);
		input->at += n;
	}
}

static void insert_rows(sqlite3 *db, struct fuzz_input *input, unsigned n)
{
	static const char text[] = "INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
	sqlite3_stmt *row = NULL;
	FUZZ_CHECK(sqlite3_prepare_v2(db, text, -1, &row, NULL) == SQLITE_OK);
	for (unsigned i = 0; i < n; i++) {
		for (int column = 1; column <= COLUMNS; column++)
			bind(row, column, input);
		sqlite3_step(row); /* what not even SQLite takes is left out */
		sqlite3_reset(row);
	}
	sqlite3_finalize(row);
}

static void set_fence(sqlite3 *db, struct fuzz_input *input)
{
	sqlite3_stmt *update = NULL;
	FUZZ_CHECK(sqlite3_prepare_v2(db, "UPDATE fences SET next = ?1", -1, &update, NULL) == SQLITE_OK);
	bind(update, 1, input);
	sqlite3_step(update);
	sqlite3_finalize(update);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t options = fuzz_u8(&input);
	state_files_begin();
	sqlite3 *db = state_files_open_new();
	if (options & 0x80)
		run(db, "PRAGMA ignore_check_constraints = ON");
	if (options & 0x40)
		set_fence(db, &input);
	insert_rows(db, &input, options % (ROWS_MAX + 1));
	sqlite3_close(db);
	state_files_check();
	return 0;
}
