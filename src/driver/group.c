/*
 * The group of a service. Must not signal or reap anything that it has not made sure of belonging to it, and never
 * waits for just any child: the daemon has others.
 */
#include "driver/group.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "driver/fd_watch.h"
#include "driver/proc.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define KILL_PASSES 16
#define ANCESTORS_MAX 64
#define AGAIN_MS 200 /* between looks while nobody can tell who is left */

struct member {
	struct group *group;
	struct member *next;
	pid_t pid;
	uint64_t start_ticks;
	struct fd_watch *watch; /* its pidfd */
	bool added; /* somebody wants to know of its end */
	bool ended;
	bool reaped;
};

struct group {
	uv_loop_t *loop;
	uv_timer_t *later; /* one look around for all who ended in the same turn of the loop */
	struct cgroup *cgroup;
	struct fd_watch *events; /* of the cgroup */
	const char *mark;
	pid_t session;
	struct group_listener listener;
	struct member *members;
	bool is_blind; /* without a cgroup: the last look may have missed somebody */
	bool killing;
};

const char *exit_status_text(struct exit_status status, char *buffer, size_t size)
{
	const char *name = status.kind == EXIT_SIGNAL ? sigabbrev_np(status.value) : NULL;
	if (status.kind == EXIT_CODE)
		snprintf(buffer, size, "exited with status %d", status.value);
	else if (status.kind == EXIT_SIGNAL)
		snprintf(buffer, size, "killed by signal %d (%s%s)", status.value, name != NULL ? "SIG" : "",
			name != NULL ? name : strsignal(status.value));
	else
		snprintf(buffer, size, "ended (exit status unknown: this gpumgrd did not start it)");
	return buffer;
}

static struct member *find_member(const struct group *group, pid_t pid)
{
	for (struct member *member = group->members; member != NULL; member = member->next)
		if (member->pid == pid && !member->reaped)
			return member;
	return NULL;
}

static bool any_lives(const struct group *group)
{
	for (const struct member *member = group->members; member != NULL; member = member->next)
		if (!member->ended)
			return true;
	return false;
}

/* False: it is (still) somebody else's child. */
static bool reap(struct member *member, struct exit_status *ret_status)
{
	siginfo_t info = { 0 };
	*ret_status = (struct exit_status){ .kind = EXIT_UNKNOWN };
	if (waitid((idtype_t)P_PIDFD, (id_t)fd_watch_fd(member->watch), &info, WEXITED | WNOHANG) < 0 ||
		info.si_pid == 0)
		return false;
	member->reaped = true;
	ret_status->kind = info.si_code == CLD_EXITED ? EXIT_CODE : EXIT_SIGNAL;
	ret_status->value = info.si_status;
	return true;
}

static void drop_member(struct group *group, struct member *member)
{
	struct member **link = &group->members;
	while (*link != member)
		link = &(*link)->next;
	*link = member->next;
	fd_watch_destroy(member->watch);
	free(member);
}

/* Those who ended are kept until their parent has reaped them, or until they fall to us and we do. */
static void forget_ended(struct group *group)
{
	struct member *next;
	for (struct member *member = group->members; member != NULL; member = next) {
		struct exit_status status;
		struct proc_stat stat;
		next = member->next;
		if (!member->ended)
			continue;
		if (member->reaped || reap(member, &status) || proc_read_stat(member->pid, &stat) < 0 ||
			stat.start_ticks != member->start_ticks)
			drop_member(group, member);
	}
}

static void handle_member(void *context);

static int add_member(struct group *group, pid_t pid, int pidfd, bool added)
{
	struct member *member = calloc(1, sizeof(*member));
	struct proc_stat stat = { 0 };
	if (member == NULL) {
		close(pidfd);
		return -ENOMEM;
	}
	int r = proc_read_stat(pid, &stat);
	*member = (struct member){ .group = group, .pid = pid, .start_ticks = stat.start_ticks, .added = added };
	if (r == 0 || r == -ESRCH)
		r = fd_watch_create(group->loop, pidfd, UV_READABLE, handle_member, member, &member->watch);
	else
		close(pidfd);
	if (r < 0) {
		free(member);
		return r;
	}
	member->next = group->members;
	group->members = member;
	if (group->killing)
		process_signal(fd_watch_fd(member->watch), SIGKILL);
	return 1;
}

/* 1: a new member, if the PID still is that of the process that was seen; -ESRCH: it is not. */
static int add_seen(struct group *group, const struct proc_stat *seen)
{
	struct proc_stat stat;
	int pidfd = process_open(seen->pid);
	if (pidfd < 0)
		return pidfd;
	int r = proc_read_stat(seen->pid, &stat);
	if (r < 0 || stat.start_ticks != seen->start_ticks) {
		close(pidfd);
		return r < 0 ? r : -ESRCH;
	}
	return add_member(group, seen->pid, pidfd, false);
}

/* Nobody else waits for a zombie of the service that fell to us, and its PID is its own until we do. */
static void reap_orphan(pid_t pid)
{
	waitpid(pid, NULL, WNOHANG);
}

/* With a cgroup only those matter that have become our children: they are ours to reap. */
static bool adopt_orphans(struct group *group)
{
	CLEANUP(pid_list_finish) struct pid_list children = { 0 };
	bool any_new = false;
	if (proc_list_own_children(&children) < 0)
		return false;
	for (size_t i = 0; i < children.n; i++) {
		struct proc_stat stat;
		if (find_member(group, children.items[i]) != NULL || proc_read_stat(children.items[i], &stat) < 0 ||
			stat.ppid != getpid() || !cgroup_has(group->cgroup, stat.pid))
			continue;
		if (proc_is_alive(&stat))
			any_new |= add_seen(group, &stat) > 0;
		else
			reap_orphan(stat.pid);
	}
	return any_new;
}

static int compare_stats(const void *a, const void *b)
{
	pid_t left = ((const struct proc_stat *)a)->pid, right = ((const struct proc_stat *)b)->pid;
	return (left > right) - (left < right);
}

static const struct proc_stat *find_stat(const struct proc_list *list, pid_t pid)
{
	struct proc_stat key = { .pid = pid };
	return bsearch(&key, list->items, list->n, sizeof(key), compare_stats);
}

/* By what it is itself, whoever its parent may be. */
static bool belongs_itself(const struct group *group, const struct proc_stat *stat)
{
	if (group->session > 0 && stat->session == group->session)
		return true;
	return group->mark != NULL && stat->ppid == getpid() && proc_is_alive(stat) &&
		proc_has_environment(stat->pid, group->mark);
}

/* A zombie that some member has not reaped yet is not ours to care for. */
static bool concerns(const struct proc_stat *stat)
{
	return proc_is_alive(stat) || stat->ppid == getpid();
}

static bool mark_descendants(const struct proc_list *list, bool *in)
{
	bool any = false;
	for (size_t i = 0; i < list->n; i++) {
		const struct proc_stat *parent = in[i] ? NULL : find_stat(list, list->items[i].ppid);
		if (parent == NULL || !in[parent - list->items])
			continue;
		in[i] = true;
		any = true;
	}
	return any;
}

static bool add_marked(struct group *group, const struct proc_list *list, const bool *in)
{
	bool any_new = false, in_session = false;
	for (size_t i = 0; i < list->n; i++) {
		if (!in[i] || !concerns(&list->items[i]))
			continue;
		in_session |= list->items[i].session == group->session;
		if (find_member(group, list->items[i].pid) != NULL)
			continue;
		if (!proc_is_alive(&list->items[i])) {
			reap_orphan(list->items[i].pid);
			continue;
		}
		int r = add_seen(group, &list->items[i]);
		any_new |= r > 0;
		group->is_blind |= r < 0 && r != -ESRCH;
	}
	/* With its last process the number of the session is free for a stranger's. */
	if (!in_session && find_member(group, group->session) == NULL)
		group->session = 0;
	return any_new;
}

/* Without a cgroup everybody is looked for. True: there were new ones. */
static bool scan(struct group *group)
{
	struct proc_list list;
	group->is_blind = true;
	if (proc_list_all(&list) < 0)
		return false;
	CLEANUP_FREE struct proc_stat *items = list.items;
	CLEANUP_FREE bool *in = calloc(list.n + 1, sizeof(*in));
	if (in == NULL || list.n == 0)
		return false;
	group->is_blind = false;
	qsort(list.items, list.n, sizeof(*list.items), compare_stats);
	for (size_t i = 0; i < list.n; i++) {
		const struct member *member = find_member(group, items[i].pid);
		if (items[i].pid == getpid())
			continue;
		in[i] = member != NULL ? member->start_ticks == items[i].start_ticks && !member->ended
				       : belongs_itself(group, &items[i]);
	}
	while (mark_descendants(&list, in))
		continue;
	return add_marked(group, &list, in);
}

static bool look(struct group *group)
{
	forget_ended(group);
	return group->cgroup != NULL ? adopt_orphans(group) : scan(group);
}

/* 1: somebody lives; 0: nobody. Negative: there is no telling now. */
static int is_populated(const struct group *group)
{
	if (any_lives(group))
		return 1;
	if (group->cgroup != NULL)
		return cgroup_read_populated(fd_watch_fd(group->events));
	return group->is_blind ? -EAGAIN : 0;
}

static void handle_later(uv_timer_t *timer);

/* An error is no end: who may still hold a card must not be thought gone. */
static void finish_if_empty(struct group *group)
{
	int populated = is_populated(group);
	if (populated == 0)
		group->listener.handle_empty(group->listener.context);
	else if (populated < 0)
		uv_timer_start(group->later, handle_later, AGAIN_MS, 0);
}

static void look_and_finish(struct group *group)
{
	look(group);
	if (group->killing && group->cgroup != NULL)
		cgroup_kill(group->cgroup);
	finish_if_empty(group);
}

static void handle_later(uv_timer_t *timer)
{
	look_and_finish(timer->data);
}

static void handle_member(void *context)
{
	struct member *member = context;
	struct group *group = member->group;
	struct exit_status status;
	pid_t pid = member->pid;
	fd_watch_stop(member->watch);
	member->ended = true;
	reap(member, &status);
	uv_timer_start(group->later, handle_later, 0, 0);
	if (!member->added)
		return;
	/* Now: its orphans are known best right after its end. `member` may be gone after it. */
	look(group);
	group->listener.handle_ended(group->listener.context, pid, status);
}

static void handle_events(void *context)
{
	struct group *group = context;
	/* Reading it is what arms the next notice. */
	if (cgroup_read_populated(fd_watch_fd(group->events)) > 0)
		return;
	uv_timer_start(group->later, handle_later, 0, 0);
}

static int watch_cgroup(struct group *group)
{
	int fd = cgroup_open_events(group->cgroup);
	if (fd < 0)
		return fd;
	return fd_watch_create(group->loop, fd, UV_PRIORITIZED, handle_events, group, &group->events);
}

int group_create(const struct group_options *options, struct group **ret_group)
{
	struct group *group = calloc(1, sizeof(*group));
	if (group == NULL)
		return -ENOMEM;
	*group = (struct group){
		.loop = options->loop,
		.cgroup = options->cgroup,
		.mark = options->mark,
		.session = options->session,
		.listener = options->listener,
	};
	/* So that orphans of a service come to us, to be counted and reaped. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	group->later = malloc(sizeof(*group->later));
	int r = group->later != NULL ? 0 : -ENOMEM;
	if (r == 0) {
		uv_timer_init(group->loop, group->later); /* cannot fail */
		group->later->data = group;
	}
	if (r == 0 && group->cgroup != NULL)
		r = watch_cgroup(group);
	if (r < 0) {
		group_destroy(group);
		return r;
	}
	*ret_group = group;
	return 0;
}

static void handle_later_closed(uv_handle_t *handle)
{
	free(handle);
}

struct group *group_destroy(struct group *group)
{
	if (group == NULL)
		return NULL;
	if (group->later != NULL)
		uv_close((uv_handle_t *)group->later, handle_later_closed);
	while (group->members != NULL)
		drop_member(group, group->members);
	fd_watch_destroy(group->events);
	free(group);
	return NULL;
}

int group_add(struct group *group, pid_t pid, int pidfd)
{
	struct member *member = find_member(group, pid);
	if (member != NULL) {
		member->added = true;
		close(pidfd);
		return 0;
	}
	int r = add_member(group, pid, pidfd, true);
	return r < 0 ? r : 0;
}

bool group_is_alive(struct group *group)
{
	if (group->cgroup == NULL) {
		scan(group);
		return is_populated(group) != 0;
	}
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	/* Better than `populated`, which lags behind for a process that is on its way out. */
	return cgroup_list(group->cgroup, &list) == 0 ? list.n > 0 : is_populated(group) != 0;
}

static void keep_first(pid_t pid, struct proc_stat *first)
{
	struct proc_stat stat;
	if (proc_read_stat(pid, &stat) == 0 && proc_is_alive(&stat) && (first->pid == 0 || proc_is_older(&stat, first)))
		*first = stat;
}

pid_t group_first(struct group *group)
{
	CLEANUP(pid_list_finish) struct pid_list list = { 0 };
	struct proc_stat first = { 0 };
	if (group->cgroup == NULL)
		scan(group);
	else
		cgroup_list(group->cgroup, &list);
	for (size_t i = 0; i < list.n; i++)
		keep_first(list.items[i], &first);
	for (struct member *member = group->members; member != NULL; member = member->next)
		if (!member->ended)
			keep_first(member->pid, &first);
	return first.pid;
}

static void signal_members(struct group *group, int signal)
{
	for (struct member *member = group->members; member != NULL; member = member->next)
		if (!member->ended)
			process_signal(fd_watch_fd(member->watch), signal);
}

static void signal_all(struct group *group, int signal)
{
	/* Without a descriptor to look into the cgroup, those whom we watch are better than nobody. */
	if (group->cgroup == NULL || cgroup_signal(group->cgroup, signal) < 0)
		signal_members(group, signal);
}

void group_signal(struct group *group, int signal)
{
	look(group);
	signal_all(group, signal);
	if (signal != SIGKILL && signal != SIGSTOP)
		signal_all(group, SIGCONT);
}

/* As with cgroups: when a pass finds nobody new, all who could have been forked meanwhile are marked for death. */
void group_kill(struct group *group)
{
	group->killing = true;
	if (group->cgroup != NULL)
		cgroup_kill(group->cgroup);
	signal_members(group, SIGKILL);
	for (unsigned pass = 0; pass < KILL_PASSES && look(group); pass++)
		continue;
}

static bool descends(const struct group *group, pid_t pid)
{
	struct proc_stat stat;
	for (unsigned i = 0; i < ANCESTORS_MAX && pid > 1 && pid != getpid(); i++) {
		const struct member *member = find_member(group, pid);
		if (proc_read_stat(pid, &stat) < 0)
			return false;
		if (member != NULL && member->start_ticks == stat.start_ticks)
			return true;
		if (belongs_itself(group, &stat))
			return true;
		pid = stat.ppid;
	}
	return false;
}

bool group_owns(struct group *group, pid_t pid)
{
	return group->cgroup != NULL ? cgroup_has(group->cgroup, pid) : descends(group, pid);
}

void group_check(struct group *group)
{
	look_and_finish(group);
}
