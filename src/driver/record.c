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
#include "base/clock.h"

#define CONTAINER_WORD "container"
#define CONTAINER_TEXT_SIZE 160

struct record {
	pid_t pid, session;
	uint64_t start_ticks;
	char container[CONTAINER_TEXT_SIZE]; /* "ID STARTED_AT" instead of the above; "": a process */
	uint64_t asked_ms; /* of CLOCK_BOOTTIME: when another life of it was asked for; 0: it is of this one */
	bool stopping;
	char boot[CLOCK_BOOT_ID_SIZE];
};

char *record_path(const char *state_dir, const char *service)
{
	char *path;
	return asprintf(&path, "%s/%s.run", state_dir, service) >= 0 ? path : NULL;
}

static int format_record(const struct record *record, char *line, size_t size)
{
	const char *end = record->stopping ? " stopping" : "";
	if (record->asked_ms > 0)
		return snprintf(line, size, CONTAINER_WORD " %s %s starting %" PRIu64 "%s\n", record->container,
			record->boot, record->asked_ms, end);
	if (record->container[0] != '\0')
		return snprintf(line, size, CONTAINER_WORD " %s %s%s\n", record->container, record->boot, end);
	return snprintf(line, size, "%d %" PRIu64 " %d %s%s\n", (int)record->pid, record->start_ticks,
		(int)record->session, record->boot, end);
}

static int write_record(const char *path, const struct record *record)
{
	char line[320];
	CLEANUP_FREE char *temporary = NULL;
	if (asprintf(&temporary, "%s.new", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	int length = format_record(record, line, sizeof(line));
	CLEANUP_CLOSE int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, line, (size_t)length) != length || rename(temporary, path) < 0) {
		int r = errno != 0 ? -errno : -EIO;
		unlink(temporary);
		return r;
	}
	return 0;
}

int record_write(const char *path, pid_t pid, pid_t session)
{
	struct proc_stat stat;
	int r = proc_read_stat(pid, &stat);
	if (r < 0)
		return r;
	struct record record = { .pid = pid, .session = session, .start_ticks = stat.start_ticks };
	clock_boot_id(record.boot);
	return write_record(path, &record);
}

/* A life without a start, or with one that has spaces in it, is nothing to know it by. */
static int name_life(const char *id, const char *started_at, char *text)
{
	int length = snprintf(text, CONTAINER_TEXT_SIZE, "%s %s", id, started_at);
	bool is_whole = length > 0 && length < CONTAINER_TEXT_SIZE && strcspn(started_at, " \n") > 0 &&
		started_at[strcspn(started_at, " \n")] == '\0';
	return is_whole ? 0 : -EINVAL;
}

static int write_of_container(const char *path, const char *id, const char *started_at, struct record record)
{
	int r = name_life(id, started_at, record.container);
	if (r < 0)
		return r;
	clock_boot_id(record.boot);
	return write_record(path, &record);
}

int record_write_container(const char *path, const char *id, const char *started_at, bool is_stopping)
{
	return write_of_container(path, id, started_at, (struct record){ .stopping = is_stopping });
}

int record_write_start(const char *path, const char *id, const char *started_at)
{
	return write_of_container(path, id, started_at, (struct record){ .asked_ms = clock_boot_ms() });
}

void record_remove(const char *path)
{
	unlink(path);
}

static bool parse_process(const char *text, struct record *record, int *ret_end)
{
	int pid, session;
	if (sscanf(text, "%d %" SCNu64 " %d %63s%n", &pid, &record->start_ticks, &session, record->boot, ret_end) != 4)
		return false;
	record->pid = pid;
	record->session = session;
	return pid > 1 && session >= 0;
}

static bool parse_container(const char *text, struct record *record, int *ret_end)
{
	char id[80], started_at[64];
	int length = 0;
	if (sscanf(text, CONTAINER_WORD " %79s %63s %63s%n", id, started_at, record->boot, ret_end) != 3 ||
		name_life(id, started_at, record->container) < 0)
		return false;
	if (sscanf(text + *ret_end, " starting %" SCNu64 "%n", &record->asked_ms, &length) == 1)
		*ret_end += length;
	return true;
}

static int read_record(const char *path, struct record *record)
{
	char text[320], boot[CLOCK_BOOT_ID_SIZE];
	int end = 0;
	*record = (struct record){ 0 };
	if (proc_read_file(path, text, sizeof(text)) < 0)
		return -ESRCH;
	bool is_container = strncmp(text, CONTAINER_WORD " ", strlen(CONTAINER_WORD " ")) == 0;
	clock_boot_id(boot);
	if (!(is_container ? parse_container : parse_process)(text, record, &end) || strcmp(record->boot, boot) != 0)
		return -ESRCH;
	record->stopping = strncmp(text + end, " stopping", 9) == 0;
	return 0;
}

void record_note_stop(const char *path)
{
	struct record record;
	if (read_record(path, &record) < 0 || record.stopping)
		return;
	record.stopping = true;
	write_record(path, &record);
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

int record_find(const char *path, const char *mark, struct record_trace *ret_trace)
{
	struct record record;
	struct proc_stat stat;
	int r = read_record(path, &record);
	if (r < 0)
		return r;
	if (record.container[0] != '\0')
		return -ESRCH;
	bool is_there = proc_read_stat(record.pid, &stat) == 0 && stat.start_ticks == record.start_ticks &&
		proc_is_alive(&stat);
	if (!is_there)
		r = find_in_session(&record, mark, &stat);
	if (r < 0)
		return r;
	*ret_trace = (struct record_trace){
		.stat = stat,
		.session = record.session,
		.stopping = record.stopping,
	};
	return 0;
}

static enum record_match match(const struct record *record, const char *id, const char *life, uint64_t within_ms)
{
	bool is_same_life = strcmp(record->container, life) == 0;
	size_t length = strlen(id);
	bool is_same = strncmp(record->container, id, length) == 0 && record->container[length] == ' ';
	if (record->asked_ms == 0)
		return is_same_life ? RECORD_OF_LIFE : RECORD_OF_OTHERS;
	bool is_recent = clock_boot_ms() - record->asked_ms <= within_ms;
	return is_same && !is_same_life && is_recent ? RECORD_OF_START : RECORD_OF_OTHERS;
}

enum record_match record_match_container(
	const char *path, const char *id, const char *started_at, uint64_t within_ms, bool *ret_stopping)
{
	struct record record;
	char life[CONTAINER_TEXT_SIZE];
	bool is_readable = name_life(id, started_at, life) == 0 && read_record(path, &record) == 0;
	enum record_match found = is_readable ? match(&record, id, life, within_ms) : RECORD_OF_OTHERS;
	*ret_stopping = found != RECORD_OF_OTHERS && record.stopping;
	return found;
}
