/* The one mutable global of the program: how much is logged, and how. No line is ever split between two writes. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level log_most = LOG_LEVEL_INFO;
static bool log_journald;

#define LINE_MAX_SIZE 2048

static struct {
	bool collects;
	size_t used;
	char bytes[8 * LINE_MAX_SIZE];
} pending;

static const struct {
	const char *word;
	int syslog; /* sd-daemon(3): "<N>" in front of a line */
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", 3 },
	[LOG_LEVEL_WARNING] = { "warning", 4 },
	[LOG_LEVEL_INFO] = { "info", 6 },
	[LOG_LEVEL_DEBUG] = { "debug", 7 },
};

void log_setup(enum log_level most, bool journald)
{
	log_most = most;
	log_journald = journald;
}

static int put_prefix(char *line, size_t size, enum log_level level)
{
	if (log_journald)
		return snprintf(line, size, "<%d>", levels[level].syslog);
	struct timespec now;
	struct tm broken_down;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &broken_down);
	return snprintf(line, size, "%02d:%02d:%02d.%03ld %s ", broken_down.tm_hour, broken_down.tm_min,
		broken_down.tm_sec, now.tv_nsec / 1000000, levels[level].word);
}

static void write_out(const char *bytes, size_t n)
{
	ssize_t ignored = n > 0 ? write(STDERR_FILENO, bytes, n) : 0;
	(void)ignored; /* there is nobody left to tell */
}

void log_collect(void)
{
	pending.collects = true;
}

void log_flush(void)
{
	write_out(pending.bytes, pending.used);
	pending.used = 0;
}

static void put_line(const char *line, size_t n, bool at_once)
{
	if (!pending.collects) {
		write_out(line, n);
		return;
	}
	if (n > sizeof(pending.bytes) - pending.used)
		log_flush();
	memcpy(pending.bytes + pending.used, line, n);
	pending.used += n;
	if (at_once)
		log_flush();
}

void log_line(enum log_level level, const char *format, ...)
{
	if (level > log_most)
		return;
	int saved_errno = errno;
	char line[LINE_MAX_SIZE];
	size_t room = sizeof(line) - 1;
	size_t used = (size_t)put_prefix(line, room, level);
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line + used, room - used, format, args);
	va_end(args);
	if (length > 0)
		used += (size_t)length < room - used ? (size_t)length : room - used - 1;
	for (size_t i = 0; i < used; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = ' '; /* a name or message from outside must not forge a line of its own */
	line[used++] = '\n';
	put_line(line, used, level <= LOG_LEVEL_WARNING);
	errno = saved_errno;
}
