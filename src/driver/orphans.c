/* Zombies that nobody asks for. Must not reap what somebody may still be about to wait for. */
#include "driver/orphans.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/proc.h"

static uint64_t seen_since(const struct orphans *orphans, const struct proc_stat *stat, uint64_t now_ms)
{
	for (size_t i = 0; i < orphans->n; i++)
		if (orphans->items[i].pid == stat->pid && orphans->items[i].start_ticks == stat->start_ticks)
			return orphans->items[i].since_ms;
	return now_ms;
}

size_t orphans_look(struct orphans *orphans, uint64_t now_ms)
{
	CLEANUP(pid_list_finish) struct pid_list children = { 0 };
	struct orphans now = { 0 };
	if (proc_list_own_children(&children) < 0)
		return orphans->n;
	for (size_t i = 0; i < children.n && now.n < ORPHANS_MAX; i++) {
		struct proc_stat stat;
		if (proc_read_stat(children.items[i], &stat) < 0 || stat.state != 'Z' || stat.ppid != getpid())
			continue;
		uint64_t since = seen_since(orphans, &stat, now_ms);
		if (now_ms - since >= ORPHANS_AGE_MS && waitpid(stat.pid, NULL, WNOHANG) == stat.pid)
			continue;
		now.items[now.n++] =
			(struct orphan){ .pid = stat.pid, .start_ticks = stat.start_ticks, .since_ms = since };
	}
	*orphans = now;
	return now.n;
}
