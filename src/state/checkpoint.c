/* When the log is moved into the database. Never from inside a write of the store. */
#include "state/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "state/sql.h"

#define PAGES_WANTED 4096 /* of 1 KiB: the next good moment is taken */
#define PAGES_MAX 16384 /* the next turn of the loop is taken, good or not */
#define QUIET_MS 20 /* without a write: nobody waits */
#define RETRY_MS 5000

struct checkpointer {
	uv_timer_t timer;
	sqlite3 *db;
	char *path;
	unsigned n_failed; /* in a row */
};

/* Nobody called for it, so nobody else can tell; once, not at each try. */
static void tell(struct checkpointer *self, int code)
{
	struct error error;
	if (code == SQLITE_OK) {
		if (self->n_failed > 0)
			log_info("state: writing %s works again", self->path);
		self->n_failed = 0;
		return;
	}
	sql_error(self->db, code, &error, "move the log into the database", self->path);
	if (self->n_failed++ == 0)
		log_warning("%s; leases are kept in its log meanwhile, which grows", error.message);
}

/* Nobody else reads or writes, so passive means all of it. */
static int move_all(struct checkpointer *self)
{
	int pages_in_log = 0, pages_done = 0;
	int code = sqlite3_wal_checkpoint_v2(self->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages_in_log, &pages_done);
	if (code == SQLITE_OK && pages_done < pages_in_log)
		code = SQLITE_BUSY;
	return code;
}

static void handle_timer(uv_timer_t *timer)
{
	struct checkpointer *self = timer->data;
	int code = move_all(self);
	/* Whoever writes first after it waits for the disk: so that is done here, too. */
	if (code == SQLITE_OK)
		code = sql_run(self->db, "UPDATE fences SET begun = begun + 1");
	tell(self, code);
	if (code != SQLITE_OK)
		uv_timer_start(timer, handle_timer, RETRY_MS, 0);
}

void checkpointer_note(struct checkpointer *self, int log_pages)
{
	if (log_pages < PAGES_WANTED)
		return;
	/* After a failure each try waits for the timer: a disk that fails is not asked at every write. */
	if (self->n_failed > 0 && uv_is_active((uv_handle_t *)&self->timer))
		return;
	uv_timer_start(&self->timer, handle_timer, log_pages < PAGES_MAX ? QUIET_MS : 0, 0);
}

int checkpointer_create(uv_loop_t *loop, sqlite3 *db, const char *path, struct checkpointer **ret_self)
{
	CLEANUP_FREE struct checkpointer *self = calloc(1, sizeof(*self));
	CLEANUP_FREE char *copy = strdup(path);
	if (self == NULL || copy == NULL)
		return -ENOMEM;
	uv_timer_init(loop, &self->timer);
	uv_unref((uv_handle_t *)&self->timer);
	self->timer.data = self;
	self->db = db;
	self->path = TAKE_PTR(copy);
	*ret_self = TAKE_PTR(self);
	return 0;
}

static void handle_closed(uv_handle_t *handle)
{
	struct checkpointer *self = handle->data;
	free(self->path);
	free(self);
}

struct checkpointer *checkpointer_destroy(struct checkpointer *self)
{
	if (self == NULL)
		return NULL;
	uv_close((uv_handle_t *)&self->timer, handle_closed);
	return NULL;
}
