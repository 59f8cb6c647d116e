/* Zombies that nobody asks for. Must not reap what somebody may still be about to wait for. */
#include "driver/orphans.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/proc.h"

void orphans_finish(struct orphans *orphans)
{
	free(orphans->items);
	*orphans = (struct orphans){ 0 };
}

/* `*at` is where the search goes on: the order of the children stays the same, so it mostly is the next one. */
static uint64_t seen_since(const struct orphans *orphans, const struct proc_stat *stat, size_t *at, uint64_t now_ms)
{
	for (size_t i = 0; i < orphans->n; i++) {
		const struct orphan *orphan = &orphans->items[(*at + i) % orphans->n];
		if (orphan->pid != stat->pid || orphan->start_ticks != stat->start_ticks)
			continue;
		*at = (*at + i + 1) % orphans->n;
		return orphan->since_ms;
	}
	return now_ms;
}

size_t orphans_look(struct orphans *orphans, uint64_t now_ms)
{
	CLEANUP(pid_list_finish) struct pid_list children = { 0 };
	struct orphans now = { 0 };
	if (proc_list_own_children(&children) < 0)
		return orphans->n;
	now.items = calloc(children.n + 1, sizeof(*now.items));
	if (now.items == NULL)
		return orphans->n;
	for (size_t i = 0, at = 0; i < children.n; i++) {
		struct proc_stat stat;
		if (proc_read_stat(children.items[i], &stat) < 0 || stat.state != 'Z' || stat.ppid != getpid())
			continue;
		uint64_t since = seen_since(orphans, &stat, &at, now_ms);
		if (now_ms - since >= ORPHANS_AGE_MS && waitpid(stat.pid, NULL, WNOHANG) == stat.pid)
			continue;
		now.items[now.n++] =
			(struct orphan){ .pid = stat.pid, .start_ticks = stat.start_ticks, .since_ms = since };
	}
	orphans_finish(orphans);
	*orphans = now;
	return now.n;
}
