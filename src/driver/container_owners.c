/* Processes and their containers. Reads /proc, at most once a second for each process; asks no engine. */
#include "driver/container_owners.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/proc.h"

#define TABLE_SIZE 256
#define KEPT_MS 1000
#define ID_LENGTH 64
#define HELPER "conmon-"

struct entry {
	pid_t pid;
	uint64_t until_ms;
	size_t n_ids;
	char ids[CONTAINER_IDS_MAX][ID_LENGTH + 1];
};

struct container_owners {
	unsigned n_references;
	struct entry entries[TABLE_SIZE];
};

int container_owners_acquire(struct driver_shared *shared)
{
	if (shared->owners == NULL)
		shared->owners = calloc(1, sizeof(*shared->owners));
	if (shared->owners == NULL)
		return -ENOMEM;
	shared->owners->n_references++;
	return 0;
}

void container_owners_release(struct driver_shared *shared)
{
	if (--shared->owners->n_references > 0)
		return;
	free(shared->owners);
	shared->owners = NULL;
}

static void add_id(char ids[CONTAINER_IDS_MAX][ID_LENGTH + 1], size_t *n, const char *id)
{
	for (size_t i = 0; i < *n; i++)
		if (memcmp(ids[i], id, ID_LENGTH) == 0)
			return;
	if (*n == CONTAINER_IDS_MAX)
		return;
	memcpy(ids[*n], id, ID_LENGTH);
	ids[(*n)++][ID_LENGTH] = '\0';
}

static bool is_of_helper(const char *text, const char *id)
{
	size_t length = strlen(HELPER);
	return (size_t)(id - text) >= length && memcmp(id - length, HELPER, length) == 0;
}

/* A run of exactly 64 hexadecimal digits that nothing but separators touches. */
size_t container_parse_cgroup(const char *text, char ids[CONTAINER_IDS_MAX][65])
{
	size_t n = 0;
	for (const char *c = text; *c != '\0';) {
		size_t length = strspn(c, "0123456789abcdef");
		bool is_begin = c == text || strchr("/-\n:", c[-1]) != NULL;
		bool is_end = strchr("/.\n", c[length]) != NULL; /* also at the end of the text */
		if (length == ID_LENGTH && is_begin && is_end && !is_of_helper(text, c))
			add_id(ids, &n, c);
		c += length > 0 ? length : 1;
	}
	return n;
}

static size_t read_ids(pid_t pid, char ids[CONTAINER_IDS_MAX][ID_LENGTH + 1])
{
	char path[64], text[8192];
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	if (proc_read_file(path, text, sizeof(text)) < 0)
		return 0;
	return container_parse_cgroup(text, ids);
}

static bool is_in(char ids[CONTAINER_IDS_MAX][ID_LENGTH + 1], size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(ids[i], id) == 0)
			return true;
	return false;
}

bool container_owners_has(struct container_owners *owners, pid_t pid, const char *id, uint64_t now_ms)
{
	struct entry *entry = &owners->entries[(unsigned)pid % TABLE_SIZE];
	if (entry->pid != pid || now_ms >= entry->until_ms) {
		entry->pid = pid;
		entry->until_ms = now_ms + KEPT_MS;
		entry->n_ids = read_ids(pid, entry->ids);
	}
	return is_in(entry->ids, entry->n_ids, id);
}

bool container_has_process(const char *id, pid_t pid)
{
	char ids[CONTAINER_IDS_MAX][ID_LENGTH + 1];
	return is_in(ids, read_ids(pid, ids), id);
}
