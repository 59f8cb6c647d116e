/* fdatasync() of the journal, elsewhere than on the loop's thread. */
#include "state/sync.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define WRITES_MAX 4096 /* so many are not let wait: the disk would have them all to write at once */

struct syncer {
	uv_timer_t timer;
	uv_work_t work;
	uv_sem_t ended; /* posted by each run */
	uint64_t delay_ms;
	int fd;
	char *path;
	bool is_running, is_closing, is_timer_closed;
	unsigned n_writes; /* since the last run began */
	bool has_failed; /* as the log has it */
	bool is_lost; /* what was written before may be */
	struct syncer_rescue rescue;
	int result; /* the run's own; the loop may read it when it has ended */
};

static void release(struct syncer *self)
{
	if (self->is_running || !self->is_timer_closed)
		return;
	uv_sem_destroy(&self->ended);
	free(self->path);
	free(self);
}

/* In the thread pool. */
static void handle_work(uv_work_t *work)
{
	struct syncer *self = work->data;
	do
		self->result = fdatasync(self->fd) < 0 ? -errno : 0;
	while (self->result == -EINTR);
	uv_sem_post(&self->ended);
}

/* Nobody called for it, so nobody else can tell; once, not at each try. */
static void tell(struct syncer *self)
{
	bool is_well = self->result == 0 && !self->is_lost;
	if (is_well && self->has_failed)
		log_info("state: the journal of %s reaches the disk again", self->path);
	if (self->result < 0 && !self->has_failed)
		log_warning("state: the journal of %s does not reach the disk: %s; leases may be lost when the power "
			    "fails: "
			    "look after the disk that it lies on (errors in the kernel's log)",
			self->path, strerror(-self->result));
	self->has_failed = !is_well;
}

static void rescue(struct syncer *self)
{
	self->is_lost = self->is_lost || self->result < 0;
	if (self->is_lost && self->rescue.handle_lost(self->rescue.context) == 0)
		self->is_lost = false;
}

static void start_timer(struct syncer *self, uint64_t delay_ms);

static void handle_worked(uv_work_t *work, int status)
{
	struct syncer *self = work->data;
	self->is_running = false;
	if (self->is_closing) {
		release(self);
		return;
	}
	if (status < 0)
		return;
	uv_sem_wait(&self->ended);
	rescue(self);
	tell(self);
	if (self->n_writes > 0 || self->has_failed)
		start_timer(self, self->delay_ms);
}

static void handle_timer(uv_timer_t *timer)
{
	struct syncer *self = timer->data;
	self->n_writes = 0;
	self->is_running = uv_queue_work(timer->loop, &self->work, handle_work, handle_worked) == 0;
}

static void start_timer(struct syncer *self, uint64_t delay_ms)
{
	uv_timer_start(&self->timer, handle_timer, delay_ms, 0);
}

void syncer_note(struct syncer *self)
{
	self->n_writes++;
	if (self->is_running)
		return;
	if (!uv_is_active((uv_handle_t *)&self->timer))
		start_timer(self, self->delay_ms);
	else if (self->n_writes == WRITES_MAX && !self->has_failed)
		start_timer(self, 0);
}

int syncer_create(uv_loop_t *loop, int fd, const char *path, uint64_t delay_ms, const struct syncer_rescue *rescue,
	struct syncer **ret_self)
{
	CLEANUP_CLOSE int own = fd;
	CLEANUP_FREE struct syncer *self = calloc(1, sizeof(*self));
	CLEANUP_FREE char *copy = strdup(path);
	if (self == NULL || copy == NULL)
		return -ENOMEM;
	int r = uv_sem_init(&self->ended, 0);
	if (r < 0)
		return r;
	uv_timer_init(loop, &self->timer);
	uv_unref((uv_handle_t *)&self->timer);
	self->timer.data = self->work.data = self;
	self->delay_ms = delay_ms;
	self->rescue = *rescue;
	self->fd = TAKE_FD(own);
	self->path = TAKE_PTR(copy);
	*ret_self = TAKE_PTR(self);
	return 0;
}

static void handle_timer_closed(uv_handle_t *handle)
{
	struct syncer *self = handle->data;
	self->is_timer_closed = true;
	release(self);
}

struct syncer *syncer_destroy(struct syncer *self)
{
	if (self == NULL)
		return NULL;
	self->is_closing = true;
	if (self->is_running && uv_cancel((uv_req_t *)&self->work) < 0)
		uv_sem_wait(&self->ended);
	close(self->fd);
	uv_close((uv_handle_t *)&self->timer, handle_timer_closed);
	return NULL;
}
