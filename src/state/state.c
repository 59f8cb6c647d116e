/*
 * The store: leases and fences. What is put or forgotten is written into the journal, and the kernel has it when the
 * call returns. With the next block of fences, or when the journal has filled, all of that goes into the database in
 * one transaction, which has reached the disk when it returns; then the journal begins anew. Decides nothing about
 * leases.
 */
#include "state/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "state/checkpoint.h"
#include "state/journal.h"
#include "state/layout.h"
#include "state/overlay.h"
#include "state/place.h"
#include "state/record.h"
#include "state/sql.h"
#include "state/sync.h"
#include "state/tables.h"
#include "state/transact.h"

#define JOURNAL_WANTED (JOURNAL_SIZE / 2) /* the next good moment is taken */
#define JOURNAL_MOST (JOURNAL_SIZE / 4 * 3) /* the next turn of the loop is taken, good or not */
#define QUIET_MS 20 /* without a change: nobody waits */
#define RETRY_MS 500
#define SYNC_MS 5000 /* what a power failure may take with it */

/* How much of what was done is written nowhere. Each is told once. */
enum trouble {
	TROUBLE_NONE,
	TROUBLE_DATABASE, /* nothing yet: the journal still has room */
	TROUBLE_BOTH, /* leases that have ended */
};

struct state {
	sqlite3 *db;
	struct tables *tables;
	struct journal *journal;
	uint64_t generation; /* of the journal's records */
	struct overlay overlay; /* what they add up to */
	int journal_code; /* why it could not be read, for the message */
	uint64_t last_in_database; /* no fence above it was ever written there */
	struct checkpointer *checkpointer;
	struct syncer *syncer;
	uv_timer_t *timer; /* moves the journal into the database; freed when it is closed */
	enum trouble trouble;
	int why_code;
	struct error why;
	uint64_t next_fence;
	bool is_lax; /* commits do not wait for the disk, and should */
	int lock_fd;
	char *path;
	struct row_buffer names, record; /* for one call each */
};

/* What a transaction writes besides the journal. */
struct change {
	const struct row *put; /* NULL: none */
	uint64_t next_fence; /* 0: as it was */
};

static int handle_commit(void *context, sqlite3 *db, const char *name, int log_pages)
{
	(void)db;
	(void)name;
	struct state *state = context;
	checkpointer_note(state->checkpointer, log_pages);
	return SQLITE_OK;
}

/* ---- trouble, and that it is over ---- */

static const char *const consequences[] = {
	[TROUBLE_DATABASE] = "leases are kept in its journal until that is full",
	[TROUBLE_BOTH] = "until then a restart would bring back leases that have ended",
};

static void handle_timer(uv_timer_t *timer);

static void note_trouble(struct state *state, enum trouble trouble, int code, const struct error *why)
{
	if (trouble > state->trouble) {
		log_warning("%s; %s", why->message, consequences[trouble]);
		state->trouble = trouble;
	}
	state->why_code = code;
	state->why = *why;
	if (!uv_is_active((uv_handle_t *)state->timer))
		uv_timer_start(state->timer, handle_timer, RETRY_MS, 0);
}

static void note_success(struct state *state)
{
	if (state->trouble != TROUBLE_NONE)
		log_info("state: %s can be written again", state->path);
	state->trouble = TROUBLE_NONE;
}

/* ---- from the journal into the database ---- */

static int read_row(struct state *state, const struct overlay_entry *entry, struct row *ret_row)
{
	if (row_buffer_grow(&state->record, entry->size) < 0)
		return SQLITE_NOMEM;
	int r = journal_read(state->journal, entry->place, state->record.text, entry->size);
	if (r == 0 && !record_decode(state->record.text, entry->size, ret_row))
		r = -EBADMSG;
	state->journal_code = r;
	return r == 0 ? SQLITE_OK : SQLITE_IOERR;
}

static int set_error(struct state *state, int code, struct error *err, const char *action)
{
	int r = state->journal_code;
	state->journal_code = 0;
	if (r == 0)
		return sql_error(state->db, code, err, action, state->path);
	return error_set(err, r,
		"state: cannot %s in %s: its journal cannot be read: %s; look after the disk that it lies on (errors "
		"in the "
		"kernel's log)",
		action, state->path, strerror(-r));
}

static int write_entry(struct state *state, const struct overlay_entry *entry)
{
	struct row row;
	if (entry->is_gone)
		return tables_forget(state->tables, entry->fence);
	int code = read_row(state, entry, &row);
	return code == SQLITE_OK ? tables_put(state->tables, &row) : code;
}

/* Whether a commit waits for the disk; only between transactions. */
static int set_lax(struct state *state, bool is_lax)
{
	if (state->is_lax == is_lax)
		return SQLITE_OK;
	int code = sql_run(state->db, is_lax ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL");
	if (code == SQLITE_OK)
		state->is_lax = is_lax;
	return code;
}

static int write_changes(struct state *state, const struct change *change, uint64_t generation, size_t *ret_n_leases)
{
	const struct generations generations = {
		.now = generation,
		.before = state->generation,
		.taken = journal_used(state->journal),
	};
	int code = tables_roll_back(state->tables);
	if (code == SQLITE_OK)
		code = set_lax(state, false);
	if (code == SQLITE_OK)
		code = tables_begin(state->tables);
	for (size_t i = 0; code == SQLITE_OK && i < state->overlay.n; i++)
		code = write_entry(state, &state->overlay.entries[i]);
	if (code == SQLITE_OK && change->put != NULL)
		code = tables_put(state->tables, change->put);
	if (code == SQLITE_OK && change->next_fence != 0)
		code = tables_set_next_fence(state->tables, change->next_fence);
	if (code == SQLITE_OK)
		code = tables_set_generations(state->tables, &generations);
	if (code == SQLITE_OK)
		code = tables_count(state->tables, ret_n_leases);
	return code == SQLITE_OK ? tables_commit(state->tables) : code;
}

static void raise_last(struct state *state, uint64_t fence)
{
	if (fence > state->last_in_database)
		state->last_in_database = fence;
}

static void begin_journal(struct state *state, uint64_t generation, size_t n_leases)
{
	if (state->overlay.n > 0)
		raise_last(state, state->overlay.entries[state->overlay.n - 1].fence);
	overlay_clear(&state->overlay, n_leases);
	journal_begin(state->journal, generation);
	state->generation = generation;
	uv_timer_stop(state->timer);
}

int state_transact(struct state *state, int (*write)(sqlite3 *db, const void *context), const void *context,
	const char *action, struct error *err)
{
	int code = tables_roll_back(state->tables);
	if (code == SQLITE_OK)
		code = set_lax(state, true);
	if (code == SQLITE_OK)
		code = tables_begin(state->tables);
	if (code == SQLITE_OK)
		code = write(state->db, context);
	if (code == SQLITE_OK)
		code = tables_commit(state->tables);
	int r = code == SQLITE_OK ? 0 : sql_error(state->db, code, err, action, state->path);
	tables_roll_back(state->tables);
	set_lax(state, false); /* else before the next commit that has to wait */
	return r;
}

sqlite3 *state_database(const struct state *state)
{
	return state->db;
}

const char *state_path(const struct state *state)
{
	return state->path;
}

/*
 * All of it or nothing. When it fails the log may hold it nevertheless, and be believed by the next process: that one
 * finds our generation as the one before, and takes only what we write after this.
 */
static int write_database(struct state *state, const struct change *change, const char *action, struct error *err)
{
	uint64_t generation;
	size_t n_leases = 0;
	while (getrandom(&generation, sizeof(generation), 0) != (ssize_t)sizeof(generation))
		;
	int code = write_changes(state, change, generation, &n_leases);
	if (code != SQLITE_OK) {
		int r = set_error(state, code, err, action);
		tables_roll_back(state->tables);
		return r;
	}
	begin_journal(state, generation, n_leases);
	if (change->put != NULL)
		raise_last(state, change->put->lease.fence);
	note_success(state);
	return 0;
}

static int empty_journal(struct state *state, enum trouble trouble)
{
	struct error error = { "" };
	const struct change nothing = { 0 };
	int r = write_database(state, &nothing, "keep leases", &error);
	if (r < 0)
		note_trouble(state, trouble, r, &error);
	return r;
}

static int empty_journal_again(struct state *state)
{
	return empty_journal(state, state->trouble > TROUBLE_DATABASE ? state->trouble : TROUBLE_DATABASE);
}

static void handle_timer(uv_timer_t *timer)
{
	empty_journal_again(timer->data);
}

static int handle_lost(void *context)
{
	return empty_journal_again(context);
}

/* After each record. */
static void note_record(struct state *state)
{
	size_t used = journal_used(state->journal);
	syncer_note(state->syncer);
	if (used >= JOURNAL_WANTED && state->trouble == TROUBLE_NONE)
		uv_timer_start(state->timer, handle_timer, used < JOURNAL_MOST ? QUIET_MS : 0, 0);
}

/* ---- opening and closing ---- */

static void close_database(struct state *state)
{
	state->tables = tables_destroy(state->tables);
	sql_close(&state->db);
}

static void handle_timer_closed(uv_handle_t *handle)
{
	free(handle);
}

struct state *state_close(struct state *state)
{
	if (state == NULL)
		return NULL;
	if (state->timer != NULL && (state->overlay.n > 0 || state->trouble != TROUBLE_NONE))
		empty_journal(state, TROUBLE_DATABASE);
	if (state->timer != NULL)
		uv_close((uv_handle_t *)state->timer, handle_timer_closed);
	checkpointer_destroy(state->checkpointer);
	syncer_destroy(state->syncer);
	close_database(state);
	journal_close(state->journal);
	overlay_finish(&state->overlay);
	if (state->lock_fd >= 0)
		close(state->lock_fd);
	row_buffer_finish(&state->names);
	row_buffer_finish(&state->record);
	free(state->path);
	free(state);
	return NULL;
}

static void close_half_open(struct state **state)
{
	*state = state_close(*state);
}

static int open_database(struct state *state, uint64_t fence_floor, struct error *err)
{
	int r = sql_open(state->path, &state->db, err);
	if (r == 0)
		r = layout_prepare(state->db, state->path, &layout_today, fence_floor + 1, &state->next_fence, err);
	if (r == 0)
		r = tables_prepare(state->db, state->path, &state->tables, err);
	if (r < 0)
		close_database(state);
	return r;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Opens what is there; moves it aside and begins anew when that cannot be used. */
static int open_or_begin_anew(
	struct state *state, uint64_t fence_floor, uint64_t noted_fence, char **ret_moved, struct error *err)
{
	bool is_lost = false;
	uint64_t floor = noted_fence == 0 ? fence_floor : larger(fence_floor, noted_fence - 1);
	int r = place_prepare(state->path, noted_fence > 0, &is_lost, err);
	if (r < 0)
		return r;
	r = is_lost ? -EBADMSG : open_database(state, floor, err);
	if (r != -EBADMSG)
		return r;
	uint64_t salvaged = is_lost ? 0 : layout_salvage_fence(state->path);
	if (salvaged > 0)
		floor = larger(floor, salvaged - 1);
	r = place_move_aside(state->path, ret_moved, err);
	if (r == 0)
		r = place_prepare(state->path, false, &is_lost, err);
	return r < 0 ? r : open_database(state, floor, err);
}

/* A record that makes no sense is where the journal ends. */
static int take_record(void *context, const struct journal_record *record)
{
	struct state *state = context;
	struct row row;
	bool may_be_in_database = record->fence <= state->last_in_database;
	if (overlay_reserve(&state->overlay) < 0)
		return -ENOMEM;
	if (record->kind == JOURNAL_FORGET) {
		overlay_forget(&state->overlay, record->fence, may_be_in_database);
		return 0;
	}
	if (record->kind != JOURNAL_PUT || !record_decode(record->content, record->size, &row) ||
		row.lease.fence != record->fence)
		return 1;
	overlay_put(&state->overlay, record->fence, may_be_in_database, record->place, record->size);
	return 0;
}

/* Records of the generation before are there when a transaction failed and the database has it all the same. */
static int read_journal(struct state *state, struct error *err)
{
	struct generations generations;
	int code = tables_get_last_fence(state->tables, &state->last_in_database);
	if (code == SQLITE_OK)
		code = tables_count(state->tables, &state->overlay.n_in_database);
	if (code == SQLITE_OK)
		code = tables_get_generations(state->tables, &generations);
	if (code != SQLITE_OK)
		return sql_error(state->db, code, err, "read the tables", state->path);
	if (overlay_reserve(&state->overlay) < 0)
		return -ENOMEM;
	int64_t n = journal_replay(state->journal, generations.before, generations.taken, take_record, state, err);
	state->generation = generations.before;
	if (n != 0)
		return n < 0 ? (int)n : 0;
	n = journal_replay(state->journal, generations.now, 0, take_record, state, err);
	state->generation = generations.now;
	return n < 0 ? (int)n : 0;
}

/* As layout_prepare() does with those of the tables. */
static void skip_fences_of_journal(struct state *state)
{
	for (size_t i = 0; i < state->overlay.n; i++)
		if (!state->overlay.entries[i].is_gone)
			state->next_fence = larger(state->next_fence, state->overlay.entries[i].fence + 1);
}

static int create_timer(struct state *state, uv_loop_t *loop)
{
	state->timer = calloc(1, sizeof(*state->timer));
	if (state->timer == NULL)
		return -ENOMEM;
	uv_timer_init(loop, state->timer);
	uv_unref((uv_handle_t *)state->timer);
	state->timer->data = state;
	return 0;
}

static int open_journal(struct state *state, uv_loop_t *loop, struct error *err)
{
	int r = journal_open(state->path, &state->journal, err);
	if (r == 0)
		r = read_journal(state, err);
	int fd = r == 0 ? journal_descriptor(state->journal) : r;
	if (fd < 0)
		return fd;
	const struct syncer_rescue rescue = { .context = state, .handle_lost = handle_lost };
	return syncer_create(loop, fd, state->path, SYNC_MS, &rescue, &state->syncer);
}

static int set_up(struct state *state, uv_loop_t *loop, uint64_t fence_floor, char **ret_moved, struct error *err)
{
	uint64_t noted = 0;
	int r = place_lock(state->path, &state->lock_fd, &noted, err);
	if (r == 0)
		r = open_or_begin_anew(state, fence_floor, noted, ret_moved, err);
	if (r < 0)
		return r;
	state->next_fence = larger(state->next_fence, noted);
	place_remove_shared_memory(state->path);
	r = open_journal(state, loop, err);
	if (r == 0)
		skip_fences_of_journal(state);
	if (r == 0)
		r = checkpointer_create(loop, state->db, state->path, &state->checkpointer);
	if (r == 0)
		r = create_timer(state, loop);
	if (r == 0)
		sqlite3_wal_hook(state->db, handle_commit, state);
	return r;
}

int state_open(uv_loop_t *loop, const char *path, uint64_t fence_floor, struct state **ret_state, char **ret_moved,
	struct error *err)
{
	CLEANUP(close_half_open) struct state *state = calloc(1, sizeof(*state));
	CLEANUP_FREE char *moved = NULL;
	if (state == NULL)
		return error_set(err, -ENOMEM, "state: there is no memory");
	error_set(err, 0, "state: cannot open %s: there is no memory", path);
	state->lock_fd = -1;
	state->path = strdup(path);
	if (state->path == NULL)
		return -ENOMEM;
	if (fence_floor >= FENCE_BELIEVED_MAX)
		return error_set(err, -ERANGE, "state: fences cannot begin above %llu; is the clock right?",
			(unsigned long long)fence_floor);
	int r = set_up(state, loop, fence_floor, &moved, err);
	if (r < 0)
		return r;
	if (ret_moved != NULL)
		*ret_moved = TAKE_PTR(moved);
	*ret_state = TAKE_PTR(state);
	return 0;
}

/* ---- fences ---- */

int state_reserve_fences(struct state *state, uint64_t count, uint64_t *ret_first, struct error *err)
{
	if (count == 0 || state->next_fence > FENCE_END || count > FENCE_END - state->next_fence)
		return error_set(err, count == 0 ? -EINVAL : -EOVERFLOW,
			"state: %s has no fences left; move it away and restart gpumgrd with its clock set right",
			state->path);
	const struct change change = { .next_fence = state->next_fence + count };
	int r = write_database(state, &change, "reserve fences", err);
	if (r < 0)
		return r;
	*ret_first = state->next_fence;
	state->next_fence = change.next_fence;
	place_note_fence(state->lock_fd, state->next_fence);
	return 0;
}

uint64_t state_next_fence(const struct state *state)
{
	return state->next_fence;
}

/* ---- leases ---- */

static bool may_be_in_database(const struct state *state, uint64_t fence)
{
	return fence <= state->last_in_database;
}

/* 0, or a negative errno: then it is to be written into the database. */
static int put_into_journal(struct state *state, const struct row *row)
{
	char bytes[JOURNAL_RECORD_MAX];
	size_t place, size = record_encode(row, bytes, sizeof(bytes));
	if (size == 0)
		return -EFBIG;
	int r = journal_append(state->journal, JOURNAL_PUT, row->lease.fence, bytes, size, &place);
	if (r < 0)
		return r;
	overlay_put(&state->overlay, row->lease.fence, may_be_in_database(state, row->lease.fence), place, size);
	note_record(state);
	return 0;
}

int state_put_lease(struct state *state, const struct state_lease *lease, struct error *err)
{
	struct row row;
	int r = row_make(&state->names, lease, state->path, &row, err);
	if (r < 0)
		return r;
	if (overlay_reserve(&state->overlay) < 0)
		return error_set(err, -ENOMEM, "state: cannot keep lease %llu in %s: there is no memory",
			(unsigned long long)lease->fence, state->path);
	if (put_into_journal(state, &row) == 0)
		return 0;
	const struct change change = { .put = &row };
	return write_database(state, &change, "keep a lease", err);
}

/* Whoever forgets has long been told that it is done, so what fails is also told in the log. */
static void forget_noted(struct state *state, uint64_t fence)
{
	if (journal_append(state->journal, JOURNAL_FORGET, fence, NULL, 0, NULL) == 0)
		note_record(state);
	else if (state->trouble == TROUBLE_BOTH)
		; /* a disk that fails is not asked at every end of a lease; the timer tries again */
	else
		empty_journal(state, TROUBLE_BOTH);
}

int state_forget_lease(struct state *state, uint64_t fence, struct error *err)
{
	bool is_noted = overlay_find(&state->overlay, fence) != NULL;
	if (!is_noted && (!may_be_in_database(state, fence) || overlay_reserve_end(&state->overlay) < 0))
		return 0; /* nothing knows of it */
	overlay_forget(&state->overlay, fence, may_be_in_database(state, fence));
	forget_noted(state, fence);
	return state->trouble == TROUBLE_BOTH ? error_set(err, state->why_code, "%s", state->why.message) : 0;
}

/* ---- reading ---- */

struct walk {
	struct state *state;
	size_t next; /* entry of the overlay */
	void (*handle)(void *context, const struct state_lease *lease);
	void *context;
};

static int hand_out(struct walk *walk, const struct row *row)
{
	return row_hand_out(&walk->state->names, row, walk->handle, walk->context) < 0 ? SQLITE_NOMEM : SQLITE_OK;
}

/* Entries with fences below `limit`. */
static int hand_out_entries(struct walk *walk, uint64_t limit)
{
	const struct overlay *overlay = &walk->state->overlay;
	int code = SQLITE_OK;
	for (; code == SQLITE_OK && walk->next < overlay->n && overlay->entries[walk->next].fence < limit;
		walk->next++) {
		const struct overlay_entry *entry = &overlay->entries[walk->next];
		struct row row;
		if (entry->is_gone)
			continue;
		code = read_row(walk->state, entry, &row);
		if (code == SQLITE_OK)
			code = hand_out(walk, &row);
	}
	return code;
}

static int walk_all(struct walk *walk)
{
	struct state *state = walk->state;
	struct row row;
	int code;
	while ((code = tables_next(state->tables, &row)) == SQLITE_ROW) {
		code = hand_out_entries(walk, row.lease.fence);
		if (code == SQLITE_OK && overlay_find(&state->overlay, row.lease.fence) == NULL)
			code = hand_out(walk, &row);
		if (code != SQLITE_OK)
			return code;
	}
	return code == SQLITE_DONE ? hand_out_entries(walk, UINT64_MAX) : code;
}

int state_each_lease(struct state *state, void (*handle)(void *context, const struct state_lease *lease), void *context,
	struct error *err)
{
	struct walk walk = { .state = state, .handle = handle, .context = context };
	int code = walk_all(&walk);
	tables_rewind(state->tables);
	return code == SQLITE_OK ? 0 : set_error(state, code, err, "read the leases");
}
