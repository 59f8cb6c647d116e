/* The record of a running service. A record of another boot, or one that cannot be parsed, says nothing. */
#include "driver/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

struct record {
	pid_t pid, session;
	uint64_t start_ticks;
	char boot[64];
};

char *record_path(const char *state_dir, const char *service)
{
	char *path;
	return asprintf(&path, "%s/%s.run", state_dir, service) >= 0 ? path : NULL;
}

static int read_boot(char *buffer, size_t size)
{
	ssize_t n = proc_read_file("/proc/sys/kernel/random/boot_id", buffer, size);
	if (n < 0)
		return (int)n;
	buffer[strcspn(buffer, "\n")] = '\0';
	return 0;
}

int record_write(const char *path, pid_t pid, pid_t session)
{
	struct proc_stat stat;
	char boot[64], line[192];
	CLEANUP_FREE char *temporary = NULL;
	int r = proc_read_stat(pid, &stat);
	if (r == 0)
		r = read_boot(boot, sizeof(boot));
	if (r < 0)
		return r;
	if (asprintf(&temporary, "%s.new", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	int length =
		snprintf(line, sizeof(line), "%d %" PRIu64 " %d %s\n", (int)pid, stat.start_ticks, (int)session, boot);
	CLEANUP_CLOSE int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, line, (size_t)length) != length || rename(temporary, path) < 0) {
		r = -errno;
		unlink(temporary);
		return r;
	}
	return 0;
}

void record_remove(const char *path)
{
	unlink(path);
}

static int read_record(const char *path, struct record *record)
{
	char text[192], boot[64];
	int pid, session;
	if (proc_read_file(path, text, sizeof(text)) < 0 || read_boot(boot, sizeof(boot)) < 0)
		return -ESRCH;
	if (sscanf(text, "%d %" SCNu64 " %d %63s", &pid, &record->start_ticks, &session, record->boot) != 4)
		return -ESRCH;
	if (pid <= 1 || session < 0 || strcmp(record->boot, boot) != 0)
		return -ESRCH;
	record->pid = pid;
	record->session = session;
	return 0;
}

/* The number of a session is taken as long as anybody is in it; the mark excludes that it was taken anew. */
static int find_in_session(const struct record *record, const char *mark, struct proc_stat *ret_stat)
{
	struct proc_list list;
	struct proc_stat first = { 0 };
	if (record->session <= 0 || proc_list_all(&list) < 0)
		return -ESRCH;
	for (size_t i = 0; i < list.n; i++) {
		const struct proc_stat *stat = &list.items[i];
		if (stat->session != record->session || !proc_is_alive(stat) ||
			stat->start_ticks < record->start_ticks || !proc_has_environment(stat->pid, mark))
			continue;
		if (first.pid == 0 || proc_is_older(stat, &first))
			first = *stat;
	}
	free(list.items);
	if (first.pid == 0)
		return -ESRCH;
	*ret_stat = first;
	return 0;
}

int record_find(const char *path, const char *mark, struct proc_stat *ret_stat, pid_t *ret_session)
{
	struct record record;
	struct proc_stat stat;
	int r = read_record(path, &record);
	if (r < 0)
		return r;
	if (proc_read_stat(record.pid, &stat) == 0 && stat.start_ticks == record.start_ticks && proc_is_alive(&stat)) {
		*ret_stat = stat;
		*ret_session = record.session;
		return 0;
	}
	r = find_in_session(&record, mark, ret_stat);
	if (r == 0)
		*ret_session = record.session;
	return r;
}
