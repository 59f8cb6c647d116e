/* The file lock.redis: lines of a word and a value. Knows nothing of Redis. */
#include "lock/redis_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FIRST_LINE "gpumgr lock 1"
#define FILE_MAX 4096
#define FILE_SIZE 2048 /* always, so that it can be written over; what is behind the lines is empty */
#define KEY_MAX 1000
#define FENCE_MAX ((UINT64_C(1) << 53) - 1)
#define FENCE_FORMAT "%016llu" /* it has so many digits */
#define FENCE_DIGITS 16

static bool take_number(const char *text, uint64_t max, uint64_t *ret_number)
{
	char *end;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || errno != 0 || (*end != '\0' && *end != ' ') || number > max)
		return false;
	*ret_number = number;
	return true;
}

static bool take_text(const char *text, char *buffer, size_t size)
{
	if (strlen(text) >= size)
		return false;
	memcpy(buffer, text, strlen(text) + 1);
	return true;
}

/* UNTIL BOOT_ID */
static bool take_belief(const char *text, struct redis_record *record)
{
	uint64_t until;
	const char *space = strchr(text, ' ');
	if (space == NULL || !take_number(text, UINT64_MAX, &until))
		return false;
	bool is_this_boot = record->boot_id[0] != '\0' && strcmp(space + 1, record->boot_id) == 0;
	record->believed_until = is_this_boot ? until : 0;
	return true;
}

static bool take_line(
	const char *word, const char *value, const char *key, bool *is_other_key, struct redis_record *record)
{
	if (strcmp(word, "key") == 0)
		*is_other_key = strcmp(value, key) != 0;
	else if (strcmp(word, "server") == 0)
		return take_text(value, record->server, sizeof(record->server));
	else if (strcmp(word, "value") == 0)
		return take_text(value, record->value, sizeof(record->value));
	else if (strcmp(word, "until") == 0)
		return take_belief(value, record);
	else if (strcmp(word, "fences") == 0)
		return take_number(value, FENCE_MAX, &record->fence);
	return true; /* a later version may know more */
}

/* The fences grow whatever the key is called. */
static void forget_all_but_fences(struct redis_record *record)
{
	record->server[0] = record->value[0] = '\0';
	record->believed_until = 0;
}

/* False: damaged. */
static bool parse(char *text, const char *key, struct redis_record *record)
{
	bool is_other_key = true;
	char *rest = text;
	char *line = strsep(&rest, "\n");
	if (strcmp(line, FIRST_LINE) != 0)
		return false;
	while (rest != NULL && rest[0] != '\0' && rest[0] != '\n') {
		line = strsep(&rest, "\n");
		if (rest == NULL)
			return false; /* cut */
		char *space = strchr(line, ' ');
		if (space == NULL)
			return false;
		*space = '\0';
		if (!take_line(line, space + 1, key, &is_other_key, record))
			return false;
	}
	if (is_other_key)
		forget_all_but_fences(record);
	return true;
}

static int read_file(const char *path, char *buffer, size_t size)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, buffer, size - 1);
	if (n < 0)
		return -errno;
	buffer[n] = '\0';
	return (size_t)n == size - 1 || memchr(buffer, '\0', (size_t)n) != NULL ? -EBADMSG : 0;
}

/* As create_file() makes them, and nobody else's. */
static bool is_own_file(const struct stat *status)
{
	return S_ISREG(status->st_mode) && (status->st_mode & 07777) == 0600 && status->st_size == FILE_SIZE &&
		status->st_nlink == 1 && status->st_uid == geteuid();
}

/* -1: there is none, or it must be made anew. */
static int open_to_write_over(const char *path)
{
	struct stat status;
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) < 0 || !is_own_file(&status))
		return -1;
	return TAKE_FD(fd);
}

int redis_record_open(
	const char *state_dir, const char *key, struct redis_record *ret_record, struct error *ret_problem)
{
	char text[FILE_MAX], printed[KEY_MAX];
	redis_value_print(printed, sizeof(printed), key, strlen(key));
	struct redis_record record = { .key = strdup(printed), .fd = -1 };
	ret_problem->message[0] = '\0';
	clock_boot_id(record.boot_id);
	if (asprintf(&record.path, "%s/lock.redis", state_dir) < 0)
		record.path = NULL;
	if (record.path == NULL || record.key == NULL) {
		redis_record_close(&record);
		return error_set(ret_problem, -ENOMEM, "lock: there is no memory");
	}
	int r = read_file(record.path, text, sizeof(text));
	if (r == 0 && !parse(text, printed, &record))
		r = -EBADMSG;
	if (r == 0)
		record.fd = open_to_write_over(record.path);
	if (r < 0 && r != -ENOENT) {
		forget_all_but_fences(&record);
		error_set(ret_problem, r,
			"lock: %s is not readable (%s): what this host held before is not known, and is waited for",
			record.path, r == -EBADMSG ? "it is damaged" : strerror(-r));
	}
	*ret_record = record;
	return 0;
}

/* The fence comes last, and always takes the same room. Returns where. */
static long format(const struct redis_record *record, char *buffer)
{
	size_t size = FILE_SIZE;
	memset(buffer, '\n', size);
	int n = snprintf(buffer, size, FIRST_LINE "\nkey %s\n", record->key);
	if (record->server[0] != '\0')
		n += snprintf(buffer + n, size - (size_t)n, "server %s\n", record->server);
	if (record->value[0] != '\0')
		n += snprintf(buffer + n, size - (size_t)n, "value %s\nuntil %llu %s\n", record->value,
			(unsigned long long)record->believed_until, record->boot_id);
	n += snprintf(buffer + n, size - (size_t)n, "fences ");
	long fence_offset = n;
	n += snprintf(buffer + n, size - (size_t)n, FENCE_FORMAT "\n", (unsigned long long)record->fence);
	buffer[n] = '\n';
	return fence_offset;
}

static int set_error(const struct redis_record *record, int r, struct error *err)
{
	return error_set(
		err, r, "%s cannot be written: %s; make room, or let gpumgrd write there", record->path, strerror(-r));
}

static int write_at(int fd, const char *text, size_t n, off_t offset)
{
	ssize_t written = pwrite(fd, text, n, offset);
	return written < 0 ? -errno : (size_t)written == n ? 0 : -ENOSPC;
}

static void close_file(struct redis_record *record)
{
	if (record->path != NULL && record->fd >= 0)
		close(record->fd);
	record->fd = -1;
}

static int create_file(struct redis_record *record, const char *text)
{
	CLEANUP_FREE char *new_path = NULL;
	if (asprintf(&new_path, "%s.new", record->path) < 0) {
		new_path = NULL;
		return -ENOMEM;
	}
	CLEANUP_CLOSE int fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int r = write_at(fd, text, FILE_SIZE, 0);
	if (r == 0 && rename(new_path, record->path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(new_path);
		return r;
	}
	close_file(record);
	record->fd = TAKE_FD(fd);
	return 0;
}

/* Not when somebody removed it. */
static bool has_file(const struct redis_record *record)
{
	struct stat status;
	return record->fd >= 0 && fstat(record->fd, &status) == 0 && status.st_nlink > 0;
}

int redis_record_write(struct redis_record *record, struct error *err)
{
	char text[FILE_SIZE];
	long fence_offset = format(record, text);
	/* A rename over a file that is there makes some file systems write to the disk. */
	int r = has_file(record) ? write_at(record->fd, text, sizeof(text), 0) : create_file(record, text);
	if (r < 0)
		return set_error(record, r, err);
	record->fence_offset = fence_offset;
	return 0;
}

int redis_record_note_fence(struct redis_record *record, uint64_t fence, struct error *err)
{
	char text[FENCE_DIGITS + 1];
	record->fence = fence;
	if (!has_file(record) || record->fence_offset == 0)
		return redis_record_write(record, err);
	snprintf(text, sizeof(text), FENCE_FORMAT, (unsigned long long)fence);
	int r = write_at(record->fd, text, FENCE_DIGITS, record->fence_offset);
	return r < 0 ? set_error(record, r, err) : 0;
}

void redis_record_remove(struct redis_record *record)
{
	close_file(record);
	unlink(record->path);
}

void redis_record_close(struct redis_record *record)
{
	close_file(record);
	free(record->path);
	free(record->key);
	record->path = record->key = NULL;
}
