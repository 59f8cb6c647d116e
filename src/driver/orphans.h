/*
 * Zombies that fell to the daemon and that nobody asks for. The daemon is the subreaper of all services, so it gets
 * descendants of theirs (and of commands that other rooms run) of which nothing tells any more whose they were.
 * Whoever in the daemon starts a process waits for it at once; so a zombie that is still there long after is nobody's.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ORPHANS_AGE_MS 9000

struct orphan {
	pid_t pid;
	uint64_t start_ticks, since_ms;
};

/* Zeroed at first. */
struct orphans {
	size_t n;
	struct orphan *items; /* in the order of the kernel's list of children */
};

void orphans_finish(struct orphans *orphans);

/* Reaps, by PID, the children that were zombies already ORPHANS_AGE_MS ago. How many zombies remain. */
size_t orphans_look(struct orphans *orphans, uint64_t now_ms);
