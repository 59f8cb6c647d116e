/*
 * What a service has written into its log, shown to people and clients: its end is its end, byte for byte, and messages
 * hold nothing that a terminal would obey. Input: how many lines, where a follower stands, the older file, a zero, the
 * current one.
 */
#include "base/log_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"
#include "scratch.h"

#define COLUMNS_MAX 300

static char path[256], older_path[260];

static void write_file(const char *name, const char *text, size_t length)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, text, length) == (ssize_t)length);
	close(fd);
}

/* An end of a line at the very end begins no new line. */
static size_t count_lines(const char *text, size_t length)
{
	size_t n = length > 0;
	for (size_t i = 0; i + 1 < length; i++)
		n += text[i] == '\n';
	return n;
}

/* `whole` is the older file and the current one. */
static void check_tail(const char *whole, size_t whole_length, size_t current_length, size_t n_lines)
{
	char *text = NULL;
	uint64_t offset = 0;
	FUZZ_CHECK(log_file_tail(path, n_lines, &text, &offset) == 0 && offset == current_length);
	size_t length = strlen(text);
	FUZZ_CHECK(length <= whole_length && count_lines(text, length) <= n_lines);
	const char *end = whole + whole_length - length;
	for (size_t i = 0; i < length; i++)
		FUZZ_CHECK(text[i] == (end[i] == '\0' ? '?' : end[i]));
	/* It begins with a line, and there are as many as were asked for, or all. */
	FUZZ_CHECK(end == whole || length == 0 || end[-1] == '\n');
	FUZZ_CHECK(end == whole || count_lines(text, length) == n_lines);
	free(text);
}

static void check_words(uint64_t offset, size_t n_lines)
{
	char *words = log_file_last_words(path, offset, n_lines);
	FUZZ_CHECK(words != NULL && count_lines(words, strlen(words)) <= n_lines);
	size_t column = 0;
	for (const char *c = words; *c != '\0'; c++) {
		FUZZ_CHECK((unsigned char)*c >= ' ' || *c == '\n' || *c == '\t');
		column = *c == '\n' ? 0 : column + 1;
		FUZZ_CHECK(column <= COLUMNS_MAX && *c != 0x7f);
	}
	free(words);
}

static void check_follower(uint64_t offset, size_t older_length, size_t current_length)
{
	char *text = NULL;
	size_t length = 0, got = 0;
	for (unsigned i = 0; i < 8; i++) {
		FUZZ_CHECK(log_file_since(path, &offset, &text, &length) == 0 && offset <= current_length);
		FUZZ_CHECK(text != NULL || length == 0);
		got += length;
		free(text);
		if (length == 0)
			break;
	}
	FUZZ_CHECK(length == 0 && offset == current_length && got <= older_length + current_length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	size_t n_lines = fuzz_u8(&input), older_length, current_length;
	uint64_t offset = fuzz_u16(&input);
	char *older = fuzz_text(&input, '\0', &older_length);
	char *current = fuzz_rest(&input, &current_length);
	char *whole = malloc(older_length + current_length + 1);
	FUZZ_CHECK(whole != NULL);
	memcpy(whole, older, older_length);
	memcpy(whole + older_length, current, current_length);
	if (path[0] == '\0') {
		snprintf(path, sizeof(path), "%s/service.log", scratch_folder());
		snprintf(older_path, sizeof(older_path), "%s.1", path);
	}
	write_file(path, current, current_length);
	write_file(older_path, older, older_length);
	check_tail(whole, older_length + current_length, current_length, n_lines);
	check_words(offset, n_lines);
	check_follower(offset, older_length, current_length);
	free(older);
	free(current);
	free(whole);
	return 0;
}
