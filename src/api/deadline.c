/* Deadlines of connections: queues in order of time. What passing means is the caller's business. */
#include "api/deadline.h"

static const uint64_t lasts_ms[DEADLINE_KINDS] = {
	[DEADLINE_RECEIVE] = 10 * 1000,
	[DEADLINE_IDLE] = 75 * 1000,
	[DEADLINE_SEND] = 60 * 1000,
};

static void handle_timer(uv_timer_t *timer)
{
	struct deadline_queue *queue = timer->data;
	uint64_t now = uv_now(queue->deadlines->loop);
	struct deadline *first;
	while ((first = TAILQ_FIRST(&queue->head)) != NULL && first->due_ms <= now) {
		TAILQ_REMOVE(&queue->head, first, link);
		first->kind = DEADLINE_NONE;
		queue->deadlines->handle_passed(first);
	}
	if (first != NULL)
		uv_timer_start(timer, handle_timer, first->due_ms - now, 0);
}

void deadlines_init(struct deadlines *deadlines, uv_loop_t *loop, void (*handle_passed)(struct deadline *deadline))
{
	deadlines->loop = loop;
	deadlines->handle_passed = handle_passed;
	for (size_t i = 0; i < DEADLINE_KINDS; i++) {
		struct deadline_queue *queue = &deadlines->queues[i];
		queue->deadlines = deadlines;
		TAILQ_INIT(&queue->head);
		uv_timer_init(loop, &queue->timer);
		queue->timer.data = queue;
	}
}

void deadline_set(struct deadlines *deadlines, struct deadline *deadline, enum deadline_kind kind)
{
	if (deadline->kind != DEADLINE_NONE)
		TAILQ_REMOVE(&deadlines->queues[deadline->kind].head, deadline, link);
	deadline->kind = kind;
	if (kind == DEADLINE_NONE)
		return;
	struct deadline_queue *queue = &deadlines->queues[kind];
	deadline->due_ms = uv_now(deadlines->loop) + lasts_ms[kind];
	TAILQ_INSERT_TAIL(&queue->head, deadline, link);
	if (!uv_is_active((uv_handle_t *)&queue->timer))
		uv_timer_start(&queue->timer, handle_timer, lasts_ms[kind], 0);
}
